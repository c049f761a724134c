//! Records which element held the pixels: Pixel Data, Float Pixel Data or Double Float Pixel Data.
//!
//! Data sets are kept without their pixels, and 32-bit integers look the same as 32-bit
//! floating-point numbers. An instance with floating-point pixels therefore keeps the element,
//! empty.

use dicom_core::{DataElement, PrimitiveValue, Tag, VR};
use dicom_dictionary_std::tags;

use super::{Attributes, Dataset};

/// Elements of floating-point pixels, with their value representation and Bits Allocated (PS3.3
/// C.7.6.24 and C.7.6.25).
const FLOATS: [(Tag, VR, u16); 2] =
    [(tags::FLOAT_PIXEL_DATA, VR::OF, 32), (tags::DOUBLE_FLOAT_PIXEL_DATA, VR::OD, 64)];

/// An element of floating-point pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FloatPixels {
    /// Float Pixel Data (7FE0,0008) or Double Float Pixel Data (7FE0,0009).
    pub tag: Tag,
    /// Its value representation, OF or OD.
    pub vr: VR,
    /// Bits of a pixel, 32 or 64.
    pub bits: u16,
}

/// Whether a tag is that of pixel data, of integers or of floating-point numbers (PS3.5 section
/// 8.1).
pub fn is_pixel_data(tag: Tag) -> bool {
    tag == tags::PIXEL_DATA || float_element(tag).is_some()
}

/// Returns the floating-point pixel element with this tag, if it is one.
pub fn float_element(tag: Tag) -> Option<FloatPixels> {
    let found = FLOATS.into_iter().find(|(float, _, _)| *float == tag);
    found.map(|(tag, vr, bits)| FloatPixels { tag, vr, bits })
}

/// Records in a data set that its pixels are those of element `tag`, if that is a floating-point
/// pixel element.
pub fn mark(dataset: &mut Dataset, tag: Tag) {
    if let Some(float) = float_element(tag) {
        dataset.put(DataElement::new(float.tag, float.vr, PrimitiveValue::Empty));
    }
}

/// Returns the element that held the pixels, if they are floating-point numbers.
pub fn float_pixels(dataset: &Dataset) -> Option<FloatPixels> {
    let has = |tag| dataset.get(tag).is_some();
    FLOATS.into_iter().find(|(tag, _, _)| has(*tag)).and_then(|(tag, _, _)| float_element(tag))
}

/// Marks a data set whose source does not say which element held the pixels: integer pixels have
/// Bits Stored, High Bit and Pixel Representation (type 1 in PS3.3 C.7.6.3), floating-point pixels
/// have none of the three.
pub fn infer(dataset: &mut Dataset) {
    let has = |tag| dataset.get(tag).is_some();
    let integers = [tags::BITS_STORED, tags::HIGH_BIT, tags::PIXEL_REPRESENTATION];
    if integers.into_iter().any(has) || float_pixels(dataset).is_some() {
        return;
    }
    let bits = dataset.integer(tags::BITS_ALLOCATED);
    if let Some((tag, _, _)) = FLOATS.into_iter().find(|(_, _, n)| Some(i64::from(*n)) == bits) {
        mark(dataset, tag);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_are_told_from_integers() {
        let word = |tag, value: u16| DataElement::new(tag, VR::US, PrimitiveValue::from(value));
        let found = |elements: Vec<_>| {
            let mut dataset = Dataset::from_element_iter(elements);
            infer(&mut dataset);
            float_pixels(&dataset).map(|float| float.tag)
        };
        let bits = |n| word(tags::BITS_ALLOCATED, n);
        assert_eq!(found(vec![bits(32)]), Some(tags::FLOAT_PIXEL_DATA));
        assert_eq!(found(vec![bits(64)]), Some(tags::DOUBLE_FLOAT_PIXEL_DATA));
        assert_eq!(found(vec![bits(16)]), None);
        for integer in [tags::BITS_STORED, tags::HIGH_BIT, tags::PIXEL_REPRESENTATION] {
            assert_eq!(found(vec![bits(32), word(integer, 1)]), None);
        }
    }
}
