//! Decodes a frame: its code-blocks stripe by stripe, the wavelet level by level, then the pixels.
//!
//! Each stripe of a level is transformed as soon as it is decoded, so that coefficients stay in the
//! processor's cache and need no memory of their own.

use std::cell::RefCell;

use super::super::packets::{Band, Tile};
use super::block::Workspace;
use super::columns::{Columns, Rows};
use super::fault::{Fault, OVERFLOW, reserve};
use super::instructions::Instructions;
use super::stripe::{Part, Source};
use super::wavelet::{Bounds, Number, Pixel};

/// Format of the pixels.
#[derive(Debug, Clone, Copy)]
pub(in super::super) struct Pixels {
    /// Bits of a pixel in the codestream, 1 to 16.
    pub precision: u32,
    /// Pixels are two's complement.
    pub signed: bool,
    /// Levels not decoded: each halves both sides, rounded up.
    pub reduced: u8,
}

/// Largest buffer of a level, in samples, that a thread keeps after a frame.
const MOST_KEPT: usize = 1 << 20;

thread_local! {
    static BUFFERS: RefCell<Buffers> = RefCell::new(Buffers {
        blocks: Workspace::new(),
        lowest: Vec::new(),
        narrow: Levels::default(),
        wide: Levels::default(),
    });
}

struct Buffers {
    blocks: Workspace,
    /// The lowest subband.
    lowest: Vec<i32>,
    narrow: Levels<i16>,
    wide: Levels<i32>,
}

/// Buffers of the wavelet.
#[derive(Default)]
struct Levels<T> {
    /// The image at the previous level and at this one.
    low: Vec<T>,
    next: Vec<T>,
    /// A stripe of each subband: HL, LH, HH.
    stripes: [Vec<T>; 3],
    rows: Rows<T>,
}

impl<T> Levels<T> {
    fn is_large(&self) -> bool {
        let buffers = [&self.low, &self.next].into_iter().chain(&self.stripes);
        buffers.into_iter().any(|buffer| buffer.capacity() > MOST_KEPT)
    }
}

impl Buffers {
    /// Frees the buffers that a large frame has grown.
    fn trim(&mut self) {
        if self.narrow.is_large() {
            self.narrow = Levels::default();
        }
        if self.wide.is_large() {
            self.wide = Levels::default();
        }
        if self.lowest.capacity() > MOST_KEPT {
            self.lowest = Vec::new();
        }
    }
}

/// Decodes a frame whose subbands are `bands` (at least those of the requested resolutions), with
/// their bytes in `data`. Appends pixels to `out` row by row: the lowest 16 bits of each, which
/// hold the whole value.
pub(in super::super) fn decode<P: Pixel>(
    tile: &Tile,
    bands: &[Band],
    data: &[u8],
    pixels: Pixels,
    instructions: Instructions,
    out: &mut Vec<P>,
) -> Result<(), Fault> {
    let frame = Frame { tile, bands, source: Source { data, instructions }, pixels };
    BUFFERS.with_borrow_mut(|buffers| {
        let (blocks, lowest) = (&mut buffers.blocks, &mut buffers.lowest);
        let bias = frame.lowest(lowest, blocks)?;
        let start = out.len();
        let mut result = frame.image(lowest, bias, &mut buffers.narrow, blocks, out);
        if result == Err(OVERFLOW) {
            out.truncate(start);
            result = frame.image(lowest, bias, &mut buffers.wide, blocks, out);
        }
        buffers.trim();
        result
    })
}

struct Frame<'a> {
    tile: &'a Tile,
    bands: &'a [Band],
    source: Source<'a>,
    pixels: Pixels,
}

impl Frame<'_> {
    fn part<'a, T>(&'a self, number: usize, rows: &'a mut [T]) -> Result<Part<'a, T>, Fault> {
        const MISSING: Fault = Fault("the codestream lacks a subband");
        let band = self.bands.get(number).ok_or(MISSING)?;
        let bit_planes = *self.tile.bit_planes.get(number).ok_or(MISSING)?;
        Ok(Part { band, bit_planes, rows })
    }

    /// Decodes the lowest subband. Returns the middle of its range. A constant added to this
    /// subband is added to every pixel (the other subbands have no mean), so subtracting the middle
    /// keeps coefficients close to zero.
    fn lowest(&self, out: &mut Vec<i32>, workspace: &mut Workspace) -> Result<i32, Fault> {
        let Band { size: (width, height), block, .. } = *self.part::<i32>(0, &mut [])?.band;
        out.clear();
        reserve(out, width as usize * height as usize)?;
        out.resize(width as usize * height as usize, 0);
        for (number, rows) in out.chunks_mut((width as usize) << block.1).enumerate() {
            self.source.decode(number, &mut [self.part(0, rows)?], workspace)?;
        }
        let low = out.iter().min().copied().unwrap_or(0);
        let high = out.iter().max().copied().unwrap_or(0);
        Ok(low.midpoint(high))
    }

    /// Decodes the image in arithmetic of `T`.
    fn image<T: Number, P: Pixel>(
        &self,
        lowest: &[i32],
        bias: i32,
        levels: &mut Levels<T>,
        workspace: &mut Workspace,
        out: &mut Vec<P>,
    ) -> Result<(), Fault> {
        let Levels { low, next, stripes, rows } = levels;
        low.clear();
        reserve(low, lowest.len())?;
        for &value in lowest {
            low.push(T::within_limits(value - bias).ok_or(OVERFLOW)?);
        }
        let mut bounds = Bounds::new();
        let last = self.tile.levels.saturating_sub(self.pixels.reduced);
        if last == 0 {
            bounds.see_all(low);
            self.finish(low, bias, out);
        }
        for resolution in 1..=last {
            if resolution == last {
                let emit = |row: &[T]| self.finish(row, bias, out);
                bounds = self.level(resolution, low, stripes, rows, workspace, emit)?;
            } else {
                next.clear();
                let side = |side: u32| side.div_ceil(1 << (self.tile.levels - resolution)) as usize;
                reserve(next, side(self.tile.size.0) * side(self.tile.size.1))?;
                let emit = |row: &[T]| next.extend_from_slice(row);
                self.level(resolution, low, stripes, rows, workspace, emit)?;
                std::mem::swap(low, next);
            }
        }
        let (least, most) = self.pixels.range();
        let offset = bias + self.pixels.level_shift();
        let is_within = |v: T| (least..=most).contains(&v.wide().saturating_add(offset));
        if self.pixels.reduced == 0 && !(is_within(bounds.low) && is_within(bounds.high)) {
            return Err(Fault("a pixel is outside the codestream's bits"));
        }
        Ok(())
    }

    /// Appends a row of pixels, adding `bias` and the level shift (annex G.1) to the values.
    fn finish<T: Number, P: Pixel>(&self, row: &[T], bias: i32, out: &mut Vec<P>) {
        let offset = bias + self.pixels.level_shift();
        if self.pixels.reduced == 0 {
            self.source.instructions.finish(row, offset as u16, out);
        } else {
            // A reduced resolution may overshoot.
            let (least, most) = self.pixels.range();
            let pixel = |v: i32| P::from_bits(v.saturating_add(offset).clamp(least, most) as u16);
            out.extend(row.iter().map(|v| pixel(v.wide())));
        }
    }

    /// Reconstructs one level of the wavelet from the resolution below and the subbands of this
    /// one, and passes its rows in order to `emit`. Returns the bounds of their values.
    fn level<T: Number>(
        &self,
        resolution: u8,
        low: &[T],
        stripes: &mut [Vec<T>; 3],
        rows: &mut Rows<T>,
        workspace: &mut Workspace,
        mut emit: impl FnMut(&[T]),
    ) -> Result<Bounds<T>, Fault> {
        let first = 3 * usize::from(resolution) - 2;
        let [hl, lh] = [0, 1].map(|n| self.part::<T>(first + n, &mut []).map(|part| part.band));
        let Band { size: (high_width, low_height), block, .. } = *hl?;
        let (low_width, high_height) = lh?.size;
        let (high_width, low_height) = (high_width as usize, low_height as usize);
        let (low_width, high_height) = (low_width as usize, high_height as usize);
        let height = low_height.min(1 << block.1);
        for (stripe, width) in stripes.iter_mut().zip([high_width, low_width, high_width]) {
            if stripe.len() < width * height {
                reserve(stripe, width * height)?;
                stripe.resize(width * height, T::default());
            }
        }
        let [hl, lh, hh] = stripes;
        let mut columns = Columns::new(rows, low_width + high_width, self.source.instructions);
        for (number, top) in (0..low_height).step_by(height).enumerate() {
            let parts = [(0, &mut *hl), (1, &mut *lh), (2, &mut *hh)];
            let [a, b, c] = parts.map(|(n, rows)| self.part(first + n, rows));
            self.source.decode(number, &mut [a?, b?, c?], workspace)?;
            for (row, y) in (top..low_height.min(top + height)).enumerate() {
                let at = |n: usize, width: usize| n * width..(n + 1) * width;
                let (l, h) = (at(row, low_width), at(row, high_width));
                let high = (y < high_height).then(|| [&lh[l], &hh[h.clone()]]);
                columns.take([&low[at(y, low_width)], &hl[h]], high, &mut emit);
            }
            if !(columns.inner.hold() && columns.outer.hold()) {
                return Err(OVERFLOW);
            }
        }
        columns.end(&mut emit);
        if columns.outer.hold() { Ok(columns.outer) } else { Err(OVERFLOW) }
    }
}

impl Pixels {
    /// Smallest and largest possible pixel.
    fn range(&self) -> (i32, i32) {
        let half = 1 << (self.precision - 1);
        if self.signed { (-half, half - 1) } else { (0, 2 * half - 1) }
    }

    /// The offset added to unsigned values (annex G.1.2).
    fn level_shift(&self) -> i32 {
        if self.signed { 0 } else { 1 << (self.precision - 1) }
    }
}
