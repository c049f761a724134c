//! Size and place of an image without its voxels: what a chain of transforms will make, and the
//! memory it will take, known before an image is loaded.

use super::Transform;
use crate::error::Result;
use crate::volume::Affine;

/// An image but for its voxels.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Extent {
    /// Channels.
    pub channels: usize,
    /// Size along X, Y, Z; where it depends on voxels (`CropForegroundd`), the largest possible one.
    pub dims: [usize; 3],
    /// Voxel index (x, y, z) to RAS+ millimetres.
    pub affine: Affine,
    /// Whether the way back goes axis by axis; it does not where some grid was sheared against the
    /// one before.
    pub straight: bool,
}

impl Extent {
    /// An image with one channel and no history.
    pub fn new(dims: [usize; 3], affine: Affine) -> Self {
        Self { channels: 1, dims, affine, straight: true }
    }

    /// Voxels of all channels.
    pub fn voxels(&self) -> u64 {
        voxels(self.dims).saturating_mul(self.channels as u64)
    }

    /// Bytes of the voxels in f32.
    pub fn bytes(&self) -> u64 {
        self.voxels().saturating_mul(size_of::<f32>() as u64)
    }
}

/// Voxels of a grid; a number beyond all memory where they overflow.
pub fn voxels(dims: [usize; 3]) -> u64 {
    dims.iter().fold(1, |product, &n| product.saturating_mul(n as u64))
}

/// What a chain of transforms makes, and takes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Forecast {
    /// The result.
    pub result: Extent,
    /// Bytes of voxels held at the same time, at most.
    pub peak: u64,
}

/// What one transform makes of an image, and bytes it holds beside it meanwhile.
pub(super) fn step(transform: &dyn Transform, before: Extent) -> Result<(Extent, u64)> {
    let after = transform.extent(before)?;
    if !transform.copies() && after.voxels() == before.voxels() {
        return Ok((after, 0));
    }
    // Channels are made one by one, each of a copy in the order of memory that suits, and several
    // are brought together in the end.
    let one = before.bytes() / before.channels.max(1) as u64;
    let made = if after.channels > 1 { after.bytes().saturating_mul(2) } else { after.bytes() };
    Ok((after, one.saturating_add(made)))
}
