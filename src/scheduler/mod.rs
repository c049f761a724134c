//! Admission: bounded concurrency, a bounded queue, deadlines, cancellation, draining.
//!
//! Whoever brings a request first takes a [`Ticket`] for it, which draining waits for: with it everything
//! that belongs to the request is let through, also what comes after draining has begun.
//!
//! Work runs as a task of its own on the runtime given for it, so that whatever it does to the
//! threads of that runtime, the one that answers HTTP keeps answering. A request holds its place
//! until its work has really ended, not merely until its caller was answered: work that is slow to
//! notice its cancellation still uses memory and cores, and is still counted.

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

/// Lets requests through to the pipeline, as many at a time as it was told.
pub struct Scheduler {
    invoke: Arc<dyn Invoke>,
    work: Handle,
    /// One permit for each request that runs or waits.
    admission: Arc<Semaphore>,
    /// One permit for each request that runs.
    running: Arc<Semaphore>,
    /// The order of those that wait for it.
    queue: Queue,
    /// One token for each ticket.
    tracker: TaskTracker,
    /// Cancelled once no more tickets are given.
    closing: CancellationToken,
    /// Cancelled once what is left has to end.
    stop: CancellationToken,
    settings: AdmissionSettings,
}

/// Leave for one request, or for the many of one body. Draining waits for it, until whoever holds it has
/// made the answer and the work it was used for has ended.
#[derive(Debug, Clone)]
pub struct Ticket {
    _counted: Arc<TaskTrackerToken>,
}

/// A request that was let in, with its model and its place. Dropping it gives both back.
pub struct Admitted {
    request: InferenceRequest,
    held: Held,
    place: OwnedSemaphorePermit,
    ticket: Ticket,
}

/// An answer and how long it took.
#[derive(Debug)]
pub struct Scheduled {
    /// The answer.
    pub outcome: Outcome,
    /// Time spent waiting for a place.
    pub queued: Duration,
    /// Time spent in the pipeline.
    pub ran: Duration,
}

/// How busy a scheduler is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Load {
    /// Requests that run.
    pub running: usize,
    /// Requests that wait for their turn.
    pub waiting: usize,
}

/// How draining ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Drained {
    /// Everything that was let in was finished.
    Finished,
    /// That many requests were still running or waiting and were cancelled.
    Cancelled(usize),
}

impl Admitted {
    /// Inputs of the request.
    pub fn inputs(&self) -> usize {
        self.request.inputs.len()
    }
}

impl Scheduler {
    /// A scheduler in front of `invoke`, whose work runs on the runtime of `work`.
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

    /// Leave for a request.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] where the server is stopping.
    pub fn ticket(&self) -> Result<Ticket> {
        // Counted before the question, so that a drain that begins in between still waits for it.
        let ticket = Ticket { _counted: Arc::new(self.tracker.token()) };
        self.ensure_open().map(|()| ticket)
    }

    /// Lets a request in, to run or to wait for its turn.
    ///
    /// # Errors
    /// [`ErrorKind::Overloaded`] where the queue is full, and those of [`Invoke::admit`].
    pub fn admit(&self, ticket: &Ticket, request: InferenceRequest) -> Result<Admitted> {
        let held = self.invoke.admit(&request)?;
        let place = Arc::clone(&self.admission).try_acquire_owned();
        let place = place.map_err(|_| self.overloaded())?;
        Ok(Admitted { request, held, place, ticket: ticket.clone() })
    }

    /// Runs a request that was let in, and tells `observer` how far it is. Dropping the future cancels
    /// its work, as does the deadline.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] where draining took too long, [`ErrorKind::DeadlineExceeded`],
    /// [`ErrorKind::Internal`] where the work panicked, and whatever the pipeline returns.
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
                // The work noticed the stop before this future did.
                Err(_) if self.stop.is_cancelled() => Err(stopped()),
                Err(error) => Err(error),
            },
            () = self.stop.cancelled() => Err(stopped()),
            () = Deadline::passed(deadline) => Err(Deadline::exceeded(deadline, "being worked on")),
        }
    }

    /// Waits for leave to run.
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

    /// The bytes of a request in S3, at most `limit`.
    ///
    /// # Errors
    /// Those of [`Invoke::request_object`].
    pub async fn request_object(&self, uri: String, limit: usize) -> Result<Bytes> {
        let invoke = Arc::clone(&self.invoke);
        let reading = async move { invoke.request_object(&uri, limit).await };
        // On the runtime that the clients' connections belong to.
        let task = AbortOnDropHandle::new(self.work.spawn(reading.in_current_span()));
        task.await.map_err(died)?
    }

    /// Tickets that are out: requests that are read, run, wait or are being answered, and those whose
    /// cancelled work has not ended yet.
    pub fn in_flight(&self) -> usize {
        self.tracker.len()
    }

    /// How much is let in at once.
    pub fn settings(&self) -> AdmissionSettings {
        self.settings
    }

    /// How many requests run now, and how many wait. Cancelled work counts until it has ended.
    pub fn load(&self) -> Load {
        let (running, waiting) = bounds(self.settings);
        let free = self.running.available_permits();
        let occupied = running + waiting - self.admission.available_permits();
        let running = running - free;
        Load { running, waiting: occupied.saturating_sub(running) }
    }

    /// An error where the server is stopping, for whoever wants to know before reading a body.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`].
    pub fn ensure_open(&self) -> Result<()> {
        if self.closing.is_cancelled() { Err(stopping()) } else { Ok(()) }
    }

    /// Resolves, with the error for whoever has no ticket yet, once no more are given.
    pub async fn closed(&self) -> Error {
        self.closing.cancelled().await;
        stopping()
    }

    /// Resolves, with the error for whoever has a ticket, once draining took too long.
    pub async fn stopped(&self) -> Error {
        self.stop.cancelled().await;
        stopped()
    }

    /// Lets nothing more in and waits until what was let in is finished; what is not after
    /// `timeout` is cancelled.
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
                "{max_concurrent} requests may run and {queue} wait, and there are as many; \
                 send this one again later"
            ),
        )
        .with("running", max_concurrent)
        .with("waiting", queue)
    }
}

/// Places to run, and places to wait.
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
