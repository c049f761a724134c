//! Exponents of a row of quads (ISO/IEC 15444-15 section 7.3.7) in 16 bits, for the x86-64 kernels.

use std::arch::x86_64::*;

use super::magnitudes::BEFORE;
use super::simd::{load_8_pairs, load_8_words, load_16_words, store_16_words};
use super::vlc::{Quads, Shape};

/// Quads of a row of the widest block, plus what may be written past them.
const MOST: usize = 512 + 16;

/// A row of quads.
pub(super) struct Row {
    /// ρ, ε^k and ε^1, as in [`Quads`]; zero beyond the last quad.
    pub patterns: [u16; MOST],
    /// U, the exponent bound of each quad; zero beyond the last.
    pub exponents: [u16; MOST],
}

impl Row {
    pub fn new() -> Self {
        Self { patterns: [0; MOST], exponents: [0; MOST] }
    }

    /// Reads row `row`. Returns `most`, raised to its exponents. `below` returns, for each of eight
    /// quads from the given one, in 32 bits, the largest exponent of the four samples above minus
    /// 1, or 0.
    #[inline]
    #[target_feature(enable = "avx2,bmi1,bmi2,lzcnt,popcnt")]
    pub fn read(
        &mut self,
        quads: &Quads,
        shape: &Shape,
        row: usize,
        mut most: __m256i,
        below: impl Fn(usize) -> __m256i,
    ) -> __m256i {
        let (patterns, residuals) = quads.row(row, shape);
        let one = _mm256_set1_epi16(1);
        let places = _mm256_setr_epi16(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
        for first in (0..shape.quads()).step_by(16) {
            let left = _mm256_set1_epi16((shape.quads() - first) as i16);
            let there = _mm256_cmpgt_epi16(left, places);
            let pattern = _mm256_and_si256(load_8_pairs(patterns, first / 2), there);
            let residual = _mm256_cvtepu8_epi16(load_8_words(residuals, first / 2));
            let mut kappa = one;
            if row > 0 {
                let bound = _mm256_packus_epi32(below(first), below(first + 8));
                let bound = _mm256_permute4x64_epi64::<0b11_01_10_00>(bound);
                // Only for quads with at least two significant samples.
                let rho = _mm256_and_si256(pattern, _mm256_set1_epi16(0xF));
                let others = _mm256_and_si256(rho, _mm256_sub_epi16(rho, one));
                let few = _mm256_cmpeq_epi16(others, _mm256_setzero_si256());
                kappa = _mm256_max_epi16(one, _mm256_andnot_si256(few, bound));
            }
            let exponent = _mm256_and_si256(_mm256_add_epi16(residual, kappa), there);
            most = _mm256_max_epu16(most, exponent);
            store_16_words(&mut self.patterns, first, pattern);
            store_16_words(&mut self.exponents, first, exponent);
        }
        most
    }
}

/// The `below` function of [`Row::read`] for 16-bit samples.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn below_narrow(bottoms: &[u16], quad: usize) -> __m256i {
    const { assert!(BEFORE == 1) };
    // The sample above left and the one above, and the next two.
    let (left, right) = (load_16_words(bottoms, 2 * quad), load_16_words(bottoms, 2 * quad + 2));
    let pairs = _mm256_or_si256(left, right);
    let any = _mm256_or_si256(pairs, _mm256_srli_epi32::<16>(pairs));
    exponents(_mm256_and_si256(any, _mm256_set1_epi32(0xFFFF)))
}

/// The `below` function of [`Row::read`] for samples of up to 24 bits.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn below_wide(bottoms: &[u32], quad: usize) -> __m256i {
    let four = |at: usize| {
        let pairs = _mm256_or_si256(load_8_pairs(bottoms, at), load_8_pairs(bottoms, at + 2));
        let any = _mm256_or_si256(pairs, _mm256_srli_epi64::<32>(pairs));
        // Moves the lower half of each 64 bits to the lower 128.
        let order = _mm256_setr_epi32(0, 2, 4, 6, 0, 2, 4, 6);
        _mm256_permutevar8x32_epi32(any, order)
    };
    exponents(_mm256_blend_epi32::<0b1111_0000>(four(2 * quad), four(2 * quad + 8)))
}

/// The bit length of each value of up to 24 bits minus 1, or 0.
#[inline]
#[target_feature(enable = "avx2")]
fn exponents(values: __m256i) -> __m256i {
    // Taken from the exponent of the value as a floating-point number.
    let float = _mm256_castps_si256(_mm256_cvtepi32_ps(values));
    let exponent = _mm256_sub_epi32(_mm256_srli_epi32::<23>(float), _mm256_set1_epi32(127));
    _mm256_max_epi32(exponent, _mm256_setzero_si256())
}

/// Whether no exponent is larger than `limit`.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn are_within(exponents: __m256i, limit: u32) -> bool {
    let beyond = _mm256_subs_epu16(exponents, _mm256_set1_epi16(limit as i16));
    _mm256_testz_si256(beyond, beyond) == 1
}

/// Decodes all rows of quads of a block, in groups of `$quads`, by `$group`, which writes the
/// group's samples and what the row below needs, and returns the position after it.
macro_rules! by_rows {
    ($coded:ident, $bottoms:ident, $out:ident, $stride:ident, $below:ident, $quads:literal, $group:ident) => {{
        let Coded { quads, shape, flat, most } = $coded;
        $bottoms.clear();
        let mut position = 0;
        let mut row = Row::new();
        let mut exponents = _mm256_setzero_si256();
        for (number, rows) in $out.chunks_exact_mut(2 * $stride).take(shape.rows()).enumerate() {
            let above = $bottoms.values();
            exponents = row.read(quads, &shape, number, exponents, |quad| $below(above, quad));
            if !are_within(exponents, most) {
                return Err(EXPONENT);
            }
            let (top, bottom) = rows.split_at_mut($stride);
            for quad in (0..shape.quads()).step_by($quads) {
                position = $group(&row, quad, flat, position, [top, bottom], $bottoms.values());
            }
        }
        Ok(position)
    }};
}
pub(super) use by_rows;
