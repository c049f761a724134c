//! The voxel order of files: X fastest, Z slowest.

use std::borrow::Cow;

use ndarray::{Array3, ArrayView3, Axis};
use rayon::prelude::*;

/// Returns the voxels of a volume, axes (X, Y, Z), with X fastest and Z slowest. They are borrowed if
/// memory already has this order without gaps, and copied otherwise.
pub(super) fn slice_order<T>(voxels: ArrayView3<'_, T>) -> Cow<'_, [T]>
where
    T: Copy + Default + Send + Sync,
{
    // If Z varies fastest in memory, as in a row-major array with axes (X, Y, Z), a cache line contains
    // a voxel of each of several dozen slices. So that many slices are copied together, one row of each
    // at a time.
    const SLICES: usize = 32;
    let slices_first = voxels.reversed_axes();
    if let Some(voxels) = slices_first.to_slice() {
        return Cow::Borrowed(voxels);
    }
    let mut copy = Array3::<T>::default(slices_first.raw_dim());
    copy.axis_chunks_iter_mut(Axis(0), SLICES)
        .into_par_iter()
        .zip(slices_first.axis_chunks_iter(Axis(0), SLICES))
        .for_each(|(mut to, from)| {
            for (mut to, from) in to.axis_iter_mut(Axis(1)).zip(from.axis_iter(Axis(1))) {
                to.assign(&from);
            }
        });
    Cow::Owned(copy.into_raw_vec_and_offset().0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_memory_layout_is_read_alike() {
        let value = |(x, y, z): (usize, usize, usize)| ((x + 2 * y + 3 * z) % 4) as u16;
        let row_major = Array3::from_shape_fn((5, 4, 70), value);
        let slice_major = Array3::from_shape_fn((70, 4, 5), |(z, y, x)| value((x, y, z)));
        let mut flipped = Array3::from_shape_fn((5, 4, 70), |(x, y, z)| value((4 - x, y, z)));
        flipped.invert_axis(Axis(0));
        let borrowed = slice_order(slice_major.view().reversed_axes());
        assert!(matches!(borrowed, Cow::Borrowed(_)));
        for other in [row_major, flipped] {
            let copied = slice_order(other.view());
            assert!(matches!(copied, Cow::Owned(_)));
            assert_eq!(copied, borrowed);
        }
    }
}
