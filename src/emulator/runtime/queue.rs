//! Asynchronous invocations: accepted immediately, sent to the server as permits become free, and
//! answered in S3. Accepted invocations without a response are lost when the program ends.

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

/// Maximum size of an input or a response in bytes.
const LARGEST: u64 = 1 << 30;

/// The queue of an endpoint.
pub struct Queue {
    container: Container,
    objects: Objects,
    output: Location,
    failure: Option<Location>,
    places: Semaphore,
}

/// The input of a request.
pub enum Input {
    /// An object in S3.
    Object(Location),
    /// Inline in the call.
    Inline(Bytes),
}

/// An invocation.
pub struct Invocation {
    /// The request.
    pub input: Input,
    /// The headers passed to the server.
    pub headers: HeaderMap,
    /// How long it may wait and run, counted from acceptance.
    pub time_to_live: Duration,
    /// Time limit of the server.
    pub timeout: Duration,
}

/// Where the response to an invocation will be written.
#[derive(Debug, Clone)]
pub struct Accepted {
    /// The location for a success.
    pub output: Location,
    /// The location for a failure.
    pub failure: Option<Location>,
}

impl Queue {
    /// Creates a queue in front of `container` that runs up to `concurrency` invocations at a time.
    pub fn new(
        container: Container,
        objects: Objects,
        output: Location,
        failure: Option<Location>,
        concurrency: usize,
    ) -> Self {
        Self { container, objects, output, failure, places: Semaphore::new(concurrency) }
    }

    /// Accepts an invocation, which is answered later.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] if a bucket for the response does not exist.
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

    /// Returns the body of the response, or the text of the failure.
    async fn run(&self, invocation: Invocation) -> Result<Bytes, Bytes> {
        let expires = Instant::now() + invocation.time_to_live;
        // The permit is held to the end of this function.
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
