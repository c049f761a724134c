//! Bounding boxes of the voxels of each value.

use ndarray::{ArrayView3, Axis};
use rayon::prelude::*;

/// First and last index along each axis.
pub(super) type Bounds = [(usize, usize); 3];

/// Returns the bounding box of the voxels of each value below `values`, except 0.
pub(super) fn boxes_of_values<T: Copy + Into<u16> + Sync>(
    image: ArrayView3<T>,
    values: usize,
) -> Vec<Option<Bounds>> {
    let slowest = (0..3).max_by_key(|&a| image.strides()[a].unsigned_abs()).unwrap_or(0);
    let [p, q] = [[1, 2], [0, 2], [0, 1]][slowest];
    let none = || vec![None::<Bounds>; values];
    image
        .axis_iter(Axis(slowest))
        .into_par_iter()
        .enumerate()
        .fold(none, |mut boxes, (plane, voxels)| {
            for ((a, b), &v) in voxels.indexed_iter() {
                let value: u16 = v.into();
                if value == 0 {
                    continue;
                }
                let mut at = [plane; 3];
                (at[p], at[q]) = (a, b);
                if let Some(bounds) = boxes.get_mut(usize::from(value)) {
                    widen(bounds, at.map(|i| (i, i)));
                }
            }
            boxes
        })
        .reduce(none, |mut a, b| {
            for (a, b) in a.iter_mut().zip(b) {
                if let Some(b) = b {
                    widen(a, b);
                }
            }
            a
        })
}

pub(super) fn widen(bounds: &mut Option<Bounds>, other: Bounds) {
    *bounds = Some(match *bounds {
        None => other,
        Some(b) => std::array::from_fn(|i| (b[i].0.min(other[i].0), b[i].1.max(other[i].1))),
    });
}
