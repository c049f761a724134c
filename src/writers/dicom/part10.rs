//! A Part 10 file as it grows.

use dicom_core::Tag;
use dicom_dictionary_std::tags;
use dicom_object::FileMetaTableBuilder;

use crate::dicom::Dataset;
use crate::error::{Error, Result};

/// Largest even length below FFFFFFFFH, which means another encoding (PS3.5 7.1.2).
pub(in crate::writers) const LARGEST_VALUE: u32 = u32::MAX - 1;

/// A Part 10 file: everything but the pixel data is encoded by `dicom-object`, then the pixel data is
/// written in place, so that it is never held twice.
pub(in crate::writers) struct Part10 {
    bytes: Vec<u8>,
}

impl Part10 {
    /// The file of `object` in a transfer syntax that `dicom-object` can write.
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

    /// Adds Pixel Data (7FE0,0010), the last element of the data set, of `length` bytes, an even number,
    /// as OB in explicit VR little endian, and returns its zeroed value.
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

    /// The finished file.
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }
}
