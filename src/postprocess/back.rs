//! Maps an already discretised result from the network's grid to the source's.

use ndarray::{Array3, ArrayView3, Axis, s};

use super::Segmentation;
use super::activation::Activation;
use super::arrays::{masks_of, widened, zeros};
use super::decide::{ABOVE_HALF, Decision, Rule};
use super::engine::{Engine, by_class};
use super::gather::gather;
use super::inverse::Inverse;
use super::plan::Discretise;
use crate::error::{Error, Result};

/// Planes that are computed and mapped back together.
pub(super) const PLANES: usize = 2;

/// Maps back by the nearest voxel.
pub(super) fn nearest(segmentation: Segmentation, inverse: &Inverse) -> Result<Segmentation> {
    Ok(match segmentation {
        Segmentation::Labels(labels) => Segmentation::Labels(gather(labels.view(), inverse)?),
        Segmentation::Masks(masks) => {
            let mut out = masks_of(masks.dim().0, inverse.outputs())?;
            for (mut out, mask) in out.outer_iter_mut().zip(masks.outer_iter()) {
                out.assign(&gather(mask, inverse)?);
            }
            Segmentation::Masks(out)
        }
        // There is no class outside, which is code 0.
        Segmentation::Sets(sets) => {
            let codes = gather(sets.codes(), inverse)?;
            Segmentation::Sets(sets.with_codes(codes))
        }
    })
}

/// Maps back as values, interpolated as the image was during preprocessing, and discretises again.
pub(super) fn interpolated(
    segmentation: &Segmentation,
    discretise: Option<Discretise>,
    inverse: &Inverse,
) -> Result<Segmentation> {
    let (channels, dims) = match segmentation {
        Segmentation::Labels(labels) => (1, labels.dim()),
        Segmentation::Sets(sets) => (sets.classes(), sets.codes().dim()),
        Segmentation::Masks(masks) => {
            let (channels, x, y, z) = masks.dim();
            (channels, (x, y, z))
        }
    };
    let dims: [usize; 3] = dims.into();
    let rule = match (segmentation, discretise) {
        (Segmentation::Labels(_), None | Some(Discretise::Round)) => Rule::Round,
        (Segmentation::Sets(_), None | Some(Discretise::Round)) => Rule::Majority(ABOVE_HALF),
        (Segmentation::Masks(_), None | Some(Discretise::Round)) => Rule::Threshold(ABOVE_HALF),
        (Segmentation::Sets(_), Some(Discretise::Threshold(t))) => Rule::Majority(t),
        (_, Some(Discretise::Threshold(t))) => Rule::Threshold(t),
        (Segmentation::Labels(_), Some(Discretise::Argmax)) => {
            return Err(Error::internal("the largest of a single channel"));
        }
        (_, Some(Discretise::Argmax)) => Rule::Argmax,
    };
    let decision = Decision { rule, activation: Activation::None, channels };
    let Some(mut engine) = Engine::new(Activation::None, decision, inverse, dims)? else {
        return by_class(decision, channels, inverse.outputs(), |class| {
            inverse.apply(channel(segmentation, class)?.view())
        });
    };
    for x in (0..dims[0]).step_by(PLANES) {
        let planes = (x..(x + PLANES).min(dims[0]))
            .map(|x| plane(segmentation, channels, x))
            .collect::<Result<Vec<_>>>()?;
        let views: Vec<ArrayView3<f32>> = planes.iter().map(|plane| plane.view()).collect();
        engine.planes(x, 0, &views);
    }
    engine.finish()
}

/// Returns one channel as values, axes (X, Y, Z).
fn channel(segmentation: &Segmentation, class: usize) -> Result<Array3<f32>> {
    match segmentation {
        Segmentation::Labels(labels) => widened(labels.view()),
        Segmentation::Masks(masks) => widened(masks.index_axis(Axis(0), class)),
        Segmentation::Sets(sets) => widened(sets.class_mask(class as u16)?.view()),
    }
}

/// Returns one plane of all channels as values, axes (channel, Y, Z).
fn plane(segmentation: &Segmentation, channels: usize, x: usize) -> Result<Array3<f32>> {
    match segmentation {
        Segmentation::Labels(labels) => widened(labels.slice(s![x..x + 1, .., ..])),
        Segmentation::Masks(masks) => widened(masks.index_axis(Axis(1), x)),
        Segmentation::Sets(sets) => {
            let codes = sets.codes();
            let codes = codes.index_axis(Axis(0), x);
            let (y, z) = codes.dim();
            let mut values = zeros([1, channels, y, z])?.index_axis_move(Axis(0), 0);
            for ((y, z), &code) in codes.indexed_iter() {
                for &class in &sets.members()[usize::from(code)] {
                    values[[usize::from(class), y, z]] = 1.0;
                }
            }
            Ok(values)
        }
    }
}
