//! Building blocks of data sets: elements, sequences and coded concepts.

use dicom_core::header::HasLength;
use dicom_core::value::DataSetSequence;
use dicom_core::{DataElement, PrimitiveValue, Tag, VR};
use dicom_dictionary_std::tags;

use crate::dicom::segment::Code;
use crate::dicom::{Dataset, Instance};

/// Sets elements of a data set.
pub(in crate::writers) trait Put {
    /// Sets a text with one value; an empty one becomes a zero-length element (type 2).
    fn put_text(&mut self, tag: Tag, vr: VR, value: &str);

    /// Sets a text with several values.
    fn put_texts(&mut self, tag: Tag, vr: VR, values: &[String]);

    /// Sets unsigned 16-bit values (US).
    fn put_u16(&mut self, tag: Tag, values: &[u16]);

    /// Sets a sequence.
    fn put_items(&mut self, tag: Tag, items: Vec<Dataset>);

    /// Sets a code sequence with one item.
    fn put_code(&mut self, tag: Tag, code: &Code) {
        self.put_items(tag, vec![code_item(code)]);
    }
}

impl Put for Dataset {
    fn put_text(&mut self, tag: Tag, vr: VR, value: &str) {
        let value =
            if value.is_empty() { PrimitiveValue::Empty } else { PrimitiveValue::from(value) };
        self.put(DataElement::new(tag, vr, value));
    }

    fn put_texts(&mut self, tag: Tag, vr: VR, values: &[String]) {
        let values = PrimitiveValue::Strs(values.iter().cloned().collect());
        self.put(DataElement::new(tag, vr, values));
    }

    fn put_u16(&mut self, tag: Tag, values: &[u16]) {
        let values = PrimitiveValue::U16(values.iter().copied().collect());
        self.put(DataElement::new(tag, VR::US, values));
    }

    fn put_items(&mut self, tag: Tag, items: Vec<Dataset>) {
        self.put(DataElement::new(tag, VR::SQ, DataSetSequence::from(items)));
    }
}

/// Creates an item of a code sequence (PS3.3 section 8.8).
pub(in crate::writers) fn code_item(code: &Code) -> Dataset {
    let mut item = Dataset::new_empty();
    item.put_text(tags::CODE_VALUE, VR::SH, &code.value);
    item.put_text(tags::CODING_SCHEME_DESIGNATOR, VR::SH, &code.scheme);
    item.put_text(tags::CODE_MEANING, VR::LO, &code.meaning);
    item
}

/// Returns the items of a sequence; empty if it is absent.
pub(in crate::writers) fn items(dataset: &Dataset, tag: Tag) -> &[Dataset] {
    dataset.get(tag).and_then(|element| element.value().items()).unwrap_or_default()
}

/// Whether the element is present and has a value.
pub(in crate::writers) fn has_value(dataset: &Dataset, tag: Tag) -> bool {
    dataset.get(tag).is_some_and(|element| !element.is_empty())
}

/// Formats a number as a decimal string (DS) of at most 16 characters (PS3.5 6.2), as precisely as they
/// allow.
pub(in crate::writers) fn decimal_string(x: f64) -> String {
    const LIMIT: usize = 16;
    let shortest = x.to_string();
    if shortest.len() <= LIMIT {
        return shortest;
    }
    (0..LIMIT)
        .rev()
        .flat_map(|digits| {
            // Positional notation, if it keeps at least as many significant digits.
            let positional = (1e-4..1e15).contains(&x.abs()).then(|| format!("{x:.digits$}"));
            [positional, Some(format!("{x:.digits$e}"))]
        })
        .flatten()
        .find(|text| text.len() <= LIMIT)
        .unwrap_or(shortest)
}

/// Creates an item that references an instance (SOP Instance Reference Macro, PS3.3 10.8).
pub(in crate::writers) fn reference(instance: &Instance) -> Dataset {
    let mut item = Dataset::new_empty();
    item.put_text(tags::REFERENCED_SOP_CLASS_UID, VR::UI, &instance.sop_class_uid);
    item.put_text(tags::REFERENCED_SOP_INSTANCE_UID, VR::UI, &instance.sop_instance_uid);
    item
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimal_strings_fit_and_keep_their_value() {
        for x in
            [0.0, 2.5, -1.25e-7, 1.0 / 3.0, -123.456_789_012_345_67, 5e-324, 1.234_567_890_123e20]
        {
            let text = decimal_string(x);
            assert!(text.len() <= 16, "{text}");
            let back: f64 = text.parse().unwrap();
            assert!((back - x).abs() <= x.abs() * 1e-8, "{x} became {text}");
        }
        assert_eq!(decimal_string(2.5), "2.5");
        assert_eq!(decimal_string(1.0 / 3.0), "0.33333333333333");
    }
}
