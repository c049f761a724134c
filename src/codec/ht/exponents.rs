//! Exponents of a row of quads (ISO/IEC 15444-15 section 7.3.7) in 16 bits, for the kernels of x86-64.

use std::arch::x86_64::*;

use super::magnitudes::{BEFORE, Bottoms};
use super::simd::{load_16_bytes, load_16_words, store_16_words};
use super::vlc::{Quads, Shape};

/// Quads of a row of the widest block, and what is written beyond them.
const MOST: usize = 512 + 16;

/// A row of quads.
pub(super) struct Row {
    /// ρ, ε^k and ε^1, as in [`Quads`]; zero beyond the last quad.
    pub patterns: [u16; MOST],
    /// U, the exponent's bound of each quad; zero beyond the last.
    pub exponents: [u16; MOST],
}

impl Row {
    pub fn new() -> Self {
        Self { patterns: [0; MOST], exponents: [0; MOST] }
    }

    /// Reads row `row`, whose samples above are in `bottoms`; what `most` becomes with its exponents.
    #[inline]
    #[target_feature(enable = "avx2,bmi1,bmi2,lzcnt,popcnt")]
    pub fn read(
        &mut self,
        quads: &Quads,
        shape: &Shape,
        row: usize,
        bottoms: &mut Bottoms<u16>,
        mut most: __m256i,
    ) -> __m256i {
        let (patterns, residuals) = quads.row(row, shape);
        let bottoms = bottoms.values();
        let one = _mm256_set1_epi16(1);
        let places = _mm256_setr_epi16(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
        for first in (0..shape.quads()).step_by(16) {
            let left = _mm256_set1_epi16((shape.quads() - first) as i16);
            let there = _mm256_cmpgt_epi16(left, places);
            let pattern = _mm256_and_si256(load_16_words(patterns, first), there);
            let residual = _mm256_cvtepu8_epi16(load_16_bytes(residuals, first));
            let mut kappa = one;
            if row > 0 {
                let low = below(bottoms, 2 * first);
                let high = below(bottoms, 2 * first + 16);
                let bound = _mm256_packus_epi32(low, high);
                let bound = _mm256_permute4x64_epi64::<0b11_01_10_00>(bound);
                // Only of quads with two significant samples or more.
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

/// Of eight quads in 32 bits each: the largest exponent of the four samples above, less 1, or 0.
#[inline]
#[target_feature(enable = "avx2")]
fn below(bottoms: &[u16], at: usize) -> __m256i {
    const { assert!(BEFORE == 1) };
    // The sample above at the left and that above, and the next two.
    let pairs = _mm256_or_si256(load_16_words(bottoms, at), load_16_words(bottoms, at + 2));
    let any = _mm256_or_si256(pairs, _mm256_srli_epi32::<16>(pairs));
    let any = _mm256_and_si256(any, _mm256_set1_epi32(0xFFFF));
    // The exponent of a floating-point number is the number of bits less 1, which is what is asked for.
    let float = _mm256_castps_si256(_mm256_cvtepi32_ps(any));
    let exponent = _mm256_sub_epi32(_mm256_srli_epi32::<23>(float), _mm256_set1_epi32(127));
    _mm256_max_epi32(exponent, _mm256_setzero_si256())
}
