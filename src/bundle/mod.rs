//! A MONAI bundle read.
mod anatomy;
pub mod component;
pub mod serving;
pub use component::Component;
