//! The metadata document of an AHI image set (JSON) and data sets.

pub mod flat;
pub mod read;
pub mod write;

pub use flat::FlatInstance;
pub use read::{ImageSetMetadata, parse};
