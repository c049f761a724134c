//! Which instructions a processor has, and the steps of the decoder made for each.

use std::sync::LazyLock;

use super::Fault;
use super::magnitudes::{self, Bottoms};
use super::segment::{self, Codes, Magnitudes};
use super::vlc::{self, Lane, Quads, Shape};
use super::wavelet::{self, Bounds, Number, Pixel};

/// Sets of instructions that the decoder has kernels for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Instructions {
    /// Those that every processor has.
    Portable,
}

impl Instructions {
    /// The best that this processor has.
    pub fn best() -> Self {
        static BEST: LazyLock<Instructions> = LazyLock::new(|| Instructions::Portable);
        *BEST
    }

    /// All that this processor has, the portable ones first.
    pub fn available() -> Vec<Self> {
        vec![Self::Portable]
    }

    #[inline(always)]
    pub(super) fn codewords(self, suffix: &[u8], codes: &mut Codes) -> Result<(), Fault> {
        segment::codewords(suffix, codes)
    }

    #[inline(always)]
    pub(super) fn magnitudes(self, prefix: &[u8], flat: &mut Magnitudes) -> Result<(), Fault> {
        segment::magnitudes(prefix, flat)
    }

    #[inline(always)]
    pub(super) fn quads<const N: usize>(
        self,
        lanes: &mut [Lane; N],
        suffixes: [&[u8]; N],
        shape: Shape,
    ) -> [usize; N] {
        vlc::decode(lanes, suffixes, shape)
    }

    #[inline(always)]
    #[allow(clippy::too_many_arguments)]
    pub(super) fn narrow(
        self,
        _quads: &Quads,
        _shape: Shape,
        _flat: &Magnitudes,
        _most: u32,
        _bottoms: &mut Bottoms<u16>,
        _out: &mut [i16],
        _stride: usize,
    ) -> Option<Result<usize, Fault>> {
        None
    }

    #[inline(always)]
    #[allow(clippy::too_many_arguments)]
    pub(super) fn wide(
        self,
        quads: &Quads,
        shape: Shape,
        flat: &Magnitudes,
        most: u32,
        bottoms: &mut Bottoms<u32>,
        out: &mut [u32],
        stride: usize,
    ) -> Result<usize, Fault> {
        magnitudes::decode(quads, shape, flat, most, bottoms, out, stride)
    }

    #[inline(always)]
    pub(super) fn row<T: Number>(
        self,
        [low, high]: [&[T]; 2],
        scratch: &mut [T],
        out: &mut [T],
        bounds: &mut Bounds<T>,
    ) {
        wavelet::row(low, high, scratch, out, bounds);
    }

    #[inline(always)]
    pub(super) fn even_row<T: Number>(
        self,
        low: &[T],
        above: &[T],
        below: &[T],
        out: &mut [T],
        bounds: &mut Bounds<T>,
    ) {
        wavelet::even_row(low, above, below, out, bounds);
    }

    #[inline(always)]
    pub(super) fn odd_row<T: Number>(
        self,
        high: &[T],
        above: &[T],
        below: &[T],
        out: &mut [T],
        bounds: &mut Bounds<T>,
    ) {
        wavelet::odd_row(high, above, below, out, bounds);
    }

    /// Appends the lowest 16 bits of values and `offset`.
    #[inline(always)]
    pub(super) fn finish<T: Number, P: Pixel>(self, row: &[T], offset: u16, out: &mut Vec<P>) {
        wavelet::finish(row, offset, out);
    }
}
