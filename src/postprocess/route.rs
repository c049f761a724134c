//! Maps single voxels back between grids that are rotated or sheared against each other: finds the
//! voxels of the network's grid that each output voxel depends on.

use super::inverse::Step;
use crate::error::Result;
use crate::transforms::{AxisTaps, GridMap, Sampler};

/// Indices along one axis of the network's grid and their weights.
type Taps = Vec<(u32, f64)>;

/// A route with a single resampling between rotated grids, followed only by flips, permutations and
/// windows.
#[derive(Debug)]
pub(super) struct Route {
    /// From the network's grid to the one that is resampled, axis by axis.
    before: GridMap,
    sampler: Sampler,
    /// From the resampled grid to the source's.
    after: GridMap,
}

impl Route {
    /// Creates the route of these steps; `None` if they have another form.
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

    /// Returns the size of the network's grid.
    pub(super) fn inputs(&self) -> [usize; 3] {
        self.before.inputs()
    }

    /// Returns the size of the source's grid.
    pub(super) fn outputs(&self) -> [usize; 3] {
        self.after.outputs()
    }

    /// Returns the output axis that is most closely aligned with the network's `axis`.
    pub(super) fn along(&self, axis: usize) -> usize {
        let resampled = self.before.source.iter().position(|&s| s == axis).unwrap_or(axis);
        let steepest = self.sampler.steepest(resampled);
        self.after.source.iter().position(|&s| s == steepest).unwrap_or(steepest)
    }

    /// Computes the taps along the network's X, Y and Z that make up the output voxel `at`. Returns
    /// false if the voxel is outside and thus 0. Taps of weight zero are left out.
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

/// Whether every output is exactly one input, or none.
fn selects(taps: &AxisTaps) -> bool {
    (0..taps.outputs()).all(|i| matches!(taps.row(i), [] | [(_, 1.0)]))
}
