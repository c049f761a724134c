//! Models: found in a folder, loaded in the background, handed out by name.

pub mod catalog;
mod check;
mod model;
mod store;

pub use catalog::{ModelLocation, discover};
pub use check::check_bundle;
pub use model::{LoadOptions, Model};
pub use store::{Registry, State};
