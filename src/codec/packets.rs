//! The packets of a plain HTJ2K tile (ISO/IEC 15444-1 annexes B.10 and B.12): locates the bytes of
//! each code-block and checks that they are complete.

use std::borrow::Cow;
use std::collections::HashMap;

use super::contributions::{Block, Growing};
use super::packet_bits::{Bits, TagTree};

/// The parameters that determine the packets of a plain tile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Tile {
    /// Width and height in pixels; the origin is zero.
    pub size: (u32, u32),
    /// Decomposition levels.
    pub levels: u8,
    /// Exponents of the code-blocks' width and height, before precincts limit them.
    pub block: (u8, u8),
    /// Exponents of the precincts' width and height, for each resolution.
    pub precincts: Vec<(u8, u8)>,
    /// Quality layers.
    pub layers: u16,
    /// Order of packets (SGcod, table A.16): LRCP, RLCP, RPCL, PCRL or CPRL.
    pub progression: u8,
    /// Packets may begin with an SOP marker segment (A.8.1).
    pub may_have_sop: bool,
    /// Packet headers end with an EPH marker (A.8.2).
    pub has_eph: bool,
    /// Magnitude bit-planes of each subband (M_b, equation E-2): LL, then HL, LH and HH of each
    /// resolution.
    pub bit_planes: Vec<u8>,
}

/// The code-blocks of a subband.
#[derive(Debug)]
pub(super) struct Band {
    /// Width and height in samples.
    pub size: (u32, u32),
    /// Exponents of its code-blocks' width and height.
    pub block: (u8, u8),
    /// Code-blocks along the width.
    pub columns: u32,
    /// Row by row; `None` if a code-block has no bytes and is zero.
    pub blocks: Vec<Option<Block>>,
}

/// A packet: one layer of the code-blocks of one precinct.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Packet {
    /// Sort key: the position in the progression.
    key: [u64; 4],
    pub precinct: Precinct,
    layer: u16,
}

/// A precinct, identified by its position within its resolution.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Precinct {
    pub resolution: u8,
    row: u32,
    column: u32,
}

/// State while packets are read.
struct Reading {
    /// By subband and block.
    blocks: Vec<Vec<Option<Growing>>>,
    /// Two tag trees for each subband of a precinct: the first layer that includes a block, and its
    /// missing bit-planes.
    trees: HashMap<Precinct, Vec<[TagTree; 2]>>,
}

const RLCP: u8 = 1;
const RPCL: u8 = 2;
const PCRL: u8 = 3;
const CPRL: u8 = 4;

const SOP: [u8; 4] = [0xFF, 0x91, 0, 4];
const EPH: [u8; 2] = [0xFF, 0x92];

impl Tile {
    /// A tile with one precinct per resolution and without markers in its packets.
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
            layers: 1,
            progression: RPCL,
            may_have_sop: false,
            has_eph: false,
            bit_planes,
        }
    }

    /// Returns the subbands of the lowest `resolutions` resolutions (all if there are fewer),
    /// parsed from the packets in `data`. Appends to `data` the bytes of blocks that are not
    /// contiguous. Returns `None` if a packet is malformed or incomplete. If all resolutions are
    /// requested, `data` must hold nothing else.
    pub(super) fn bands(&self, data: &mut Cow<'_, [u8]>, resolutions: u8) -> Option<Vec<Band>> {
        let last = self.levels.min(resolutions.checked_sub(1)?);
        let mut bands: Vec<Band> =
            (0..=self.levels).flat_map(|resolution| self.empty_bands(resolution)).collect();
        let blocks = bands.iter().map(|band| band.blocks.iter().map(|_| None).collect()).collect();
        let mut reading = Reading { blocks, trees: HashMap::new() };
        let mut at = 0;
        let by_resolution = matches!(self.progression, RLCP | RPCL);
        for packet in self.packets()? {
            // If packets are ordered by resolution, those of higher resolutions need not be read.
            if by_resolution && packet.precinct.resolution > last {
                break;
            }
            at = self.packet(packet, data, at, &bands, &mut reading)?;
        }
        let is_all = last == self.levels || !by_resolution;
        if at > data.len() || (is_all && at != data.len()) {
            return None;
        }
        bands.truncate(3 * usize::from(last) + 1);
        for (band, blocks) in bands.iter_mut().zip(&reading.blocks) {
            for (block, growing) in band.blocks.iter_mut().zip(blocks) {
                if let Some(growing) = growing {
                    *block = growing.end(data)?;
                }
            }
        }
        Some(bands)
    }

    /// Returns all packets in order (annex B.12.1). Precincts of a resolution are ordered from the
    /// top left.
    pub(super) fn packets(&self) -> Option<Vec<Packet>> {
        let mut packets = Vec::new();
        for resolution in 0..=self.levels {
            let level = u32::from(self.levels - resolution);
            let size = self.size_at(level);
            let (x, y) = *self.precincts.get(usize::from(resolution))?;
            for row in 0..size.1.div_ceil(1 << y) {
                for column in 0..size.0.div_ceil(1 << x) {
                    // Positions on the reference grid.
                    let at = |n: u32, exponent: u8| u64::from(n) << (u32::from(exponent) + level);
                    let (top, left) = (at(row, y), at(column, x));
                    let precinct = Precinct { resolution, row, column };
                    for layer in 0..self.layers {
                        let (r, l) = (u64::from(resolution), u64::from(layer));
                        let key = match self.progression {
                            RLCP => [r, l, top, left],
                            RPCL => [r, top, left, l],
                            PCRL | CPRL => [top, left, r, l],
                            _ => [l, r, top, left],
                        };
                        packets.push(Packet { key, precinct, layer });
                    }
                }
            }
        }
        packets.sort_unstable();
        Some(packets)
    }

    /// Reads the packet at `at`. Returns where the next one begins.
    fn packet(
        &self,
        packet: Packet,
        data: &[u8],
        mut at: usize,
        bands: &[Band],
        reading: &mut Reading,
    ) -> Option<usize> {
        if self.may_have_sop && data.get(at..)?.starts_with(&SOP) {
            at = at.checked_add(6)?;
        }
        let mut bits = Bits::new(data.get(at..)?);
        let mut included = Vec::new();
        if bits.bit()? == 1 {
            self.packet_header(packet, &mut bits, bands, reading, &mut included)?;
        }
        at = at.checked_add(bits.length())?;
        if self.has_eph {
            data.get(at..)?.starts_with(&EPH).then_some(())?;
            at += EPH.len();
        }
        for (number, index) in included {
            let block = reading.blocks.get_mut(number)?.get_mut(index)?.as_mut()?;
            at = block.place(at)?;
        }
        (at <= data.len()).then_some(at)
    }

    /// Reads the header of a packet that is not empty, and lists the subband and index of each
    /// block that it includes.
    fn packet_header(
        &self,
        packet: Packet,
        bits: &mut Bits<'_>,
        bands: &[Band],
        reading: &mut Reading,
        included: &mut Vec<(usize, usize)>,
    ) -> Option<()> {
        let resolution = packet.precinct.resolution;
        let first = (3 * usize::from(resolution)).saturating_sub(2);
        let numbers = first..first + if resolution == 0 { 1 } else { 3 };
        let size = *self.precincts.get(usize::from(resolution))?;
        let places: Vec<Blocks> = bands
            .get(numbers.clone())?
            .iter()
            .map(|band| Blocks::of(band, packet.precinct, size))
            .collect();
        let tree = |place: &Blocks| [(); 2].map(|()| TagTree::new(place.count.0, place.count.1));
        let trees = reading.trees.entry(packet.precinct);
        let trees = trees.or_insert_with(|| places.iter().map(tree).collect());
        for ((number, place), trees) in numbers.zip(&places).zip(trees) {
            let blocks = reading.blocks.get_mut(number)?;
            for index in subband(bits, place, trees, packet.layer, blocks)? {
                included.push((number, index));
            }
        }
        Some(())
    }

    /// Returns the subbands of a resolution, with code-blocks that have no bytes yet.
    fn empty_bands(&self, resolution: u8) -> Vec<Band> {
        let (x, y) = self.precincts.get(usize::from(resolution)).copied().unwrap_or((15, 15));
        // A precinct's side in a subband is half its side in the resolution (annex B.7).
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

    /// Width and height after `level` levels.
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
pub(super) struct Blocks {
    /// Index of the first along each axis, and their number.
    first: (u32, u32),
    pub count: (u32, u32),
    /// Code-blocks of the subband along the width.
    columns: u32,
}

impl Blocks {
    pub fn of(band: &Band, precinct: Precinct, size: (u8, u8)) -> Self {
        let halved = u8::from(precinct.resolution > 0);
        let along = |n: u32, length: u32, exponent: u8, block: u8| {
            // Converts the precinct's sample range to blocks.
            let side = u32::from(exponent.saturating_sub(halved));
            let start = (u64::from(n) << side).min(length.into());
            let end = (u64::from(n + 1) << side).min(length.into());
            let (first, last) = (start >> block, end.div_ceil(1 << block));
            (first as u32, last.saturating_sub(first) as u32)
        };
        let x = along(precinct.column, band.size.0, size.0, band.block.0);
        let y = along(precinct.row, band.size.1, size.1, band.block.1);
        // Without samples along one axis there is no block at all.
        let is_empty = x.1 == 0 || y.1 == 0;
        let count = if is_empty { (0, 0) } else { (x.1, y.1) };
        Self { first: (x.0, y.0), count, columns: band.columns }
    }
}

impl Blocks {
    /// Indices of the code-blocks within the subband, row by row.
    pub fn numbers(&self) -> impl Iterator<Item = usize> {
        let Self { first, count, columns } = *self;
        (first.1..first.1 + count.1).flat_map(move |y| {
            (first.0..first.0 + count.0).map(move |x| (y * columns + x) as usize)
        })
    }
}

/// Reads what a packet header says about a subband's code-blocks in a precinct. Returns the indices
/// of those included.
fn subband(
    bits: &mut Bits<'_>,
    place: &Blocks,
    [inclusion, missing]: &mut [TagTree; 2],
    layer: u16,
    blocks: &mut [Option<Growing>],
) -> Option<Vec<usize>> {
    let mut included = Vec::new();
    let (columns, layer) = (place.count.0, u32::from(layer));
    for (n, index) in (0..).zip(place.numbers()) {
        let (x, y) = (n % columns, n / columns);
        let block = blocks.get_mut(index)?;
        if let Some(block) = block {
            // Included in an earlier packet: one bit says whether it is again.
            if bits.bit()? == 0 {
                continue;
            }
            block.read(bits)?;
        } else {
            if inclusion.value(bits, x, y, layer + 1)? > layer {
                continue;
            }
            let missing_bit_planes = missing.value(bits, x, y, u32::MAX)?;
            block.insert(Growing::new(missing_bit_planes)).read(bits)?;
        }
        included.push(index);
    }
    Some(included)
}

#[cfg(test)]
mod tests {
    use super::super::{FrameFormat, Samples, codestream, encode_htj2k};
    use super::*;

    /// Returns the packets of an encoded frame of noise, and their tile.
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
        (plain.packets(&data).unwrap().to_vec(), plain.tile)
    }

    fn bands(tile: &Tile, data: &[u8], resolutions: u8) -> Option<Vec<Band>> {
        tile.bands(&mut Cow::Borrowed(data), resolutions)
    }

    #[test]
    fn whole_packets_are_complete_and_cut_ones_are_not() {
        for (rows, columns) in [(1, 1), (3, 70), (64, 65), (300, 200)] {
            let (packets, tile) = encoded(rows, columns);
            assert!(bands(&tile, &packets, u8::MAX).is_some(), "{rows} × {columns}");
            for cut in (0..packets.len()).step_by(packets.len() / 200 + 1) {
                let found = bands(&tile, &packets[..cut], u8::MAX);
                assert!(found.is_none(), "{rows} × {columns} at {cut}");
            }
            let mut longer = packets.clone();
            longer.push(0);
            assert!(bands(&tile, &longer, u8::MAX).is_none());
            assert!(bands(&tile, &longer, tile.levels).is_some() || tile.levels == 0);
        }
    }

    #[test]
    fn empty_packets_are_complete() {
        let tile = Tile::simple((64, 64), 2, (6, 6), vec![12; 7]);
        let found = bands(&tile, &[0, 0, 0], u8::MAX).unwrap();
        assert_eq!(found.len(), 7);
        assert!(found.iter().all(|band| band.blocks == [None]));
        assert!(bands(&tile, &[0, 0], u8::MAX).is_none());
        assert_eq!(bands(&tile, &[0], 1).unwrap().len(), 1);
    }
}
