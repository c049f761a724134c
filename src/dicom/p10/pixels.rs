//! Reads Pixel Data (7FE0,0010) from a file: native, or encapsulated in fragments (PS3.5 annex
//! A.4). It is read into a single buffer; frames and fragments are slices of it.

use std::io::Read;
use std::ops::Range;

use bytes::Bytes;
use dicom_core::Tag;

use super::malformed;
use super::source::{Source, reserve};
use crate::error::Result;

const ITEM: Tag = Tag(0xFFFE, 0xE000);
const SEQUENCE_END: Tag = Tag(0xFFFE, 0xE0DD);

/// Maximum number of fragments of one object; each costs as much memory as a small frame.
const MAX_FRAGMENTS: usize = 1 << 20;

/// Pixel data.
pub(super) enum Pixels {
    /// Uncompressed pixels.
    Native(Bytes),
    /// Codestreams, whole or in fragments, and the Basic Offset Table.
    Encapsulated(Fragments, Vec<u64>),
}

/// Fragments stored contiguously, without the item headers of the file.
#[derive(Debug, Default)]
pub(super) struct Fragments {
    data: Bytes,
    /// End offset of each fragment.
    ends: Vec<usize>,
}

impl Fragments {
    /// Returns the number of fragments.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Returns one fragment.
    pub fn get(&self, index: usize) -> Bytes {
        self.join(index..index + 1)
    }

    /// Returns several consecutive fragments, which must exist, as one.
    pub fn join(&self, range: Range<usize>) -> Bytes {
        let end = |count: usize| count.checked_sub(1).map_or(0, |last| self.ends[last]);
        self.data.slice(end(range.start)..end(range.end))
    }

    /// Returns all fragments in order.
    pub fn iter(&self) -> impl Iterator<Item = Bytes> {
        (0..self.len()).map(|index| self.get(index))
    }
}

#[cfg(test)]
impl FromIterator<&'static [u8]> for Fragments {
    fn from_iter<I: IntoIterator<Item = &'static [u8]>>(parts: I) -> Self {
        let (mut data, mut ends) = (Vec::new(), Vec::new());
        for part in parts {
            data.extend_from_slice(part);
            ends.push(data.len());
        }
        Self { data: data.into(), ends }
    }
}

/// Reads the value of native pixel data. Reverses the bytes of each word of `big` bytes, which
/// converts OW, OF and OD from big endian to little endian (PS3.5 section 7.3 and annex A.3).
pub(super) fn native(
    file: &mut Source<'_, '_, impl Read>,
    length: u32,
    big: Option<usize>,
) -> Result<Pixels> {
    let mut data = Vec::new();
    file.append(length.into(), &mut data)?;
    if let Some(width) = big {
        data.chunks_exact_mut(width).for_each(<[u8]>::reverse);
    }
    Ok(Pixels::Native(data.into()))
}

/// Reads the items of encapsulated pixel data. Tolerates a missing sequence end.
pub(super) fn encapsulated(file: &mut Source<'_, '_, impl Read>) -> Result<Pixels> {
    let Some(table) = item(file)? else {
        return Ok(Pixels::Encapsulated(Fragments::default(), Vec::new()));
    };
    if table % 4 != 0 || table / 4 > MAX_FRAGMENTS as u64 {
        return Err(malformed(()));
    }
    let mut bytes = Vec::new();
    file.append(table, &mut bytes)?;
    let words = bytes.chunks_exact(4).map(|w| u32::from_le_bytes([w[0], w[1], w[2], w[3]]).into());
    let offsets = words.collect();
    let (mut data, mut ends) = (Vec::new(), Vec::new());
    // Reserves for all remaining bytes, the most that can follow.
    reserve(&mut data, file.left())?;
    while let Some(length) = item(file)? {
        if ends.len() == MAX_FRAGMENTS {
            return Err(malformed(()));
        }
        file.append(length, &mut data)?;
        ends.push(data.len());
    }
    Ok(Pixels::Encapsulated(Fragments { data: data.into(), ends }, offsets))
}

/// Reads the length of the next item; `None` after the last one.
fn item(file: &mut Source<'_, '_, impl Read>) -> Result<Option<u64>> {
    if file.left() < 8 {
        return Ok(None);
    }
    let [g0, g1, e0, e1, length @ ..] = file.array::<8>()?;
    let length = u32::from_le_bytes(length);
    match Tag(u16::from_le_bytes([g0, g1]), u16::from_le_bytes([e0, e1])) {
        ITEM if u64::from(length) <= file.left() => Ok(Some(length.into())),
        SEQUENCE_END => Ok(None),
        _ => Err(malformed(())),
    }
}
