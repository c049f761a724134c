//! Transforms that change values and leave the grid alone.

use super::{Image, Transform};
use crate::bundle::Args;
use crate::error::Result;

/// `monai.transforms.ScaleIntensityRanged`.
#[derive(Debug, Clone, PartialEq)]
pub struct ScaleIntensityRanged {
    a_min: f32,
    a_span: f64,
    b: Option<(f64, f64)>,
    clip: (Option<f32>, Option<f32>),
}

impl ScaleIntensityRanged {
    pub(super) fn from_args(args: &mut Args) -> Result<Self> {
        args.float_dtype("dtype")?;
        let a_min = args.required_number("a_min")?;
        let a_max = args.required_number("a_max")?;
        let (b_min, b_max) = (args.number("b_min")?, args.number("b_max")?);
        let clip = args.boolean("clip", false)?;
        if clip && b_min.is_none() && b_max.is_none() {
            return Err(args.invalid("clip", "true only together with b_min or b_max"));
        }
        let bound = |b: Option<f64>| b.filter(|_| clip).map(|v| v as f32);
        Ok(Self {
            a_min: a_min as f32,
            a_span: a_max - a_min,
            b: b_min.zip(b_max),
            clip: (bound(b_min), bound(b_max)),
        })
    }
}

impl Transform for ScaleIntensityRanged {
    fn apply(&self, mut image: Image) -> Result<Image> {
        let shift = self.b.map_or(0.0, |(min, _)| min as f32);
        if self.a_span == 0.0 {
            // MONAI warns of the division by zero and subtracts only.
            image.data.par_mapv_inplace(|v| v - self.a_min + shift);
            return Ok(image);
        }
        let span = self.a_span as f32;
        let factor = self.b.map_or(1.0, |(min, max)| (max - min) as f32);
        let low = self.clip.0.unwrap_or(f32::NEG_INFINITY);
        let high = self.clip.1.unwrap_or(f32::INFINITY);
        image
            .data
            .par_mapv_inplace(|v| ((v - self.a_min) / span * factor + shift).max(low).min(high));
        Ok(image)
    }
}
