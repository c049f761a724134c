//! Splits Pixel Data (7FE0,0010) into frames: native by size, encapsulated (PS3.5 annex A.4) by
//! offset tables, by fragments, or by the markers of the codestreams themselves.

use bytes::Bytes;
use dicom_dictionary_std::tags;

use super::pixels::{Fragments, Pixels};
use super::{MAX_FRAMES, P10Header, SMALLEST_ENCAPSULATED_FRAME};
use crate::dicom::{Attributes, Dataset};
use crate::error::{Error, ErrorKind, Result};

const RLE: &str = "1.2.840.10008.1.2.5";

/// Returns the number of frames that the header promises (NumberOfFrames, one if absent). Fails if
/// a file of `file_length` bytes could not hold them.
pub(super) fn promised(dataset: &Dataset, file_length: u64) -> Result<usize> {
    let frames = dataset.integer(tags::NUMBER_OF_FRAMES).unwrap_or(1);
    let most = (file_length / SMALLEST_ENCAPSULATED_FRAME).max(pixel_bound(dataset, file_length));
    let fits = |n: &u64| (1..=most.clamp(1, MAX_FRAMES)).contains(n);
    u64::try_from(frames).ok().filter(fits).map(|n| n as usize).ok_or_else(|| {
        Error::new(
            ErrorKind::InvalidImage,
            format!(
                "NumberOfFrames is {frames}, less than one or more than the file can hold \
                 ({MAX_FRAMES} at most)"
            ),
        )
    })
}

/// Returns the number of native frames of the header's size that fit into the file.
fn pixel_bound(dataset: &Dataset, file_length: u64) -> u64 {
    match native_frame_bytes(dataset) {
        Some(bytes) if bytes > 0 => file_length / bytes as u64,
        _ => 0,
    }
}

/// Returns the size of a native frame in bytes; `None` if attributes are missing or pixels are not
/// whole bytes.
fn native_frame_bytes(dataset: &Dataset) -> Option<usize> {
    let unsigned = |tag| dataset.integer(tag).and_then(|v| usize::try_from(v).ok());
    let bits = unsigned(tags::BITS_ALLOCATED)?;
    let samples = unsigned(tags::SAMPLES_PER_PIXEL).unwrap_or(1);
    if bits % 8 != 0 {
        return None;
    }
    unsigned(tags::ROWS)?
        .checked_mul(unsigned(tags::COLUMNS)?)?
        .checked_mul(samples)?
        .checked_mul(bits / 8)
}

/// Extended Offset Table (7FE0,0001) and its lengths (7FE0,0002), PS3.3 C.7.6.3.1.8.
pub(super) struct ExtendedOffsets {
    offsets: Vec<u64>,
    lengths: Vec<u64>,
}

impl ExtendedOffsets {
    /// Removes the two attributes from the data set: they describe positions in the file.
    pub(super) fn take(dataset: &mut Dataset) -> Option<Self> {
        let mut words = |tag| -> Vec<u64> {
            let element = dataset.take(tag);
            element.and_then(|e| e.value().to_multi_int().ok()).unwrap_or_default()
        };
        let offsets = words(tags::EXTENDED_OFFSET_TABLE);
        let lengths = words(tags::EXTENDED_OFFSET_TABLE_LENGTHS);
        (!offsets.is_empty()).then_some(Self { offsets, lengths })
    }
}

/// Splits pixel data into the frames that the header promises.
pub(super) fn split(
    header: &P10Header,
    pixels: Pixels,
    extended: Option<ExtendedOffsets>,
) -> Result<Vec<Bytes>> {
    match pixels {
        Pixels::Native(data) => split_native(header, data),
        Pixels::Encapsulated(fragments, offsets) => {
            split_encapsulated(header, &fragments, &offsets, extended)
        }
    }
}

fn split_native(header: &P10Header, data: Bytes) -> Result<Vec<Bytes>> {
    let frames = header.number_of_frames;
    let bytes = native_frame_bytes(&header.dataset).filter(|&b| b > 0).ok_or_else(|| {
        Error::new(
            ErrorKind::UnsupportedPixelData,
            "native pixel data needs Rows, Columns and BitsAllocated of whole bytes",
        )
    })?;
    let total = bytes.checked_mul(frames).filter(|&t| t <= data.len());
    let total = total.ok_or_else(|| {
        corrupt(format!("pixel data is {} bytes, {frames} frames take {bytes} each", data.len()))
    })?;
    if data.len() - total > total % 2 {
        return Err(corrupt(format!("pixel data is {} bytes, expected {total}", data.len())));
    }
    Ok((0..frames).map(|i| data.slice(i * bytes..(i + 1) * bytes)).collect())
}

fn split_encapsulated(
    header: &P10Header,
    fragments: &Fragments,
    basic: &[u64],
    extended: Option<ExtendedOffsets>,
) -> Result<Vec<Bytes>> {
    let frames = header.number_of_frames;
    if let Some(table) = extended {
        return by_extended_offsets(frames, fragments, &table);
    }
    if fragments.len() == frames {
        return Ok(fragments.iter().collect());
    }
    if fragments.len() > frames {
        if frames == 1 && header.transfer_syntax != RLE {
            return Ok(vec![fragments.join(0..fragments.len())]);
        }
        if basic.len() == frames {
            return by_basic_offsets(fragments, basic);
        }
        // An RLE frame is a single fragment (PS3.5 A.4.2) and has no end marker.
        if header.transfer_syntax != RLE {
            return by_end_markers(frames, fragments);
        }
    }
    Err(corrupt(format!("{} fragments do not make {frames} frames", fragments.len())))
}

/// Returns the offset of each fragment's item from the first item.
fn item_offsets(fragments: &Fragments) -> Vec<u64> {
    let mut next = 0;
    let item = |fragment: Bytes| {
        let offset = next;
        next += 8 + fragment.len() as u64;
        offset
    };
    fragments.iter().map(item).collect()
}

/// Each frame is the single fragment at its offset, cut to its length.
fn by_extended_offsets(
    frames: usize,
    fragments: &Fragments,
    table: &ExtendedOffsets,
) -> Result<Vec<Bytes>> {
    if table.offsets.len() != frames || table.lengths.len() != frames {
        return Err(corrupt(format!(
            "ExtendedOffsetTable has {} offsets and {} lengths for {frames} frames",
            table.offsets.len(),
            table.lengths.len()
        )));
    }
    if !table.offsets.is_sorted_by(|a, b| a < b) {
        return Err(corrupt("ExtendedOffsetTable is not in the order of the frames"));
    }
    let items = item_offsets(fragments);
    let frame = |(offset, length): (&u64, &u64)| {
        let index = items.binary_search(offset).ok()?;
        let fragment = fragments.get(index);
        let length = usize::try_from(*length).ok().filter(|&n| n > 0 && n <= fragment.len())?;
        Some(fragment.slice(..length))
    };
    table
        .offsets
        .iter()
        .zip(&table.lengths)
        .map(|entry| {
            frame(entry).ok_or_else(|| corrupt("ExtendedOffsetTable points outside the fragments"))
        })
        .collect()
}

/// Each frame consists of the fragments from its offset to the next frame's.
fn by_basic_offsets(fragments: &Fragments, offsets: &[u64]) -> Result<Vec<Bytes>> {
    let items = item_offsets(fragments);
    let starts: Option<Vec<usize>> =
        offsets.iter().map(|offset| items.binary_search(offset).ok()).collect();
    let mut bounds = starts
        .filter(|s| s.first() == Some(&0) && s.is_sorted_by(|a, b| a < b))
        .ok_or_else(|| corrupt("the Basic Offset Table does not fit the fragments"))?;
    bounds.push(fragments.len());
    Ok(bounds.windows(2).map(|b| fragments.join(b[0]..b[1])).collect())
}

/// Each frame ends with the fragment that ends with EOI or EOC (FFD9), ignoring padding.
fn by_end_markers(frames: usize, fragments: &Fragments) -> Result<Vec<Bytes>> {
    let ends = |fragment: &Bytes| {
        let padding = fragment.iter().rev().take_while(|&&b| b == 0).count();
        fragment[..fragment.len() - padding].ends_with(&[0xFF, 0xD9])
    };
    let mut found = Vec::new();
    let mut start = 0;
    for (index, fragment) in fragments.iter().enumerate() {
        if ends(&fragment) {
            found.push(fragments.join(start..index + 1));
            start = index + 1;
        }
    }
    if found.len() != frames || start != fragments.len() {
        return Err(corrupt(format!(
            "{} fragments without an offset table do not make {frames} frames",
            fragments.len()
        )));
    }
    Ok(found)
}

fn corrupt(what: impl Into<String>) -> Error {
    Error::new(ErrorKind::CorruptFrame, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(frames: usize, transfer_syntax: &str) -> P10Header {
        P10Header {
            dataset: Dataset::new_empty(),
            transfer_syntax: transfer_syntax.into(),
            sop_instance_uid: "1.2".into(),
            sop_class_uid: "1.3".into(),
            number_of_frames: frames,
        }
    }

    fn fragments(parts: &[&'static [u8]]) -> Fragments {
        parts.iter().copied().collect()
    }

    fn frames(parts: &[&'static [u8]]) -> Vec<Bytes> {
        parts.iter().map(|p| Bytes::from_static(p)).collect()
    }

    const JPEG: &str = "1.2.840.10008.1.2.4.70";

    #[test]
    fn fragments_group_by_basic_offsets() {
        let parts = fragments(&[b"ab", b"cd", b"ef"]);
        let got = split_encapsulated(&header(2, JPEG), &parts, &[0, 20], None).unwrap();
        assert_eq!(got, frames(&[b"abcd", b"ef"]));
        for wrong in [[0, 11], [10, 20], [0, 0]] {
            assert!(split_encapsulated(&header(2, JPEG), &parts, &wrong, None).is_err());
        }
    }

    #[test]
    fn one_frame_takes_all_fragments_but_not_in_rle() {
        let parts = fragments(&[b"ab", b"cd"]);
        let got = split_encapsulated(&header(1, JPEG), &parts, &[], None).unwrap();
        assert_eq!(got, frames(&[b"abcd"]));
        assert!(split_encapsulated(&header(1, RLE), &parts, &[], None).is_err());
        assert!(split_encapsulated(&header(3, JPEG), &parts, &[], None).is_err());
    }

    #[test]
    fn end_markers_are_the_last_resort() {
        let parts = fragments(&[b"ab", b"c\xFF\xD9\0", b"de\xFF\xD9"]);
        let got = split_encapsulated(&header(2, JPEG), &parts, &[], None).unwrap();
        assert_eq!(got, frames(&[b"abc\xFF\xD9\0", b"de\xFF\xD9"]));
        let cut = fragments(&[b"ab", b"c\xFF\xD9\0", b"de"]);
        assert!(split_encapsulated(&header(2, JPEG), &cut, &[], None).is_err());
    }

    #[test]
    fn extended_offsets_cut_the_padding() {
        let parts = fragments(&[b"abc\0", b"de"]);
        let table = |offsets: &[u64], lengths: &[u64]| {
            Some(ExtendedOffsets { offsets: offsets.to_vec(), lengths: lengths.to_vec() })
        };
        let split = |t| split_encapsulated(&header(2, JPEG), &parts, &[], t);
        assert_eq!(split(table(&[0, 12], &[3, 2])).unwrap(), frames(&[b"abc", b"de"]));
        assert!(split(table(&[0, 12], &[5, 2])).is_err());
        assert!(split(table(&[0, 13], &[3, 2])).is_err());
        assert!(split(table(&[0, 0], &[3, 3])).is_err());
        assert!(split(table(&[0], &[3])).is_err());
    }
}
