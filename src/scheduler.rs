//! Admission: so many requests at once, so many waiting, a deadline for each, and an orderly end.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{Notify, Semaphore};
use tokio_util::sync::CancellationToken;

use crate::error::{Error, ErrorKind, Result};
use crate::pipeline::Invoke;
use crate::request::{InferenceRequest, Outcome};

/// Bounds of a [`Scheduler`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Requests that run at once.
    pub concurrent: usize,
    /// Requests that may wait beside those.
    pub queue: usize,
    /// How long a request may take, waiting included; `None` for as long as it wants.
    pub deadline: Option<Duration>,
}

impl Default for Limits {
    fn default() -> Self {
        Self { concurrent: 2, queue: 16, deadline: Some(Duration::from_secs(60)) }
    }
}

/// Lets requests through to the pipeline.
pub struct Scheduler {
    invoke: Arc<dyn Invoke>,
    limits: Limits,
    places: Arc<Semaphore>,
    admitted: Arc<Admitted>,
    cancel_all: CancellationToken,
}

/// Requests admitted and not answered, and who waits for their end.
#[derive(Default)]
struct Admitted {
    count: AtomicUsize,
    changed: Notify,
}

/// Counts one request as long as it lives.
struct Ticket(Arc<Admitted>);

impl Drop for Ticket {
    fn drop(&mut self) {
        self.0.count.fetch_sub(1, Ordering::AcqRel);
        self.0.changed.notify_waiters();
    }
}

impl Scheduler {
    /// In front of `invoke`.
    pub fn new(invoke: Arc<dyn Invoke>, limits: Limits) -> Self {
        Self {
            invoke,
            limits,
            places: Arc::new(Semaphore::new(limits.concurrent.max(1))),
            admitted: Arc::default(),
            cancel_all: CancellationToken::new(),
        }
    }

    /// Requests admitted and not answered yet.
    pub fn running(&self) -> usize {
        self.admitted.count.load(Ordering::Acquire)
    }

    /// Runs a request when its turn comes. Dropping the future cancels the request.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Overloaded`] where as many run and wait as may; [`ErrorKind::DeadlineExceeded`]
    /// once it took too long; whatever the request itself fails with.
    pub async fn run(&self, request: InferenceRequest) -> Result<Outcome> {
        let ticket = self.admit()?;
        let cancel = self.cancel_all.child_token();
        let hung_up = cancel.clone().drop_guard();
        let (invoke, places) = (self.invoke.clone(), self.places.clone());
        let token = cancel.clone();
        let waiting = async move {
            let place = places
                .acquire_owned()
                .await
                .map_err(|_| Error::new(ErrorKind::Unavailable, "the server is stopping"))?;
            // A task of its own, so that a panic in it is an error and not the connection's end, and
            // so that place and ticket are held until the work has really stopped.
            let span = tracing::Span::current();
            let work = tracing::Instrument::instrument(
                async move {
                    let _held = (place, ticket);
                    invoke.invoke(request, token).await
                },
                span,
            );
            tokio::spawn(work).await.unwrap_or_else(|_| {
                Err(Error::internal("the request failed unexpectedly; the server's log says more"))
            })
        };
        let result = match self.limits.deadline {
            None => waiting.await,
            Some(deadline) => tokio::time::timeout(deadline, waiting)
                .await
                .unwrap_or_else(|_| Err(deadline_exceeded(deadline))),
        };
        // Cancels what a deadline left running; does nothing to what is finished.
        drop(hung_up);
        result
    }

    fn admit(&self) -> Result<Ticket> {
        let most = self.limits.concurrent.max(1) + self.limits.queue;
        let admitted = |now: usize| (now < most).then_some(now + 1);
        match self.admitted.count.fetch_update(Ordering::AcqRel, Ordering::Acquire, admitted) {
            Ok(_) => Ok(Ticket(self.admitted.clone())),
            Err(now) => Err(Error::new(
                ErrorKind::Overloaded,
                format!("{now} requests are running or waiting, which is all that may; try later"),
            )),
        }
    }

    /// Waits until nothing runs any more; cancels what still does after `timeout` and gives it a
    /// moment to stop. Whether everything was finished in time.
    pub async fn drain(&self, timeout: Duration) -> bool {
        if tokio::time::timeout(timeout, self.idle()).await.is_ok() {
            return true;
        }
        tracing::warn!(running = self.running(), "cancelling what is not finished");
        self.cancel_all.cancel();
        let _ = tokio::time::timeout(Duration::from_secs(2), self.idle()).await;
        false
    }

    async fn idle(&self) {
        loop {
            let changed = self.admitted.changed.notified();
            tokio::pin!(changed);
            // Registered before the count is read, so that no change is missed.
            changed.as_mut().enable();
            if self.running() == 0 {
                return;
            }
            changed.await;
        }
    }
}

fn deadline_exceeded(deadline: Duration) -> Error {
    Error::new(
        ErrorKind::DeadlineExceeded,
        format!(
            "the request was not finished within {} s and was cancelled; a SageMaker asynchronous \
             endpoint (InvokeEndpointAsync) allows up to an hour, with --request-timeout set to it",
            deadline.as_secs()
        ),
    )
}
