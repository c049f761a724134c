//! Typed access to the attributes of a data set. Tolerates what real archives store (padding, empty
//! values); strict only if the caller requires a value.

use dicom_core::{DataDictionary, PrimitiveValue, Tag, VR};
use dicom_dictionary_std::StandardDataDictionary;

use super::Dataset;
use crate::error::{Error, ErrorKind, Result};

/// Typed, padding-tolerant access to attributes.
///
/// An absent element, an empty value and (for numbers) a value that is not a number all read as
/// `None`; the `required_` variants turn that into an error that names the attribute by keyword.
pub trait Attributes {
    /// Returns all values as text, each without its padding; empty if absent.
    fn texts(&self, tag: Tag) -> Vec<String>;

    /// Returns the first value as text without padding; `None` if absent or empty.
    fn text(&self, tag: Tag) -> Option<String> {
        self.texts(tag).into_iter().next().filter(|s| !s.is_empty())
    }

    /// Returns the first value as a number.
    fn number(&self, tag: Tag) -> Option<f64> {
        self.text(tag)?.parse().ok()
    }

    /// Returns the first value as an integer.
    fn integer(&self, tag: Tag) -> Option<i64> {
        let text = self.text(tag)?;
        text.parse().ok().or_else(|| {
            let x: f64 = text.parse().ok()?;
            (x.fract() == 0.0 && x.abs() < 9e15).then_some(x as i64)
        })
    }

    /// Returns exactly `N` finite numbers, or `None`.
    fn numbers<const N: usize>(&self, tag: Tag) -> Option<[f64; N]> {
        let values: Vec<f64> =
            self.texts(tag).iter().map(|s| s.parse().ok()).collect::<Option<_>>()?;
        let array: [f64; N] = values.try_into().ok()?;
        array.iter().all(|x| x.is_finite()).then_some(array)
    }

    /// Like [`text`](Attributes::text), or an error naming the attribute.
    fn required_text(&self, tag: Tag) -> Result<String> {
        self.text(tag).ok_or_else(|| missing(tag))
    }

    /// Like [`integer`](Attributes::integer), or an error naming the attribute.
    fn required_integer(&self, tag: Tag) -> Result<i64> {
        self.integer(tag).ok_or_else(|| missing(tag))
    }

    /// Like [`numbers`](Attributes::numbers), or an error naming the attribute.
    fn required_numbers<const N: usize>(&self, tag: Tag) -> Result<[f64; N]> {
        self.numbers(tag).ok_or_else(|| missing(tag))
    }
}

impl Attributes for Dataset {
    fn texts(&self, tag: Tag) -> Vec<String> {
        // Not `element_opt`: for an absent element it builds an error with a backtrace and drops
        // it.
        let Some(element) = self.get(tag) else { return Vec::new() };
        let Some(value) = element.value().primitive() else { return Vec::new() };
        let trimmed = |s: &str| s.trim_matches(|c: char| c == '\0' || c.is_whitespace()).to_owned();
        match value {
            // Undecoded bytes of a text whose character set is not known (`charset`).
            PrimitiveValue::U8(bytes) if element.vr() == VR::CS => {
                String::from_utf8_lossy(bytes).split('\\').map(trimmed).collect()
            }
            value => value.to_multi_str().iter().map(|s| trimmed(s)).collect(),
        }
    }
}

/// Returns the keyword of a standard attribute, or its tag as `(gggg,eeee)`.
pub fn keyword(tag: Tag) -> String {
    StandardDataDictionary
        .by_tag(tag)
        .map_or_else(|| tag.to_string(), |entry| entry.alias.to_owned())
}

fn missing(tag: Tag) -> Error {
    let keyword = keyword(tag);
    Error::new(ErrorKind::InvalidImage, format!("{keyword} {tag} is missing, empty or malformed"))
        .with("attribute", keyword)
}

#[cfg(test)]
mod tests {
    use dicom_core::{DataElement, PrimitiveValue, VR, dicom_value};
    use dicom_dictionary_std::tags;

    use super::*;

    #[test]
    fn values_lose_their_padding() {
        let ds = Dataset::from_element_iter([
            DataElement::new(tags::MODALITY, VR::CS, PrimitiveValue::from("CT ")),
            DataElement::new(tags::RESCALE_INTERCEPT, VR::DS, PrimitiveValue::from("-1024 ")),
            DataElement::new(
                tags::IMAGE_POSITION_PATIENT,
                VR::DS,
                dicom_value!(Strs, [" 1.5", "-2 ", "3e1"]),
            ),
            DataElement::new(tags::ROWS, VR::US, PrimitiveValue::from(512_u16)),
            DataElement::new(tags::SERIES_DESCRIPTION, VR::LO, PrimitiveValue::Empty),
        ]);
        assert_eq!(ds.text(tags::MODALITY).as_deref(), Some("CT"));
        assert_eq!(ds.number(tags::RESCALE_INTERCEPT), Some(-1024.0));
        assert_eq!(ds.numbers(tags::IMAGE_POSITION_PATIENT), Some([1.5, -2.0, 30.0]));
        assert_eq!(ds.numbers::<2>(tags::IMAGE_POSITION_PATIENT), None);
        assert_eq!(ds.integer(tags::ROWS), Some(512));
        assert_eq!(ds.text(tags::SERIES_DESCRIPTION), None);
        let e = ds.required_integer(tags::COLUMNS).unwrap_err();
        assert!(e.message().contains("Columns"), "{e}");
    }
}
