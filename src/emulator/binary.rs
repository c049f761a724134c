//! Frames with one bit per pixel: those of binary segmentations (PS3.5 section 8.1.1 and PS3.3
//! C.8.20.2).
//!
//! In a file, frames are packed without gaps, least significant bit first. Here each frame starts
//! on a byte boundary, so that it can be stored and sent separately.

use bytes::Bytes;
use dicom_dictionary_std::tags;

use super::originals::native_pixels_at_end;
use crate::dicom::{Attributes, Dataset};

/// Returns the number of bits per frame if pixels have one bit each.
pub(super) fn bits_of_a_frame(dataset: &Dataset) -> Option<usize> {
    if dataset.integer(tags::BITS_ALLOCATED) != Some(1) {
        return None;
    }
    let side = |tag| dataset.integer(tag).and_then(|n| usize::try_from(n).ok());
    side(tags::ROWS)?.checked_mul(side(tags::COLUMNS)?).filter(|bits| *bits > 0)
}

/// Splits the pixel data at the end of an explicit VR little endian file into frames.
pub(super) fn frames(file: &Bytes, dataset: &Dataset, number: usize) -> Option<Vec<Bytes>> {
    let bits = bits_of_a_frame(dataset)?;
    let bytes = bits.checked_mul(number)?.div_ceil(8);
    let start = native_pixels_at_end(file, bytes as u64)?;
    let data = file.slice(start..start.checked_add(bytes)?);
    if bits.is_multiple_of(8) {
        let frame = bits / 8;
        return Some((0..number).map(|i| data.slice(i * frame..(i + 1) * frame)).collect());
    }
    Some((0..number).map(|i| take(&data, i * bits, bits).into()).collect())
}

/// Extracts `bits` bits of `data`, starting at bit `from`; the caller ensures that they exist.
fn take(data: &[u8], from: usize, bits: usize) -> Vec<u8> {
    let (first, shift) = (from / 8, from % 8);
    let byte = |at: usize| data.get(at).copied().unwrap_or(0);
    let mut out: Vec<u8> = (0..bits.div_ceil(8))
        .map(|i| {
            let word = u16::from_le_bytes([byte(first + i), byte(first + i + 1)]);
            (word >> shift) as u8
        })
        .collect();
    if let Some(last) = out.last_mut().filter(|_| !bits.is_multiple_of(8)) {
        *last &= (1 << (bits % 8)) - 1;
    }
    out
}

/// Packs frames of `bits` bits without gaps, as in a file.
pub(super) fn join(frames: &[Bytes], bits: usize) -> Vec<u8> {
    let mut out = vec![0; bits.saturating_mul(frames.len()).div_ceil(8)];
    for (index, frame) in frames.iter().enumerate() {
        let (first, shift) = (index * bits / 8, index * bits % 8);
        for (i, &byte) in frame.iter().take(bits.div_ceil(8)).enumerate() {
            let [low, high] = (u16::from(byte) << shift).to_le_bytes();
            for (at, part) in [(first + i, low), (first + i + 1, high)] {
                if let Some(out) = out.get_mut(at) {
                    *out |= part;
                }
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use dicom_core::{DataElement, PrimitiveValue, VR};
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn frames_come_apart_and_together(
            rows in 1_u16..7, columns in 1_u16..7, number in 1_usize..6, seed in any::<[u8; 32]>()
        ) {
            let bits = usize::from(rows) * usize::from(columns);
            let length = (bits * number).div_ceil(8);
            let mut pixels: Vec<u8> = seed.iter().copied().cycle().take(length).collect();
            let unused = 8 * length - bits * number;
            *pixels.last_mut().unwrap() &= 0xFF >> unused;
            let even = (length + length % 2) as u32;
            let file = [
                b"\xE0\x7F\x10\0OB\0\0", &even.to_le_bytes()[..], &pixels, &[0][..length % 2],
            ].concat();
            let word = |tag, value: u16| DataElement::new(tag, VR::US, PrimitiveValue::from(value));
            let dataset = Dataset::from_element_iter([
                word(tags::BITS_ALLOCATED, 1), word(tags::ROWS, rows), word(tags::COLUMNS, columns),
            ]);
            let apart = frames(&file.into(), &dataset, number).unwrap();
            prop_assert_eq!(apart.len(), number);
            for (index, frame) in apart.iter().enumerate() {
                for bit in 0..bits {
                    let whole = index * bits + bit;
                    prop_assert_eq!(
                        frame[bit / 8] >> (bit % 8) & 1, pixels[whole / 8] >> (whole % 8) & 1
                    );
                }
            }
            prop_assert_eq!(join(&apart, bits), pixels);
        }
    }
}
