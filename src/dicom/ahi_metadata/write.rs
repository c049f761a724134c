//! Converts data sets to the instances of AHI's metadata documents.
//!
//! The inverse of [`read`](super::read). Attributes are listed under their keywords, private ones
//! under their tag in eight hexadecimal digits, with their VR in `DICOMVRs`. Values keep the text
//! of the file, including padding. [`document`](super::flat::document) decides the level of each
//! attribute.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use dicom_core::value::{PrimitiveValue, Value as DicomValue};
use dicom_core::{DataDictionary, DataElement, Tag, VR};
use dicom_dictionary_std::{StandardDataDictionary, tags};
use dicom_object::InMemDicomObject;
use serde_json::{Map, Value, json};

use super::flat::FlatInstance;
use crate::dicom::{Attributes, Dataset};
use crate::error::Result;

/// One instance to describe.
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
    /// Smallest and largest pixel value, if both are numbers.
    pub pixel_range: Option<(f64, f64)>,
    /// Size in bytes as stored.
    pub bytes: u64,
}

/// Converts an instance with all its attributes to the form of a document.
///
/// # Errors
///
/// An error names the attribute that the instance lacks: its UID.
pub fn instance(entry: &InstanceEntry) -> Result<FlatInstance> {
    let uid = entry.dataset.required_text(tags::SOP_INSTANCE_UID)?;
    let (mut dicom, mut vrs) = (Map::new(), Map::new());
    for element in &entry.dataset {
        let Some(key) = key(element.header().tag) else { continue };
        private_vrs(element, &mut vrs);
        dicom.insert(key, json_value(element));
    }
    let frames: Vec<Value> = entry.frames.iter().map(frame).collect();
    let mut rest = Map::new();
    rest.insert("StoredTransferSyntaxUID".to_owned(), json!(entry.stored_transfer_syntax));
    rest.insert("ImageFrames".to_owned(), Value::from(frames));
    Ok(FlatInstance { uid, dicom, vrs, rest })
}

/// Collects the value representations of private elements, including those in items.
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

/// Writes an integral value as an integer.
fn number(value: f64) -> Value {
    let whole = value as i64;
    if whole as f64 == value { json!(whole) } else { json!(value) }
}

/// Returns the keyword of a standard attribute or the digits of a private one; `None` for tags with
/// neither and for group lengths.
fn key(tag: Tag) -> Option<String> {
    if tag.group() % 2 == 1 {
        return Some(digits(tag));
    }
    let entry = StandardDataDictionary.by_tag(tag)?;
    // The keyword of a repeating group applies only to the first of its groups.
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
        // A text whose character set was not decoded.
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
