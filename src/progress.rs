//! How a long piece of work tells how far it is and hears that nobody waits for it any more.

use std::time::Duration;

use crate::error::{Error, ErrorKind, Result};

/// Told of progress, asked about cancellation. Called from any thread, cheap.
pub trait Progress: Send + Sync {
    /// `done` of `total` units of `stage` are finished.
    fn advance(&self, stage: Stage, done: usize, total: usize);

    /// Whether the work should stop.
    fn is_cancelled(&self) -> bool;

    /// The part `stage` of the work took `seconds`, as the report's timings say.
    fn took(&self, _stage: &'static str, _seconds: f64) {}

    /// That many frames, of so many bytes as they came, were fetched and decoded in `seconds`.
    fn decoded(&self, _frames: usize, _bytes: u64, _seconds: f64) {}

    /// The steps of the frames that were decoded took that long, summed over frames.
    fn spent(&self, _steps: &[(&'static str, Duration)]) {}

    /// [`ErrorKind::Cancelled`] once the work should stop.
    fn check(&self) -> Result<()> {
        if self.is_cancelled() {
            return Err(Error::new(ErrorKind::Cancelled, "the request was cancelled"));
        }
        Ok(())
    }
}

/// The stages of one input, in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Stage {
    /// Metadata read and the volume planned.
    Metadata,
    /// Memory acquired.
    Memory,
    /// Frames fetched and decoded.
    Frames,
    /// Slices assembled and preprocessed.
    Preprocess,
    /// Windows through the network.
    Inference,
    /// Result brought back to the source's grid.
    Postprocess,
    /// Outputs made.
    Write,
    /// Outputs stored.
    Store,
}

impl Stage {
    /// Its name in answers and logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Metadata => "metadata",
            Self::Memory => "memory",
            Self::Frames => "frames",
            Self::Preprocess => "preprocess",
            Self::Inference => "inference",
            Self::Postprocess => "postprocess",
            Self::Write => "write",
            Self::Store => "store",
        }
    }
}

/// Told how far a request is, from its admission to its end. Called from any thread, and returns at once:
/// whoever reads what it tells must not slow the work down.
pub trait Observer: Send + Sync {
    /// It waits for its turn at this place of the queue; 1 is the next to run.
    fn queued(&self, _place: usize) {}

    /// Its work begins.
    fn started(&self) {}

    /// `done` of `total` units of `stage` of the input at this index are finished. A stage begins anew for
    /// each image and each volume of an input.
    fn advance(&self, _input: usize, _stage: Stage, _done: usize, _total: usize) {}
}

/// Nobody is told, nothing is cancelled.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Observer for Silent {}

impl Progress for Silent {
    fn advance(&self, _: Stage, _: usize, _: usize) {}

    fn is_cancelled(&self) -> bool {
        false
    }
}
