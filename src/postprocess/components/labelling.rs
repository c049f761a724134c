//! Connected components by runs and union-find.
//!
//! Each row along the fastest axis in memory is split into runs of voxels of one group, and touching
//! runs of neighbouring rows are joined. Work and memory are proportional to the number of runs, which
//! in label maps is a small fraction of the number of voxels.

use ndarray::{ArrayView4, ArrayViewMut4, Axis, s};
use rayon::prelude::*;

use crate::disjoint::Forest;

/// The group of each value; 0 for values that belong to none.
pub(super) type Groups = [u8; 256];

/// Defines which voxels touch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Neighbourhood {
    /// How many coordinates of two neighbours may differ by one: 1 for faces, 2 adds edges, 3 adds
    /// corners.
    pub(super) connectivity: usize,
    /// Whether a voxel touches the same voxel of the next channel.
    pub(super) across_channels: bool,
}

/// The components of an image with axes (C, X, Y, Z).
pub(super) struct Components {
    /// Axes from slowest to fastest in memory, the channel first.
    order: [usize; 4],
    /// Size along these axes.
    shape: [usize; 4],
    /// Runs in row order.
    runs: Vec<Run>,
    /// Index of the first run of each row, then the number of runs.
    rows: Vec<usize>,
    /// The component of each run.
    of_run: Vec<u32>,
    found: Vec<Component>,
}

/// Voxels `start..end` of a row.
#[derive(Debug, Clone, Copy)]
struct Run {
    start: u32,
    end: u32,
    group: u8,
}

/// One connected component.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Component {
    /// Its group.
    pub(super) group: u8,
    /// Number of voxels.
    pub(super) voxels: u64,
    /// Index of its first voxel in C order of (C, X, Y, Z), whatever the memory order.
    pub(super) first: u64,
    /// Whether it touches an end of X, Y or Z.
    pub(super) at_border: bool,
}

impl Components {
    pub(super) fn find(
        image: ArrayView4<u8>,
        groups: &Groups,
        neighbourhood: Neighbourhood,
    ) -> Self {
        let mut order = [0, 1, 2, 3];
        order[1..].sort_by_key(|&a| std::cmp::Reverse(image.strides()[a].unsigned_abs()));
        let in_c_order: [usize; 4] =
            std::array::from_fn(|a| image.shape()[a + 1..].iter().product::<usize>());
        let image = image.permuted_axes(order);
        let shape: [usize; 4] = std::array::from_fn(|a| image.shape()[a]);
        let (runs, rows) = runs_of(&image, groups);
        let roots = joined(&runs, &rows, shape, neighbourhood);
        let mut this = Self {
            order,
            shape,
            of_run: Vec::with_capacity(runs.len()),
            runs,
            rows,
            found: vec![],
        };
        this.collect(&roots, order.map(|a| in_c_order[a]));
        this
    }

    /// Returns all components, in no particular order.
    pub(super) fn all(&self) -> &[Component] {
        &self.found
    }

    /// Sets the voxels of the components selected by index in `chosen`. The image must have the size in
    /// which components were found.
    pub(super) fn paint(&self, image: ArrayViewMut4<u8>, chosen: &[bool], value: u8) {
        let mut image = image.permuted_axes(self.order);
        let [_, slow, mid, _] = self.shape;
        for (c, mut channel) in image.outer_iter_mut().enumerate() {
            channel.axis_iter_mut(Axis(0)).into_par_iter().enumerate().for_each(
                |(s, mut plane)| {
                    for (m, mut row) in plane.outer_iter_mut().enumerate() {
                        let row_index = (c * slow + s) * mid + m;
                        for run in self.rows[row_index]..self.rows[row_index + 1] {
                            if chosen[self.of_run[run] as usize] {
                                let Run { start, end, .. } = self.runs[run];
                                let range = start as usize..end as usize;
                                row.slice_mut(s![range]).fill(value);
                            }
                        }
                    }
                },
            );
        }
    }

    /// Numbers the components and adds up their runs. `weights` are the strides of the C order.
    fn collect(&mut self, roots: &[u32], weights: [usize; 4]) {
        const NONE: u32 = u32::MAX;
        let [_, slow, mid, fast] = self.shape;
        let mut number = vec![NONE; roots.len()];
        for row in 0..self.rows.len() - 1 {
            let (c, s, m) = (row / (slow * mid), row / mid % slow, row % mid);
            let edge = s == 0 || s + 1 == slow || m == 0 || m + 1 == mid;
            let base = c * weights[0] + s * weights[1] + m * weights[2];
            let runs = self.rows[row]..self.rows[row + 1];
            for (&run, &root) in self.runs[runs.clone()].iter().zip(&roots[runs]) {
                let Run { start, end, group } = run;
                let root = root as usize;
                let first = (base + start as usize * weights[3]) as u64;
                if number[root] == NONE {
                    number[root] = self.found.len() as u32;
                    self.found.push(Component { group, voxels: 0, first, at_border: false });
                }
                self.of_run.push(number[root]);
                let component = &mut self.found[number[root] as usize];
                component.voxels += u64::from(end - start);
                component.first = component.first.min(first);
                component.at_border |= edge || start == 0 || end as usize == fast;
            }
        }
    }
}

/// Returns the runs of all rows, and the index where each row begins.
fn runs_of(image: &ArrayView4<u8>, groups: &Groups) -> (Vec<Run>, Vec<usize>) {
    let (channels, slow, ..) = image.dim();
    let planes: Vec<(Vec<Run>, Vec<usize>)> = (0..channels * slow)
        .into_par_iter()
        .map(|plane| {
            let plane = image.slice(s![plane / slow, plane % slow, .., ..]);
            let (mut runs, mut counts) = (Vec::new(), Vec::new());
            for row in plane.axis_iter(Axis(0)) {
                let before = runs.len();
                let mut open = Run { start: 0, end: 0, group: 0 };
                for (i, &value) in (0u32..).zip(row) {
                    let group = groups[value as usize];
                    if group != open.group {
                        if open.group != 0 {
                            runs.push(Run { end: i, ..open });
                        }
                        open = Run { start: i, end: i, group };
                    }
                }
                if open.group != 0 {
                    runs.push(Run { end: row.len() as u32, ..open });
                }
                counts.push(runs.len() - before);
            }
            (runs, counts)
        })
        .collect();
    let mut runs = Vec::with_capacity(planes.iter().map(|p| p.0.len()).sum());
    let mut rows = vec![0];
    let mut total = 0;
    for (of_plane, counts) in planes {
        runs.extend(of_plane);
        for count in counts {
            total += count;
            rows.push(total);
        }
    }
    (runs, rows)
}

/// Returns the root of each run after joining all that touch.
fn joined(
    runs: &[Run],
    rows: &[usize],
    [channels, slow, mid, _]: [usize; 4],
    neighbourhood: Neighbourhood,
) -> Vec<u32> {
    let mut forest = Forest::new(runs.len());
    let offsets = earlier_rows(neighbourhood);
    for c in 0..channels {
        for s in 0..slow {
            for m in 0..mid {
                let row = (c * slow + s) * mid + m;
                let here = rows[row]..rows[row + 1];
                if here.is_empty() {
                    continue;
                }
                for &(dc, ds, dm, slack) in &offsets {
                    let at =
                        |i: usize, d: isize, n: usize| i.checked_add_signed(d).filter(|i| *i < n);
                    let (Some(c), Some(s), Some(m)) =
                        (at(c, dc, channels), at(s, ds, slow), at(m, dm, mid))
                    else {
                        continue;
                    };
                    let other = (c * slow + s) * mid + m;
                    let there = rows[other]..rows[other + 1];
                    join_rows(&mut forest, runs, here.clone(), there, slack);
                }
            }
        }
    }
    (0..runs.len() as u32).map(|run| forest.root(run)).collect()
}

/// Returns the offsets of earlier rows that a row may touch, and the gap allowed between touching runs.
fn earlier_rows(neighbourhood: Neighbourhood) -> Vec<(isize, isize, isize, u32)> {
    let channels: &[isize] = if neighbourhood.across_channels { &[-1, 0, 1] } else { &[0] };
    let mut offsets = Vec::new();
    for &dc in channels {
        for ds in -1..=1_isize {
            for dm in -1..=1_isize {
                let differing = (dc.abs() + ds.abs() + dm.abs()) as usize;
                if (dc, ds, dm) < (0, 0, 0) && differing <= neighbourhood.connectivity {
                    let slack = u32::from(differing < neighbourhood.connectivity);
                    offsets.push((dc, ds, dm, slack));
                }
            }
        }
    }
    offsets
}

/// Joins the runs of two rows that touch and have the same group.
fn join_rows(
    forest: &mut Forest,
    runs: &[Run],
    here: std::ops::Range<usize>,
    mut there: std::ops::Range<usize>,
    slack: u32,
) {
    for a in here {
        let run = runs[a];
        while there.start < there.end && runs[there.start].end + slack <= run.start {
            there.start += 1;
        }
        for b in there.clone() {
            if runs[b].start >= run.end + slack {
                break;
            }
            if runs[b].group == run.group {
                forest.join(a as u32, b as u32);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use ndarray::{Array4, ShapeBuilder};

    use super::*;

    /// Finds components by flood fill, voxel by voxel: returns their sizes, sorted.
    fn flooded(image: &Array4<u8>, near: Neighbourhood) -> Vec<u64> {
        let mut seen = Array4::from_elem(image.dim(), false);
        let mut sizes = Vec::new();
        for (at, &value) in image.indexed_iter() {
            if value == 0 || seen[at] {
                continue;
            }
            let (mut stack, mut size) = (vec![at], 0);
            seen[at] = true;
            while let Some((c, x, y, z)) = stack.pop() {
                size += 1;
                for (to, &v) in image.indexed_iter() {
                    let d =
                        [c.abs_diff(to.0), x.abs_diff(to.1), y.abs_diff(to.2), z.abs_diff(to.3)];
                    let touches = d.iter().all(|d| *d <= 1)
                        && d.iter().sum::<usize>() <= near.connectivity
                        && (near.across_channels || d[0] == 0);
                    if touches && v == value && !seen[to] {
                        seen[to] = true;
                        stack.push(to);
                    }
                }
            }
            sizes.push(size);
        }
        sizes.sort_unstable();
        sizes
    }

    #[test]
    fn components_are_those_of_flooding() {
        let groups: Groups = std::array::from_fn(|v| v as u8);
        let mut state = 12345u32;
        for (connectivity, across_channels) in
            [(1, false), (2, false), (3, false), (1, true), (2, true)]
        {
            let near = Neighbourhood { connectivity, across_channels };
            let image = Array4::from_shape_simple_fn((2, 7, 6, 5).f(), || {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                [0, 0, 1, 2][(state >> 30) as usize]
            });
            let components = Components::find(image.view(), &groups, near);
            let mut sizes: Vec<u64> = components.all().iter().map(|c| c.voxels).collect();
            sizes.sort_unstable();
            assert_eq!(sizes, flooded(&image, near), "{near:?}");

            let mut cleared = image.clone();
            components.paint(cleared.view_mut(), &vec![true; components.all().len()], 0);
            assert!(cleared.iter().all(|v| *v == 0));
        }
    }

    #[test]
    fn first_voxel_and_border() {
        let mut image = Array4::<u8>::zeros((1, 5, 5, 5).f());
        image[[0, 2, 2, 2]] = 1;
        image[[0, 2, 3, 2]] = 1;
        let groups: Groups = std::array::from_fn(|v| v as u8);
        let near = Neighbourhood { connectivity: 1, across_channels: false };
        let inner = Components::find(image.view(), &groups, near);
        let expected = Component { group: 1, voxels: 2, first: 62, at_border: false };
        assert_eq!(inner.all(), [expected]);
        image[[0, 2, 4, 2]] = 1;
        assert!(Components::find(image.view(), &groups, near).all()[0].at_border);
    }
}
