//! Decodes encoded frames to samples. One table lists the transfer syntaxes and the decoders of
//! each.
//!
//! Frames come from the network and from files, so nothing in them is trusted: the size that a
//! codestream states is compared with the DICOM header before anything is allocated, truncated data
//! is an error and never becomes zeros, and a panic of a decoder is an error of that frame only.
//! Decoding runs on the caller's thread and does no I/O; callers decode frames in parallel.

mod cod;
mod codestream;
mod contributions;
mod ht;
mod htj2k;
mod jpeg;
mod jpeg12;
mod jpeg2000;
mod jpeg2000_encode;
mod jpeg_segment;
mod jpegls;
mod jpegls_header;
mod jpegxl;
mod native;
mod openjp2_ffi;
mod packet_bits;
mod packets;
#[doc(hidden)]
pub mod plain;
mod plausible;
mod recycle;
mod rle;
mod samples;
mod siz;
mod table;

use std::panic::{AssertUnwindSafe, catch_unwind};

pub use ht::Instructions;
pub use htj2k::encode_htj2k;
pub use jpeg2000_encode::encode_jpeg2000;
pub use recycle::recycle;
pub use rle::{encode_rle, longest_rle};
pub use table::{Decoder, TransferSyntaxEntry, transfer_syntaxes};

use crate::dicom::attributes::keyword;
use crate::dicom::pixel_data::float_pixels;
use crate::dicom::{Attributes, Dataset};
use crate::error::{Error, ErrorKind, Result};
use dicom_dictionary_std::tags;

/// Layout of a frame's pixels (Image Pixel Module, PS3.3 C.7.6.3). Monochrome only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameFormat {
    /// Rows (0028,0010).
    pub rows: u32,
    /// Columns (0028,0011).
    pub columns: u32,
    /// Bits Allocated (0028,0100): 8, 16 or 32, or 64 for floating-point pixels.
    pub bits_allocated: u16,
    /// Bits Stored (0028,0101); equal to Bits Allocated for floating-point pixels.
    pub bits_stored: u16,
    /// Pixel Representation (0028,0103) is 1: two's complement. True for floating-point pixels.
    pub signed: bool,
    /// IEEE 754 numbers of 32 or 64 bits: Float Pixel Data (7FE0,0008) or Double Float Pixel Data
    /// (7FE0,0009), PS3.3 C.7.6.24 and C.7.6.25.
    pub float: bool,
}

impl FrameFormat {
    /// Reads the format from an instance's header. An error names the attribute that is missing or
    /// has a value that no decoder here supports (colour, bits other than 8, 16 and 32).
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
        let (rows, columns) =
            (dimension(tags::ROWS, "Rows")?, dimension(tags::COLUMNS, "Columns")?);
        if let Some(float) = float_pixels(dataset) {
            let (bits, name) = (float.bits, keyword(float.tag));
            if bits_allocated != i64::from(bits) {
                return Err(unsupported(format!(
                    "BitsAllocated is {bits_allocated}; it must be {bits} with {name}"
                ))
                .with("attribute", "BitsAllocated"));
            }
            return Ok(Self {
                rows,
                columns,
                bits_allocated: bits,
                bits_stored: bits,
                signed: true,
                float: true,
            });
        }
        let bits_stored = dataset.integer(tags::BITS_STORED).unwrap_or(bits_allocated);
        if !matches!(bits_allocated, 8 | 16 | 32) || !(1..=bits_allocated).contains(&bits_stored) {
            return Err(unsupported(format!(
                "BitsAllocated {bits_allocated} with BitsStored {bits_stored} is not supported; \
                 8, 16 or 32 bits are"
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
            rows,
            columns,
            bits_allocated: bits_allocated as u16,
            bits_stored: bits_stored as u16,
            signed,
            float: false,
        })
    }

    /// Number of pixels in a frame.
    pub fn pixels(&self) -> usize {
        self.rows as usize * self.columns as usize
    }

    /// Returns the format with each side halved `times` times and rounded up.
    fn halved(&self, times: u8) -> Self {
        // Sides have 32 bits at most; from then on they stay 1.
        let side = |side: u32| u64::from(side).div_ceil(1 << times.min(32)) as u32;
        Self { rows: side(self.rows), columns: side(self.columns), ..*self }
    }

    /// Whether pixels are integers of at most 16 bits, the only ones that most transfer syntaxes
    /// support here.
    fn is_narrow(&self) -> bool {
        !self.float && self.bits_allocated <= 16
    }

    /// Maximum number of bytes of a pixel in [`Samples`].
    pub fn sample_bytes(&self) -> u64 {
        u64::from(self.bits_allocated.max(16) / 8)
    }
}

/// A decoded frame, row by row. 8-bit pixels are widened to 16 bits of the same signedness; pixels
/// with 32 bits allocated keep 32 bits, however few are stored.
#[derive(Debug, Clone, PartialEq)]
pub enum Samples {
    /// Two's complement pixels.
    I16(Vec<i16>),
    /// Unsigned pixels.
    U16(Vec<u16>),
    /// Two's complement pixels of 32 bits.
    I32(Vec<i32>),
    /// Unsigned pixels of 32 bits.
    U32(Vec<u32>),
    /// Float Pixel Data, unchanged, including NaN and infinities.
    F32(Vec<f32>),
    /// Double Float Pixel Data, unchanged likewise.
    F64(Vec<f64>),
}

/// Decodes one frame. For a lossless transfer syntax, the result is exactly what was encoded.
///
/// `data` is the whole frame, with all its fragments, with or without the padding to an even
/// length. Fails with [`CorruptFrame`](ErrorKind::CorruptFrame) if the frame is truncated, does not
/// decode, or differs from `format` in size, components or depth, and with
/// [`UnsupportedPixelData`](ErrorKind::UnsupportedPixelData) if no decoder supports the transfer
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

/// Returns the maximum number of bytes that decoding one frame takes, not counting the encoded
/// bytes: the decoder's working memory and the samples. Returns 0 for a transfer syntax that cannot
/// be decoded.
pub fn working_bytes(transfer_syntax: &str, format: &FrameFormat) -> u64 {
    let each = match lookup(transfer_syntax).map(|entry| entry.decoders) {
        Ok([Decoder::Native]) => format.sample_bytes(),
        Ok([Decoder::JpegLs]) => 2 + 2,
        Ok([Decoder::JpegXl]) => return jpegxl::working_bytes(format),
        Ok([Decoder::Rle]) => 2 * format.sample_bytes() + 1,
        // Coefficients of a progressive image, its bytes, and the samples.
        Ok([Decoder::Jpeg]) => 2 + 2 + 2,
        // A tile and the image at four bytes each, code-blocks, and the samples.
        Ok(_) => 4 + 4 + 2 + 2,
        Err(_) => 0,
    };
    each * format.pixels() as u64
}

/// Like [`decode`], with `decoder` only: for tests that compare decoders, and for benchmarks.
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

/// Decodes a frame of JPEG 2000, including HTJ2K, with each side halved `reduced` times (at most
/// once per decomposition level), for previews. Returns the format of the result, whose rows and
/// columns are the halved ones, each rounded up (possibly one less if the codestream does not begin
/// at the origin of its grid), and its pixels: averages, roughly in the range of the full frame.
///
/// # Errors
/// The errors of [`decode`], and [`UnsupportedPixelData`](ErrorKind::UnsupportedPixelData) for a
/// transfer syntax without lower resolutions.
pub fn decode_reduced(
    transfer_syntax: &str,
    data: &[u8],
    format: &FrameFormat,
    reduced: u8,
) -> Result<(FrameFormat, Samples)> {
    let entry = lookup(transfer_syntax)?;
    if !entry.decoders.contains(&Decoder::OpenJp2) {
        let what = format!("{} has no lower resolutions", entry.name);
        return Err(
            Error::new(ErrorKind::UnsupportedPixelData, what).with("transferSyntaxUID", entry.uid)
        );
    }
    check_width(Decoder::OpenJp2, entry, format)?;
    let stream = codestream::check(data, format)?;
    if entry.decoders.contains(&Decoder::Ht) {
        let best = Instructions::best();
        let samples = contain(Decoder::Ht, || htj2k::decode(data, &stream, format, reduced, best))?;
        if let Some(samples) = samples {
            return Ok((format.halved(reduced.min(stream.levels)), samples));
        }
    }
    contain(Decoder::OpenJp2, || jpeg2000::decode_reduced(data, &stream, format, reduced))
}

/// Like [`decode`], for a frame of HTJ2K, with this crate's decoder only, the given instruction set
/// and each side halved `reduced` times as in [`decode_reduced`]: for tests that compare
/// instruction sets, and for benchmarks. Returns `Ok(None)` if the decoder does not support the
/// codestream's form.
///
/// # Errors
/// The errors of [`decode`].
pub fn decode_htj2k(
    data: &[u8],
    format: &FrameFormat,
    reduced: u8,
    instructions: Instructions,
) -> Result<Option<Samples>> {
    check_width(Decoder::Ht, lookup("1.2.840.10008.1.2.4.203")?, format)?;
    contain(Decoder::Ht, || {
        let stream = codestream::check(data, format)?;
        htj2k::decode(data, &stream, format, reduced, instructions)
    })
}

/// Returns `Ok(None)` if the frame is valid but of a form that this decoder does not support.
fn attempt(
    decoder: Decoder,
    entry: &TransferSyntaxEntry,
    data: &[u8],
    format: &FrameFormat,
) -> Result<Option<Samples>> {
    check_width(decoder, entry, format)?;
    contain(decoder, || match decoder {
        Decoder::Native => native::decode(data, format).map(Some),
        Decoder::Rle => native::decode_rle(data, format).map(Some),
        Decoder::Jpeg => jpeg::decode(entry.uid, data, format).map(Some),
        Decoder::JpegLs => jpegls::decode(data, format).map(Some),
        Decoder::JpegXl => jpegxl::decode(data, format).map(Some),
        Decoder::Ht => {
            let stream = codestream::check(data, format)?;
            htj2k::decode(data, &stream, format, 0, Instructions::best())
        }
        Decoder::OpenJp2 => {
            jpeg2000::decode(data, &codestream::check(data, format)?, format).map(Some)
        }
    })
}

/// Rejects pixels of more than 16 bits in a transfer syntax that does not support them here. Needs
/// no frame, so it can be checked before any is fetched.
///
/// # Errors
/// [`UnsupportedPixelData`](ErrorKind::UnsupportedPixelData), naming the transfer syntax.
pub fn check_format(transfer_syntax: &str, format: &FrameFormat) -> Result<()> {
    // An unknown transfer syntax is reported when its frames are decoded.
    let Ok(entry) = lookup(transfer_syntax) else { return Ok(()) };
    entry.decoders.iter().try_for_each(|&decoder| check_width(decoder, entry, format))
}

fn check_width(decoder: Decoder, entry: &TransferSyntaxEntry, format: &FrameFormat) -> Result<()> {
    match decoder {
        _ if format.is_narrow() => return Ok(()),
        Decoder::Native => return Ok(()),
        Decoder::Rle if !format.float => return Ok(()),
        _ => {}
    }
    let (bits, TransferSyntaxEntry { name, uid, .. }) = (format.bits_allocated, entry);
    let (kind, read) = match format.float {
        true => ("floating-point pixels", "without compression"),
        false => ("pixels", "without compression and in RLE"),
    };
    Err(Error::new(
        ErrorKind::UnsupportedPixelData,
        format!("{kind} of {bits} bits are not read in {name} ({uid}); they are {read}"),
    )
    .with("transferSyntaxUID", *uid))
}

/// Runs a codec and turns its panic into an error of the frame.
fn contain<T>(codec: impl std::fmt::Display, run: impl FnOnce() -> Result<T>) -> Result<T> {
    // State that a panicking codec leaves half done is its own and is dropped with it.
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
    fn sides_are_halved_as_often_as_a_codestream_can_have_levels() {
        let format = FrameFormat {
            rows: 65_535,
            columns: 3,
            bits_allocated: 16,
            bits_stored: 16,
            signed: false,
            float: false,
        };
        for (times, rows, columns) in [(0, 65_535, 3), (1, 32_768, 2), (16, 1, 1), (32, 1, 1)] {
            let halved = format.halved(times);
            assert_eq!((halved.rows, halved.columns), (rows, columns), "{times}");
        }
    }

    #[test]
    fn wide_pixels_are_refused_where_they_are_not_read() {
        let integers = FrameFormat {
            rows: 1,
            columns: 1,
            bits_allocated: 32,
            bits_stored: 12,
            signed: false,
            float: false,
        };
        let floats = FrameFormat { bits_stored: 32, signed: true, float: true, ..integers };
        for entry in transfer_syntaxes() {
            let native = entry.decoders == [Decoder::Native];
            let rle = entry.decoders == [Decoder::Rle];
            for (format, read) in [(integers, native || rle), (floats, native)] {
                assert_eq!(check_format(entry.uid, &format).is_ok(), read, "{}", entry.uid);
                if !read {
                    let e = decode(entry.uid, &[0; 64], &format).unwrap_err();
                    assert_eq!(e.kind(), ErrorKind::UnsupportedPixelData);
                    assert!(e.message().contains(entry.uid), "{e}");
                }
            }
        }
    }

    #[test]
    fn unknown_transfer_syntaxes_are_named_with_those_supported() {
        let f = FrameFormat {
            rows: 1,
            columns: 1,
            bits_allocated: 8,
            bits_stored: 8,
            signed: false,
            float: false,
        };
        let e = decode("1.2.840.10008.1.2.4.102", &[], &f).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::UnsupportedPixelData);
        assert!(e.message().contains("video") && e.message().contains("4.202"), "{e}");
        let e = decode("1.2.840.10008.1.2.4.70.1", &[], &f).unwrap_err();
        assert!(e.message().contains("1.2.840.10008.1.2.4.70.1"), "{e}");
        assert!(!e.message().contains("video"), "{e}");
        let e = decode_with(Decoder::Ht, "1.2.840.10008.1.2.4.90", &[], &f).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::UnsupportedPixelData);
    }
}
