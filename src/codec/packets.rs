//! The packets of a plain HTJ2K tile (ISO/IEC 15444-1 annex B.10, with the lengths of part 15): where the
//! bytes of each code-block are, and whether all of them are there.
//!
//! One layer and one component mean one packet a precinct.

/// What the packets of a plain tile depend on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Tile {
    /// Width and height in pixels; the origin is zero.
    pub size: (u32, u32),
    /// Decomposition levels.
    pub levels: u8,
    /// Exponents of the code-block's width and height, where no precinct is smaller.
    pub block: (u8, u8),
    /// Exponents of the precincts' width and height, of each resolution.
    pub precincts: Vec<(u8, u8)>,
    /// Packets come by position first, and by resolution where that is the same (PCRL and CPRL).
    pub by_position: bool,
    /// Packets may begin with an SOP marker segment (A.8.1).
    pub may_have_sop: bool,
    /// Packet headers end with an EPH marker (A.8.2).
    pub has_eph: bool,
    /// Magnitude bit-planes of each subband (M_b, equation E-2): LL, then HL, LH and HH of each resolution.
    pub bit_planes: Vec<u8>,
}

/// A subband's code-blocks.
#[derive(Debug)]
pub(super) struct Band {
    /// Width and height in samples.
    pub size: (u32, u32),
    /// Exponents of its code-blocks' width and height.
    pub block: (u8, u8),
    /// Code-blocks along the width.
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

/// A packet: the code-blocks of one precinct.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Packet {
    /// Of the precinct on the reference grid, from the top and from the left, where packets come by position.
    position: (u64, u64),
    resolution: u8,
    /// The precinct among those of its resolution.
    row: u32,
    column: u32,
}

const SOP: [u8; 4] = [0xFF, 0x91, 0, 4];
const EPH: [u8; 2] = [0xFF, 0x92];

impl Tile {
    /// A tile of one precinct a resolution, without markers in its packets.
    pub(super) fn simple(
        size: (u32, u32),
        levels: u8,
        block: (u8, u8),
        bit_planes: Vec<u8>,
    ) -> Self {
        Self {
            size,
            levels,
            block,
            precincts: vec![(15, 15); usize::from(levels) + 1],
            by_position: false,
            may_have_sop: false,
            has_eph: false,
            bit_planes,
        }
    }

    /// Subbands of the lowest `resolutions` resolutions (all where there are fewer), of packets that begin
    /// with `data`; `None` where one is malformed or incomplete. Where all are asked for, `data` must hold
    /// nothing else.
    pub(super) fn bands(&self, data: &[u8], resolutions: u8) -> Option<Vec<Band>> {
        let last = self.levels.min(resolutions.checked_sub(1)?);
        let mut bands: Vec<Band> =
            (0..=self.levels).flat_map(|resolution| self.empty_bands(resolution)).collect();
        let mut at = 0;
        let mut needed = 0;
        for packet in self.packets()? {
            // Where packets come by resolution, those of the others are not needed, nor read.
            if !self.by_position && packet.resolution > last {
                break;
            }
            at = self.packet(packet, data, at, &mut bands)?;
            if packet.resolution <= last {
                needed = at;
            }
        }
        let is_all = last == self.levels;
        bands.truncate(3 * usize::from(last) + 1);
        (needed <= data.len() && (!is_all || at == data.len())).then_some(bands)
    }

    /// All packets in their order (annex B.12). Precincts of a resolution follow each other from the top left.
    fn packets(&self) -> Option<Vec<Packet>> {
        let mut packets = Vec::new();
        for resolution in 0..=self.levels {
            let level = u32::from(self.levels - resolution);
            let size = self.size_at(level);
            let (x, y) = *self.precincts.get(usize::from(resolution))?;
            for row in 0..size.1.div_ceil(1 << y) {
                for column in 0..size.0.div_ceil(1 << x) {
                    let at = |n: u32, exponent: u8| u64::from(n) << (u32::from(exponent) + level);
                    let position =
                        if self.by_position { (at(row, y), at(column, x)) } else { (0, 0) };
                    packets.push(Packet { position, resolution, row, column });
                }
            }
        }
        packets.sort_unstable();
        Some(packets)
    }

    /// Reads the packet that begins at a place; where the next one does.
    fn packet(
        &self,
        packet: Packet,
        data: &[u8],
        mut at: usize,
        bands: &mut [Band],
    ) -> Option<usize> {
        if self.may_have_sop && data.get(at..)?.starts_with(&SOP) {
            at = at.checked_add(6)?;
        }
        let mut bits =
            Bits { data: data.get(at..)?, position: 0, byte: 0, left: 0, stuffed: false };
        let is_full = bits.bit()? == 1;
        let first = (3 * usize::from(packet.resolution)).saturating_sub(2);
        let count = if packet.resolution == 0 { 1 } else { 3 };
        let bands = bands.get_mut(first..first + count)?;
        let precinct = *self.precincts.get(usize::from(packet.resolution))?;
        let mut read = Vec::new();
        if is_full {
            for (number, band) in bands.iter().enumerate() {
                let blocks = Blocks::of(band, packet, precinct);
                subband(&mut bits, number, blocks, &mut read)?;
            }
        }
        at = at.checked_add(bits.length())?;
        if self.has_eph {
            data.get(at..)?.starts_with(&EPH).then_some(())?;
            at += EPH.len();
        }
        for (number, index, mut block) in read {
            block.start = at;
            let cleanup = data.get(at..at.checked_add(block.cleanup)?)?;
            at = at.checked_add(block.cleanup)?.checked_add(block.refinement)?;
            if !block.is_sound(cleanup) {
                return None;
            }
            *bands.get_mut(number)?.blocks.get_mut(index)? = Some(block);
        }
        (at <= data.len()).then_some(at)
    }

    /// The subbands of a resolution, without code-blocks' bytes.
    fn empty_bands(&self, resolution: u8) -> Vec<Band> {
        let (x, y) = self.precincts.get(usize::from(resolution)).copied().unwrap_or((15, 15));
        // A precinct's side in a subband is half of that in the resolution (annex B.7).
        let halved = u8::from(resolution > 0);
        let cut = |block: u8, precinct: u8| block.min(precinct.saturating_sub(halved));
        let block = (cut(self.block.0, x), cut(self.block.1, y));
        let band = |size: (u32, u32)| {
            let columns = size.0.div_ceil(1 << block.0);
            let rows = size.1.div_ceil(1 << block.1);
            let blocks = vec![None; columns as usize * rows as usize];
            Band { size, block, columns, blocks }
        };
        self.sizes(resolution).into_iter().map(band).collect()
    }

    /// Width and height after so many levels.
    fn size_at(&self, level: u32) -> (u32, u32) {
        let side = |size: u32| (u64::from(size).div_ceil(1 << level)) as u32;
        (side(self.size.0), side(self.size.1))
    }

    /// Width and height of each subband of a resolution (annex B.5).
    fn sizes(&self, resolution: u8) -> Vec<(u32, u32)> {
        let level = u32::from(self.levels - resolution);
        if resolution == 0 {
            return vec![self.size_at(level)];
        }
        let (whole, low) = (self.size_at(level), self.size_at(level + 1));
        let high = (whole.0 - low.0, whole.1 - low.1);
        vec![(high.0, low.1), (low.0, high.1), high]
    }
}

/// Code-blocks of one precinct in a subband.
#[derive(Debug, Clone, Copy)]
struct Blocks {
    /// The first along each axis, and how many there are.
    first: (u32, u32),
    count: (u32, u32),
    /// Code-blocks of the subband along the width.
    columns: u32,
}

impl Blocks {
    fn of(band: &Band, packet: Packet, precinct: (u8, u8)) -> Self {
        let halved = u8::from(packet.resolution > 0);
        let along = |n: u32, size: u32, precinct: u8, block: u8| {
            // The precinct from sample to sample, in blocks.
            let side = u32::from(precinct.saturating_sub(halved));
            let start = (u64::from(n) << side).min(size.into());
            let end = (u64::from(n + 1) << side).min(size.into());
            let (first, last) = (start >> block, end.div_ceil(1 << block));
            (first as u32, last.saturating_sub(first) as u32)
        };
        let x = along(packet.column, band.size.0, precinct.0, band.block.0);
        let y = along(packet.row, band.size.1, precinct.1, band.block.1);
        // Without samples along one axis there is no block at all.
        let is_empty = x.1 == 0 || y.1 == 0;
        let count = if is_empty { (0, 0) } else { (x.1, y.1) };
        Self { first: (x.0, y.0), count, columns: band.columns }
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

/// Reads the headers of a subband's code-blocks in a precinct: of those included, the subband's number and the
/// block's among those of the subband go with it.
fn subband(
    bits: &mut Bits<'_>,
    number: usize,
    blocks: Blocks,
    read: &mut Vec<(usize, usize, Block)>,
) -> Option<()> {
    let (columns, rows) = blocks.count;
    let mut inclusion = TagTree::new(columns, rows);
    let mut missing = TagTree::new(columns, rows);
    for y in 0..rows {
        for x in 0..columns {
            // Of one layer, a block is in it (0) or in none (1 or more).
            if inclusion.value(bits, x, y, 1)? == 0 {
                let missing_bit_planes = missing.value(bits, x, y, u32::MAX)?;
                let row = (blocks.first.1 + y) as usize * blocks.columns as usize;
                let index = row + (blocks.first.0 + x) as usize;
                read.push((number, index, block(bits, missing_bit_planes)?));
            }
        }
    }
    Some(())
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
        let plain = codestream::check(&data, &format).unwrap().plain.unwrap();
        (plain.packets(&data).to_vec(), plain.tile)
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
        let tile = Tile::simple((64, 64), 2, (6, 6), vec![12; 7]);
        let bands = tile.bands(&[0, 0, 0], u8::MAX).unwrap();
        assert_eq!(bands.len(), 7);
        assert!(bands.iter().all(|band| band.blocks == [None]));
        assert!(tile.bands(&[0, 0], u8::MAX).is_none());
        assert_eq!(tile.bands(&[0], 1).unwrap().len(), 1);
    }
}
