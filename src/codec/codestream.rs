//! The structure of a JPEG 2000 codestream (ISO/IEC 15444-1 annex A), read before any decoder sees
//! it. Decoders trust the sizes in a header and make the best of data that ends early; a medical
//! image may do neither. [`check`] allocates nothing that the data does not pay for, and accepts a
//! codestream only if it promises what the DICOM header promises and all its tile-parts are there.

use std::borrow::Cow;
use std::ops::Range;

use super::packets::Tile;
use super::plausible::{self, Family, room};
use super::{FrameFormat, corrupt};
use crate::error::Result;

const SOC: u16 = 0xFF4F;
const CAP: u16 = 0xFF50;
const SIZ: u16 = 0xFF51;
const COD: u16 = 0xFF52;
const COC: u16 = 0xFF53;
const QCD: u16 = 0xFF5C;
const TLM: u16 = 0xFF55;
const PRF: u16 = 0xFF56;
const CPF: u16 = 0xFF59;
const PLM: u16 = 0xFF57;
const PLT: u16 = 0xFF58;
const CRG: u16 = 0xFF63;
const COM: u16 = 0xFF64;
const SOT: u16 = 0xFF90;
const SOD: u16 = 0xFF93;
const EOC: u16 = 0xFFD9;

/// Tiles beyond this number do not occur in medical images, and cost a decoder kilobytes each.
const MAX_TILES: u64 = 4096;
/// Packets (layers × precincts) beyond this number cost a decoder more than the image does.
const MAX_PACKETS: u64 = 1 << 20;
/// Precincts and code-blocks of all tiles: a decoder keeps some 200 bytes for each, whether there is
/// anything in it or not. Encoders write blocks of 32 × 32 pixels or larger.
const MAX_PRECINCTS: u64 = 1 << 16;
const MAX_BLOCKS: u64 = 1 << 18;
/// Places that a progression by position looks at, whether there is a packet or not.
const MAX_POSITIONS: u64 = 1 << 24;
/// Tile-parts of a tile (TPsot, A.4.2).
const MAX_TILE_PARTS: u64 = 255;
/// Changes of progression (POC, A.6.6) that one header may state.
const MAX_PROGRESSIONS: u64 = 32;

/// Magnitude bit-planes of a subband beyond which a coefficient and its sign take more than 31 bits.
const MAX_BIT_PLANES: u8 = 30;

/// Packets of a codestream that are listed, to be read in their order.
const MAX_PLAIN_PACKETS: u64 = 1 << 16;

/// What matters of a codestream that passed [`check`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Codestream {
    /// Bits of a sample, 1 to 16.
    pub precision: u32,
    /// Samples are two's complement.
    pub signed: bool,
    /// Blocks are coded with the high-throughput coder alone (ISO/IEC 15444-15).
    pub high_throughput: bool,
    /// Decomposition levels: how often the image can be halved.
    pub levels: u8,
    /// One tile, the reversible wavelet and the high-throughput coder, and no marker segment that changes any
    /// of it: the form that HTJ2K encoders for DICOM write.
    pub plain: Option<Plain>,
    /// Bytes from SOC to EOC, without the padding after it.
    pub length: usize,
}

/// The only tile of a codestream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Plain {
    pub tile: Tile,
    /// Where each tile-part has its packets.
    parts: Vec<Range<usize>>,
}

impl Plain {
    /// The packets of all tile-parts, of the codestream's bytes.
    pub fn packets<'a>(&self, data: &'a [u8]) -> Result<Cow<'a, [u8]>> {
        let mut parts = self.parts.iter().filter_map(|part| data.get(part.clone()));
        if self.parts.len() == 1 {
            return Ok(Cow::Borrowed(parts.next().unwrap_or_default()));
        }
        let mut packets = room(self.parts.iter().map(ExactSizeIterator::len).sum())?;
        parts.for_each(|part| packets.extend_from_slice(part));
        Ok(Cow::Owned(packets))
    }
}

/// Checks a frame against its DICOM header; see the module.
pub(super) fn check(data: &[u8], format: &FrameFormat) -> Result<Codestream> {
    let mut reader = Reader { data, position: 0 };
    if reader.u16() != Some(SOC) {
        return Err(corrupt("does not start as a JPEG 2000 codestream"));
    }
    let header = main_header(&mut reader)?;
    let siz = header.siz.ok_or_else(|| corrupt("codestream has no SIZ marker segment"))?;
    let cod = header.cod.ok_or_else(|| corrupt("codestream has no COD marker segment"))?;
    siz.compare(format)?;
    plausible::check(Family::Jpeg2000, format, data.len())?;
    let tiles = siz.tiles()?;
    cod.check_work(&siz, tiles.max(1), header.unusual)?;
    cod.check_packets(&siz, tiles.max(1), data.len())?;
    let parts = tile_parts(&mut reader, tiles)?;
    let is_plain =
        tiles == 1 && parts.bare && !header.unusual && siz.offset == (0, 0) && cod.is_plain(&siz);
    let bit_planes = header.bit_planes.filter(|_| is_plain);
    let bit_planes = bit_planes.filter(|b| b.len() > 3 * usize::from(cod.levels));
    Ok(Codestream {
        precision: siz.precision,
        signed: siz.signed,
        high_throughput: cod.block_style & 0xC0 == 0x40,
        levels: cod.levels,
        plain: bit_planes
            .map(|bit_planes| Plain { tile: cod.tile(&siz, bit_planes), parts: parts.packets }),
        length: reader.position,
    })
}

struct Reader<'a> {
    data: &'a [u8],
    position: usize,
}

impl<'a> Reader<'a> {
    fn bytes(&mut self, count: usize) -> Option<&'a [u8]> {
        let end = self.position.checked_add(count)?;
        let bytes = self.data.get(self.position..end)?;
        self.position = end;
        Some(bytes)
    }

    fn u16(&mut self) -> Option<u16> {
        self.bytes(2).map(|b| u16::from_be_bytes([b[0], b[1]]))
    }

    fn marker(&mut self) -> Result<u16> {
        self.u16().ok_or_else(|| corrupt("codestream is truncated"))
    }

    /// The body of the marker segment whose marker was just read.
    fn segment(&mut self) -> Result<&'a [u8]> {
        let length = self.marker()?;
        let body = usize::from(length).checked_sub(2);
        body.and_then(|n| self.bytes(n))
            .ok_or_else(|| corrupt("codestream is truncated in a marker segment"))
    }
}

fn be16(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..at + 2).map(|b| u16::from_be_bytes([b[0], b[1]]))
}

fn be32(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4).map(|b| u32::from_be_bytes([b[0], b[1], b[2], b[3]]))
}

#[derive(Default)]
struct MainHeader {
    siz: Option<Siz>,
    cod: Option<Cod>,
    /// Magnitude bit-planes of each subband, where coefficients are not quantised and have 31 bits at most.
    bit_planes: Option<Vec<u8>>,
    /// A marker segment occurs that is none of the usual ones.
    unusual: bool,
}

/// Reads the main header and leaves the reader before the first SOT.
fn main_header(reader: &mut Reader<'_>) -> Result<MainHeader> {
    let mut header = MainHeader::default();
    loop {
        let marker = reader.marker()?;
        match marker {
            SOT => {
                reader.position -= 2;
                return Ok(header);
            }
            SIZ if header.siz.is_none() => header.siz = Some(Siz::parse(reader.segment()?)?),
            COD if header.cod.is_none() => header.cod = Some(Cod::parse(reader.segment()?)?),
            QCD => header.bit_planes = bit_planes(reader.segment()?),
            // PRF and CPF name profiles, which change nothing of what is decoded.
            CAP | TLM | PLM | CRG | COM | PRF | CPF => {
                reader.segment()?;
            }
            // A second one would undo what was checked of the first; an only component needs none.
            SIZ | COD | COC => {
                return Err(corrupt("codestream redefines its size or coding style"));
            }
            // MCT, MCC, MCO and CBD of part 2 combine components, of which there is one.
            0xFF74 | 0xFF75 | 0xFF77 | 0xFF78 => {
                return Err(corrupt("codestream transforms components, of which it has one"));
            }
            // QCC, RGN, POC, PPM, PLM and CRG.
            0xFF50..=0xFF7F => {
                header.unusual = true;
                reader.segment()?;
            }
            _ => return Err(corrupt(format!("codestream has marker {marker:04X} in its header"))),
        }
    }
}

/// Magnitude bit-planes by the exponents of a QCD marker segment (A.6.4, equation E-2) without
/// quantisation.
fn bit_planes(body: &[u8]) -> Option<Vec<u8>> {
    let (&style, exponents) = body.split_first()?;
    let planes: Vec<u8> = exponents.iter().map(|&e| (e >> 3) + (style >> 5)).collect();
    let are_sound = planes.iter().all(|p| (1..=MAX_BIT_PLANES + 1).contains(p));
    (style & 0x1F == 0 && are_sound).then(|| planes.iter().map(|p| p - 1).collect())
}

struct TileParts {
    /// No tile-part header holds a marker segment that changes how packets are read.
    bare: bool,
    /// Where each has its packets.
    packets: Vec<Range<usize>>,
}

/// Walks all tile-parts to EOC by their lengths; every tile must have its first part and what
/// follows EOC must be zero.
fn tile_parts(reader: &mut Reader<'_>, tiles: u64) -> Result<TileParts> {
    let mut seen = vec![false; tiles as usize];
    let mut parts = TileParts { bare: true, packets: Vec::new() };
    loop {
        let start = reader.position;
        match reader.marker()? {
            EOC => break,
            SOT => {}
            _ => return Err(corrupt("codestream lacks its next tile-part or its end")),
        }
        let body = reader.segment()?;
        let malformed = || corrupt("codestream has a malformed tile-part");
        let tile = usize::from(be16(body, 0).ok_or_else(malformed)?);
        let length = be32(body, 2).ok_or_else(malformed)? as usize;
        *seen.get_mut(tile).ok_or_else(malformed)? = true;
        let end = if length == 0 { end_before_eoc(reader.data)? } else { start + length };
        if end > reader.data.len() {
            return Err(corrupt("codestream is truncated in a tile-part"));
        }
        parts.bare &= skip_tile_part_header(reader)?;
        if end < reader.position {
            return Err(malformed());
        }
        parts.packets.push(reader.position..end);
        reader.position = end;
        if parts.packets.len() as u64 > MAX_TILE_PARTS * tiles.max(1) {
            return Err(corrupt("codestream has more tile-parts than its tiles can have"));
        }
    }
    if !seen.iter().all(|&s| s) {
        return Err(corrupt("codestream lacks a tile"));
    }
    if reader.data.get(reader.position..).unwrap_or_default().iter().any(|&b| b != 0) {
        return Err(corrupt("codestream is followed by other data"));
    }
    Ok(parts)
}

/// Leaves the reader after SOD; whether no marker segment before it changes how packets are read.
fn skip_tile_part_header(reader: &mut Reader<'_>) -> Result<bool> {
    let mut bare = true;
    loop {
        match reader.marker()? {
            SOD => return Ok(bare),
            COD | COC | 0xFF74 | 0xFF75 | 0xFF77 | 0xFF78 => {
                return Err(corrupt("codestream redefines its coding style in a tile"));
            }
            PLT | COM => {
                reader.segment()?;
            }
            0xFF50..=0xFF7F => {
                bare = false;
                reader.segment()?;
            }
            m => {
                return Err(corrupt(format!(
                    "codestream has marker {m:04X} in a tile-part header"
                )));
            }
        }
    }
}

/// Where the last tile-part ends if its length is not stated: at the EOC before any padding.
fn end_before_eoc(data: &[u8]) -> Result<usize> {
    let padding = data.iter().rev().take_while(|&&b| b == 0).count();
    let length = data.len() - padding;
    match length.checked_sub(2) {
        Some(end) if be16(data, end) == Some(EOC) => Ok(end),
        _ => Err(corrupt("codestream lacks its end")),
    }
}

struct Siz {
    size: (u32, u32),
    offset: (u32, u32),
    tile: (u32, u32),
    tile_offset: (u32, u32),
    components: u16,
    precision: u32,
    signed: bool,
    subsampled: bool,
}

impl Siz {
    fn parse(body: &[u8]) -> Result<Self> {
        let field = |at| be32(body, at).ok_or_else(|| corrupt("SIZ marker segment is too short"));
        let pair = |at| -> Result<(u32, u32)> { Ok((field(at)?, field(at + 4)?)) };
        let short = || corrupt("SIZ marker segment is too short");
        let component = body.get(36..39).ok_or_else(short)?;
        Ok(Self {
            size: pair(2)?,
            offset: pair(10)?,
            tile: pair(18)?,
            tile_offset: pair(26)?,
            components: be16(body, 34).ok_or_else(short)?,
            precision: u32::from(component[0] & 0x7F) + 1,
            signed: component[0] & 0x80 != 0,
            subsampled: component[1] != 1 || component[2] != 1,
        })
    }

    /// Width and height of the image area.
    fn extent(&self) -> Option<(u32, u32)> {
        Some((self.size.0.checked_sub(self.offset.0)?, self.size.1.checked_sub(self.offset.1)?))
    }

    fn compare(&self, format: &FrameFormat) -> Result<()> {
        if self.components != 1 || self.subsampled {
            return Err(corrupt(format!(
                "codestream has {} components{}, expected one at full resolution",
                self.components,
                if self.subsampled { " (subsampled)" } else { "" }
            )));
        }
        if self.extent() != Some((format.columns, format.rows)) {
            return Err(corrupt(format!(
                "codestream's size {} × {} differs from the header's {} columns × {} rows",
                self.size.0, self.size.1, format.columns, format.rows
            )));
        }
        let same_sign = self.signed == format.signed;
        let allocated = u32::from(format.bits_allocated);
        // Encoders that ignore Pixel Representation are common; the bits are then unambiguous only
        // where they are all the stored or all the allocated ones.
        let reinterpretable =
            self.precision == u32::from(format.bits_stored) || self.precision == allocated;
        if self.precision > allocated || !(same_sign || reinterpretable) {
            return Err(corrupt(format!(
                "codestream has {} {} bits, the header {} of {} bits, {}",
                self.precision,
                if self.signed { "signed" } else { "unsigned" },
                format.bits_stored,
                format.bits_allocated,
                if format.signed { "signed" } else { "unsigned" },
            )));
        }
        Ok(())
    }

    /// Number of tiles of the grid (annex B.3).
    fn tiles(&self) -> Result<u64> {
        let along = |size: u32, tile: u32, tile_offset: u32, offset: u32| -> Option<u64> {
            let first_end = u64::from(tile_offset) + u64::from(tile);
            (tile > 0 && tile_offset <= offset && first_end > u64::from(offset))
                .then(|| u64::from(size.saturating_sub(tile_offset)).div_ceil(u64::from(tile)))
        };
        along(self.size.0, self.tile.0, self.tile_offset.0, self.offset.0)
            .zip(along(self.size.1, self.tile.1, self.tile_offset.1, self.offset.1))
            .map(|(x, y)| x * y)
            .filter(|&n| n <= MAX_TILES)
            .ok_or_else(|| corrupt("codestream's tile grid is not valid or has too many tiles"))
    }
}

struct Cod {
    style: u8,
    /// LRCP, RLCP, RPCL, PCRL, CPRL (table A.16).
    progression: u8,
    layers: u16,
    levels: u8,
    /// Code-block width and height exponents.
    block: (u8, u8),
    block_style: u8,
    reversible: bool,
    /// Precinct size exponents of each resolution, PPy << 4 | PPx; empty means 15 and 15.
    precincts: Vec<u8>,
}

impl Cod {
    fn parse(body: &[u8]) -> Result<Self> {
        let short = || corrupt("COD marker segment is too short");
        let fixed = body.get(..10).ok_or_else(short)?;
        let levels = fixed[5];
        if levels > 32 {
            return Err(corrupt(format!("codestream declares {levels} decomposition levels")));
        }
        let block = (fixed[6], fixed[7]);
        if block.0 > 8 || block.1 > 8 || block.0 + block.1 > 8 {
            return Err(corrupt("codestream declares code-blocks larger than there are"));
        }
        let precincts = if fixed[0] & 1 != 0 {
            body.get(10..11 + usize::from(levels)).ok_or_else(short)?.to_vec()
        } else {
            Vec::new()
        };
        Ok(Self {
            style: fixed[0],
            progression: fixed[1],
            layers: u16::from_be_bytes([fixed[2], fixed[3]]),
            levels,
            block: (block.0 + 2, block.1 + 2),
            block_style: fixed[8],
            reversible: fixed[9] == 1,
            precincts,
        })
    }

    /// Width and height of resolution `r` in a tile, at most.
    fn reduced(&self, r: u8, siz: &Siz) -> (u64, u64) {
        let Some((width, height)) = siz.extent() else { return (0, 0) };
        let shift = u32::from(self.levels - r).min(63);
        let side = |size: u32, tile: u32| u64::from(size.min(tile)).div_ceil(1_u64 << shift);
        (side(width, siz.tile.0), side(height, siz.tile.1))
    }

    /// Exponents of the precincts of resolution `r`.
    fn precinct(&self, r: u8) -> (u8, u8) {
        let exponents = self.precincts.get(usize::from(r)).copied().unwrap_or(0xFF);
        (exponents & 0x0F, exponents >> 4)
    }

    /// Precincts of resolution `r` in a tile, at most.
    fn precincts_at(&self, r: u8, siz: &Siz) -> u64 {
        let ((width, height), (x, y)) = (self.reduced(r, siz), self.precinct(r));
        // An image that does not start at the origin may touch one more.
        let more = u64::from(siz.offset != (0, 0));
        (width.div_ceil(1 << x) + more) * (height.div_ceil(1 << y) + more)
    }

    /// Code-blocks of resolution `r` in a tile, about: precincts cut them smaller (annex B.7).
    fn blocks_at(&self, r: u8, siz: &Siz) -> u64 {
        let ((width, height), (x, y)) = (self.reduced(r, siz), self.precinct(r));
        let halved = u8::from(r > 0);
        let side = |size: u64, block: u8, precinct: u8| {
            size.div_ceil(1 << (block + halved).min(precinct)) + 1
        };
        let bands = if r > 0 { 3 } else { 1 };
        bands * side(width, self.block.0, x) * side(height, self.block.1, y)
    }

    /// Places of the reference grid where a precinct of some resolution may begin, by the smallest
    /// steps there are along each axis.
    fn positions(&self, siz: &Siz) -> u64 {
        let Some((width, height)) = siz.extent() else { return 0 };
        let step = |exponent: fn((u8, u8)) -> u8| {
            let of = |r: u8| u32::from(exponent(self.precinct(r)) + self.levels - r).min(32);
            (0..=self.levels).map(of).min().unwrap_or(0)
        };
        let along = |size: u32, tile: u32, step: u32| (u64::from(size.min(tile)) >> step) + 2;
        along(width, siz.tile.0, step(|p| p.0)) * along(height, siz.tile.1, step(|p| p.1))
    }

    /// Refuses what would cost a decoder memory or time out of proportion to the image.
    fn check_work(&self, siz: &Siz, tiles: u64, may_change_progression: bool) -> Result<()> {
        if self.layers == 0 {
            return Err(corrupt("codestream declares no quality layer"));
        }
        let all = |of: &dyn Fn(u8) -> u64| {
            (0..=self.levels).map(of).fold(0, u64::saturating_add).saturating_mul(tiles)
        };
        let precincts = all(&|r| self.precincts_at(r, siz));
        let blocks = all(&|r| self.blocks_at(r, siz));
        // As a decoder keeps note of them: for each resolution as for the one with most precincts.
        let most = (0..=self.levels).map(|r| self.precincts_at(r, siz)).max().unwrap_or(0);
        let packets = all(&|_| most).saturating_mul(u64::from(self.layers));
        let progressions = if may_change_progression { MAX_PROGRESSIONS } else { 1 };
        let positions = all(&|_| self.positions(siz)).saturating_mul(progressions);
        for (what, count, most) in [
            ("precincts", precincts, MAX_PRECINCTS),
            ("code-blocks", blocks, MAX_BLOCKS),
            ("packets", packets, MAX_PACKETS),
            ("positions of packets", positions, MAX_POSITIONS),
        ] {
            if count > most {
                return Err(corrupt(format!("codestream declares {count} {what}, {most} at most")));
            }
        }
        Ok(())
    }

    /// Refuses more packets than the codestream has bytes for: each takes one at least (annex B.10). What
    /// is counted is exact for whole tiles, and more than there is for those at the edges.
    fn check_packets(&self, siz: &Siz, tiles: u64, bytes: usize) -> Result<()> {
        const EDGES: u64 = 16;
        const FEW: u64 = 4096;
        let precincts = (0..=self.levels).map(|r| self.precincts_at(r, siz));
        let precincts = precincts.fold(0, u64::saturating_add).saturating_mul(tiles);
        let packets = precincts.saturating_mul(u64::from(self.layers));
        if packets <= FEW.saturating_add((bytes as u64).saturating_mul(EDGES)) {
            return Ok(());
        }
        Err(corrupt(format!("{bytes} bytes of codestream cannot hold its {packets} packets")))
    }

    /// No block style but HT, and packets that are few enough to be listed.
    fn is_plain(&self, siz: &Siz) -> bool {
        let precincts = (0..=self.levels).map(|r| self.precincts_at(r, siz));
        let precincts = precincts.fold(0, u64::saturating_add);
        // Half of a precinct's side is its side in a subband (annex B.7).
        let halves = |r: u8| r == 0 || (self.precinct(r).0 > 0 && self.precinct(r).1 > 0);
        self.style & !7 == 0
            && self.block_style == 0x40
            && self.reversible
            && self.progression <= 4
            && (0..=self.levels).all(halves)
            && precincts.saturating_mul(self.layers.into()) <= MAX_PLAIN_PACKETS
    }

    fn tile(&self, siz: &Siz, bit_planes: Vec<u8>) -> Tile {
        Tile {
            size: siz.size,
            levels: self.levels,
            block: self.block,
            precincts: (0..=self.levels).map(|r| self.precinct(r)).collect(),
            layers: self.layers,
            progression: self.progression,
            may_have_sop: self.style & 2 != 0,
            has_eph: self.style & 4 != 0,
            bit_planes,
        }
    }
}
