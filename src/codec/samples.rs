//! Decoded pixels: conversions between stored bytes, decoder output and [`Samples`], and the
//! figures that sources state about a frame (range, checksum).

use std::ops::{Shl, Shr};

use super::plausible::room;
use super::{FrameFormat, Samples, corrupt};
use crate::error::{Error, ErrorKind, Result};

impl Samples {
    /// Number of pixels.
    pub fn len(&self) -> usize {
        match self {
            Self::I16(v) => v.len(),
            Self::U16(v) => v.len(),
            Self::I32(v) => v.len(),
            Self::U32(v) => v.len(),
            Self::F32(v) => v.len(),
            Self::F64(v) => v.len(),
        }
    }

    /// Whether there are no pixels.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Reduces each pixel to its Bits Stored, sign-extended if two's complement (PS3.5 8.1.1): bits
    /// above them are not part of the value, whatever the codestream's precision. Does not change
    /// floating-point pixels.
    pub fn keep_stored_bits(&mut self, bits_stored: u16) {
        /// Shifts the unused bits out, then back in as copies of the sign bit or as zeros.
        fn keep<T: Copy + Shl<u32, Output = T> + Shr<u32, Output = T>>(
            values: &mut [T],
            bits_stored: u16,
        ) {
            let bits = 8 * size_of::<T>() as u32;
            let unused = bits - u32::from(bits_stored.max(1)).min(bits);
            if unused > 0 {
                values.iter_mut().for_each(|x| *x = (*x << unused) >> unused);
            }
        }
        match self {
            Self::I16(v) => keep(v, bits_stored),
            Self::U16(v) => keep(v, bits_stored),
            Self::I32(v) => keep(v, bits_stored),
            Self::U32(v) => keep(v, bits_stored),
            Self::F32(_) | Self::F64(_) => {}
        }
    }

    /// Returns the smallest and largest pixel value as stored (before rescale), or `None` if there
    /// are no pixels or a floating-point pixel is not finite.
    pub fn min_max(&self) -> Option<(f64, f64)> {
        fn range<T: Copy + Ord + Into<f64>>(values: &[T]) -> Option<(f64, f64)> {
            let first = *values.first()?;
            let (low, high) = values.iter().fold((first, first), |(l, h), &v| (l.min(v), h.max(v)));
            Some((low.into(), high.into()))
        }
        fn finite<T: Copy + Into<f64>>(values: &[T]) -> Option<(f64, f64)> {
            let (mut low, mut high) = (f64::INFINITY, f64::NEG_INFINITY);
            let mut all = !values.is_empty();
            for v in values.iter().map(|&v| v.into()) {
                all &= v.is_finite();
                (low, high) = (low.min(v), high.max(v));
            }
            all.then_some((low, high))
        }
        match self {
            Self::I16(v) => range(v),
            Self::U16(v) => range(v),
            Self::I32(v) => range(v),
            Self::U32(v) => range(v),
            Self::F32(v) => finite(v),
            Self::F64(v) => finite(v),
        }
    }

    /// Returns the pixels as little-endian bytes of `bits_allocated` bits each (8 or 16; wider
    /// pixels keep their width), two's complement if signed: the native pixel data of this frame
    /// (PS3.5 section 8.1.1). Bits above Bits Stored hold the sign or zero.
    pub fn to_le_bytes(&self, bits_allocated: u16) -> Vec<u8> {
        match (self, bits_allocated) {
            (Self::I16(v), 8) => v.iter().map(|&x| x as u8).collect(),
            (Self::U16(v), 8) => v.iter().map(|&x| x as u8).collect(),
            (Self::I16(v), _) => v.iter().flat_map(|x| x.to_le_bytes()).collect(),
            (Self::U16(v), _) => v.iter().flat_map(|x| x.to_le_bytes()).collect(),
            (Self::I32(v), _) => v.iter().flat_map(|x| x.to_le_bytes()).collect(),
            (Self::U32(v), _) => v.iter().flat_map(|x| x.to_le_bytes()).collect(),
            (Self::F32(v), _) => v.iter().flat_map(|x| x.to_le_bytes()).collect(),
            (Self::F64(v), _) => v.iter().flat_map(|x| x.to_le_bytes()).collect(),
        }
    }

    /// Writes the bytes of [`to_le_bytes`](Samples::to_le_bytes) without collecting them in memory.
    ///
    /// # Errors
    /// Propagates the errors of `out`.
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
            (Self::I32(v), _) => write(v, i32::to_le_bytes, out),
            (Self::U32(v), _) => write(v, u32::to_le_bytes, out),
            (Self::F32(v), _) => write(v, f32::to_le_bytes, out),
            (Self::F64(v), _) => write(v, f64::to_le_bytes, out),
        }
    }

    /// CRC-32 (ISO-HDLC, as in zip) of [`to_le_bytes`](Samples::to_le_bytes): the checksum that AWS
    /// HealthImaging states for a frame at full resolution.
    pub fn crc32(&self, bits_allocated: u16) -> u32 {
        const PIECE: usize = 2048;
        /// Hashes pixels in pieces, converted to bytes on the stack.
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
            (Self::I32(v), _) => hash(v, i32::to_le_bytes),
            (Self::U32(v), _) => hash(v, u32::to_le_bytes),
            (Self::F32(v), _) => hash(v, f32::to_le_bytes),
            (Self::F64(v), _) => hash(v, f64::to_le_bytes),
        }
    }

    /// Returns pixel `index` as an integer, or `None` if there is no such pixel or samples are
    /// wider than 16 bits.
    pub(super) fn value(&self, index: usize) -> Option<i32> {
        match self {
            Self::I16(v) => v.get(index).map(|&x| x.into()),
            Self::U16(v) => v.get(index).map(|&x| x.into()),
            _ => None,
        }
    }
}

/// Converts raw pixel words, one per pixel, to samples: drops bits above Bits Stored (they may hold
/// overlays or leftovers, PS3.5 section 8.1.1), and sign-extends signed pixels from the highest
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

/// Like [`from_words`], for pixels with 32 bits allocated.
pub(super) fn from_long_words(
    words: impl ExactSizeIterator<Item = u32>,
    format: &FrameFormat,
) -> Result<Samples> {
    let unused = 32 - u32::from(format.bits_stored.clamp(1, 32));
    Ok(if format.signed {
        Samples::I32(collected(words.map(|w| ((w << unused) as i32) >> unused))?)
    } else {
        Samples::U32(collected(words.map(|w| (w << unused) >> unused))?)
    })
}

/// Collects values into a list whose memory is reserved first.
pub(super) fn collected<T>(values: impl ExactSizeIterator<Item = T>) -> Result<Vec<T>> {
    let mut list = room(values.len())?;
    list.extend(values);
    Ok(list)
}

/// Converts the integers of a JPEG 2000 decoder to samples. `precision` and `signed` are the
/// codestream's own.
///
/// A value outside the codestream's range is an error. If the codestream and Pixel Representation
/// differ in sign (`codestream::check` allows this only if the width leaves no doubt), the same
/// bits are read with the other sign.
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
    // A separate pass without branches, so that both passes vectorise.
    let (min, max) = values.iter().fold((i32::MAX, i32::MIN), |(l, h), &v| (l.min(v), h.max(v)));
    if min < low || max > high {
        return Err(corrupt(format!("decoded to a value outside its {precision} bits")));
    }
    // All values fit in 16 bits, so the lower half of each integer is the value in two's
    // complement.
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

/// Gives samples that have the header's sign, but hold a codestream's values of the other sign in
/// their lowest bits, their proper values: see [`from_integers`].
pub(super) fn reinterpreted(mut samples: Samples, precision: u32, signed: bool) -> Samples {
    if signed != matches!(samples, Samples::I16(_)) {
        samples.keep_stored_bits(precision as u16);
    }
    samples
}

/// Smallest and largest integer of `bits` bits, 1 to 16.
fn range_of(bits: u32, signed: bool) -> (i32, i32) {
    let bits = bits.clamp(1, 16);
    if signed { (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) } else { (0, (1 << bits) - 1) }
}

/// Rejects samples that do not match `format` in number or sign, or exceed Bits Stored, and samples
/// of more than 16 bits, which no encoder here supports.
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
    if !format.is_narrow() || !matches!(samples, Samples::I16(_) | Samples::U16(_)) {
        return Err(invalid("pixels of more than 16 bits are not encoded".into()));
    }
    if matches!(samples, Samples::I16(_)) != format.signed {
        return Err(invalid("the pixels' sign is not that of PixelRepresentation".into()));
    }
    let (low, high) = range_of(u32::from(format.bits_stored), format.signed);
    match samples.min_max() {
        Some((min, max)) if min < f64::from(low) || max > f64::from(high) => Err(invalid(format!(
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
        FrameFormat { rows: 1, columns: 2, bits_allocated, bits_stored, signed, float: false }
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
        assert_eq!(s.min_max(), Some((-1.0, 1.0)));
    }

    #[test]
    fn long_words_keep_their_stored_bits_and_their_sign() {
        let words = || [0x8000_0000_u32, 0x7FFF_FFFF, 0xFFFF_FFFF, 0].into_iter();
        let read = |stored, signed| from_long_words(words(), &format(32, stored, signed)).unwrap();
        assert_eq!(read(32, true), Samples::I32(vec![i32::MIN, i32::MAX, -1, 0]));
        assert_eq!(read(32, false), Samples::U32(vec![1 << 31, (1 << 31) - 1, u32::MAX, 0]));
        assert_eq!(read(24, true), Samples::I32(vec![0, -1, -1, 0]));
        assert_eq!(read(24, false), Samples::U32(vec![0, 0xFF_FFFF, 0xFF_FFFF, 0]));
        assert_eq!(read(1, true), Samples::I32(vec![0, -1, -1, 0]));
        let mut samples = read(32, true);
        samples.keep_stored_bits(32);
        assert_eq!(samples, read(32, true));
        samples.keep_stored_bits(24);
        assert_eq!(samples, read(24, true));
    }

    #[test]
    fn wide_samples_are_written_summed_and_measured_as_they_are() {
        let ends = (f64::from(i32::MIN), f64::from(i32::MAX));
        for (samples, bits, bytes, range) in [
            (
                Samples::I32(vec![i32::MIN, i32::MAX]),
                32,
                vec![0, 0, 0, 128, 255, 255, 255, 127],
                Some(ends),
            ),
            (
                Samples::U32(vec![u32::MAX]),
                32,
                vec![255; 4],
                Some((4_294_967_295.0, 4_294_967_295.0)),
            ),
            (
                Samples::F32(vec![-2.0, 1.0]),
                32,
                vec![0, 0, 0, 192, 0, 0, 128, 63],
                Some((-2.0, 1.0)),
            ),
            (Samples::F64(vec![1.0]), 64, vec![0, 0, 0, 0, 0, 0, 240, 63], Some((1.0, 1.0))),
            (Samples::F32(vec![f32::NAN, 1.0]), 32, vec![0, 0, 192, 127, 0, 0, 128, 63], None),
        ] {
            assert_eq!(samples.to_le_bytes(bits), bytes);
            let mut written = Vec::new();
            samples.write_le_bytes(bits, &mut written).unwrap();
            assert_eq!(written, bytes);
            assert_eq!(samples.crc32(bits), crc32fast::hash(&bytes));
            assert_eq!(samples.min_max(), range);
        }
    }

    #[test]
    fn what_no_encoder_takes_does_not_fit() {
        let samples = Samples::I32(vec![1, 2]);
        assert!(check_fit(&samples, &format(32, 12, true)).is_err());
        assert!(check_fit(&samples, &format(16, 12, true)).is_err());
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
