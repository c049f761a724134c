//! Takes codestreams of the plain form apart into their code-blocks and assembles new ones. For
//! tests and fuzzing, which change the bytes of a block and need everything around it valid.

use super::codestream;
use super::contributions::Block;
use super::packets::{Band, Blocks, Tile};
use super::{FrameFormat, Result};

/// A codestream of one tile, one component and one layer, with the high-throughput coder and the
/// reversible wavelet; each packet holds all the bytes of its blocks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plain {
    /// Width and height in pixels.
    pub size: (u32, u32),
    /// Decomposition levels.
    pub levels: u8,
    /// Exponents of the code-blocks' width and height: 2 to 10 each, with a sum of at most 12.
    pub block: (u8, u8),
    /// Bits per pixel, 1 to 16.
    pub precision: u8,
    /// Pixels are two's complement.
    pub signed: bool,
    /// Order of progression (SGcod, table A.16): 0 to 4.
    pub progression: u8,
    /// Magnitude bit-planes (0 to 30) of LL, then HL, LH and HH of each resolution.
    pub bit_planes: Vec<u8>,
    /// All code-blocks, by subband as above, row by row; `None` if no packet includes the block.
    pub blocks: Vec<Option<PlainBlock>>,
}

/// A code-block included in a packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlainBlock {
    /// Coding passes, 1 to 3.
    pub passes: u32,
    /// Bit-planes above the one that the cleanup pass codes.
    pub skipped: u32,
    /// Bytes of the cleanup pass.
    pub cleanup: Vec<u8>,
    /// Bytes of the passes after it.
    pub refinement: Vec<u8>,
}

impl Plain {
    /// Takes a codestream apart; returns `None` if it is not of the plain form.
    ///
    /// # Errors
    /// Fails if the codestream is invalid or does not match `format`.
    pub fn read(data: &[u8], format: &FrameFormat) -> Result<Option<Self>> {
        let stream = codestream::check(data, format)?;
        let Some(plain) = stream.plain else { return Ok(None) };
        let (mut packets, tile) = (plain.packets(data)?, plain.tile.clone());
        // With one packet per resolution, all progression orders are the same.
        let simple = Tile::simple(tile.size, tile.levels, tile.block, tile.bit_planes.clone());
        if tile != (Tile { progression: tile.progression, ..simple }) {
            return Ok(None);
        }
        let Some(bands) = tile.bands(&mut packets, u8::MAX) else { return Ok(None) };
        let taken = |block: Block| PlainBlock {
            passes: block.passes,
            skipped: block.skipped_bit_planes,
            cleanup: packets[block.start..][..block.cleanup].to_vec(),
            refinement: packets[block.start + block.cleanup..][..block.refinement].to_vec(),
        };
        let blocks = bands.iter().flat_map(|band| &band.blocks).map(|block| block.map(taken));
        Ok(Some(Self {
            size: tile.size,
            levels: tile.levels,
            block: tile.block,
            precision: stream.precision as u8,
            signed: stream.signed,
            progression: 2,
            blocks: blocks.collect(),
            bit_planes: tile.bit_planes,
        }))
    }

    /// Returns the frame's pixel format.
    pub fn format(&self) -> FrameFormat {
        FrameFormat {
            rows: self.size.1,
            columns: self.size.0,
            bits_allocated: 16,
            bits_stored: self.precision.into(),
            signed: self.signed,
            float: false,
        }
    }

    fn bands(&self) -> Vec<Band> {
        let tile = Tile::simple(self.size, self.levels, self.block, self.bit_planes.clone());
        // Empty packets yield the subbands and the number of blocks in each.
        tile.bands(&mut vec![0; usize::from(self.levels) + 1].into(), u8::MAX).unwrap_or_default()
    }

    /// Returns the width and height of every code-block, in the order of `blocks`.
    pub fn shapes(&self) -> Vec<(u32, u32)> {
        let side =
            |length: u32, exponent: u8, n: u32| (length - (n << exponent)).min(1 << exponent);
        let mut shapes = Vec::new();
        for band in self.bands() {
            for n in 0..band.blocks.len() as u32 {
                let (x, y) = (n % band.columns, n / band.columns);
                shapes
                    .push((side(band.size.0, self.block.0, x), side(band.size.1, self.block.1, y)));
            }
        }
        shapes
    }

    /// Encodes the codestream.
    pub fn write(&self) -> Vec<u8> {
        self.write_around(&self.packets())
    }

    /// Encodes the codestream with other packets.
    pub fn write_around(&self, packets: &[u8]) -> Vec<u8> {
        self.write_with(0, &[], packets)
    }

    /// Encodes the codestream with precincts of 2^`exponent` pixels along each axis, larger than
    /// code-blocks, and, if `marked`, with SOP and EPH markers.
    pub fn write_in_precincts(&self, exponent: u8, marked: bool) -> Vec<u8> {
        let simple = Tile::simple(self.size, self.levels, self.block, self.bit_planes.clone());
        let precincts = vec![(exponent, exponent); usize::from(self.levels) + 1];
        let tile = Tile { precincts, progression: self.progression, ..simple };
        let bands = self.bands();
        let mut firsts = vec![0];
        firsts.extend(bands.iter().scan(0, |end, band| {
            *end += band.blocks.len();
            Some(*end)
        }));
        let mut out = Vec::new();
        for (number, packet) in tile.packets().unwrap_or_default().into_iter().enumerate() {
            if marked {
                segment(&mut out, 0x91, &(number as u16).to_be_bytes());
            }
            let (mut bits, mut body) = (BitWriter::default(), Vec::new());
            bits.number(1, 1);
            let resolution = usize::from(packet.precinct.resolution);
            let first = (3 * resolution).saturating_sub(2);
            for band in first..first + if resolution == 0 { 1 } else { 3 } {
                let place = Blocks::of(&bands[band], packet.precinct, (exponent, exponent));
                let block = |number: usize| self.blocks[firsts[band] + number].clone();
                let blocks: Vec<_> = place.numbers().map(block).collect();
                if !blocks.is_empty() {
                    write_subband(&mut bits, place.count.0, &blocks);
                }
                for block in blocks.into_iter().flatten() {
                    body.extend(block.cleanup);
                    body.extend(block.refinement);
                }
            }
            out.extend(bits.end());
            if marked {
                out.extend([0xFF, 0x92]);
            }
            out.extend(body);
        }
        let sizes = vec![exponent << 4 | exponent; usize::from(self.levels) + 1];
        self.write_with(if marked { 7 } else { 1 }, &sizes, &out)
    }

    fn write_with(&self, style: u8, precincts: &[u8], packets: &[u8]) -> Vec<u8> {
        let mut out = vec![0xFF, 0x4F];
        let (width, height) = self.size;
        // Rsiz with the bit of part 15; the tile covers the image.
        let mut siz = vec![0x40, 0];
        for field in [width, height, 0, 0, width, height, 0, 0] {
            siz.extend(field.to_be_bytes());
        }
        siz.extend([0, 1, (self.precision - 1) | (u8::from(self.signed) << 7), 1, 1]);
        segment(&mut out, 0x51, &siz);
        segment(&mut out, 0x50, &[0, 2, 0, 0, 0, 0]);
        let block = (self.block.0 - 2, self.block.1 - 2);
        let cod = [style, self.progression, 0, 1, 0, self.levels, block.0, block.1, 0x40, 1];
        segment(&mut out, 0x52, &[&cod[..], precincts].concat());
        // One guard bit, so that exponents equal the numbers of bit-planes.
        let mut qcd = vec![1 << 5];
        qcd.extend(self.bit_planes.iter().map(|planes| planes << 3));
        segment(&mut out, 0x5C, &qcd);
        let length = (12 + 2 + packets.len()) as u32;
        let mut sot = vec![0, 0];
        sot.extend(length.to_be_bytes());
        sot.extend([0, 1]);
        segment(&mut out, 0x90, &sot);
        out.extend([0xFF, 0x93]);
        out.extend(packets);
        out.extend([0xFF, 0xD9]);
        out
    }

    /// Encodes the packets, one per resolution.
    pub fn packets(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let mut blocks = &self.blocks[..];
        let bands = self.bands();
        let mut bands = &bands[..];
        for resolution in 0..=self.levels {
            let (these, others) = bands.split_at(if resolution == 0 { 1 } else { 3 });
            bands = others;
            let mut bits = BitWriter::default();
            bits.number(1, 1);
            let mut body: Vec<u8> = Vec::new();
            for band in these {
                let (here, rest) = blocks.split_at(band.blocks.len());
                blocks = rest;
                write_subband(&mut bits, band.columns, here);
                for block in here.iter().flatten() {
                    body.extend(&block.cleanup);
                    body.extend(&block.refinement);
                }
            }
            out.extend(bits.end());
            out.extend(body);
        }
        out
    }
}

fn segment(out: &mut Vec<u8>, marker: u8, body: &[u8]) {
    out.extend([0xFF, marker]);
    out.extend((body.len() as u16 + 2).to_be_bytes());
    out.extend(body);
}

/// Writes the headers of a subband's code-blocks (ISO/IEC 15444-1 annex B.10.4 to B.10.7).
fn write_subband(bits: &mut BitWriter, columns: u32, blocks: &[Option<PlainBlock>]) {
    let values = |of: &dyn Fn(&PlainBlock) -> u32, absent: u32| -> Vec<u32> {
        blocks.iter().map(|block| block.as_ref().map_or(absent, of)).collect()
    };
    let mut inclusion = TagTree::new(columns, values(&|_| 0, 1));
    let mut missing = TagTree::new(columns, values(&|block| block.skipped, u32::MAX));
    for (n, block) in blocks.iter().enumerate() {
        let (x, y) = (n as u32 % columns, n as u32 / columns);
        inclusion.write(bits, x, y, 1);
        let Some(block) = block else { continue };
        missing.write(bits, x, y, u32::MAX);
        match block.passes {
            1 => bits.number(0, 1),
            2 => bits.number(0b10, 2),
            _ => bits.number(0b1100, 4),
        }
        let (cleanup, refinement) = (block.cleanup.len() as u32, block.refinement.len() as u32);
        let more = u32::from(block.passes > 2);
        let needed = |length: u32| 32 - length.leading_zeros();
        let length_bits = needed(cleanup).max(needed(refinement).saturating_sub(more)).max(3);
        (3..length_bits).for_each(|_| bits.number(1, 1));
        bits.number(0, 1);
        bits.number(cleanup, length_bits);
        if block.passes > 1 {
            bits.number(refinement, length_bits + more);
        }
    }
}

/// A node of a tag tree: its value, how much of it is written, and whether it is written in full.
type Node = (u32, u32, bool);

/// A tag tree for writing (annex B.10.2).
struct TagTree {
    /// From the leaves to the root: width and nodes.
    levels: Vec<(u32, Vec<Node>)>,
}

impl TagTree {
    fn new(columns: u32, leaves: Vec<u32>) -> Self {
        let node = |value| (value, 0, false);
        let mut levels = vec![(columns, leaves.into_iter().map(node).collect::<Vec<_>>())];
        while let Some((width, nodes)) = levels.last()
            && nodes.len() > 1
        {
            let rows = nodes.len() as u32 / width;
            let (w, h) = (width.div_ceil(2), rows.div_ceil(2));
            let mut above = vec![node(u32::MAX); (w * h) as usize];
            for (n, child) in nodes.iter().enumerate() {
                let (x, y) = (n as u32 % width, n as u32 / width);
                let parent = &mut above[(y / 2 * w + x / 2) as usize];
                parent.0 = parent.0.min(child.0);
            }
            levels.push((w, above));
        }
        Self { levels }
    }

    /// Writes a leaf's value, only as far as needed to know whether it is below `threshold`.
    fn write(&mut self, bits: &mut BitWriter, x: u32, y: u32, threshold: u32) {
        let mut least = 0;
        for (depth, (width, nodes)) in self.levels.iter_mut().enumerate().rev() {
            let (value, written, full) =
                &mut nodes[((y >> depth) * *width + (x >> depth)) as usize];
            *written = least.max(*written);
            while !*full && *written < threshold {
                if *written == *value {
                    bits.number(1, 1);
                    *full = true;
                } else {
                    bits.number(0, 1);
                    *written += 1;
                }
            }
            least = *written;
        }
    }
}

/// Writes the bits of a packet header (annex B.10.1).
#[derive(Default)]
struct BitWriter {
    bytes: Vec<u8>,
    byte: u8,
    count: u32,
}

impl BitWriter {
    fn number(&mut self, value: u32, bits: u32) {
        for n in (0..bits).rev() {
            self.byte = (self.byte << 1) | (value >> n & 1) as u8;
            self.count += 1;
            let stuffed = self.bytes.last() == Some(&0xFF);
            if self.count == if stuffed { 7 } else { 8 } {
                self.bytes.push(self.byte);
                (self.byte, self.count) = (0, 0);
            }
        }
    }

    fn end(mut self) -> Vec<u8> {
        while self.count > 0 {
            self.number(0, 1);
        }
        if self.bytes.last() == Some(&0xFF) {
            self.bytes.push(0);
        }
        self.bytes
    }
}
