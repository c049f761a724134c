//! Data sets in the DICOM JSON Model (PS3.18 annex F), and the bulk data left out of it (developer
//! guide, "Getting DICOM bulkdata").

use dicom_core::header::Header;
use dicom_core::value::Value as DicomValue;
use dicom_core::{DataElement, Tag, VR};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use crate::dicom::Dataset;
use crate::error::{Error, Result};

/// Binary values larger than this many bytes are bulk data, which is retrieved separately.
const BULK: usize = 1 << 20;

/// Length of the name of a bulk value.
const NAME: usize = 32;

type Element = DataElement<Dataset>;

/// Encodes a data set; `uri` returns the URI of a bulk value from its name.
///
/// # Errors
/// [`ErrorKind::Internal`](crate::error::ErrorKind::Internal) if a value cannot be encoded in JSON.
pub(super) fn dataset(
    dataset: &Dataset,
    uri: &dyn Fn(&str) -> String,
) -> Result<Map<String, Value>> {
    items(dataset, "", uri)
}

fn items(
    dataset: &Dataset,
    path: &str,
    uri: &dyn Fn(&str) -> String,
) -> Result<Map<String, Value>> {
    let one = |element: &Element| -> Result<(String, Value)> {
        let key = key(element.tag());
        let value = value(element, &format!("{path}/{key}"), uri)?;
        Ok((key, value))
    };
    dataset.iter().map(one).collect()
}

/// Returns a tag as eight hexadecimal digits.
pub(super) fn key(tag: Tag) -> String {
    format!("{:04X}{:04X}", tag.group(), tag.element())
}

fn value(element: &Element, path: &str, uri: &dyn Fn(&str) -> String) -> Result<Value> {
    if let Some(sequence) = element.items() {
        let each = sequence.iter().enumerate();
        let list = each.map(|(at, item)| items(item, &format!("{path}/{at}"), uri));
        return Ok(json!({"vr": "SQ", "Value": list.collect::<Result<Vec<_>>>()?}));
    }
    if is_bulk(element) {
        return Ok(json!({"vr": element.vr().to_string(), "BulkDataURI": uri(&name(path))}));
    }
    let mut value = dicom_json::to_value(element).map_err(|_| {
        // The library's message may contain the value.
        Error::internal(format!("{} has no form in JSON", element.tag()))
    })?;
    for text in value.get_mut("Value").and_then(Value::as_array_mut).into_iter().flatten() {
        without_padding(text);
    }
    Ok(value)
}

fn without_padding(value: &mut Value) {
    match value {
        Value::String(text) => {
            text.truncate(text.trim_end_matches(['\0', ' ']).len());
        }
        // The component groups of a person name.
        Value::Object(groups) => groups.values_mut().for_each(without_padding),
        _ => {}
    }
}

fn is_bulk(element: &Element) -> bool {
    matches!(element.vr(), VR::OB | VR::OD | VR::OF | VR::OL | VR::OV | VR::OW | VR::UN)
        && matches!(element.value(), DicomValue::Primitive(value) if value.to_bytes().len() > BULK)
}

/// Derives the name of a bulk value from its path, because values themselves are patient data.
fn name(path: &str) -> String {
    let mut name = format!("{:x}", Sha256::digest(path.as_bytes()));
    name.truncate(NAME);
    name
}

/// Returns the bulk value with this name.
pub(super) fn bulk(dataset: &Dataset, wanted: &str) -> Option<Vec<u8>> {
    find(dataset, "", wanted)
}

fn find(dataset: &Dataset, path: &str, wanted: &str) -> Option<Vec<u8>> {
    dataset.iter().find_map(|element| {
        let path = format!("{path}/{}", key(element.tag()));
        if let Some(sequence) = element.items() {
            let mut each = sequence.iter().enumerate();
            return each.find_map(|(at, item)| find(item, &format!("{path}/{at}"), wanted));
        }
        let value = element.value().primitive().filter(|_| is_bulk(element))?;
        (name(&path) == wanted).then(|| value.to_bytes().into_owned())
    })
}

#[cfg(test)]
mod tests {
    use dicom_core::value::DataSetSequence;
    use dicom_core::{Length, PrimitiveValue, dicom_value};
    use dicom_dictionary_std::tags;

    use super::*;

    #[test]
    fn values_have_their_forms() {
        let large = vec![7_u8; BULK + 1];
        let item = Dataset::from_element_iter([DataElement::new(
            Tag(0x0009, 0x1001),
            VR::OB,
            PrimitiveValue::U8(large.clone().into()),
        )]);
        let of = Dataset::from_element_iter([
            DataElement::new(tags::PATIENT_NAME, VR::PN, PrimitiveValue::from("A^B ")),
            DataElement::new(tags::SLICE_THICKNESS, VR::DS, dicom_value!(Strs, ["1.50 "])),
            DataElement::new(tags::ROWS, VR::US, PrimitiveValue::from(4_u16)),
            DataElement::new(tags::STUDY_ID, VR::SH, PrimitiveValue::Empty),
            DataElement::new(tags::ICC_PROFILE, VR::OB, PrimitiveValue::U8(vec![1, 2].into())),
            DataElement::new(
                tags::REFERENCED_IMAGE_SEQUENCE,
                VR::SQ,
                DataSetSequence::new(vec![item], Length::UNDEFINED),
            ),
        ]);
        let map = dataset(&of, &|name| format!("bulkdata/{name}")).unwrap();
        assert_eq!(map["00100010"], json!({"vr": "PN", "Value": [{"Alphabetic": "A^B"}]}));
        assert_eq!(map["00180050"], json!({"vr": "DS", "Value": ["1.50"]}));
        assert_eq!(map["00280010"], json!({"vr": "US", "Value": [4]}));
        assert_eq!(map["00200010"], json!({"vr": "SH"}));
        assert_eq!(map["00282000"], json!({"vr": "OB", "InlineBinary": "AQI="}));
        let bulk_uri = map["00081140"]["Value"][0]["00091001"]["BulkDataURI"].as_str().unwrap();
        let found = bulk(&of, bulk_uri.strip_prefix("bulkdata/").unwrap()).unwrap();
        assert_eq!(found, large);
        assert_eq!(bulk(&of, "0"), None);
    }
}
