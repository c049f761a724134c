//! The structure of a JPEG 2000 codestream (ISO/IEC 15444-1 annex A), parsed before any decoder
//! sees it. Decoders trust the sizes in a header and tolerate truncated data; neither is acceptable
//! for a medical image. [`check`] allocates no more than the size of the data justifies, and
//! accepts a codestream only if it matches the DICOM header and all its tile-parts are present.

use std::borrow::Cow;
use std::ops::Range;

use super::cod::Cod;
use super::packets::Tile;
use super::plausible::{self, Family, room};
use super::siz::{Siz, be16, be32};
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

/// Maximum number of tile-parts of a tile (TPsot, A.4.2).
const MAX_TILE_PARTS: u64 = 255;

/// Magnitude bit-planes of a subband above which a coefficient with its sign exceeds 31 bits.
const MAX_BIT_PLANES: u8 = 30;

/// The relevant properties of a codestream that passed [`check`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Codestream {
    /// Bits of a sample, 1 to 16.
    pub precision: u32,
    /// Samples are two's complement.
    pub signed: bool,
    /// All code-blocks use the high-throughput coder (ISO/IEC 15444-15).
    pub high_throughput: bool,
    /// Decomposition levels: how many times the image can be halved.
    pub levels: u8,
    /// Present if the codestream has one tile, the reversible wavelet, the high-throughput coder
    /// and no marker segment that changes any of these: the form that HTJ2K encoders for DICOM
    /// write.
    pub plain: Option<Plain>,
    /// Bytes from SOC to EOC, without the padding after EOC.
    pub length: usize,
}

/// The only tile of a codestream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Plain {
    pub tile: Tile,
    /// Byte range of the packets of each tile-part.
    parts: Vec<Range<usize>>,
}

impl Plain {
    /// Returns the packets of all tile-parts, concatenated, from the codestream's bytes.
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

/// Checks a frame against its DICOM header; see the module documentation.
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

    /// Returns the body of the marker segment whose marker was just read.
    fn segment(&mut self) -> Result<&'a [u8]> {
        let length = self.marker()?;
        let body = usize::from(length).checked_sub(2);
        body.and_then(|n| self.bytes(n))
            .ok_or_else(|| corrupt("codestream is truncated in a marker segment"))
    }
}

#[derive(Default)]
struct MainHeader {
    siz: Option<Siz>,
    cod: Option<Cod>,
    /// Magnitude bit-planes of each subband, if coefficients are not quantised and have at most 31
    /// bits.
    bit_planes: Option<Vec<u8>>,
    /// The header has a marker segment other than the usual ones.
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
            // PRF and CPF name profiles, which do not affect decoding.
            CAP | TLM | PLM | CRG | COM | PRF | CPF => {
                reader.segment()?;
            }
            // A second SIZ or COD would invalidate the checks of the first; a single component
            // needs no COC.
            SIZ | COD | COC => {
                return Err(corrupt("codestream redefines its size or coding style"));
            }
            // MCT, MCC, MCO and CBD of part 2 combine components, but there is only one.
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

/// Magnitude bit-planes from the exponents of a QCD marker segment (A.6.4, equation E-2); `None` if
/// it quantises.
fn bit_planes(body: &[u8]) -> Option<Vec<u8>> {
    let (&style, exponents) = body.split_first()?;
    let planes: Vec<u8> = exponents.iter().map(|&e| (e >> 3) + (style >> 5)).collect();
    let are_sound = planes.iter().all(|p| (1..=MAX_BIT_PLANES + 1).contains(p));
    (style & 0x1F == 0 && are_sound).then(|| planes.iter().map(|p| p - 1).collect())
}

struct TileParts {
    /// No tile-part header holds a marker segment that changes how packets are read.
    bare: bool,
    /// Byte range of the packets of each tile-part.
    packets: Vec<Range<usize>>,
}

/// Walks all tile-parts to EOC by their lengths. Every tile must have at least one part, and only
/// zeros may follow EOC.
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

/// Skips to after SOD. Returns whether no marker segment before it changes how packets are read.
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

/// End of the last tile-part if its length is not stated: at the EOC before any padding.
fn end_before_eoc(data: &[u8]) -> Result<usize> {
    let padding = data.iter().rev().take_while(|&&b| b == 0).count();
    let length = data.len() - padding;
    match length.checked_sub(2) {
        Some(end) if be16(data, end) == Some(EOC) => Ok(end),
        _ => Err(corrupt("codestream lacks its end")),
    }
}
