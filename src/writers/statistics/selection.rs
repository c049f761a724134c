//! Finds percentiles by selection: the values of each segment are counted by their most significant
//! digit. Then, only those that share this digit with a wanted rank are counted by the next one, until
//! the whole value is known.

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};

use rayon::prelude::*;

use super::spread::Value;
use super::survey::{Found, slabs, values_of};
use super::{PERCENTILES, Percentiles};
use crate::error::{Error, Result};
use crate::writers::Label;
use crate::writers::layer::Layer;

/// Limit on the counters of all threads together, except that each thread needs those of one segment.
const MOST_COUNTERS: usize = 1 << 22;

/// Upper bound on the bytes used for counting, on up to 64 threads.
pub(super) const WORKING_BYTES: u64 = (MOST_COUNTERS * size_of::<u64>()) as u64;

/// Returns the percentiles of each segment; `None` if it has no value.
pub(super) fn percentiles<L: Label, V: Value>(
    layer: &Layer<L>,
    values: &[V],
    found: &[Found<V>],
) -> Result<Vec<Percentiles>> {
    let mut searches: Vec<Search> = found.iter().map(Search::new).collect();
    let mut below: u32 = V::DIGITS.iter().sum();
    for bits in V::DIGITS {
        below -= bits;
        for search in &mut searches {
            search.open(below, *bits);
        }
        let threads = rayon::current_num_threads();
        for group in groups(&searches, MOST_COUNTERS / threads.max(1)) {
            let slices = slices_of(found, &group);
            let counters = count(layer, values, &searches, &group, slices, below)?;
            let mut rest = &counters[..];
            for &index in &group {
                let (own, others) = rest.split_at(searches[index].counters());
                searches[index].narrow(own)?;
                rest = others;
            }
        }
    }
    Ok(searches.iter().map(Search::percentiles::<V>).collect())
}

/// A range of keys, without the bits below the current digit, that are counted individually.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Window {
    from: u32,
    length: u32,
}

/// A rank being searched.
#[derive(Debug, Clone)]
struct Target {
    rank: u64,
    /// The digits of its key known so far.
    prefix: u32,
    /// Its rank among the values with these digits.
    within: u64,
}

/// The search for the percentiles of a segment.
#[derive(Debug)]
struct Search {
    values: u64,
    keys: [u32; 2],
    /// In the order of their ranks.
    targets: Vec<Target>,
    /// Ascending and disjoint.
    windows: Vec<Window>,
    first_round: bool,
}

/// Returns the lower rank of a percentile of `values` values, and the hundredths of the distance to the
/// next rank by which the percentile is above it.
fn place(percentile: u8, values: u64) -> (u64, u64) {
    let hundredths = u128::from(values.saturating_sub(1)) * u128::from(percentile);
    ((hundredths / 100) as u64, (hundredths % 100) as u64)
}

impl Search {
    fn new<V: Value>(found: &Found<V>) -> Self {
        let values = found.spread.count();
        let keys = found.spread.keys().unwrap_or_default();
        let ranks = PERCENTILES.iter().flat_map(|&percentile| {
            let (rank, above) = place(percentile, values);
            [Some(rank), (above > 0).then_some(rank + 1)].into_iter().flatten()
        });
        let mut ranks: Vec<u64> = ranks.filter(|rank| *rank < values).collect();
        ranks.sort_unstable();
        ranks.dedup();
        let target = |rank| Target { rank, prefix: 0, within: rank };
        let targets = ranks.into_iter().map(target).collect();
        Self { values, keys, targets, windows: Vec::new(), first_round: true }
    }

    /// Sets up the windows for counting by a digit of `bits` bits with `below` bits after it.
    fn open(&mut self, below: u32, bits: u32) {
        self.windows.clear();
        if self.targets.is_empty() {
            return;
        }
        if std::mem::take(&mut self.first_round) {
            let [from, to] = self.keys.map(|key| key >> below);
            self.windows.push(Window { from, length: to - from + 1 });
            return;
        }
        for target in &self.targets {
            let window = Window { from: target.prefix << bits, length: 1 << bits };
            if self.windows.last() != Some(&window) {
                self.windows.push(window);
            }
        }
    }

    fn counters(&self) -> usize {
        self.windows.iter().map(|window| window.length as usize).sum()
    }

    /// Finds the next digit of each target from the counters of the windows.
    fn narrow(&mut self, counters: &[u64]) -> Result<()> {
        let mut targets = self.targets.iter_mut().peekable();
        let mut rest = counters;
        for window in &self.windows {
            let (own, others) = rest.split_at(window.length as usize);
            rest = others;
            // All targets of a window share their digits so far.
            let Some(prefix) = targets.peek().map(|target| target.prefix) else { break };
            let mut before = 0;
            let mut codes = (window.from..).zip(own);
            let mut current = codes.next();
            while let Some(target) = targets.next_if(|target| target.prefix == prefix) {
                while let Some((_, &n)) = current
                    && before + n <= target.within
                {
                    before += n;
                    current = codes.next();
                }
                let (code, _) =
                    current.ok_or_else(|| Error::internal("a rank is beyond the values"))?;
                target.prefix = code;
                target.within -= before;
            }
        }
        Ok(())
    }

    /// Returns the percentiles after the targets' keys are known.
    fn percentiles<V: Value>(&self) -> Percentiles {
        let value = |rank: u64| {
            let target = self.targets.iter().find(|target| target.rank == rank)?;
            Some(V::of_key(target.prefix))
        };
        let mut all = [0.0; PERCENTILES.len()];
        for (result, &percentile) in all.iter_mut().zip(&PERCENTILES) {
            let (rank, above) = place(percentile, self.values);
            let lower = value(rank)?;
            *result = match above {
                0 => lower,
                above => lower + (value(rank + 1)? - lower) * (above as f64 / 100.0),
            };
        }
        Some(all)
    }
}

/// Groups the segments that have windows, with at most `most` counters per group, or a single segment.
fn groups(searches: &[Search], most: usize) -> Vec<Vec<usize>> {
    let mut groups: Vec<Vec<usize>> = Vec::new();
    let mut counters = usize::MAX;
    for (index, search) in searches.iter().enumerate().filter(|(_, s)| !s.windows.is_empty()) {
        counters = counters.saturating_add(search.counters());
        match groups.last_mut() {
            Some(group) if counters <= most => group.push(index),
            _ => {
                counters = search.counters();
                groups.push(vec![index]);
            }
        }
    }
    groups
}

/// Returns the slices that contain the segments of a group.
fn slices_of<V: Value>(found: &[Found<V>], group: &[usize]) -> Range<usize> {
    let slices = group.iter().filter_map(|&index| found[index].bounds.as_ref().map(|b| &b[2]));
    let (first, end) = slices.fold((usize::MAX, 0), |(first, end), slices| {
        (first.min(slices.start), end.max(slices.end))
    });
    first.min(end)..end
}

/// Returns the counters of the windows of a group, segment by segment. Each thread has its own
/// counters, and their sum does not depend on the distribution of work.
fn count<L: Label, V: Value>(
    layer: &Layer<L>,
    values: &[V],
    searches: &[Search],
    group: &[usize],
    slices: Range<usize>,
    below: u32,
) -> Result<Vec<u64>> {
    let mut starts: Vec<Option<usize>> = vec![None; searches.len()];
    let mut total = 0;
    for &index in group {
        starts[index] = Some(total);
        total += searches[index].counters();
    }
    let slabs: Vec<Range<usize>> = slabs(slices.len())
        .into_iter()
        .map(|slab| slices.start + slab.start..slices.start + slab.end)
        .collect();
    let next = AtomicUsize::new(0);
    let thread = |_| -> Result<Vec<u64>> {
        let mut counters = vec![0; total];
        let mut runs = Vec::new();
        while let Some(slab) = slabs.get(next.fetch_add(1, Ordering::Relaxed)) {
            let rows = slab.clone().flat_map(|z| (0..layer.dims[1]).map(move |y| [y, z]));
            for at @ [y, z] in rows {
                layer.runs(layer.row(y, z), &mut runs)?;
                for run in &runs {
                    let segment = usize::from(run.segment);
                    let Some(start) = starts[segment] else { continue };
                    let of_run = values_of(layer, values, run, at)?;
                    tally(of_run, below, &searches[segment].windows, &mut counters[start..]);
                }
            }
        }
        Ok(counters)
    };
    let threads = rayon::current_num_threads().min(slabs.len()).max(1);
    let all: Vec<Vec<u64>> = (0..threads).into_par_iter().map(thread).collect::<Result<_>>()?;
    let sum = |mut sums: Vec<u64>, counters: Vec<u64>| {
        sums.iter_mut().zip(counters).for_each(|(sum, n)| *sum += n);
        sums
    };
    Ok(all.into_iter().reduce(sum).unwrap_or_default())
}

/// Counts the values that lie in a window.
fn tally<V: Value>(values: &[V], below: u32, windows: &[Window], counters: &mut [u64]) {
    for key in values.iter().filter_map(|value| value.key()) {
        let mut start = 0;
        for window in windows {
            let Some(digit) = (key >> below).checked_sub(window.from) else { break };
            if digit < window.length {
                if let Some(counter) = counters.get_mut(start + digit as usize) {
                    *counter += 1;
                }
                break;
            }
            start += window.length as usize;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_those_of_linear_interpolation() {
        assert_eq!(place(50, 1), (0, 0));
        assert_eq!(place(50, 4), (1, 50));
        assert_eq!(place(95, 101), (95, 0));
        assert_eq!(place(5, 2), (0, 5));
        assert_eq!(place(95, u64::MAX), ((u128::from(u64::MAX - 1) * 95 / 100) as u64, 30));
    }

    #[test]
    fn groups_are_as_large_as_counters_allow() {
        let search = |length| Search {
            values: 1,
            keys: [0; 2],
            targets: Vec::new(),
            windows: if length > 0 { vec![Window { from: 0, length }] } else { Vec::new() },
            first_round: false,
        };
        let searches = [10, 0, 20, 5, 100, 1].map(search);
        assert_eq!(groups(&searches, 30), [vec![0, 2], vec![3], vec![4], vec![5]]);
    }
}
