//! Counts how much of each segment the slices along each axis contain.

use rayon::prelude::*;

use super::labelled::Labelled;

/// Voxel counts of one segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Extent {
    /// Voxels in each slice along X, Y and Z.
    pub slices: [Vec<u64>; 3],
    /// Total number of voxels.
    pub voxels: u64,
}

impl Extent {
    fn new(dims: [usize; 3]) -> Self {
        Self { slices: dims.map(|n| vec![0; n]), voxels: 0 }
    }
}

/// The counts of some slices.
struct Partial {
    /// One entry per segment, `None` until it is found. Counts along X are differences: runs that begin
    /// at an index minus those that end there.
    extents: Vec<Option<Extent>>,
}

/// Counts all segments in one pass over a volume of `dims` voxels.
pub fn extents(dims: [usize; 3], segments: usize, labels: &dyn Labelled) -> Vec<Extent> {
    let [_, rows, slices] = dims;
    let none = || Partial { extents: (0..segments).map(|_| None).collect() };
    let count_slice = |mut counts: Partial, z: usize| {
        for y in 0..rows {
            labels.runs(y, z, &mut |segment, run| {
                let Some(extent) = counts.extents.get_mut(segment) else { return };
                let extent = extent.get_or_insert_with(|| Extent::new(dims));
                let voxels = run.len() as u64;
                let counts =
                    [(0, run.start, 1), (0, run.end, u64::MAX), (1, y, voxels), (2, z, voxels)];
                for (axis, at, more) in counts {
                    if let Some(count) = extent.slices[axis].get_mut(at) {
                        *count = count.wrapping_add(more);
                    }
                }
                extent.voxels += voxels;
            });
        }
        counts
    };
    let sum = |mut all: Partial, more: Partial| {
        for (all, more) in all.extents.iter_mut().zip(more.extents) {
            let Some(more) = more else { continue };
            match all {
                None => *all = Some(more),
                Some(all) => add(all, &more),
            }
        }
        all
    };
    let pieces = (0..slices).into_par_iter().with_min_len(8);
    let counted = pieces.fold(none, count_slice).reduce(none, sum);
    let finished = counted.extents.into_iter().map(|extent| {
        let mut extent = extent.unwrap_or_else(|| Extent::new(dims));
        let mut open = 0_u64;
        for count in &mut extent.slices[0] {
            open = open.wrapping_add(*count);
            *count = open;
        }
        extent
    });
    finished.collect()
}

fn add(all: &mut Extent, more: &Extent) {
    for (all, more) in all.slices.iter_mut().flatten().zip(more.slices.iter().flatten()) {
        *all = all.wrapping_add(*more);
    }
    all.voxels += more.voxels;
}

#[cfg(test)]
mod tests {
    use ndarray::Array3;

    use super::*;
    use crate::writers::Voxels;
    use crate::writers::preview::SegmentMap;

    #[test]
    fn slices_are_counted_along_every_axis() {
        let labels = Array3::from_shape_fn((9, 7, 20), |(x, y, z)| match (x, y, z) {
            (2..5, 3, 4..6) => 3_u8,
            (8, _, 19) => 9,
            _ => 0,
        });
        let voxels = Voxels::Labels(labels.view());
        let map = SegmentMap::new(&voxels, [9, 3, 1]);
        let [nine, three, one] = &extents([9, 7, 20], 3, &map)[..] else { panic!() };
        assert_eq!((nine.voxels, three.voxels, one.voxels), (7, 6, 0));
        assert_eq!(three.slices[0], [0, 0, 2, 2, 2, 0, 0, 0, 0]);
        assert_eq!(three.slices[1], [0, 0, 0, 6, 0, 0, 0]);
        assert_eq!(three.slices[2][3..7], [0, 3, 3, 0]);
        assert_eq!(nine.slices[0], [0, 0, 0, 0, 0, 0, 0, 0, 7]);
    }
}
