//! Creates content items of a structured report (PS3.3 C.17.3): a name, a typed value, and the
//! relationship to the parent item.

use dicom_core::{DataElement, PrimitiveValue, VR};
use dicom_dictionary_std::tags;

use crate::dicom::Dataset;
use crate::dicom::segment::Code;
use crate::writers::dicom::{Put, code_item, decimal_string};

/// The relationship of an item to its parent (Relationship Type, PS3.3 C.17.3.2.4).
#[derive(Debug, Clone, Copy)]
pub(super) enum Relation {
    Contains,
    HasConceptMod,
    HasObsContext,
    HasAcqContext,
}

impl Relation {
    fn name(self) -> &'static str {
        match self {
            Self::Contains => "CONTAINS",
            Self::HasConceptMod => "HAS CONCEPT MOD",
            Self::HasObsContext => "HAS OBS CONTEXT",
            Self::HasAcqContext => "HAS ACQ CONTEXT",
        }
    }
}

/// Creates an item without its value.
fn item(relation: Relation, value_type: &str, name: &Code) -> Dataset {
    let mut item = unrelated(value_type, name);
    item.put_text(tags::RELATIONSHIP_TYPE, VR::CS, relation.name());
    item
}

fn unrelated(value_type: &str, name: &Code) -> Dataset {
    let mut item = Dataset::new_empty();
    item.put_text(tags::VALUE_TYPE, VR::CS, value_type);
    item.put_code(tags::CONCEPT_NAME_CODE_SEQUENCE, name);
    item
}

/// Creates a text item.
pub(super) fn text(relation: Relation, name: &Code, value: &str) -> Dataset {
    let mut item = item(relation, "TEXT", name);
    item.put_text(tags::TEXT_VALUE, VR::UT, value);
    item
}

/// Creates a coded concept.
pub(super) fn code(relation: Relation, name: &Code, value: &Code) -> Dataset {
    let mut item = item(relation, "CODE", name);
    item.put_code(tags::CONCEPT_CODE_SEQUENCE, value);
    item
}

/// Creates a unique identifier.
pub(super) fn uid(relation: Relation, name: &Code, value: &str) -> Dataset {
    let mut item = item(relation, "UIDREF", name);
    item.put_text(tags::UID, VR::UI, value);
    item
}

/// Creates an image item from a `reference` to it.
pub(super) fn image(relation: Relation, name: &Code, reference: Dataset) -> Dataset {
    let mut item = item(relation, "IMAGE", name);
    item.put_items(tags::REFERENCED_SOP_SEQUENCE, vec![reference]);
    item
}

/// Creates a measured number with its units. If a decimal string cannot represent all its digits, the
/// exact number is written besides.
pub(super) fn number(name: &Code, value: f64, units: &Code) -> Dataset {
    let mut measured = Dataset::new_empty();
    let decimal = decimal_string(value);
    if decimal.parse() != Ok(value) {
        let value = PrimitiveValue::from(value);
        measured.put(DataElement::new(tags::FLOATING_POINT_VALUE, VR::FD, value));
    }
    measured.put_text(tags::NUMERIC_VALUE, VR::DS, &decimal);
    measured.put_items(tags::MEASUREMENT_UNITS_CODE_SEQUENCE, vec![code_item(units)]);
    let mut item = item(Relation::Contains, "NUM", name);
    item.put_items(tags::MEASURED_VALUE_SEQUENCE, vec![measured]);
    item
}

/// Creates a container of `content`, with the number of its template if one is given.
pub(super) fn container(name: &Code, template: Option<&str>, content: Vec<Dataset>) -> Dataset {
    let mut item = root(name, template, content);
    item.put_text(tags::RELATIONSHIP_TYPE, VR::CS, Relation::Contains.name());
    item
}

/// Creates the root container of a report.
pub(super) fn root(name: &Code, template: Option<&str>, content: Vec<Dataset>) -> Dataset {
    let mut item = unrelated("CONTAINER", name);
    item.put_text(tags::CONTINUITY_OF_CONTENT, VR::CS, "SEPARATE");
    if let Some(template) = template {
        let mut named = Dataset::new_empty();
        named.put_text(tags::MAPPING_RESOURCE, VR::CS, "DCMR");
        named.put_text(tags::TEMPLATE_IDENTIFIER, VR::CS, template);
        item.put_items(tags::CONTENT_TEMPLATE_SEQUENCE, vec![named]);
    }
    having(item, content)
}

/// Adds `content` below an item.
pub(super) fn having(mut item: Dataset, content: Vec<Dataset>) -> Dataset {
    if !content.is_empty() {
        item.put_items(tags::CONTENT_SEQUENCE, content);
    }
    item
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dicom::Attributes;

    #[test]
    fn numbers_keep_what_their_decimal_string_cannot_hold() {
        let volume = Code::sct("118565006", "Volume");
        let measured = |value: f64| {
            let item = number(&volume, value, &Code::new("cm3", "UCUM", "cubic centimeter"));
            let items = item.get(tags::MEASURED_VALUE_SEQUENCE).unwrap().value().items().unwrap();
            let own = items[0].get(tags::FLOATING_POINT_VALUE);
            let own = own.map(|element| element.to_float64().unwrap());
            (items[0].text(tags::NUMERIC_VALUE).unwrap(), own)
        };
        assert_eq!(measured(12.5), ("12.5".to_owned(), None));
        assert_eq!(measured(1.0 / 3.0), ("0.33333333333333".to_owned(), Some(1.0 / 3.0)));
    }
}
