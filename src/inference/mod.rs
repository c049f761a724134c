//! ONNX Runtime sessions and the sliding window. This module works on arrays only and knows nothing of
//! patients, bundle files or destinations.

mod arena;
mod blend;
mod constant;
mod description;
mod dimensions;
mod external;
mod failure;
mod files;
mod gpu_permits;
mod health;
mod importance;
mod in_turn;
mod inferer;
mod lane;
pub mod network;
mod norms;
mod opening;
pub mod placement;
mod plane_sink;
mod prepare;
mod protobuf;
mod provider;
mod runtime;
mod sessions;
mod settings;
mod shape;
mod signature;
pub mod sliding_window;
mod tuned;
mod tuning;

pub use failure::or_out_of_memory;
pub use gpu_permits::GpuPermits;
pub use health::BrokenNetworks;
pub use inferer::Inferer;
pub use network::{Network, NetworkShape, OnnxNetwork, Share, WIDEST_LAYER};
pub use placement::Placement;
pub use plane_sink::{PlaneSink, WindowStats};
pub use prepare::prepare;
pub use provider::{Chosen, GpuSettings, Provider, ProviderChoice};
pub use settings::{NetworkSettings, RunPlan};
pub use sliding_window::{SlidingWindowInferer, standard_layout};
