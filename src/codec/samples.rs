//! Decoded pixels: conversions between stored bytes, decoder output and [`Samples`], and the
//! figures that sources state of a frame (range, checksum).

use super::plausible::room;
use super::{FrameFormat, Samples, corrupt};
use crate::error::{Error, ErrorKind, Result};

impl Samples {
    /// Number of pixels.
    pub fn len(&self) -> usize {
        match self {
            Self::I16(v) => v.len(),
            Self::U16(v) => v.len(),
        }
    }

    /// Whether there is no pixel.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Leaves of each pixel its Bits Stored, sign-extended where they are two's complement (PS3.5
    /// 8.1.1): bits above them are no part of the value, whatever the codestream's precision was.
    pub fn keep_stored_bits(&mut self, bits_stored: u16) {
        let unused = 16u32.saturating_sub(u32::from(bits_stored)).min(15);
        if unused == 0 {
            return;
        }
        match self {
            Self::I16(v) => v.iter_mut().for_each(|x| *x = (*x << unused) >> unused),
            Self::U16(v) => v.iter_mut().for_each(|x| *x = (*x << unused) >> unused),
        }
    }

    /// Smallest and largest pixel value, as stored (before rescale); `None` without pixels.
    pub fn min_max(&self) -> Option<(i32, i32)> {
        fn range<T: Copy + Ord + Into<i32>>(values: &[T]) -> Option<(i32, i32)> {
            let first = *values.first()?;
            let (low, high) = values.iter().fold((first, first), |(l, h), &v| (l.min(v), h.max(v)));
            Some((low.into(), high.into()))
        }
        match self {
            Self::I16(v) => range(v),
            Self::U16(v) => range(v),
        }
    }

    /// The pixels as little-endian bytes of `bits_allocated` (8 or 16) bits each, two's complement
    /// where signed: the native pixel data of this frame (PS3.5 section 8.1.1), with bits above
    /// Bits Stored holding the sign or zero.
    pub fn to_le_bytes(&self, bits_allocated: u16) -> Vec<u8> {
        match (self, bits_allocated) {
            (Self::I16(v), 8) => v.iter().map(|&x| x as u8).collect(),
            (Self::U16(v), 8) => v.iter().map(|&x| x as u8).collect(),
            (Self::I16(v), _) => v.iter().flat_map(|x| x.to_le_bytes()).collect(),
            (Self::U16(v), _) => v.iter().flat_map(|x| x.to_le_bytes()).collect(),
        }
    }

    /// Writes [`to_le_bytes`](Samples::to_le_bytes) without holding them.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn write_le_bytes(
        &self,
        bits_allocated: u16,
        out: &mut impl std::io::Write,
    ) -> std::io::Result<()> {
        const PIECE: usize = 2048;
        fn write<T: Copy, const N: usize>(
            pixels: &[T],
            bytes: impl Fn(T) -> [u8; N],
            out: &mut impl std::io::Write,
        ) -> std::io::Result<()> {
            let mut piece = [[0; N]; PIECE];
            pixels.chunks(PIECE).try_for_each(|pixels| {
                piece.iter_mut().zip(pixels).for_each(|(to, &from)| *to = bytes(from));
                out.write_all(piece[..pixels.len()].as_flattened())
            })
        }
        match (self, bits_allocated) {
            (Self::I16(v), 8) => write(v, |x| [x as u8], out),
            (Self::U16(v), 8) => write(v, |x| [x as u8], out),
            (Self::I16(v), _) => write(v, i16::to_le_bytes, out),
            (Self::U16(v), _) => write(v, u16::to_le_bytes, out),
        }
    }

    /// CRC-32 (ISO-HDLC, as zip) of [`to_le_bytes`](Samples::to_le_bytes): the checksum that
    /// AWS HealthImaging states of a frame at full resolution.
    pub fn crc32(&self, bits_allocated: u16) -> u32 {
        const PIECE: usize = 2048;
        /// Hashes pixels piece by piece, as bytes on the stack.
        fn hash<T: Copy, const N: usize>(pixels: &[T], bytes: impl Fn(T) -> [u8; N]) -> u32 {
            let mut hasher = crc32fast::Hasher::new();
            let mut piece = [[0; N]; PIECE];
            for pixels in pixels.chunks(PIECE) {
                piece.iter_mut().zip(pixels).for_each(|(to, &from)| *to = bytes(from));
                hasher.update(piece[..pixels.len()].as_flattened());
            }
            hasher.finalize()
        }
        match (self, bits_allocated) {
            (Self::I16(v), 8) => hash(v, |x| [x as u8]),
            (Self::U16(v), 8) => hash(v, |x| [x as u8]),
            (Self::I16(v), _) => hash(v, i16::to_le_bytes),
            (Self::U16(v), _) => hash(v, u16::to_le_bytes),
        }
    }

    /// Pixel `index` as an integer.
    pub(super) fn value(&self, index: usize) -> Option<i32> {
        match self {
            Self::I16(v) => v.get(index).map(|&x| x.into()),
            Self::U16(v) => v.get(index).map(|&x| x.into()),
        }
    }
}

/// Samples of raw pixel words, one per pixel: bits above Bits Stored are dropped (they may hold
/// overlays or leftovers, PS3.5 section 8.1.1), and signed pixels are extended from the highest
/// stored bit.
pub(super) fn from_words(
    words: impl ExactSizeIterator<Item = u16>,
    format: &FrameFormat,
) -> Result<Samples> {
    let unused = 16 - u32::from(format.bits_stored.clamp(1, 16));
    Ok(if format.signed {
        Samples::I16(collected(words.map(|w| ((w << unused) as i16) >> unused))?)
    } else {
        Samples::U16(collected(words.map(|w| (w << unused) >> unused))?)
    })
}

/// A list of values, in memory that is asked for first.
fn collected<T>(values: impl ExactSizeIterator<Item = T>) -> Result<Vec<T>> {
    let mut list = room(values.len())?;
    list.extend(values);
    Ok(list)
}

/// Samples of a JPEG 2000 decoder's integers. `precision` and `signed` are the codestream's own.
///
/// A value outside the codestream's range is an error. Where the codestream and Pixel
/// Representation differ in sign (`codestream::check` allows it only where the width leaves no
/// doubt) the same bits are read with the other sign.
pub(super) fn from_integers(
    values: &[i32],
    precision: u32,
    signed: bool,
    format: &FrameFormat,
) -> Result<Samples> {
    if values.len() != format.pixels() {
        return Err(corrupt(format!(
            "decoded to {} pixels, the header promises {}",
            values.len(),
            format.pixels()
        )));
    }
    let (low, high) = range_of(precision, signed);
    // A pass of its own, without branches: both passes then run on whole vectors.
    let (min, max) = values.iter().fold((i32::MAX, i32::MIN), |(l, h), &v| (l.min(v), h.max(v)));
    if min < low || max > high {
        return Err(corrupt(format!("decoded to a value outside its {precision} bits")));
    }
    // Within 16 bits, so the lower half of each integer is the value in two's complement.
    let unused = 16 - precision.clamp(1, 16);
    let values = values.iter();
    Ok(match (format.signed, signed) {
        (true, true) => Samples::I16(collected(values.map(|&v| v as i16))?),
        (true, false) => {
            Samples::I16(collected(values.map(|&v| ((v as i16) << unused) >> unused))?)
        }
        (false, true) => {
            Samples::U16(collected(values.map(|&v| ((v as u16) << unused) >> unused))?)
        }
        (false, false) => Samples::U16(collected(values.map(|&v| v as u16))?),
    })
}

/// Smallest and largest integer of `bits` (1 to 16) bits.
fn range_of(bits: u32, signed: bool) -> (i32, i32) {
    let bits = bits.clamp(1, 16);
    if signed { (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) } else { (0, (1 << bits) - 1) }
}

/// Refuses samples that do not belong to `format`: their number, sign or a value beyond
/// Bits Stored.
pub(super) fn check_fit(samples: &Samples, format: &FrameFormat) -> Result<()> {
    let invalid = |what: String| Error::new(ErrorKind::InvalidImage, what);
    if samples.len() != format.pixels() {
        return Err(invalid(format!(
            "{} pixels do not make {} rows of {} columns",
            samples.len(),
            format.rows,
            format.columns
        )));
    }
    if matches!(samples, Samples::I16(_)) != format.signed {
        return Err(invalid("the pixels' sign is not that of PixelRepresentation".into()));
    }
    let (low, high) = range_of(u32::from(format.bits_stored), format.signed);
    match samples.min_max() {
        Some((min, max)) if min < low || max > high => Err(invalid(format!(
            "pixel values from {min} to {max} do not fit BitsStored {}",
            format.bits_stored
        ))),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn format(bits_allocated: u16, bits_stored: u16, signed: bool) -> FrameFormat {
        FrameFormat { rows: 1, columns: 2, bits_allocated, bits_stored, signed }
    }

    #[test]
    fn overlay_bits_are_dropped_and_the_sign_extended() {
        let words = [0xF800_u16, 0x17FF];
        assert_eq!(
            from_words(words.into_iter(), &format(16, 12, true)).unwrap(),
            Samples::I16(vec![-2048, 2047])
        );
        assert_eq!(
            from_words(words.into_iter(), &format(16, 12, false)).unwrap(),
            Samples::U16(vec![0x800, 0x7FF])
        );
    }

    #[test]
    fn integers_outside_the_precision_are_refused() {
        let f = format(16, 12, true);
        let ok = from_integers(&[-2048, 2047], 12, true, &f).unwrap();
        assert_eq!(ok, Samples::I16(vec![-2048, 2047]));
        let e = from_integers(&[-2049, 0], 12, true, &f).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::CorruptFrame);
    }

    #[test]
    fn a_codestream_of_the_other_sign_keeps_its_bits() {
        let f = format(16, 12, true);
        let s = from_integers(&[0xFFF, 1], 12, false, &f).unwrap();
        assert_eq!(s, Samples::I16(vec![-1, 1]));
    }

    #[test]
    fn checksum_is_of_the_bytes_at_their_own_width() {
        let s = Samples::I16(vec![-1, 1]);
        assert_eq!(s.to_le_bytes(8), [0xFF, 1]);
        assert_eq!(s.to_le_bytes(16), [0xFF, 0xFF, 1, 0]);
        assert_eq!(s.crc32(8), crc32fast::hash(&[0xFF, 1]));
        assert_eq!(Samples::U16(b"123456789".map(u16::from).to_vec()).crc32(8), 0xCBF4_3926);
        assert_eq!(s.min_max(), Some((-1, 1)));
    }

    #[test]
    fn bits_above_those_stored_are_dropped() {
        let mut signed = Samples::I16(vec![0x0FFF, 0x07FF, -1, 0x1801u16 as i16]);
        signed.keep_stored_bits(12);
        assert_eq!(signed, Samples::I16(vec![-1, 0x07FF, -1, -0x7FF]));
        let mut unsigned = Samples::U16(vec![0xF123, 0x0FFF]);
        unsigned.keep_stored_bits(12);
        assert_eq!(unsigned, Samples::U16(vec![0x0123, 0x0FFF]));
        unsigned.keep_stored_bits(16);
        assert_eq!(unsigned, Samples::U16(vec![0x0123, 0x0FFF]));
    }
}
