//! Progress reporting and cancellation of long-running work.

use std::time::Duration;

use crate::error::{Error, ErrorKind, Result};

/// Receives progress and reports cancellation. Called from any thread; must be cheap.
pub trait Progress: Send + Sync {
    /// Reports that `done` of `total` units of `stage` are finished.
    fn advance(&self, stage: Stage, done: usize, total: usize);

    /// Returns whether the work should stop.
    fn is_cancelled(&self) -> bool;

    /// Reports that the part `stage` took `seconds`, as in the timings of the report.
    fn took(&self, _stage: &'static str, _seconds: f64) {}

    /// Reports that frames of `bytes` encoded bytes in total were fetched and decoded in `seconds`.
    fn decoded(&self, _frames: usize, _bytes: u64, _seconds: f64) {}

    /// Reports the time spent on the steps of decoded frames, summed over frames.
    fn spent(&self, _steps: &[(&'static str, Duration)]) {}

    /// Fails with [`ErrorKind::Cancelled`] once the work should stop.
    fn check(&self) -> Result<()> {
        if self.is_cancelled() {
            return Err(Error::new(ErrorKind::Cancelled, "the request was cancelled"));
        }
        Ok(())
    }
}

/// The stages of one input, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Stage {
    /// Reading metadata and planning the volume.
    Metadata,
    /// Acquiring memory.
    Memory,
    /// Fetching and decoding frames.
    Frames,
    /// Assembling and preprocessing slices.
    Preprocess,
    /// Running windows through the network.
    Inference,
    /// Resampling the result to the source's grid.
    Postprocess,
    /// Encoding outputs.
    Write,
    /// Storing outputs.
    Store,
}

impl Stage {
    /// Returns its name in responses and logs.
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

/// Receives the progress of a request, from admission to its end. Called from any thread; must
/// return immediately, so that the reader does not slow the work down.
pub trait Observer: Send + Sync {
    /// Reports that the request waits at this position in the queue; 1 is next to run.
    fn queued(&self, _place: usize) {}

    /// Reports that the work starts.
    fn started(&self) {}

    /// Reports that `done` of `total` units of `stage` are finished for the input at this index. A
    /// stage starts anew for each image and each volume of an input.
    fn advance(&self, _input: usize, _stage: Stage, _done: usize, _total: usize) {}
}

/// Ignores progress and never cancels.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Observer for Silent {}

impl Progress for Silent {
    fn advance(&self, _: Stage, _: usize, _: usize) {}

    fn is_cancelled(&self) -> bool {
        false
    }
}
