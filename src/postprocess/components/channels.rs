//! Connected components over one-hot channels, as scikit-image labels an image whose first axis is the
//! channel: voxels of adjacent channels may touch. The channels are not materialised; runs of each
//! class are read from the image of sets.

use std::collections::HashMap;

use ndarray::{ArrayView3, Axis};

use crate::disjoint::Forest;
use crate::error::Result;
use crate::postprocess::ClassSets;

/// Voxels `start..end` of a row that belong to a class.
#[derive(Debug, Clone, Copy)]
struct Run {
    channel: u16,
    start: u32,
    end: u32,
}

/// The components of all channels.
pub(super) struct ChannelComponents {
    /// Axes from slowest to fastest in memory.
    order: [usize; 3],
    /// Runs in row order; within a row by channel and start.
    runs: Vec<Run>,
    /// Index of the first run of each row, then the number of runs.
    rows: Vec<usize>,
    /// The first run of each run's component.
    roots: Vec<u32>,
}

impl ChannelComponents {
    /// Finds components. `connectivity` is how many of the four coordinates of neighbours may differ.
    pub(super) fn find(sets: &ClassSets, connectivity: usize) -> Self {
        let codes = sets.codes();
        let mut order = [0, 1, 2];
        order.sort_by_key(|&a| std::cmp::Reverse(codes.strides()[a].unsigned_abs()));
        let codes = codes.permuted_axes(order);
        let (runs, rows) = runs_of(codes, sets.members());
        let (slow, mid, _) = codes.dim();
        let roots = joined(&runs, &rows, [slow, mid], connectivity);
        Self { order, runs, rows, roots }
    }

    /// Removes the voxels of a component from their class if `chosen` returns true for its number of
    /// voxels.
    pub(super) fn remove(&self, sets: &mut ClassSets, chosen: impl Fn(u64) -> bool) -> Result<()> {
        let mut voxels = vec![0_u64; self.runs.len()];
        for (run, &root) in self.runs.iter().zip(&self.roots) {
            voxels[root as usize] += u64::from(run.end - run.start);
        }
        let mid = sets.codes().len_of(Axis(self.order[1])).max(1);
        let mut without: HashMap<(u16, u16), u16> = HashMap::new();
        for row in 0..self.rows.len() - 1 {
            for index in self.rows[row]..self.rows[row + 1] {
                if !chosen(voxels[self.roots[index] as usize]) {
                    continue;
                }
                let Run { channel, start, end } = self.runs[index];
                for i in start..end {
                    let mut at = [0; 3];
                    (at[self.order[0]], at[self.order[1]]) = (row / mid, row % mid);
                    at[self.order[2]] = i as usize;
                    let code = sets.codes()[at];
                    let code = match without.get(&(code, channel)) {
                        Some(&code) => code,
                        None => {
                            let mut set = sets.members()[usize::from(code)].clone();
                            set.retain(|class| *class != channel);
                            let next = sets.code_of(set)?;
                            without.insert((code, channel), next);
                            next
                        }
                    };
                    sets.codes_mut()[at] = code;
                }
            }
        }
        Ok(())
    }
}

/// Returns the runs of all rows, and the index where each row begins.
fn runs_of(codes: ArrayView3<u16>, members: &[Vec<u16>]) -> (Vec<Run>, Vec<usize>) {
    let (mut runs, mut rows) = (Vec::new(), vec![0]);
    let mut open: Vec<Run> = Vec::new();
    for row in codes.rows() {
        let begin = runs.len();
        let mut before = 0_u16;
        for (i, &code) in (0_u32..).zip(row) {
            if code == before {
                continue;
            }
            let set = &members[usize::from(code)];
            open.retain(|run| {
                let stays = set.contains(&run.channel);
                if !stays {
                    runs.push(Run { end: i, ..*run });
                }
                stays
            });
            for &channel in set {
                if !open.iter().any(|run| run.channel == channel) {
                    open.push(Run { channel, start: i, end: i });
                }
            }
            before = code;
        }
        let length = row.len() as u32;
        runs.extend(open.drain(..).map(|run| Run { end: length, ..run }));
        runs[begin..].sort_unstable_by_key(|run| (run.channel, run.start));
        rows.push(runs.len());
    }
    (runs, rows)
}

/// Returns the root of each run after joining all that touch.
fn joined(runs: &[Run], rows: &[usize], [slow, mid]: [usize; 2], connectivity: usize) -> Vec<u32> {
    let mut forest = Forest::new(runs.len());
    for s in 0..slow {
        for m in 0..mid {
            let row = s * mid + m;
            let here = rows[row]..rows[row + 1];
            if here.is_empty() {
                continue;
            }
            for ds in -1..=0_isize {
                for dm in -1..=1_isize {
                    let apart = (ds.abs() + dm.abs()) as usize;
                    if (ds, dm) > (0, 0) || apart > connectivity {
                        continue;
                    }
                    let at =
                        |i: usize, d: isize, n: usize| i.checked_add_signed(d).filter(|i| *i < n);
                    let (Some(s), Some(m)) = (at(s, ds, slow), at(m, dm, mid)) else { continue };
                    let other = s * mid + m;
                    let there = rows[other]..rows[other + 1];
                    join_rows(&mut forest, runs, [here.clone(), there], connectivity - apart);
                }
            }
        }
    }
    (0..runs.len() as u32).map(|run| forest.root(run)).collect()
}

/// Joins the touching runs of two rows. `left` is how many more coordinates may differ: the channel and
/// the position along the row.
fn join_rows(
    forest: &mut Forest,
    runs: &[Run],
    [here, there]: [std::ops::Range<usize>; 2],
    left: usize,
) {
    let same_row = here == there;
    for a in here {
        let run = runs[a];
        for (channel, left) in [
            (run.channel.checked_sub(1), left.checked_sub(1)),
            (Some(run.channel), Some(left)),
            (run.channel.checked_add(1), left.checked_sub(1)),
        ] {
            let (Some(channel), Some(left)) = (channel, left) else { continue };
            if same_row && channel == run.channel {
                continue;
            }
            let slack = u32::from(left > 0);
            let others = &runs[there.clone()];
            // Runs of one channel do not overlap, so their ends ascend too.
            let first = others.partition_point(|o| {
                (o.channel, o.end.saturating_add(slack)) <= (channel, run.start)
            });
            for (index, other) in others.iter().enumerate().skip(first) {
                if other.channel != channel || other.start >= run.end.saturating_add(slack) {
                    break;
                }
                forest.join(a as u32, (there.start + index) as u32);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use ndarray::{Array3, Array4, ShapeBuilder};

    use super::*;
    use crate::postprocess::components::labelling::{Components, Neighbourhood};

    /// Compares with the components of materialised channels.
    #[test]
    fn components_are_those_of_channels() {
        let mut state = 99_u32;
        let mut random = move |n: u32| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 16) % n
        };
        for connectivity in 1..=3 {
            let labels = Array3::from_shape_simple_fn((6, 5, 7).f(), || {
                [0, 0, 0, 1, 2, 3][random(6) as usize]
            });
            let mut sets = ClassSets::one_hot(labels.view(), 4).unwrap();
            // Some classes overlap.
            let part = Array3::from_shape_simple_fn((6, 5, 7), || u8::from(random(3) == 0));
            sets.set_mask(2, [(0, 5), (0, 4), (0, 6)], part.view()).unwrap();
            let mut channels = Array4::<u8>::zeros((4, 6, 5, 7));
            for class in 0..4_u16 {
                let mask = sets.class_mask(class).unwrap();
                channels.index_axis_mut(Axis(0), usize::from(class)).assign(&mask);
            }
            let near = Neighbourhood { connectivity, across_channels: true };
            let groups = std::array::from_fn(|v| u8::from(v != 0));
            let expected = Components::find(channels.view(), &groups, near);
            let small: Vec<bool> = expected.all().iter().map(|c| c.voxels < 4).collect();
            expected.paint(channels.view_mut(), &small, 0);
            ChannelComponents::find(&sets, connectivity).remove(&mut sets, |n| n < 4).unwrap();
            for class in 0..4_u16 {
                let mask = sets.class_mask(class).unwrap();
                assert_eq!(
                    channels.index_axis(Axis(0), usize::from(class)),
                    mask,
                    "{connectivity}"
                );
            }
        }
    }
}
