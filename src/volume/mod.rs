//! Assembles slices into a volume: order, spacing, the affine into patient space, rescale.
//!
//! [`plan()`] reads only headers, so that all problems of a series are known before a frame is
//! fetched; [`Volume`] then accepts the decoded frames in any order.

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
use physical::KeptSlice;
pub use physical::Physical;
pub use plan::{Plan, Slice, plan};
pub use stack::Resampling;

use crate::codec::{Samples, recycle};
use crate::error::{Error, Result};
use crate::memory::{take_kept, zeroed};

/// The grid of a volume: its size and position in patient space.
#[derive(Debug, Clone, PartialEq)]
pub struct Geometry {
    /// Number of voxels along X (columns of the image), Y (rows) and Z (slices).
    pub dims: [usize; 3],
    /// Maps a voxel index (x, y, z) to RAS+ millimetres.
    pub affine: Affine,
}

impl Geometry {
    /// Returns the number of voxels.
    pub fn voxels(&self) -> usize {
        self.dims.iter().product()
    }

    /// Returns the volume of one voxel in cubic millimetres.
    pub fn voxel_volume(&self) -> f64 {
        let a = &self.affine;
        affine::dot(affine::cross(a.column(0), a.column(1)), a.column(2)).abs()
    }
}

/// The voxels of a volume while its frames arrive. If each source slice is a grid slice, its pixels
/// are converted to physical values in place on arrival; if the plan interpolates between slices,
/// frames are kept as stored until all have arrived.
#[derive(Debug)]
pub struct Volume {
    plan: Arc<Plan>,
    /// All voxels in physical units; empty if the plan resamples.
    voxels: Vec<f32>,
    /// The same for measurements, if they are wanted and all values are whole numbers.
    kept: Option<Physical>,
    slots: Vec<Slot>,
}

/// State of a source slice.
#[derive(Debug, Default)]
enum Slot {
    #[default]
    Missing,
    /// It has been written to the volume.
    Placed,
    /// It is stored until interpolation.
    Stored(Samples),
}

impl Volume {
    /// Creates a volume for the frames of `plan`. The system commits its memory page by page as
    /// frames arrive.
    ///
    /// # Errors
    /// [`OutOfMemory`](crate::error::ErrorKind::OutOfMemory) if the memory cannot be allocated.
    pub fn new(plan: Arc<Plan>) -> Result<Self> {
        let voxels = match plan.resampling {
            // All voxels are written before they are read: a missing slice is an error.
            None => take_kept(voxels_of(&plan), "the volume")?,
            Some(_) => Vec::new(),
        };
        let slots = plan.slices.iter().map(|_| Slot::default()).collect();
        Ok(Self { plan, voxels, kept: None, slots })
    }

    /// Also keeps the values for measurements as frames arrive, while they are in a cache, if all are whole
    /// numbers. To be called before the first frame.
    ///
    /// # Errors
    /// Those of [`new`](Self::new).
    pub fn measured(mut self) -> Result<Self> {
        self.kept = Physical::room(&self.plan)?;
        Ok(self)
    }

    /// Takes the values kept for measurements, if there are any. Those of missing slices are arbitrary.
    pub fn take_kept(&mut self) -> Option<Physical> {
        self.kept.take()
    }

    /// Returns the slots of the slices that are still missing, which several threads may fill.
    pub fn places(&mut self) -> Places<'_> {
        let [nx, ny, _] = self.plan.geometry.dims;
        let pixels = (nx * ny).max(1);
        let mut targets = self.voxels.chunks_exact_mut(pixels);
        let mut kept = self.kept.as_mut().map(|kept| kept.slices(pixels));
        let resampled = self.plan.resampling.is_some();
        let places = self.slots.iter_mut().map(|slot| {
            let target = if resampled { None } else { targets.next() };
            let kept = kept.as_mut().and_then(Iterator::next);
            let free = matches!(slot, Slot::Missing) && (resampled || target.is_some());
            Mutex::new(free.then_some(Place { slot, target, kept }))
        });
        Places { slices: &self.plan.slices, pixels, places: places.collect() }
    }

    /// Writes a decoded frame to its slot. `index` is its position in [`Plan::slices`].
    ///
    /// # Errors
    /// The errors of [`Places::put`].
    pub fn insert(&mut self, index: usize, samples: Samples) -> Result<()> {
        self.places().put(index, samples)
    }

    /// Returns the voxels in physical units (Hounsfield for CT): `stored · RescaleSlope +
    /// RescaleIntercept` for each slice, axes (X, Y, Z), X fastest in memory. If the plan
    /// resamples, each grid slice is interpolated linearly between two source slices.
    ///
    /// # Errors
    /// `Internal`, naming a slice that is missing; `OutOfMemory`.
    pub fn into_physical(self) -> Result<Array3<f32>> {
        let Self { plan, voxels, slots, .. } = self;
        let missing = slots.iter().position(|slot| matches!(slot, Slot::Missing));
        if let Some(index) = missing {
            return Err(Error::internal(format!("slice {index} is missing")));
        }
        let [nx, ny, nz] = plan.geometry.dims;
        let voxels = match &plan.resampling {
            // Every slice was written, and the grid has no other planes.
            None if slots.len() == nz => voxels,
            None => return Err(Error::internal("the volume has more planes than slices")),
            Some(resampling) => interpolated(&plan, resampling, &slots)?,
        };
        Array3::from_shape_vec((nx, ny, nz).f(), voxels)
            .map_err(|e| Error::internal("the volume's shape does not match").caused_by(e))
    }
}

/// Returns the number of voxels of the grid, saturating if the product overflows, which no memory
/// can hold.
fn voxels_of(plan: &Plan) -> usize {
    let [nx, ny, nz] = plan.geometry.dims;
    nx.saturating_mul(ny).saturating_mul(nz)
}

/// The slots of a volume's missing slices. Each slot can be taken once, so that no voxel is written
/// twice.
#[derive(Debug)]
pub struct Places<'v> {
    slices: &'v [Slice],
    pixels: usize,
    places: Vec<Mutex<Option<Place<'v>>>>,
}

#[derive(Debug)]
struct Place<'v> {
    slot: &'v mut Slot,
    /// The slice's voxels, if it is a grid slice.
    target: Option<&'v mut [f32]>,
    kept: Option<KeptSlice<'v>>,
}

impl Places<'_> {
    /// Writes a decoded frame to its slot. `index` is its position in [`Plan::slices`]. The frame's
    /// memory is recycled for later frames.
    ///
    /// # Errors
    /// `Internal` if the frame's size differs from the slice's, there is no such slice, or it was
    /// already put.
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
        // The lock is held only to take the slot, not while filling it, so threads do not block
        // each other.
        let place = place.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Place { slot, target, kept } =
            place.ok_or_else(|| Error::internal(format!("slice {index} came twice")))?;
        *slot = match target {
            Some(target) => {
                rescale::fill(&samples, slice, target);
                if let Some(kept) = kept {
                    kept.fill(&samples, slice, target);
                }
                recycle(samples);
                Slot::Placed
            }
            None => Slot::Stored(samples),
        };
        Ok(())
    }
}

/// Computes the voxels of the grid, each slice interpolated between two source slices.
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
