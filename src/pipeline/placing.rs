//! Decodes frames on the CPU pool, each directly into its position in the volume.
//!
//! The jobs borrow the volume. Each takes the slice it fills, which can only be taken once, so no two
//! jobs write the same voxels and nothing has to be merged at the end. A dedicated thread lends out the
//! volume: it passes jobs to the pool and otherwise sleeps. It ends when there are no more senders and
//! the last job has ended. Until then, it holds the request's resources, even if the caller is gone.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use super::decoding::{Work, decode};
use super::holding::Holding;
use crate::cpu;
use crate::dicom::Series;
use crate::error::{Error, ErrorKind, Result};
use crate::source::EncodedFrame;
use crate::volume::{Places, Plan, Volume};

/// A volume being filled.
pub(super) struct Filling {
    jobs: mpsc::UnboundedSender<Job>,
    volume: JoinHandle<Volume>,
}

/// State shared by the jobs.
struct Shared {
    series: Arc<Series>,
    plan: Arc<Plan>,
}

/// One frame to decode.
struct Job {
    /// Its index in [`Plan::slices`].
    index: usize,
    frame: EncodedFrame,
    sent: Instant,
    span: tracing::Span,
    answer: oneshot::Sender<Result<Work>>,
}

impl Filling {
    /// Creates an empty volume; its jobs hold `holding`. If it is to be `measured`, its values are kept for that.
    ///
    /// # Errors
    /// `OutOfMemory` if there is no memory for the volume.
    pub fn begin(
        series: Arc<Series>,
        plan: Arc<Plan>,
        holding: Holding,
        measured: bool,
    ) -> Result<Self> {
        let mut volume = Volume::new(plan.clone())?;
        if measured {
            volume = volume.measured()?;
        }
        let (jobs, mut waiting) = mpsc::unbounded_channel::<Job>();
        let shared = Shared { series, plan };
        let volume = tokio::task::spawn_blocking(move || {
            let _held = holding;
            {
                let places = volume.places();
                let (places, shared) = (&places, &shared);
                rayon::in_place_scope_fifo(|scope| {
                    while let Some(job) = waiting.blocking_recv() {
                        scope.spawn_fifo(move |_| job.run(shared, places));
                    }
                });
            }
            volume
        });
        Ok(Self { jobs, volume })
    }

    /// Decodes a frame into its position. A job is not started if its caller is gone.
    ///
    /// # Errors
    /// Propagates the errors of decoding and checking it, after which the position is free again;
    /// `Internal` if it was already filled.
    pub async fn decode(&self, index: usize, frame: EncodedFrame) -> Result<Work> {
        let (answer, done) = oneshot::channel();
        let span = tracing::Span::current();
        let job = Job { index, frame, sent: Instant::now(), span, answer };
        self.jobs.send(job).map_err(|_| Error::internal("the decoders are gone"))?;
        done.await.unwrap_or_else(|_| Err(Error::new(ErrorKind::Cancelled, "the work was dropped")))
    }

    /// Returns the volume with the decoded frames.
    ///
    /// # Errors
    /// `Internal` if its thread was aborted.
    pub async fn end(self) -> Result<Volume> {
        drop(self.jobs);
        self.volume
            .await
            .map_err(|e| Error::internal("filling the volume was aborted").caused_by(e))
    }
}

impl Job {
    fn run(self, shared: &Shared, places: &Places<'_>) {
        let Self { index, frame, sent, span, answer } = self;
        if answer.is_closed() {
            return;
        }
        let waited = sent.elapsed();
        let result = span.in_scope(|| cpu::contained(|| place(shared, places, index, &frame)));
        // If the caller is gone, the result is dropped.
        let _ = answer.send(result.map(|work| Work { waited, ..work }));
    }
}

fn place(shared: &Shared, places: &Places<'_>, index: usize, frame: &EncodedFrame) -> Result<Work> {
    let Shared { series, plan } = shared;
    let slice = plan
        .slices
        .get(index)
        .ok_or_else(|| Error::internal(format!("there is no slice {index}")))?;
    let (samples, mut work) = decode(series, frame, slice)?;
    let began = Instant::now();
    places.put(index, samples)?;
    work.placed = began.elapsed();
    work.waited = Duration::ZERO;
    Ok(work)
}
