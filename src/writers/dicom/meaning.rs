//! Writes what a segment is, as codes.

use dicom_core::Tag;
use dicom_dictionary_std::tags;

use super::elements::{Put, code_item};
use crate::dicom::Dataset;
use crate::dicom::segment::SegmentDescription;

/// Writes the category, the type with its modifier, and the anatomic region of a segment into an item,
/// as in the Segment Description Macro (PS3.3 C.8.20.4). `property_type` is the sequence of the type,
/// whose name differs between objects.
pub(in crate::writers) fn put_meaning(
    segment: &SegmentDescription,
    property_type: Tag,
    item: &mut Dataset,
) {
    item.put_code(tags::SEGMENTED_PROPERTY_CATEGORY_CODE_SEQUENCE, &segment.category);
    let mut code = code_item(&segment.property_type);
    if let Some(modifier) = &segment.type_modifier {
        code.put_code(tags::SEGMENTED_PROPERTY_TYPE_MODIFIER_CODE_SEQUENCE, modifier);
    }
    item.put_items(property_type, vec![code]);
    if let Some(region) = &segment.anatomic_region {
        item.put_code(tags::ANATOMIC_REGION_SEQUENCE, region);
    }
}
