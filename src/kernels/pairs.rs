//! Interpolation along a row: each output value is the weighted sum of two input values.
//!
//! Where eight neighbouring outputs need only eight neighbouring inputs, as upsampling by a third or more does,
//! AVX2 loads those once and permutes them in registers. All other outputs are computed one by one.

#![allow(unsafe_code)]

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::{
    _mm256_add_ps, _mm256_loadu_ps, _mm256_loadu_si256, _mm256_mul_ps, _mm256_permutevar8x32_ps,
    _mm256_storeu_ps,
};

/// Outputs computed at once.
const LANES: usize = 8;

/// The two inputs of each output of a row, by index and weight.
#[derive(Debug, Clone, Default)]
pub struct Pairs {
    pairs: Vec<([u32; 2], [f32; 2])>,
    /// For each whole group of outputs, its inputs, if they are close enough to each other.
    groups: Vec<Option<Group>>,
    inputs: usize,
}

/// Outputs whose inputs are all among eight neighbours.
#[derive(Debug, Clone)]
struct Group {
    /// Index of the first of the neighbours.
    first: usize,
    /// The inputs, counted from the first neighbour: below [`LANES`].
    lanes: [[i32; LANES]; 2],
    weights: [[f32; LANES]; 2],
}

impl Pairs {
    /// Prepares pairs for rows of `inputs` values.
    ///
    /// # Panics
    /// Panics if an index is not below `inputs`.
    pub fn new(inputs: usize, pairs: impl Iterator<Item = ([u32; 2], [f32; 2])>) -> Self {
        let pairs: Vec<_> = pairs.collect();
        let inside = |pair: &([u32; 2], _)| pair.0.iter().all(|&index| (index as usize) < inputs);
        assert!(pairs.iter().all(inside), "an index is outside the row");
        let groups = pairs.chunks_exact(LANES).map(|group| Group::new(inputs, group)).collect();
        Self { pairs, groups, inputs }
    }

    /// Computes a row.
    ///
    /// # Panics
    /// Panics if `values` has another length than [`new`](Self::new) was told, or `out` another than there are
    /// pairs.
    pub fn apply(&self, values: &[f32], out: &mut [f32]) {
        assert_eq!((values.len(), out.len()), (self.inputs, self.pairs.len()));
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("avx2") {
            // SAFETY: the processor has AVX2.
            return unsafe { self.apply_by_groups(values, out) };
        }
        one_by_one(&self.pairs, values, out);
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2")]
    fn apply_by_groups(&self, values: &[f32], out: &mut [f32]) {
        let mut parts = out.chunks_exact_mut(LANES);
        for ((out, group), pairs) in (&mut parts).zip(&self.groups).zip(self.pairs.chunks(LANES)) {
            let Some(Group { first, lanes: [low, high], weights: [a, b] }) = group else {
                one_by_one(pairs, values, out);
                continue;
            };
            let near = &values[*first..first + LANES];
            // SAFETY: all of these are eight values of four bytes, which the loads read and the store writes
            // without need of an alignment.
            unsafe {
                let near = _mm256_loadu_ps(near.as_ptr());
                let low = _mm256_permutevar8x32_ps(near, _mm256_loadu_si256(low.as_ptr().cast()));
                let high = _mm256_permutevar8x32_ps(near, _mm256_loadu_si256(high.as_ptr().cast()));
                let low = _mm256_mul_ps(_mm256_loadu_ps(a.as_ptr()), low);
                let high = _mm256_mul_ps(_mm256_loadu_ps(b.as_ptr()), high);
                _mm256_storeu_ps(out.as_mut_ptr(), _mm256_add_ps(low, high));
            }
        }
        let rest = parts.into_remainder();
        one_by_one(&self.pairs[self.pairs.len() - rest.len()..], values, rest);
    }
}

impl Group {
    /// Returns `None` if the inputs are too far apart.
    fn new(inputs: usize, pairs: &[([u32; 2], [f32; 2])]) -> Option<Self> {
        let indices = || pairs.iter().flat_map(|(index, _)| index).map(|&index| index as usize);
        let first = indices().min()?.min(inputs.checked_sub(LANES)?);
        if indices().any(|index| index - first >= LANES) {
            return None;
        }
        let of = |n: usize| std::array::from_fn(|lane| (pairs[lane].0[n] as usize - first) as i32);
        let weights = [0, 1].map(|n| std::array::from_fn(|lane| pairs[lane].1[n]));
        Some(Self { first, lanes: [of(0), of(1)], weights })
    }
}

fn one_by_one(pairs: &[([u32; 2], [f32; 2])], values: &[f32], out: &mut [f32]) {
    for (out, (index, weight)) in out.iter_mut().zip(pairs) {
        let [a, b] = index.map(|index| values[index as usize]);
        *out = weight[0] * a + weight[1] * b;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// A row is the same however its outputs are grouped.
        #[test]
        fn groups_change_nothing(
            values in prop::collection::vec(-1e3f32..1e3, 1..60),
            outputs in 0usize..130, from in -5f32..60.0, step in -2f32..2.0, reversed in any::<bool>(),
        ) {
            let last = values.len() - 1;
            let pair = |n: usize| {
                let place = (from + step * n as f32).clamp(0.0, last as f32);
                let low = place.floor() as usize;
                let index = [low as u32, (low + 1).min(last) as u32];
                let weight = [1.0 - place.fract(), place.fract()];
                if reversed { ([index[1], index[0]], [weight[1], weight[0]]) } else { (index, weight) }
            };
            let pairs = Pairs::new(values.len(), (0..outputs).map(pair));
            let (mut fast, mut plain) = (vec![f32::NAN; outputs], vec![f32::NAN; outputs]);
            pairs.apply(&values, &mut fast);
            one_by_one(&pairs.pairs, &values, &mut plain);
            let bits = |row: &[f32]| row.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
            prop_assert_eq!(bits(&fast), bits(&plain));
            if step.abs() < 0.7 && values.len() >= LANES {
                prop_assert!(pairs.groups.iter().all(Option::is_some));
            }
        }
    }

    #[test]
    #[should_panic(expected = "outside the row")]
    fn an_index_outside_is_refused() {
        Pairs::new(3, [([2, 3], [0.5, 0.5])].into_iter());
    }
}
