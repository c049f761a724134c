//! Encoded frame to samples: one table of transfer syntaxes and who decodes each.

use crate::dicom::{Attributes, Dataset};
use crate::error::{Error, ErrorKind, Result};
use dicom_dictionary_std::tags;

/// How a frame's pixels are laid out (Image Pixel Module, PS3.3 C.7.6.3). Monochrome only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameFormat {
    /// Rows (0028,0010).
    pub rows: u32,
    /// Columns (0028,0011).
    pub columns: u32,
    /// Bits Allocated (0028,0100): 8 or 16.
    pub bits_allocated: u16,
    /// Bits Stored (0028,0101).
    pub bits_stored: u16,
    /// Pixel Representation (0028,0103) is 1: two's complement.
    pub signed: bool,
}

impl FrameFormat {
    /// Reads the format from an instance's header; an error names the attribute that is missing or
    /// that no decoder here supports (colour, bits other than 8 and 16).
    pub fn from_dataset(dataset: &Dataset) -> Result<Self> {
        let unsupported = |what: String| Error::new(ErrorKind::UnsupportedPixelData, what);
        let samples = dataset.integer(tags::SAMPLES_PER_PIXEL).unwrap_or(1);
        if samples != 1 {
            return Err(unsupported(format!(
                "SamplesPerPixel is {samples}; only monochrome images can be segmented"
            )));
        }
        let dimension = |tag, keyword| -> Result<u32> {
            let value = dataset.required_integer(tag)?;
            if !(1..=65_535).contains(&value) {
                return Err(Error::new(
                    ErrorKind::InvalidImage,
                    format!("{keyword} is {value}; it must be 1 to 65535"),
                ));
            }
            Ok(value as u32)
        };
        let bits_allocated = dataset.required_integer(tags::BITS_ALLOCATED)?;
        let bits_stored = dataset.integer(tags::BITS_STORED).unwrap_or(bits_allocated);
        if !matches!(bits_allocated, 8 | 16) || !(1..=bits_allocated).contains(&bits_stored) {
            return Err(unsupported(format!(
                "BitsAllocated {bits_allocated} with BitsStored {bits_stored} is not supported; \
                 8 or 16 bits are"
            )));
        }
        Ok(Self {
            rows: dimension(tags::ROWS, "Rows")?,
            columns: dimension(tags::COLUMNS, "Columns")?,
            bits_allocated: bits_allocated as u16,
            bits_stored: bits_stored as u16,
            signed: dataset.integer(tags::PIXEL_REPRESENTATION).unwrap_or(0) == 1,
        })
    }

    /// Pixels in a frame.
    pub fn pixels(&self) -> usize {
        self.rows as usize * self.columns as usize
    }
}

/// A decoded frame, row by row. 8-bit pixels are widened to 16 bits of the same signedness.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Samples {
    /// Two's complement pixels.
    I16(Vec<i16>),
    /// Unsigned pixels.
    U16(Vec<u16>),
}
