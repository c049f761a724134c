//! Kernels for x86-64 with AVX-512 (F, BW, VL and VBMI2).

use std::arch::x86_64::*;

use super::avx2;
use super::exponents::{Row, are_within, below_narrow, below_wide, by_rows};
use super::fault::Fault;
use super::magnitudes::{self as portable, BEFORE, Bottoms, Coded, EXPONENT};
use super::segment::{MAGNITUDE_BYTES, Magnitudes};
use super::simd::{
    load_4_words, load_8_words, load_64_bytes, store_8_values, store_16_samples, store_16_words,
};

/// Like [`avx2::narrow`](super::avx2::narrow), eight quads at a time; `stride` is a multiple of 16.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi2,avx2,bmi1,bmi2,lzcnt,popcnt")]
pub(super) fn narrow(
    coded: Coded<'_>,
    bottoms: &mut Bottoms<u16>,
    out: &mut [i16],
    stride: usize,
) -> Result<usize, Fault> {
    by_rows!(coded, bottoms, out, stride, below_narrow, 8, eight_quads)
}

/// A vector of 32 words, listed from the last.
macro_rules! words {
    ($($n:expr),* $(,)?) => { _mm512_set_epi16($($n),*) };
}

/// Writes the 32 samples of eight quads, and the bottom samples in the form that the exponents of
/// the next row need. Returns the position after them.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi2,avx2,bmi1,bmi2,lzcnt,popcnt")]
fn eight_quads(
    row: &Row,
    quad: usize,
    flat: &Magnitudes,
    position: usize,
    [top, bottom]: [&mut [i16]; 2],
    bottoms: &mut [u16],
) -> usize {
    let spread = words!(
        7, 7, 7, 7, 6, 6, 6, 6, 5, 5, 5, 5, 4, 4, 4, 4, 3, 3, 3, 3, 2, 2, 2, 2, 1, 1, 1, 1, 0, 0,
        0, 0
    );
    let of = |words: &[u16]| {
        _mm512_permutexvar_epi16(spread, _mm512_castsi128_si512(load_8_words(words, quad)))
    };
    let (pattern, exponent) = (of(&row.patterns), of(&row.exponents));
    let has = |bits: i64| _mm512_test_epi16_mask(pattern, _mm512_set1_epi64(bits));
    let significant = has(0x0008_0004_0002_0001);
    let known = has(0x0080_0040_0020_0010);
    let known_one = has(0x0800_0400_0200_0100);
    let one = _mm512_set1_epi16(1);
    let length = _mm512_mask_sub_epi16(exponent, known, exponent, one);
    let length = _mm512_maskz_mov_epi16(significant, length);
    let sum = sums(length);
    let total = _mm_extract_epi16::<7>(_mm512_extracti32x4_epi32::<3>(sum)) as usize;
    let at = (position >> 3) & (MAGNITUDE_BYTES - 1);
    let bits = load_64_bytes(&flat.bytes[..], at);
    let before = _mm512_set1_epi16((position & 7) as i16);
    let offset = _mm512_add_epi16(_mm512_sub_epi16(sum, length), before);
    // The 32 bits from the word where each sample begins, shifted by the offset within it: the
    // shift count is taken modulo 16.
    let index = _mm512_srli_epi16::<4>(offset);
    let first = _mm512_permutexvar_epi16(index, bits);
    let next = _mm512_permutexvar_epi16(_mm512_add_epi16(index, one), bits);
    let value = _mm512_shrdv_epi16(first, next, offset);
    let power = _mm512_sllv_epi16(one, length);
    let value = _mm512_and_si512(value, _mm512_sub_epi16(power, one));
    let value = _mm512_or_si512(value, _mm512_maskz_mov_epi16(known_one, power));
    // Bit 0 is the sign; the rest is the magnitude minus 1.
    let magnitude = _mm512_add_epi16(_mm512_srli_epi16::<1>(value), one);
    let negative = _mm512_test_epi16_mask(value, one);
    let zero = _mm512_setzero_si512();
    let sample = _mm512_mask_sub_epi16(magnitude, negative, zero, magnitude);
    let sample = _mm512_maskz_mov_epi16(significant, sample);
    let below = _mm512_maskz_mov_epi16(significant, _mm512_or_si512(value, one));
    let rows = words!(
        31, 29, 27, 25, 23, 21, 19, 17, 15, 13, 11, 9, 7, 5, 3, 1, 30, 28, 26, 24, 22, 20, 18, 16,
        14, 12, 10, 8, 6, 4, 2, 0
    );
    let samples = _mm512_permutexvar_epi16(rows, sample);
    let below = _mm512_extracti64x4_epi64::<1>(_mm512_permutexvar_epi16(rows, below));
    store_16_samples(top, 2 * quad, _mm512_castsi512_si256(samples));
    store_16_samples(bottom, 2 * quad, _mm512_extracti64x4_epi64::<1>(samples));
    store_16_words(bottoms, BEFORE + 2 * quad, below);
    position + total
}

/// Prefix sums: each word plus all words before it.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn sums(words: __m512i) -> __m512i {
    let sum = _mm512_add_epi16(words, _mm512_bslli_epi128::<2>(words));
    let sum = _mm512_add_epi16(sum, _mm512_bslli_epi128::<4>(sum));
    let sum = _mm512_add_epi16(sum, _mm512_bslli_epi128::<8>(sum));
    // The last word of the previous quarter, and of the quarter before that.
    let one = words!(
        23, 23, 23, 23, 23, 23, 23, 23, 15, 15, 15, 15, 15, 15, 15, 15, 7, 7, 7, 7, 7, 7, 7, 7, 0,
        0, 0, 0, 0, 0, 0, 0
    );
    let two = words!(
        15, 15, 15, 15, 15, 15, 15, 15, 7, 7, 7, 7, 7, 7, 7, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
        0, 0, 0, 0
    );
    let sum = _mm512_add_epi16(sum, _mm512_maskz_permutexvar_epi16(0xFFFF_FF00, one, sum));
    _mm512_add_epi16(sum, _mm512_maskz_permutexvar_epi16(0xFFFF_0000, two, sum))
}

/// Like [`avx2::wide`], four quads at a time; `stride` is a multiple of 8.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi2,avx2,bmi1,bmi2,lzcnt,popcnt")]
pub(super) fn wide(
    coded: Coded<'_>,
    bottoms: &mut Bottoms<u32>,
    out: &mut [u32],
    stride: usize,
) -> Result<usize, Fault> {
    if coded.most > avx2::WIDE_EXPONENT {
        return portable::decode(coded, bottoms, out, stride);
    }
    by_rows!(coded, bottoms, out, stride, below_wide, 4, four_quads)
}

/// Like [`eight_quads`], for four quads, with samples as magnitude and sign (bit 31).
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi2,avx2,bmi1,bmi2,lzcnt,popcnt")]
fn four_quads(
    row: &Row,
    quad: usize,
    flat: &Magnitudes,
    position: usize,
    [top, bottom]: [&mut [u32]; 2],
    bottoms: &mut [u32],
) -> usize {
    let spread = _mm512_set_epi32(3, 3, 3, 3, 2, 2, 2, 2, 1, 1, 1, 1, 0, 0, 0, 0);
    let of = |words: &[u16]| {
        let four = _mm_cvtepu16_epi32(load_4_words(words, quad));
        _mm512_permutexvar_epi32(spread, _mm512_castsi128_si512(four))
    };
    let (pattern, exponent) = (of(&row.patterns), of(&row.exponents));
    let bits = _mm512_set_epi32(8, 4, 2, 1, 8, 4, 2, 1, 8, 4, 2, 1, 8, 4, 2, 1);
    let significant = _mm512_test_epi32_mask(pattern, bits);
    let known = _mm512_test_epi32_mask(pattern, _mm512_slli_epi32::<4>(bits));
    let known_one = _mm512_test_epi32_mask(pattern, _mm512_slli_epi32::<8>(bits));
    let one = _mm512_set1_epi32(1);
    let length = _mm512_mask_sub_epi32(exponent, known, exponent, one);
    let length = _mm512_maskz_mov_epi32(significant, length);
    let sum = sums_of_32(length);
    let total = _mm_extract_epi32::<3>(_mm512_extracti32x4_epi32::<3>(sum)) as usize;
    let at = (position >> 3) & (MAGNITUDE_BYTES - 1);
    let bits = load_64_bytes(&flat.bytes[..], at);
    let before = _mm512_set1_epi32((position & 7) as i32);
    let offset = _mm512_add_epi32(_mm512_sub_epi32(sum, length), before);
    // The 64 bits from the 32-bit word where each sample begins, shifted by the offset within it:
    // the shift count is taken modulo 32.
    let index = _mm512_srli_epi32::<5>(offset);
    let first = _mm512_permutexvar_epi32(index, bits);
    let next = _mm512_permutexvar_epi32(_mm512_add_epi32(index, one), bits);
    let value = _mm512_shrdv_epi32(first, next, offset);
    let power = _mm512_sllv_epi32(one, length);
    let value = _mm512_and_si512(value, _mm512_sub_epi32(power, one));
    let value = _mm512_or_si512(value, _mm512_maskz_mov_epi32(known_one, power));
    // Bit 0 is the sign; the rest is the magnitude minus 1.
    let magnitude = _mm512_add_epi32(_mm512_srli_epi32::<1>(value), one);
    let sample = _mm512_or_si512(magnitude, _mm512_slli_epi32::<31>(value));
    let sample = _mm512_maskz_mov_epi32(significant, sample);
    let below = _mm512_maskz_mov_epi32(significant, _mm512_or_si512(value, one));
    let rows = _mm512_set_epi32(15, 13, 11, 9, 7, 5, 3, 1, 14, 12, 10, 8, 6, 4, 2, 0);
    let samples = _mm512_permutexvar_epi32(rows, sample);
    let below = _mm512_extracti64x4_epi64::<1>(_mm512_permutexvar_epi32(rows, below));
    store_8_values(top, 2 * quad, _mm512_castsi512_si256(samples));
    store_8_values(bottom, 2 * quad, _mm512_extracti64x4_epi64::<1>(samples));
    store_8_values(bottoms, BEFORE + 2 * quad, below);
    position + total
}

/// Like [`sums`], for 32-bit values.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn sums_of_32(values: __m512i) -> __m512i {
    let sum = _mm512_add_epi32(values, _mm512_bslli_epi128::<4>(values));
    let sum = _mm512_add_epi32(sum, _mm512_bslli_epi128::<8>(sum));
    let one = _mm512_set_epi32(11, 11, 11, 11, 7, 7, 7, 7, 3, 3, 3, 3, 0, 0, 0, 0);
    let two = _mm512_set_epi32(7, 7, 7, 7, 3, 3, 3, 3, 0, 0, 0, 0, 0, 0, 0, 0);
    let sum = _mm512_add_epi32(sum, _mm512_maskz_permutexvar_epi32(0xFFF0, one, sum));
    _mm512_add_epi32(sum, _mm512_maskz_permutexvar_epi32(0xFF00, two, sum))
}
