//! The multi-frame part of a segmentation: the Multi-frame Dimension (PS3.3 C.7.6.17) and Multi-frame
//! Functional Groups (C.7.6.16) modules. Frames of a label map are distinguished by position alone and
//! have no Segment Identification.

use std::collections::BTreeSet;

use dicom_core::{DataElement, PrimitiveValue, Tag, VR};
use dicom_dictionary_std::tags;

use super::content::Content;
use super::frames::PlannedFrame;
use crate::dicom::Dataset;
use crate::dicom::segment::Code;
use crate::writers::dicom::{Plane, Put, SourceSlice, decimal_string, reference};

/// Writes both modules.
pub(super) fn put<L>(content: &Content<'_, '_, L>, to: &mut Dataset) {
    let organization = content.request.identity.uid(content.dimensions());
    put_dimensions(&organization, content.by_segment(), to);

    let spacing = content.request.options.spacing_between_slices.map(decimal_string);
    let groups = Groups {
        orientation: Shared::of(content.planes, plane_orientation),
        measures: Shared::of(content.planes, |plane| pixel_measures(plane, spacing.as_deref())),
    };
    let mut shared = Dataset::new_empty();
    groups.orientation.put_shared(tags::PLANE_ORIENTATION_SEQUENCE, &mut shared);
    groups.measures.put_shared(tags::PIXEL_MEASURES_SEQUENCE, &mut shared);
    to.put_items(tags::SHARED_FUNCTIONAL_GROUPS_SEQUENCE, vec![shared]);

    // Only slices with a frame are counted, so that the indices have no gaps.
    let slices: BTreeSet<usize> = content.frames.iter().map(|frame| frame.slice).collect();
    let slices: Vec<usize> = slices.into_iter().collect();
    let items = content.frames.iter().filter_map(|frame| {
        let position = slices.binary_search(&frame.slice).ok()?;
        let slice = content.request.slices.get(frame.slice)?;
        let plane = content.planes.get(frame.slice)?;
        Some(groups.frame_item(frame, position, slice, plane))
    });
    to.put_items(tags::PER_FRAME_FUNCTIONAL_GROUPS_SEQUENCE, items.collect());
}

/// Writes the dimensions: frames are ordered by segment, if they have one, then by position.
fn put_dimensions(organization: &str, by_segment: bool, to: &mut Dataset) {
    let mut item = Dataset::new_empty();
    item.put_text(tags::DIMENSION_ORGANIZATION_UID, VR::UI, organization);
    to.put_items(tags::DIMENSION_ORGANIZATION_SEQUENCE, vec![item]);

    let index = |pointer: Tag, group: Tag, label: &str| {
        let mut item = Dataset::new_empty();
        item.put_text(tags::DIMENSION_ORGANIZATION_UID, VR::UI, organization);
        item.put(DataElement::new(
            tags::DIMENSION_INDEX_POINTER,
            VR::AT,
            PrimitiveValue::from(pointer),
        ));
        item.put(DataElement::new(
            tags::FUNCTIONAL_GROUP_POINTER,
            VR::AT,
            PrimitiveValue::from(group),
        ));
        item.put_text(tags::DIMENSION_DESCRIPTION_LABEL, VR::LO, label);
        item
    };
    let segment = index(
        tags::REFERENCED_SEGMENT_NUMBER,
        tags::SEGMENT_IDENTIFICATION_SEQUENCE,
        "Segment Number",
    );
    let position = index(
        tags::IMAGE_POSITION_PATIENT,
        tags::PLANE_POSITION_SEQUENCE,
        "Image Position Patient",
    );
    let indices = by_segment.then_some(segment).into_iter().chain([position]);
    to.put_items(tags::DIMENSION_INDEX_SEQUENCE, indices.collect());
}

/// Functional groups that may be shared by all frames.
struct Groups<F, G> {
    orientation: Shared<F>,
    measures: Shared<G>,
}

/// A functional group: written once if it is equal for all slices, string by string; otherwise with
/// every frame.
enum Shared<F> {
    Once(Dataset),
    PerFrame(F),
}

impl<F: Fn(&Plane) -> Dataset> Shared<F> {
    fn of(planes: &[Plane], group: F) -> Self {
        let mut groups = planes.iter().map(&group);
        match groups.next() {
            Some(first) if groups.all(|other| other == first) => Self::Once(first),
            _ => Self::PerFrame(group),
        }
    }

    fn put_shared(&self, sequence: Tag, to: &mut Dataset) {
        if let Self::Once(item) = self {
            to.put_items(sequence, vec![item.clone()]);
        }
    }

    fn put_own(&self, sequence: Tag, plane: &Plane, to: &mut Dataset) {
        if let Self::PerFrame(group) = self {
            to.put_items(sequence, vec![group(plane)]);
        }
    }
}

impl<F: Fn(&Plane) -> Dataset, G: Fn(&Plane) -> Dataset> Groups<F, G> {
    /// Creates an item of the Per-frame Functional Groups Sequence. `position` counts from zero.
    fn frame_item(
        &self,
        frame: &PlannedFrame,
        position: usize,
        slice: &SourceSlice,
        plane: &Plane,
    ) -> Dataset {
        let number = frame.segment.map(|index| u16::try_from(index + 1).unwrap_or(u16::MAX));
        let mut item = Dataset::new_empty();
        item.put_items(tags::DERIVATION_IMAGE_SEQUENCE, vec![derivation_image(slice)]);

        let position = u32::try_from(position + 1).unwrap_or(u32::MAX);
        let indices = number.map(u32::from).into_iter().chain([position]);
        let mut frame_content = Dataset::new_empty();
        frame_content.put(DataElement::new(
            tags::DIMENSION_INDEX_VALUES,
            VR::UL,
            PrimitiveValue::U32(indices.collect()),
        ));
        item.put_items(tags::FRAME_CONTENT_SEQUENCE, vec![frame_content]);

        let mut plane_position = Dataset::new_empty();
        plane_position.put_texts(tags::IMAGE_POSITION_PATIENT, VR::DS, &plane.position);
        item.put_items(tags::PLANE_POSITION_SEQUENCE, vec![plane_position]);
        self.orientation.put_own(tags::PLANE_ORIENTATION_SEQUENCE, plane, &mut item);
        self.measures.put_own(tags::PIXEL_MEASURES_SEQUENCE, plane, &mut item);

        if let Some(number) = number {
            let mut segment = Dataset::new_empty();
            segment.put_u16(tags::REFERENCED_SEGMENT_NUMBER, &[number]);
            item.put_items(tags::SEGMENT_IDENTIFICATION_SEQUENCE, vec![segment]);
        }
        item
    }
}

/// Creates the Plane Orientation (Patient) Macro (PS3.3 C.7.6.16.2.4).
fn plane_orientation(plane: &Plane) -> Dataset {
    let mut item = Dataset::new_empty();
    item.put_texts(tags::IMAGE_ORIENTATION_PATIENT, VR::DS, &plane.orientation);
    item
}

/// Creates the Pixel Measures Macro (PS3.3 C.7.6.16.2.1).
fn pixel_measures(plane: &Plane, spacing_between_slices: Option<&str>) -> Dataset {
    let mut item = Dataset::new_empty();
    item.put_texts(tags::PIXEL_SPACING, VR::DS, &plane.spacing);
    if let Some(thickness) = plane.thickness.as_deref().or(spacing_between_slices) {
        item.put_text(tags::SLICE_THICKNESS, VR::DS, thickness);
    }
    if let Some(spacing) = spacing_between_slices {
        item.put_text(tags::SPACING_BETWEEN_SLICES, VR::DS, spacing);
    }
    item
}

/// Creates the Derivation Image Macro (PS3.3 C.7.6.16.2.6): the frame matches its source pixel by
/// pixel.
fn derivation_image(slice: &SourceSlice) -> Dataset {
    let mut source = reference(slice.instance);
    if slice.is_multi_frame() {
        let number = (slice.frame + 1).to_string();
        source.put_text(tags::REFERENCED_FRAME_NUMBER, VR::IS, &number);
    }
    source.put_text(tags::SPATIAL_LOCATIONS_PRESERVED, VR::CS, "YES");
    source.put_code(
        tags::PURPOSE_OF_REFERENCE_CODE_SEQUENCE,
        &Code::dcm("121322", "Source image for image processing operation"),
    );
    let mut item = Dataset::new_empty();
    item.put_items(tags::SOURCE_IMAGE_SEQUENCE, vec![source]);
    item.put_code(tags::DERIVATION_CODE_SEQUENCE, &Code::dcm("113076", "Segmentation"));
    item
}
