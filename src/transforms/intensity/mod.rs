//! Transforms that change values but not the grid.
//!
//! Sums and counts are computed plane by plane and combined in order, so the same image always gives
//! the same result for any number of threads.

mod normalize;
mod order_statistics;
mod percentiles;
mod range;
mod threshold;

use ndarray::{Array4, ArrayView3, ArrayView4, ArrayViewMut4, Axis};
use rayon::prelude::*;

pub(super) use normalize::NormalizeIntensityd;
pub(super) use percentiles::{ClipIntensityPercentilesd, ScaleIntensityRangePercentilesd};
pub(super) use range::{ScaleIntensityRanged, ScaleIntensityd};
pub(super) use threshold::ThresholdIntensityd;

use crate::error::Result;

/// Calls `work` with each channel (same axes as the image, one channel), or with the whole image.
fn for_each_part(
    data: &mut Array4<f32>,
    channel_wise: bool,
    work: impl FnMut(ArrayViewMut4<f32>) -> Result<()>,
) -> Result<()> {
    let channels = if channel_wise { 1 } else { data.dim().0.max(1) };
    data.axis_chunks_iter_mut(Axis(0), channels).try_for_each(work)
}

/// Returns the result of `of` for each plane across the axis that varies slowest in memory, in order.
fn by_plane<T: Send>(
    values: ArrayView4<f32>,
    of: impl Fn(ArrayView3<f32>) -> T + Send + Sync,
) -> Vec<T> {
    let slowest = (0..4)
        .filter(|&a| values.shape()[a] > 1)
        .max_by_key(|&a| values.strides()[a].unsigned_abs())
        .unwrap_or(0);
    values.axis_iter(Axis(slowest)).into_par_iter().map(of).collect()
}

/// Returns the smallest and the largest value.
fn extent(values: ArrayView4<f32>) -> (f32, f32) {
    let whole = (f32::INFINITY, f32::NEG_INFINITY);
    by_plane(values, |plane| plane.fold(whole, |(low, high), &v| (low.min(v), high.max(v))))
        .into_iter()
        .fold(whole, |a, b| (a.0.min(b.0), a.1.max(b.1)))
}
