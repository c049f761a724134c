//! Writes label maps as DICOM SEG and other results.

pub mod dicom;
mod layer;
mod layout;
pub mod mesh;
pub mod nifti;
pub mod preview;
pub mod rtstruct;
pub mod secondary_capture;
pub mod seg;
pub mod sr;
pub mod statistics;
mod voxels;

pub use voxels::{Bounds, Voxels};

/// A value of a label map: 0 is background, every other value a class. `u8` holds 255 classes,
/// `u16` holds 65535.
pub trait Label: Copy + Default + Eq + Send + Sync + Into<u16> {}

impl<T: Copy + Default + Eq + Send + Sync + Into<u16>> Label for T {}
