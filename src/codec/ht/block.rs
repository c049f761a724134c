//! Decodes one code-block, or several of the same shape, from the bytes of their passes to
//! coefficients.

use super::fault::Fault;
use super::instructions::Instructions;
use super::magnitudes::{self, Bottoms};
use super::refine::refine;
use super::segment::{self, Magnitudes};
use super::vlc::{Lane, Shape};

/// Most blocks decoded in step: with four, their state no longer fits into registers.
const TOGETHER: usize = 3;

/// Multiple that the rows of a block are rounded up to: the samples a kernel writes at once.
pub(super) const WIDTH: usize = 32;
/// Samples of a block with padded rows: at most 1024 rows of one sample.
const MOST_SAMPLES: usize = 1024 * WIDTH;

/// A code-block as coded.
#[derive(Debug, Clone, Copy)]
pub(super) struct Coded<'a> {
    /// Bytes of the cleanup pass.
    pub cleanup: &'a [u8],
    /// Bytes of the passes after it, if any.
    pub refinement: &'a [u8],
    /// 1 to 3: the cleanup pass, significance propagation, magnitude refinement.
    pub passes: u32,
    /// Bit-planes below the one that the cleanup pass codes.
    pub plane: u32,
    /// The largest exponent a sample may have: the bit-planes of the cleanup pass, plus one.
    pub most: u32,
}

/// Reusable buffers of one thread.
pub(super) struct Workspace {
    lanes: [Lane; TOGETHER],
    magnitudes: Magnitudes,
    wide_bottoms: Bottoms<u32>,
    narrow_bottoms: Bottoms<u16>,
    wide: Vec<u32>,
    narrow: Vec<i16>,
    /// Blocks that are still decoded in 32 bits because a recent one did not fit into 16.
    untried: u32,
}

/// How many blocks skip the 16-bit attempt after one that did not fit.
const UNTRIED: u32 = 8;

/// A block's coefficients and the stride of their rows.
#[derive(Clone, Copy)]
pub(super) enum Coefficients<'a> {
    /// Magnitudes of at most 2^13, for exponents up to [`NARROW_EXPONENT`].
    Narrow(&'a [i16], usize),
    /// Magnitude and sign (bit 31).
    Wide(&'a [u32], usize),
}

/// Largest exponent of a block that can be decoded in 16 bits.
pub(super) const NARROW_EXPONENT: u32 = 14;

impl Workspace {
    pub fn new() -> Self {
        Self {
            lanes: std::array::from_fn(|_| Lane::new()),
            magnitudes: Magnitudes::new(),
            wide_bottoms: Bottoms::new(),
            narrow_bottoms: Bottoms::new(),
            wide: Vec::new(),
            narrow: vec![0; MOST_SAMPLES],
            untried: 0,
        }
    }

    /// Decodes blocks of one shape and passes each to `take` with its index.
    #[inline(always)]
    pub fn decode<const N: usize>(
        &mut self,
        instructions: Instructions,
        blocks: [Coded<'_>; N],
        shape: Shape,
        mut take: impl FnMut(usize, Coefficients<'_>) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        let mut starts = [0; N];
        for ((start, block), lane) in starts.iter_mut().zip(&blocks).zip(&mut self.lanes) {
            *start = segment::suffix_start(block.cleanup)?;
            instructions.codewords(&block.cleanup[*start..], &mut lane.codes)?;
        }
        let suffixes = std::array::from_fn(|n| &blocks[n].cleanup[starts[n]..]);
        const { assert!(N <= TOGETHER) };
        let Some(lanes) = self.lanes.first_chunk_mut::<N>() else { return Ok(()) };
        let taken = instructions.quads(lanes, suffixes, shape);
        for (n, block) in blocks.iter().enumerate() {
            if taken[n] > self.lanes[n].codes.bits {
                return Err(Fault("a code-block has fewer codewords than quads"));
            }
            self.check_sides(n, shape)?;
            instructions.magnitudes(&block.cleanup[..starts[n]], &mut self.magnitudes)?;
            take(n, self.coefficients(instructions, n, block, shape)?)?;
        }
        Ok(())
    }

    /// Rejects significant samples outside a block with an odd width or height.
    fn check_sides(&self, n: usize, shape: Shape) -> Result<(), Fault> {
        let quads = &self.lanes[n].quads;
        let (columns, rows) = (shape.quads(), shape.rows());
        let mut outside = false;
        if shape.width & 1 == 1 {
            let last = |row| quads.pattern(row, columns - 1, &shape);
            outside |= (0..rows).any(|row| last(row) & 0b1100 != 0);
        }
        if shape.height & 1 == 1 {
            let last = |quad| quads.pattern(rows - 1, quad, &shape);
            outside |= (0..columns).any(|quad| last(quad) & 0b1010 != 0);
        }
        if outside { Err(Fault("a code-block has samples outside it")) } else { Ok(()) }
    }

    fn coefficients(
        &mut self,
        instructions: Instructions,
        n: usize,
        block: &Coded<'_>,
        shape: Shape,
    ) -> Result<Coefficients<'_>, Fault> {
        let stride = shape.width.next_multiple_of(WIDTH);
        let (quads, flat) = (&self.lanes[n].quads, &self.magnitudes);
        let coded = magnitudes::Coded { quads, shape, flat, most: block.most };
        // An encoder may omit a final byte of all ones.
        let enough = |taken: usize| if taken > flat.bits + 8 { Err(MISSING) } else { Ok(()) };
        self.untried = self.untried.saturating_sub(1);
        let is_narrow = block.most <= NARROW_EXPONENT || self.untried == 0;
        if block.plane == 0 && block.passes == 1 && is_narrow {
            let (bottoms, out) = (&mut self.narrow_bottoms, &mut self.narrow[..]);
            let coded = magnitudes::Coded { most: block.most.min(NARROW_EXPONENT), ..coded };
            match instructions.narrow(coded, bottoms, out, stride) {
                Some(Ok(taken)) => {
                    enough(taken)?;
                    return Ok(Coefficients::Narrow(&self.narrow, stride));
                }
                Some(Err(fault)) if block.most <= NARROW_EXPONENT => return Err(fault),
                _ => self.untried = UNTRIED,
            }
        }
        self.wide.resize(MOST_SAMPLES, 0);
        let (bottoms, out) = (&mut self.wide_bottoms, &mut self.wide[..]);
        enough(instructions.wide(coded, bottoms, out, stride)?)?;
        if block.plane > 0 {
            scale(out, shape, stride, block.plane);
        }
        if block.passes > 1 {
            refine(out, shape, stride, block.plane, block.refinement, block.passes > 2)?;
        }
        Ok(Coefficients::Wide(&self.wide, stride))
    }
}

const MISSING: Fault = Fault("a code-block has fewer magnitudes than samples");

/// Shifts magnitudes up to their bit-plane and sets the bit below, to reconstruct at the middle of
/// the interval.
fn scale(samples: &mut [u32], shape: Shape, stride: usize, plane: u32) {
    for row in samples.chunks_mut(stride).take(shape.height) {
        for sample in row.iter_mut().filter(|s| **s != 0) {
            let magnitude = (*sample & 0x7FFF_FFFF) << plane | 1 << (plane - 1);
            *sample = *sample & 0x8000_0000 | magnitude;
        }
    }
}
