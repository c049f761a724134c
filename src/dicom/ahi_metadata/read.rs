//! Parses AHI's image set metadata document into a [`Series`].
//!
//! The document (HealthImaging developer guide, "Understanding image sets", schema version 1.1)
//! stores each attribute once, at the level it belongs to: patient, study, series, instance. DICOM
//! consumers expect all of them in every instance, so the levels are merged here. The document is
//! untrusted input: parsing it yields a series or an error, whatever it contains. Errors and logs
//! contain keywords, tags, UIDs and positions, but never a value, because values are patient data.

mod elements;

use std::io::Read;
use std::sync::Arc;

use dicom_core::{DataElement, PrimitiveValue, Tag, VR};
use dicom_dictionary_std::tags;
use indexmap::IndexMap;
use rayon::prelude::*;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use self::elements::{PrivateVrs, put_all};
use crate::dicom::{Attributes, Dataset, FrameDescriptor, Instance, Series, charset, pixel_data};
use crate::error::{Error, ErrorKind, Result};

/// HTJ2K lossless with RPCL progression: the format in which AHI stores frames unless an instance
/// says otherwise.
pub const DEFAULT_TRANSFER_SYNTAX: &str = "1.2.840.10008.1.2.4.202";

/// Limit on values, keys and brackets of a document. A series of 20,000 instances has five million.
const MAX_PARTS: usize = 8 << 20;

/// Limit on the estimated memory of all data sets: each instance has its own copy of what is common
/// to all.
const MAX_MEMORY: u64 = 1 << 30;

/// Limit on nested sequences, the same as for files.
const MAX_DEPTH: usize = 32;

/// Limit on nested lists and objects: two for each sequence, plus those of the levels. The parser's
/// own limit is 128.
const MAX_JSON_DEPTH: usize = 120;

/// The content of an image set's metadata document.
#[derive(Clone)]
pub struct ImageSetMetadata {
    /// The data store that contains the image set.
    pub datastore_id: String,
    /// The image set.
    pub image_set_id: String,
    /// Its only series, with complete data sets and frame descriptors, in the document's order.
    pub series: Series,
}

/// Prints identifiers only, because the data sets contain patient data.
impl std::fmt::Debug for ImageSetMetadata {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ImageSetMetadata")
            .field("datastore_id", &self.datastore_id)
            .field("image_set_id", &self.image_set_id)
            .field("series_instance_uid", &self.series.series_instance_uid)
            .field("instances", &self.series.instances.len())
            .finish()
    }
}

#[derive(Deserialize)]
struct Document<'a> {
    #[serde(rename = "SchemaVersion", default)]
    schema_version: Value,
    #[serde(rename = "DatastoreID")]
    datastore_id: String,
    #[serde(rename = "ImageSetID")]
    image_set_id: String,
    #[serde(rename = "Patient", default)]
    patient: Option<Level>,
    #[serde(rename = "Study", borrow)]
    study: Study<'a>,
}

/// The attributes of one level, and the VRs of its private ones.
#[derive(Deserialize)]
struct Level {
    #[serde(rename = "DICOM", default)]
    dicom: Option<Map<String, Value>>,
    #[serde(rename = "DICOMVRs", default)]
    vrs: Option<PrivateVrs>,
}

#[derive(Deserialize)]
struct Study<'a> {
    #[serde(rename = "DICOM", default)]
    dicom: Option<Map<String, Value>>,
    #[serde(rename = "DICOMVRs", default)]
    vrs: Option<PrivateVrs>,
    #[serde(rename = "Series", borrow)]
    series: IndexMap<String, SeriesLevel<'a>>,
}

#[derive(Deserialize)]
struct SeriesLevel<'a> {
    #[serde(rename = "DICOM", default)]
    dicom: Option<Map<String, Value>>,
    #[serde(rename = "DICOMVRs", default)]
    vrs: Option<PrivateVrs>,
    /// Each as text, so that they can be parsed in parallel.
    #[serde(rename = "Instances", borrow, default)]
    instances: Option<IndexMap<String, &'a RawValue>>,
}

#[derive(Deserialize)]
struct InstanceLevel {
    #[serde(rename = "DICOM", default)]
    dicom: Option<Map<String, Value>>,
    #[serde(rename = "DICOMVRs", default)]
    vrs: Option<PrivateVrs>,
    #[serde(rename = "StoredTransferSyntaxUID", default)]
    transfer_syntax: Option<String>,
    #[serde(rename = "ChecksumType", default)]
    checksum_type: Option<String>,
    #[serde(rename = "ImageFrames", default)]
    frames: Option<Vec<Frame>>,
}

#[derive(Deserialize)]
struct Frame {
    #[serde(rename = "ID")]
    id: String,
    #[serde(rename = "PixelDataChecksumFromBaseToFullResolution", default)]
    checksums: Option<Vec<Checksum>>,
    #[serde(rename = "MinPixelValue", default)]
    min: Option<f64>,
    #[serde(rename = "MaxPixelValue", default)]
    max: Option<f64>,
    #[serde(rename = "FrameSizeInBytes", default)]
    bytes: Option<u64>,
}

#[derive(Deserialize)]
struct Checksum {
    #[serde(rename = "Width", default)]
    width: Option<u32>,
    #[serde(rename = "Height", default)]
    height: Option<u32>,
    #[serde(rename = "Checksum", default)]
    crc32: Option<u32>,
}

/// Decompresses a gzipped metadata document as `GetImageSetMetadata` delivers it. Returns bytes
/// that are not gzip unchanged.
///
/// # Errors
/// `PayloadTooLarge` if the document is longer than `limit` bytes, `Upstream` if it is truncated or
/// damaged.
pub fn decompress(body: &[u8], limit: u64) -> Result<Vec<u8>> {
    let mut document = Vec::new();
    if body.starts_with(&[0x1f, 0x8b]) {
        flate2::read::MultiGzDecoder::new(body)
            .take(limit.saturating_add(1))
            .read_to_end(&mut document)
            .map_err(|e| {
                Error::new(ErrorKind::Upstream, "the image set metadata is not a whole gzip stream")
                    .caused_by(e)
            })?;
    } else {
        document.extend_from_slice(body);
    }
    if document.len() as u64 > limit {
        return Err(Error::new(
            ErrorKind::PayloadTooLarge,
            format!("the image set metadata is longer than {limit} bytes"),
        ));
    }
    Ok(document)
}

/// Parses a metadata document.
///
/// # Errors
/// `Upstream` if it is not JSON of the documented structure; `InvalidImage` if it is but does not
/// hold exactly one series, lacks a UID, or has an attribute that does not fit its VR;
/// `PayloadTooLarge` if its data sets would take more memory than those of any real series.
pub fn parse(json: &[u8]) -> Result<ImageSetMetadata> {
    // Each part takes many times its size once parsed.
    if json.iter().filter(|b| matches!(b, b',' | b':' | b'[' | b'{')).count() > MAX_PARTS {
        return Err(too_large());
    }
    if nesting(json) > MAX_JSON_DEPTH {
        return Err(invalid(format!("the metadata nests more than {MAX_DEPTH} sequences")));
    }
    let document: Document = serde_json::from_slice(json).map_err(|e| {
        let place = format!(" (line {}, column {})", e.line(), e.column());
        malformed("document", &e, &place)
    })?;
    check_schema_version(&document.schema_version)?;
    let series = read_series(document.patient, document.study)?;
    Ok(ImageSetMetadata {
        datastore_id: document.datastore_id,
        image_set_id: document.image_set_id,
        series,
    })
}

/// Returns how deep lists and objects are nested.
fn nesting(json: &[u8]) -> usize {
    let (mut depth, mut deepest) = (0_usize, 0);
    let (mut quoted, mut escaped) = (false, false);
    for &byte in json {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            _ if quoted => {}
            b'[' | b'{' => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

fn read_series(patient: Option<Level>, study: Study<'_>) -> Result<Series> {
    let mut all = study.series.into_iter();
    let (Some((key, level)), None) = (all.next(), all.next()) else {
        return Err(invalid("the image set does not hold exactly one series"));
    };
    check_uid(&key, "the key of the series")?;

    let mut common = Dataset::new_empty();
    let levels = [patient.as_ref().and_then(|p| p.dicom.as_ref()), study.dicom.as_ref()];
    let mut shared = 0;
    for attributes in levels.into_iter().chain([level.dicom.as_ref()]).flatten() {
        shared += memory(attributes, 0)?;
    }
    if let Some(patient) = patient {
        merge(&mut common, patient.dicom, patient.vrs)?;
    }
    merge(&mut common, study.dicom, study.vrs)?;
    merge(&mut common, level.dicom, level.vrs)?;
    let study_instance_uid = common.required_text(tags::STUDY_INSTANCE_UID)?;
    check_uid(&study_instance_uid, "StudyInstanceUID")?;
    put_uid(&mut common, tags::SERIES_INSTANCE_UID, &key)?;

    let of_instance =
        |key: &str, e: Error| e.context(format_args!("instance {key}")).with("sopInstanceUID", key);
    let instances = level.instances.ok_or_else(|| {
        Error::new(ErrorKind::Upstream, "the series in the image set metadata has no Instances")
    })?;
    let instances: Vec<(String, &RawValue)> = instances.into_iter().collect();
    let parsed: Vec<Result<InstanceLevel>> = instances
        .par_iter()
        .map(|(key, text)| {
            check_uid(key, "the key of an instance")?;
            let level = serde_json::from_str(text.get());
            level.map_err(|e| of_instance(key, malformed("instance", &e, "")))
        })
        .collect();
    // Of several errors, the first instance's is reported.
    let parsed: Vec<InstanceLevel> = parsed.into_iter().collect::<Result<_>>()?;
    let mut taken = 0_u64;
    for level in &parsed {
        let own = level.dicom.as_ref().map_or(Ok(0), |own| memory(own, 0))?;
        taken = taken.saturating_add(shared + own);
        if taken > MAX_MEMORY {
            return Err(too_large());
        }
    }
    let read = |(level, (key, _)): (InstanceLevel, &(String, &RawValue))| {
        read_instance(&common, key, level).map_err(|e| of_instance(key, e))
    };
    let read: Vec<Result<Instance>> = parsed.into_par_iter().zip(&instances).map(read).collect();
    let instances = read.into_iter().collect::<Result<_>>()?;
    Ok(Series { study_instance_uid, series_instance_uid: key, instances })
}

fn read_instance(
    common: &Dataset,
    sop_instance_uid: &str,
    level: InstanceLevel,
) -> Result<Instance> {
    let mut dataset = common.clone();
    merge(&mut dataset, level.dicom, level.vrs)?;
    put_uid(&mut dataset, tags::SOP_INSTANCE_UID, sop_instance_uid)?;
    charset::state_unicode(&mut dataset);
    pixel_data::infer(&mut dataset);
    let sop_class_uid = dataset.required_text(tags::SOP_CLASS_UID)?;
    check_uid(&sop_class_uid, "SOPClassUID")?;
    let transfer_syntax = match level.transfer_syntax.as_deref().map(trim) {
        None | Some("") => DEFAULT_TRANSFER_SYNTAX.to_owned(),
        Some(uid) => {
            check_uid(uid, "StoredTransferSyntaxUID")?;
            uid.to_owned()
        }
    };
    let is_crc32 = level.checksum_type.as_deref().is_none_or(|t| t.eq_ignore_ascii_case("CRC32"));
    let frames = level.frames.unwrap_or_default();
    let frames = frames.into_iter().map(|f| read_frame(f, is_crc32)).collect::<Result<Vec<_>>>()?;
    Ok(Instance {
        dataset: Arc::new(dataset),
        sop_instance_uid: sop_instance_uid.to_owned(),
        sop_class_uid,
        transfer_syntax,
        frames,
    })
}

fn read_frame(frame: Frame, is_crc32: bool) -> Result<FrameDescriptor> {
    if frame.id.is_empty() {
        return Err(invalid("an image frame has an empty ID"));
    }
    // The list goes from base to full resolution: take the widest, the last among equals.
    let full =
        frame.checksums.unwrap_or_default().into_iter().max_by_key(|c| c.width.unwrap_or_default());
    let dimensions = full.as_ref().and_then(|c| c.width.zip(c.height));
    Ok(FrameDescriptor {
        id: frame.id,
        dimensions,
        crc32: full.and_then(|c| c.crc32).filter(|_| is_crc32),
        pixel_range: frame.min.zip(frame.max),
        encoded_bytes: frame.bytes,
    })
}

/// Estimates the memory that attributes take in a data set. Rejects sequences nested too deep.
fn memory(attributes: &Map<String, Value>, depth: usize) -> Result<u64> {
    /// An element, and the map of an item, which is allocated with spare capacity.
    const ELEMENT: u64 = 256;
    const ITEM: u64 = 1536;
    if depth > MAX_DEPTH {
        return Err(invalid(format!("the metadata nests more than {MAX_DEPTH} sequences")));
    }
    let of = |value: &Value| -> Result<u64> {
        Ok(match value {
            Value::String(text) => 32 + text.len() as u64,
            Value::Object(item) => ITEM + memory(item, depth + 1)?,
            _ => 32,
        })
    };
    let more = |sum: u64, value: &Value| -> Result<u64> { Ok(sum + of(value)?) };
    attributes.values().try_fold(0_u64, |sum, value| {
        let values = match value {
            Value::Array(list) => list.iter().try_fold(0, more)?,
            one => of(one)?,
        };
        Ok(sum + ELEMENT + values)
    })
}

fn too_large() -> Error {
    Error::new(
        ErrorKind::PayloadTooLarge,
        "the image set metadata would take more memory than that of any series",
    )
}

fn merge(
    dataset: &mut Dataset,
    attributes: Option<Map<String, Value>>,
    vrs: Option<PrivateVrs>,
) -> Result<()> {
    put_all(dataset, attributes.unwrap_or_default(), &vrs.unwrap_or_default())
}

/// Ensures that the data set's UID is the key under which the document lists it.
fn put_uid(dataset: &mut Dataset, tag: Tag, key: &str) -> Result<()> {
    match dataset.text(tag) {
        None => {
            dataset.put(DataElement::new(tag, VR::UI, PrimitiveValue::from(key)));
            Ok(())
        }
        Some(uid) if uid == key => Ok(()),
        Some(_) => Err(invalid(format!(
            "{} differs from the key {key} that it is filed under",
            crate::dicom::attributes::keyword(tag)
        ))),
    }
}

/// Checks a UID. UIDs become file names and parts of messages, so only digits and periods may pass.
/// Leading zeros are allowed, because archives are full of them.
fn check_uid(uid: &str, what: &str) -> Result<()> {
    if !uid.is_empty()
        && uid.len() <= 64
        && uid.bytes().all(|b| b.is_ascii_digit() || b == b'.')
        && uid.bytes().any(|b| b.is_ascii_digit())
    {
        return Ok(());
    }
    Err(invalid(format!("{what} is not a UID of at most 64 digits and periods")))
}

fn check_schema_version(version: &Value) -> Result<()> {
    let major = match version {
        Value::Null => return Ok(()),
        Value::String(s) => s.split('.').next().and_then(|s| s.trim().parse::<u64>().ok()),
        Value::Number(n) => n.as_f64().map(|x| x as u64),
        _ => None,
    };
    if major == Some(1) {
        return Ok(());
    }
    Err(invalid("the metadata's SchemaVersion is not 1.x, the only one this program reads"))
}

fn trim(s: &str) -> &str {
    s.trim_matches(|c: char| c == '\0' || c.is_whitespace())
}

fn invalid(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidImage, message)
}

/// Keeps only the kind of error, and adds its place: serde_json's own message may quote a value.
fn malformed(what: &str, e: &serde_json::Error, place: &str) -> Error {
    let fault = match e.classify() {
        serde_json::error::Category::Eof => "ends too early",
        serde_json::error::Category::Data => "is not of the documented structure",
        _ => "is not JSON",
    };
    Error::new(ErrorKind::Upstream, format!("the {what} in the image set metadata {fault}{place}"))
}

#[cfg(test)]
mod tests;
