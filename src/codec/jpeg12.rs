//! JPEG with 12 bits per sample in the extended sequential process with Huffman codes (ITU-T T.81,
//! process 4: SOF1), which the decoder for the other JPEG processes does not support. One component
//! in one scan.

use super::plausible::room;
use super::samples::from_words;
use super::{FrameFormat, Samples, corrupt, jpeg_segment};
use crate::error::{Error, Result};

const DHT: u8 = 0xC4;
const SOS: u8 = 0xDA;
const DQT: u8 = 0xDB;
const DRI: u8 = 0xDD;
const SOF1: u8 = 0xC1;

/// Largest sample.
const MOST: f32 = 4095.0;

/// Decodes a JPEG image whose markers and frame header have been checked.
pub(super) fn decode(data: &[u8], format: &FrameFormat) -> Result<Samples> {
    let tables = Tables::read(data)?;
    let (width, height) = (format.columns as usize, format.rows as usize);
    let mut words = room::<u16>(format.pixels())?;
    words.resize(format.pixels(), 0);
    let cosines = cosines();
    let mut bits = Bits { rest: tables.scan, bits: 0, count: 0 };
    let (mut mean, mut left) = (0, tables.interval);
    let across = width.div_ceil(8);
    for index in 0..across * height.div_ceil(8) {
        if tables.interval > 0 && left == 0 {
            bits.restart()?;
            (mean, left) = (0, tables.interval);
        }
        left = left.saturating_sub(1);
        let block = samples(&tables.block(&mut bits, &mut mean)?, &cosines);
        let (x, y) = (index % across * 8, index / across * 8);
        for (row, values) in block.chunks_exact(8).enumerate().take(height - y) {
            let start = (y + row) * width + x;
            let end = start + 8.min(width - x);
            words[start..end].iter_mut().zip(values).for_each(|(word, value)| *word = *value);
        }
    }
    from_words(words.into_iter(), format)
}

fn truncated() -> Error {
    corrupt("JPEG image is truncated")
}

/// The tables and parameters of the scan.
struct Tables<'a> {
    /// Quantisation steps of the coefficients, in zigzag order.
    steps: [u16; 64],
    dc: Huffman,
    ac: Huffman,
    /// Blocks between restart markers; zero means no restart markers.
    interval: usize,
    /// The coded blocks and the bytes after them.
    scan: &'a [u8],
}

impl<'a> Tables<'a> {
    fn read(data: &'a [u8]) -> Result<Self> {
        let mut rest = data.get(2..).ok_or_else(truncated)?;
        let mut steps: [Option<[u16; 64]>; 4] = [None; 4];
        let mut codes: [[Option<Huffman>; 4]; 2] = Default::default();
        let (mut quantised_by, mut interval) = (0, 0);
        loop {
            let (&[prefix, marker], after) = rest.split_first_chunk().ok_or_else(truncated)?;
            if prefix != 0xFF || marker == 0xFF {
                rest = &rest[1..];
                continue;
            }
            let (body, next) = jpeg_segment::split(after).ok_or_else(truncated)?;
            match marker {
                DQT => read_steps(body, &mut steps)?,
                DHT => read_codes(body, &mut codes)?,
                DRI => {
                    let &[high, low] = body.first_chunk().ok_or_else(truncated)?;
                    interval = usize::from(u16::from_be_bytes([high, low]));
                }
                SOF1 => quantised_by = usize::from(*body.get(8).ok_or_else(truncated)? & 3),
                SOS => {
                    let &[components, _, tables, start, end, _] =
                        body.first_chunk::<6>().ok_or_else(truncated)?;
                    if (components, start, end) != (1, 0, 63) {
                        return Err(corrupt("JPEG image has a scan of another process"));
                    }
                    let missing = || corrupt("JPEG image lacks a table that its scan names");
                    let [mut dc, mut ac] = codes;
                    let take = |of: &mut [Option<Huffman>; 4], at: u8| {
                        of[usize::from(at & 3)].take().ok_or_else(missing)
                    };
                    return Ok(Self {
                        steps: steps[quantised_by].ok_or_else(missing)?,
                        dc: take(&mut dc, tables >> 4)?,
                        ac: take(&mut ac, tables)?,
                        interval,
                        scan: next,
                    });
                }
                _ => {}
            }
            rest = next;
        }
    }

    /// Decodes the coefficients of the next block (F.2.2), in row order. `mean` is the DC
    /// coefficient of the previous block and is updated.
    fn block(&self, bits: &mut Bits, mean: &mut i32) -> Result<[f32; 64]> {
        let mut block = [0.0; 64];
        let size = self.dc.next(bits)?;
        // Differences of 12-bit samples have at most 15 bits (table F.6).
        if size > 15 {
            return Err(corrupt("JPEG image has a coefficient beyond its precision"));
        }
        *mean = mean.wrapping_add(bits.signed(size.into())?);
        block[0] = *mean as f32 * f32::from(self.steps[0]);
        let mut at = 1;
        while at < 64 {
            let code = self.ac.next(bits)?;
            let (zeros, size) = (usize::from(code >> 4), code & 15);
            if size == 0 {
                if zeros != 15 {
                    break;
                }
                at += 16;
                continue;
            }
            at += zeros;
            let place =
                *ZIGZAG.get(at).ok_or_else(|| corrupt("JPEG image has a block too long"))?;
            block[place] = bits.signed(size.into())? as f32 * f32::from(self.steps[at]);
            at += 1;
        }
        Ok(block)
    }
}

/// Reads quantisation tables (B.2.4.1).
fn read_steps(mut body: &[u8], steps: &mut [Option<[u16; 64]>; 4]) -> Result<()> {
    while let Some((&head, rest)) = body.split_first() {
        let width = 1 + usize::from(head >> 4 & 1);
        let (values, rest) = rest.split_at_checked(64 * width).ok_or_else(truncated)?;
        let value = |i: usize| match width {
            1 => values[i].into(),
            _ => u16::from_be_bytes([values[2 * i], values[2 * i + 1]]),
        };
        steps[usize::from(head & 3)] = Some(std::array::from_fn(value));
        body = rest;
    }
    Ok(())
}

/// Reads Huffman tables (B.2.4.2).
fn read_codes(mut body: &[u8], codes: &mut [[Option<Huffman>; 4]; 2]) -> Result<()> {
    while let Some((&head, rest)) = body.split_first() {
        let (counts, rest) = rest.split_first_chunk::<16>().ok_or_else(truncated)?;
        let total = counts.iter().map(|n| usize::from(*n)).sum();
        let (values, rest) = rest.split_at_checked(total).ok_or_else(truncated)?;
        let class = usize::from(head >> 4 & 1);
        codes[class][usize::from(head & 3)] = Some(Huffman::new(counts, values)?);
        body = rest;
    }
    Ok(())
}

/// A Huffman code, stored by code length (annex C).
struct Huffman {
    /// For each length: the exclusive upper bound of its code words, and the offset that turns a
    /// word into an index of `values`.
    lengths: [(u32, i32); 16],
    values: Vec<u8>,
}

impl Huffman {
    fn new(counts: &[u8; 16], values: &[u8]) -> Result<Self> {
        let (mut word, mut index) = (0_u32, 0_i32);
        let mut lengths = [(0, 0); 16];
        for (length, &count) in lengths.iter_mut().zip(counts) {
            word <<= 1;
            *length = (word + u32::from(count), index - word as i32);
            word += u32::from(count);
            index += i32::from(count);
        }
        if word > 1 << 16 || values.len() > 256 {
            return Err(corrupt("JPEG image has a Huffman table with too many words"));
        }
        Ok(Self { lengths, values: values.to_vec() })
    }

    /// Decodes the next word and returns its value.
    fn next(&self, bits: &mut Bits) -> Result<u8> {
        let mut word = 0;
        for (behind, add) in self.lengths {
            word = word << 1 | bits.read(1)?;
            if word < behind
                && let Some(value) =
                    usize::try_from(word as i32 + add).ok().and_then(|at| self.values.get(at))
            {
                return Ok(*value);
            }
        }
        Err(corrupt("JPEG image has a code that its Huffman table does not define"))
    }
}

/// Bits of the scan: a zero byte follows each FF (F.1.2.3).
struct Bits<'a> {
    rest: &'a [u8],
    bits: u32,
    count: u32,
}

impl Bits<'_> {
    fn read(&mut self, count: u32) -> Result<u32> {
        while self.count < count {
            let (byte, rest) = match self.rest {
                [0xFF, 0, rest @ ..] => (0xFF, rest),
                [0xFF, ..] | [] => return Err(truncated()),
                [byte, rest @ ..] => (*byte, rest),
            };
            self.bits = self.bits << 8 | u32::from(byte);
            self.count += 8;
            self.rest = rest;
        }
        self.count -= count;
        Ok(self.bits >> self.count & ((1 << count) - 1))
    }

    /// Reads a number of `size` bits; half of the values are negative (F.2.2.1).
    fn signed(&mut self, size: u32) -> Result<i32> {
        if size == 0 {
            return Ok(0);
        }
        let value = self.read(size)? as i32;
        Ok(if value < 1 << (size - 1) { value - (1 << size) + 1 } else { value })
    }

    /// Skips a restart marker, which begins on a byte boundary.
    fn restart(&mut self) -> Result<()> {
        match self.rest {
            [0xFF, 0xD0..=0xD7, rest @ ..] => {
                *self = Bits { rest, bits: 0, count: 0 };
                Ok(())
            }
            _ => Err(corrupt("JPEG image lacks a restart marker")),
        }
    }
}

/// Position in the block of each coefficient, in coded order (figure A.6).
const ZIGZAG: [usize; 64] = [
    0, 1, 8, 16, 9, 2, 3, 10, 17, 24, 32, 25, 18, 11, 4, 5, 12, 19, 26, 33, 40, 48, 41, 34, 27, 20,
    13, 6, 7, 14, 21, 28, 35, 42, 49, 56, 57, 50, 43, 36, 29, 22, 15, 23, 30, 37, 44, 51, 58, 59,
    52, 45, 38, 31, 39, 46, 53, 60, 61, 54, 47, 55, 62, 63,
];

/// Weight of coefficient `u` in sample `x`: C(u) / 2 · cos((2x + 1) u π / 16) (A.3.3).
fn cosines() -> [[f32; 8]; 8] {
    let one = |x: usize, u: usize| {
        let scale = if u == 0 { 0.5_f64.sqrt() } else { 1.0 };
        let angle = (2 * x + 1) as f64 * u as f64 * std::f64::consts::PI / 16.0;
        (scale / 2.0 * angle.cos()) as f32
    };
    std::array::from_fn(|x| std::array::from_fn(|u| one(x, u)))
}

/// Computes the samples of a block: the inverse transform along rows, then along columns, and the
/// level shift.
fn samples(block: &[f32; 64], cosines: &[[f32; 8]; 8]) -> [u16; 64] {
    let along = |x: usize, get: &dyn Fn(usize) -> f32| -> f32 {
        (0..8).map(|u| cosines[x][u] * get(u)).sum()
    };
    let rows: [f32; 64] = std::array::from_fn(|i| along(i % 8, &|u| block[i / 8 * 8 + u]));
    std::array::from_fn(|i| {
        let value = along(i / 8, &|v| rows[v * 8 + i % 8]) + 2048.0;
        value.round().clamp(0.0, MOST) as u16
    })
}
