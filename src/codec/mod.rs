//! Encoded frame to samples: one table of transfer syntaxes and who decodes each.
//!
//! Frames come from the network and from files, so nothing in them is believed: what a codestream
//! says of its size is compared with the DICOM header before anything is allocated, data that ends
//! early is an error and never zeros, and a decoder's panic is an error of that frame alone.
//! Decoding is plain computation on the caller's thread; callers decode frames in parallel.

mod codestream;
mod htj2k;
mod jpeg;
mod jpeg12;
mod jpeg2000;
mod jpegls;
mod jpegls_header;
mod jpegxl;
mod native;
mod openjp2_ffi;
mod packets;
mod plausible;
mod samples;
mod table;

use std::panic::{AssertUnwindSafe, catch_unwind};

pub use htj2k::encode_htj2k;
pub use table::{Decoder, TransferSyntaxEntry, transfer_syntaxes};

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
        if let Some(high_bit) = dataset.integer(tags::HIGH_BIT)
            && high_bit != bits_stored - 1
        {
            return Err(unsupported(format!(
                "HighBit is {high_bit} where BitsStored is {bits_stored}; values that do not end at \
                 bit 0 are not supported"
            ))
            .with("attribute", "HighBit"));
        }
        let signed = match dataset.required_integer(tags::PIXEL_REPRESENTATION)? {
            0 => false,
            1 => true,
            other => {
                return Err(Error::new(
                    ErrorKind::InvalidImage,
                    format!("PixelRepresentation is {other}; it must be 0 or 1"),
                )
                .with("attribute", "PixelRepresentation"));
            }
        };
        Ok(Self {
            rows: dimension(tags::ROWS, "Rows")?,
            columns: dimension(tags::COLUMNS, "Columns")?,
            bits_allocated: bits_allocated as u16,
            bits_stored: bits_stored as u16,
            signed,
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

/// Decodes one frame, exactly as its encoder was given it where the transfer syntax is lossless.
///
/// `data` is the whole frame, of all its fragments, with or without the padding to an even length.
/// Fails with [`CorruptFrame`](ErrorKind::CorruptFrame) where the frame is truncated, does not
/// decode, or differs from `format` in size, components or depth, and with
/// [`UnsupportedPixelData`](ErrorKind::UnsupportedPixelData) where nothing here takes the transfer
/// syntax or this form of it.
pub fn decode(transfer_syntax: &str, data: &[u8], format: &FrameFormat) -> Result<Samples> {
    let entry = lookup(transfer_syntax)?;
    for &decoder in entry.decoders {
        if let Some(samples) = attempt(decoder, entry, data, format)? {
            return Ok(samples);
        }
    }
    Err(unreadable_form(entry))
}

/// Bytes that decoding one frame takes at most, its encoded bytes aside: what a decoder works in and
/// the samples it makes. Nothing is known of a transfer syntax that is not decoded.
pub fn working_bytes(transfer_syntax: &str, format: &FrameFormat) -> u64 {
    let each = match lookup(transfer_syntax).map(|entry| entry.decoders) {
        Ok([Decoder::Native]) => 2,
        Ok([Decoder::JpegLs]) => 2 + 2,
        Ok([Decoder::JpegXl]) => return jpegxl::working_bytes(format),
        Ok([Decoder::Rle]) => 2 + 2 + 1,
        // Coefficients of a progressive image, its bytes, and the samples.
        Ok([Decoder::Jpeg]) => 2 + 2 + 2,
        // A tile and the image at four bytes each, code-blocks, and the samples.
        Ok(_) => 4 + 4 + 2 + 2,
        Err(_) => 0,
    };
    each * format.pixels() as u64
}

/// As [`decode`], by `decoder` alone: for tests that compare decoders and for measuring them.
pub fn decode_with(
    decoder: Decoder,
    transfer_syntax: &str,
    data: &[u8],
    format: &FrameFormat,
) -> Result<Samples> {
    let entry = lookup(transfer_syntax)?;
    if !entry.decoders.contains(&decoder) {
        return Err(Error::new(
            ErrorKind::UnsupportedPixelData,
            format!("{decoder} does not decode {}", entry.name),
        ));
    }
    attempt(decoder, entry, data, format)?.ok_or_else(|| unreadable_form(entry))
}

/// `Ok(None)` where the frame is sound but of a form this decoder cannot read.
fn attempt(
    decoder: Decoder,
    entry: &TransferSyntaxEntry,
    data: &[u8],
    format: &FrameFormat,
) -> Result<Option<Samples>> {
    contain(decoder, || match decoder {
        Decoder::Native => native::decode(data, format).map(Some),
        Decoder::Rle => native::decode_rle(data, format).map(Some),
        Decoder::Jpeg => jpeg::decode(entry.uid, data, format).map(Some),
        Decoder::JpegLs => jpegls::decode(data, format).map(Some),
        Decoder::JpegXl => jpegxl::decode(data, format).map(Some),
        Decoder::OpenJph => htj2k::decode(data, &codestream::check(data, format)?, format),
        Decoder::OpenJp2 => {
            jpeg2000::decode(data, &codestream::check(data, format)?, format).map(Some)
        }
    })
}

/// Runs a codec; its panic becomes an error of the frame it worked on.
fn contain<T>(codec: impl std::fmt::Display, run: impl FnOnce() -> Result<T>) -> Result<T> {
    // What a panicking codec may leave half done is its own and is dropped with it.
    catch_unwind(AssertUnwindSafe(run))
        .unwrap_or_else(|_| Err(corrupt(format!("{codec} panicked on this frame"))))
}

fn lookup(transfer_syntax: &str) -> Result<&'static TransferSyntaxEntry> {
    let uid = transfer_syntax.trim_end_matches(['\0', ' ']);
    transfer_syntaxes().iter().find(|entry| entry.uid == uid).ok_or_else(|| {
        let what = if table::is_video(uid) { "video transfer syntax" } else { "transfer syntax" };
        let supported: Vec<&str> = transfer_syntaxes().iter().map(|e| e.uid).collect();
        Error::new(
            ErrorKind::UnsupportedPixelData,
            format!("{what} {uid} is not supported; {} are", supported.join(", ")),
        )
        .with("transferSyntaxUID", uid)
    })
}

fn unreadable_form(entry: &TransferSyntaxEntry) -> Error {
    Error::new(
        ErrorKind::UnsupportedPixelData,
        format!("this form of {} is not one its decoder reads", entry.name),
    )
    .with("transferSyntaxUID", entry.uid)
}

fn corrupt(what: impl Into<String>) -> Error {
    Error::new(ErrorKind::CorruptFrame, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_in_a_codec_is_an_error_of_its_frame() {
        let e = contain("a codec", || -> Result<()> { panic!("index out of bounds") }).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::CorruptFrame);
        assert!(e.message().contains("a codec"), "{e}");
    }

    #[test]
    fn unknown_transfer_syntaxes_are_named_with_those_supported() {
        let f =
            FrameFormat { rows: 1, columns: 1, bits_allocated: 8, bits_stored: 8, signed: false };
        let e = decode("1.2.840.10008.1.2.4.102", &[], &f).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::UnsupportedPixelData);
        assert!(e.message().contains("video") && e.message().contains("4.202"), "{e}");
        let e = decode("1.2.840.10008.1.2.4.70.1", &[], &f).unwrap_err();
        assert!(e.message().contains("1.2.840.10008.1.2.4.70.1"), "{e}");
        assert!(!e.message().contains("video"), "{e}");
        let e = decode_with(Decoder::OpenJph, "1.2.840.10008.1.2.4.90", &[], &f).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::UnsupportedPixelData);
    }
}
