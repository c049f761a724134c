//! A MONAI bundle read.
pub mod args;
pub mod component;

pub use args::Args;
pub use component::Component;
