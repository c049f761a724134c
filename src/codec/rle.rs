//! Encodes frames as RLE Lossless (PS3.5 annex G): the bytes of the pixels, plane by plane, each
//! plane packed row by row.

use super::samples::check_fit;
use super::{FrameFormat, Samples};
use crate::error::{Error, Result};

/// Size of the header: the number of segments and 15 offsets (PS3.5 section G.5).
const HEADER: usize = 64;

/// Most bytes that one control byte can represent (PS3.5 section G.3.1).
const LONGEST: usize = 128;

/// Encodes a frame of 8 or 16 bits as RLE Lossless: one segment for each byte of a pixel, the most
/// significant byte first, each padded to an even length.
///
/// # Errors
/// [`InvalidImage`](crate::error::ErrorKind::InvalidImage) if the samples do not fit the format.
pub fn encode_rle(samples: &Samples, format: &FrameFormat) -> Result<Vec<u8>> {
    check_fit(samples, format)?;
    let planes = u32::from(format.bits_allocated / 8);
    let mut out = vec![0; HEADER];
    let mut row = Vec::with_capacity(format.columns as usize);
    set(&mut out, 0, planes as usize)?;
    for plane in 0..planes {
        let start = out.len();
        set(&mut out, 1 + plane as usize, start)?;
        let shift = 8 * (planes - 1 - plane);
        for y in 0..format.rows as usize {
            let first = y * format.columns as usize;
            row.clear();
            // `check_fit` has verified the number of pixels.
            let pixels = first..first + format.columns as usize;
            row.extend(pixels.map(|i| (samples.value(i).unwrap_or(0) >> shift) as u8));
            pack(&row, &mut out);
        }
        if !out.len().is_multiple_of(2) {
            out.push(0);
        }
    }
    Ok(out)
}

/// Returns the maximum encoded size of a frame in bytes: rows without any run.
pub fn longest_rle(format: &FrameFormat) -> u64 {
    let columns = u64::from(format.columns);
    let row = columns + columns.div_ceil(LONGEST as u64);
    let plane = u64::from(format.rows) * row + 1;
    HEADER as u64 + u64::from(format.bits_allocated / 8) * plane
}

/// Sets a field of the header.
fn set(out: &mut [u8], field: usize, value: usize) -> Result<()> {
    let value = u32::try_from(value).ok();
    let place = out.get_mut(4 * field..4 * field + 4);
    let (Some(value), Some(place)) = (value, place) else {
        return Err(Error::internal("an RLE frame of more than 4 GiB or 15 segments"));
    };
    place.copy_from_slice(&value.to_le_bytes());
    Ok(())
}

/// Packs one row (PackBits): a run of equal bytes becomes a count and one byte, other bytes a
/// literal with its length. Two equal bytes next to other bytes stay in their literal, because
/// splitting it saves nothing.
fn pack(row: &[u8], out: &mut Vec<u8>) {
    let (mut rest, mut others) = (row, 0);
    let mut at = 0;
    for run in row.chunk_by(|a, b| a == b) {
        at += run.len();
        if run.len() < 3 && (run.len() == 1 || others > 0) {
            others += run.len();
            continue;
        }
        literal(&rest[..others], out);
        for piece in run.chunks(LONGEST) {
            // For a single byte this is 0, which means a literal of one byte.
            out.push((2 * LONGEST + 1 - piece.len()) as u8);
            out.push(run[0]);
        }
        (rest, others) = (&row[at..], 0);
    }
    literal(rest, out);
}

/// Writes bytes as literals.
fn literal(bytes: &[u8], out: &mut Vec<u8>) {
    for piece in bytes.chunks(LONGEST) {
        out.push((piece.len() - 1) as u8);
        out.extend_from_slice(piece);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::decode;
    use super::*;

    const RLE: &str = "1.2.840.10008.1.2.5";

    fn packed(row: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        pack(row, &mut out);
        out
    }

    #[test]
    fn rows_are_packed_as_the_standard_says() {
        assert!(packed(&[]).is_empty());
        assert_eq!(packed(&[7]), [0, 7]);
        assert_eq!(packed(&[7, 7]), [255, 7]);
        assert_eq!(packed(&[1, 7, 7, 2]), [3, 1, 7, 7, 2]);
        assert_eq!(packed(&[1, 7, 7, 7, 2, 2]), [0, 1, 254, 7, 255, 2]);
        assert_eq!(packed(&[5; 128]), [129, 5]);
        // The remaining single byte of the run becomes a literal.
        assert_eq!(packed(&[5; 129]), [129, 5, 0, 5]);
        let different: Vec<u8> = (0..200).collect();
        let out = packed(&different);
        assert_eq!((out.len(), out[0], out[129]), (202, 127, 71));
    }

    #[test]
    fn the_header_names_the_segments() {
        let format = FrameFormat {
            rows: 1,
            columns: 3,
            bits_allocated: 16,
            bits_stored: 16,
            signed: false,
            float: false,
        };
        let out = encode_rle(&Samples::U16(vec![0x0102, 0x0103, 0x0104]), &format).unwrap();
        assert_eq!(out[..12], [2, 0, 0, 0, 64, 0, 0, 0, 66, 0, 0, 0]);
        assert_eq!(out[64..], [254, 1, 2, 2, 3, 4]);
        assert!(encode_rle(&Samples::U16(vec![1]), &format).is_err());
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(
            (rows, columns) in (1_u32..9, 1_u32..300),
            deep in any::<bool>(),
            signed in any::<bool>(),
            longest in 1_usize..200,
            values in 1_u16..400,
            seed in any::<u64>(),
        ) {
            let bits = if deep { 16 } else { 8 };
            let format = FrameFormat {
                rows, columns, bits_allocated: bits, bits_stored: bits, signed, float: false,
            };
            let mut state = seed | 1;
            let mut next = |below: usize| {
                state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                (state >> 33) as usize % below
            };
            let mut pixels: Vec<u16> = Vec::new();
            while pixels.len() < format.pixels() {
                let value = next(usize::from(values)) as u16 & if deep { u16::MAX } else { 127 };
                pixels.resize(pixels.len() + 1 + next(longest), value);
            }
            pixels.truncate(format.pixels());
            let samples = match signed {
                true => Samples::I16(pixels.iter().map(|&v| v as i16).collect()),
                false => Samples::U16(pixels),
            };
            let out = encode_rle(&samples, &format).unwrap();
            prop_assert!(out.len().is_multiple_of(2) && out.len() as u64 <= longest_rle(&format));
            prop_assert_eq!(decode(RLE, &out, &format).unwrap(), samples);
        }
    }
}
