//! The metadata document of an AHI image set (JSON) and data sets.

pub mod read;
pub mod write;

pub use read::{ImageSetMetadata, parse};
