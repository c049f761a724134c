//! Asynchronous invocations: accepted at once, sent to the server as places become free, answered in
//! S3. What was accepted and not answered is lost when the program ends.

use std::sync::Arc;
use std::time::Duration;

use axum::http::{HeaderMap, Method, StatusCode};
use bytes::Bytes;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};
use uuid::Uuid;

use super::super::objects::{Location, Objects};
use super::container::{Answer, Container, Message, Trouble};
use crate::error::{Error, ErrorKind, Result};

/// Bytes of an input or of an answer.
const LARGEST: u64 = 1 << 30;

/// The queue of an endpoint.
pub struct Queue {
    container: Container,
    objects: Objects,
    output: Location,
    failure: Option<Location>,
    places: Semaphore,
}

/// Where a request is.
pub enum Input {
    /// In S3.
    Object(Location),
    /// In the call itself.
    Inline(Bytes),
}

/// An invocation.
pub struct Invocation {
    /// The request.
    pub input: Input,
    /// What the server is told of it.
    pub headers: HeaderMap,
    /// How long it may wait and run, counted from now.
    pub time_to_live: Duration,
    /// How long the server may take.
    pub timeout: Duration,
}

/// Where the answer to an invocation will be.
#[derive(Debug, Clone)]
pub struct Accepted {
    /// Of a success.
    pub output: Location,
    /// Of a failure.
    pub failure: Option<Location>,
}

impl Queue {
    /// A queue before `container` that lets `concurrency` invocations run at once.
    pub fn new(
        container: Container,
        objects: Objects,
        output: Location,
        failure: Option<Location>,
        concurrency: usize,
    ) -> Self {
        Self { container, objects, output, failure, places: Semaphore::new(concurrency) }
    }

    /// Takes an invocation in; its answer comes later.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] where there is no bucket for the answer.
    pub fn accept(self: &Arc<Self>, invocation: Invocation) -> Result<Accepted> {
        let id = Uuid::new_v4();
        let accepted = Accepted {
            output: self.output.join(&format!("{id}.out")),
            failure: self.failure.as_ref().map(|prefix| prefix.join(&format!("{id}-error.out"))),
        };
        for location in [Some(&accepted.output), accepted.failure.as_ref()].into_iter().flatten() {
            self.objects.bucket(&location.bucket)?;
        }
        let (queue, places) = (Arc::clone(self), accepted.clone());
        tokio::spawn(async move { queue.work(invocation, places).await });
        Ok(accepted)
    }

    async fn work(&self, invocation: Invocation, accepted: Accepted) {
        let ended = self.run(invocation).await;
        let (location, bytes) = match ended {
            Ok(answer) => (Some(accepted.output), answer),
            Err(failure) => {
                tracing::warn!(output = %accepted.output, "an asynchronous invocation failed");
                (accepted.failure, failure)
            }
        };
        let Some(location) = location else { return };
        let objects = self.objects.clone();
        let written = blocking(move || objects.create(&location, &bytes)).await;
        if let Err(error) = written {
            tracing::error!(%error, "the answer to an asynchronous invocation could not be written");
        }
    }

    /// The body of the answer, or of what is told of the failure.
    async fn run(&self, invocation: Invocation) -> Result<Bytes, Bytes> {
        let expires = Instant::now() + invocation.time_to_live;
        // Kept to the end of this function.
        let Ok(Ok(_place)) = timeout_at(expires, self.places.acquire()).await else {
            return Err(Bytes::from("the request waited longer than RequestTTLSeconds allows"));
        };
        let body = self.read(invocation.input).await;
        let body = body.map_err(|e| Bytes::from(format!("the input: {}", e.message())))?;
        let message = Message {
            method: Method::POST,
            path: "/invocations".to_owned(),
            headers: invocation.headers,
            body,
        };
        let deadline = expires.min(Instant::now() + invocation.timeout);
        match self.container.send(message, deadline, LARGEST as usize).await {
            Ok(Answer { status: StatusCode::OK, body, .. }) => Ok(body),
            Ok(answer) => Err(answer.body),
            Err(Trouble::Late) => Err(Bytes::from(
                "the server did not answer within InvocationTimeoutSeconds and RequestTTLSeconds",
            )),
            Err(Trouble::TooLarge(limit)) => {
                Err(Bytes::from(format!("the answer is larger than {limit} bytes")))
            }
            Err(Trouble::Unreachable(problem)) => {
                Err(Bytes::from(format!("the endpoint's server cannot be reached: {problem}")))
            }
        }
    }

    async fn read(&self, input: Input) -> Result<Bytes> {
        let location = match input {
            Input::Inline(bytes) => return Ok(bytes),
            Input::Object(location) => location,
        };
        let objects = self.objects.clone();
        blocking(move || {
            let file = objects.file(&location)?;
            let size = std::fs::metadata(&file).map_or(0, |m| m.len());
            if size > LARGEST {
                let problem = format!("{location} is larger than {LARGEST} bytes");
                return Err(Error::new(ErrorKind::PayloadTooLarge, problem));
            }
            Ok(Bytes::from(objects.read(&location)?))
        })
        .await
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|_| Err(Error::internal("reading or writing an object panicked")))
}
