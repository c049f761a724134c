//! Code shared by `CopyImageSet` and `UpdateImageSetMetadata`: the version check, and the JSON that
//! names parts of a metadata document.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::documents;
use super::failure::Failure;
use super::service::{Service, image_set_arn};
use super::store::ImageSet;
use crate::dicom::ahi_metadata::{FlatInstance, flat};

/// The query parameters of both operations.
pub(super) struct Flags(Vec<(String, String)>);

impl Flags {
    pub fn new(query: Vec<(String, String)>) -> Self {
        Self(query)
    }

    /// Returns the value of a parameter.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    /// Returns whether a flag is set.
    ///
    /// # Errors
    /// `ValidationException` if it is neither `true` nor `false`.
    pub fn is_set(&self, name: &str) -> Result<bool, Failure> {
        let value = self.text(name).unwrap_or("false");
        value.parse().map_err(|_| Failure::validation(format!("{name} must be true or false")))
    }
}

/// Returns an image set that may be changed, if the version known to the client is the latest.
pub(super) fn latest(
    service: &Service,
    datastore: &str,
    id: &str,
    known: Option<&str>,
) -> Result<ImageSet, Failure> {
    let set = service.readable(datastore, id)?;
    let known: u32 = known
        .and_then(|text| text.parse().ok())
        .ok_or_else(|| Failure::validation("the latest version is missing or no number"))?;
    if known != set.version {
        let latest = set.version;
        return Err(Failure::conflict(format!(
            "the latest version of ImageSet {id} is {latest} and not {known}"
        )));
    }
    Ok(set)
}

/// Returns the instances of an image set.
pub(super) fn instances(
    service: &Service,
    datastore: &str,
    set: &ImageSet,
) -> Result<Vec<FlatInstance>, Failure> {
    let document = documents::read(&service.store, datastore, &set.image_set_id, set.version)?;
    Ok(flat::instances(&document)?)
}

/// Describes an image set as locked while it is changed; here the change is complete before the
/// response.
pub(super) fn changing(datastore: &str, set: &ImageSet, status: &str) -> Value {
    json!({
        "imageSetId": set.image_set_id,
        "latestVersionId": set.version.to_string(),
        "imageSetState": "LOCKED",
        "imageSetWorkflowStatus": status,
        "createdAt": set.created_at,
        "updatedAt": set.updated_at,
        "imageSetArn": image_set_arn(datastore, &set.image_set_id),
    })
}

/// The attributes named in a request, by level of the document.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Named {
    pub patient: Map<String, Value>,
    pub study: Map<String, Value>,
    pub series: Map<String, Value>,
    pub instances: BTreeMap<String, NamedInstance>,
}

/// The attributes of an instance, and the VRs of its private attributes.
#[derive(Debug, Default, PartialEq)]
pub(super) struct NamedInstance {
    pub dicom: Map<String, Value>,
    pub vrs: Map<String, Value>,
}

impl Named {
    /// Parses a partial document of the series `series_uid`.
    ///
    /// # Errors
    /// `ValidationException` if it is not JSON of that structure, or names another series.
    pub fn parse(text: &[u8], series_uid: &str, image_set_id: &str) -> Result<Self, Failure> {
        let invalid = |what: &str| Failure::validation(format!("the attributes {what}"));
        let document: Value = serde_json::from_slice(text).map_err(|_| invalid("are not JSON"))?;
        let document = document.as_object().ok_or_else(|| invalid("are no JSON object"))?;
        let version = match document.get("SchemaVersion") {
            Some(Value::String(text)) => text.parse().ok(),
            Some(value) => value.as_f64(),
            None => None,
        };
        if version != Some(1.1) {
            return Err(invalid("must have SchemaVersion 1.1"));
        }
        check_keys(document, &["SchemaVersion", "Patient", "Study"])?;
        let mut named = Self::default();
        if let Some(patient) = object(document, "Patient")? {
            check_keys(patient, &["DICOM"])?;
            named.patient = object(patient, "DICOM")?.cloned().unwrap_or_default();
        }
        let Some(study) = object(document, "Study")? else { return Ok(named) };
        check_keys(study, &["DICOM", "Series"])?;
        named.study = object(study, "DICOM")?.cloned().unwrap_or_default();
        let Some(all) = object(study, "Series")? else { return Ok(named) };
        for uid in all.keys() {
            // Examples in the service's documentation use the image set ID in place of the series
            // UID.
            if uid != series_uid && uid != image_set_id {
                return Err(invalid("name a series that the image set does not hold"));
            }
            let Some(series) = object(all, uid)? else { continue };
            check_keys(series, &["DICOM", "Instances"])?;
            named.series.extend(object(series, "DICOM")?.cloned().unwrap_or_default());
            let Some(instances) = object(series, "Instances")? else { continue };
            for uid in instances.keys() {
                let Some(instance) = object(instances, uid)? else { continue };
                check_keys(instance, &["DICOM", "DICOMVRs"])?;
                let part =
                    |name| object(instance, name).map(|map| map.cloned().unwrap_or_default());
                let of_instance = NamedInstance { dicom: part("DICOM")?, vrs: part("DICOMVRs")? };
                named.instances.insert(uid.clone(), of_instance);
            }
        }
        Ok(named)
    }
}

fn object<'a>(
    map: &'a Map<String, Value>,
    key: &str,
) -> Result<Option<&'a Map<String, Value>>, Failure> {
    match map.get(key) {
        None => Ok(None),
        Some(Value::Object(object)) => Ok(Some(object)),
        Some(_) => Err(Failure::validation("the attributes have a level that is no object")),
    }
}

fn check_keys(map: &Map<String, Value>, known: &[&str]) -> Result<(), Failure> {
    match map.keys().all(|key| known.contains(&key.as_str())) {
        true => Ok(()),
        false => {
            let known = known.join(", ");
            Err(Failure::validation(format!(
                "a level of the attributes has other keys than {known}"
            )))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_read() {
        let text = json!({
            "SchemaVersion": 1.1,
            "Patient": {"DICOM": {"PatientName": "a"}},
            "Study": {"DICOM": {}, "Series": {"1.2": {"Instances": {
                "1.3": {"DICOM": {"00191001": "x"}, "DICOMVRs": {"00191001": "LO"}}, "1.4": {},
            }}}},
        });
        let named = Named::parse(text.to_string().as_bytes(), "1.2", "i").unwrap();
        assert_eq!(named.patient["PatientName"], "a");
        assert_eq!(named.instances["1.3"].vrs["00191001"], "LO");
        assert_eq!(named.instances["1.4"], NamedInstance::default());
    }

    #[test]
    fn other_structures_are_refused() {
        for text in [
            json!([]),
            json!({"Patient": {}}),
            json!({"SchemaVersion": "2.0"}),
            json!({"SchemaVersion": 1.1, "Other": {}}),
            json!({"SchemaVersion": 1.1, "Patient": {"DICOM": 1}}),
            json!({"SchemaVersion": 1.1, "Study": {"Series": {"1.9": {}}}}),
            json!({"SchemaVersion": 1.1, "Study": {"Series": {"1.2": {"Instances": {"1.3": []}}}}}),
        ] {
            assert!(Named::parse(text.to_string().as_bytes(), "1.2", "i").is_err(), "{text}");
        }
        assert!(Named::parse(b"{", "1.2", "i").is_err());
    }
}
