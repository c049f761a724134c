//! Source series made of headers only, and segments to find in them.

use std::sync::Arc;

use ahi_inference::dicom::segment::{Code, SegmentDescription};
use ahi_inference::dicom::{Attributes, Dataset, FrameDescriptor, Instance};
use ahi_inference::writers::seg::SourceSlice;
use dicom_core::value::DataSetSequence;
use dicom_core::{DataElement, PrimitiveValue, Tag, VR};
use dicom_dictionary_std::{tags, uids};
use ndarray::Array3;

pub(crate) const AXIAL: [&str; 6] = ["1", "0", "0", "0", "1", "0"];

pub(crate) fn put(dataset: &mut Dataset, tag: Tag, vr: VR, values: &[&str]) {
    let values = PrimitiveValue::Strs(values.iter().map(|&value| value.to_owned()).collect());
    dataset.put(DataElement::new(tag, vr, values));
}

pub(crate) fn put_items(dataset: &mut Dataset, tag: Tag, items: Vec<Dataset>) {
    dataset.put(DataElement::new(tag, VR::SQ, DataSetSequence::from(items)));
}

pub(crate) fn child(dataset: &Dataset, tag: Tag) -> &Dataset {
    let items = dataset.element(tag).unwrap().value().items().unwrap();
    assert_eq!(items.len(), 1, "{tag}");
    &items[0]
}

/// Returns the header of a CT instance without its plane.
pub(crate) fn header(sop_instance_uid: &str, columns: u16, rows: u16) -> Dataset {
    let mut dataset = Dataset::new_empty();
    for (tag, vr, value) in [
        (tags::SPECIFIC_CHARACTER_SET, VR::CS, "ISO_IR 100"),
        (tags::SOP_CLASS_UID, VR::UI, uids::CT_IMAGE_STORAGE),
        (tags::SOP_INSTANCE_UID, VR::UI, sop_instance_uid),
        (tags::STUDY_DATE, VR::DA, "20240102"),
        (tags::STUDY_TIME, VR::TM, "101112"),
        (tags::TIMEZONE_OFFSET_FROM_UTC, VR::SH, "+0100"),
        (tags::ACCESSION_NUMBER, VR::SH, "A1"),
        (tags::PATIENT_NAME, VR::PN, "Müller^Zoë"),
        (tags::PATIENT_ID, VR::LO, "ID 7"),
        (tags::PATIENT_BIRTH_DATE, VR::DA, "19700101"),
        (tags::PATIENT_SEX, VR::CS, "F"),
        (tags::PATIENT_AGE, VR::AS, "054Y"),
        (tags::STUDY_INSTANCE_UID, VR::UI, "2.25.1"),
        (tags::SERIES_INSTANCE_UID, VR::UI, "2.25.2"),
        (tags::FRAME_OF_REFERENCE_UID, VR::UI, "2.25.3"),
        (tags::STUDY_ID, VR::SH, "S1"),
        (tags::SERIES_NUMBER, VR::IS, "4"),
        (tags::BODY_PART_EXAMINED, VR::CS, "ABDOMEN"),
    ] {
        put(&mut dataset, tag, vr, &[value]);
    }
    dataset.put(DataElement::new(tags::COLUMNS, VR::US, PrimitiveValue::from(columns)));
    dataset.put(DataElement::new(tags::ROWS, VR::US, PrimitiveValue::from(rows)));
    dataset
}

pub(crate) fn instance(dataset: Dataset, frames: usize) -> Instance {
    Instance {
        sop_instance_uid: dataset.text(tags::SOP_INSTANCE_UID).unwrap(),
        sop_class_uid: dataset.text(tags::SOP_CLASS_UID).unwrap(),
        transfer_syntax: uids::EXPLICIT_VR_LITTLE_ENDIAN.to_owned(),
        frames: vec![FrameDescriptor::default(); frames],
        dataset: Arc::new(dataset),
    }
}

/// Returns one instance per position.
pub(crate) fn single_frames(
    columns: u16,
    rows: u16,
    orientation: [&str; 6],
    positions: &[[String; 3]],
) -> Vec<Instance> {
    let planes = positions.iter().enumerate().map(|(index, position)| {
        let mut dataset = header(&format!("2.25.100{index}"), columns, rows);
        let position = position.each_ref().map(String::as_str);
        put(&mut dataset, tags::IMAGE_POSITION_PATIENT, VR::DS, &position);
        put(&mut dataset, tags::IMAGE_ORIENTATION_PATIENT, VR::DS, &orientation);
        put(&mut dataset, tags::PIXEL_SPACING, VR::DS, &["0.70", "0.9"]);
        put(&mut dataset, tags::SLICE_THICKNESS, VR::DS, &["2.50"]);
        instance(dataset, 1)
    });
    planes.collect()
}

/// Returns one enhanced instance with all positions. Its frames share orientation and spacing.
pub(crate) fn multi_frame(
    columns: u16,
    rows: u16,
    orientation: [&str; 6],
    positions: &[[String; 3]],
) -> Instance {
    let group = |sequence: Tag, elements: &[(Tag, &[&str])], to: &mut Dataset| {
        let mut item = Dataset::new_empty();
        for (tag, values) in elements {
            put(&mut item, *tag, VR::DS, values);
        }
        put_items(to, sequence, vec![item]);
    };
    let mut shared = Dataset::new_empty();
    group(
        tags::PLANE_ORIENTATION_SEQUENCE,
        &[(tags::IMAGE_ORIENTATION_PATIENT, &orientation)],
        &mut shared,
    );
    group(
        tags::PIXEL_MEASURES_SEQUENCE,
        &[(tags::PIXEL_SPACING, &["0.70", "0.9"]), (tags::SLICE_THICKNESS, &["2.50"])],
        &mut shared,
    );
    let frames = positions.iter().map(|position| {
        let mut frame = Dataset::new_empty();
        let position = position.each_ref().map(String::as_str);
        let elements: [(Tag, &[&str]); 1] = [(tags::IMAGE_POSITION_PATIENT, &position)];
        group(tags::PLANE_POSITION_SEQUENCE, &elements, &mut frame);
        frame
    });
    let mut dataset = header("2.25.2000", columns, rows);
    put(&mut dataset, tags::SOP_CLASS_UID, VR::UI, &[uids::ENHANCED_CT_IMAGE_STORAGE]);
    put(&mut dataset, tags::NUMBER_OF_FRAMES, VR::IS, &[&positions.len().to_string()]);
    put_items(&mut dataset, tags::PER_FRAME_FUNCTIONAL_GROUPS_SEQUENCE, frames.collect());
    put_items(&mut dataset, tags::SHARED_FUNCTIONAL_GROUPS_SEQUENCE, vec![shared]);
    instance(dataset, positions.len())
}

/// Returns positions along the axis `index`, as scanners write them.
pub(crate) fn along(index: usize, start: f64, step: f64, count: usize) -> Vec<[String; 3]> {
    let position = |i: usize| {
        let mut position = ["-100.50", "-90.250", "12.0"].map(str::to_owned);
        position[index] = format!("{:.3}", start + step * i as f64);
        position
    };
    (0..count).map(position).collect()
}

pub(crate) fn slices(instances: &[Instance]) -> Vec<SourceSlice<'_>> {
    instances.iter().map(|instance| SourceSlice { instance, frame: 0 }).collect()
}

pub(crate) fn frames_of(instance: &Instance) -> Vec<SourceSlice<'_>> {
    (0..instance.frames.len()).map(|frame| SourceSlice { instance, frame }).collect()
}

pub(crate) fn segment(value: u16, label: &str, code: &str) -> SegmentDescription {
    SegmentDescription {
        value,
        label: label.to_owned(),
        category: Code::sct("91723000", "Anatomical Structure"),
        property_type: Code::sct(code, label),
        type_modifier: None,
        anatomic_region: None,
        color: None,
    }
}

pub(crate) fn segments() -> Vec<SegmentDescription> {
    let mut kidney = segment(2, "Kidney", "64033007");
    kidney.type_modifier = Some(Code::sct("7771000", "Left"));
    kidney.color = Some([200, 100, 50]);
    let mut lesion = segment(3, "Neoplasm", "108369006");
    lesion.category = Code::sct("49755003", "Morphologically Abnormal Structure");
    lesion.anatomic_region = Some(Code::sct("10200004", "Liver"));
    vec![segment(1, "Spleen", "78961009"), kidney, lesion]
}

/// Returns two blocks without any symmetry, in slices other than the first. Class 3 has no voxels.
pub(crate) fn blocks(columns: usize, rows: usize, slices: usize) -> Array3<u8> {
    Array3::from_shape_fn((columns, rows, slices), |(x, y, z)| {
        if z > 0 && (2..7).contains(&x) && (1..4 + z).contains(&y) {
            1
        } else if z > 1 && x + y > 20 && x % 5 != 0 {
            2
        } else {
            0
        }
    })
}
