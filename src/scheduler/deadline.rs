//! Request deadlines.

use std::time::Duration;

use tokio::time::Instant;

use crate::error::{Error, ErrorKind};

/// The time by which a request must be answered, and the limit it results from.
#[derive(Debug, Clone, Copy)]
pub struct Deadline {
    at: Instant,
    limit: Duration,
    bound: Bound,
}

/// The setting that limits a request. It determines what to suggest if the limit is exceeded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bound {
    /// `REQUEST_TIMEOUT`.
    Request,
    /// `REQUEST_TIMEOUT`, for a request that would have more time as a stream.
    RequestOrStream,
    /// `STREAM_TIMEOUT`.
    Stream,
}

impl Bound {
    fn advice(self) -> &'static str {
        match self {
            Self::Request => {
                "send it to an asynchronous endpoint (InvokeEndpointAsync), or raise REQUEST_TIMEOUT \
                 where the caller waits longer"
            }
            Self::RequestOrStream => {
                "ask for a stream (InvokeEndpointWithResponseStream, Accept: application/jsonlines), \
                 which has STREAM_TIMEOUT, send it to an asynchronous endpoint (InvokeEndpointAsync), or \
                 raise REQUEST_TIMEOUT where the caller waits longer"
            }
            Self::Stream => {
                "send it to an asynchronous endpoint (InvokeEndpointAsync), or raise STREAM_TIMEOUT \
                 where the caller waits longer"
            }
        }
    }
}

impl Deadline {
    /// Creates a deadline `limit` from now, set by `REQUEST_TIMEOUT`.
    pub fn after(limit: Duration) -> Self {
        Self::since(Instant::now(), limit, Bound::Request)
    }

    /// Creates a deadline `limit` after `began`, set by `bound`.
    pub fn since(began: Instant, limit: Duration, bound: Bound) -> Self {
        Self { at: began + limit, limit, bound }
    }

    /// Returns the time limit of the request.
    pub fn limit(self) -> Duration {
        self.limit
    }

    /// Resolves once `deadline` has passed; never if there is none.
    pub async fn passed(deadline: Option<Self>) {
        match deadline {
            Some(deadline) => tokio::time::sleep_until(deadline.at).await,
            None => std::future::pending().await,
        }
    }

    /// Returns the error for a request that was still `doing` something at the deadline.
    pub fn exceeded(deadline: Option<Self>, doing: &str) -> Error {
        let seconds = deadline.map_or(0.0, |d| d.limit.as_secs_f64());
        let advice = deadline.map_or(Bound::Request, |d| d.bound).advice();
        Error::new(
            ErrorKind::DeadlineExceeded,
            format!("the request was still {doing} after its {seconds} s; {advice}"),
        )
        .with("seconds", seconds)
    }
}
