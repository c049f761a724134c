//! Writes the series of an object and its frame of reference.

use dicom_core::VR;
use dicom_dictionary_std::tags;

use super::Identity;
use super::elements::Put;
use crate::dicom::{Attributes, Dataset};

/// The attributes of a series.
pub(in crate::writers) struct SeriesHead<'a> {
    /// Modality (0008,0060).
    pub modality: &'a str,
    /// Series Instance UID (0020,000E).
    pub uid: &'a str,
    /// Series Description (0008,103E).
    pub description: &'a str,
    /// Offset of the series number from that of the source series, so that viewers list both together
    /// and the number does not collide with those of scanners, which count from 1.
    pub offset: i64,
}

/// Writes the General Series Module (PS3.3 C.7.3.1).
pub(in crate::writers) fn put_series(head: &SeriesHead, source: &Dataset, to: &mut Dataset) {
    let number = source.integer(tags::SERIES_NUMBER).unwrap_or(0);
    let number = Some(number.saturating_add(head.offset))
        .filter(|&number| i32::try_from(number).is_ok())
        .unwrap_or(head.offset);
    to.put_text(tags::MODALITY, VR::CS, head.modality);
    to.put_text(tags::SERIES_INSTANCE_UID, VR::UI, head.uid);
    to.put_text(tags::SERIES_NUMBER, VR::IS, &number.to_string());
    to.put_text(tags::SERIES_DESCRIPTION, VR::LO, head.description);
}

/// Writes the source's Frame of Reference Module (PS3.3 C.7.4.1) and returns its UID.
pub(in crate::writers) fn put_frame_of_reference(
    source: &Dataset,
    identity: &Identity,
    to: &mut Dataset,
    warnings: &mut Vec<String>,
) -> String {
    let frame_of_reference = source.text(tags::FRAME_OF_REFERENCE_UID).unwrap_or_else(|| {
        warnings.push(
            "the source has no FrameOfReferenceUID; the segmentation has one of its own, and \
             viewers relate it to the images by their references alone"
                .to_owned(),
        );
        identity.frame_of_reference()
    });
    to.put_text(tags::FRAME_OF_REFERENCE_UID, VR::UI, &frame_of_reference);
    frame_of_reference
}
