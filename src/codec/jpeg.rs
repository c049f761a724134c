//! JPEG (ISO/IEC 10918-1): baseline, extended and lossless. Decodes through the adapter of
//! `dicom-transfer-syntax-registry`, or, for lossy images of 12 bits, by a decoder in this crate.
//! The frame header is checked before either sees it.

use std::borrow::Cow;

use dicom_encoding::TransferSyntaxIndex;
use dicom_encoding::adapters::{PixelDataObject, RawPixelData};
use dicom_encoding::transfer_syntax::Codec;
use dicom_transfer_syntax_registry::TransferSyntaxRegistry;

use super::plausible::{self, Family};
use super::samples::from_words;
use super::{FrameFormat, Samples, corrupt, jpeg_segment, jpeg12};
use crate::error::{Error, ErrorKind, Result};

const SOI: u8 = 0xD8;
const EOI: u8 = 0xD9;
const SOS: u8 = 0xDA;
/// Extended sequential process with Huffman codes.
const SOF1: u8 = 0xC1;

/// Decodes one JPEG image of the transfer syntax `uid`.
pub(super) fn decode(uid: &str, data: &[u8], format: &FrameFormat) -> Result<Samples> {
    let (marker, precision) = check(data, format)?;
    if !is_lossless(marker) && precision == 12 {
        return jpeg12::decode(data, format);
    }
    let syntax = TransferSyntaxRegistry.get(uid);
    let Some(Codec::EncapsulatedPixelData(Some(reader), _)) = syntax.map(|s| s.codec()) else {
        return Err(Error::internal(format!("no JPEG decoder is built in for {uid}")));
    };
    // The decoder outputs bytes or words by the image's own precision, whatever Bits Allocated
    // says.
    let width: usize = if precision > 8 { 2 } else { 1 };
    let source = SingleFrame { uid, data, format, bits_allocated: 8 * width as u16 };
    let mut bytes = Vec::new();
    reader
        .decode_frame(&source, 0, &mut bytes)
        .map_err(|e| corrupt("JPEG image does not decode").caused_by(e))?;
    if bytes.len() != format.pixels() * width {
        return Err(corrupt("JPEG image decodes to another size than the header's"));
    }
    if width == 1 {
        from_words(bytes.iter().map(|&b| u16::from(b)), format)
    } else {
        // Words are in native byte order.
        from_words(bytes.chunks_exact(2).map(|w| u16::from_ne_bytes([w[0], w[1]])), format)
    }
}

/// Checks the markers, size and components of a JPEG image, and that it is not truncated. Returns
/// its process (the marker of its frame header) and the sample precision in bits.
fn check(data: &[u8], format: &FrameFormat) -> Result<(u8, u32)> {
    let truncated = || corrupt("JPEG image is truncated");
    let padding = data.iter().rev().take_while(|&&b| b == 0).count();
    let image = &data[..data.len() - padding];
    if !image.starts_with(&[0xFF, SOI]) {
        return Err(corrupt("does not start as a JPEG image"));
    }
    if !image.ends_with(&[0xFF, EOI]) {
        return Err(truncated());
    }
    let mut rest = &image[2..];
    let mut precision = None;
    loop {
        let (&[prefix, marker], after) = rest.split_first_chunk().ok_or_else(truncated)?;
        if prefix != 0xFF {
            return Err(corrupt("JPEG image has a malformed marker"));
        }
        if marker == 0xFF {
            rest = &rest[1..]; // fill byte (B.1.1.2)
            continue;
        }
        let (body, next) = jpeg_segment::split(after).ok_or_else(truncated)?;
        match marker {
            SOS => return precision.ok_or_else(|| corrupt("JPEG image has no frame header")),
            // SOFn; DHT, JPG and DAC share the range.
            0xC0..=0xCF if !matches!(marker, 0xC4 | 0xC8 | 0xCC) => {
                if precision.is_some() {
                    return Err(corrupt("JPEG image has two frame headers"));
                }
                let family =
                    if is_lossless(marker) { Family::JpegLossless } else { Family::JpegDct };
                plausible::check(family, format, data.len())?;
                precision = Some((marker, frame_header(marker, body, format)?));
            }
            _ => {}
        }
        rest = next;
    }
}

/// Whether SOFn belongs to a lossless process (table B.1).
fn is_lossless(marker: u8) -> bool {
    matches!(marker, 0xC3 | 0xC7 | 0xCB | 0xCF)
}

/// Compares SOFn (B.2.2) with the DICOM header. Returns the precision.
fn frame_header(marker: u8, body: &[u8], format: &FrameFormat) -> Result<u32> {
    let &[precision, h1, h0, w1, w0, components] = body
        .first_chunk::<6>()
        .ok_or_else(|| corrupt("JPEG image has a malformed frame header"))?;
    let rows = u32::from(u16::from_be_bytes([h1, h0]));
    let columns = u32::from(u16::from_be_bytes([w1, w0]));
    if (rows, columns, components) != (format.rows, format.columns, 1) {
        return Err(corrupt(format!(
            "JPEG image has {rows} rows, {columns} columns and {components} components, \
             the header {} rows and {} columns",
            format.rows, format.columns
        )));
    }
    let precision = u32::from(precision);
    if !is_lossless(marker) && precision != 8 && (marker, precision) != (SOF1, 12) {
        return Err(Error::new(
            ErrorKind::UnsupportedPixelData,
            format!(
                "JPEG with {precision} bits a sample is decoded only where it is lossless, or \
                 sequential with 12 bits and Huffman codes"
            ),
        ));
    }
    // With fewer bits than stored, the sign bit of a signed pixel would be unknown.
    let enough = !format.signed || precision >= u32::from(format.bits_stored);
    if !(2..=u32::from(format.bits_allocated)).contains(&precision) || !enough {
        return Err(corrupt(format!(
            "JPEG image has {precision} bits a sample, the header {} stored of {}",
            format.bits_stored, format.bits_allocated
        )));
    }
    Ok(precision)
}

/// One frame in the form that the adapters read.
struct SingleFrame<'a> {
    uid: &'a str,
    data: &'a [u8],
    format: &'a FrameFormat,
    bits_allocated: u16,
}

impl PixelDataObject for SingleFrame<'_> {
    fn transfer_syntax_uid(&self) -> &str {
        self.uid
    }

    fn rows(&self) -> Option<u16> {
        u16::try_from(self.format.rows).ok()
    }

    fn cols(&self) -> Option<u16> {
        u16::try_from(self.format.columns).ok()
    }

    fn samples_per_pixel(&self) -> Option<u16> {
        Some(1)
    }

    fn bits_allocated(&self) -> Option<u16> {
        Some(self.bits_allocated)
    }

    fn bits_stored(&self) -> Option<u16> {
        Some(self.format.bits_stored)
    }

    fn photometric_interpretation(&self) -> Option<&str> {
        Some("MONOCHROME2")
    }

    fn number_of_frames(&self) -> Option<u32> {
        Some(1)
    }

    fn number_of_fragments(&self) -> Option<u32> {
        Some(1)
    }

    fn fragment(&self, fragment: usize) -> Option<Cow<'_, [u8]>> {
        (fragment == 0).then_some(Cow::Borrowed(self.data))
    }

    fn offset_table(&self) -> Option<Cow<'_, [u32]>> {
        Some(Cow::Borrowed(&[]))
    }

    fn raw_pixel_data(&self) -> Option<RawPixelData> {
        Some(RawPixelData {
            fragments: [self.data.to_vec()].into_iter().collect(),
            offset_table: Default::default(),
        })
    }
}
