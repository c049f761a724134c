//! A stripe: one row of code-blocks, of one or several subbands.

use super::super::contributions::Block;
use super::super::packets::Band;
use super::block::{Coded, Coefficients, Workspace};
use super::fault::{Fault, OVERFLOW};
use super::instructions::Instructions;
use super::vlc::Shape;
use super::wavelet::Number;

/// The coded data of a stripe and how to decode it.
#[derive(Clone, Copy)]
pub(super) struct Source<'a> {
    /// Bytes of the packets.
    pub data: &'a [u8],
    pub instructions: Instructions,
}

/// A subband's part of a stripe: rows as wide as the subband.
pub(super) struct Part<'a, T> {
    pub band: &'a Band,
    /// Magnitude bit-planes of the subband.
    pub bit_planes: u8,
    pub rows: &'a mut [T],
}

/// A code-block to decode.
#[derive(Clone, Copy)]
struct Item<'a> {
    coded: Coded<'a>,
    shape: Shape,
    part: usize,
    x: usize,
}

impl Source<'_> {
    /// Decodes row `number` of the code-blocks of each part.
    ///
    /// # Errors
    /// [`OVERFLOW`] if a coefficient is beyond the limits of a [`Number`]; propagates the faults of
    /// the blocks.
    pub fn decode<T: Number, const N: usize>(
        &self,
        number: usize,
        parts: &mut [Part<'_, T>; N],
        workspace: &mut Workspace,
    ) -> Result<(), Fault> {
        let mut items = Vec::new();
        for (index, part) in parts.iter_mut().enumerate() {
            self.collect(number, index, part, &mut items)?;
        }
        // Puts blocks of the same shape next to each other; most of them are full-size.
        items.sort_by_key(|item| std::cmp::Reverse((item.shape.width, item.shape.height)));
        let mut rest = &items[..];
        while let Some(first) = rest.first() {
            let alike = rest.iter().take_while(|item| item.shape == first.shape).count();
            rest = match rest {
                [a, b, c, rest @ ..] if alike >= 3 => {
                    self.blocks(&[*a, *b, *c], parts, workspace)?;
                    rest
                }
                [a, b, rest @ ..] if alike >= 2 => {
                    self.blocks(&[*a, *b], parts, workspace)?;
                    rest
                }
                rest => {
                    self.blocks(&[*first], parts, workspace)?;
                    &rest[1..]
                }
            };
        }
        Ok(())
    }

    /// Collects the code-blocks of a part that have bytes and fills the area of the others with
    /// zeros.
    fn collect<'a, T: Number>(
        &'a self,
        number: usize,
        index: usize,
        part: &mut Part<'_, T>,
        items: &mut Vec<Item<'a>>,
    ) -> Result<(), Fault> {
        let (width, height) = (part.band.size.0 as usize, part.band.size.1 as usize);
        let columns = part.band.columns as usize;
        if columns == 0 {
            return Ok(());
        }
        let block_width = 1 << part.band.block.0;
        let block_height = 1 << part.band.block.1;
        let Some(blocks) = part.band.blocks.get(number * columns..(number + 1) * columns) else {
            // This subband has fewer rows of code-blocks than the other parts.
            return Ok(());
        };
        let rows = block_height.min(height - number * block_height);
        for (x, block) in (0..width).step_by(block_width).zip(blocks) {
            let shape = Shape { width: block_width.min(width - x), height: rows };
            if let Some(block) = block {
                let coded = self.coded(block, part.bit_planes)?;
                items.push(Item { coded, shape, part: index, x });
            } else {
                let rows = part.rows.chunks_mut(width).take(rows);
                rows.for_each(|row| row[x..x + shape.width].fill(T::default()));
            }
        }
        Ok(())
    }

    fn coded(&self, block: &Block, bit_planes: u8) -> Result<Coded<'_>, Fault> {
        const PLANES: Fault = Fault("a code-block has more bit-planes than its subband");
        let bytes = self.data.get(block.start..block.start + block.cleanup + block.refinement);
        let (cleanup, refinement) = bytes.ok_or(PLANES)?.split_at(block.cleanup);
        // Of the subband's bit-planes, those skipped and the one of the cleanup pass are above
        // `plane`.
        let cleaned = block.skipped_bit_planes + 1;
        let plane = u32::from(bit_planes).checked_sub(cleaned).ok_or(PLANES)?;
        if block.passes > 1 && plane == 0 {
            return Err(PLANES);
        }
        Ok(Coded { cleanup, refinement, passes: block.passes, plane, most: cleaned + 1 })
    }

    fn blocks<T: Number, const N: usize>(
        &self,
        items: &[Item<'_>; N],
        parts: &mut [Part<'_, T>],
        workspace: &mut Workspace,
    ) -> Result<(), Fault> {
        let coded = items.map(|item| item.coded);
        workspace.decode(self.instructions, coded, items[0].shape, |n, coefficients| {
            let Item { shape, part, x, .. } = items[n];
            let part = &mut parts[part];
            let rows = part.rows.chunks_mut(part.band.size.0 as usize).take(shape.height);
            let rows = rows.map(|row| &mut row[x..x + shape.width]);
            match coefficients {
                Coefficients::Narrow(from, stride) => {
                    rows.zip(from.chunks(stride)).for_each(|(to, from)| T::copy_narrow(from, to));
                    Ok(())
                }
                Coefficients::Wide(from, stride) => {
                    let fit = |to, from| self.instructions.copy_wide::<T>(from, to);
                    let do_fit = rows.zip(from.chunks(stride)).all(|(to, from)| fit(to, from));
                    if do_fit { Ok(()) } else { Err(OVERFLOW) }
                }
            }
        })
    }
}
