//! The physical values of an image, kept for measurements after its own buffer has been reused for
//! the network.

use ndarray::{Array3, ArrayView3, ShapeBuilder, Zip};

use super::{Plan, Slice, rescale};
use crate::codec::Samples;
use crate::error::{Error, Result};
use crate::kernels;
use crate::memory::{Zeroed, keep, take_kept};

/// The voxels of an image in physical units (Hounsfield for CT), axes (X, Y, Z), X fastest in memory.
#[derive(Debug, Clone, PartialEq)]
pub enum Physical {
    /// Whole numbers, stored as offsets from the lowest possible value: half the memory.
    Whole {
        /// The offsets.
        voxels: Array3<u16>,
        /// The physical value of offset zero.
        low: i32,
    },
    /// Arbitrary numbers.
    Real(Array3<f32>),
}

impl Physical {
    /// Allocates room for the values of `plan`, which are kept slice by slice; `None` if not all are whole numbers
    /// within 16 bits.
    ///
    /// # Errors
    /// [`OutOfMemory`](crate::error::ErrorKind::OutOfMemory) if the memory cannot be allocated.
    pub(super) fn room(plan: &Plan) -> Result<Option<Self>> {
        let Some(low) = whole(plan) else { return Ok(None) };
        let [x, y, z] = plan.geometry.dims;
        Ok(Some(Self::Whole { voxels: array((x, y, z))?, low }))
    }

    /// Returns its slices of `pixels` values; none of arbitrary numbers.
    pub(super) fn slices(&mut self, pixels: usize) -> impl Iterator<Item = KeptSlice<'_>> {
        let (voxels, low) = match self {
            Self::Whole { voxels, low } => (voxels.as_slice_memory_order_mut(), *low),
            Self::Real(_) => (None, 0),
        };
        let slices = voxels.unwrap_or_default().chunks_exact_mut(pixels);
        slices.map(move |voxels| KeptSlice { voxels, low })
    }

    /// Copies arbitrary numbers, axes (X, Y, Z).
    ///
    /// # Errors
    /// [`OutOfMemory`](crate::error::ErrorKind::OutOfMemory) if the memory cannot be allocated.
    pub fn keep(voxels: ArrayView3<f32>) -> Result<Self> {
        let mut kept = array::<f32>(voxels.dim())?;
        Zip::from(&mut kept).and(voxels).par_for_each(|kept, &value| *kept = value);
        Ok(Self::Real(kept))
    }

    /// Keeps the buffer for the next request.
    pub fn recycle(self) {
        match self {
            Self::Whole { voxels, .. } => keep(voxels.into_raw_vec_and_offset().0),
            Self::Real(voxels) => keep(voxels.into_raw_vec_and_offset().0),
        }
    }

    /// Returns the number of bytes per voxel that the kept values take.
    pub fn voxel_bytes(plan: &Plan) -> u64 {
        if whole(plan).is_some() { size_of::<u16>() as u64 } else { size_of::<f32>() as u64 }
    }

    /// Returns the number of voxels along X, Y and Z.
    pub fn dim(&self) -> (usize, usize, usize) {
        match self {
            Self::Whole { voxels, .. } => voxels.dim(),
            Self::Real(voxels) => voxels.dim(),
        }
    }

    /// Returns the value of a voxel; `None` outside the image.
    pub fn at(&self, [x, y, z]: [usize; 3]) -> Option<f32> {
        match self {
            Self::Whole { voxels, low } => {
                voxels.get((x, y, z)).map(|&distance| (low + i32::from(distance)) as f32)
            }
            Self::Real(voxels) => voxels.get((x, y, z)).copied(),
        }
    }
}

/// A slice of whole numbers.
#[derive(Debug)]
pub(super) struct KeptSlice<'k> {
    voxels: &'k mut [u16],
    low: i32,
}

impl KeptSlice<'_> {
    /// Keeps the values of a slice: its pixels as they are stored, and in physical units.
    pub(super) fn fill(self, stored: &Samples, slice: &Slice, physical: &[f32]) {
        if !rescale::offsets(stored, slice, self.low, self.voxels) {
            kernels::offsets(self.voxels, physical, self.low);
        }
    }
}

/// Returns the lowest physical value that the pixels of `plan` can have, if all possible values are
/// whole numbers within a range of 16 bits. Depends only on the headers, so that the memory is
/// known before there are pixels.
fn whole(plan: &Plan) -> Option<i32> {
    if plan.resampling.is_some() {
        return None;
    }
    let ranges = plan.slices.iter().map(whole_range);
    let (low, high) = ranges.reduce(|a, b| {
        let ((a, b), (c, d)) = (a?, b?);
        Some((a.min(c), b.max(d)))
    })??;
    (high - low <= i32::from(u16::MAX)).then_some(low)
}

/// Returns the lowest and highest physical value that the samples of a slice can have, if all are
/// whole numbers.
fn whole_range(slice: &Slice) -> Option<(i32, i32)> {
    let format = &slice.format;
    let stored = match (format.bits_allocated, format.signed, format.float) {
        (8, false, false) => [0, i32::from(u8::MAX)],
        (8, true, false) => [i32::from(i8::MIN), i32::from(i8::MAX)],
        (16, false, false) => [0, i32::from(u16::MAX)],
        (16, true, false) => [i32::from(i16::MIN), i32::from(i16::MAX)],
        _ => return None,
    };
    let (slope, intercept) = rescale::whole(slice)?;
    let [a, b] = stored.map(|stored| stored * slope + intercept);
    Some((a.min(b), a.max(b)))
}

/// Allocates an array that is to be written whole.
fn array<T: Zeroed>((x, y, z): (usize, usize, usize)) -> Result<Array3<T>> {
    let count = x.saturating_mul(y).saturating_mul(z);
    Array3::from_shape_vec((x, y, z).f(), take_kept::<T>(count, "the kept values")?)
        .map_err(|e| Error::internal("the kept values' shape does not match").caused_by(e))
}
