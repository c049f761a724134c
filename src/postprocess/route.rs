//! The way of one voxel back where grids are turned or sheared against each other: which voxels of
//! the network's grid make it.

use super::inverse::Step;
use crate::error::Result;
use crate::transforms::{AxisTaps, GridMap, Sampler};

/// Network's indices along one axis and their weights.
type Taps = Vec<(u32, f64)>;

/// A way with a single resampling between turned grids, and behind it nothing but flips,
/// permutations and windows.
#[derive(Debug)]
pub(super) struct Route {
    /// The network's grid to the one that is resampled, axis by axis.
    before: GridMap,
    sampler: Sampler,
    /// The resampled grid to the source's.
    after: GridMap,
}

impl Route {
    /// The route of these steps; `None` where they are of another form.
    pub(super) fn of(steps: &[Step]) -> Result<Option<Self>> {
        let [Step::Map(before), Step::Resample { resample, from, to }, Step::Map(after)] = steps
        else {
            return Ok(None);
        };
        if !after.taps.iter().all(selects) {
            return Ok(None);
        }
        let sampler = Sampler::new(*resample, from, to)?;
        Ok(Some(Self { before: before.clone(), sampler, after: after.clone() }))
    }

    /// Size of the network's grid.
    pub(super) fn inputs(&self) -> [usize; 3] {
        self.before.inputs()
    }

    /// Size of the source's grid.
    pub(super) fn outputs(&self) -> [usize; 3] {
        self.after.outputs()
    }

    /// The output axis that runs along the network's `axis`, most of all.
    pub(super) fn along(&self, axis: usize) -> usize {
        let resampled = self.before.source.iter().position(|&s| s == axis).unwrap_or(axis);
        let steepest = self.sampler.steepest(resampled);
        self.after.source.iter().position(|&s| s == steepest).unwrap_or(steepest)
    }

    /// The taps along the network's X, Y and Z that make the output voxel `at`; false where it lies
    /// outside and is 0. Taps of weight zero are left out.
    pub(super) fn taps(&self, at: [usize; 3], taps: &mut [Taps; 3]) -> bool {
        taps.iter_mut().for_each(Vec::clear);
        let mut index = [0; 3];
        for (axis, of) in self.after.taps.iter().enumerate() {
            let &[(i, _)] = of.row(at[axis]) else { return false };
            index[self.after.source[axis]] = i as usize;
        }
        for (axis, found) in self.sampler.taps(index).into_iter().enumerate() {
            let taps = &mut taps[self.before.source[axis]];
            for (middle, weight) in found.into_iter().filter(|tap| tap.1 != 0.0) {
                for &(i, w) in self.before.taps[axis].row(middle) {
                    match taps.iter_mut().find(|tap| tap.0 == i) {
                        Some(tap) => tap.1 += w * weight,
                        None => taps.push((i, w * weight)),
                    }
                }
            }
        }
        taps.iter().all(|taps| !taps.is_empty())
    }
}

/// Whether every output is one input, or none.
fn selects(taps: &AxisTaps) -> bool {
    (0..taps.outputs()).all(|i| matches!(taps.row(i), [] | [(_, 1.0)]))
}
