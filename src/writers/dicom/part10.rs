//! Builds Part 10 files.

use dicom_core::Tag;
use dicom_dictionary_std::tags;
use dicom_object::FileMetaTableBuilder;

use crate::dicom::Dataset;
use crate::error::{Error, Result};

/// Largest even length below FFFFFFFFH, which would mean undefined length (PS3.5 7.1.2).
pub(in crate::writers) const LARGEST_VALUE: u32 = u32::MAX - 1;

/// A Part 10 file. Everything but the pixel data is encoded by `dicom-object`; the pixel data is then
/// written in place, so it is never held twice.
pub(in crate::writers) struct Part10 {
    bytes: Vec<u8>,
}

impl Part10 {
    /// Encodes `object` in a transfer syntax that `dicom-object` supports.
    pub fn new(object: Dataset, transfer_syntax: &str) -> Result<Self> {
        let defect = |e: Box<dyn std::error::Error + Send + Sync>| {
            Error::internal("a DICOM object of the result cannot be encoded").caused_by(e)
        };
        let meta = FileMetaTableBuilder::new().transfer_syntax(transfer_syntax);
        let file = object.with_meta(meta).map_err(|e| defect(e.into()))?;
        let mut bytes = Vec::new();
        file.write_all(&mut bytes).map_err(|e| defect(e.into()))?;
        Ok(Self { bytes })
    }

    /// Appends Pixel Data (7FE0,0010), the last element of the data set, as OB in explicit VR little
    /// endian. `length` is in bytes and must be even. Returns its zeroed value.
    pub fn append_pixel_data(&mut self, length: usize) -> Result<&mut [u8]> {
        let length = u32::try_from(length)
            .ok()
            .filter(|&length| length <= LARGEST_VALUE && length.is_multiple_of(2))
            .ok_or_else(|| Error::internal(format!("{length} bytes in one DICOM element")))?;
        let Tag(group, element) = tags::PIXEL_DATA;
        self.bytes.extend(group.to_le_bytes());
        self.bytes.extend(element.to_le_bytes());
        self.bytes.extend(b"OB\0\0");
        self.bytes.extend(length.to_le_bytes());
        let start = self.bytes.len();
        self.bytes.resize(start + length as usize, 0);
        Ok(self.bytes.get_mut(start..).unwrap_or_default())
    }

    /// Returns the bytes of the file of `object` before and after the position of an absent element, so
    /// that the caller can write that element in between.
    pub fn split(object: Dataset, transfer_syntax: &str, at: Tag) -> Result<(Vec<u8>, Vec<u8>)> {
        let mut before = object.clone();
        let after: Vec<Tag> = before.tags().filter(|&tag| tag >= at).collect();
        for tag in after {
            before.remove_element(tag);
        }
        let before = Self::new(before, transfer_syntax)?.bytes;
        let mut whole = Self::new(object, transfer_syntax)?.bytes;
        if !whole.starts_with(&before) {
            return Err(Error::internal("a DICOM object of the result cannot be encoded in parts"));
        }
        let after = whole.split_off(before.len());
        Ok((whole, after))
    }

    /// Returns the finished file.
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use dicom_core::VR;
    use dicom_dictionary_std::uids;

    use super::*;
    use crate::writers::dicom::Put;

    #[test]
    fn a_file_is_split_at_an_element() {
        let mut object = Dataset::new_empty();
        object.put_text(tags::SOP_CLASS_UID, VR::UI, "1.2");
        object.put_text(tags::SOP_INSTANCE_UID, VR::UI, "1.2.3");
        object.put_text(tags::PATIENT_NAME, VR::PN, "A^B");
        object.put_text(tags::STUDY_ID, VR::SH, "7");
        let syntax = uids::IMPLICIT_VR_LITTLE_ENDIAN;
        let whole = Part10::new(object.clone(), syntax).unwrap().into_bytes();
        let (before, after) = Part10::split(object, syntax, tags::SERIES_NUMBER).unwrap();
        assert_eq!(after, b"");
        assert_eq!(before, whole);
        let mut object = Dataset::new_empty();
        object.put_text(tags::SOP_CLASS_UID, VR::UI, "1.2");
        object.put_text(tags::SOP_INSTANCE_UID, VR::UI, "1.2.3");
        object.put_text(tags::STUDY_ID, VR::SH, "7");
        let (before, after) = Part10::split(object, syntax, tags::PATIENT_NAME).unwrap();
        // Study ID (0020,0010) with a value of two bytes.
        assert_eq!(after, b"\x20\0\x10\0\x02\0\0\x007 ");
        assert!(before.ends_with(b"1.2.3\0"));
    }
}
