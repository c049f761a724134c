//! ONNX Runtime sessions and the sliding window. Arrays only: nothing here knows of patients,
//! bundles' files or where results go.

mod arena;
mod blend;
mod constant;
mod failure;
mod gpu_permits;
mod importance;
mod in_turn;
mod inferer;
mod lane;
pub mod network;
pub mod placement;
mod provider;
mod runtime;
mod sessions;
pub mod sliding_window;

pub use failure::is_resource_failure;
pub use gpu_permits::GpuPermits;
pub use inferer::{Inferer, WIDEST_LAYER};
pub use network::{Network, NetworkSettings, NetworkShape, OnnxNetwork, Share};
pub use placement::Placement;
pub use provider::{Chosen, GpuSettings, Provider, ProviderChoice};
pub use sliding_window::{PlaneSink, SlidingWindowInferer, WindowStats, standard_layout};
