//! Defects of an instance that is imported anyway (developer guide, "HealthImaging Warning Codes").

use dicom_core::VR;
use dicom_core::header::Header;
use serde_json::{Value, json};

use crate::dicom::attributes::keyword;
use crate::dicom::{Dataset, uid};

/// Maximum number of warnings reported per instance.
const MOST: usize = 20;

/// Maximum nesting depth of sequences that are checked.
const DEPTH: usize = 32;

/// The reason of a warning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reason {
    /// The pixels cannot be transcoded; they are stored unchanged.
    Transcoding,
    /// The pixel data cannot be split into the frames declared in the header.
    FramesExtraction,
    /// A UID is malformed.
    UidFormat,
    /// A value is longer than its VR allows.
    ValueLength,
}

impl Reason {
    /// Returns the Warning Reason (0008,1196).
    pub fn code(self) -> u16 {
        match self {
            Self::Transcoding => 0xB100,
            Self::FramesExtraction => 0xB110,
            // For these two, the decimal numbers in the guide are one higher than its hexadecimal
            // ones.
            Self::UidFormat => 0xB201,
            Self::ValueLength => 0xB202,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Transcoding => "TranscodingException",
            Self::FramesExtraction => "FramesExtractionFailure",
            Self::UidFormat => "InvalidUidFormat",
            Self::ValueLength => "InvalidDicomValueLength",
        }
    }
}

/// A warning about an instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Warning {
    pub reason: Reason,
    /// Describes the defect; never contains a value.
    pub message: String,
}

impl Warning {
    /// Returns the warning in the format of an import job.
    pub fn to_json(&self) -> Value {
        json!({
            "warning_reason_code": self.reason.code(),
            "type": self.reason.name(),
            "message": self.message,
        })
    }
}

/// Returns warnings about the attributes.
pub(super) fn of_attributes(dataset: &Dataset) -> Vec<Warning> {
    let mut found = Vec::new();
    look(dataset, 0, &mut found);
    found
}

fn look(dataset: &Dataset, depth: usize, found: &mut Vec<Warning>) {
    for element in dataset {
        if found.len() == MOST {
            return;
        }
        if let Some(items) = element.items() {
            if depth < DEPTH {
                items.iter().for_each(|item| look(item, depth + 1, found));
            }
            continue;
        }
        let vr = element.vr();
        let Some(value) = element.value().primitive() else { continue };
        let warning = if vr == VR::UI {
            let trimmed = |text: &String| text.trim_end_matches(['\0', ' ']).to_owned();
            let all: Vec<String> = value.to_multi_str().iter().map(trimmed).collect();
            all.iter()
                .any(|text| !text.is_empty() && !uid::is_written(text))
                .then_some((Reason::UidFormat, "is not a UID"))
        } else {
            let longest = most_characters(vr);
            let is_longer =
                |text: &String| longest.is_some_and(|n| text.trim().chars().count() > n);
            let all = value.to_multi_str();
            all.iter()
                .any(is_longer)
                .then_some((Reason::ValueLength, "is longer than its VR allows"))
        };
        if let Some((reason, what)) = warning {
            let message = format!("{} {} {what}", keyword(element.tag()), element.tag());
            found.push(Warning { reason, message });
        }
    }
}

/// Returns the maximum number of characters of a value (PS3.5 section 6.2); for a person name, of
/// all three component groups together.
fn most_characters(vr: VR) -> Option<usize> {
    match vr {
        VR::AS => Some(4),
        VR::AE | VR::CS | VR::DS | VR::SH => Some(16),
        VR::IS => Some(12),
        // Query ranges do not occur in instances.
        VR::DA => Some(10),
        VR::TM => Some(16),
        VR::DT => Some(26),
        VR::LO => Some(64),
        VR::PN => Some(3 * 64 + 2),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use dicom_core::{DataElement, PrimitiveValue};
    use dicom_dictionary_std::tags;

    use super::*;

    #[test]
    fn values_out_of_order_are_told_by_keyword() {
        let text = |tag, vr, value: &str| DataElement::new(tag, vr, PrimitiveValue::from(value));
        let sound = [
            text(tags::SOP_INSTANCE_UID, VR::UI, "1.2.3\0"),
            text(tags::PATIENT_ID, VR::LO, &"p".repeat(64)),
            text(tags::SLICE_THICKNESS, VR::DS, "1.25000000000000"),
        ];
        assert_eq!(of_attributes(&Dataset::from_element_iter(sound)), []);
        let wrong = [
            text(tags::SOP_INSTANCE_UID, VR::UI, "1.2..3"),
            text(tags::PATIENT_ID, VR::LO, &"secret".repeat(11)),
        ];
        let found = of_attributes(&Dataset::from_element_iter(wrong));
        let codes: Vec<u16> = found.iter().map(|w| w.reason.code()).collect();
        assert_eq!(codes, [0xB201, 0xB202]);
        assert!(found[1].message.contains("PatientID") && !found[1].message.contains("secret"));
    }
}
