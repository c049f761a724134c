//! Data sets to the metadata document of an AHI image set.
//!
//! The opposite of [`read`](super::read). Attributes stand under their keywords at the level of
//! patient, study, series or instance as HealthImaging arranges them; private ones under their tag
//! in eight hexadecimal digits, with their VR in `DICOMVRs`. Values keep the text of the file, padding
//! included.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use dicom_core::value::{PrimitiveValue, Value as DicomValue};
use dicom_core::{DataDictionary, DataElement, Tag, VR};
use dicom_dictionary_std::{StandardDataDictionary, tags};
use dicom_object::InMemDicomObject;
use serde_json::{Map, Value, json};

use crate::dicom::{Attributes, Dataset};
use crate::error::{Error, Result};

/// Version of the document's schema.
const SCHEMA_VERSION: &str = "1.1";

/// One instance to be described.
#[derive(Debug, Clone)]
pub struct InstanceEntry {
    /// Its complete header.
    pub dataset: Dataset,
    /// Transfer syntax of the stored frames.
    pub stored_transfer_syntax: String,
    /// Its frames in order.
    pub frames: Vec<FrameEntry>,
}

/// One stored frame.
#[derive(Debug, Clone, PartialEq)]
pub struct FrameEntry {
    /// Image frame id.
    pub id: String,
    /// Width, height and CRC-32 of the decoded pixels at full resolution.
    pub full_resolution: (u32, u32, u32),
    /// Smallest and largest pixel value, where both are numbers.
    pub pixel_range: Option<(f64, f64)>,
    /// Bytes as stored.
    pub bytes: u64,
}

/// Attributes of the patient (Patient Module, PS3.3 C.7.1.1).
const PATIENT: [Tag; 9] = [
    tags::PATIENT_NAME,
    tags::PATIENT_ID,
    tags::ISSUER_OF_PATIENT_ID,
    tags::PATIENT_BIRTH_DATE,
    tags::PATIENT_BIRTH_TIME,
    tags::PATIENT_SEX,
    tags::OTHER_PATIENT_NAMES,
    tags::PATIENT_COMMENTS,
    tags::PATIENT_IDENTITY_REMOVED,
];

/// Attributes of the study (General Study and Patient Study Modules, PS3.3 C.7.2).
const STUDY: [Tag; 13] = [
    tags::STUDY_INSTANCE_UID,
    tags::STUDY_DATE,
    tags::STUDY_TIME,
    tags::ACCESSION_NUMBER,
    tags::STUDY_ID,
    tags::STUDY_DESCRIPTION,
    tags::REFERRING_PHYSICIAN_NAME,
    tags::PATIENT_AGE,
    tags::PATIENT_SIZE,
    tags::PATIENT_WEIGHT,
    tags::ADMISSION_ID,
    tags::OCCUPATION,
    tags::ADDITIONAL_PATIENT_HISTORY,
];

/// Attributes of the series and what made it (PS3.3 C.7.3, C.7.4, C.7.5).
const SERIES: [Tag; 21] = [
    tags::MODALITY,
    tags::SERIES_INSTANCE_UID,
    tags::SERIES_NUMBER,
    tags::SERIES_DATE,
    tags::SERIES_TIME,
    tags::SERIES_DESCRIPTION,
    tags::BODY_PART_EXAMINED,
    tags::PATIENT_POSITION,
    tags::PROTOCOL_NAME,
    tags::LATERALITY,
    tags::FRAME_OF_REFERENCE_UID,
    tags::POSITION_REFERENCE_INDICATOR,
    tags::MANUFACTURER,
    tags::MANUFACTURER_MODEL_NAME,
    tags::INSTITUTION_NAME,
    tags::INSTITUTION_ADDRESS,
    tags::STATION_NAME,
    tags::DEVICE_SERIAL_NUMBER,
    tags::SOFTWARE_VERSIONS,
    tags::PERFORMING_PHYSICIAN_NAME,
    tags::OPERATORS_NAME,
];

/// The document of an image set.
///
/// # Errors
///
/// An error names the attribute that an instance lacks: its UID or that of its series.
pub fn document(
    datastore_id: &str,
    image_set_id: &str,
    instances: &[InstanceEntry],
) -> Result<Value> {
    let first = instances.first().ok_or_else(|| Error::internal("an image set has instances"))?;
    let levels = Levels::of(instances);
    let series_uid = first.dataset.required_text(tags::SERIES_INSTANCE_UID)?;
    let mut described = Map::new();
    for entry in instances {
        let uid = entry.dataset.required_text(tags::SOP_INSTANCE_UID)?;
        described.insert(uid, instance(entry, &levels));
    }
    let mut series = level(&first.dataset, &levels.series);
    series.insert("Instances".to_owned(), Value::Object(described));
    let mut study = level(&first.dataset, &levels.study);
    study.insert("Series".to_owned(), json!({ series_uid: series }));
    Ok(json!({
        "SchemaVersion": SCHEMA_VERSION,
        "DatastoreID": datastore_id,
        "ImageSetID": image_set_id,
        "Patient": level(&first.dataset, &levels.patient),
        "Study": study,
    }))
}

/// Which attributes stand above the instances: those of each level that all instances share.
struct Levels {
    patient: Vec<Tag>,
    study: Vec<Tag>,
    series: Vec<Tag>,
}

impl Levels {
    fn of(instances: &[InstanceEntry]) -> Self {
        let shared = |tags: &[Tag]| -> Vec<Tag> {
            let value = |entry: &InstanceEntry, tag| entry.dataset.get(tag).map(json_value);
            let same = |tag: &&Tag| {
                let first = value(&instances[0], **tag);
                first.is_some() && instances[1..].iter().all(|i| value(i, **tag) == first)
            };
            tags.iter().filter(same).copied().collect()
        };
        Self { patient: shared(&PATIENT), study: shared(&STUDY), series: shared(&SERIES) }
    }

    fn holds(&self, tag: Tag) -> bool {
        [&self.patient, &self.study, &self.series].iter().any(|level| level.contains(&tag))
    }
}

fn level(dataset: &Dataset, tags: &[Tag]) -> Map<String, Value> {
    let elements = tags.iter().filter_map(|tag| dataset.get(*tag));
    let dicom: Map<String, Value> =
        elements.filter_map(|e| Some((key(e.header().tag)?, json_value(e)))).collect();
    Map::from_iter([("DICOM".to_owned(), Value::Object(dicom))])
}

fn instance(entry: &InstanceEntry, levels: &Levels) -> Value {
    let mut dicom = Map::new();
    let mut vrs = Map::new();
    for element in &entry.dataset {
        let tag = element.header().tag;
        let Some(key) = key(tag).filter(|_| !levels.holds(tag)) else { continue };
        private_vrs(element, &mut vrs);
        dicom.insert(key, json_value(element));
    }
    let frames: Vec<Value> = entry.frames.iter().map(frame).collect();
    json!({
        "DICOM": dicom,
        "DICOMVRs": vrs,
        "StoredTransferSyntaxUID": entry.stored_transfer_syntax,
        "ImageFrames": frames,
    })
}

/// The value representations of private elements, those of items too.
fn private_vrs(element: &DataElement<InMemDicomObject>, vrs: &mut Map<String, Value>) {
    let tag = element.header().tag;
    if tag.group() % 2 == 1 {
        vrs.insert(digits(tag), json!(element.vr().to_string()));
    }
    for item in element.items().unwrap_or_default() {
        item.iter().for_each(|element| private_vrs(element, vrs));
    }
}

fn digits(tag: Tag) -> String {
    format!("{:04X}{:04X}", tag.group(), tag.element())
}

fn frame(entry: &FrameEntry) -> Value {
    let (width, height, checksum) = entry.full_resolution;
    let mut described = json!({
        "ID": entry.id,
        "PixelDataChecksumFromBaseToFullResolution": [
            {"Width": width, "Height": height, "Checksum": checksum}
        ],
        "FrameSizeInBytes": entry.bytes,
    });
    if let Some((low, high)) = entry.pixel_range {
        described["MinPixelValue"] = number(low);
        described["MaxPixelValue"] = number(high);
    }
    described
}

/// An integer as such.
fn number(value: f64) -> Value {
    let whole = value as i64;
    if whole as f64 == value { json!(whole) } else { json!(value) }
}

/// The keyword of a standard attribute, the digits of a private one; `None` for what has neither
/// and for group lengths.
fn key(tag: Tag) -> Option<String> {
    if tag.group() % 2 == 1 {
        return Some(digits(tag));
    }
    let entry = StandardDataDictionary.by_tag(tag)?;
    // A keyword of a repeating group stands for the first of them alone.
    let named = if entry.tag.inner() == tag { entry.alias.to_owned() } else { digits(tag) };
    (tag.element() != 0).then_some(named)
}

fn json_value(element: &DataElement<InMemDicomObject>) -> Value {
    match element.value() {
        DicomValue::Sequence(sequence) => sequence.items().iter().map(item).collect(),
        DicomValue::PixelSequence(_) => Value::Null,
        DicomValue::Primitive(value) => primitive(element.vr(), value),
    }
}

fn item(dataset: &InMemDicomObject) -> Value {
    let elements: BTreeMap<Tag, &DataElement<InMemDicomObject>> =
        dataset.iter().map(|e| (e.header().tag, e)).collect();
    let values = elements.into_iter().filter_map(|(tag, e)| Some((key(tag)?, json_value(e))));
    Value::Object(values.collect())
}

fn primitive(vr: VR, value: &PrimitiveValue) -> Value {
    if value.multiplicity() == 0 {
        return Value::Null;
    }
    let list: Vec<Value> = match vr {
        // A character set whose texts were not decoded.
        VR::CS if matches!(value, PrimitiveValue::U8(_)) => {
            let text = String::from_utf8_lossy(&value.to_bytes()).into_owned();
            text.split('\\').map(Value::from).collect()
        }
        VR::OB | VR::OW | VR::OD | VR::OF | VR::OL | VR::OV | VR::UN => {
            return json!(STANDARD.encode(value.to_bytes()));
        }
        VR::US | VR::SS | VR::UL | VR::SL | VR::UV | VR::SV => match value.to_multi_int::<i64>() {
            Ok(numbers) => numbers.into_iter().map(Value::from).collect(),
            Err(_) => return Value::Null,
        },
        VR::FL | VR::FD => match value.to_multi_float64() {
            Ok(numbers) => numbers.into_iter().map(Value::from).collect(),
            Err(_) => return Value::Null,
        },
        _ => value.to_multi_str().iter().map(|text| json!(text.trim_end_matches('\0'))).collect(),
    };
    match <[Value; 1]>::try_from(list) {
        Ok([single]) => single,
        Err(list) => Value::from(list),
    }
}
