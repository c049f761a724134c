//! The meaning of stored pixel values: PhotometricInterpretation, the Modality LUT, the units.
//!
//! A misread value results in a segmentation of something else, so nothing is guessed: a malformed
//! attribute, or one that the modality requires and that is missing, is an error naming the
//! attribute.

use dicom_core::Tag;
use dicom_dictionary_std::tags;

use super::places::Places;
use crate::codec::FrameFormat;
use crate::dicom::attributes::keyword;
use crate::dicom::{Attributes, Dataset};
use crate::error::{Error, ErrorKind, Result};

/// Returns the slope and intercept that convert stored values to physical ones: `stored · slope +
/// intercept`.
pub(super) fn rescale(dataset: &Dataset, frame: usize, format: &FrameFormat) -> Result<(f64, f64)> {
    if sequence_is_there(dataset, tags::MODALITY_LUT_SEQUENCE) {
        return Err(unsupported(
            tags::MODALITY_LUT_SEQUENCE,
            "maps stored values by a table, which is not applied here; RescaleSlope and \
             RescaleIntercept are",
        ));
    }
    let (slope, intercept) = linear(dataset, frame)?;
    match dataset.text(tags::PHOTOMETRIC_INTERPRETATION).as_deref() {
        None | Some("MONOCHROME2") => Ok((slope, intercept)),
        // As in ITK: the stored bits are inverted before the rescale, so that large values are
        // bright in both interpretations.
        Some("MONOCHROME1") if format.float => Err(unsupported(
            tags::PHOTOMETRIC_INTERPRETATION,
            "is MONOCHROME1, which floating-point pixels cannot be; theirs is MONOCHROME2",
        )),
        Some("MONOCHROME1") => {
            let mirror = match format.signed {
                true => -1.0,
                false => ((1u64 << format.bits_stored.min(32)) - 1) as f64,
            };
            Ok((-slope, mirror.mul_add(slope, intercept)))
        }
        Some(_) => Err(unsupported(
            tags::PHOTOMETRIC_INTERPRETATION,
            "is neither MONOCHROME1 nor MONOCHROME2; only their values can be segmented",
        )),
    }
}

/// Whether the rescale inverts the stored values.
pub(super) fn is_inverted(dataset: &Dataset) -> bool {
    dataset.text(tags::PHOTOMETRIC_INTERPRETATION).as_deref() == Some("MONOCHROME1")
}

/// Modalities whose values are meaningless without a rescale (type 1 in PS3.3 C.8.2.1, C.8.15.3.10
/// and C.8.9.1).
const RESCALED: [&str; 2] = ["CT", "PT"];

/// Returns RescaleSlope and RescaleIntercept (PS3.3 C.11.1 and C.7.6.16.2.9), which must be present
/// together or absent together.
fn linear(dataset: &Dataset, frame: usize) -> Result<(f64, f64)> {
    let places = Places::new(dataset, frame, tags::PIXEL_VALUE_TRANSFORMATION_SEQUENCE);
    let slope = one_number(&places, tags::RESCALE_SLOPE)?;
    let intercept = one_number(&places, tags::RESCALE_INTERCEPT)?;
    let modality = dataset.text(tags::MODALITY);
    match (slope, intercept) {
        (Some(0.0), _) => Err(invalid(tags::RESCALE_SLOPE, "is zero, which leaves no image")),
        (Some(slope), Some(intercept)) => Ok((slope, intercept)),
        (None, None) if !modality.as_deref().is_some_and(|m| RESCALED.contains(&m)) => {
            Ok((1.0, 0.0))
        }
        (None, _) => Err(invalid(tags::RESCALE_SLOPE, "is missing")),
        (_, None) => Err(invalid(tags::RESCALE_INTERCEPT, "is missing")),
    }
}

/// Returns a single finite number, or `None` if there is no value.
fn one_number(places: &Places, tag: Tag) -> Result<Option<f64>> {
    let texts: Vec<String> =
        places.texts(tag).into_iter().filter(|text| !text.is_empty()).collect();
    match &texts[..] {
        [] => Ok(None),
        [text] => text
            .parse()
            .ok()
            .filter(|value: &f64| value.is_finite())
            .map(Some)
            .ok_or_else(|| invalid(tag, "is not a number")),
        _ => Err(invalid(tag, "has several values")),
    }
}

/// Returns the units of the physical values: RescaleType (0028,1054) or Units (0054,1001) as in the
/// header; Hounsfield units for a CT without them.
pub(super) fn units(dataset: &Dataset, frame: usize) -> Option<String> {
    let places = Places::new(dataset, frame, tags::PIXEL_VALUE_TRANSFORMATION_SEQUENCE);
    let stated = dataset
        .text(tags::UNITS)
        .or_else(|| places.texts(tags::RESCALE_TYPE).into_iter().find(|text| !text.is_empty()))
        .filter(|text| text.len() <= 16 && text.bytes().all(|b| b.is_ascii_graphic()));
    match dataset.text(tags::MODALITY).as_deref() {
        Some("CT") => stated.filter(|units| units != "US").or(Some("HU".to_owned())),
        _ => stated,
    }
}

/// Rejects Siemens mosaics: a single image that shows all slices of a volume side by side, whose
/// segmentation as one slice would be meaningless.
pub(super) fn refuse_mosaic(dataset: &Dataset) -> Result<()> {
    const SIEMENS: &str = "SIEMENS MR HEADER";
    let by_type =
        dataset.texts(tags::IMAGE_TYPE).iter().any(|value| value.eq_ignore_ascii_case("MOSAIC"));
    // NumberOfImagesInMosaic, a private attribute.
    let tiles = || dataset.private_element(0x0019, SIEMENS, 0x0A).is_ok();
    if !by_type && !tiles() {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::InvalidImage,
        "is a Siemens mosaic, which shows the slices of a volume side by side in one image; export the \
         series as single slices or as enhanced MR",
    )
    .with("attribute", "ImageType"))
}

fn sequence_is_there(dataset: &Dataset, tag: Tag) -> bool {
    let element = dataset.get(tag);
    element.is_some_and(|element| element.items().is_some_and(|items| !items.is_empty()))
}

fn invalid(tag: Tag, why: &str) -> Error {
    Error::new(ErrorKind::InvalidImage, format!("{} {why}", keyword(tag)))
        .with("attribute", keyword(tag))
}

fn unsupported(tag: Tag, why: &str) -> Error {
    Error::new(ErrorKind::UnsupportedPixelData, format!("{} {why}", keyword(tag)))
        .with("attribute", keyword(tag))
}
