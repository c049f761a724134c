//! JPEG XL (ISO/IEC 18181-1) through `jxl-oxide`, a decoder written in Rust.
//!
//! The image header is parsed first, so that only a single monochrome image of the size that the
//! DICOM header states is decoded: no colour profile, preview, animation or extra channel, each of
//! which a decoder would unpack. A container file is reduced to its codestream. The decoder's
//! allocations are bounded.

use std::borrow::Cow;

use jxl_bitstream::Bitstream;
use jxl_oxide::image::BitDepth;
use jxl_oxide::{AllocTracker, ImageHeader, InitializeResult, JxlImage, JxlThreadPool};
use jxl_oxide_common::Bundle;
use jxl_render::ImageBuffer;

use super::plausible::{self, Family, room};
use super::samples::from_words;
use super::{FrameFormat, Samples, corrupt};
use crate::error::{Error, ErrorKind, Result};

/// Signatures of a bare codestream and of a container file.
const CODESTREAM: [u8; 2] = [0xFF, 0x0A];
const FILE: [u8; 12] = *b"\0\0\0\x0CJXL \x0D\x0A\x87\x0A";

/// Bytes that the decoder may allocate for each pixel (coefficients, three floating-point channels
/// if there are filters, and the image), and for an image of any size, because its groups have at
/// least 128 × 128 pixels.
const WORKING_BYTES: (u64, u64) = (48, 16 << 20);

/// Returns the maximum number of bytes that decoding takes, not counting the encoded bytes.
pub(super) fn working_bytes(format: &FrameFormat) -> u64 {
    WORKING_BYTES.0 * format.pixels() as u64 + WORKING_BYTES.1
}

/// Decodes one JPEG XL image.
pub(super) fn decode(data: &[u8], format: &FrameFormat) -> Result<Samples> {
    let codestream = codestream(data)?;
    plausible::check(Family::JpegXl, format, data.len())?;
    let bits = check(&codestream, format)?;
    let failed = |stage: &str| corrupt(format!("JPEG XL image does not decode ({stage})"));
    let most = usize::try_from(working_bytes(format)).unwrap_or(usize::MAX);
    let mut image = JxlImage::builder()
        .pool(JxlThreadPool::none())
        .alloc_tracker(AllocTracker::with_limit(most))
        .build_uninit();
    image.feed_bytes(&codestream).map_err(|_| failed("header"))?;
    let image = match image.try_init().map_err(|_| failed("header"))? {
        InitializeResult::Initialized(image) => image,
        InitializeResult::NeedMoreData(_) => return Err(corrupt("JPEG XL image is truncated")),
    };
    if !image.is_loading_done() || image.num_loaded_keyframes() != 1 {
        return Err(corrupt("JPEG XL image is truncated or has several frames"));
    }
    let render = image.render_frame(0).map_err(|_| failed("frame"))?;
    let [channel] = render.color_channels() else { return Err(failed("channels")) };
    let (width, height) = (format.columns as usize, format.rows as usize);
    let most = (1_i64 << bits) - 1;
    let mut words = room::<u16>(format.pixels())?;
    let whole = |value: i32| u16::try_from(value).ok().filter(|v| i64::from(*v) <= most);
    let values: Option<()> = match channel {
        ImageBuffer::I16(grid) if (grid.width(), grid.height()) == (width, height) => {
            grid.buf().iter().try_for_each(|v| {
                words.push(whole((*v).into())?);
                Some(())
            })
        }
        ImageBuffer::I32(grid) if (grid.width(), grid.height()) == (width, height) => {
            grid.buf().iter().try_for_each(|v| {
                words.push(whole(*v)?);
                Some(())
            })
        }
        // If the decoder computed in floating point, the full range is 1 and its buffer may be
        // larger than the image.
        _ => {
            let mut stream = render.stream_no_alpha();
            let size = (stream.width() as usize, stream.height() as usize, stream.channels());
            if size != (width, height, 1) {
                return Err(failed("size"));
            }
            let mut row = room::<f32>(width)?;
            row.resize(width, 0.0);
            (0..height).try_for_each(|_| {
                let written = stream.write_to_buffer(&mut row);
                let scaled = row.iter().map(|v| (f64::from(*v) * most as f64).round());
                words.extend(scaled.map(|v| v.clamp(0.0, most as f64) as u16));
                (written == width).then_some(())
            })
        }
    };
    values.ok_or_else(|| corrupt(format!("decoded to a value outside its {bits} bits")))?;
    from_words(words.into_iter(), format)
}

/// Returns the codestream: the data itself, or the one inside a container file.
fn codestream(data: &[u8]) -> Result<Cow<'_, [u8]>> {
    if data.starts_with(&CODESTREAM) {
        return Ok(Cow::Borrowed(data));
    }
    let Some(mut rest) = data.strip_prefix(&FILE) else {
        return Err(corrupt("does not start as a JPEG XL image"));
    };
    let truncated = || corrupt("JPEG XL file is truncated");
    let mut parts = Vec::new();
    // A trailing zero pads a fragment to an even length.
    while rest.len() > 1 {
        let (&[l0, l1, l2, l3, kind @ ..], after) =
            rest.split_first_chunk::<8>().ok_or_else(truncated)?;
        let (length, header, after) = match u32::from_be_bytes([l0, l1, l2, l3]) {
            0 => (rest.len() as u64, 8, after),
            1 => {
                let (long, after) = after.split_first_chunk().ok_or_else(truncated)?;
                (u64::from_be_bytes(*long), 16, after)
            }
            length => (length.into(), 8, after),
        };
        let length = length.checked_sub(header).and_then(|n| usize::try_from(n).ok());
        let (body, next) = length.and_then(|n| after.split_at_checked(n)).ok_or_else(truncated)?;
        match &kind {
            b"jxlc" => parts.push(body),
            // The index of the part comes first.
            b"jxlp" => parts.push(body.get(4..).ok_or_else(truncated)?),
            _ => {}
        }
        rest = next;
    }
    match parts[..] {
        [] => Err(corrupt("JPEG XL file has no codestream")),
        [only] => Ok(Cow::Borrowed(only)),
        _ => {
            let mut whole = room(parts.iter().map(|part| part.len()).sum())?;
            parts.iter().for_each(|part| whole.extend_from_slice(part));
            Ok(Cow::Owned(whole))
        }
    }
}

/// Compares the image header with the DICOM header. Returns the bits per sample.
fn check(codestream: &[u8], format: &FrameFormat) -> Result<u32> {
    let header = ImageHeader::parse(&mut Bitstream::new(codestream), ())
        .map_err(|_| corrupt("JPEG XL image has a malformed or truncated header"))?;
    let (size, metadata) = (&header.size, &header.metadata);
    if (size.height, size.width) != (format.rows, format.columns) {
        return Err(corrupt(format!(
            "JPEG XL image has {} rows and {} columns, the header {} rows and {} columns",
            size.height, size.width, format.rows, format.columns
        )));
    }
    let unsupported = |what: &str| {
        Err(Error::new(
            ErrorKind::UnsupportedPixelData,
            format!("JPEG XL with {what} is not supported"),
        ))
    };
    if !metadata.grayscale() {
        return Err(corrupt("JPEG XL image is in colour, the header has one sample a pixel"));
    }
    if metadata.colour_encoding.want_icc() {
        return unsupported("a colour profile");
    }
    if metadata.orientation != 1 || metadata.preview.is_some() || metadata.animation.is_some() {
        return unsupported("an orientation, a preview or an animation");
    }
    if !metadata.ec_info.is_empty() {
        return unsupported("further channels");
    }
    let BitDepth::IntegerSample { bits_per_sample: bits } = metadata.bit_depth else {
        return unsupported("samples that are no integers");
    };
    // With fewer bits than stored, the sign bit of a signed pixel would be unknown.
    let enough = !format.signed || bits >= u32::from(format.bits_stored);
    if !(1..=u32::from(format.bits_allocated)).contains(&bits) || !enough {
        return Err(corrupt(format!(
            "JPEG XL image has {bits} bits a sample, the header {} stored of {}",
            format.bits_stored, format.bits_allocated
        )));
    }
    Ok(bits)
}
