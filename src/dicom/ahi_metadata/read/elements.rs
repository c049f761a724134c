//! Converts attributes of AHI's JSON to data elements.
//!
//! A key is a keyword or, for private attributes, a tag in hexadecimal whose VR is listed in
//! `DICOMVRs`. Text keeps every character, including padding, because positions and orientations
//! are copied verbatim into derived objects. A standard attribute whose value does not fit its VR
//! is an error (an unreadable PixelRepresentation would flip signs unnoticed); such a private
//! attribute is skipped.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use dicom_core::dictionary::{DataDictionaryEntry, VirtualVr};
use dicom_core::header::{HasLength, Length};
use dicom_core::value::{C, DataSetSequence, Value as DicomValue};
use dicom_core::{DataDictionary, DataElement, PrimitiveValue, Tag, VR};
use dicom_dictionary_std::{StandardDataDictionary, tags};
use serde_json::{Map, Value};

use crate::dicom::attributes::keyword;
use crate::dicom::pixel_data::{self, is_pixel_data};
use crate::dicom::{Attributes, Dataset};
use crate::error::{Error, ErrorKind, Result};

/// VRs of private attributes by key, as listed in `DICOMVRs`.
pub(super) type PrivateVrs = Map<String, Value>;

/// Adds every attribute of `level` to `dataset`, replacing existing ones.
pub(super) fn put_all(
    dataset: &mut Dataset,
    level: Map<String, Value>,
    vrs: &PrivateVrs,
) -> Result<()> {
    let signed = level
        .get("PixelRepresentation")
        .and_then(as_integer)
        .or_else(|| dataset.integer(tags::PIXEL_REPRESENTATION).map(i128::from))
        == Some(1);
    put_items(dataset, level, vrs, signed)
}

fn put_items(
    dataset: &mut Dataset,
    level: Map<String, Value>,
    vrs: &PrivateVrs,
    signed: bool,
) -> Result<()> {
    for (key, value) in level {
        let Some((tag, vr)) = resolve(&key, &value, vrs, signed) else {
            tracing::debug!(
                attribute = printable(&key),
                "skipped an attribute with an unknown keyword or VR"
            );
            continue;
        };
        if !belongs_in_header(tag) {
            pixel_data::mark(dataset, tag);
            continue;
        }
        let Some(converted) = convert(vr, value, vrs, signed)? else {
            if tag.group() % 2 == 1 {
                tracing::debug!(attribute = %tag, "skipped a private attribute that does not fit its VR");
                continue;
            }
            let keyword = keyword(tag);
            return Err(Error::new(
                ErrorKind::InvalidImage,
                format!("the value of {keyword} {tag} does not fit its vr {vr}"),
            )
            .with("attribute", keyword));
        };
        dataset.put(DataElement::new(tag, vr, converted));
    }
    Ok(())
}

/// File meta information, group lengths and pixel data do not belong in a header.
fn belongs_in_header(tag: Tag) -> bool {
    tag.group() > 0x0002 && tag.element() != 0 && !is_pixel_data(tag)
}

/// Returns the tag and VR of a key.
fn resolve(key: &str, value: &Value, vrs: &PrivateVrs, signed: bool) -> Option<(Tag, VR)> {
    let stated = || vrs.get(key).and_then(Value::as_str).and_then(|s| s.trim().parse::<VR>().ok());
    if let Some(entry) = StandardDataDictionary.by_name(key) {
        return Some((entry.tag(), exact(entry.vr(), value, signed)));
    }
    let tag = tag(key)?;
    if tag.group() % 2 == 1 {
        // A private creator's VR is known even if it is not stated (PS3.5 section 7.8.1).
        let creator = (0x0010..=0x00FF).contains(&tag.element());
        return stated().or(creator.then_some(VR::LO)).map(|vr| (tag, vr));
    }
    let known = StandardDataDictionary.by_tag(tag).map(|e| exact(e.vr(), value, signed));
    known.or_else(stated).map(|vr| (tag, vr))
}

/// Parses a tag. Only ASCII reaches the library, whose parser panics if a multi-byte character
/// crosses the middle of eight bytes.
fn tag(text: &str) -> Option<Tag> {
    if text.is_ascii() { text.parse().ok() } else { None }
}

/// Decides the VR of an element whose VR depends on others (PS3.6, "US or SS", "OB or OW").
fn exact(vr: VirtualVr, value: &Value, signed: bool) -> VR {
    match vr {
        VirtualVr::Exact(vr) => vr,
        VirtualVr::Xs => {
            let fits = |lo: i128, hi: i128| {
                as_list(value).iter().all(|v| as_integer(v).is_none_or(|x| (lo..=hi).contains(&x)))
            };
            let (ss, us) = (fits(i16::MIN.into(), i16::MAX.into()), fits(0, u16::MAX.into()));
            // Some writers get it wrong; a value outside one range reveals the other.
            match (signed, ss, us) {
                (true, true, _) | (true, _, false) | (false, true, false) => VR::SS,
                _ => VR::US,
            }
        }
        VirtualVr::Lt if as_list(value).iter().all(|v| v.is_number()) => VR::US,
        _ => VR::OW,
    }
}

type InMemValue = DicomValue<Dataset, dicom_object::mem::InMemFragment>;

/// Converts the value to its VR; `None` if it does not fit.
fn convert(vr: VR, value: Value, vrs: &PrivateVrs, signed: bool) -> Result<Option<InMemValue>> {
    if vr == VR::SQ {
        return sequence(value, vrs, signed);
    }
    if value.is_null() {
        return Ok(Some(PrimitiveValue::Empty.into()));
    }
    let primitive = match vr {
        VR::LT | VR::ST | VR::UT | VR::UR => text(&value).map(PrimitiveValue::Str),
        VR::AE
        | VR::AS
        | VR::CS
        | VR::DA
        | VR::DS
        | VR::DT
        | VR::IS
        | VR::LO
        | VR::PN
        | VR::SH
        | VR::TM
        | VR::UC
        | VR::UI => texts(&value),
        VR::US => integers(&value).map(PrimitiveValue::U16),
        VR::SS => integers(&value).map(PrimitiveValue::I16),
        VR::UL => integers(&value).map(PrimitiveValue::U32),
        VR::SL => integers(&value).map(PrimitiveValue::I32),
        VR::UV => integers(&value).map(PrimitiveValue::U64),
        VR::SV => integers(&value).map(PrimitiveValue::I64),
        VR::FL => {
            floats(&value).map(|v| PrimitiveValue::F32(v.iter().map(|&x| x as f32).collect()))
        }
        VR::FD => floats(&value).map(PrimitiveValue::F64),
        VR::AT => attribute_tags(&value),
        _ => binary(&value),
    };
    Ok(primitive.map(|p| if p.length().0 == 0 { PrimitiveValue::Empty } else { p }.into()))
}

/// Converts the items of a sequence; a single object counts as one item. The JSON parser bounds the
/// depth.
fn sequence(value: Value, vrs: &PrivateVrs, signed: bool) -> Result<Option<InMemValue>> {
    let items = match value {
        Value::Null => Vec::new(),
        Value::Array(items) => items,
        item @ Value::Object(_) => vec![item],
        _ => return Ok(None),
    };
    let mut datasets: C<Dataset> = C::with_capacity(items.len());
    for item in items {
        let mut dataset = Dataset::new_empty();
        match item {
            Value::Null => {}
            Value::Object(attributes) => put_items(&mut dataset, attributes, vrs, signed)?,
            _ => return Ok(None),
        }
        datasets.push(dataset);
    }
    Ok(Some(DataSetSequence::new(datasets, Length::UNDEFINED).into()))
}

fn as_list(value: &Value) -> &[Value] {
    match value {
        Value::Array(values) => values,
        one => std::slice::from_ref(one),
    }
}

/// Returns one value as text; a number in its shortest form, null as an empty value.
fn text(value: &Value) -> Option<String> {
    match value {
        Value::Null => Some(String::new()),
        Value::String(s) => Some(s.clone()),
        Value::Number(n) => Some(n.to_string()),
        Value::Array(values) if values.len() == 1 => values.first().and_then(text),
        _ => None,
    }
}

fn texts(value: &Value) -> Option<PrimitiveValue> {
    let mut all: C<String> = C::new();
    for value in as_list(value) {
        if value.is_array() {
            return None;
        }
        // A backslash separates values (PS3.5 section 6.4), even within one string.
        all.extend(text(value)?.split('\\').map(str::to_owned));
    }
    Some(PrimitiveValue::Strs(all))
}

fn as_integer(value: &Value) -> Option<i128> {
    match value {
        Value::Number(n) => {
            n.as_i64().map(i128::from).or_else(|| n.as_u64().map(i128::from)).or_else(|| {
                n.as_f64().filter(|x| x.fract() == 0.0 && x.abs() < 9e15).map(|x| x as i128)
            })
        }
        Value::String(s) => super::trim(s).parse().ok(),
        _ => None,
    }
}

fn integers<T: TryFrom<i128>>(value: &Value) -> Option<C<T>> {
    if matches!(value, Value::String(s) if super::trim(s).is_empty()) {
        return Some(C::new());
    }
    as_list(value).iter().map(|v| T::try_from(as_integer(v)?).ok()).collect()
}

fn floats(value: &Value) -> Option<C<f64>> {
    if matches!(value, Value::String(s) if super::trim(s).is_empty()) {
        return Some(C::new());
    }
    let one = |v: &Value| match v {
        Value::Number(n) => n.as_f64(),
        Value::String(s) => super::trim(s).parse().ok(),
        _ => None,
    };
    as_list(value).iter().map(one).collect()
}

fn attribute_tags(value: &Value) -> Option<PrimitiveValue> {
    let one = |v: &Value| match v {
        Value::String(s) => tag(super::trim(s)),
        Value::Number(n) => {
            let n = u32::try_from(n.as_u64()?).ok()?;
            Some(Tag((n >> 16) as u16, (n & 0xFFFF) as u16))
        }
        _ => None,
    };
    as_list(value).iter().map(one).collect::<Option<C<Tag>>>().map(PrimitiveValue::Tags)
}

fn binary(value: &Value) -> Option<PrimitiveValue> {
    let mut bytes: C<u8> = C::new();
    for value in as_list(value) {
        bytes.extend(BASE64.decode(super::trim(value.as_str()?)).ok()?);
    }
    Some(PrimitiveValue::U8(bytes))
}

/// Keys are untrusted input: only what looks like a keyword or a tag is logged.
fn printable(key: &str) -> &str {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'(' | b')' | b',');
    if key.len() <= 64 && key.bytes().all(plain) { key } else { "(not a keyword)" }
}
