//! What meshes are made from: a mask, asked for plane by plane, so that none has to be made in one piece.

use ndarray::{ArrayView3, Axis};

pub use super::bits::Plane;

/// The voxels of one segment in a box.
pub trait Grid: Sync {
    /// Voxels of the box along X, Y and Z.
    fn dims(&self) -> [usize; 3];

    /// Puts the voxels of plane `z` into `plane`, which is empty and has the box's size.
    fn plane(&self, z: usize, plane: &mut Plane);
}

impl<G: Grid> Grid for &G {
    fn dims(&self) -> [usize; 3] {
        (*self).dims()
    }

    fn plane(&self, z: usize, plane: &mut Plane) {
        (*self).plane(z, plane);
    }
}

/// The voxels of an array, axes (X, Y, Z), for which something holds.
pub struct MaskGrid<'a, T, F> {
    voxels: ArrayView3<'a, T>,
    inside: F,
}

impl<'a, T, F: Fn(&T) -> bool> MaskGrid<'a, T, F> {
    /// The voxels for which `inside` holds.
    pub fn new(voxels: ArrayView3<'a, T>, inside: F) -> Self {
        Self { voxels, inside }
    }
}

impl<T: Sync, F: Fn(&T) -> bool + Sync> Grid for MaskGrid<'_, T, F> {
    fn dims(&self) -> [usize; 3] {
        self.voxels.dim().into()
    }

    fn plane(&self, z: usize, plane: &mut Plane) {
        if z >= self.voxels.dim().2 {
            return;
        }
        for (y, row) in self.voxels.index_axis(Axis(2), z).axis_iter(Axis(1)).enumerate() {
            match row.to_slice() {
                Some(row) => plane.set_row(y, row.iter().map(&self.inside)),
                None => plane.set_row(y, row.iter().map(&self.inside)),
            }
        }
    }
}
