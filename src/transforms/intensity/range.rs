//! `ScaleIntensityRanged` and `ScaleIntensityd`: linear maps of a range of values.

use ndarray::ArrayViewMut4;

use super::{extent, for_each_part};
use crate::bundle::Args;
use crate::error::Result;
use crate::transforms::{Image, Transform};

/// `b_min` and `b_max`.
pub(super) type Bounds = (Option<f64>, Option<f64>);

/// `monai.transforms.ScaleIntensityRange`: maps `[a_min, a_min + a_span]` to `b`, optionally clipped to
/// it. Arithmetic is f32 in MONAI's order.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct RangeMap {
    pub(super) a_min: f32,
    pub(super) a_span: f32,
    pub(super) b: Bounds,
    pub(super) clip: bool,
}

impl RangeMap {
    pub(super) fn apply(&self, mut values: ArrayViewMut4<f32>) {
        let a_min = self.a_min;
        if self.a_span == 0.0 {
            // MONAI warns of the division by zero and only subtracts.
            let shift = self.b.0.unwrap_or(0.0) as f32;
            values.par_mapv_inplace(|v| v - a_min + shift);
            return;
        }
        let span = self.a_span;
        let (factor, shift) = match self.b {
            (Some(min), Some(max)) => ((max - min) as f32, min as f32),
            _ => (1.0, 0.0),
        };
        let bound = |b: Option<f64>, open: f32| b.filter(|_| self.clip).map_or(open, |v| v as f32);
        let low = bound(self.b.0, f32::NEG_INFINITY);
        let high = bound(self.b.1, f32::INFINITY);
        values.par_mapv_inplace(|v| ((v - a_min) / span * factor + shift).max(low).min(high));
    }
}

/// Parses `b_min`, `b_max` and `clip`.
pub(super) fn target_from_args(args: &mut Args) -> Result<(Bounds, bool)> {
    let b = (args.number("b_min")?, args.number("b_max")?);
    let clip = args.truth("clip", false)?;
    if clip && b == (None, None) {
        return Err(args.invalid("clip", "true only together with b_min or b_max"));
    }
    Ok((b, clip))
}

/// `monai.transforms.ScaleIntensityRanged`.
#[derive(Debug, Clone, PartialEq)]
pub struct ScaleIntensityRanged(RangeMap);

impl ScaleIntensityRanged {
    pub(in crate::transforms) fn from_args(args: &mut Args) -> Result<Self> {
        args.float_dtype("dtype")?;
        let a_min = args.required_number("a_min")?;
        let a_max = args.required_number("a_max")?;
        let (b, clip) = target_from_args(args)?;
        Ok(Self(RangeMap { a_min: a_min as f32, a_span: (a_max - a_min) as f32, b, clip }))
    }
}

impl Transform for ScaleIntensityRanged {
    fn apply(&self, mut image: Image) -> Result<Image> {
        self.0.apply(image.data.view_mut());
        Ok(image)
    }
}

/// `monai.transforms.ScaleIntensityd`: maps the own range of the image (or of each channel) to
/// `minv..maxv`, or scales by a factor if both are null.
#[derive(Debug, Clone, PartialEq)]
pub struct ScaleIntensityd {
    minv: Option<f64>,
    maxv: Option<f64>,
    factor: Option<f64>,
    channel_wise: bool,
}

impl ScaleIntensityd {
    pub(in crate::transforms) fn from_args(args: &mut Args) -> Result<Self> {
        args.float_dtype("dtype")?;
        Ok(Self {
            minv: args.nullable_number("minv", 0.0)?,
            maxv: args.nullable_number("maxv", 1.0)?,
            factor: args.number("factor")?,
            channel_wise: args.truth("channel_wise", false)?,
        })
    }

    /// `monai.transforms.utils.rescale_array`.
    fn rescale(&self, mut values: ArrayViewMut4<f32>) {
        let (low, high) = extent(values.view());
        if low == high {
            // Like MONAI, this multiplies a constant image by the lower bound instead of setting it.
            if let Some(minv) = self.minv {
                values.par_mapv_inplace(|v| v * minv as f32);
            }
            return;
        }
        let span = high - low;
        let (factor, shift) = match (self.minv, self.maxv) {
            (Some(min), Some(max)) => ((max - min) as f32, min as f32),
            _ => (1.0, 0.0),
        };
        values.par_mapv_inplace(|v| (v - low) / span * factor + shift);
    }
}

impl Transform for ScaleIntensityd {
    fn apply(&self, mut image: Image) -> Result<Image> {
        if self.minv.is_none() && self.maxv.is_none() {
            let factor = (1.0 + self.factor.unwrap_or(0.0)) as f32;
            image.data.par_mapv_inplace(|v| v * factor);
            return Ok(image);
        }
        for_each_part(&mut image.data, self.channel_wise, |part| {
            self.rescale(part);
            Ok(())
        })?;
        Ok(image)
    }
}
