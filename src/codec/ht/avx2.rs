//! Kernels for x86-64 with AVX2 and BMI2.

use std::arch::x86_64::*;

use super::exponents::{Row, are_within, below_narrow, below_wide, by_rows};
use super::fault::Fault;
use super::magnitudes::{self as portable, BEFORE, Bottoms, Coded, EXPONENT};
use super::segment::{self, Codes, MAGNITUDE_BYTES, Magnitudes};
use super::simd::{load_4_words, load_16_bytes, store_4_values, store_8_samples, store_8_words};
use super::vlc::{self, Lane, Shape};
use super::wavelet::{self, Bounds, Number, Pixel};

#[target_feature(enable = "avx2,bmi1,bmi2,lzcnt,popcnt")]
pub(super) fn codewords(suffix: &[u8], codes: &mut Codes) -> Result<(), Fault> {
    segment::codewords(suffix, codes, |word, stuffed| _pext_u64(word, !stuffed))
}

#[target_feature(enable = "avx2,bmi1,bmi2,lzcnt,popcnt")]
pub(super) fn magnitudes(prefix: &[u8], flat: &mut Magnitudes) -> Result<(), Fault> {
    segment::magnitudes(prefix, flat, |word, stuffed| _pext_u64(word, !stuffed))
}

#[target_feature(enable = "avx2,bmi1,bmi2,lzcnt,popcnt")]
pub(super) fn quads<const N: usize>(
    lanes: &mut [Lane; N],
    suffixes: [&[u8]; N],
    shape: Shape,
) -> [usize; N] {
    vlc::decode(lanes, suffixes, shape)
}

#[target_feature(enable = "avx2,bmi1,bmi2,lzcnt,popcnt")]
pub(super) fn copy_wide<T: Number>(from: &[u32], to: &mut [T]) -> bool {
    wavelet::copy_wide(from, to)
}

#[target_feature(enable = "avx2,bmi1,bmi2,lzcnt,popcnt")]
pub(super) fn row<T: Number>(
    low: &[T],
    high: &[T],
    scratch: &mut [T],
    out: &mut [T],
    bounds: &mut Bounds<T>,
) {
    wavelet::row(low, high, scratch, out, bounds);
}

#[target_feature(enable = "avx2,bmi1,bmi2,lzcnt,popcnt")]
pub(super) fn even_row<T: Number>(
    low: &[T],
    above: &[T],
    below: &[T],
    out: &mut [T],
    bounds: &mut Bounds<T>,
) {
    wavelet::even_row(low, above, below, out, bounds);
}

#[target_feature(enable = "avx2,bmi1,bmi2,lzcnt,popcnt")]
pub(super) fn odd_row<T: Number>(
    high: &[T],
    above: &[T],
    below: &[T],
    out: &mut [T],
    bounds: &mut Bounds<T>,
) {
    wavelet::odd_row(high, above, below, out, bounds);
}

#[target_feature(enable = "avx2,bmi1,bmi2,lzcnt,popcnt")]
pub(super) fn finish<T: Number, P: Pixel>(row: &[T], offset: u16, out: &mut Vec<P>) {
    wavelet::finish(row, offset, out);
}

/// Decodes magnitudes and signs in 16 bits, four quads at a time, into rows of `stride`
/// coefficients, a multiple of 8. `most` is 14 at most, so that eight samples and the bits before
/// them fit in a vector.
#[target_feature(enable = "avx2,bmi1,bmi2,lzcnt,popcnt")]
pub(super) fn narrow(
    coded: Coded<'_>,
    bottoms: &mut Bottoms<u16>,
    out: &mut [i16],
    stride: usize,
) -> Result<usize, Fault> {
    by_rows!(coded, bottoms, out, stride, below_narrow, 4, four_quads)
}

/// Writes the 16 samples of four quads, and the bottom samples in the form that the exponents of
/// the next row need. Returns the position after them.
#[inline]
#[target_feature(enable = "avx2,bmi1,bmi2,lzcnt,popcnt")]
fn four_quads(
    row: &Row,
    quad: usize,
    flat: &Magnitudes,
    position: usize,
    [top, bottom]: [&mut [i16]; 2],
    bottoms: &mut [u16],
) -> usize {
    // One word for each sample; two quads in each half.
    let spread = _mm256_setr_epi8(
        0, 1, 0, 1, 0, 1, 0, 1, 2, 3, 2, 3, 2, 3, 2, 3, 4, 5, 4, 5, 4, 5, 4, 5, 6, 7, 6, 7, 6, 7,
        6, 7,
    );
    let of = |words: &[u16]| {
        _mm256_shuffle_epi8(_mm256_broadcastq_epi64(load_4_words(words, quad)), spread)
    };
    let (pattern, exponent) = (of(&row.patterns), of(&row.exponents));
    let has = |bits: __m256i| _mm256_cmpeq_epi16(_mm256_and_si256(pattern, bits), bits);
    let significant = has(_mm256_set1_epi64x(0x0008_0004_0002_0001));
    let known = has(_mm256_set1_epi64x(0x0080_0040_0020_0010));
    let known_one = has(_mm256_set1_epi64x(0x0800_0400_0200_0100));
    // A mask is -1.
    let length = _mm256_and_si256(_mm256_add_epi16(exponent, known), significant);
    let sum = _mm256_add_epi16(length, _mm256_slli_si256::<2>(length));
    let sum = _mm256_add_epi16(sum, _mm256_slli_si256::<4>(sum));
    let sum = _mm256_add_epi16(sum, _mm256_slli_si256::<8>(sum));
    let middle = position + _mm256_extract_epi16::<7>(sum) as usize;
    let end = middle + _mm256_extract_epi16::<15>(sum) as usize;
    let at =
        |position: usize| load_16_bytes(&flat.bytes[..], (position >> 3) & (MAGNITUDE_BYTES - 1));
    let bits = _mm256_set_m128i(at(middle), at(position));
    let before = |position: usize| _mm_set1_epi16((position & 7) as i16);
    let before = _mm256_set_m128i(before(middle), before(position));
    let offset = _mm256_add_epi16(_mm256_sub_epi16(sum, length), before);
    let value = extract(bits, offset);
    // 2^length, for lengths 0 to 15.
    let powers = _mm256_broadcastsi128_si256(_mm_setr_epi8(
        1, 2, 4, 8, 16, 32, 64, -128, 0, 0, 0, 0, 0, 0, 0, 0,
    ));
    let index = _mm256_or_si256(length, _mm256_slli_epi16::<8>(length));
    let index = _mm256_sub_epi16(index, _mm256_set1_epi16(0x0800));
    let power = _mm256_shuffle_epi8(powers, index);
    let one = _mm256_set1_epi16(1);
    let value = _mm256_and_si256(value, _mm256_sub_epi16(power, one));
    let value = _mm256_or_si256(value, _mm256_and_si256(power, known_one));
    // Bit 0 is the sign; the rest is the magnitude minus 1.
    let magnitude = _mm256_add_epi16(_mm256_srli_epi16::<1>(value), one);
    let sign = _mm256_or_si256(_mm256_slli_epi16::<15>(value), one);
    let sample = _mm256_sign_epi16(magnitude, _mm256_and_si256(sign, significant));
    let below = _mm256_and_si256(_mm256_or_si256(value, one), significant);
    let rows = _mm256_broadcastsi128_si256(_mm_setr_epi8(
        0, 1, 4, 5, 8, 9, 12, 13, 2, 3, 6, 7, 10, 11, 14, 15,
    ));
    let in_rows = |samples: __m256i| {
        _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_shuffle_epi8(samples, rows))
    };
    let below = _mm256_extracti128_si256::<1>(in_rows(below));
    let samples = in_rows(sample);
    store_8_samples(top, 2 * quad, _mm256_castsi256_si128(samples));
    store_8_samples(bottom, 2 * quad, _mm256_extracti128_si256::<1>(samples));
    store_8_words(bottoms, BEFORE + 2 * quad, below);
    end
}

/// Extracts the 16 bits at each offset (0 to 127) in its half of `bits`, as far as there are bits.
#[inline]
#[target_feature(enable = "avx2")]
fn extract(bits: __m256i, offset: __m256i) -> __m256i {
    let byte = _mm256_srli_epi16::<3>(offset);
    let index = _mm256_or_si256(byte, _mm256_slli_epi16::<8>(byte));
    let index = _mm256_add_epi16(index, _mm256_set1_epi16(0x0100));
    let first = _mm256_shuffle_epi8(bits, index);
    let next = _mm256_shuffle_epi8(bits, _mm256_add_epi16(index, _mm256_set1_epi16(0x0101)));
    // AVX2 has no shift of words by individual counts, so multiply by 2^(7 - count).
    let powers = _mm256_broadcastsi128_si256(_mm_setr_epi8(
        -128, 64, 32, 16, 8, 4, 2, 1, 0, 0, 0, 0, 0, 0, 0, 0,
    ));
    let count = _mm256_and_si256(offset, _mm256_set1_epi16(7));
    let count = _mm256_or_si256(count, _mm256_set1_epi16(-0x8000));
    let power = _mm256_shuffle_epi8(powers, count);
    let low = _mm256_srli_epi16::<7>(_mm256_mullo_epi16(first, power));
    let high = _mm256_slli_epi16::<1>(_mm256_mullo_epi16(next, power));
    _mm256_or_si256(low, _mm256_and_si256(high, _mm256_set1_epi16(-0x100)))
}

/// Largest exponent of the 32-bit kernels: what shifts by up to 7 bits leave of 32, and what
/// [`below_wide`] accepts.
pub(super) const WIDE_EXPONENT: u32 = 24;

/// Decodes magnitudes and signs in 32 bits, two quads at a time, like [`portable::decode`];
/// `stride` is a multiple of 4.
#[target_feature(enable = "avx2,bmi1,bmi2,lzcnt,popcnt")]
pub(super) fn wide(
    coded: Coded<'_>,
    bottoms: &mut Bottoms<u32>,
    out: &mut [u32],
    stride: usize,
) -> Result<usize, Fault> {
    if coded.most > WIDE_EXPONENT {
        return portable::decode(coded, bottoms, out, stride);
    }
    by_rows!(coded, bottoms, out, stride, below_wide, 2, two_quads)
}

/// Like [`four_quads`], for two quads, with samples as magnitude and sign (bit 31).
#[inline]
#[target_feature(enable = "avx2,bmi1,bmi2,lzcnt,popcnt")]
fn two_quads(
    row: &Row,
    quad: usize,
    flat: &Magnitudes,
    position: usize,
    [top, bottom]: [&mut [u32]; 2],
    bottoms: &mut [u32],
) -> usize {
    // 32 bits for each sample; one quad in each half.
    let of = |words: &[u16]| {
        let both = u32::from(words[quad]) | u32::from(words[quad + 1]) << 16;
        let both = _mm256_set1_epi32(both as i32);
        let halves = _mm256_blend_epi32::<0b1111_0000>(both, _mm256_srli_epi32::<16>(both));
        _mm256_and_si256(halves, _mm256_set1_epi32(0xFFFF))
    };
    let (pattern, exponent) = (of(&row.patterns), of(&row.exponents));
    let bits = _mm256_setr_epi32(1, 2, 4, 8, 1, 2, 4, 8);
    let has = |bits: __m256i| _mm256_cmpeq_epi32(_mm256_and_si256(pattern, bits), bits);
    let significant = has(bits);
    let known = has(_mm256_slli_epi32::<4>(bits));
    let known_one = has(_mm256_slli_epi32::<8>(bits));
    // A mask is -1.
    let length = _mm256_and_si256(_mm256_add_epi32(exponent, known), significant);
    let sum = _mm256_add_epi32(length, _mm256_slli_si256::<4>(length));
    let sum = _mm256_add_epi32(sum, _mm256_slli_si256::<8>(sum));
    let middle = position + _mm256_extract_epi32::<3>(sum) as usize;
    let end = middle + _mm256_extract_epi32::<7>(sum) as usize;
    let at =
        |position: usize| load_16_bytes(&flat.bytes[..], (position >> 3) & (MAGNITUDE_BYTES - 1));
    let bits = _mm256_set_m128i(at(middle), at(position));
    let before = |position: usize| _mm_set1_epi32((position & 7) as i32);
    let before = _mm256_set_m128i(before(middle), before(position));
    let offset = _mm256_add_epi32(_mm256_sub_epi32(sum, length), before);
    // Four bytes from the byte where each sample begins.
    let byte = _mm256_srli_epi32::<3>(offset);
    let index = _mm256_mullo_epi32(byte, _mm256_set1_epi32(0x0101_0101));
    let index = _mm256_add_epi32(index, _mm256_set1_epi32(0x0302_0100));
    let count = _mm256_and_si256(offset, _mm256_set1_epi32(7));
    let value = _mm256_srlv_epi32(_mm256_shuffle_epi8(bits, index), count);
    let one = _mm256_set1_epi32(1);
    let power = _mm256_sllv_epi32(one, length);
    let value = _mm256_and_si256(value, _mm256_sub_epi32(power, one));
    let value = _mm256_or_si256(value, _mm256_and_si256(power, known_one));
    // Bit 0 is the sign; the rest is the magnitude minus 1.
    let magnitude = _mm256_add_epi32(_mm256_srli_epi32::<1>(value), one);
    let sample = _mm256_or_si256(magnitude, _mm256_slli_epi32::<31>(value));
    let sample = _mm256_and_si256(sample, significant);
    let below = _mm256_and_si256(_mm256_or_si256(value, one), significant);
    let rows = _mm256_setr_epi32(0, 2, 4, 6, 1, 3, 5, 7);
    let in_rows = |samples: __m256i| _mm256_permutevar8x32_epi32(samples, rows);
    let below = _mm256_extracti128_si256::<1>(in_rows(below));
    let samples = in_rows(sample);
    store_4_values(top, 2 * quad, _mm256_castsi256_si128(samples));
    store_4_values(bottom, 2 * quad, _mm256_extracti128_si256::<1>(samples));
    store_4_values(bottoms, BEFORE + 2 * quad, below);
    end
}
