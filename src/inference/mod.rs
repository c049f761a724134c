//! ONNX Runtime sessions and the sliding window. Arrays only: nothing here knows of patients,
//! bundles' files or where results go.

mod importance;
mod inferer;
pub mod network;
pub mod runtime;
pub mod sliding_window;

pub use inferer::Inferer;
pub use network::{Network, NetworkShape, OnnxNetwork, ProviderChoice};
pub use sliding_window::{PlaneSink, SlidingWindowInferer, WindowStats};
