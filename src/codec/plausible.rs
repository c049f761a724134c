//! Upper bounds for the number of pixels that an encoded frame can hold.
//!
//! The header of a frame of a hundred bytes may claim 65535 × 65535 pixels. Each encoding has a
//! known maximum of pixels per byte; a frame that claims more is rejected before anything is
//! allocated for it.

use super::{FrameFormat, corrupt};
use crate::error::{Error, ErrorKind, Result};

/// Maximum number of pixels of any frame. A decoder holds several copies at four bytes per pixel;
/// the largest digital radiographs have a quarter of this.
const MAX_PIXELS: u64 = 1 << 27;

/// Encodings, grouped by how many pixels a byte can represent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Family {
    /// A run of 128 bytes takes two (PS3.5 section G.3.1).
    Rle,
    /// A block of 64 pixels takes at least one bit, if only its mean is coded.
    JpegDct,
    /// A pixel takes at least one bit.
    JpegLossless,
    /// A line of a blank image takes one bit (T.87 A.7.1). Accepts any image of up to 4096 × 4096
    /// pixels; above that, each byte allows for eight lines of 512 pixels.
    JpegLs,
    /// A blank image takes a few bytes, whatever its size, as in JPEG 2000.
    JpegXl,
    /// A blank image takes a few bytes, whatever its size. Accepts any image of up to 2048 × 2048
    /// pixels; above that, four bytes allow for a code-block of 64 × 64 pixels.
    Jpeg2000,
}

impl Family {
    /// Pixels allowed for a frame of zero bytes, and for each byte.
    fn believed(self) -> (u64, u64) {
        match self {
            Self::Rle => (0, 64),
            Self::JpegDct => (0, 512),
            Self::JpegLossless => (0, 8),
            Self::JpegLs => (1 << 24, 1 << 12),
            Self::JpegXl => (1 << 22, 1 << 12),
            Self::Jpeg2000 => (1 << 22, 1 << 10),
        }
    }
}

/// Rejects a frame whose `bytes` bytes cannot hold the pixels of `format`.
pub(super) fn check(family: Family, format: &FrameFormat, bytes: usize) -> Result<()> {
    let pixels = u64::from(format.rows) * u64::from(format.columns);
    let planes = if family == Family::Rle { u64::from(format.bits_allocated / 8) } else { 1 };
    let (free, each) = family.believed();
    let most = free.saturating_add(each.saturating_mul(bytes as u64));
    if pixels * planes > most {
        return Err(corrupt(format!(
            "{} rows of {} columns cannot be encoded in {bytes} bytes",
            format.rows, format.columns
        )));
    }
    if pixels > MAX_PIXELS {
        return Err(Error::new(
            ErrorKind::UnsupportedPixelData,
            format!(
                "{} rows of {} columns are more than the {MAX_PIXELS} pixels a frame may have",
                format.rows, format.columns
            ),
        ));
    }
    Ok(())
}

/// Returns an empty list with room for `count` values, or an error if memory is short.
pub(super) fn room<T>(count: usize) -> Result<Vec<T>> {
    room_in(Vec::new(), count)
}

/// Like [`room`], but reuses a list that may already have the room.
pub(super) fn room_in<T>(mut values: Vec<T>, count: usize) -> Result<Vec<T>> {
    values.try_reserve_exact(count).map_err(|e| {
        Error::new(ErrorKind::OutOfMemory, format!("there is no memory for {count} pixels"))
            .caused_by(e)
    })?;
    Ok(values)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_believed_as_far_as_they_can_be() {
        let check = |family, rows, columns, bytes| {
            let format = FrameFormat {
                rows,
                columns,
                bits_allocated: 16,
                bits_stored: 16,
                signed: false,
                float: false,
            };
            check(family, &format, bytes).map_err(|e| e.kind())
        };
        let corrupt = Err(ErrorKind::CorruptFrame);
        use Family::{Jpeg2000, JpegDct, JpegLossless, JpegLs, JpegXl, Rle};
        for family in [Rle, JpegDct, JpegLossless, JpegLs, JpegXl, Jpeg2000] {
            assert_eq!(check(family, 65_535, 65_535, 1000), corrupt, "{family:?}");
            assert_eq!(check(family, 512, 512, 65_536), Ok(()), "{family:?}");
        }
        assert_eq!(check(Family::Rle, 128, 128, 511), corrupt);
        assert_eq!(check(Family::Rle, 128, 128, 512), Ok(()));
        assert_eq!(check(Family::Jpeg2000, 2048, 2048, 100), Ok(()));
        assert_eq!(check(Family::Jpeg2000, 2048, 4096, 100), corrupt);
        let large = check(Family::Jpeg2000, 65_535, 65_535, 1 << 25);
        assert_eq!(large, Err(ErrorKind::UnsupportedPixelData));
    }
}
