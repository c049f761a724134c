//! The attributes that may distinguish volumes of one series, and their values in a frame.

use std::borrow::Cow;
use std::collections::BTreeMap;

use dicom_core::Tag;
use dicom_dictionary_std::tags;

use super::places::Places;
use super::slice::FrameGeometry;
use crate::dicom::{Attributes, Dataset, Series};
use crate::policy::Value;

/// First key of the dimension indices, which follow the attributes.
const DIMENSIONS: usize = ATTRIBUTES.len();
/// Key of the instance's UID, which comes last.
const INSTANCE: usize = DIMENSIONS + MOST_DIMENSIONS;
/// Maximum number of dimensions of a multi-frame instance that are considered.
const MOST_DIMENSIONS: usize = 32;

/// Location of an attribute in an enhanced instance.
pub(super) struct Place {
    keyword: &'static str,
    tag: Tag,
    /// Functional group macro; if absent, only the top level.
    group: Option<Tag>,
    /// A sequence within the macro.
    within: Option<Tag>,
}

const fn top(keyword: &'static str, tag: Tag) -> Place {
    Place { keyword, tag, group: None, within: None }
}

const fn grouped(keyword: &'static str, tag: Tag, group: Tag) -> Place {
    Place { keyword, tag, group: Some(group), within: None }
}

/// The attributes in the order they are tried: those by which a person would name a volume first,
/// mere counters and times last.
pub(super) const ATTRIBUTES: [Place; 33] = [
    top("TemporalPositionIdentifier", tags::TEMPORAL_POSITION_IDENTIFIER),
    grouped("TemporalPositionIndex", tags::TEMPORAL_POSITION_INDEX, tags::FRAME_CONTENT_SEQUENCE),
    grouped(
        "TemporalPositionTimeOffset",
        tags::TEMPORAL_POSITION_TIME_OFFSET,
        tags::TEMPORAL_POSITION_SEQUENCE,
    ),
    top("TriggerTime", tags::TRIGGER_TIME),
    grouped(
        "NominalCardiacTriggerDelayTime",
        tags::NOMINAL_CARDIAC_TRIGGER_DELAY_TIME,
        tags::CARDIAC_SYNCHRONIZATION_SEQUENCE,
    ),
    grouped(
        "NominalPercentageOfCardiacPhase",
        tags::NOMINAL_PERCENTAGE_OF_CARDIAC_PHASE,
        tags::CARDIAC_SYNCHRONIZATION_SEQUENCE,
    ),
    top("EchoTime", tags::ECHO_TIME),
    grouped("EffectiveEchoTime", tags::EFFECTIVE_ECHO_TIME, tags::MR_ECHO_SEQUENCE),
    top("EchoNumbers", tags::ECHO_NUMBERS),
    top("InversionTime", tags::INVERSION_TIME),
    grouped("InversionTimes", tags::INVERSION_TIMES, tags::MR_MODIFIER_SEQUENCE),
    grouped("FlipAngle", tags::FLIP_ANGLE, tags::MR_TIMING_AND_RELATED_PARAMETERS_SEQUENCE),
    grouped("DiffusionBValue", tags::DIFFUSION_B_VALUE, tags::MR_DIFFUSION_SEQUENCE),
    grouped("DiffusionDirectionality", tags::DIFFUSION_DIRECTIONALITY, tags::MR_DIFFUSION_SEQUENCE),
    Place {
        keyword: "DiffusionGradientOrientation",
        tag: tags::DIFFUSION_GRADIENT_ORIENTATION,
        group: Some(tags::MR_DIFFUSION_SEQUENCE),
        within: Some(tags::DIFFUSION_GRADIENT_DIRECTION_SEQUENCE),
    },
    grouped(
        "ComplexImageComponent",
        tags::COMPLEX_IMAGE_COMPONENT,
        tags::MR_IMAGE_FRAME_TYPE_SEQUENCE,
    ),
    top("ImageType", tags::IMAGE_TYPE),
    grouped("FrameType", tags::FRAME_TYPE, tags::MR_IMAGE_FRAME_TYPE_SEQUENCE),
    grouped("FrameType", tags::FRAME_TYPE, tags::CT_IMAGE_FRAME_TYPE_SEQUENCE),
    grouped("FrameType", tags::FRAME_TYPE, tags::PET_FRAME_TYPE_SEQUENCE),
    grouped("ConvolutionKernel", tags::CONVOLUTION_KERNEL, tags::CT_RECONSTRUCTION_SEQUENCE),
    grouped("KVP", tags::KVP, tags::CTX_RAY_DETAILS_SEQUENCE),
    grouped("SliceThickness", tags::SLICE_THICKNESS, tags::PIXEL_MEASURES_SEQUENCE),
    grouped("StackID", tags::STACK_ID, tags::FRAME_CONTENT_SEQUENCE),
    top("AcquisitionNumber", tags::ACQUISITION_NUMBER),
    grouped("FrameAcquisitionNumber", tags::FRAME_ACQUISITION_NUMBER, tags::FRAME_CONTENT_SEQUENCE),
    top("FrameReferenceTime", tags::FRAME_REFERENCE_TIME),
    top("AcquisitionDateTime", tags::ACQUISITION_DATE_TIME),
    top("AcquisitionTime", tags::ACQUISITION_TIME),
    top("ContentTime", tags::CONTENT_TIME),
    grouped(
        "FrameReferenceDateTime",
        tags::FRAME_REFERENCE_DATE_TIME,
        tags::FRAME_CONTENT_SEQUENCE,
    ),
    grouped(
        "FrameAcquisitionDateTime",
        tags::FRAME_ACQUISITION_DATE_TIME,
        tags::FRAME_CONTENT_SEQUENCE,
    ),
    top("SeriesTime", tags::SERIES_TIME),
];

/// Attributes whose order distinguishes frames at one position even if the slices of one volume
/// have different values, because slices are acquired one after the other at every time point.
pub(super) const TIMES: [&str; 6] = [
    "TriggerTime",
    "FrameReferenceTime",
    "AcquisitionTime",
    "ContentTime",
    "FrameReferenceDateTime",
    "FrameAcquisitionDateTime",
];

/// Maximum length of a stored value.
const LONGEST_VALUE: usize = 200;

/// Returns the keyword of a key.
pub(super) fn name_of(key: usize) -> Cow<'static, str> {
    match key {
        INSTANCE => Cow::Borrowed("SOPInstanceUID"),
        key if key >= DIMENSIONS => {
            Cow::Owned(format!("DimensionIndexValues.{}", key - DIMENSIONS + 1))
        }
        key => Cow::Borrowed(ATTRIBUTES[key].keyword),
    }
}

/// Returns a frame's values of [`ATTRIBUTES`], its dimension indices (PS3.3 C.7.6.17), and for a
/// multi-frame instance its UID, by key.
pub(super) fn values(series: &Series, frame: &FrameGeometry) -> BTreeMap<usize, Value> {
    let instance = &series.instances[frame.key.instance];
    let dataset = &*instance.dataset;
    let mut values = BTreeMap::new();
    for (key, place) in ATTRIBUTES.iter().enumerate() {
        if let Some(value) = place.value(dataset, frame.key.frame) {
            values.insert(key, value);
        }
    }
    for (tag, value) in [
        (tags::DIFFUSION_B_VALUE, private_b_value(dataset).map(Value::Number)),
        (tags::COMPLEX_IMAGE_COMPONENT, private_component(dataset)),
    ] {
        let key = ATTRIBUTES.iter().position(|place| place.tag == tag);
        if let (Some(key), Some(value)) = (key, value) {
            values.entry(key).or_insert(value);
        }
    }
    if instance.frames.len() > 1 {
        let content = Places::new(dataset, frame.key.frame, tags::FRAME_CONTENT_SEQUENCE);
        let indices = content.texts(tags::DIMENSION_INDEX_VALUES);
        for (dimension, index) in indices.into_iter().take(MOST_DIMENSIONS).enumerate() {
            if let Some(value) = value_of(&[index]) {
                values.insert(DIMENSIONS + dimension, value);
            }
        }
        let uid: String = instance.sop_instance_uid.chars().take(64).collect();
        values.insert(INSTANCE, Value::Text(uid));
    }
    values
}

impl Place {
    fn value(&self, dataset: &Dataset, frame: usize) -> Option<Value> {
        let Some(group) = self.group else { return value_of(&dataset.texts(self.tag)) };
        match self.within {
            None => value_of(&Places::new(dataset, frame, group).texts(self.tag)),
            Some(within) => {
                let own = Places::new(dataset, frame, group).item(within)?;
                value_of(&own.texts(self.tag))
            }
        }
    }
}

/// Returns a number if there is a single one, otherwise the texts joined with backslashes.
fn value_of(texts: &[String]) -> Option<Value> {
    match texts {
        [] => None,
        [one] if one.is_empty() => None,
        [one] => match one.parse::<f64>() {
            Ok(number) if number.is_finite() => Some(Value::Number(number)),
            _ => Some(Value::Text(one.chars().take(LONGEST_VALUE).collect())),
        },
        several => Some(Value::Text(several.join("\\").chars().take(LONGEST_VALUE).collect())),
    }
}

/// Where manufacturers stored the b-value before DICOM had an attribute for it: group, private
/// creator, element within its block.
const B_VALUES: [(u16, &str, u8); 3] = [
    (0x0019, "SIEMENS MR HEADER", 0x0C),
    (0x0043, "GEMS_PARM_01", 0x39),
    (0x2001, "Philips Imaging DD 001", 0x03),
];

fn private_b_value(dataset: &Dataset) -> Option<f64> {
    // GE adds 10^9 if the direction is vendor-specific.
    const MARK: f64 = 1e7;
    let number = |&(group, creator, element): &(u16, &str, u8)| -> Option<f64> {
        private_value(dataset, group, creator, element)?.parse().ok()
    };
    B_VALUES.iter().find_map(number).filter(|b| b.is_finite() && *b >= 0.0).map(|b| b % MARK)
}

/// Maps GE's number to the value of ComplexImageComponent.
fn private_component(dataset: &Dataset) -> Option<Value> {
    let component = match private_value(dataset, 0x0043, "GEMS_PARM_01", 0x2F)?.as_str() {
        "0" => "MAGNITUDE",
        "1" => "PHASE",
        "2" => "REAL",
        "3" => "IMAGINARY",
        _ => return None,
    };
    Some(Value::Text(component.to_owned()))
}

/// Returns the first value of a private attribute as text without padding.
fn private_value(dataset: &Dataset, group: u16, creator: &str, element: u8) -> Option<String> {
    let element = dataset.private_element(group, creator, element).ok()?;
    let text = match element.value().primitive()? {
        // From implicit VR, where the value representation is unknown.
        dicom_core::PrimitiveValue::U8(bytes) => String::from_utf8(bytes.to_vec()).ok()?,
        other => other.to_multi_str().first()?.clone(),
    };
    let first = text.split('\\').next()?;
    Some(first.trim_matches(|c: char| c == '\0' || c.is_whitespace()).to_owned())
}
