//! Writes a picture as a DICOM Secondary Capture Image (PS3.3 A.8.1), which every archive stores and
//! every viewer shows: one RGB frame, explicit VR little endian, in the study of its source images.
//!
//! It states that no text in the picture identifies the patient (Burned In Annotation, C.7.6.1.1.6),
//! and references all source images. It has no frame of reference, because it is a page and not a
//! plane.

use dicom_core::VR;
use dicom_dictionary_std::{tags, uids};

use super::dicom::{
    Identity, Part10, Put, SeriesHead, SourceSlice, check_consistent, copy_context,
    copy_lossy_compression, instances, put_equipment, put_series, put_times, reference,
    set_character_set,
};
use super::preview::Picture;
use crate::dicom::segment::{Algorithm, Code};
use crate::dicom::{Dataset, Instance};
use crate::error::{Error, Result};

/// Kind from which the UIDs of Secondary Captures are derived.
const KIND: &str = "secondary-capture";
/// Offset of the series number from that of the source series.
const SERIES_NUMBER_OFFSET: i64 = 1400;
const SERIES_DESCRIPTION: &str = "AI segmentation preview, not for clinical use";
/// Derivation Description (0008,2111).
const DERIVATION: &str =
    "Planes through the source images with the outlines of an automatic segmentation";

/// The input of [`write`].
pub struct CaptureRequest<'a> {
    /// The picture.
    pub picture: &'a Picture,
    /// The slices that the picture was made from.
    pub slices: &'a [SourceSlice<'a>],
    /// The algorithm that made the segmentation shown.
    pub algorithm: &'a Algorithm,
    /// The seed of the UIDs.
    pub identity: &'a Identity,
}

/// A finished object.
pub struct Capture {
    /// The complete Part 10 file.
    pub bytes: Vec<u8>,
    /// Its SOP Instance UID.
    pub sop_instance_uid: String,
}

/// Checks whether images of `columns` by `rows` pixels can be the source of a Secondary Capture:
/// [`write`] would refuse them otherwise. This is known before there is a picture.
///
/// # Errors
/// [`ErrorKind::InvalidImage`](crate::error::ErrorKind::InvalidImage) if they do not belong together.
pub fn check(slices: &[SourceSlice], columns: usize, rows: usize) -> Result<()> {
    check_consistent(&instances(slices), columns, rows)
}

/// Writes a picture as a Secondary Capture Image.
///
/// # Errors
/// [`ErrorKind::InvalidImage`](crate::error::ErrorKind::InvalidImage) if the source has no Study
/// Instance UID.
pub fn write(request: &CaptureRequest) -> Result<Capture> {
    let instances = instances(request.slices);
    let first = instances.first().ok_or_else(|| Error::internal("no source instance"))?;
    let source: &Dataset = &first.dataset;
    let sop_instance_uid = request.identity.instance(KIND, 1);

    let mut to = Dataset::new_empty();
    copy_context(source, &mut to)?;
    // Part of the Frame of Reference Module, which this object does not have.
    to.remove_element(tags::POSITION_REFERENCE_INDICATOR);
    copy_lossy_compression(&instances, &mut to);
    let head = SeriesHead {
        modality: "OT",
        uid: &request.identity.series(KIND),
        description: SERIES_DESCRIPTION,
        offset: SERIES_NUMBER_OFFSET,
    };
    put_series(&head, source, &mut to);
    put_equipment(request.algorithm, &mut to);
    put_times(source, &mut to)?;
    put_image(request.picture, &sop_instance_uid, &mut to);
    put_derivation(&instances, &mut to);
    set_character_set(source, &mut to);

    let mut file = Part10::new(to, uids::EXPLICIT_VR_LITTLE_ENDIAN)?;
    let rgb = &request.picture.rgb;
    let pixels = file.append_pixel_data(rgb.len().next_multiple_of(2))?;
    for (pixel, value) in pixels.iter_mut().zip(rgb) {
        *pixel = *value;
    }
    Ok(Capture { bytes: file.into_bytes(), sop_instance_uid })
}

/// Writes the SOP Common, General Image, Image Pixel and SC Equipment modules (PS3.3 C.12.1, C.7.6.1,
/// C.7.6.3, C.8.6.1).
fn put_image(picture: &Picture, sop_instance_uid: &str, to: &mut Dataset) {
    to.put_text(tags::SOP_CLASS_UID, VR::UI, uids::SECONDARY_CAPTURE_IMAGE_STORAGE);
    to.put_text(tags::SOP_INSTANCE_UID, VR::UI, sop_instance_uid);
    // WSD: workstation.
    to.put_text(tags::CONVERSION_TYPE, VR::CS, "WSD");
    to.put_text(tags::INSTANCE_NUMBER, VR::IS, "1");
    to.put_texts(tags::IMAGE_TYPE, VR::CS, &["DERIVED".to_owned(), "SECONDARY".to_owned()]);
    to.put_text(tags::PATIENT_ORIENTATION, VR::CS, "");
    to.put_text(tags::BURNED_IN_ANNOTATION, VR::CS, "NO");
    to.put_u16(tags::SAMPLES_PER_PIXEL, &[3]);
    to.put_text(tags::PHOTOMETRIC_INTERPRETATION, VR::CS, "RGB");
    to.put_u16(tags::PLANAR_CONFIGURATION, &[0]);
    to.put_u16(tags::ROWS, &[picture.height]);
    to.put_u16(tags::COLUMNS, &[picture.width]);
    to.put_u16(tags::BITS_ALLOCATED, &[8]);
    to.put_u16(tags::BITS_STORED, &[8]);
    to.put_u16(tags::HIGH_BIT, &[7]);
    to.put_u16(tags::PIXEL_REPRESENTATION, &[0]);
}

/// Writes the sources of the picture (PS3.3 C.7.6.1.1.3 and C.7.6.1.1.4).
fn put_derivation(instances: &[&Instance], to: &mut Dataset) {
    let purpose = Code::dcm("121322", "Source image for image processing operation");
    to.put_text(tags::DERIVATION_DESCRIPTION, VR::ST, DERIVATION);
    let sources = instances.iter().map(|instance| {
        let mut item = reference(instance);
        item.put_code(tags::PURPOSE_OF_REFERENCE_CODE_SEQUENCE, &purpose);
        item
    });
    to.put_items(tags::SOURCE_IMAGE_SEQUENCE, sources.collect());
}
