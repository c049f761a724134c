//! Admission: bounded concurrency, a bounded queue, deadlines, cancellation, draining.
//!
//! Every request first gets a [`Ticket`], which draining waits for. Everything that belongs to a
//! request with a ticket is admitted, even after draining has begun.
//!
//! Work runs as a task of its own on a separate runtime, so that it cannot block the threads that
//! serve HTTP. A request holds its permits until its work has ended, not merely until its caller
//! has been answered: work that is slow to notice its cancellation still uses memory and cores, and
//! is still counted.

mod deadline;
mod queue;

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::task_tracker::TaskTrackerToken;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};
use tracing::Instrument;

pub use deadline::{Bound, Deadline};
use queue::Queue;

use crate::config::AdmissionSettings;
use crate::error::{Error, ErrorKind, Result};
use crate::pipeline::{Held, Invoke};
use crate::progress::Observer;
use crate::request::{InferenceRequest, Outcome};

/// Passes requests to the pipeline with bounded concurrency.
pub struct Scheduler {
    invoke: Arc<dyn Invoke>,
    work: Handle,
    /// One permit per running or waiting request.
    admission: Arc<Semaphore>,
    /// One permit per running request.
    running: Arc<Semaphore>,
    /// The order of the requests that wait for `running`.
    queue: Queue,
    /// One token per ticket.
    tracker: TaskTracker,
    /// Cancelled when no more tickets are issued.
    closing: CancellationToken,
    /// Cancelled when the remaining work has to end.
    stop: CancellationToken,
    settings: AdmissionSettings,
}

/// Permission to submit one request, or the requests of one batch body. Draining waits until its
/// holder has built the response and the work has ended.
#[derive(Debug, Clone)]
pub struct Ticket {
    _counted: Arc<TaskTrackerToken>,
}

/// An admitted request with its model lease and its permit. Dropping it releases both.
pub struct Admitted {
    request: InferenceRequest,
    held: Held,
    place: OwnedSemaphorePermit,
    ticket: Ticket,
}

/// An outcome with its timings.
#[derive(Debug)]
pub struct Scheduled {
    /// The outcome.
    pub outcome: Outcome,
    /// Time spent waiting for a permit.
    pub queued: Duration,
    /// Time spent in the pipeline.
    pub ran: Duration,
}

/// The load of a scheduler.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Load {
    /// Number of running requests.
    pub running: usize,
    /// Number of waiting requests.
    pub waiting: usize,
}

/// How draining ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Drained {
    /// All admitted requests finished.
    Finished,
    /// The given number of requests were still running or waiting and were cancelled.
    Cancelled(usize),
}

impl Admitted {
    /// Returns the number of inputs of the request.
    pub fn inputs(&self) -> usize {
        self.request.inputs.len()
    }
}

impl Scheduler {
    /// Creates a scheduler in front of `invoke`, whose work runs on the runtime `work`.
    pub fn new(invoke: Arc<dyn Invoke>, settings: AdmissionSettings, work: Handle) -> Self {
        let (running, waiting) = bounds(settings);
        Self {
            invoke,
            work,
            admission: Arc::new(Semaphore::new(running + waiting)),
            running: Arc::new(Semaphore::new(running)),
            queue: Queue::default(),
            tracker: TaskTracker::new(),
            closing: CancellationToken::new(),
            stop: CancellationToken::new(),
            settings,
        }
    }

    /// Issues a ticket for a request.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] if the server is stopping.
    pub fn ticket(&self) -> Result<Ticket> {
        // Counted before the check, so that a drain that begins in between still waits for it.
        let ticket = Ticket { _counted: Arc::new(self.tracker.token()) };
        self.ensure_open().map(|()| ticket)
    }

    /// Admits a request, to run now or to wait for its turn.
    ///
    /// # Errors
    /// [`ErrorKind::Overloaded`] if the queue is full; propagates the errors of [`Invoke::admit`].
    pub fn admit(&self, ticket: &Ticket, request: InferenceRequest) -> Result<Admitted> {
        let held = self.invoke.admit(&request)?;
        let place = Arc::clone(&self.admission).try_acquire_owned();
        let place = place.map_err(|_| self.overloaded())?;
        Ok(Admitted { request, held, place, ticket: ticket.clone() })
    }

    /// Runs an admitted request and reports its progress to `observer`. Dropping the future cancels
    /// the work, as does the deadline.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] if draining timed out, [`ErrorKind::DeadlineExceeded`],
    /// [`ErrorKind::Internal`] if the work panicked; propagates the errors of the pipeline.
    pub async fn run(
        &self,
        admitted: Admitted,
        deadline: Option<Deadline>,
        observer: Arc<dyn Observer>,
    ) -> Result<Scheduled> {
        let cancel = self.stop.child_token();
        let _cancel_on_drop = cancel.clone().drop_guard();
        let entered = Instant::now();
        if self.stop.is_cancelled() {
            return Err(stopped());
        }
        let permit = match Arc::clone(&self.running).try_acquire_owned() {
            Ok(permit) => permit,
            Err(_) => {
                let span = admitted.request.trace.begin("queue");
                let turn = self.turn(deadline, &*observer).await;
                span.end_with(&turn);
                turn?
            }
        };
        let queued = entered.elapsed();

        let started = Instant::now();
        observer.started();
        let invoke = Arc::clone(&self.invoke);
        let Admitted { request, held, place, ticket } = admitted;
        let places = Arc::new((ticket, place, permit));
        let work = async move { invoke.invoke(request, held, places, cancel, observer).await };
        let task = self.work.spawn(work.in_current_span());
        tokio::select! {
            biased;
            joined = task => match joined.map_err(died).flatten() {
                Ok(outcome) => Ok(Scheduled { outcome, queued, ran: started.elapsed() }),
                // The work may notice the stop before this future does.
                Err(_) if self.stop.is_cancelled() => Err(stopped()),
                Err(error) => Err(error),
            },
            () = self.stop.cancelled() => Err(stopped()),
            () = Deadline::passed(deadline) => Err(Deadline::exceeded(deadline, "being worked on")),
        }
    }

    /// Waits for a permit to run.
    async fn turn(
        &self,
        deadline: Option<Deadline>,
        observer: &dyn Observer,
    ) -> Result<OwnedSemaphorePermit> {
        let mut permit = pin!(Arc::clone(&self.running).acquire_owned());
        let mut place = self.queue.enter();
        loop {
            observer.queued(place.number());
            tokio::select! {
                biased;
                () = self.stop.cancelled() => return Err(stopped()),
                permit = permit.as_mut() => {
                    return permit.map_err(|_| Error::internal("the scheduler is gone"));
                }
                () = Deadline::passed(deadline) => {
                    return Err(Deadline::exceeded(deadline, "waiting for its turn"));
                }
                () = place.moved() => {}
            }
        }
    }

    /// Fetches a request from S3, at most `limit` bytes.
    ///
    /// # Errors
    /// Propagates the errors of [`Invoke::request_object`].
    pub async fn request_object(&self, uri: String, limit: usize) -> Result<Bytes> {
        let invoke = Arc::clone(&self.invoke);
        let reading = async move { invoke.request_object(&uri, limit).await };
        // Runs on the runtime that owns the connections of the AWS clients.
        let task = AbortOnDropHandle::new(self.work.spawn(reading.in_current_span()));
        task.await.map_err(died)?
    }

    /// Returns the number of tickets in use: requests being received, waiting, running or being
    /// answered, and those whose cancelled work has not ended yet.
    pub fn in_flight(&self) -> usize {
        self.tracker.len()
    }

    /// Returns the admission limits.
    pub fn settings(&self) -> AdmissionSettings {
        self.settings
    }

    /// Returns the number of running and waiting requests. Cancelled work counts until it has
    /// ended.
    pub fn load(&self) -> Load {
        let (running, waiting) = bounds(self.settings);
        let free = self.running.available_permits();
        let occupied = running + waiting - self.admission.available_permits();
        let running = running - free;
        Load { running, waiting: occupied.saturating_sub(running) }
    }

    /// Checks that the server is not stopping, before a body is read.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] if it is.
    pub fn ensure_open(&self) -> Result<()> {
        if self.closing.is_cancelled() { Err(stopping()) } else { Ok(()) }
    }

    /// Resolves once no more tickets are issued, with the error for requests without a ticket.
    pub async fn closed(&self) -> Error {
        self.closing.cancelled().await;
        stopping()
    }

    /// Resolves once draining has timed out, with the error for requests with a ticket.
    pub async fn stopped(&self) -> Error {
        self.stop.cancelled().await;
        stopped()
    }

    /// Stops admission and waits for admitted requests to finish; cancels what is left after
    /// `timeout`.
    pub async fn drain(&self, timeout: Duration) -> Drained {
        self.closing.cancel();
        self.tracker.close();
        if tokio::time::timeout(timeout, self.tracker.wait()).await.is_ok() {
            return Drained::Finished;
        }
        let left = self.tracker.len();
        self.stop.cancel();
        Drained::Cancelled(left)
    }

    fn overloaded(&self) -> Error {
        let AdmissionSettings { max_concurrent, queue } = self.settings;
        Error::new(
            ErrorKind::Overloaded,
            format!(
                "{max_concurrent} requests are running and {queue} waiting, the most that may; \
                 send this one again later"
            ),
        )
        .with("running", max_concurrent)
        .with("waiting", queue)
    }
}

/// Returns the limits of running and waiting requests.
fn bounds(settings: AdmissionSettings) -> (usize, usize) {
    const MOST: usize = Semaphore::MAX_PERMITS / 2;
    (settings.max_concurrent.clamp(1, MOST), settings.queue.min(MOST))
}

fn stopping() -> Error {
    Error::new(ErrorKind::Unavailable, "the server is stopping; send the request to another one")
}

fn stopped() -> Error {
    Error::new(
        ErrorKind::Unavailable,
        "the server stopped before the request was finished; send it again",
    )
}

fn died(error: tokio::task::JoinError) -> Error {
    let what = if error.is_panic() { "panicked" } else { "was aborted" };
    Error::internal(format!("the work on the request {what}"))
}

#[cfg(test)]
mod tests;
