//! AHI image set metadata documents (JSON): parsing and writing.

pub mod flat;
pub mod read;
pub mod write;

pub use flat::FlatInstance;
pub use read::{ImageSetMetadata, parse};
