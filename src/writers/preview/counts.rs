//! How much of each segment the slices along each axis hold.

use rayon::prelude::*;

use super::Labelled;

/// Voxels of one segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Extent {
    /// In each slice along X, Y and Z.
    pub slices: [Vec<u64>; 3],
    /// In all.
    pub voxels: u64,
}

impl Extent {
    fn new(dims: [usize; 3]) -> Self {
        Self { slices: dims.map(|n| vec![0; n]), voxels: 0 }
    }
}

/// What is counted of some slices.
struct Partial {
    /// Of each segment that was found. Those along X are differences: what begins there less what has
    /// ended.
    extents: Vec<Option<Extent>>,
}

/// Counts all segments in one pass over a volume.
pub(super) fn count(dims: [usize; 3], segments: usize, labels: &dyn Labelled) -> Vec<Extent> {
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
