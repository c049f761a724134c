//! Slices to a volume: order, spacing, the affine into patient space, rescale.
//!
//! [`plan()`] reads only headers, so that everything that can be wrong with a series is known before
//! a frame is fetched; [`Volume`] then takes the decoded frames in any order.

pub mod affine;
mod apart;
mod candidates;
mod physical;
mod places;
mod plan;
mod rescale;
mod slice;
mod stack;
#[cfg(test)]
mod tests;
mod traits;
mod values;

use std::sync::{Arc, Mutex, PoisonError};

use ndarray::{Array3, ShapeBuilder};
use rayon::prelude::*;

pub use affine::Affine;
pub use candidates::VolumeId;
pub use physical::Physical;
pub use plan::{Plan, Slice, plan};
pub use stack::Resampling;

use crate::codec::{Samples, recycle};
use crate::error::{Error, Result};
use crate::memory::{take_voxels, zeroed};

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

/// The voxels of a volume while its frames come. Where each slice of the source is one of the grid, they
/// become physical values in their place at once; where the plan interpolates between slices, they are
/// kept as stored until all are there.
#[derive(Debug)]
pub struct Volume {
    plan: Arc<Plan>,
    /// All voxels in physical units; none where the plan resamples.
    voxels: Vec<f32>,
    slots: Vec<Slot>,
}

/// What there is of a slice of the source.
#[derive(Debug, Default)]
enum Slot {
    #[default]
    Missing,
    /// It is in the volume.
    Placed,
    /// It waits to be interpolated.
    Stored(Samples),
}

impl Volume {
    /// A volume that waits for the frames of `plan`. The system gives its memory page by page as they come.
    ///
    /// # Errors
    /// [`OutOfMemory`](crate::error::ErrorKind::OutOfMemory) where the memory is not to be had.
    pub fn new(plan: Arc<Plan>) -> Result<Self> {
        let voxels = match plan.resampling {
            // All of them are written before they are read: a slice that never came is an error.
            None => take_voxels(voxels_of(&plan), "the volume")?,
            Some(_) => Vec::new(),
        };
        let slots = plan.slices.iter().map(|_| Slot::default()).collect();
        Ok(Self { plan, voxels, slots })
    }

    /// The places of the slices that are not there yet, for several threads to fill.
    pub fn places(&mut self) -> Places<'_> {
        let [nx, ny, _] = self.plan.geometry.dims;
        let pixels = (nx * ny).max(1);
        let mut targets = self.voxels.chunks_exact_mut(pixels);
        let resampled = self.plan.resampling.is_some();
        let places = self.slots.iter_mut().map(|slot| {
            let target = if resampled { None } else { targets.next() };
            let free = matches!(slot, Slot::Missing) && (resampled || target.is_some());
            Mutex::new(free.then_some(Place { slot, target }))
        });
        Places { slices: &self.plan.slices, pixels, places: places.collect() }
    }

    /// Puts a decoded frame in its place. `index` is its position in [`Plan::slices`].
    ///
    /// # Errors
    /// Those of [`Places::put`].
    pub fn insert(&mut self, index: usize, samples: Samples) -> Result<()> {
        self.places().put(index, samples)
    }

    /// The voxels in physical units (Hounsfield for CT): `stored · RescaleSlope + RescaleIntercept`
    /// slice by slice, axes (X, Y, Z), X running fastest in memory. Where the plan resamples, a slice of
    /// the grid is interpolated linearly between two of the source.
    ///
    /// # Errors
    /// `Internal` naming a slice that never came; `OutOfMemory`.
    pub fn into_physical(self) -> Result<Array3<f32>> {
        let Self { plan, voxels, slots } = self;
        let missing = slots.iter().position(|slot| matches!(slot, Slot::Missing));
        if let Some(index) = missing {
            return Err(Error::internal(format!("slice {index} is missing")));
        }
        let [nx, ny, nz] = plan.geometry.dims;
        let voxels = match &plan.resampling {
            // Each slice was written, and there is nothing but slices.
            None if slots.len() == nz => voxels,
            None => return Err(Error::internal("the volume has more planes than slices")),
            Some(resampling) => interpolated(&plan, resampling, &slots)?,
        };
        Array3::from_shape_vec((nx, ny, nz).f(), voxels)
            .map_err(|e| Error::internal("the volume's shape does not match").caused_by(e))
    }
}

/// Voxels of the grid; more than any memory has where the product overflows.
fn voxels_of(plan: &Plan) -> usize {
    let [nx, ny, nz] = plan.geometry.dims;
    nx.saturating_mul(ny).saturating_mul(nz)
}

/// Where the slices of a volume belong that are still to come. Each place is given away once, so that
/// no voxel is written twice.
#[derive(Debug)]
pub struct Places<'v> {
    slices: &'v [Slice],
    pixels: usize,
    places: Vec<Mutex<Option<Place<'v>>>>,
}

#[derive(Debug)]
struct Place<'v> {
    slot: &'v mut Slot,
    /// The slice's voxels, where it is one of the grid.
    target: Option<&'v mut [f32]>,
}

impl Places<'_> {
    /// Puts a decoded frame in its place. `index` is its position in [`Plan::slices`]. Its memory is used
    /// for the next frame.
    ///
    /// # Errors
    /// `Internal` where it has another size than the slice, there is no such slice, or it was put before.
    pub fn put(&self, index: usize, samples: Samples) -> Result<()> {
        let (length, expected) = (samples.len(), self.pixels);
        if length != expected {
            return Err(Error::internal(format!(
                "slice {index} has {length} samples in place of {expected}"
            )));
        }
        let (place, slice) = self
            .places
            .get(index)
            .zip(self.slices.get(index))
            .ok_or_else(|| Error::internal(format!("there is no slice {index}")))?;
        // Nobody waits for the others' lock: it is held to take the place, not to fill it.
        let place = place.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Place { slot, target } =
            place.ok_or_else(|| Error::internal(format!("slice {index} came twice")))?;
        *slot = match target {
            Some(target) => {
                rescale::fill(&samples, slice, target);
                recycle(samples);
                Slot::Placed
            }
            None => Slot::Stored(samples),
        };
        Ok(())
    }
}

/// The grid's voxels, each slice between two of the source.
fn interpolated(plan: &Plan, resampling: &Resampling, slots: &[Slot]) -> Result<Vec<f32>> {
    let [nx, ny, _] = plan.geometry.dims;
    let mut voxels = zeroed::<f32>(voxels_of(plan), "the volume")?;
    let source = |index: usize| match slots.get(index).zip(plan.slices.get(index)) {
        Some((Slot::Stored(samples), slice)) => Ok((samples, slice)),
        _ => Err(Error::internal(format!("slice {index} is missing"))),
    };
    voxels.par_chunks_mut(nx * ny).zip(&resampling.mix).try_for_each(
        |(target, &(below, weight))| {
            let (samples, slice) = source(below)?;
            rescale::fill(samples, slice, target);
            if weight > 0.0 {
                let (samples, slice) = source(below + 1)?;
                rescale::mix(samples, slice, weight, target);
            }
            Ok::<_, Error>(())
        },
    )?;
    Ok(voxels)
}
