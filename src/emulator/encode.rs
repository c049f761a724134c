//! DICOM Part 10 files to instances as AHI stores them (developer guide, "Supported transfer syntaxes").
//!
//! Frames that are compressed without loss, or not at all, are decoded and stored in the format of the data
//! store, HTJ2K or JPEG 2000; the checksum of each is that of the decoded pixels. Those of lossy transfer
//! syntaxes, of binary segmentations, of colour, of 32-bit integers and of floating-point numbers stay as
//! they came. Pixels that cannot be read stay as they came too, and the instance has a warning.

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

/// Transfer syntaxes whose frames stay as they came: those of lossy images, and (by what their UIDs begin
/// with) of video.
const RETAINED: [&str; 4] = [
    "1.2.840.10008.1.2.4.50",
    "1.2.840.10008.1.2.4.91",
    "1.2.840.10008.1.2.4.112",
    "1.2.840.10008.1.2.4.203",
];
const VIDEO: &str = "1.2.840.10008.1.2.4.10";

/// An instance as it is stored.
pub(super) struct Encoded {
    /// What the document says of it.
    pub flat: FlatInstance,
    /// SOP Class UID (0008,0016).
    pub sop_class_uid: String,
    /// Its frames with their identifiers, in order; none of one without an image.
    pub frames: Vec<(String, Bytes)>,
    /// What it is given back from, where that can be byte for byte.
    pub original: Option<Original>,
    /// What is out of order in it.
    pub warnings: Vec<Warning>,
}

/// An instance as it is stored. `None` for a DICOMDIR, which is no instance.
///
/// # Errors
/// [`ErrorKind::InvalidImage`] where the file is none of DICOM or lacks an identifier, and
/// [`ErrorKind::CorruptFrame`] where it should have pixels and has none.
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

/// An instance's parts before they are described.
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
            // Where the service keeps them, so that instances can be searched by them.
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

/// Frames are the same with and without VRs beside them.
fn without_implicit_vr(transfer_syntax: &str) -> &str {
    match transfer_syntax {
        uids::IMPLICIT_VR_LITTLE_ENDIAN => uids::EXPLICIT_VR_LITTLE_ENDIAN,
        other => other,
    }
}

/// What becomes of the frames of an image.
enum Frames {
    /// They can be decoded: as they are stored, in this transfer syntax.
    Encoded(String, Vec<(FrameEntry, Bytes)>),
    /// They stay, with a warning where they should not.
    AsTheyCame(Option<Warning>),
}

fn stored_frames(instance: &P10Instance, format: StorageFormat) -> Result<Frames> {
    let P10Instance { dataset, transfer_syntax, frames, .. } = instance;
    let is_colour = dataset.integer(tags::SAMPLES_PER_PIXEL).is_some_and(|samples| samples != 1);
    let stay = is_colour
        || RETAINED.contains(&transfer_syntax.as_str())
        || transfer_syntax.starts_with(VIDEO);
    let unreadable = |e: Error| match e.kind() {
        // A defect of this program, or of its machine, is none of the image.
        ErrorKind::Internal | ErrorKind::Io => Err(e),
        _ if stay => Ok(Frames::AsTheyCame(None)),
        _ => Ok(Frames::AsTheyCame(Some(cannot_transcode(&e)))),
    };
    let pixels = match FrameFormat::from_dataset(dataset) {
        Ok(pixels) => pixels,
        Err(e) => return unreadable(e),
    };
    // What stays is decoded all the same, to be described better.
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

/// An image whose pixel data is not that of whole frames of whole bytes: a binary segmentation, or one that
/// is out of order and is kept as a whole.
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

/// What is said of a frame that stays as it came.
fn described(dataset: &Dataset, data: &[u8]) -> FrameEntry {
    let side = |tag| dataset.integer(tag).and_then(|n| u32::try_from(n).ok()).unwrap_or(0);
    FrameEntry {
        id: new_id(),
        full_resolution: (side(tags::COLUMNS), side(tags::ROWS), crc32fast::hash(data)),
        pixel_range: None,
        bytes: data.len() as u64,
    }
}

/// A frame in the format it is stored in, or as it came where that is none.
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

/// What a file is given back from.
fn original(
    file: &Bytes,
    dataset: &Dataset,
    stored: &str,
    frames: &[(FrameEntry, Bytes)],
    is_unsplit: bool,
) -> Option<Original> {
    let stated = stated_syntax(file)?;
    // Where the frames could not be told apart, the file is all there is.
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
