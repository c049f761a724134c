//! `NormalizeIntensityd`: subtracts a mean and divides by a standard deviation.

use ndarray::{ArrayView4, ArrayViewMut4};

use super::{by_plane, for_each_part};
use crate::bundle::Args;
use crate::error::{Error, ErrorKind, Result};
use crate::transforms::{Image, Transform};

/// `monai.transforms.NormalizeIntensityd`. Missing arguments default to the mean and the (biased)
/// standard deviation of the image or of each channel, optionally of the nonzero values only.
#[derive(Debug, Clone, PartialEq)]
pub struct NormalizeIntensityd {
    /// One value for the whole image, or one per channel.
    subtrahend: Option<Vec<f64>>,
    divisor: Option<Vec<f64>>,
    nonzero: bool,
    channel_wise: bool,
    path: String,
}

impl NormalizeIntensityd {
    pub(in crate::transforms) fn from_args(args: &mut Args) -> Result<Self> {
        args.float_dtype("dtype")?;
        let channel_wise = args.truth("channel_wise", false)?;
        Ok(Self {
            subtrahend: given(args, "subtrahend", channel_wise)?,
            divisor: given(args, "divisor", channel_wise)?,
            nonzero: args.truth("nonzero", false)?,
            channel_wise,
            path: args.path().to_owned(),
        })
    }

    fn check_channels(&self, channels: usize) -> Result<()> {
        let wanted = if self.channel_wise { channels } else { 1 };
        for (name, given) in [("subtrahend", &self.subtrahend), ("divisor", &self.divisor)] {
            if let Some(given) = given.as_ref().filter(|g| g.len() != wanted) {
                return Err(Error::new(
                    ErrorKind::InvalidModel,
                    format!(
                        "{}: {name} has {} numbers, the image {channels} channels",
                        self.path,
                        given.len()
                    ),
                )
                .with("path", self.path.as_str()));
            }
        }
        Ok(())
    }

    fn normalize(&self, part: usize, mut values: ArrayViewMut4<f32>) {
        let nonzero = self.nonzero;
        let used = move |v: f32| !nonzero || v != 0.0;
        let number = |of: &Option<Vec<f64>>| of.as_ref().and_then(|of| of.get(part).copied());
        let (mean, deviation) = match (number(&self.subtrahend), number(&self.divisor)) {
            (Some(mean), Some(deviation)) => (mean, deviation),
            (mean, deviation) => {
                let Some(found) = mean_and_deviation(values.view(), used) else { return };
                (mean.unwrap_or(found.0), deviation.unwrap_or(found.1))
            }
        };
        let mean = mean as f32;
        let divisor = if deviation == 0.0 { 1.0 } else { deviation as f32 };
        values.par_mapv_inplace(|v| if used(v) { (v - mean) / divisor } else { v });
    }
}

impl Transform for NormalizeIntensityd {
    fn apply(&self, mut image: Image) -> Result<Image> {
        self.check_channels(image.data.dim().0)?;
        let mut part = 0;
        for_each_part(&mut image.data, self.channel_wise, |values| {
            self.normalize(part, values);
            part += 1;
            Ok(())
        })?;
        Ok(image)
    }
}

/// Returns a number or, with `channel_wise`, a list of them.
fn given(args: &mut Args, name: &str, channel_wise: bool) -> Result<Option<Vec<f64>>> {
    let Some(value) = args.raw(name) else { return Ok(None) };
    let numbers = if channel_wise {
        value.as_array().and_then(|list| list.iter().map(|v| v.as_f64()).collect())
    } else {
        value.as_f64().map(|v| vec![v])
    };
    let expected = if channel_wise { "a list of numbers, one a channel" } else { "a number" };
    numbers.map(Some).ok_or_else(|| args.invalid(name, expected))
}

/// Returns the mean and biased standard deviation of the `used` values; `None` if there are none.
fn mean_and_deviation(
    values: ArrayView4<f32>,
    used: impl Fn(f32) -> bool + Send + Sync,
) -> Option<(f64, f64)> {
    let sums = by_plane(values, |plane| {
        plane.fold(
            (0u64, 0.0),
            |(n, sum), &v| {
                if used(v) { (n + 1, sum + f64::from(v)) } else { (n, sum) }
            },
        )
    });
    let (count, sum) = sums.into_iter().fold((0, 0.0), |a, b| (a.0 + b.0, a.1 + b.1));
    if count == 0 {
        return None;
    }
    let mean = sum / count as f64;
    let squares = by_plane(values, |plane| {
        plane.fold(0.0, |sum, &v| {
            let distance = f64::from(v) - mean;
            if used(v) { sum + distance * distance } else { sum }
        })
    });
    Some((mean, (squares.into_iter().sum::<f64>() / count as f64).sqrt()))
}
