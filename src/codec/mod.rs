//! Encoded frame to samples: one table of transfer syntaxes and who decodes each.
//!
//! Frames come from the network and from files, so nothing in them is believed: what a codestream
//! says of its size is compared with the DICOM header before anything is allocated, data that ends
//! early is an error and never zeros, and a decoder's panic is an error of that frame alone.
//! Decoding is plain computation on the caller's thread; callers decode frames in parallel.

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

/// How a frame's pixels are laid out (Image Pixel Module, PS3.3 C.7.6.3). Monochrome only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameFormat {
    /// Rows (0028,0010).
    pub rows: u32,
    /// Columns (0028,0011).
    pub columns: u32,
    /// Bits Allocated (0028,0100): 8, 16 or 32, and 64 of floating-point numbers.
    pub bits_allocated: u16,
    /// Bits Stored (0028,0101); all that are allocated, of floating-point numbers.
    pub bits_stored: u16,
    /// Pixel Representation (0028,0103) is 1: two's complement. True of floating-point numbers.
    pub signed: bool,
    /// IEEE 754 numbers of 32 or 64 bits: Float Pixel Data (7FE0,0008) or Double Float Pixel Data
    /// (7FE0,0009), PS3.3 C.7.6.24 and C.7.6.25.
    pub float: bool,
}

impl FrameFormat {
    /// Reads the format from an instance's header; an error names the attribute that is missing or
    /// that no decoder here supports (colour, bits other than 8, 16 and 32).
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

    /// Pixels in a frame.
    pub fn pixels(&self) -> usize {
        self.rows as usize * self.columns as usize
    }

    /// The same with each side halved `times` times and rounded up.
    fn halved(&self, times: u8) -> Self {
        // Sides have 32 bits at most: beyond that, they stay 1.
        let side = |side: u32| u64::from(side).div_ceil(1 << times.min(32)) as u32;
        Self { rows: side(self.rows), columns: side(self.columns), ..*self }
    }

    /// Whether pixels are integers of at most 16 bits, all that most transfer syntaxes are read with.
    fn is_narrow(&self) -> bool {
        !self.float && self.bits_allocated <= 16
    }

    /// Bytes of a pixel in [`Samples`], at most.
    pub fn sample_bytes(&self) -> u64 {
        u64::from(self.bits_allocated.max(16) / 8)
    }
}

/// A decoded frame, row by row. 8-bit pixels are widened to 16 bits of the same signedness; those of 32 bits
/// stay so, however few of them are stored.
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
    /// Float Pixel Data, as it is: NaN and infinities, too.
    F32(Vec<f32>),
    /// Double Float Pixel Data, likewise.
    F64(Vec<f64>),
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

/// Decodes a frame of JPEG 2000, HTJ2K included, with each side halved `reduced` times (as often as the frame
/// has decomposition levels, at most), for previews. Returns the format of what was decoded, whose rows and
/// columns are the halved ones, each rounded up (of a codestream that does not begin at the origin of its
/// grid, one less may come out), and its pixels: averages, in about the range of the whole frame's.
///
/// # Errors
/// As [`decode`], and [`UnsupportedPixelData`](ErrorKind::UnsupportedPixelData) of a transfer syntax that
/// has no lower resolutions.
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

/// As [`decode`], of a frame of HTJ2K by this crate's own decoder alone, with the instructions named and each
/// side halved `reduced` times as by [`decode_reduced`]: for tests that compare them and for measuring them.
/// `Ok(None)` where the codestream is not of the form that it reads.
///
/// # Errors
/// As [`decode`].
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

/// `Ok(None)` where the frame is sound but of a form this decoder cannot read.
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

/// Refuses pixels of more than 16 bits in a transfer syntax that is not read with them here; this is known
/// before a frame is there.
///
/// # Errors
/// [`UnsupportedPixelData`](ErrorKind::UnsupportedPixelData), naming the transfer syntax.
pub fn check_format(transfer_syntax: &str, format: &FrameFormat) -> Result<()> {
    // One that is not known at all is an error of its frames.
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
