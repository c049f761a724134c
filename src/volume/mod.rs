//! Slices to a volume: order, spacing, the affine into patient space, rescale.
//!
//! [`plan()`] reads only headers, so that everything that can be wrong with a series is known before
//! a frame is fetched; [`Volume`] then takes the decoded frames in any order.

pub mod affine;
mod apart;
mod candidates;
mod places;
mod plan;
mod slice;
mod stack;
#[cfg(test)]
mod tests;
mod traits;
mod values;

use std::sync::Arc;

use ndarray::{Array3, ShapeBuilder};
use rayon::prelude::*;

pub use affine::Affine;
pub use candidates::VolumeId;
pub use plan::{Plan, Slice, plan};
pub use stack::Resampling;

use crate::codec::Samples;
use crate::error::{Error, Result};
use crate::memory::zeroed;

/// The grid of a volume: size and place in patient space.
#[derive(Debug, Clone, PartialEq)]
pub struct Geometry {
    /// Voxels along X (columns of the image), Y (rows) and Z (slices).
    pub dims: [usize; 3],
    /// Voxel index (x, y, z) to RAS+ millimetres.
    pub affine: Affine,
}

impl Geometry {
    /// Number of voxels.
    pub fn voxels(&self) -> usize {
        self.dims.iter().product()
    }

    /// Volume of one voxel in cubic millimetres.
    pub fn voxel_volume(&self) -> f64 {
        let a = &self.affine;
        affine::dot(affine::cross(a.column(0), a.column(1)), a.column(2)).abs()
    }
}

/// Decoded slices in volume order, still as stored, with what turns them into physical units.
#[derive(Debug)]
pub struct Volume {
    plan: Arc<Plan>,
    slices: Vec<Option<Samples>>,
}

impl Volume {
    /// An empty volume that waits for the frames of `plan`.
    pub fn new(plan: Arc<Plan>) -> Self {
        let slices = plan.slices.iter().map(|_| None).collect();
        Self { plan, slices }
    }

    /// Puts a decoded frame in its place. `index` is its position in [`Plan::slices`].
    pub fn insert(&mut self, index: usize, samples: Samples) -> Result<()> {
        let expected = self.plan.geometry.dims[0] * self.plan.geometry.dims[1];
        let length = samples.len();
        if length != expected {
            return Err(Error::internal(format!(
                "slice {index} has {length} samples in place of {expected}"
            )));
        }
        let slot = self
            .slices
            .get_mut(index)
            .ok_or_else(|| Error::internal(format!("there is no slice {index}")))?;
        *slot = Some(samples);
        Ok(())
    }

    /// The voxels in physical units (Hounsfield for CT): `stored · RescaleSlope + RescaleIntercept`
    /// slice by slice, axes (X, Y, Z), X running fastest in memory. Where the plan resamples, a slice of
    /// the grid is interpolated linearly between two of the source. Slices are freed as they go.
    pub fn into_physical(self) -> Result<Array3<f32>> {
        let [nx, ny, nz] = self.plan.geometry.dims;
        let count = nx.saturating_mul(ny).saturating_mul(nz);
        let mut voxels = zeroed::<f32>(count, "the volume")?;
        let slices = voxels.par_chunks_mut(nx * ny);
        let missing = |index| Error::internal(format!("slice {index} is missing"));
        match &self.plan.resampling {
            None => slices.zip(self.slices).zip(&self.plan.slices).enumerate().try_for_each(
                |(index, ((target, samples), slice))| {
                    let samples = samples.ok_or_else(|| missing(index))?;
                    rescale(&samples, slice, |out, value| *out = value, target);
                    Ok::<_, Error>(())
                },
            )?,
            Some(resampling) => {
                let source = |index: usize| {
                    let samples = self.slices.get(index).and_then(Option::as_ref);
                    let slice = self.plan.slices.get(index);
                    samples.zip(slice).ok_or_else(|| missing(index))
                };
                slices.zip(&resampling.mix).try_for_each(|(target, &(below, weight))| {
                    let (samples, slice) = source(below)?;
                    rescale(samples, slice, |out, value| *out = value, target);
                    if weight > 0.0 {
                        let (samples, slice) = source(below + 1)?;
                        let mix = |out: &mut f32, value: f32| *out += (value - *out) * weight;
                        rescale(samples, slice, mix, target);
                    }
                    Ok::<_, Error>(())
                })?;
            }
        }
        Array3::from_shape_vec((nx, ny, nz).f(), voxels)
            .map_err(|e| Error::internal("the volume's shape does not match").caused_by(e))
    }
}

/// The pixels in physical units, put into `target` by `put`.
fn rescale(
    samples: &Samples,
    slice: &Slice,
    put: impl Fn(&mut f32, f32) + Copy,
    target: &mut [f32],
) {
    fn run<T: Copy + Into<f64>>(
        stored: &[T],
        to_physical: impl Fn(f64) -> f32,
        put: impl Fn(&mut f32, f32),
        target: &mut [f32],
    ) {
        for (out, &v) in target.iter_mut().zip(stored) {
            put(out, to_physical(v.into()));
        }
    }
    let to_physical = |stored| slice.physical(stored);
    match samples {
        Samples::I16(v) => run(v, to_physical, put, target),
        Samples::U16(v) => run(v, to_physical, put, target),
        Samples::I32(v) => run(v, to_physical, put, target),
        Samples::U32(v) => run(v, to_physical, put, target),
        Samples::F32(v) => run(v, to_physical, put, target),
        Samples::F64(v) => run(v, to_physical, put, target),
    }
}
