//! Rules that select a series, as in MONAI Deploy's series selector: conditions on attributes by
//! keyword, all of which must hold.
//!
//! | Condition | holds where |
//! |---|---|
//! | `"text"` | the value is equal without case, or the text is found in it as a regular expression (case does not matter) |
//! | `["A", "!B"]` for text | `A` is one of the values, `B` is none of them |
//! | `5` | the number is equal |
//! | `[1, 5]` | the number lies between, ends included |
//! | `[5, ">"]`, `>=`, `<`, `<=`, `!=` | the number compares so |
//! | `"Axial"`, `"Coronal"`, `"Sagittal"` for `ImageOrientationPatient` | slices lie so, within 45° |
//! | `""`, `[]`, `null` | always |
//!
//! A text for a number is a regular expression that must match the whole number. A missing
//! attribute satisfies no condition.

use dicom_core::dictionary::DataDictionary;
use dicom_core::{Tag, VR};
use dicom_dictionary_std::{StandardDataDictionary, tags};
use regex::{Regex, RegexBuilder};
use serde_json::{Map, Value};

use super::{Attributes, Dataset};
use crate::error::{Error, ErrorKind, Result};

/// Conditions, all of which must hold.
#[derive(Debug, Clone)]
pub struct Selection {
    conditions: Vec<(Tag, Condition)>,
}

#[derive(Debug, Clone)]
enum Condition {
    Text {
        exact: String,
        found: Regex,
    },
    Terms {
        wanted: Vec<String>,
        unwanted: Vec<String>,
    },
    Number(f64),
    Range(f64, f64),
    Compared(f64, fn(&f64, &f64) -> bool),
    /// Matched against the whole number as text.
    Digits(Regex),
    /// The patient axis normal to the slices: 0 sagittal, 1 coronal, 2 axial.
    Plane(usize),
}

impl Selection {
    /// Creates a selection from conditions by keyword. Returns [`ErrorKind::InvalidModel`], naming
    /// the keyword, if DICOM does not define it or its condition has none of the forms above.
    pub fn new(conditions: &Map<String, Value>) -> Result<Self> {
        let mut read = Vec::new();
        for (keyword, value) in conditions {
            let invalid = |why: &str| {
                Error::new(ErrorKind::InvalidModel, format!("conditions.{keyword} {why}"))
                    .with("path", format!("conditions.{keyword}"))
            };
            let entry = StandardDataDictionary
                .by_name(keyword)
                .ok_or_else(|| invalid("is no keyword of a DICOM attribute"))?;
            let always = match value {
                Value::Null => true,
                Value::String(text) => text.trim().is_empty(),
                Value::Array(list) => list.is_empty(),
                _ => false,
            };
            if !always {
                let tag = entry.tag.inner();
                let condition = Condition::new(tag, is_number(entry.vr.relaxed()), value);
                let condition = condition
                    .ok_or_else(|| invalid("is not a condition that can be read for its type"))?;
                read.push((tag, condition));
            }
        }
        Ok(Self { conditions: read })
    }

    /// Whether a data set meets every condition.
    pub fn matches(&self, dataset: &Dataset) -> bool {
        self.conditions.iter().all(|(tag, condition)| condition.holds(*tag, dataset))
    }
}

fn is_number(vr: VR) -> bool {
    use VR::{DS, FD, FL, IS, SL, SS, SV, UL, US, UV};
    matches!(vr, DS | FD | FL | IS | SL | SS | SV | UL | US | UV)
}

impl Condition {
    fn new(tag: Tag, number: bool, value: &Value) -> Option<Self> {
        if tag == tags::IMAGE_ORIENTATION_PATIENT {
            let plane = value.as_str()?.trim().to_lowercase();
            let axes = ["sagittal", "coronal", "axial"];
            return axes.iter().position(|axis| *axis == plane).map(Self::Plane);
        }
        if number { Self::of_number(value) } else { Self::of_text(value) }
    }

    fn of_number(value: &Value) -> Option<Self> {
        match value {
            Value::Number(n) => n.as_f64().map(Self::Number),
            Value::String(pattern) => {
                expression(&format!("^(?:{})$", pattern.trim())).map(Self::Digits)
            }
            Value::Array(list) => match &list[..] {
                [x, Value::String(sign)] => {
                    let compare: fn(&f64, &f64) -> bool = match sign.as_str() {
                        ">" => f64::gt,
                        ">=" => f64::ge,
                        "<" => f64::lt,
                        "<=" => f64::le,
                        "!=" => f64::ne,
                        _ => return None,
                    };
                    Some(Self::Compared(x.as_f64()?, compare))
                }
                [low, high] => Some(Self::Range(low.as_f64()?, high.as_f64()?)),
                _ => None,
            },
            _ => None,
        }
    }

    fn of_text(value: &Value) -> Option<Self> {
        match value {
            Value::String(text) => {
                let exact = text.trim().to_lowercase();
                Some(Self::Text { found: expression(text.trim())?, exact })
            }
            Value::Array(list) => {
                let terms: Option<Vec<String>> =
                    list.iter().map(|v| v.as_str().map(|t| t.trim().to_lowercase())).collect();
                let (unwanted, wanted) =
                    terms?.into_iter().partition::<Vec<_>, _>(|term| term.starts_with('!'));
                let unwanted = unwanted.iter().map(|term| term[1..].to_owned()).collect();
                Some(Self::Terms { wanted, unwanted })
            }
            _ => None,
        }
    }

    fn holds(&self, tag: Tag, dataset: &Dataset) -> bool {
        match self {
            Self::Text { exact, found } => {
                let text = dataset.texts(tag).join("\\");
                !text.trim().is_empty()
                    && (text.trim().to_lowercase() == *exact || found.is_match(&text))
            }
            Self::Terms { wanted, unwanted } => {
                let values: Vec<String> =
                    dataset.texts(tag).iter().map(|v| v.trim().to_lowercase()).collect();
                !values.is_empty()
                    && wanted.iter().all(|term| values.contains(term))
                    && !unwanted.iter().any(|term| values.contains(term))
            }
            Self::Number(wanted) => dataset.number(tag) == Some(*wanted),
            Self::Range(low, high) => {
                dataset.number(tag).is_some_and(|n| (*low..=*high).contains(&n))
            }
            Self::Compared(with, compare) => dataset.number(tag).is_some_and(|n| compare(&n, with)),
            Self::Digits(pattern) => {
                dataset.text(tag).is_some_and(|text| pattern.is_match(text.trim()))
            }
            Self::Plane(axis) => slice_axis(dataset, tag) == Some(*axis),
        }
    }
}

/// Compiles a case-insensitive regular expression of bounded size.
fn expression(pattern: &str) -> Option<Regex> {
    RegexBuilder::new(pattern).case_insensitive(true).size_limit(1 << 20).build().ok()
}

/// Returns the patient axis nearest to the normal of the slices.
fn slice_axis(dataset: &Dataset, tag: Tag) -> Option<usize> {
    let [a, b, c, d, e, f] = dataset.numbers::<6>(tag)?;
    let normal = [b * f - c * e, c * d - a * f, a * e - b * d].map(f64::abs);
    (0..3).max_by(|&i, &j| normal[i].total_cmp(&normal[j]))
}

#[cfg(test)]
mod tests {
    use dicom_core::{DataElement, PrimitiveValue, dicom_value};
    use serde_json::json;

    use super::*;

    fn dataset() -> Dataset {
        let mut data = Dataset::new_empty();
        let mut put = |tag, vr, value: PrimitiveValue| data.put(DataElement::new(tag, vr, value));
        put(tags::SERIES_DESCRIPTION, VR::LO, PrimitiveValue::from("AX T1 +C "));
        put(tags::MODALITY, VR::CS, PrimitiveValue::from("MR"));
        put(tags::IMAGE_TYPE, VR::CS, dicom_value!(Strs, ["ORIGINAL", "PRIMARY", "M"]));
        put(tags::ECHO_TIME, VR::DS, PrimitiveValue::from("12.5 "));
        put(
            tags::IMAGE_ORIENTATION_PATIENT,
            VR::DS,
            dicom_value!(Strs, ["0.99", "0.1", "0", "-0.1", "0.99", "0.1"]),
        );
        data
    }

    fn matches(conditions: Value) -> bool {
        Selection::new(conditions.as_object().unwrap()).unwrap().matches(&dataset())
    }

    #[test]
    fn conditions_hold_as_the_series_selector_says() {
        for (conditions, expected) in [
            (json!({}), true),
            (json!({"Modality": "mr", "SeriesDescription": ""}), true),
            (json!({"Modality": "CT"}), false),
            (json!({"SeriesDescription": "t1.*\\+c"}), true),
            (json!({"SeriesDescription": "t2"}), false),
            (json!({"ImageType": ["PRIMARY", "!DERIVED"]}), true),
            (json!({"ImageType": ["PRIMARY", "!ORIGINAL"]}), false),
            (json!({"EchoTime": 12.5}), true),
            (json!({"EchoTime": [10, 12.5]}), true),
            (json!({"EchoTime": [12.5, ">"]}), false),
            (json!({"EchoTime": [12.5, ">="]}), true),
            (json!({"EchoTime": "12\\..*"}), true),
            (json!({"EchoTime": "2\\.5"}), false),
            (json!({"ImageOrientationPatient": "Axial"}), true),
            (json!({"ImageOrientationPatient": "Coronal"}), false),
            (json!({"StudyDescription": "x"}), false),
        ] {
            assert_eq!(matches(conditions.clone()), expected, "{conditions}");
        }
    }

    #[test]
    fn conditions_that_cannot_be_read_are_refused() {
        for conditions in [
            json!({"NoSuchKeyword": "x"}),
            json!({"SeriesDescription": "("}),
            json!({"SeriesDescription": 5}),
            json!({"EchoTime": [1, "~"]}),
            json!({"EchoTime": [1, 2, 3]}),
            json!({"ImageOrientationPatient": "Oblique"}),
        ] {
            let error = Selection::new(conditions.as_object().unwrap()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidModel, "{conditions}");
        }
    }
}
