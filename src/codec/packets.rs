//! The packets of a plain HTJ2K tile (ISO/IEC 15444-1 annex B.10, with the lengths of part 15): where the
//! bytes of each code-block are, and whether all of them are there.
//!
//! One layer and one precinct a resolution mean one packet a resolution, in any progression order.

/// What the packets of a plain tile depend on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Tile {
    /// Width and height in pixels; the origin is zero.
    pub size: (u32, u32),
    /// Decomposition levels; no resolution is empty.
    pub levels: u8,
    /// Exponents of the code-block's width and height.
    pub block: (u8, u8),
    /// Magnitude bit-planes of each subband (M_b, equation E-2): LL, then HL, LH and HH of each resolution.
    pub bit_planes: Vec<u8>,
}

/// A subband's code-blocks.
#[derive(Debug)]
pub(super) struct Band {
    /// Width and height in samples.
    pub size: (u32, u32),
    /// Code-blocks along each axis.
    pub columns: u32,
    /// Row by row; `None` where a code-block has no bytes, and is zero.
    pub blocks: Vec<Option<Block>>,
}

/// A code-block that a packet includes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Block {
    /// Where its bytes begin, in all packets'.
    pub start: usize,
    /// Bytes of the cleanup pass.
    pub cleanup: usize,
    /// Bytes of the significance propagation and magnitude refinement passes, which follow.
    pub refinement: usize,
    /// 1 to 3.
    pub passes: u32,
    /// Bit-planes above the lowest of the cleanup pass.
    pub skipped_bit_planes: u32,
}

impl Tile {
    /// Subbands of the lowest `resolutions` resolutions (all where there are fewer), of packets that begin
    /// with `data`; `None` where one is malformed or incomplete. Where all are asked for, `data` must hold
    /// nothing else.
    pub(super) fn bands(&self, data: &[u8], resolutions: u8) -> Option<Vec<Band>> {
        let mut at = 0;
        let mut bands = Vec::new();
        let last = self.levels.min(resolutions.checked_sub(1)?);
        for resolution in 0..=last {
            at = self.packet(resolution, data, at, &mut bands)?;
        }
        (last < self.levels || at == data.len()).then_some(bands)
    }

    /// Reads the packet that begins at a place; where the next one does.
    fn packet(
        &self,
        resolution: u8,
        data: &[u8],
        at: usize,
        bands: &mut Vec<Band>,
    ) -> Option<usize> {
        let mut bits =
            Bits { data: data.get(at..)?, position: 0, byte: 0, left: 0, stuffed: false };
        let is_full = bits.bit()? == 1;
        let first = bands.len();
        for size in self.sizes(resolution) {
            let columns = size.0.div_ceil(1 << self.block.0);
            let rows = size.1.div_ceil(1 << self.block.1);
            let blocks = if is_full {
                subband(&mut bits, (columns, rows))?
            } else {
                vec![None; columns as usize * rows as usize]
            };
            bands.push(Band { size, columns, blocks });
        }
        let mut at = at.checked_add(bits.length())?;
        for block in bands.iter_mut().skip(first).flat_map(|b| &mut b.blocks).flatten() {
            block.start = at;
            let cleanup = data.get(at..at.checked_add(block.cleanup)?)?;
            at = at.checked_add(block.cleanup)?.checked_add(block.refinement)?;
            if !block.is_sound(cleanup) {
                return None;
            }
        }
        (at <= data.len()).then_some(at)
    }

    /// Width and height of each subband of a resolution (annex B.5).
    fn sizes(&self, resolution: u8) -> Vec<(u32, u32)> {
        let low = |size: u32, level: u32| size.div_ceil(1 << level);
        let high =
            |size: u32, level: u32| size.saturating_sub(1 << (level - 1)).div_ceil(1 << level);
        let (width, height) = self.size;
        if resolution == 0 {
            let level = u32::from(self.levels);
            return vec![(low(width, level), low(height, level))];
        }
        let level = u32::from(self.levels - resolution) + 1;
        vec![
            (high(width, level), low(height, level)),
            (low(width, level), high(height, level)),
            (high(width, level), high(height, level)),
        ]
    }
}

impl Block {
    /// Whether the block decoder reads it in full (ISO/IEC 15444-15 section 7.1.1: the last two
    /// bytes of the cleanup pass say how long its suffix is).
    fn is_sound(&self, cleanup: &[u8]) -> bool {
        let last_plane = if self.passes > 1 { 28 } else { 29 };
        let &[.., low, high] = cleanup else { return false };
        let suffix = usize::from(high) << 4 | usize::from(low & 0x0F);
        self.skipped_bit_planes <= last_plane
            && (self.passes == 1 || self.refinement > 0)
            && (2..=self.cleanup.min(4079)).contains(&suffix)
    }
}

/// Reads the headers of a subband's code-blocks.
fn subband(bits: &mut Bits<'_>, (columns, rows): (u32, u32)) -> Option<Vec<Option<Block>>> {
    let mut inclusion = TagTree::new(columns, rows);
    let mut missing = TagTree::new(columns, rows);
    let mut blocks = Vec::with_capacity(columns as usize * rows as usize);
    for y in 0..rows {
        for x in 0..columns {
            // Of one layer, a block is in it (0) or in none (1 or more).
            let is_included = inclusion.value(bits, x, y, 1)? == 0;
            blocks.push(if is_included {
                let missing_bit_planes = missing.value(bits, x, y, u32::MAX)?;
                Some(block(bits, missing_bit_planes)?)
            } else {
                None
            });
        }
    }
    Some(blocks)
}

/// Number of passes and lengths of one code-block (annex B.10.6 and B.10.7).
fn block(bits: &mut Bits<'_>, missing_bit_planes: u32) -> Option<Block> {
    let coded = passes(bits)?;
    // Whole sets of three passes before the last are placeholders without bytes.
    let placeholders = (coded - 1) / 3;
    let passes = coded - 3 * placeholders;
    let mut length_bits = 3;
    while bits.bit()? == 1 {
        length_bits += 1;
    }
    let cleanup = bits.number(length_bits + (placeholders + 1).ilog2())?;
    let refinement = if passes > 1 { bits.number(length_bits + u32::from(passes > 2))? } else { 0 };
    Some(Block {
        start: 0,
        cleanup: cleanup as usize,
        refinement: refinement as usize,
        passes,
        skipped_bit_planes: missing_bit_planes.checked_add(placeholders)?,
    })
}

/// Number of coding passes (annex B.10.6, table B.4).
fn passes(bits: &mut Bits<'_>) -> Option<u32> {
    if bits.bit()? == 0 {
        return Some(1);
    }
    if bits.bit()? == 0 {
        return Some(2);
    }
    Some(match bits.number(2)? {
        3 => match bits.number(5)? {
            31 => 37 + bits.number(7)?,
            n => 6 + n,
        },
        n => 3 + n,
    })
}

/// A tag tree (annex B.10.2): a quad tree of minima.
struct TagTree {
    /// From the leaves to the root: width, and for each node its value so far and whether that is
    /// final.
    levels: Vec<(u32, Vec<(u32, bool)>)>,
}

impl TagTree {
    fn new(columns: u32, rows: u32) -> Self {
        let (mut w, mut h) = (columns, rows);
        let mut levels = vec![(w, vec![(0, false); (w * h) as usize])];
        while w * h > 1 {
            (w, h) = (w.div_ceil(2), h.div_ceil(2));
            levels.push((w, vec![(0, false); (w * h) as usize]));
        }
        Self { levels }
    }

    /// Value of the leaf, read as far as whether it is below `threshold`.
    fn value(&mut self, bits: &mut Bits<'_>, x: u32, y: u32, threshold: u32) -> Option<u32> {
        let mut least = 0;
        for (depth, (width, nodes)) in self.levels.iter_mut().enumerate().rev() {
            let index = (y >> depth) * *width + (x >> depth);
            let (value, is_final) = nodes.get_mut(index as usize)?;
            *value = least.max(*value);
            while !*is_final && *value < threshold {
                if bits.bit()? == 1 {
                    *is_final = true;
                } else {
                    *value += 1;
                }
            }
            least = *value;
        }
        Some(least)
    }
}

/// Bits of a packet header, with a zero bit stuffed after each byte of ones (annex B.10.1).
struct Bits<'a> {
    data: &'a [u8],
    position: usize,
    byte: u8,
    left: u32,
    stuffed: bool,
}

impl Bits<'_> {
    fn bit(&mut self) -> Option<u32> {
        if self.left == 0 {
            self.byte = *self.data.get(self.position)?;
            self.position += 1;
            self.left = if self.stuffed { 7 } else { 8 };
            self.stuffed = self.byte == 0xFF;
        }
        self.left -= 1;
        Some(u32::from(self.byte >> self.left & 1))
    }

    fn number(&mut self, bits: u32) -> Option<u32> {
        (bits <= 31).then_some(())?;
        (0..bits).try_fold(0, |n, _| Some(n << 1 | self.bit()?))
    }

    /// Bytes of the header, which ends on a byte, and after the stuffed bit of a last FF.
    fn length(&self) -> usize {
        self.position + usize::from(self.stuffed)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{FrameFormat, Samples, codestream, encode_htj2k};
    use super::*;

    /// The packets of an encoded frame of noise, and their tile.
    fn encoded(rows: u32, columns: u32) -> (Vec<u8>, Tile) {
        let format = FrameFormat {
            rows,
            columns,
            bits_allocated: 16,
            bits_stored: 16,
            signed: false,
            float: false,
        };
        let mut state = 1_u32;
        let noise = (0..format.pixels()).map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 20) as u16
        });
        let data = encode_htj2k(&Samples::U16(noise.collect()), &format).unwrap();
        let (range, tile) = codestream::check(&data, &format).unwrap().plain.unwrap();
        (data[range].to_vec(), tile)
    }

    #[test]
    fn whole_packets_are_complete_and_cut_ones_are_not() {
        for (rows, columns) in [(1, 1), (3, 70), (64, 65), (300, 200)] {
            let (packets, tile) = encoded(rows, columns);
            assert!(tile.bands(&packets, u8::MAX).is_some(), "{rows} × {columns}");
            for cut in (0..packets.len()).step_by(packets.len() / 200 + 1) {
                let bands = tile.bands(&packets[..cut], u8::MAX);
                assert!(bands.is_none(), "{rows} × {columns} at {cut}");
            }
            let mut longer = packets.clone();
            longer.push(0);
            assert!(tile.bands(&longer, u8::MAX).is_none());
            assert!(tile.bands(&longer, tile.levels).is_some() || tile.levels == 0);
        }
    }

    #[test]
    fn empty_packets_are_complete() {
        let tile = Tile { size: (64, 64), levels: 2, block: (6, 6), bit_planes: vec![12; 7] };
        let bands = tile.bands(&[0, 0, 0], u8::MAX).unwrap();
        assert_eq!(bands.len(), 7);
        assert!(bands.iter().all(|band| band.blocks == [None]));
        assert!(tile.bands(&[0, 0], u8::MAX).is_none());
        assert_eq!(tile.bands(&[0], 1).unwrap().len(), 1);
    }
}
