//! The search levels, with the search keys and default attributes of each.

use dicom_core::Tag;
use dicom_dictionary_std::tags;

/// The level of a search.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Level {
    Study,
    Series,
    Instance,
}

/// Search keys of studies (developer guide, "Study elements for SearchDICOMStudies"). Patient's Sex
/// is not listed there, but is a key of PS3.18 table 10.6.1-5.
const STUDY_KEYS: [Tag; 13] = [
    tags::STUDY_DATE,
    tags::STUDY_TIME,
    tags::ACCESSION_NUMBER,
    tags::MODALITIES_IN_STUDY,
    tags::REFERRING_PHYSICIAN_NAME,
    tags::STUDY_DESCRIPTION,
    tags::PATIENT_NAME,
    tags::PATIENT_ID,
    tags::PATIENT_BIRTH_DATE,
    tags::PATIENT_BIRTH_TIME,
    tags::PATIENT_SEX,
    tags::STUDY_INSTANCE_UID,
    tags::STUDY_ID,
];

/// Search keys of series, in addition to those of their study.
const SERIES_KEYS: [Tag; 5] = [
    tags::MODALITY,
    tags::SERIES_INSTANCE_UID,
    tags::SERIES_NUMBER,
    tags::PERFORMED_PROCEDURE_STEP_START_DATE,
    tags::PERFORMED_PROCEDURE_STEP_START_TIME,
];

/// Search keys of instances, in addition to those of their series and study.
const INSTANCE_KEYS: [Tag; 4] =
    [tags::SOP_CLASS_UID, tags::SOP_INSTANCE_UID, tags::INSTANCE_NUMBER, tags::WARNING_REASON];

/// Attributes returned by default for a study, besides computed ones (PS3.18 table 10.6.3-3).
const STUDY_DEFAULTS: [Tag; 12] = [
    tags::SPECIFIC_CHARACTER_SET,
    tags::STUDY_DATE,
    tags::STUDY_TIME,
    tags::ACCESSION_NUMBER,
    tags::REFERRING_PHYSICIAN_NAME,
    tags::TIMEZONE_OFFSET_FROM_UTC,
    tags::PATIENT_NAME,
    tags::PATIENT_ID,
    tags::PATIENT_BIRTH_DATE,
    tags::PATIENT_SEX,
    tags::STUDY_INSTANCE_UID,
    tags::STUDY_ID,
];

/// Attributes returned by default for a series (PS3.18 table 10.6.3-4).
const SERIES_DEFAULTS: [Tag; 9] = [
    tags::SPECIFIC_CHARACTER_SET,
    tags::MODALITY,
    tags::TIMEZONE_OFFSET_FROM_UTC,
    tags::SERIES_DESCRIPTION,
    tags::SERIES_INSTANCE_UID,
    tags::SERIES_NUMBER,
    tags::PERFORMED_PROCEDURE_STEP_START_DATE,
    tags::PERFORMED_PROCEDURE_STEP_START_TIME,
    tags::REQUEST_ATTRIBUTES_SEQUENCE,
];

/// Attributes returned by default for an instance (PS3.18 table 10.6.3-5).
const INSTANCE_DEFAULTS: [Tag; 10] = [
    tags::SPECIFIC_CHARACTER_SET,
    tags::SOP_CLASS_UID,
    tags::SOP_INSTANCE_UID,
    tags::TIMEZONE_OFFSET_FROM_UTC,
    tags::INSTANCE_NUMBER,
    tags::ROWS,
    tags::COLUMNS,
    tags::BITS_ALLOCATED,
    tags::NUMBER_OF_FRAMES,
    tags::WARNING_REASON,
];

impl Level {
    /// Whether an attribute is a search key at this level.
    pub fn is_key(self, tag: Tag) -> bool {
        STUDY_KEYS.contains(&tag)
            || (self >= Self::Series && SERIES_KEYS.contains(&tag))
            || (self == Self::Instance && INSTANCE_KEYS.contains(&tag))
    }

    /// Returns the attributes returned by default at this level.
    pub fn defaults(self) -> &'static [Tag] {
        match self {
            Self::Study => &STUDY_DEFAULTS,
            Self::Series => &SERIES_DEFAULTS,
            Self::Instance => &INSTANCE_DEFAULTS,
        }
    }
}
