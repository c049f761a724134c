//! A MONAI bundle read.
pub mod component;
pub use component::Component;
