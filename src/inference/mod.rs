//! ONNX Runtime sessions and the sliding window. Arrays only: nothing here knows of patients,
//! bundles' files or where results go.

mod arena;
mod blend;
mod failure;
mod importance;
mod inferer;
pub mod network;
pub mod runtime;
pub mod sliding_window;

pub use failure::is_resource_failure;
pub use inferer::Inferer;
pub use network::{Network, NetworkShape, OnnxNetwork, ProviderChoice};
pub use sliding_window::{PlaneSink, SlidingWindowInferer, WindowStats};
