//! Writes elements in Implicit VR Little Endian (PS3.5 7.1.3) sequentially. A structure set may have
//! hundreds of thousands of contours, and a data set in memory would be many times their size.

use dicom_core::Tag;

use crate::error::{Error, Result};

/// A buffer of encoded elements.
#[derive(Debug, Default)]
pub(super) struct Elements {
    bytes: Vec<u8>,
}

/// An element or item whose value is being written.
#[must_use]
pub(super) struct Begun {
    value: usize,
}

/// Item (PS3.5 7.5).
const ITEM: Tag = Tag(0xFFFE, 0xE000);

impl Elements {
    /// Reserves memory for `bytes` more bytes.
    pub fn reserve(&mut self, bytes: usize) {
        self.bytes.reserve_exact(bytes);
    }

    /// Begins an element; everything written until its end is its value.
    pub fn begin(&mut self, tag: Tag) -> Begun {
        let Tag(group, element) = tag;
        self.bytes.extend(group.to_le_bytes());
        self.bytes.extend(element.to_le_bytes());
        self.bytes.extend([0; 4]);
        Begun { value: self.bytes.len() }
    }

    /// Begins an item of a sequence.
    pub fn begin_item(&mut self) -> Begun {
        self.begin(ITEM)
    }

    /// Ends the element or item begun last and fills in its length.
    pub fn end(&mut self, begun: Begun) -> Result<()> {
        let length = self.bytes.len().checked_sub(begun.value);
        let length = length.and_then(|length| u32::try_from(length).ok());
        let place = begun.value.checked_sub(4).and_then(|at| self.bytes.get_mut(at..begun.value));
        let (Some(length), Some(place)) = (length, place) else {
            return Err(Error::internal("an element of an RT Structure Set beyond 4 GiB"));
        };
        place.copy_from_slice(&length.to_le_bytes());
        Ok(())
    }

    /// Writes a text element, padded to an even number of bytes.
    pub fn text(&mut self, tag: Tag, text: &str) -> Result<()> {
        let element = self.begin(tag);
        self.bytes.extend(text.as_bytes());
        self.pad(&element, b' ');
        self.end(element)
    }

    /// Writes an element of unsigned 16-bit numbers.
    pub fn u16s(&mut self, tag: Tag, values: &[u16]) -> Result<()> {
        let element = self.begin(tag);
        values.iter().for_each(|value| self.bytes.extend(value.to_le_bytes()));
        self.end(element)
    }

    /// Writes a UID element.
    pub fn uid(&mut self, tag: Tag, uid: &str) -> Result<()> {
        let element = self.begin(tag);
        self.bytes.extend(uid.as_bytes());
        self.pad(&element, 0);
        self.end(element)
    }

    /// Pads the value of the element begun last to an even number of bytes.
    pub fn pad(&mut self, begun: &Begun, with: u8) {
        if self.bytes.len().wrapping_sub(begun.value) % 2 == 1 {
            self.bytes.push(with);
        }
    }

    /// Appends already encoded elements.
    pub fn append(&mut self, bytes: &[u8]) {
        self.bytes.extend(bytes);
    }

    /// Returns the buffer for values that are written byte by byte.
    pub fn bytes_mut(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    /// Clears the buffer but keeps its memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
    }

    /// Returns the bytes written so far.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Returns the number of bytes.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Returns the buffer.
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use dicom_dictionary_std::tags;
    use dicom_object::InMemDicomObject;
    use dicom_transfer_syntax_registry::entries::IMPLICIT_VR_LITTLE_ENDIAN;

    use super::*;

    #[test]
    fn what_is_written_is_read_by_a_library() {
        let mut elements = Elements::default();
        let sequence = elements.begin(tags::ROI_CONTOUR_SEQUENCE);
        for number in ["1", "22"] {
            let item = elements.begin_item();
            elements.text(tags::REFERENCED_ROI_NUMBER, number).unwrap();
            elements.end(item).unwrap();
        }
        elements.end(sequence).unwrap();
        let bytes = elements.into_bytes();
        let read =
            InMemDicomObject::read_dataset_with_ts(&bytes[..], &IMPLICIT_VR_LITTLE_ENDIAN.erased())
                .unwrap();
        let items = read.element(tags::ROI_CONTOUR_SEQUENCE).unwrap().items().unwrap();
        let number = |item: &InMemDicomObject| {
            item.element(tags::REFERENCED_ROI_NUMBER).unwrap().to_int::<i32>().unwrap()
        };
        assert_eq!(items.iter().map(number).collect::<Vec<_>>(), [1, 22]);
    }
}
