//! Converts a metadata document to its instances, each with all its attributes, and back:
//! attributes common to the instances appear once, at the level of patient, study or series.

use dicom_core::{DataDictionary, Tag};
use dicom_dictionary_std::{StandardDataDictionary, tags};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use crate::error::{Error, ErrorKind, Result};

/// Schema version of the document.
const SCHEMA_VERSION: &str = "1.1";

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

/// Attributes of the series and its equipment (PS3.3 C.7.3, C.7.4, C.7.5).
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

/// An instance of a document, including the attributes of the levels above.
#[derive(Clone, PartialEq)]
pub struct FlatInstance {
    /// SOP Instance UID (0008,0018).
    pub uid: String,
    /// Values by keyword, or by tag for private attributes.
    pub dicom: Map<String, Value>,
    /// Value representations of private attributes by tag.
    pub vrs: Map<String, Value>,
    /// The other entries of the instance in the document: `StoredTransferSyntaxUID`, `ImageFrames`.
    pub rest: Map<String, Value>,
}

/// Prints the identifier only, because the attributes are patient data.
impl std::fmt::Debug for FlatInstance {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FlatInstance").field("uid", &self.uid).finish_non_exhaustive()
    }
}

impl FlatInstance {
    /// Returns an attribute's values as text without padding; empty if it is absent or neither text
    /// nor a number.
    pub fn texts(&self, keyword: &str) -> Vec<String> {
        let values = match self.dicom.get(keyword) {
            Some(Value::Array(values)) => values.as_slice(),
            Some(value) => std::slice::from_ref(value),
            None => &[],
        };
        let text = |value: &Value| match value {
            Value::String(text) => {
                Some(text.trim_matches(|c: char| c == '\0' || c.is_whitespace()).to_owned())
            }
            Value::Number(number) => Some(number.to_string()),
            _ => None,
        };
        values.iter().filter_map(text).collect()
    }

    /// Returns the first of [`texts`](Self::texts), or `None` if there is none or it is empty.
    pub fn text(&self, keyword: &str) -> Option<String> {
        self.texts(keyword).into_iter().next().filter(|text| !text.is_empty())
    }

    /// Returns the identifiers of its frames, in order.
    pub fn frame_ids(&self) -> impl Iterator<Item = &str> {
        let frames = self.rest.get("ImageFrames").and_then(Value::as_array);
        frames.into_iter().flatten().filter_map(|frame| frame.get("ID")?.as_str())
    }

    /// Returns the SHA-256 of everything in the instance, in hexadecimal: it changes with any
    /// change.
    pub fn digest(&self) -> String {
        let mut hasher = Sha256::new();
        hasher.update(self.uid.as_bytes());
        for part in [&self.dicom, &self.vrs, &self.rest] {
            // Neither the level of an attribute nor the order matters.
            let mut entries: Vec<(&String, &Value)> = part.iter().collect();
            entries.sort_by_key(|(key, _)| *key);
            hasher.update((entries.len() as u64).to_le_bytes());
            for (key, value) in entries {
                hasher.update(key.as_bytes());
                hasher.update(b"\0");
                hasher.update(value.to_string().as_bytes());
                hasher.update(b"\0");
            }
        }
        format!("{:x}", hasher.finalize())
    }
}

/// Builds the document of an image set.
///
/// # Errors
///
/// An error names the attribute that the first instance lacks: the UID of its series.
pub fn document(
    datastore_id: &str,
    image_set_id: &str,
    instances: &[FlatInstance],
) -> Result<Value> {
    let first = instances.first().ok_or_else(|| Error::internal("an image set has instances"))?;
    let series_uid = first.text("SeriesInstanceUID").ok_or_else(|| {
        Error::new(ErrorKind::InvalidImage, "SeriesInstanceUID (0020,000E) is missing or empty")
    })?;
    let levels = Levels::of(instances);
    let described = instances.iter().map(|i| (i.uid.clone(), instance(i, &levels))).collect();
    let mut series = level(first, &levels.series);
    series.insert("Instances".to_owned(), Value::Object(described));
    let mut study = level(first, &levels.study);
    study.insert("Series".to_owned(), json!({ series_uid: series }));
    Ok(json!({
        "SchemaVersion": SCHEMA_VERSION,
        "DatastoreID": datastore_id,
        "ImageSetID": image_set_id,
        "Patient": level(first, &levels.patient),
        "Study": study,
    }))
}

/// Returns the instances of a document.
///
/// # Errors
///
/// [`ErrorKind::InvalidImage`] if the document does not have the documented structure.
pub fn instances(document: &Value) -> Result<Vec<FlatInstance>> {
    let invalid =
        || Error::new(ErrorKind::InvalidImage, "the metadata is not of the documented structure");
    let mut common = [Map::new(), Map::new()];
    let take = |level: &Value, into: &mut [Map<String, Value>; 2]| {
        for (part, into) in ["DICOM", "DICOMVRs"].into_iter().zip(into) {
            if let Some(entries) = level.get(part).and_then(Value::as_object) {
                into.extend(entries.clone());
            }
        }
    };
    let study = document.get("Study").ok_or_else(invalid)?;
    document.get("Patient").into_iter().for_each(|patient| take(patient, &mut common));
    take(study, &mut common);
    let series = study.get("Series").and_then(Value::as_object).ok_or_else(invalid)?;
    let mut all = Vec::new();
    for series in series.values() {
        let mut shared = common.clone();
        take(series, &mut shared);
        let instances = series.get("Instances").and_then(Value::as_object).ok_or_else(invalid)?;
        for (uid, described) in instances {
            let mut own = shared.clone();
            take(described, &mut own);
            let [dicom, vrs] = own;
            let mut rest = described.as_object().ok_or_else(invalid)?.clone();
            rest.retain(|key, _| !matches!(key.as_str(), "DICOM" | "DICOMVRs"));
            all.push(FlatInstance { uid: uid.clone(), dicom, vrs, rest });
        }
    }
    Ok(all)
}

/// Whether two instances agree in all attributes that belong above the instance level.
pub fn agree_above_instances(one: &FlatInstance, other: &FlatInstance) -> bool {
    above_instances().all(|keyword| one.dicom.get(keyword) == other.dicom.get(keyword))
}

/// Replaces an instance's attributes of the levels above by those of another instance.
pub fn take_levels_above(instance: &mut FlatInstance, from: &FlatInstance) {
    for keyword in above_instances() {
        match from.dicom.get(keyword) {
            Some(value) => drop(instance.dicom.insert(keyword.to_owned(), value.clone())),
            None => drop(instance.dicom.shift_remove(keyword)),
        }
    }
}

fn above_instances() -> impl Iterator<Item = &'static str> {
    PATIENT.iter().chain(&STUDY).chain(&SERIES).filter_map(|tag| keyword(*tag))
}

/// Whether an attribute belongs to the patient, the study or the series.
pub fn stands_above_instances(key: &str) -> bool {
    above_instances().any(|keyword| keyword == key)
}

/// Whether `key` is that of a private attribute: a tag with an odd group.
pub fn is_private_key(key: &str) -> bool {
    let group = || key.get(..4).and_then(|group| u16::from_str_radix(group, 16).ok());
    key.len() == 8
        && key.bytes().all(|b| b.is_ascii_hexdigit())
        && group().is_some_and(|group| group % 2 == 1)
}

/// Whether `key` is that of an attribute: a keyword, or the tag of a private attribute.
pub fn is_key(key: &str) -> bool {
    is_private_key(key) || StandardDataDictionary.by_name(key).is_some()
}

/// The attributes at each level above the instances: those that all instances share.
struct Levels {
    patient: Vec<&'static str>,
    study: Vec<&'static str>,
    series: Vec<&'static str>,
}

impl Levels {
    fn of(instances: &[FlatInstance]) -> Self {
        let shared = |tags: &[Tag]| -> Vec<&'static str> {
            let same = |keyword: &&'static str| {
                let first = instances[0].dicom.get(*keyword);
                let others = &mut instances[1..].iter();
                first.is_some() && others.all(|i| i.dicom.get(*keyword) == first)
            };
            tags.iter().filter_map(|tag| keyword(*tag)).filter(same).collect()
        };
        Self { patient: shared(&PATIENT), study: shared(&STUDY), series: shared(&SERIES) }
    }

    fn holds(&self, key: &str) -> bool {
        [&self.patient, &self.study, &self.series].iter().any(|level| level.contains(&key))
    }
}

fn keyword(tag: Tag) -> Option<&'static str> {
    StandardDataDictionary.by_tag(tag).map(|entry| entry.alias)
}

fn level(first: &FlatInstance, keywords: &[&'static str]) -> Map<String, Value> {
    let of = |keyword: &&str| Some(((*keyword).to_owned(), first.dicom.get(*keyword)?.clone()));
    let dicom: Map<String, Value> = keywords.iter().filter_map(of).collect();
    Map::from_iter([("DICOM".to_owned(), Value::Object(dicom))])
}

fn instance(flat: &FlatInstance, levels: &Levels) -> Value {
    let own = flat.dicom.iter().filter(|(key, _)| !levels.holds(key));
    let dicom: Map<String, Value> = own.map(|(key, value)| (key.clone(), value.clone())).collect();
    let mut described = Map::new();
    described.insert("DICOM".to_owned(), Value::Object(dicom));
    described.insert("DICOMVRs".to_owned(), Value::Object(flat.vrs.clone()));
    described.extend(flat.rest.clone());
    Value::Object(described)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flat(uid: &str, position: &str, vr: &str) -> FlatInstance {
        let map = |value: Value| value.as_object().cloned().unwrap_or_default();
        FlatInstance {
            uid: uid.to_owned(),
            dicom: map(json!({
                "PatientID": "p ", "StudyInstanceUID": "1.1", "SeriesInstanceUID": "1.2",
                "SOPInstanceUID": uid, "SliceLocation": position, "00191001": 1,
            })),
            vrs: map(json!({"00191001": vr})),
            rest: map(json!({"ImageFrames": [{"ID": format!("f{uid}")}]})),
        }
    }

    #[test]
    fn what_is_common_stands_above() {
        let all = [flat("1.3", "1", "US"), flat("1.4", "2", "US")];
        let document = document("d", "i", &all).unwrap();
        assert_eq!(document["Patient"]["DICOM"]["PatientID"], "p ");
        let instance = &document["Study"]["Series"]["1.2"]["Instances"]["1.4"];
        assert_eq!(instance["DICOM"].as_object().unwrap().len(), 3, "{instance}");
        let back = instances(&document).unwrap();
        assert_eq!(
            back.iter().map(FlatInstance::digest).collect::<Vec<_>>(),
            all.iter().map(FlatInstance::digest).collect::<Vec<_>>()
        );
        assert_eq!(back[1].text("PatientID").as_deref(), Some("p"));
        assert_eq!(back[1].frame_ids().collect::<Vec<_>>(), ["f1.4"]);
    }

    #[test]
    fn digests_tell_instances_apart() {
        let one = flat("1.3", "1", "US").digest();
        for other in [flat("1.4", "1", "US"), flat("1.3", "2", "US"), flat("1.3", "1", "SS")] {
            assert_ne!(one, other.digest());
        }
    }

    #[test]
    fn other_structures_are_refused() {
        for document in [json!({}), json!({"Study": {}}), json!({"Study": {"Series": {"1": {}}}})] {
            assert!(instances(&document).is_err(), "{document}");
        }
    }
}
