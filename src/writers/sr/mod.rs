//! Writes DICOM structured reports of measurements: Comprehensive 3D SR (PS3.3 A.35.13) with a
//! Measurement Report (PS3.16 TID 1500).
//!
//! - Each segment has a group (TID 1411) with the tracking identifiers of its segment in the DICOM SEG,
//!   to which the group refers: a report is never written without one.
//! - A segment without voxels has the volume 0 and no other values, just as the SEG describes it
//!   without a frame: it was looked for.
//! - Volumes are in millilitres. The values' mean, standard deviation (of the population), minimum,
//!   maximum and median are reported if their quantity and units are known: Hounsfield units for CT,
//!   the units of PET, the signal of MR.
//! - The report is complete and unverified: nobody has reviewed it.

mod content;
mod quantity;
mod report;

use std::ops::Range;

use dicom_core::VR;
use dicom_dictionary_std::{tags, uids};

use super::dicom::{
    Part10, Put, SeriesHead, copy_context, instances, put_equipment, put_series, put_times,
    reference, set_character_set,
};
use super::statistics::Statistics;
use crate::dicom::segment::{Algorithm, SegmentDescription};
use crate::dicom::{Attributes, Dataset, Instance};
use crate::error::{Error, Result};

pub use super::dicom::{Identity, SourceSlice};

/// The input of [`write`].
#[derive(Debug, Clone)]
pub struct SrRequest<'a> {
    /// The measured slices.
    pub slices: &'a [SourceSlice<'a>],
    /// The segments, in the segmentation's order.
    pub segments: &'a [SegmentDescription],
    /// The measurements of each segment.
    pub statistics: &'a [Statistics],
    /// Volume of a voxel in cubic millimetres.
    pub voxel_volume: f64,
    /// Units of the values, as named in the source's header.
    pub units: Option<&'a str>,
    /// The segmentation that contains the segments.
    pub segmentation: &'a Segmentation,
    /// The algorithm that made it.
    pub algorithm: &'a Algorithm,
    /// The seed of the UIDs.
    pub identity: &'a Identity,
}

/// A DICOM segmentation that reports refer to; its objects form one series.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segmentation {
    /// SOP Class UID.
    pub sop_class_uid: &'static str,
    /// Series Instance UID.
    pub series_instance_uid: String,
    /// Its objects, at least one.
    pub objects: Vec<SegmentationObject>,
}

/// One object of a segmentation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentationObject {
    /// SOP Instance UID.
    pub sop_instance_uid: String,
    /// Range of positions of the segments that it has frames of.
    pub segments: Range<usize>,
}

/// A finished report.
#[derive(Debug, Clone)]
pub struct Sr {
    /// The complete Part 10 file.
    pub bytes: Vec<u8>,
    /// Its SOP Instance UID.
    pub sop_instance_uid: String,
    /// Warnings for readers.
    pub warnings: Vec<String>,
}

/// Kind from which the UIDs are derived, besides the segmentation's identity.
const KIND: &str = "SR";

/// Series Description (0008,103E).
const SERIES_DESCRIPTION: &str = "AI generated measurements, not for clinical use.";

/// Offset of the series number from that of the source series.
const SERIES_NUMBER_OFFSET: i64 = 1010;

/// Writes the report.
///
/// # Errors
///
/// [`InvalidImage`](crate::error::ErrorKind::InvalidImage) if the source lacks its Study or Series
/// Instance UID; [`Internal`](crate::error::ErrorKind::Internal) if the request is inconsistent.
pub fn write(request: &SrRequest) -> Result<Sr> {
    if request.segments.len() != request.statistics.len() || request.segmentation.objects.is_empty()
    {
        return Err(Error::internal("a report of segments that were not measured or not written"));
    }
    let instances = instances(request.slices);
    let first = instances.first().ok_or_else(|| Error::internal("no source instance"))?;
    let source: &Dataset = &first.dataset;
    let quantity = quantity::of(source, request.units);
    let mut warnings = Vec::new();
    if quantity.is_none() {
        warnings.push(
            "the structured report has volumes alone: what the images' values measure is not known \
             from their Modality and units"
                .to_owned(),
        );
    }
    let sop_instance_uid = request.identity.instance(KIND, 1);
    let mut to = report::content(request, &instances, quantity.as_ref())?;
    copy_context(source, &mut to)?;
    // Attributes of images, which reports do not have.
    for tag in [tags::POSITION_REFERENCE_INDICATOR, tags::BODY_PART_EXAMINED, tags::LATERALITY] {
        to.remove_element(tag);
    }
    let series = request.identity.series(KIND);
    let head = SeriesHead {
        modality: "SR",
        uid: &series,
        description: SERIES_DESCRIPTION,
        offset: SERIES_NUMBER_OFFSET,
    };
    put_series(&head, source, &mut to);
    put_equipment(request.algorithm, &mut to);
    put_times(source, &mut to)?;
    put_document(&sop_instance_uid, &mut to);
    to.put_items(
        tags::CURRENT_REQUESTED_PROCEDURE_EVIDENCE_SEQUENCE,
        vec![evidence(source, &instances, request.segmentation)?],
    );
    set_character_set(source, &mut to);
    let file = Part10::new(to, uids::EXPLICIT_VR_LITTLE_ENDIAN)?;
    Ok(Sr { bytes: file.into_bytes(), sop_instance_uid, warnings })
}

/// Writes the SOP Common, SR Document Series and SR Document General modules (PS3.3 C.12.1, C.17.1,
/// C.17.2).
fn put_document(sop_instance_uid: &str, to: &mut Dataset) {
    to.put_text(tags::SOP_CLASS_UID, VR::UI, uids::COMPREHENSIVE3_DSR_STORAGE);
    to.put_text(tags::SOP_INSTANCE_UID, VR::UI, sop_instance_uid);
    to.put_text(tags::INSTANCE_NUMBER, VR::IS, "1");
    to.put_text(tags::COMPLETION_FLAG, VR::CS, "COMPLETE");
    to.put_text(tags::VERIFICATION_FLAG, VR::CS, "UNVERIFIED");
    to.put_items(tags::REFERENCED_PERFORMED_PROCEDURE_STEP_SEQUENCE, Vec::new());
    to.put_items(tags::PERFORMED_PROCEDURE_CODE_SEQUENCE, Vec::new());
}

/// Creates an item of the Current Requested Procedure Evidence Sequence (PS3.3 C.17.2.3): everything
/// that the report refers to, by series.
fn evidence(
    source: &Dataset,
    instances: &[&Instance],
    segmentation: &Segmentation,
) -> Result<Dataset> {
    let series = |uid: &str, references: Vec<Dataset>| {
        let mut item = Dataset::new_empty();
        item.put_text(tags::SERIES_INSTANCE_UID, VR::UI, uid);
        item.put_items(tags::REFERENCED_SOP_SEQUENCE, references);
        item
    };
    let object = |object: &SegmentationObject| {
        let mut item = Dataset::new_empty();
        item.put_text(tags::REFERENCED_SOP_CLASS_UID, VR::UI, segmentation.sop_class_uid);
        item.put_text(tags::REFERENCED_SOP_INSTANCE_UID, VR::UI, &object.sop_instance_uid);
        item
    };
    let images = instances.iter().map(|instance| reference(instance)).collect();
    let objects = segmentation.objects.iter().map(object).collect();
    let mut item = Dataset::new_empty();
    let study = source.required_text(tags::STUDY_INSTANCE_UID)?;
    item.put_text(tags::STUDY_INSTANCE_UID, VR::UI, &study);
    item.put_items(
        tags::REFERENCED_SERIES_SEQUENCE,
        vec![
            series(&source.required_text(tags::SERIES_INSTANCE_UID)?, images),
            series(&segmentation.series_instance_uid, objects),
        ],
    );
    Ok(item)
}

#[cfg(test)]
mod tests;
