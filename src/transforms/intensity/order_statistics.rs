//! Finds values by rank without sorting: two counting passes over the image.

use ndarray::ArrayView4;

use super::by_plane;

/// Number of bins for half of a value's bits.
const BINS: usize = 1 << 16;

/// An image's values by rank. Construction counts the upper halves of all values once. Each query
/// counts the lower halves of the values that share the wanted upper half.
pub(super) struct OrderStatistics<'a> {
    values: ArrayView4<'a, f32>,
    upper: Vec<u64>,
}

impl<'a> OrderStatistics<'a> {
    pub(super) fn new(values: ArrayView4<'a, f32>) -> Self {
        let upper = count(values, |key| Some((key >> 16) as usize));
        Self { values, upper }
    }

    /// Returns the value at `rank` in sorted order, counted from 0; 0 if there are no values.
    fn at(&self, rank: usize) -> f32 {
        let Some((upper, within)) = find(&self.upper, rank as u64) else { return 0.0 };
        let lower = count(self.values, |key| {
            ((key >> 16) as usize == upper).then_some((key & 0xffff) as usize)
        });
        let (lower, _) = find(&lower, within).unwrap_or((0, 0));
        value_of((upper << 16 | lower) as u32)
    }

    /// Interpolates linearly between the values at `floor(rank)` and the next, as `torch.lerp` does.
    fn between(&self, rank: f64) -> f32 {
        let low = rank.floor();
        let weight = (rank - low) as f32;
        let a = self.at(low as usize);
        if weight == 0.0 {
            return a;
        }
        let b = self.at(low as usize + 1);
        if weight < 0.5 { a + weight * (b - a) } else { b - (b - a) * (1.0 - weight) }
    }

    /// `monai.transforms.utils_pytorch_numpy_unification.percentile`, `q` from 0 to 100. Up to a
    /// million values, MONAI uses `torch.quantile`, which computes the quantile in f32; above that,
    /// `numpy.percentile`, which computes it in f64.
    pub(super) fn percentile(&self, q: f64) -> f32 {
        let last = self.values.len().saturating_sub(1) as f64;
        let quantile = q / 100.0;
        let small = self.values.len() <= 1_000_000;
        let quantile = if small { f64::from(quantile as f32) } else { quantile };
        self.between((quantile * last).min(last))
    }
}

/// Maps a value to bits that sort like the values (negative ones inverted, below the positive ones).
fn key_of(value: f32) -> u32 {
    let bits = value.to_bits();
    if bits >> 31 == 1 { !bits } else { bits | 1 << 31 }
}

fn value_of(key: u32) -> f32 {
    f32::from_bits(if key >> 31 == 1 { key & !(1 << 31) } else { !key })
}

/// Counts the values in each bin; values without a bin are not counted.
fn count(values: ArrayView4<f32>, bin: impl Fn(u32) -> Option<usize> + Send + Sync) -> Vec<u64> {
    let planes = by_plane(values, |plane| {
        let mut counts = vec![0u32; BINS];
        plane.for_each(|&v| {
            if let Some(bin) = bin(key_of(v)) {
                counts[bin] += 1;
            }
        });
        counts
    });
    let mut total = vec![0u64; BINS];
    for plane in planes {
        for (sum, n) in total.iter_mut().zip(plane) {
            *sum += u64::from(n);
        }
    }
    total
}

/// Returns the bin that contains a rank, and the rank within it.
fn find(counts: &[u64], mut rank: u64) -> Option<(usize, u64)> {
    for (bin, &n) in counts.iter().enumerate() {
        if rank < n {
            return Some((bin, rank));
        }
        rank -= n;
    }
    None
}

#[cfg(test)]
mod tests {
    use ndarray::Array4;

    use super::*;

    #[test]
    fn ranks_are_those_of_the_sorted_values() {
        let values = Array4::from_shape_fn((1, 5, 6, 7), |(_, x, y, z)| {
            ((x * 7919 + y * 104_729 + z * 31) % 97) as f32 * 1.37 - 61.0
        });
        let mut sorted = values.iter().copied().collect::<Vec<_>>();
        sorted.sort_by(f32::total_cmp);
        let statistics = OrderStatistics::new(values.view());
        for (rank, &value) in sorted.iter().enumerate() {
            assert_eq!(statistics.at(rank), value);
        }
        assert_eq!(statistics.percentile(0.0), sorted[0]);
        assert_eq!(statistics.percentile(100.0), sorted[209]);
        assert_eq!(statistics.percentile(50.0), (sorted[104] + sorted[105]) / 2.0);
    }
}
