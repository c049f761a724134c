//! Converts DICOM Part 10 files to instances as AHI stores them (developer guide, "Supported
//! transfer syntaxes").
//!
//! Losslessly compressed and uncompressed frames are decoded and stored in the format of the data
//! store, HTJ2K or JPEG 2000, with a checksum of the decoded pixels. Frames of lossy transfer
//! syntaxes, binary segmentations, colour images, 32-bit integers and floating-point numbers are
//! stored unchanged. So are pixels that cannot be decoded; their instance gets a warning.

use bytes::Bytes;
use dicom_core::{DataElement, PrimitiveValue, VR};
use dicom_dictionary_std::{tags, uids};

use super::binary;
use super::originals::{Original, native_pixels_at_end, stated_syntax};
use super::store::{StorageFormat, new_id};
use super::warnings::{self, Reason, Warning};
use crate::codec::{self, FrameFormat};
use crate::dicom::ahi_metadata::FlatInstance;
use crate::dicom::ahi_metadata::write::{FrameEntry, InstanceEntry, instance};
use crate::dicom::p10::{self, Content, P10Header, P10Instance};
use crate::dicom::{Attributes, Dataset, classes};
use crate::error::{Error, ErrorKind, Result};

/// Transfer syntaxes whose frames are stored unchanged: lossy images, and video (by UID prefix).
const RETAINED: [&str; 4] = [
    "1.2.840.10008.1.2.4.50",
    "1.2.840.10008.1.2.4.91",
    "1.2.840.10008.1.2.4.112",
    "1.2.840.10008.1.2.4.203",
];
const VIDEO: &str = "1.2.840.10008.1.2.4.10";

/// An instance in its stored form.
pub(super) struct Encoded {
    /// Its entry in the metadata document.
    pub flat: FlatInstance,
    /// SOP Class UID (0008,0016).
    pub sop_class_uid: String,
    /// Its frames with their identifiers, in order; empty for an instance without an image.
    pub frames: Vec<(String, Bytes)>,
    /// Data to restore the file byte for byte, if possible.
    pub original: Option<Original>,
    /// Warnings about the instance.
    pub warnings: Vec<Warning>,
}

/// Converts a file to its stored form. Returns `None` for a DICOMDIR, which is not an instance.
///
/// # Errors
/// [`ErrorKind::InvalidImage`] if the file is not DICOM or lacks an identifier, and
/// [`ErrorKind::CorruptFrame`] if the pixel data is missing.
pub(super) fn encode(file: &Bytes, format: StorageFormat) -> Result<Option<Encoded>> {
    let content = p10::examine_from(&file[..], file.len() as u64, &mut |_| Ok(()));
    let stored = match content {
        Ok(Content::NoImage(Some(class))) if class == classes::DIRECTORY => return Ok(None),
        Ok(Content::NoImage(_)) => without_image(file)?,
        Ok(Content::Image(instance)) => image(instance, format)?,
        Err(e) if matches!(e.kind(), ErrorKind::CorruptFrame | ErrorKind::UnsupportedPixelData) => {
            unsplit(file, e)?
        }
        Err(e) => return Err(e),
    };
    stored.finish(file).map(Some)
}

/// The parts of an instance before its document entry is built.
struct Stored {
    dataset: Dataset,
    transfer_syntax: String,
    frames: Vec<(FrameEntry, Bytes)>,
    warning: Option<Warning>,
}

impl Stored {
    fn finish(self, file: &Bytes) -> Result<Encoded> {
        let Self { mut dataset, transfer_syntax, frames, warning } = self;
        let mut warnings: Vec<Warning> = warning.into_iter().collect();
        warnings.extend(warnings::of_attributes(&dataset));
        for required in [tags::STUDY_INSTANCE_UID, tags::SERIES_INSTANCE_UID] {
            dataset.required_text(required)?;
        }
        let sop_class_uid = dataset.required_text(tags::SOP_CLASS_UID)?;
        let is_unsplit = warnings.iter().any(|w| w.reason == Reason::FramesExtraction);
        let original = original(file, &dataset, &transfer_syntax, &frames, is_unsplit);
        if !warnings.is_empty() {
            // Stored as the service does, so that instances can be searched by their warnings.
            let codes = warnings.iter().map(|warning| warning.reason.code()).collect();
            let value = PrimitiveValue::U16(codes);
            dataset.put(DataElement::new(tags::WARNING_REASON, VR::US, value));
        }
        let (entries, data): (Vec<FrameEntry>, Vec<Bytes>) = frames.into_iter().unzip();
        let frames = entries.iter().map(|entry| entry.id.clone()).zip(data).collect();
        let stored_transfer_syntax = transfer_syntax;
        let flat = instance(&InstanceEntry { dataset, stored_transfer_syntax, frames: entries })?;
        Ok(Encoded { flat, sop_class_uid, frames, original, warnings })
    }
}

fn without_image(file: &Bytes) -> Result<Stored> {
    let P10Header { dataset, .. } = p10::header_of(file)?;
    let transfer_syntax = uids::EXPLICIT_VR_LITTLE_ENDIAN.to_owned();
    Ok(Stored { dataset, transfer_syntax, frames: Vec::new(), warning: None })
}

fn image(instance: P10Instance, format: StorageFormat) -> Result<Stored> {
    let as_they_came = match stored_frames(&instance, format)? {
        Frames::Encoded(transfer_syntax, frames) => {
            let dataset = instance.dataset;
            return Ok(Stored { dataset, transfer_syntax, frames, warning: None });
        }
        Frames::AsTheyCame(warning) => warning,
    };
    let P10Instance { dataset, transfer_syntax, frames, .. } = instance;
    let frames = frames.into_iter().map(|data| (described(&dataset, &data), data)).collect();
    let transfer_syntax = without_implicit_vr(&transfer_syntax).to_owned();
    Ok(Stored { dataset, transfer_syntax, frames, warning: as_they_came })
}

/// Frames do not depend on whether the data set has explicit VRs.
fn without_implicit_vr(transfer_syntax: &str) -> &str {
    match transfer_syntax {
        uids::IMPLICIT_VR_LITTLE_ENDIAN => uids::EXPLICIT_VR_LITTLE_ENDIAN,
        other => other,
    }
}

/// How the frames of an image are stored.
enum Frames {
    /// Decodable: encoded in the given transfer syntax.
    Encoded(String, Vec<(FrameEntry, Bytes)>),
    /// Unchanged, with a warning if they should have been transcoded.
    AsTheyCame(Option<Warning>),
}

fn stored_frames(instance: &P10Instance, format: StorageFormat) -> Result<Frames> {
    let P10Instance { dataset, transfer_syntax, frames, .. } = instance;
    let is_colour = dataset.integer(tags::SAMPLES_PER_PIXEL).is_some_and(|samples| samples != 1);
    let stay = is_colour
        || RETAINED.contains(&transfer_syntax.as_str())
        || transfer_syntax.starts_with(VIDEO);
    let unreadable = |e: Error| match e.kind() {
        // A defect of the program or the machine says nothing about the image.
        ErrorKind::Internal | ErrorKind::Io => Err(e),
        _ if stay => Ok(Frames::AsTheyCame(None)),
        _ => Ok(Frames::AsTheyCame(Some(cannot_transcode(&e)))),
    };
    let pixels = match FrameFormat::from_dataset(dataset) {
        Ok(pixels) => pixels,
        Err(e) => return unreadable(e),
    };
    // Frames stored unchanged are decoded as well, to get their checksum and pixel range.
    let to = (!stay && !pixels.float && pixels.bits_allocated <= 16).then_some(format);
    let one = |data: &Bytes| encode_frame(transfer_syntax, data, &pixels, to);
    let encoded = match frames.iter().map(one).collect::<Result<Vec<_>>>() {
        Ok(encoded) => encoded,
        Err(e) => return unreadable(e),
    };
    let syntax = match to {
        None => without_implicit_vr(transfer_syntax),
        Some(StorageFormat::Htj2k) => uids::HTJ2K_LOSSLESS_RPCL,
        Some(StorageFormat::Jpeg2000) => uids::JPEG2000_LOSSLESS,
    };
    Ok(Frames::Encoded(syntax.to_owned(), encoded))
}

/// Stores an image whose pixel data cannot be split into frames of whole bytes: a binary
/// segmentation, or a defective image, which is kept as a whole.
fn unsplit(file: &Bytes, error: Error) -> Result<Stored> {
    let P10Header { dataset, transfer_syntax, number_of_frames, .. } = p10::header_of(file)?;
    if let Some(frames) = binary::frames(file, &dataset, number_of_frames) {
        let frames = frames.into_iter().map(|data| (described(&dataset, &data), data)).collect();
        return Ok(Stored { dataset, transfer_syntax, frames, warning: None });
    }
    if error.message() == p10::NO_PIXEL_DATA {
        return Err(error);
    }
    let warning = Warning {
        reason: Reason::FramesExtraction,
        message: format!("The frames cannot be told apart: {}.", error.message()),
    };
    Ok(Stored { dataset, transfer_syntax, frames: Vec::new(), warning: Some(warning) })
}

fn cannot_transcode(e: &Error) -> Warning {
    let message = format!("The pixel data was stored without transcoding: {}.", e.message());
    Warning { reason: Reason::Transcoding, message }
}

/// Describes a frame that is stored unchanged.
fn described(dataset: &Dataset, data: &[u8]) -> FrameEntry {
    let side = |tag| dataset.integer(tag).and_then(|n| u32::try_from(n).ok()).unwrap_or(0);
    FrameEntry {
        id: new_id(),
        full_resolution: (side(tags::COLUMNS), side(tags::ROWS), crc32fast::hash(data)),
        pixel_range: None,
        bytes: data.len() as u64,
    }
}

/// Encodes a frame in the storage format, or keeps it unchanged if `to` is `None`.
fn encode_frame(
    transfer_syntax: &str,
    data: &Bytes,
    pixels: &FrameFormat,
    to: Option<StorageFormat>,
) -> Result<(FrameEntry, Bytes)> {
    let samples = codec::decode(transfer_syntax, data, pixels)?;
    let encoded = match to {
        None => data.clone(),
        Some(StorageFormat::Htj2k) => codec::encode_htj2k(&samples, pixels)?.into(),
        Some(StorageFormat::Jpeg2000) => codec::encode_jpeg2000(&samples, pixels)?.into(),
    };
    let entry = FrameEntry {
        id: new_id(),
        full_resolution: (pixels.columns, pixels.rows, samples.crc32(pixels.bits_allocated)),
        pixel_range: samples.min_max(),
        bytes: encoded.len() as u64,
    };
    Ok((entry, encoded))
}

/// Returns the data needed to restore the file.
fn original(
    file: &Bytes,
    dataset: &Dataset,
    stored: &str,
    frames: &[(FrameEntry, Bytes)],
    is_unsplit: bool,
) -> Option<Original> {
    let stated = stated_syntax(file)?;
    // If the frames could not be split, the file is all there is.
    if stated == stored || is_unsplit {
        return Some(Original::Whole(file.clone()));
    }
    if stated != uids::EXPLICIT_VR_LITTLE_ENDIAN {
        return None;
    }
    let pixels = FrameFormat::from_dataset(dataset).ok()?;
    let frame = (pixels.pixels() as u64).checked_mul(u64::from(pixels.bits_allocated / 8))?;
    let bytes = frame.checked_mul(frames.len() as u64)?;
    native_pixels_at_end(file, bytes).map(|start| Original::Head(file.slice(..start)))
}
