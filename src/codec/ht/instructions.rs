//! Detects the processor's instruction sets and dispatches the steps of the decoder to the matching
//! kernels.

#![allow(unsafe_code)]

use std::sync::LazyLock;

use super::fault::Fault;
use super::magnitudes::{self, Bottoms, Coded};
use super::segment::{self, Codes, Magnitudes};
use super::vlc::{self, Lane, Shape};
use super::wavelet::{self, Bounds, Number, Pixel};
#[cfg(target_arch = "x86_64")]
use super::{avx2, avx512};

/// An instruction set that the decoder has kernels for. A value exists only if the processor
/// supports it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Instructions(Set);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Set {
    Portable,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "x86_64")]
    Avx512,
}

impl std::fmt::Display for Instructions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self.0 {
            Set::Portable => "portable",
            #[cfg(target_arch = "x86_64")]
            Set::Avx2 => "AVX2",
            #[cfg(target_arch = "x86_64")]
            Set::Avx512 => "AVX-512",
        })
    }
}

/// Calls the implementation of a step for the instruction set.
macro_rules! dispatch {
    ($self:ident, $portable:expr, $avx2:expr) => {
        dispatch!($self, $portable, $avx2, $avx2)
    };
    ($self:ident, $portable:expr, $avx2:expr, $avx512:expr) => {
        match $self.0 {
            Set::Portable => $portable,
            // SAFETY: `available` creates this value only if the processor has AVX2, BMI1, BMI2,
            // LZCNT and POPCNT.
            #[cfg(target_arch = "x86_64")]
            Set::Avx2 => unsafe { $avx2 },
            // SAFETY: `available` creates this value only if the processor has all of these and
            // AVX-512 F, BW, VL and VBMI2.
            #[cfg(target_arch = "x86_64")]
            Set::Avx512 => unsafe { $avx512 },
        }
    };
}

impl Instructions {
    /// Returns the best set that this processor supports.
    pub fn best() -> Self {
        static BEST: LazyLock<Instructions> = LazyLock::new(|| {
            Instructions::available().pop().unwrap_or(Instructions(Set::Portable))
        });
        *BEST
    }

    /// Returns all sets that this processor supports: the portable one first, the best last.
    pub fn available() -> Vec<Self> {
        #[allow(unused_mut)]
        let mut sets = vec![Set::Portable];
        #[cfg(target_arch = "x86_64")]
        {
            let has_avx2 = is_x86_feature_detected!("avx2")
                && is_x86_feature_detected!("bmi1")
                && is_x86_feature_detected!("bmi2")
                && is_x86_feature_detected!("lzcnt")
                && is_x86_feature_detected!("popcnt");
            let has_avx512 = is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512vl")
                && is_x86_feature_detected!("avx512vbmi2");
            if has_avx2 {
                sets.push(Set::Avx2);
            }
            if has_avx2 && has_avx512 {
                sets.push(Set::Avx512);
            }
        }
        sets.into_iter().map(Self).collect()
    }

    /// [`segment::codewords`].
    #[inline(always)]
    pub(super) fn codewords(self, suffix: &[u8], codes: &mut Codes) -> Result<(), Fault> {
        dispatch!(
            self,
            segment::codewords(suffix, codes, segment::without),
            avx2::codewords(suffix, codes)
        )
    }

    /// [`segment::magnitudes`].
    #[inline(always)]
    pub(super) fn magnitudes(self, prefix: &[u8], flat: &mut Magnitudes) -> Result<(), Fault> {
        dispatch!(
            self,
            segment::magnitudes(prefix, flat, segment::without),
            avx2::magnitudes(prefix, flat)
        )
    }

    /// [`vlc::decode`].
    #[inline(always)]
    pub(super) fn quads<const N: usize>(
        self,
        lanes: &mut [Lane; N],
        suffixes: [&[u8]; N],
        shape: Shape,
    ) -> [usize; N] {
        dispatch!(self, vlc::decode(lanes, suffixes, shape), avx2::quads(lanes, suffixes, shape))
    }

    /// Decodes magnitudes in 16 bits, for exponents up to `most`; `None` if there is no kernel.
    #[inline(always)]
    pub(super) fn narrow(
        self,
        coded: Coded<'_>,
        bottoms: &mut Bottoms<u16>,
        out: &mut [i16],
        stride: usize,
    ) -> Option<Result<usize, Fault>> {
        dispatch!(
            self,
            None,
            Some(avx2::narrow(coded, bottoms, out, stride)),
            Some(avx512::narrow(coded, bottoms, out, stride))
        )
    }

    /// [`magnitudes::decode`].
    #[inline(always)]
    pub(super) fn wide(
        self,
        coded: Coded<'_>,
        bottoms: &mut Bottoms<u32>,
        out: &mut [u32],
        stride: usize,
    ) -> Result<usize, Fault> {
        dispatch!(
            self,
            magnitudes::decode(coded, bottoms, out, stride),
            avx2::wide(coded, bottoms, out, stride),
            avx512::wide(coded, bottoms, out, stride)
        )
    }

    /// [`wavelet::copy_wide`].
    #[inline(always)]
    pub(super) fn copy_wide<T: Number>(self, from: &[u32], to: &mut [T]) -> bool {
        dispatch!(self, wavelet::copy_wide(from, to), avx2::copy_wide(from, to))
    }

    /// [`wavelet::row`].
    #[inline(always)]
    pub(super) fn row<T: Number>(
        self,
        [low, high]: [&[T]; 2],
        scratch: &mut [T],
        out: &mut [T],
        bounds: &mut Bounds<T>,
    ) {
        dispatch!(
            self,
            wavelet::row(low, high, scratch, out, bounds),
            avx2::row(low, high, scratch, out, bounds)
        );
    }

    /// [`wavelet::even_row`].
    #[inline(always)]
    pub(super) fn even_row<T: Number>(
        self,
        low: &[T],
        above: &[T],
        below: &[T],
        out: &mut [T],
        bounds: &mut Bounds<T>,
    ) {
        dispatch!(
            self,
            wavelet::even_row(low, above, below, out, bounds),
            avx2::even_row(low, above, below, out, bounds)
        );
    }

    /// [`wavelet::odd_row`].
    #[inline(always)]
    pub(super) fn odd_row<T: Number>(
        self,
        high: &[T],
        above: &[T],
        below: &[T],
        out: &mut [T],
        bounds: &mut Bounds<T>,
    ) {
        dispatch!(
            self,
            wavelet::odd_row(high, above, below, out, bounds),
            avx2::odd_row(high, above, below, out, bounds)
        );
    }

    /// [`wavelet::finish`].
    #[inline(always)]
    pub(super) fn finish<T: Number, P: Pixel>(self, row: &[T], offset: u16, out: &mut Vec<P>) {
        dispatch!(self, wavelet::finish(row, offset, out), avx2::finish(row, offset, out));
    }
}
