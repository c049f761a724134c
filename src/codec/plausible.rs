//! How many pixels an encoded frame is believed to hold.
//!
//! A header may promise 65535 × 65535 pixels of a frame of a hundred bytes. What a frame of so many
//! bytes can hold at most is known of each form of encoding; beyond that it is refused before
//! anything is allocated for it.

use super::{FrameFormat, corrupt};
use crate::error::{Error, ErrorKind, Result};

/// Pixels of any frame. A decoder holds several copies at four bytes each; the largest digital
/// radiographs have a quarter of this.
const MAX_PIXELS: u64 = 1 << 27;

/// Forms of encoding, by what a byte can stand for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Family {
    /// A run of 128 bytes takes two (PS3.5 section G.3.1).
    Rle,
    /// A block of 64 pixels takes one bit at least, where only its mean is coded.
    JpegDct,
    /// A pixel takes one bit at least.
    JpegLossless,
    /// A line of a blank image takes a bit (T.87 A.7.1): those of up to 4096 × 4096 pixels are believed, and
    /// beyond, lines of 512 pixels that take one.
    JpegLs,
    /// A blank image takes a few bytes whatever its size, as in JPEG 2000.
    JpegXl,
    /// A blank image takes a few bytes whatever its size; those of up to 2048 × 2048 pixels are
    /// believed. Beyond, a code-block of 64 × 64 pixels is believed to take four bytes.
    Jpeg2000,
}

impl Family {
    /// Pixels believed of a frame of no bytes, and of each byte.
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

/// Refuses a frame of `bytes` bytes that cannot hold `format`'s pixels.
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

/// An empty list with room for `count` values, or an error that says that there is no memory.
pub(super) fn room<T>(count: usize) -> Result<Vec<T>> {
    room_in(Vec::new(), count)
}

/// As [`room`], in a list that may have it.
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
