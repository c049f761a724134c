//! Vector loads from slices and stores to slices: the only code in which a kernel touches memory.

#![allow(unsafe_code)]

use std::arch::x86_64::{
    __m128i, __m256i, __m512i, _mm_loadl_epi64, _mm_loadu_si128, _mm_storeu_si128,
    _mm256_loadu_si256, _mm256_storeu_si256, _mm512_loadu_si512,
};

macro_rules! load {
    ($name:ident, $feature:literal, $t:ty, $count:literal, $vector:ty, $load:expr) => {
        /// Loads the values from index `at`; panics if the slice has fewer.
        #[inline]
        #[target_feature(enable = $feature)]
        pub(super) fn $name(from: &[$t], at: usize) -> $vector {
            let from: &[$t] = &from[at..at + $count];
            // SAFETY: the slice has as many bytes as the load reads; the load needs no alignment.
            unsafe { $load(from.as_ptr().cast()) }
        }
    };
}

macro_rules! store {
    ($name:ident, $feature:literal, $t:ty, $count:literal, $vector:ty, $store:expr) => {
        /// Stores the values from index `at`; panics if the slice has room for fewer.
        #[inline]
        #[target_feature(enable = $feature)]
        pub(super) fn $name(to: &mut [$t], at: usize, values: $vector) {
            let to: &mut [$t] = &mut to[at..at + $count];
            // SAFETY: the slice has as many bytes as the store writes; the store needs no
            // alignment.
            unsafe { $store(to.as_mut_ptr().cast(), values) }
        }
    };
}

load!(load_16_bytes, "avx2", u8, 16, __m128i, _mm_loadu_si128);
load!(load_64_bytes, "avx512f", u8, 64, __m512i, _mm512_loadu_si512);
load!(load_4_words, "avx2", u16, 4, __m128i, _mm_loadl_epi64);
load!(load_8_words, "avx2", u16, 8, __m128i, _mm_loadu_si128);
load!(load_8_pairs, "avx2", u32, 8, __m256i, _mm256_loadu_si256);
load!(load_16_words, "avx2", u16, 16, __m256i, _mm256_loadu_si256);
store!(store_4_values, "avx2", u32, 4, __m128i, _mm_storeu_si128);
store!(store_8_values, "avx2", u32, 8, __m256i, _mm256_storeu_si256);
store!(store_8_words, "avx2", u16, 8, __m128i, _mm_storeu_si128);
store!(store_16_words, "avx2", u16, 16, __m256i, _mm256_storeu_si256);
store!(store_8_samples, "avx2", i16, 8, __m128i, _mm_storeu_si128);
store!(store_16_samples, "avx2", i16, 16, __m256i, _mm256_storeu_si256);
