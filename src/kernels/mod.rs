//! Loops over rows of numbers, compiled for several instruction sets; the best one that the processor has runs.
//!
//! The program is built for every x86-64 processor, whose vectors hold four `f32`; AVX2's hold eight. The
//! results are equal to the bit: AVX2 has no fused multiply-add, and no order of operations changes.
//!
//! Where rows have different lengths, the shortest counts.

// `multiversion` calls the version for AVX2 in a block of unsafe code, after it has asked the processor.
#![allow(unsafe_code)]

pub(crate) mod curve;
mod pairs;

use std::borrow::Cow;

use multiversion::multiversion;
use ndarray::ArrayView1;

use self::curve::{exp, half_tanh, sigmoid};
pub use self::pairs::Pairs;

/// Side of the blocks that are transposed at once: a row of them fills a cache line of `f32`.
const TILE: usize = 16;

/// Returns a row as a slice, copied if it has gaps: loops over slices are vectorised, those over views are not.
pub fn contiguous<T: Clone>(row: ArrayView1<'_, T>) -> Cow<'_, [T]> {
    row.to_slice().map_or_else(|| Cow::Owned(row.to_vec()), Cow::Borrowed)
}

/// `target += values`.
#[multiversion(targets("x86_64+avx2"))]
pub fn add(target: &mut [f32], values: &[f32]) {
    for (t, v) in target.iter_mut().zip(values) {
        *t += v;
    }
}

/// `target += values · weights`.
#[multiversion(targets("x86_64+avx2"))]
pub fn add_products(target: &mut [f32], values: &[f32], weights: &[f32]) {
    for ((t, v), w) in target.iter_mut().zip(values).zip(weights) {
        *t += v * w;
    }
}

/// `target /= scale · divisors`.
#[multiversion(targets("x86_64+avx2"))]
pub fn divide(target: &mut [f32], scale: f32, divisors: &[f32]) {
    for (t, d) in target.iter_mut().zip(divisors) {
        *t /= scale * d;
    }
}

/// `out = wa · a + wb · b` for `[(wa, a), (wb, b)]`.
#[multiversion(targets("x86_64+avx2"))]
pub fn mix_two(out: &mut [f32], [(wa, a), (wb, b)]: [(f32, &[f32]); 2]) {
    for ((out, a), b) in out.iter_mut().zip(a).zip(b) {
        *out = wa * a + wb * b;
    }
}

/// The weighted sum of four rows, added from left to right.
#[multiversion(targets("x86_64+avx2"))]
pub fn mix_four(out: &mut [f32], rows: [(f32, &[f32]); 4]) {
    let [(wa, a), (wb, b), (wc, c), (wd, d)] = rows;
    let pairs = a.iter().zip(b).zip(c.iter().zip(d));
    for (out, ((a, b), (c, d))) in out.iter_mut().zip(pairs) {
        *out = wa * a + wb * b + wc * c + wd * d;
    }
}

/// `target += weight · values`.
#[multiversion(targets("x86_64+avx2"))]
pub fn add_scaled(target: &mut [f32], weight: f32, values: &[f32]) {
    for (t, v) in target.iter_mut().zip(values) {
        *t += weight * v;
    }
}

/// `out = wa · a + wb · b` in `f64`.
#[multiversion(targets("x86_64+avx2"))]
pub fn mix_two_exactly(out: &mut [f64], [(wa, a), (wb, b)]: [(f64, &[f32]); 2]) {
    for ((out, &a), &b) in out.iter_mut().zip(a).zip(b) {
        *out = wa * f64::from(a) + wb * f64::from(b);
    }
}

/// The weighted sum of four rows in `f64`: the sum of the first two and that of the last two.
#[multiversion(targets("x86_64+avx2"))]
pub fn mix_four_exactly(out: &mut [f64], rows: [(f64, &[f32]); 4]) {
    let [(wa, a), (wb, b), (wc, c), (wd, d)] = rows;
    let pairs = a.iter().zip(b).zip(c.iter().zip(d));
    for (out, ((&a, &b), (&c, &d))) in out.iter_mut().zip(pairs) {
        let first = wa * f64::from(a) + wb * f64::from(b);
        *out = first + (wc * f64::from(c) + wd * f64::from(d));
    }
}

/// `target += weight · values` in `f64`.
#[multiversion(targets("x86_64+avx2"))]
pub fn add_scaled_exactly(target: &mut [f64], weight: f64, values: &[f32]) {
    for (t, &v) in target.iter_mut().zip(values) {
        *t += weight * f64::from(v);
    }
}

/// [`offset`] of each value.
#[multiversion(targets("x86_64+avx2"))]
pub fn offsets(out: &mut [u16], values: &[f32], low: i32) {
    for (out, &value) in out.iter_mut().zip(values) {
        *out = offset(value, low);
    }
}

/// Returns how far a whole number lies above `low`, within 16 bits.
#[inline(always)]
fn offset(value: f32, low: i32) -> u16 {
    (value as i32).wrapping_sub(low) as u16
}

/// Writes whether each value is above zero, and returns whether any lies within `close` of it.
#[multiversion(targets("x86_64+avx2"))]
pub fn positive(values: &[f32], out: &mut [u8], close: f32) -> bool {
    let mut any = false;
    for (out, &v) in out.iter_mut().zip(values) {
        *out = u8::from(v > 0.0);
        any |= v.abs() < close;
    }
    any
}

/// `out = sigmoid(values)`.
#[multiversion(targets("x86_64+avx2"))]
pub fn sigmoids(out: &mut [f32], values: &[f32]) {
    for (out, &v) in out.iter_mut().zip(values) {
        *out = sigmoid(v);
    }
}

/// `out = one − zero`.
#[multiversion(targets("x86_64+avx2"))]
pub fn differences(out: &mut [f32], zero: &[f32], one: &[f32]) {
    for ((out, zero), one) in out.iter_mut().zip(zero).zip(one) {
        *out = one - zero;
    }
}

/// The difference of two classes after a softmax: softmax₁ − softmax₀ = tanh((one − zero) / 2).
#[multiversion(targets("x86_64+avx2"))]
pub fn softmax_differences(out: &mut [f32], zero: &[f32], one: &[f32]) {
    for ((out, zero), one) in out.iter_mut().zip(zero).zip(one) {
        *out = half_tanh(one - zero);
    }
}

/// The difference of two classes after a sigmoid of each.
#[multiversion(targets("x86_64+avx2"))]
pub fn sigmoid_differences(out: &mut [f32], zero: &[f32], one: &[f32]) {
    for ((out, &zero), &one) in out.iter_mut().zip(zero).zip(one) {
        *out = sigmoid(one) - sigmoid(zero);
    }
}

/// `largest = max(largest, values)`.
#[multiversion(targets("x86_64+avx2"))]
pub fn raise(largest: &mut [f32], values: &[f32]) {
    for (largest, &v) in largest.iter_mut().zip(values) {
        *largest = largest.max(v);
    }
}

/// `sum += exp(values − largest)`.
#[multiversion(targets("x86_64+avx2"))]
pub fn add_exponentials(sum: &mut [f32], values: &[f32], largest: &[f32]) {
    for ((sum, &v), &most) in sum.iter_mut().zip(values).zip(largest) {
        *sum += exp(v - most);
    }
}

/// `values = exp(values − largest)`, which `sum` is increased by.
#[multiversion(targets("x86_64+avx2"))]
pub fn to_exponentials(values: &mut [f32], sum: &mut [f32], largest: &[f32]) {
    for ((v, sum), &most) in values.iter_mut().zip(sum).zip(largest) {
        *v = exp(*v - most);
        *sum += *v;
    }
}

/// The best class so far of each voxel, its value, and the second best value.
pub struct Best<'b> {
    /// Its class.
    pub class: &'b mut [u8],
    /// Its value.
    pub value: &'b mut [f32],
    /// The value of the second best.
    pub second: &'b mut [f32],
}

/// Updates the best class of each voxel by the values of another one. Ties go to the class that came first.
#[multiversion(targets("x86_64+avx2"))]
pub fn take_better(best: &mut Best, class: u8, values: &[f32]) {
    let Best { class: classes, value: best, second } = best;
    let lanes = classes.iter_mut().zip(best.iter_mut()).zip(second.iter_mut()).zip(values);
    for (((known, best), second), &value) in lanes {
        let larger = value > *best;
        // The smaller of the two, which is not the best.
        let beaten = if larger { *best } else { value };
        *second = if beaten > *second { beaten } else { *second };
        *best = if larger { value } else { *best };
        *known = if larger { class } else { *known };
    }
}

/// Returns whether all values of a row equal `value`.
#[multiversion(targets("x86_64+avx2"))]
pub fn is_uniform<T: Copy + PartialEq>(row: &[T], value: T) -> bool {
    // Without an early exit, so that the loop is vectorised: most rows are uniform.
    row.iter().fold(true, |same, &v| same & (v == value))
}

/// Splits a row where its values change.
pub fn runs<T: Copy + Eq>(mut row: &[T]) -> impl Iterator<Item = &[T]> {
    std::iter::from_fn(move || {
        let (run, rest) = row.split_at(run_length(row, *row.first()?));
        row = rest;
        Some(run)
    })
}

/// Returns how many values at the start of a row equal `value`. Long runs are passed in chunks.
fn run_length<T: Copy + Eq>(row: &[T], value: T) -> usize {
    let (chunks, _) = row.as_chunks::<TILE>();
    let uniform = |chunk: &&[T; TILE]| chunk.iter().fold(true, |same, &v| same & (v == value));
    let long = chunks.iter().take_while(uniform).count() * TILE;
    long + row[long..].iter().take_while(|v| **v == value).count()
}

/// Returns the sum of the values and that of their squares, which a row of up to 2¹⁶ values cannot overflow.
#[multiversion(targets("x86_64+avx2"))]
pub fn sums(row: &[u16]) -> (u64, u64) {
    row.iter().fold((0, 0), |(sum, squares), &value| {
        let value = u32::from(value);
        (sum + u64::from(value), squares + u64::from(value * value))
    })
}

/// Copies `columns` rows of `rows` values each as `rows` rows of `columns` values:
/// `target[i · target_stride + j] = source[j · source_stride + i]`.
///
/// # Panics
/// Panics if one of these lies outside its slice.
#[multiversion(targets("x86_64+avx2"))]
pub fn transpose<T: Copy + Default>(
    (source, source_stride): (&[T], usize),
    (target, target_stride): (&mut [T], usize),
    [rows, columns]: [usize; 2],
) {
    for i in (0..rows).step_by(TILE) {
        for j in (0..columns).step_by(TILE) {
            let source = (&source[j * source_stride + i..], source_stride);
            let target = (&mut target[i * target_stride + j..], target_stride);
            match [rows - i, columns - j] {
                // Of constant size, so that it is copied in registers.
                [(TILE..), (TILE..)] => transpose_tile(source, target, [TILE; 2]),
                [height, width] => {
                    transpose_tile(source, target, [height, width].map(|n| n.min(TILE)))
                }
            }
        }
    }
}

#[inline(always)]
fn transpose_tile<T: Copy + Default>(
    (source, source_stride): (&[T], usize),
    (target, target_stride): (&mut [T], usize),
    [height, width]: [usize; 2],
) {
    let mut tile = [[T::default(); TILE]; TILE];
    for (n, row) in tile[..width].iter_mut().enumerate() {
        let from = n * source_stride;
        row[..height].copy_from_slice(&source[from..from + height]);
    }
    for n in 0..height {
        let column: [T; TILE] = std::array::from_fn(|m| tile[m][n]);
        let to = n * target_stride;
        target[to..to + width].copy_from_slice(&column[..width]);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Rows of one length, and weights.
    fn rows() -> impl Strategy<Value = (Vec<[f32; 5]>, [f32; 4])> {
        let row = prop::array::uniform5(-1e3f32..1e3);
        (prop::collection::vec(row, 0..70), prop::array::uniform4(-2f32..2.0))
    }

    fn column(rows: &[[f32; 5]], n: usize) -> Vec<f32> {
        rows.iter().map(|row| row[n]).collect()
    }

    proptest! {
        /// Every kernel gives the bits of its formula, which the test computes value by value.
        #[test]
        fn kernels_are_their_formulas((values, weights) in rows()) {
            let [a, b, c, d, e] = std::array::from_fn(|n| column(&values, n));
            let [wa, wb, wc, wd] = weights;
            let same = |name: &str, got: &[f32], formula: &dyn Fn([f32; 5]) -> f32| {
                for (got, values) in got.iter().zip(&values) {
                    let wanted = formula(std::hint::black_box(*values));
                    prop_assert_eq!(got.to_bits(), wanted.to_bits(), "{}", name);
                }
                Ok(())
            };
            let with = |f: &dyn Fn(&mut [f32])| {
                let mut out = e.clone();
                f(&mut out);
                out
            };
            let four = [(wa, &a[..]), (wb, &b), (wc, &c), (wd, &d)];
            same("add", &with(&|t| add(t, &a)), &|[a, .., e]| e + a)?;
            same("products", &with(&|t| add_products(t, &a, &b)), &|[a, b, .., e]| e + a * b)?;
            same("divide", &with(&|t| divide(t, wa, &a)), &|[a, .., e]| e / (wa * a))?;
            same("scaled", &with(&|t| add_scaled(t, wa, &a)), &|[a, .., e]| e + wa * a)?;
            same("two", &with(&|t| mix_two(t, [four[0], four[1]])), &|[a, b, ..]| wa * a + wb * b)?;
            same("four", &with(&|t| mix_four(t, four)), &|[a, b, c, d, _]| {
                wa * a + wb * b + wc * c + wd * d
            })?;
            let same = |name: &str, got: &[f64], formula: &dyn Fn([f64; 5]) -> f64| {
                for (got, values) in got.iter().zip(&values) {
                    let wanted = formula(std::hint::black_box(values.map(f64::from)));
                    prop_assert_eq!(got.to_bits(), wanted.to_bits(), "{}", name);
                }
                Ok(())
            };
            let with = |f: &dyn Fn(&mut [f64])| {
                let mut out: Vec<f64> = e.iter().map(|&v| f64::from(v)).collect();
                f(&mut out);
                out
            };
            let four = four.map(|(w, row)| (f64::from(w), row));
            let [wa, wb, wc, wd] = weights.map(f64::from);
            same("two exactly", &with(&|t| mix_two_exactly(t, [four[0], four[1]])), &|[a, b, ..]| {
                wa * a + wb * b
            })?;
            same("four exactly", &with(&|t| mix_four_exactly(t, four)), &|[a, b, c, d, _]| {
                (wa * a + wb * b) + (wc * c + wd * d)
            })?;
            same("scaled exactly", &with(&|t| add_scaled_exactly(t, wa, &a)), &|[a, .., e]| e + wa * a)?;
        }

        #[test]
        fn activations_are_their_formulas((values, _) in rows()) {
            let values: Vec<[f32; 5]> = values.iter().map(|row| row.map(|v| v / 50.0)).collect();
            let [a, b, c] = std::array::from_fn(|n| column(&values, n));
            let same = |got: &[f32], formula: &dyn Fn([f32; 5]) -> f32| {
                for (got, values) in got.iter().zip(&values) {
                    prop_assert_eq!(got.to_bits(), formula(std::hint::black_box(*values)).to_bits());
                }
                Ok(())
            };
            let with = |f: &dyn Fn(&mut [f32])| {
                let mut out = c.clone();
                f(&mut out);
                out
            };
            same(&with(&|t| sigmoids(t, &a)), &|[a, ..]| sigmoid(a))?;
            same(&with(&|t| differences(t, &a, &b)), &|[a, b, ..]| b - a)?;
            same(&with(&|t| softmax_differences(t, &a, &b)), &|[a, b, ..]| half_tanh(b - a))?;
            same(&with(&|t| sigmoid_differences(t, &a, &b)), &|[a, b, ..]| sigmoid(b) - sigmoid(a))?;
            same(&with(&|t| raise(t, &a)), &|[a, _, c, ..]| c.max(a))?;
            same(&with(&|t| add_exponentials(t, &a, &b)), &|[a, b, c, ..]| c + exp(a - b))?;
            let mut sum = a.clone();
            same(&with(&|t| to_exponentials(t, &mut sum.clone(), &b)), &|[_, b, c, ..]| exp(c - b))?;
            to_exponentials(&mut c.clone(), &mut sum, &b);
            same(&sum, &|[a, b, c, ..]| a + exp(c - b))?;
        }

        #[test]
        fn the_best_class_is_the_first_of_the_largest(
            values in prop::collection::vec(prop::array::uniform4(-3i8..3), 0..70),
        ) {
            let count = values.len();
            let (mut class, mut value) = (vec![0; count], vec![f32::NEG_INFINITY; count]);
            let mut second = value.clone();
            let mut best = Best { class: &mut class, value: &mut value, second: &mut second };
            for n in 0..4 {
                let row: Vec<f32> = values.iter().map(|row| f32::from(row[n])).collect();
                take_better(&mut best, n as u8, &row);
            }
            for (n, row) in values.iter().enumerate() {
                let mut sorted = *row;
                sorted.sort_unstable();
                let first = row.iter().position(|v| *v == sorted[3]);
                prop_assert_eq!(Some(usize::from(class[n])), first);
                prop_assert_eq!([second[n], value[n]], [sorted[2], sorted[3]].map(f32::from));
            }
        }

        #[test]
        fn labels_and_offsets_are_their_formulas(
            values in prop::collection::vec(prop_oneof![-2e-5f32..2e-5, -70_000f32..70_000.0], 0..70),
            low in -40_000i32..40_000,
        ) {
            let mut labels = vec![7; values.len()];
            let close = positive(&values, &mut labels, 1e-5);
            prop_assert_eq!(close, values.iter().any(|v| v.abs() < 1e-5));
            prop_assert!(labels.iter().zip(&values).all(|(&label, v)| label == u8::from(*v > 0.0)));
            let mut kept = vec![0; values.len()];
            offsets(&mut kept, &values, low);
            let wanted = values.iter().map(|&v| (v as i32 - low) as u16);
            prop_assert!(kept.iter().copied().eq(wanted));
        }

        #[test]
        fn rows_of_labels_and_pixels_are_counted_whole(
            mut row in prop::collection::vec(any::<u16>(), 1..70), at in any::<prop::sample::Index>(),
        ) {
            let of = |f: &dyn Fn(u64) -> u64| row.iter().map(|&v| f(v.into())).sum::<u64>();
            prop_assert_eq!(sums(&row), (of(&|v| v), of(&|v| v * v)));
            row.fill(3);
            prop_assert!(is_uniform(&row, 3));
            let at = at.index(row.len());
            row[at] = 4;
            prop_assert!(!is_uniform(&row, 3));
        }

        #[test]
        fn runs_end_where_values_change(
            lengths in prop::collection::vec((0u8..3, 1usize..50), 0..12),
        ) {
            let row: Vec<u8> = lengths.iter().flat_map(|&(v, n)| std::iter::repeat_n(v, n)).collect();
            prop_assert!(runs(&row).eq(row.chunk_by(|a, b| a == b)));
        }

        #[test]
        fn what_is_transposed_lies_where_it_should(
            rows in 0usize..50, columns in 0usize..50, more in 0usize..3, further in 0usize..3,
        ) {
            let (from, to) = (rows + more, columns + further);
            let source: Vec<f32> = (0..from * columns).map(|v| v as f32).collect();
            let mut target = vec![-1.0; to * rows];
            transpose((&source, from), (&mut target, to), [rows, columns]);
            for (at, &value) in target.iter().enumerate() {
                let (i, j) = (at / to, at % to);
                let wanted = if j < columns { source[j * from + i] } else { -1.0 };
                prop_assert_eq!(value, wanted);
            }
        }
    }
}
