//! Operations on discretised labels or masks: `KeepLargestConnectedComponentd`, `FillHolesd`,
//! `RemoveSmallObjectsd`, `LabelFilterd`, the `Lambdad` that merges masks, and `AsDiscreted` if it
//! converts one form to another.

mod channels;
mod forms;
mod labelling;
mod on_sets;
mod operations;

use ndarray::Axis;

use super::{Merge, Segmentation};
use crate::bundle::Args;
use crate::error::Result;

/// One operation of a bundle's postprocessing.
#[derive(Debug, Clone, PartialEq)]
pub enum LabelOperation {
    /// `monai.transforms.KeepLargestConnectedComponentd`.
    KeepLargest {
        /// Labels (or channels of masks) it applies to; all but 0 if absent.
        applied_labels: Option<Vec<u8>>,
        /// Whether each label is treated separately, or all of them as one.
        independent: bool,
        /// Whether channels are classes; by default, if there is more than one.
        onehot: Option<bool>,
        /// How many coordinates of neighbours may differ.
        connectivity: usize,
        /// How many components to keep.
        components: usize,
    },
    /// `monai.transforms.FillHolesd`.
    FillHoles {
        /// Labels (or channels) it applies to; all but 0 if absent.
        applied_labels: Option<Vec<u8>>,
        /// How many coordinates of neighbouring background voxels may differ.
        connectivity: usize,
    },
    /// `monai.transforms.RemoveSmallObjectsd`.
    RemoveSmall {
        /// Objects with fewer voxels are removed.
        min_size: f64,
        /// Whether the size is in cubic millimetres rather than voxels.
        by_measure: bool,
        /// How many coordinates of neighbours may differ.
        connectivity: usize,
        /// If false, all foreground voxels belong together.
        independent_channels: bool,
    },
    /// `monai.transforms.LabelFilterd`.
    Filter {
        /// Labels to keep.
        applied_labels: Vec<u8>,
    },
    /// `monai.transforms.Lambdad` that converts masks to labels.
    Merge(Merge),
    /// `monai.transforms.AsDiscreted` with `to_onehot`: converts labels to one channel per class.
    OneHot {
        /// Number of classes.
        classes: usize,
    },
    /// `monai.transforms.AsDiscreted` with `argmax`, on channels that are 0 or 1: returns the first
    /// channel that is 1, else 0.
    Argmax,
    /// `monai.transforms.AsDiscreted` with `threshold`, on labels: 1 if they are at least this.
    Threshold(f32),
}

impl LabelOperation {
    /// Parses the operation that a component's class names; `None` for any other class.
    pub fn from_args(target: &str, args: &mut Args) -> Result<Option<Self>> {
        Ok(Some(match target {
            "KeepLargestConnectedComponentd" | "KeepLargestConnectedComponent" => {
                let components = args.number("num_components")?.unwrap_or(1.0);
                if components < 1.0 || components.fract() != 0.0 {
                    return Err(args.invalid("num_components", "a whole number of at least 1"));
                }
                let onehot = args.raw("is_onehot").is_some();
                Self::KeepLargest {
                    applied_labels: labels(args)?,
                    independent: args.truth("independent", true)?,
                    onehot: if onehot { Some(args.truth("is_onehot", false)?) } else { None },
                    connectivity: connectivity(args, 3)?,
                    components: components as usize,
                }
            }
            "FillHolesd" | "FillHoles" => Self::FillHoles {
                // MONAI treats an empty list like an absent one.
                applied_labels: labels(args)?.filter(|labels| !labels.is_empty()),
                connectivity: connectivity(args, 3)?,
            },
            "RemoveSmallObjectsd" | "RemoveSmallObjects" => {
                // An image with an affine has its own voxel size, and every image here has an affine.
                args.ignore(&["pixdim"]);
                let min_size = args.number("min_size")?.unwrap_or(64.0);
                if !(0.0..=1e15).contains(&min_size) {
                    return Err(args.invalid("min_size", "a number from 0 to 1e15"));
                }
                Self::RemoveSmall {
                    min_size,
                    by_measure: args.truth("by_measure", false)?,
                    connectivity: connectivity(args, 1)?,
                    independent_channels: args.truth("independent_channels", true)?,
                }
            }
            "LabelFilterd" | "LabelFilter" => match labels(args)? {
                Some(applied_labels) => Self::Filter { applied_labels },
                None => return Err(args.invalid("applied_labels", "labels from 0 to 255")),
            },
            "Lambdad" | "Lambda" => Self::Merge(Merge::from_args(args)?),
            _ => return Ok(None),
        }))
    }
}

impl LabelOperation {
    /// Applies the operation to a segmentation on any grid.
    pub fn apply(&self, segmentation: &mut Segmentation) -> Result<()> {
        match (self, &mut *segmentation) {
            (Self::Merge(merge), _) => merge.apply(segmentation),
            (Self::OneHot { .. } | Self::Argmax | Self::Threshold(_), _) => {
                forms::apply(self, segmentation)
            }
            (_, Segmentation::Sets(sets)) => on_sets::apply(self, sets),
            // A label map stands for its own one-hot form.
            (_, Segmentation::Labels(labels)) => {
                self.apply_to(labels.view_mut().insert_axis(Axis(0)), Some(false))
            }
            (_, Segmentation::Masks(masks)) => self.apply_to(masks.view_mut(), None),
        }
    }

    /// Returns the operation with sizes in voxels, for voxels of `volume` cubic millimetres.
    pub fn in_voxels(&self, volume: f64) -> Self {
        match *self {
            Self::RemoveSmall {
                min_size,
                by_measure: true,
                connectivity,
                independent_channels,
            } => Self::RemoveSmall {
                min_size: (min_size / volume).ceil(),
                by_measure: false,
                connectivity,
                independent_channels,
            },
            _ => self.clone(),
        }
    }
}

fn labels(args: &mut Args) -> Result<Option<Vec<u8>>> {
    let Some(given) = args.whole_numbers("applied_labels")? else { return Ok(None) };
    let labels: Option<Vec<u8>> = given.into_iter().map(|l| u8::try_from(l).ok()).collect();
    labels.map(Some).ok_or_else(|| args.invalid("applied_labels", "labels from 0 to 255"))
}

fn connectivity(args: &mut Args, default: usize) -> Result<usize> {
    match args.number("connectivity")? {
        None => Ok(default),
        Some(n) if [1.0, 2.0, 3.0].contains(&n) => Ok(n as usize),
        Some(_) => Err(args.invalid("connectivity", "1, 2 or 3")),
    }
}
