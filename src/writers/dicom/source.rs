//! What a segmentation copies from its source images: the planes of its frames, in the source's own
//! decimal strings, and the attributes of patient and study.

use std::collections::HashSet;

use dicom_core::{Tag, VR};
use dicom_dictionary_std::{tags, uids};
use dicom_object::mem::InMemElement;

use super::SourceSlice;
use super::elements::{Put, has_value, items};
use crate::dicom::attributes::keyword;
use crate::dicom::{Attributes, Dataset, Instance, charset, uid};
use crate::error::{Error, ErrorKind, Result};

/// The plane of one source slice, in the strings of the source without their padding: rounding them
/// would create planes that no longer coincide with the source's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::writers) struct Plane {
    /// Image Position (Patient) (0020,0032).
    pub position: Vec<String>,
    /// Image Orientation (Patient) (0020,0037).
    pub orientation: Vec<String>,
    /// Pixel Spacing (0028,0030).
    pub spacing: Vec<String>,
    /// Slice Thickness (0018,0050), if the source has it.
    pub thickness: Option<String>,
}

impl Plane {
    /// Returns the plane of a slice: from the functional groups of the frame, then from the shared ones
    /// (PS3.3 C.7.6.16), then from the top level of the data set.
    pub fn of(slice: &SourceSlice) -> Result<Self> {
        if slice.frame as u64 >= slice.number_of_frames() {
            return Err(Error::internal(format!(
                "instance {} has no frame {}",
                slice.instance.sop_instance_uid,
                slice.frame + 1
            )));
        }
        let plane_position = tags::PLANE_POSITION_SEQUENCE;
        let plane_orientation = tags::PLANE_ORIENTATION_SEQUENCE;
        let pixel_measures = tags::PIXEL_MEASURES_SEQUENCE;
        let thickness = slice.texts(pixel_measures, tags::SLICE_THICKNESS);
        Ok(Self {
            position: slice.decimals(plane_position, tags::IMAGE_POSITION_PATIENT, 3)?,
            orientation: slice.decimals(plane_orientation, tags::IMAGE_ORIENTATION_PATIENT, 6)?,
            spacing: slice.decimals(pixel_measures, tags::PIXEL_SPACING, 2)?,
            thickness: thickness.into_iter().next().filter(|text| text.parse::<f64>().is_ok()),
        })
    }

    /// Whether a string is longer than the 16 characters that DS may have.
    pub fn is_overlong(&self) -> bool {
        let texts = self.position.iter().chain(&self.orientation).chain(&self.spacing);
        texts.chain(&self.thickness).any(|text| text.len() > 16)
    }
}

impl SourceSlice<'_> {
    /// Whether the instance has more than one frame.
    pub(in crate::writers) fn is_multi_frame(&self) -> bool {
        self.number_of_frames() > 1
    }

    /// Returns the number of frames of the instance, at least one.
    pub(in crate::writers) fn number_of_frames(&self) -> u64 {
        let stated = self.instance.dataset.integer(tags::NUMBER_OF_FRAMES);
        stated.and_then(|frames| u64::try_from(frames).ok()).unwrap_or(1).max(1)
    }

    /// Returns the values of an attribute of a functional group; empty if the source has none.
    fn texts(&self, group: Tag, tag: Tag) -> Vec<String> {
        let dataset: &Dataset = &self.instance.dataset;
        let own = items(dataset, tags::PER_FRAME_FUNCTIONAL_GROUPS_SEQUENCE).get(self.frame);
        let shared = items(dataset, tags::SHARED_FUNCTIONAL_GROUPS_SEQUENCE).first();
        let top =
            (!self.is_multi_frame() || tag != tags::IMAGE_POSITION_PATIENT).then_some(dataset);
        let groups = [own, shared].into_iter().flatten().filter_map(|g| items(g, group).first());
        // A value set as one string still contains its separators.
        groups
            .chain(top)
            .find(|dataset| has_value(dataset, tag))
            .map(|dataset| dataset.texts(tag))
            .unwrap_or_default()
            .iter()
            .flat_map(|text| text.split('\\'))
            .map(|text| text.trim().to_owned())
            .collect()
    }

    fn decimals(&self, group: Tag, tag: Tag, count: usize) -> Result<Vec<String>> {
        let texts = self.texts(group, tag);
        let finite = |text: &String| text.parse::<f64>().is_ok_and(f64::is_finite);
        if texts.len() == count && texts.iter().all(finite) {
            return Ok(texts);
        }
        let uid = &self.instance.sop_instance_uid;
        Err(Error::new(
            ErrorKind::InvalidImage,
            format!(
                "{} {tag} of instance {uid}, frame {}, is missing or is not {count} numbers",
                keyword(tag),
                self.frame + 1
            ),
        )
        .with("sopInstanceUID", uid.as_str())
        .with("attribute", keyword(tag)))
    }
}

/// Returns the instances of the slices without duplicates, in slice order.
pub(in crate::writers) fn instances<'a>(slices: &[SourceSlice<'a>]) -> Vec<&'a Instance> {
    let mut seen = HashSet::new();
    let instances = slices.iter().map(|slice| slice.instance);
    instances.filter(|instance| seen.insert(instance.sop_instance_uid.as_str())).collect()
}

/// Checks that the instances belong together and have `columns` by `rows` pixels. A segmentation refers
/// to one patient, study, series and frame of reference: mixed sources are refused. The error says
/// which attribute differs in which instance, but never its value.
pub(in crate::writers) fn check_consistent(
    instances: &[&Instance],
    columns: usize,
    rows: usize,
) -> Result<()> {
    const SAME: [Tag; 4] = [
        tags::STUDY_INSTANCE_UID,
        tags::SERIES_INSTANCE_UID,
        tags::FRAME_OF_REFERENCE_UID,
        tags::PATIENT_ID,
    ];
    let fault = |instance: &Instance, what: String| {
        let uid = instance.sop_instance_uid.as_str();
        Err(Error::new(ErrorKind::InvalidImage, format!("instance {uid}: {what}"))
            .with("sopInstanceUID", uid))
    };
    let Some(first) = instances.first() else { return Ok(()) };
    for instance in instances {
        for tag in SAME {
            if instance.dataset.text(tag) != first.dataset.text(tag) {
                return fault(
                    instance,
                    format!("{} differs from the other instances'", keyword(tag)),
                );
            }
        }
        for (tag, expected) in [(tags::COLUMNS, columns), (tags::ROWS, rows)] {
            let found = instance.dataset.required_integer(tag)?;
            if usize::try_from(found) != Ok(expected) {
                return fault(
                    instance,
                    format!("{} is {found}, the label map has {expected}", keyword(tag)),
                );
            }
        }
        // Archives have UIDs with leading zeros; references must repeat them unchanged.
        if !uid::is_written(&instance.sop_instance_uid) || !uid::is_valid(&instance.sop_class_uid) {
            return fault(instance, "its SOP Instance or SOP Class UID is not a UID".to_owned());
        }
    }
    Ok(())
}

/// Type 2 attributes of the Patient, General Study and Frame of Reference modules: written empty if the
/// source lacks them.
const REQUIRED: [(Tag, VR); 10] = [
    (tags::PATIENT_NAME, VR::PN),
    (tags::PATIENT_ID, VR::LO),
    (tags::PATIENT_BIRTH_DATE, VR::DA),
    (tags::PATIENT_SEX, VR::CS),
    (tags::STUDY_DATE, VR::DA),
    (tags::STUDY_TIME, VR::TM),
    (tags::REFERRING_PHYSICIAN_NAME, VR::PN),
    (tags::STUDY_ID, VR::SH),
    (tags::ACCESSION_NUMBER, VR::SH),
    (tags::POSITION_REFERENCE_INDICATOR, VR::LO),
];

/// Attributes copied if the source has them: the Patient (PS3.3 C.7.1.1), Clinical Trial Subject and
/// Study (C.7.1.3, C.7.2.3), General Study (C.7.2.1) and Patient Study (C.7.2.2) modules, and the
/// attributes of the series that identify the body part.
const OPTIONAL: [Tag; 44] = [
    tags::ISSUER_OF_PATIENT_ID,
    tags::ISSUER_OF_PATIENT_ID_QUALIFIERS_SEQUENCE,
    tags::TYPE_OF_PATIENT_ID,
    tags::OTHER_PATIENT_I_DS_SEQUENCE,
    tags::OTHER_PATIENT_NAMES,
    tags::PATIENT_BIRTH_TIME,
    tags::PATIENT_COMMENTS,
    tags::PATIENT_SPECIES_DESCRIPTION,
    tags::PATIENT_SPECIES_CODE_SEQUENCE,
    tags::PATIENT_BREED_DESCRIPTION,
    tags::PATIENT_BREED_CODE_SEQUENCE,
    tags::BREED_REGISTRATION_SEQUENCE,
    tags::RESPONSIBLE_PERSON,
    tags::RESPONSIBLE_PERSON_ROLE,
    tags::RESPONSIBLE_ORGANIZATION,
    tags::PATIENT_IDENTITY_REMOVED,
    tags::DEIDENTIFICATION_METHOD,
    tags::DEIDENTIFICATION_METHOD_CODE_SEQUENCE,
    tags::QUALITY_CONTROL_SUBJECT,
    tags::CLINICAL_TRIAL_SPONSOR_NAME,
    tags::CLINICAL_TRIAL_PROTOCOL_ID,
    tags::CLINICAL_TRIAL_PROTOCOL_NAME,
    tags::CLINICAL_TRIAL_SITE_ID,
    tags::CLINICAL_TRIAL_SITE_NAME,
    tags::CLINICAL_TRIAL_SUBJECT_ID,
    tags::CLINICAL_TRIAL_SUBJECT_READING_ID,
    tags::CLINICAL_TRIAL_TIME_POINT_ID,
    tags::CLINICAL_TRIAL_TIME_POINT_DESCRIPTION,
    tags::STUDY_DESCRIPTION,
    tags::ISSUER_OF_ACCESSION_NUMBER_SEQUENCE,
    tags::PROCEDURE_CODE_SEQUENCE,
    tags::REFERENCED_STUDY_SEQUENCE,
    tags::PHYSICIANS_OF_RECORD,
    tags::CONSULTING_PHYSICIAN_NAME,
    tags::NAME_OF_PHYSICIANS_READING_STUDY,
    tags::ADMITTING_DIAGNOSES_DESCRIPTION,
    tags::PATIENT_AGE,
    tags::PATIENT_SIZE,
    tags::PATIENT_WEIGHT,
    tags::PATIENT_SEX_NEUTERED,
    tags::PREGNANCY_STATUS,
    tags::TIMEZONE_OFFSET_FROM_UTC,
    tags::BODY_PART_EXAMINED,
    tags::LATERALITY,
];

/// Whether [`copy_context`] copies an attribute.
pub(in crate::writers) fn is_taken_over(tag: Tag) -> bool {
    REQUIRED.iter().any(|(required, _)| *required == tag) || OPTIONAL.contains(&tag)
}

/// Copies patient, study and frame of reference into `to`, with unchanged values.
pub(in crate::writers) fn copy_context(from: &Dataset, to: &mut Dataset) -> Result<()> {
    for (tag, vr) in REQUIRED {
        match from.get(tag) {
            Some(element) => {
                to.put(adopted(element));
            }
            None => to.put_text(tag, vr, ""),
        }
    }
    for tag in OPTIONAL {
        if let Some(element) = from.get(tag)
            && has_value(from, tag)
        {
            to.put(adopted(element));
        }
    }
    let study = from.required_text(tags::STUDY_INSTANCE_UID)?;
    to.put_text(tags::STUDY_INSTANCE_UID, VR::UI, &study);
    Ok(())
}

/// Returns a copy of `element` whose items do not specify their own character set, unless their texts
/// are raw bytes in it: all other texts are written in the character set of the new object.
fn adopted(element: &InMemElement) -> InMemElement {
    fn strip(items: &mut [Dataset]) {
        for item in items {
            charset::forget(item);
            for tag in item.tags().collect::<Vec<_>>() {
                item.update_value(tag, |value| strip(value.items_mut().map_or(&mut [], |i| i)));
            }
        }
    }
    let mut element = element.clone();
    strip(element.items_mut().map_or(&mut [], |items| items));
    element
}

/// Records how often and how the sources were lossily compressed (PS3.3 C.7.6.1.1.5): the loss affects
/// everything derived from them.
pub(in crate::writers) fn copy_lossy_compression(instances: &[&Instance], to: &mut Dataset) {
    let lossy = |instance: &&&Instance| match instance.dataset.text(tags::LOSSY_IMAGE_COMPRESSION) {
        Some(said) => said == "01",
        None => is_lossy(&instance.transfer_syntax),
    };
    let Some(source) = instances.iter().find(lossy) else {
        to.put_text(tags::LOSSY_IMAGE_COMPRESSION, VR::CS, "00");
        return;
    };
    to.put_text(tags::LOSSY_IMAGE_COMPRESSION, VR::CS, "01");
    for tag in [tags::LOSSY_IMAGE_COMPRESSION_RATIO, tags::LOSSY_IMAGE_COMPRESSION_METHOD] {
        if let Some(element) = source.dataset.get(tag) {
            to.put(element.clone());
        }
    }
}

/// Whether a transfer syntax is considered lossy. Syntaxes of JPEG 2000, High-Throughput JPEG 2000 and
/// JPEG XL that allow both count as lossy: each has a lossless counterpart.
fn is_lossy(transfer_syntax: &str) -> bool {
    const LOSSY: [&str; 8] = [
        uids::JPEG_BASELINE8_BIT,
        uids::JPEG_EXTENDED12_BIT,
        uids::JPEGLS_NEAR_LOSSLESS,
        uids::JPEG2000,
        uids::JPEG2000MC,
        uids::HTJ2K,
        uids::JPEGXLJPEG_RECOMPRESSION,
        uids::JPEGXL,
    ];
    LOSSY.contains(&transfer_syntax)
}
