//! When a request has to be answered.

use std::time::Duration;

use tokio::time::Instant;

use crate::error::{Error, ErrorKind};

/// The moment a request has to be answered by, and how long it had.
#[derive(Debug, Clone, Copy)]
pub struct Deadline {
    at: Instant,
    limit: Duration,
}

impl Deadline {
    /// A deadline `limit` from now.
    pub fn after(limit: Duration) -> Self {
        Self { at: Instant::now() + limit, limit }
    }

    /// Resolves once `deadline` has passed, and never where there is none.
    pub async fn passed(deadline: Option<Self>) {
        match deadline {
            Some(deadline) => tokio::time::sleep_until(deadline.at).await,
            None => std::future::pending().await,
        }
    }

    /// The error for a request that was still `doing` something when the deadline passed.
    pub fn exceeded(deadline: Option<Self>, doing: &str) -> Error {
        let seconds = deadline.map_or(0.0, |d| d.limit.as_secs_f64());
        Error::new(
            ErrorKind::DeadlineExceeded,
            format!(
                "the request was still {doing} after its {seconds} s; send it to an asynchronous \
                 endpoint (InvokeEndpointAsync), or raise REQUEST_TIMEOUT where the caller waits \
                 longer"
            ),
        )
        .with("seconds", seconds)
    }
}
