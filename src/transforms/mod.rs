//! MONAI's preprocessing, each transform with the record that inverts it.
//!
//! An [`Image`] is channel-first with axes (C, X, Y, Z) as MONAI sees them, whatever its memory
//! order: flips and permutations are views, and the resampler works along memory. Every spatial
//! transform appends an [`Applied`] record, from which `postprocess` builds the way back.

pub mod grid;
mod intensity;
mod orientation;
pub mod resample;
mod spacing;

use std::fmt::Debug;

use ndarray::Array4;

pub use grid::{AxisTaps, GridMap};
pub use orientation::Orientationd;
pub use resample::{Interpolation, PaddingMode, Resample};
pub use spacing::Spacingd;

use crate::bundle::{Args, Component};
use crate::error::{Error, ErrorKind, Result};
use crate::volume::Affine;

/// An image on its way to the network.
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
    /// A fresh image with no history.
    pub fn new(data: Array4<f32>, affine: Affine) -> Self {
        Self { data, affine, applied: Vec::new() }
    }

    /// Size along X, Y, Z.
    pub fn dims(&self) -> [usize; 3] {
        let (_, x, y, z) = self.data.dim();
        [x, y, z]
    }
}

/// What a spatial transform did: enough to undo it.
#[derive(Debug, Clone, PartialEq)]
pub enum Applied {
    /// Axes were permuted and flipped: output axis `i` is input axis `source[i]`, reversed where
    /// `flipped[i]`.
    Orientation {
        /// Input axis that each output axis is.
        source: [usize; 3],
        /// Whether that axis runs backwards.
        flipped: [bool; 3],
        /// Size before.
        dims: [usize; 3],
    },
    /// The image was resampled from one grid to another.
    Resample {
        /// How.
        resample: Resample,
        /// Size and affine before.
        from: ([usize; 3], Affine),
        /// Size and affine after.
        to: ([usize; 3], Affine),
    },
}

/// One preprocessing transform.
pub trait Transform: Debug + Send + Sync {
    /// Applies it.
    fn apply(&self, image: Image) -> Result<Image>;
}

/// Builds the transform that a component names; `None` for those with nothing left to do here:
/// the image is loaded, channel-first and f32 before the first transform runs.
///
/// An unknown transform or argument is [`ErrorKind::InvalidModel`] naming its JSON path.
pub fn build(component: &Component) -> Result<Option<Box<dyn Transform>>> {
    let mut args = Args::new(component);
    args.ignore(&["keys", "allow_missing_keys", "lazy"]);
    let transform: Option<Box<dyn Transform>> = match component.target.as_str() {
        "LoadImaged" | "LoadImage" => {
            args.ignore(&[
                "reader", "dtype", "meta_keys", "meta_key_postfix", "overwriting", "image_only",
                "ensure_channel_first", "simple_keys", "prune_meta_pattern", "prune_meta_sep",
            ]);
            None
        }
        "EnsureChannelFirstd" | "EnsureChannelFirst" => {
            args.ignore(&["strict_check", "channel_dim"]);
            None
        }
        "EnsureTyped" | "EnsureType" => {
            args.ignore(&["data_type", "device", "wrap_sequence", "track_meta"]);
            args.float_dtype("dtype")?;
            None
        }
        "Orientationd" | "Orientation" => Some(Box::new(Orientationd::from_args(&mut args)?)),
        "Spacingd" | "Spacing" => Some(Box::new(Spacingd::from_args(&mut args)?)),
        "ScaleIntensityRanged" | "ScaleIntensityRange" => {
            Some(Box::new(intensity::ScaleIntensityRanged::from_args(&mut args)?))
        }
        "ScaleIntensityd" | "ScaleIntensity" => {
            Some(Box::new(intensity::ScaleIntensityd::from_args(&mut args)?))
        }
        "ScaleIntensityRangePercentilesd" | "ScaleIntensityRangePercentiles" => {
            Some(Box::new(intensity::ScaleIntensityRangePercentilesd::from_args(&mut args)?))
        }
        "ClipIntensityPercentilesd" | "ClipIntensityPercentiles" => {
            Some(Box::new(intensity::ClipIntensityPercentilesd::from_args(&mut args)?))
        }
        "NormalizeIntensityd" | "NormalizeIntensity" => {
            Some(Box::new(intensity::NormalizeIntensityd::from_args(&mut args)?))
        }
        "ThresholdIntensityd" | "ThresholdIntensity" => {
            Some(Box::new(intensity::ThresholdIntensityd::from_args(&mut args)?))
        }
        other => {
            return Err(Error::new(
                ErrorKind::InvalidModel,
                format!("{}: transform {other} is not supported in preprocessing", component.path),
            )
            .with("path", component.path.as_str())
            .with("target", other));
        }
    };
    args.finish()?;
    Ok(transform)
}
