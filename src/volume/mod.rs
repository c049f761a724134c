//! Slices to a volume: order, spacing, the affine into patient space, rescale.
//!
//! [`plan()`] reads only headers, so that everything that can be wrong with a series is known before
//! a frame is fetched; [`Volume`] then takes the decoded frames in any order.

pub mod affine;
mod plan;
mod policy;
mod slice;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use ndarray::{Array3, ShapeBuilder};
use rayon::prelude::*;

pub use affine::Affine;
pub use plan::{Plan, Slice, plan};
pub use policy::{DuplicatePolicy, GapPolicy, VolumePolicy};

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
        let length = match &samples {
            Samples::I16(v) => v.len(),
            Samples::U16(v) => v.len(),
        };
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
    /// slice by slice, axes (X, Y, Z), X running fastest in memory. Slices are freed as they go.
    pub fn into_physical(self) -> Result<Array3<f32>> {
        let [nx, ny, nz] = self.plan.geometry.dims;
        let count = nx.saturating_mul(ny).saturating_mul(nz);
        let mut voxels = zeroed::<f32>(count, "the volume")?;
        voxels
            .par_chunks_mut(nx * ny)
            .zip(self.slices)
            .zip(&self.plan.slices)
            .enumerate()
            .try_for_each(|(index, ((target, samples), slice))| {
                let samples =
                    samples.ok_or_else(|| Error::internal(format!("slice {index} is missing")))?;
                rescale(&samples, slice.rescale, target);
                Ok::<_, Error>(())
            })?;
        Array3::from_shape_vec((nx, ny, nz).f(), voxels)
            .map_err(|e| Error::internal("the volume's shape does not match").caused_by(e))
    }
}

/// `stored · slope + intercept`, computed in f64 and rounded once.
fn rescale(samples: &Samples, (slope, intercept): (f64, f64), target: &mut [f32]) {
    fn run<T: Copy + Into<f64>>(stored: &[T], slope: f64, intercept: f64, target: &mut [f32]) {
        for (out, &v) in target.iter_mut().zip(stored) {
            *out = (v.into() * slope + intercept) as f32;
        }
    }
    match samples {
        Samples::I16(v) => run(v, slope, intercept, target),
        Samples::U16(v) => run(v, slope, intercept, target),
    }
}
