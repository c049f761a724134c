//! Reads and writes metadata documents in the store.

use std::io::Read;

use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use serde_json::{Map, Value, json};

use super::store::Store;
use crate::dicom::ahi_metadata::{FlatInstance, flat};
use crate::error::{Error, ErrorKind, Result};

/// Maximum size of a document: more than that of any series.
const MOST_BYTES: u64 = 1 << 30;

/// Returns the document of an image set version as text.
///
/// # Errors
/// [`ErrorKind::Io`] if it is missing or damaged.
pub(super) fn text(store: &Store, datastore_id: &str, id: &str, version: u32) -> Result<Vec<u8>> {
    let damaged =
        || Error::new(ErrorKind::Io, format!("the metadata of image set {id} is damaged"));
    let gzip = store.metadata(datastore_id, id, version)?.ok_or_else(damaged)?;
    let mut text = Vec::new();
    let read = GzDecoder::new(&gzip[..]).take(MOST_BYTES).read_to_end(&mut text);
    read.map_err(|_| damaged())?;
    Ok(text)
}

/// Returns the document of an image set version.
///
/// # Errors
/// Propagates the errors of [`text`].
pub(super) fn read(store: &Store, datastore_id: &str, id: &str, version: u32) -> Result<Value> {
    serde_json::from_slice(&text(store, datastore_id, id, version)?).map_err(|_| {
        Error::new(ErrorKind::Io, format!("the metadata of image set {id} is damaged"))
    })
}

/// Writes the document of an image set version.
///
/// # Errors
/// [`ErrorKind::Io`].
pub(super) fn write(
    store: &Store,
    datastore_id: &str,
    id: &str,
    version: u32,
    document: &Value,
) -> Result<()> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    serde_json::to_writer(&mut encoder, document)
        .map_err(|e| Error::internal("the metadata cannot be written").caused_by(e))?;
    let gzip = encoder.finish().map_err(|e| Error::internal("compressing failed").caused_by(e))?;
    store.save_metadata(datastore_id, id, version, &gzip)
}

/// Writes instances as a document, like [`write()`].
///
/// # Errors
/// [`ErrorKind::InvalidImage`] if the first instance has no series, [`ErrorKind::Io`].
pub(super) fn write_instances(
    store: &Store,
    datastore_id: &str,
    id: &str,
    version: u32,
    instances: &[FlatInstance],
) -> Result<()> {
    let document = flat::document(datastore_id, id, instances)?;
    write(store, datastore_id, id, version, &document)
}

/// Returns the attributes that `SearchImageSets` filters by and returns.
pub(super) fn search_tags(instances: &[FlatInstance]) -> Map<String, Value> {
    let Some(first) = instances.first() else { return Map::new() };
    let mut map: Map<String, Value> = SEARCHED
        .into_iter()
        .filter_map(|(name, keyword)| Some((name.to_owned(), json!(first.text(keyword)?))))
        .collect();
    let number = first.text("SeriesNumber").and_then(|text| text.parse::<i64>().ok());
    if let Some(number) = number {
        map.insert("DICOMSeriesNumber".to_owned(), json!(number));
    }
    map.insert("DICOMNumberOfStudyRelatedSeries".to_owned(), json!(1));
    map.insert("DICOMNumberOfStudyRelatedInstances".to_owned(), json!(instances.len()));
    map
}

const SEARCHED: [(&str, &str); 13] = [
    ("DICOMPatientId", "PatientID"),
    ("DICOMPatientName", "PatientName"),
    ("DICOMPatientBirthDate", "PatientBirthDate"),
    ("DICOMPatientSex", "PatientSex"),
    ("DICOMStudyInstanceUID", "StudyInstanceUID"),
    ("DICOMStudyId", "StudyID"),
    ("DICOMStudyDescription", "StudyDescription"),
    ("DICOMAccessionNumber", "AccessionNumber"),
    ("DICOMSeriesInstanceUID", "SeriesInstanceUID"),
    ("DICOMSeriesModality", "Modality"),
    ("DICOMSeriesBodyPart", "BodyPartExamined"),
    ("DICOMStudyDate", "StudyDate"),
    ("DICOMStudyTime", "StudyTime"),
];
