//! `ThresholdIntensityd`: keeps values on one side of a threshold.

use crate::bundle::Args;
use crate::error::Result;
use crate::transforms::{Image, Transform};

/// `monai.transforms.ThresholdIntensityd`: keeps values strictly above (or below) the threshold and
/// sets all others to `cval`.
#[derive(Debug, Clone, PartialEq)]
pub struct ThresholdIntensityd {
    threshold: f32,
    above: bool,
    cval: f32,
}

impl ThresholdIntensityd {
    pub(in crate::transforms) fn from_args(args: &mut Args) -> Result<Self> {
        Ok(Self {
            threshold: args.required_number("threshold")? as f32,
            above: args.truth("above", true)?,
            cval: args.nullable_number("cval", 0.0)?.unwrap_or(0.0) as f32,
        })
    }
}

impl Transform for ThresholdIntensityd {
    fn apply(&self, mut image: Image) -> Result<Image> {
        let Self { threshold, above, cval } = *self;
        image.data.par_mapv_inplace(|v| {
            let kept = if above { v > threshold } else { v < threshold };
            if kept { v } else { cval }
        });
        Ok(image)
    }
}
