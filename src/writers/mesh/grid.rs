//! Masks as the source of meshes. They are read plane by plane, so no mask has to exist as a whole.

use ndarray::{ArrayView3, Axis, s};

pub use super::bits::Plane;
use crate::writers::{Bounds, Label, Voxels};

/// The voxels of one segment in a box.
pub trait Grid: Sync {
    /// Returns the size of the box along X, Y and Z.
    fn dims(&self) -> [usize; 3];

    /// Writes the voxels of plane `z` into `plane`, which is empty and has the box's size.
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

/// The voxels of an array, axes (X, Y, Z), that satisfy a predicate.
pub struct MaskGrid<'a, T, F> {
    voxels: ArrayView3<'a, T>,
    inside: F,
}

impl<'a, T, F: Fn(&T) -> bool> MaskGrid<'a, T, F> {
    /// Selects the voxels for which `inside` holds.
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

/// One segment of a segmentation's voxels, in a box.
pub struct SegmentGrid<'v, 'a, L> {
    voxels: &'v Voxels<'a, L>,
    index: usize,
    value: u16,
    /// For each set of values, whether it contains the segment's.
    having: Vec<bool>,
    bounds: Bounds,
}

impl<'v, 'a, L: Label> SegmentGrid<'v, 'a, L> {
    /// Selects the segment at position `index` in the descriptions, with the label value `value`,
    /// within `bounds`, which must lie within the volume.
    pub fn new(voxels: &'v Voxels<'a, L>, index: usize, value: u16, bounds: Bounds) -> Self {
        let having = match voxels {
            Voxels::Sets { members, .. } => {
                members.iter().map(|set| set.contains(&value)).collect()
            }
            _ => Vec::new(),
        };
        Self { voxels, index, value, having, bounds }
    }
}

impl<L: Label> Grid for SegmentGrid<'_, '_, L> {
    fn dims(&self) -> [usize; 3] {
        self.bounds.each_ref().map(ExactSizeIterator::len)
    }

    fn plane(&self, z: usize, plane: &mut Plane) {
        let [x, y, slices] = self.bounds.clone();
        let part = s![x, y, slices];
        match self.voxels {
            Voxels::Labels(labels) => {
                let inside = |label: &L| (*label).into() == self.value;
                MaskGrid::new(labels.slice(part), inside).plane(z, plane);
            }
            Voxels::Sets { codes, .. } => {
                let inside = |code: &L| self.having.get(usize::from((*code).into())) == Some(&true);
                MaskGrid::new(codes.slice(part), inside).plane(z, plane);
            }
            Voxels::Masks(masks) if self.index < masks.len_of(Axis(0)) => {
                let mask = masks.index_axis(Axis(0), self.index);
                MaskGrid::new(mask.slice(part), |inside: &u8| *inside != 0).plane(z, plane);
            }
            Voxels::Masks(_) => {}
        }
    }
}
