//! Uncompressed pixels, and RLE (PS3.5 annex G), which is native pixels packed plane by plane.

use super::plausible::{self, Family, room};
use super::samples::{collected, from_long_words, from_words};
use super::{FrameFormat, Samples, corrupt};
use crate::error::{Error, Result};

/// Decodes native little-endian pixels (PS3.5 sections 8.1.1 and 8.2): exactly one frame, followed
/// at most by the one byte that makes its length even.
pub(super) fn decode(data: &[u8], format: &FrameFormat) -> Result<Samples> {
    let width = usize::from(format.bits_allocated / 8);
    let bytes = format.pixels() * width;
    let padding = bytes % 2;
    if data.len() < bytes || data.len() > bytes + padding {
        return Err(corrupt(format!("{} bytes of native pixels, expected {bytes}", data.len())));
    }
    let pixels = data.get(..bytes).unwrap_or_default();
    samples_of(pixels, width, format)
}

/// Decodes little-endian pixels of `width` bytes each: 1, 2 or 4, or 8 for floating-point numbers.
pub(super) fn samples_of(pixels: &[u8], width: usize, format: &FrameFormat) -> Result<Samples> {
    let four = || pixels.as_chunks::<4>().0.iter().copied();
    match (width, format.float) {
        (1, false) => from_words(pixels.iter().map(|&b| u16::from(b)), format),
        (2, false) => {
            from_words(pixels.as_chunks().0.iter().map(|&p| u16::from_le_bytes(p)), format)
        }
        (4, false) => from_long_words(four().map(u32::from_le_bytes), format),
        (4, true) => Ok(Samples::F32(collected(four().map(f32::from_le_bytes))?)),
        (8, true) => {
            let eight = pixels.as_chunks().0.iter().map(|&p| f64::from_le_bytes(p));
            Ok(Samples::F64(collected(eight)?))
        }
        _ => Err(Error::internal(format!("there are no pixels of {width} bytes"))),
    }
}

/// Size of the RLE header: the number of segments and 15 offsets (PS3.5 section G.5).
const RLE_HEADER: usize = 64;

/// Decodes one RLE frame: one segment for each byte of a pixel, the most significant byte first.
pub(super) fn decode_rle(data: &[u8], format: &FrameFormat) -> Result<Samples> {
    let planes = usize::from(format.bits_allocated / 8);
    let header = data.get(..RLE_HEADER).ok_or_else(|| corrupt("RLE header is truncated"))?;
    let mut fields = header.chunks_exact(4).map(|c| u32::from_le_bytes([c[0], c[1], c[2], c[3]]));
    let segments = fields.next().unwrap_or(0);
    if segments as usize != planes {
        return Err(corrupt(format!("{segments} RLE segments, expected {planes}")));
    }
    let mut bounds: Vec<usize> = fields.take(planes).map(|o| o as usize).collect();
    bounds.push(data.len());
    plausible::check(Family::Rle, format, data.len())?;
    if planes > 2 {
        from_long_words(words_of(data, &bounds, format)?.into_iter(), format)
    } else {
        from_words(words_of(data, &bounds, format)?.into_iter(), format)
    }
}

/// Assembles words from the segments between `bounds`, each of which holds one byte of every word.
fn words_of<T>(data: &[u8], bounds: &[usize], format: &FrameFormat) -> Result<Vec<T>>
where
    T: Copy + Default + From<u8> + std::ops::Shl<u32, Output = T> + std::ops::BitOr<Output = T>,
{
    let pixels = format.pixels();
    let mut words = room::<T>(pixels)?;
    words.resize(pixels, T::default());
    for bound in bounds.windows(2) {
        let segment = data
            .get(bound[0].max(RLE_HEADER)..bound[1])
            .ok_or_else(|| corrupt("RLE segment lies outside its frame"))?;
        let plane = unpack(segment, pixels)?;
        for (word, byte) in words.iter_mut().zip(plane) {
            *word = *word << 8 | T::from(byte);
        }
    }
    Ok(words)
}

/// Unpacks one segment (PackBits, PS3.5 section G.3.1) to exactly `length` bytes. Anything after
/// the last byte needed is padding.
fn unpack(segment: &[u8], length: usize) -> Result<Vec<u8>> {
    let truncated = || corrupt("RLE segment is truncated");
    let fits = |out: &Vec<u8>, more: usize| {
        let room = out.len() + more <= length;
        room.then_some(()).ok_or_else(|| corrupt("RLE segment holds more pixels than the frame"))
    };
    let mut out = room(length)?;
    let mut rest = segment;
    while out.len() < length {
        let (&control, after) = rest.split_first().ok_or_else(truncated)?;
        rest = match control {
            0..=127 => {
                let (literal, after) =
                    after.split_at_checked(usize::from(control) + 1).ok_or_else(truncated)?;
                fits(&out, literal.len())?;
                out.extend_from_slice(literal);
                after
            }
            128 => after,
            129..=255 => {
                let (&byte, after) = after.split_first().ok_or_else(truncated)?;
                let count = 257 - usize::from(control);
                fits(&out, count)?;
                out.resize(out.len() + count, byte);
                after
            }
        };
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    const TWO: FrameFormat = FrameFormat {
        rows: 1,
        columns: 3,
        bits_allocated: 16,
        bits_stored: 16,
        signed: true,
        float: false,
    };

    fn rle(segments: &[&[u8]]) -> Vec<u8> {
        let mut data = vec![0; RLE_HEADER];
        data[0] = segments.len() as u8;
        for (i, segment) in segments.iter().enumerate() {
            let offset = data.len() as u32;
            data[4 + 4 * i..8 + 4 * i].copy_from_slice(&offset.to_le_bytes());
            data.extend_from_slice(segment);
        }
        data
    }

    #[test]
    fn rle_interleaves_its_planes_and_tolerates_padding() {
        // High bytes FF FF FF as a run, low bytes 1 2 3 as a literal with a no-op and padding.
        let data = rle(&[&[254, 0xFF], &[128, 2, 1, 2, 3, 0]]);
        assert_eq!(decode_rle(&data, &TWO).unwrap(), Samples::I16(vec![-255, -254, -253]));
    }

    #[test]
    fn rle_refuses_every_truncation_and_a_wrong_number_of_segments() {
        let data = rle(&[&[254, 0xFF], &[2, 1, 2, 3]]);
        for cut in 0..data.len() {
            let e = decode_rle(&data[..cut], &TWO).unwrap_err();
            assert_eq!(e.kind(), ErrorKind::CorruptFrame, "cut at {cut}");
        }
        assert!(decode_rle(&rle(&[&[254, 0xFF]]), &TWO).is_err());
        assert!(decode_rle(&rle(&[&[253, 0xFF], &[2, 1, 2, 3]]), &TWO).is_err());
    }

    fn wide(bits: u16, stored: u16, signed: bool, float: bool) -> FrameFormat {
        let (bits_allocated, bits_stored) = (bits, stored);
        FrameFormat { rows: 1, columns: 2, bits_allocated, bits_stored, signed, float }
    }

    #[test]
    fn rle_of_32_bits_has_four_segments_the_highest_byte_first() {
        let data = rle(&[&[1, 0x80, 0x7F], &[1, 0, 0xFF], &[255, 0x12], &[1, 1, 2]]);
        let signed = decode_rle(&data, &wide(32, 32, true, false)).unwrap();
        assert_eq!(signed, Samples::I32(vec![0x8000_1201_u32 as i32, 0x7FFF_1202]));
        let unsigned = decode_rle(&data, &wide(32, 20, false, false)).unwrap();
        assert_eq!(unsigned, Samples::U32(vec![0x1201, 0xF_1202]));
        for cut in 0..data.len() {
            assert!(decode_rle(&data[..cut], &wide(32, 32, true, false)).is_err(), "cut at {cut}");
        }
    }

    #[test]
    fn native_pixels_of_32_and_64_bits() {
        let of = |values: [[u8; 4]; 2]| values.as_flattened().to_vec();
        let integers = of([i32::MIN, -2].map(i32::to_le_bytes));
        let signed = decode(&integers, &wide(32, 32, true, false)).unwrap();
        assert_eq!(signed, Samples::I32(vec![i32::MIN, -2]));
        let unsigned = decode(&integers, &wide(32, 32, false, false)).unwrap();
        assert_eq!(unsigned, Samples::U32(vec![1 << 31, u32::MAX - 1]));
        let floats = of([f32::MIN_POSITIVE, -f32::MAX].map(f32::to_le_bytes));
        let float = decode(&floats, &wide(32, 32, true, true)).unwrap();
        assert_eq!(float, Samples::F32(vec![f32::MIN_POSITIVE, -f32::MAX]));
        let doubles = [0.1_f64, -1e300].map(f64::to_le_bytes);
        let double = decode(doubles.as_flattened(), &wide(64, 64, true, true)).unwrap();
        assert_eq!(double, Samples::F64(vec![0.1, -1e300]));
        for (data, format) in [(7, wide(32, 32, true, false)), (9, wide(32, 32, true, true))] {
            let e = decode(&vec![0; data], &format).unwrap_err();
            assert_eq!(e.kind(), ErrorKind::CorruptFrame);
        }
    }

    #[test]
    fn native_pixels_may_have_one_byte_of_padding_and_no_more() {
        let f = FrameFormat { bits_allocated: 8, bits_stored: 8, signed: false, ..TWO };
        assert_eq!(decode(&[1, 2, 255], &f).unwrap(), Samples::U16(vec![1, 2, 255]));
        assert_eq!(decode(&[1, 2, 255, 0], &f).unwrap(), Samples::U16(vec![1, 2, 255]));
        assert!(decode(&[1, 2], &f).is_err());
        assert!(decode(&[1, 2, 3, 4, 5], &f).is_err());
        assert!(decode(&[0; 7], &TWO).is_err());
    }
}
