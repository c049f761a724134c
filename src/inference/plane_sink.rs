//! Where the blended result of windows goes, and what running them took.

use ndarray::ArrayView3;

use crate::error::Result;

/// Receives the finished parts of the blended result.
pub trait PlaneSink: Send {
    /// Called once, before the first plane: classes, and size along X, Y, Z.
    fn begin(&mut self, classes: usize, dims: [usize; 3]) -> Result<()>;

    /// Receives rows from `y` on of the planes `x`, `x + 1`, …, each with axes (class, Y, Z), Z varying
    /// fastest. After the last rows of these planes, the following planes start again at `y` = 0.
    fn planes(&mut self, x: usize, y: usize, planes: &[ArrayView3<f32>]) -> Result<()>;
}

/// Statistics of a run.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct WindowStats {
    /// Windows of the image.
    pub windows: usize,
    /// Windows that ran through the network; the others reused a result.
    pub windows_run: usize,
    /// Seconds spent in the network alone.
    pub network_seconds: f64,
}
