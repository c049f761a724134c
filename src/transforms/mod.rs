//! MONAI's preprocessing; each spatial transform records how to invert it.
//!
//! An [`Image`] is channel-first with axes (C, X, Y, Z) as in MONAI, whatever its memory order: flips
//! and permutations are views, and the resampler works in memory order. Every spatial transform appends
//! an [`Applied`] record, from which `postprocess` builds the inverse.

mod build;
mod chain;
mod crop;
mod extent;
mod foreground;
pub mod grid;
mod intensity;
mod orientation;
mod pad;
pub mod resample;
mod resize;
mod spacing;
mod squeeze;
mod turn;
pub(crate) mod window;

use std::fmt::Debug;

use ndarray::Array4;

pub use build::build;
pub use chain::{Preprocessing, describe, stack};
pub use extent::{Extent, Forecast, Way, voxels};
pub use grid::{AxisTaps, GridMap};
pub use orientation::Orientationd;
pub(crate) use resample::Sampler;
pub use resample::{Interpolation, PaddingMode, Resample};
pub use resize::ResizeMode;
pub use spacing::Spacingd;

use crate::error::Result;
use crate::volume::Affine;

/// An image during preprocessing.
#[derive(Debug, Clone)]
pub struct Image {
    /// Axes (C, X, Y, Z), any strides.
    pub data: Array4<f32>,
    /// Voxel index (x, y, z) to RAS+ millimetres.
    pub affine: Affine,
    /// The spatial transforms applied so far, oldest first.
    pub applied: Vec<Applied>,
}

impl Image {
    /// Creates an image with no history.
    pub fn new(data: Array4<f32>, affine: Affine) -> Self {
        Self { data, affine, applied: Vec::new() }
    }

    /// Returns the size along X, Y, Z.
    pub fn dims(&self) -> [usize; 3] {
        let (_, x, y, z) = self.data.dim();
        [x, y, z]
    }
}

/// What a spatial transform did, as needed to undo it.
#[derive(Debug, Clone, PartialEq)]
// An image has only a handful of these.
#[allow(clippy::large_enum_variant)]
pub enum Applied {
    /// Axes were permuted and flipped: output axis `i` is input axis `source[i]`, reversed if
    /// `flipped[i]`.
    Orientation {
        /// The input axis of each output axis.
        source: [usize; 3],
        /// Whether that axis is reversed.
        flipped: [bool; 3],
        /// Size before.
        dims: [usize; 3],
    },
    /// The image was resampled from one grid to another.
    Resample {
        /// Resampling parameters.
        resample: Resample,
        /// Size and affine before.
        from: ([usize; 3], Affine),
        /// Size and affine after.
        to: ([usize; 3], Affine),
    },
    /// A window was cut out, larger than the image (padding), smaller (cropping) or both.
    Window {
        /// Index of the window's first voxel in the original image; negative if it was padded.
        offset: [i64; 3],
        /// Size before.
        from: [usize; 3],
        /// Size after.
        to: [usize; 3],
    },
    /// The image was resized to another number of voxels.
    Resize {
        /// Resizing mode.
        mode: ResizeMode,
        /// Size before.
        from: [usize; 3],
        /// Size after.
        to: [usize; 3],
    },
}

/// One preprocessing transform.
pub trait Transform: Debug + Send + Sync {
    /// Applies the transform.
    fn apply(&self, image: Image) -> Result<Image>;

    /// Predicts the extent of the result; the largest possible size if it depends on the voxels.
    ///
    /// # Errors
    /// Propagates the errors of [`apply`](Self::apply), as far as size and position alone are at fault.
    fn extent(&self, image: Extent) -> Result<Extent> {
        Ok(image)
    }

    /// Whether it allocates new voxels even if their number does not change.
    fn copies(&self) -> bool {
        false
    }
}
