//! Label maps to DICOM SEG and other results.

mod layout;
pub mod nifti;
pub mod seg;
pub mod sink;

/// A value of a label map: 0 is background, every other value a class. `u8` holds 255 classes,
/// `u16` holds 65535.
pub trait Label: Copy + Default + PartialEq + Send + Sync + Into<u16> {}

impl<T: Copy + Default + PartialEq + Send + Sync + Into<u16>> Label for T {}
