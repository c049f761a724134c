//! Intensity ranges from percentiles of the image: `ScaleIntensityRangePercentilesd` and
//! `ClipIntensityPercentilesd`.

use ndarray::ArrayViewMut4;

use super::for_each_part;
use super::order_statistics::OrderStatistics;
use super::range::{Bounds, RangeMap, target_from_args};
use crate::bundle::Args;
use crate::error::Result;
use crate::transforms::{Image, Transform};

/// `monai.transforms.ScaleIntensityRangePercentilesd`.
#[derive(Debug, Clone, PartialEq)]
pub struct ScaleIntensityRangePercentilesd {
    lower: f64,
    upper: f64,
    b: Bounds,
    clip: bool,
    channel_wise: bool,
}

impl ScaleIntensityRangePercentilesd {
    pub(in crate::transforms) fn from_args(args: &mut Args) -> Result<Self> {
        args.float_dtype("dtype")?;
        let lower = args.required_number("lower")?;
        let upper = args.required_number("upper")?;
        for (name, q) in [("lower", lower), ("upper", upper)] {
            if !(0.0..=100.0).contains(&q) {
                return Err(args.invalid(name, "a number from 0 to 100"));
            }
        }
        let (mut b, clip) = target_from_args(args)?;
        if args.truth("relative", false)? {
            let (Some(min), Some(max)) = b else {
                return Err(args.invalid("relative", "true only together with b_min and b_max"));
            };
            let at = |q: f64| Some((max - min) * (q / 100.0) + min);
            b = (at(lower), at(upper));
        }
        let channel_wise = args.truth("channel_wise", false)?;
        Ok(Self { lower, upper, b, clip, channel_wise })
    }

    fn scale(&self, values: ArrayViewMut4<f32>) {
        let statistics = OrderStatistics::new(values.view());
        let a_min = statistics.percentile(self.lower);
        let a_span = statistics.percentile(self.upper) - a_min;
        RangeMap { a_min, a_span, b: self.b, clip: self.clip }.apply(values);
    }
}

impl Transform for ScaleIntensityRangePercentilesd {
    fn apply(&self, mut image: Image) -> Result<Image> {
        for_each_part(&mut image.data, self.channel_wise, |part| {
            self.scale(part);
            Ok(())
        })?;
        Ok(image)
    }
}

/// `monai.transforms.ClipIntensityPercentilesd` with hard bounds.
#[derive(Debug, Clone, PartialEq)]
pub struct ClipIntensityPercentilesd {
    lower: Option<f64>,
    upper: Option<f64>,
    channel_wise: bool,
}

impl ClipIntensityPercentilesd {
    pub(in crate::transforms) fn from_args(args: &mut Args) -> Result<Self> {
        args.float_dtype("dtype")?;
        // The clipping values would only be recorded with the image.
        args.ignore(&["return_clipping_values"]);
        if args.raw("sharpness_factor").is_some() {
            return Err(args.invalid("sharpness_factor", "null"));
        }
        let (lower, upper) = (args.number("lower")?, args.number("upper")?);
        for (name, q) in [("lower", lower), ("upper", upper)] {
            if q.is_some_and(|q| !(0.0..=100.0).contains(&q)) {
                return Err(args.invalid(name, "a number from 0 to 100"));
            }
        }
        if lower.is_none() && upper.is_none() {
            return Err(args.invalid("lower", "a number, or upper one"));
        }
        if lower.zip(upper).is_some_and(|(lower, upper)| upper < lower) {
            return Err(args.invalid("upper", "a number not below lower"));
        }
        Ok(Self { lower, upper, channel_wise: args.truth("channel_wise", false)? })
    }

    fn clip(&self, mut values: ArrayViewMut4<f32>) {
        let statistics = OrderStatistics::new(values.view());
        let low = self.lower.map_or(f32::NEG_INFINITY, |q| statistics.percentile(q));
        let high = self.upper.map_or(f32::INFINITY, |q| statistics.percentile(q));
        values.par_mapv_inplace(|v| v.max(low).min(high));
    }
}

impl Transform for ClipIntensityPercentilesd {
    fn apply(&self, mut image: Image) -> Result<Image> {
        for_each_part(&mut image.data, self.channel_wise, |part| {
            self.clip(part);
            Ok(())
        })?;
        Ok(image)
    }
}
