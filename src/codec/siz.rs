//! Size and tiles of a codestream (ISO/IEC 15444-1 A.5.1 and B.3), compared with the DICOM header.

use super::{FrameFormat, corrupt};
use crate::error::Result;

/// More tiles than this do not occur in medical images, and each costs a decoder kilobytes.
const MAX_TILES: u64 = 4096;

pub(super) fn be16(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..at + 2).map(|b| u16::from_be_bytes([b[0], b[1]]))
}

pub(super) fn be32(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4).map(|b| u32::from_be_bytes([b[0], b[1], b[2], b[3]]))
}

/// The SIZ marker segment (A.5.1) of a codestream with one component.
pub(super) struct Siz {
    pub size: (u32, u32),
    pub offset: (u32, u32),
    pub tile: (u32, u32),
    pub tile_offset: (u32, u32),
    pub components: u16,
    pub precision: u32,
    pub signed: bool,
    pub subsampled: bool,
}

impl Siz {
    pub fn parse(body: &[u8]) -> Result<Self> {
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
    pub fn extent(&self) -> Option<(u32, u32)> {
        Some((self.size.0.checked_sub(self.offset.0)?, self.size.1.checked_sub(self.offset.1)?))
    }

    pub fn compare(&self, format: &FrameFormat) -> Result<()> {
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
        // Encoders that ignore Pixel Representation are common. The bits are then unambiguous only
        // if the precision equals Bits Stored or Bits Allocated.
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

    /// Returns the number of tiles of the grid (annex B.3).
    pub fn tiles(&self) -> Result<u64> {
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
