//! Geometry of frames: positions, orientations and spacings of the source.

use std::sync::Arc;

use ahi_inference::dicom::Attributes;
use ahi_inference::writers::seg::SegOptions;
use dicom_core::VR;
use dicom_dictionary_std::{tags, uids};

use super::round_trip::{read, read_labels, round_trip, write_seg};
use super::sources::{
    AXIAL, along, blocks, child, frames_of, multi_frame, put, segments, single_frames, slices,
};

#[test]
fn axial_slices_with_bits_across_bytes() {
    let instances = single_frames(17, 13, AXIAL, &along(2, 10.0, 2.5, 7));
    let options = SegOptions { spacing_between_slices: Some(2.5), ..SegOptions::default() };
    let (seg, file) = round_trip("axial", &blocks(17, 13, 7), &slices(&instances), &options);

    assert_eq!(seg.summary.frames, 6 + 5);
    assert!(seg.summary.warnings.is_empty(), "{:?}", seg.summary.warnings);
    assert_eq!(file.meta().transfer_syntax(), uids::EXPLICIT_VR_LITTLE_ENDIAN);
    assert_eq!(file.meta().media_storage_sop_instance_uid(), seg.summary.sop_instance_uid);
    let text = |tag| file.text(tag).unwrap();
    assert_eq!(text(tags::SOP_CLASS_UID), uids::SEGMENTATION_STORAGE);
    assert_eq!(text(tags::SERIES_DESCRIPTION), "AI generated Seg, not for clinical use.");
    assert_eq!(text(tags::SERIES_INSTANCE_UID), seg.summary.series_instance_uid);
    assert_eq!(text(tags::SERIES_NUMBER), "1004");
    assert_eq!(text(tags::LOSSY_IMAGE_COMPRESSION), "00");

    let numbers: Vec<i64> = file
        .element(tags::SEGMENT_SEQUENCE)
        .unwrap()
        .value()
        .items()
        .unwrap()
        .iter()
        .map(|item| item.integer(tags::SEGMENT_NUMBER).unwrap())
        .collect();
    assert_eq!(numbers, [1, 2, 3]);

    let shared = child(&file, tags::SHARED_FUNCTIONAL_GROUPS_SEQUENCE);
    let orientation = child(shared, tags::PLANE_ORIENTATION_SEQUENCE);
    assert_eq!(orientation.texts(tags::IMAGE_ORIENTATION_PATIENT), AXIAL);
    let measures = child(shared, tags::PIXEL_MEASURES_SEQUENCE);
    assert_eq!(measures.texts(tags::PIXEL_SPACING), ["0.70", "0.9"]);
    assert_eq!(measures.text(tags::SLICE_THICKNESS).unwrap(), "2.50");
    assert_eq!(measures.text(tags::SPACING_BETWEEN_SLICES).unwrap(), "2.5");

    // The first slice has no frame, so the second one has the first index.
    let frames = file.element(tags::PER_FRAME_FUNCTIONAL_GROUPS_SEQUENCE).unwrap();
    let indices: Vec<Vec<i64>> = frames
        .value()
        .items()
        .unwrap()
        .iter()
        .map(|frame| {
            let content = child(frame, tags::FRAME_CONTENT_SEQUENCE);
            content.element(tags::DIMENSION_INDEX_VALUES).unwrap().to_multi_int().unwrap()
        })
        .collect();
    let expected: Vec<Vec<i64>> =
        (1..=6).map(|z| vec![1, z]).chain((2..=6).map(|z| vec![2, z])).collect();
    assert_eq!(indices, expected);

    let series = child(&file, tags::REFERENCED_SERIES_SEQUENCE);
    assert_eq!(series.text(tags::SERIES_INSTANCE_UID).unwrap(), "2.25.2");
    let referenced = series.element(tags::REFERENCED_INSTANCE_SEQUENCE).unwrap();
    let referenced: Vec<String> = referenced
        .value()
        .items()
        .unwrap()
        .iter()
        .map(|item| item.text(tags::REFERENCED_SOP_INSTANCE_UID).unwrap())
        .collect();
    let all: Vec<&str> = instances.iter().map(|i| i.sop_instance_uid.as_str()).collect();
    assert_eq!(referenced, all);
}

#[test]
fn oblique_strings_are_copied_to_the_last_digit() {
    let orientation = [
        "0.98480775301221",
        "0.15038373318043",
        "-0.0868240888335",
        "-0.1736481776669",
        "0.85286853195244",
        "-0.4924038765061",
    ];
    let positions: Vec<[String; 3]> = (0..5)
        .map(|i| {
            let t = f64::from(i) * 3.1;
            [
                format!("{:.10}", -120.123_456_7),
                format!("{:.10}", -80.5 + 0.5 * t),
                format!("{:.10}", 33.3 + 0.866_025_403_784 * t),
            ]
        })
        .collect();
    let instances = single_frames(17, 13, orientation, &positions);
    let (_, file) =
        round_trip("oblique", &blocks(17, 13, 5), &slices(&instances), &SegOptions::default());
    let shared = child(&file, tags::SHARED_FUNCTIONAL_GROUPS_SEQUENCE);
    let copied = child(shared, tags::PLANE_ORIENTATION_SEQUENCE);
    assert_eq!(copied.texts(tags::IMAGE_ORIENTATION_PATIENT), orientation);
}

#[test]
fn reversed_and_sagittal_slices() {
    let instances = single_frames(17, 13, AXIAL, &along(2, 50.0, -1.25, 6));
    round_trip("reversed", &blocks(17, 13, 6), &slices(&instances), &SegOptions::default());

    let sagittal = ["0", "1", "0", "0", "0", "-1"];
    let instances = single_frames(17, 13, sagittal, &along(0, -30.0, 4.0, 6));
    round_trip("sagittal", &blocks(17, 13, 6), &slices(&instances), &SegOptions::default());
}

#[test]
fn frames_of_an_enhanced_instance() {
    let source = multi_frame(17, 13, AXIAL, &along(2, 10.0, 2.5, 7));
    let (_, file) =
        round_trip("multi_frame", &blocks(17, 13, 7), &frames_of(&source), &SegOptions::default());
    let shared = child(&file, tags::SHARED_FUNCTIONAL_GROUPS_SEQUENCE);
    let measures = child(shared, tags::PIXEL_MEASURES_SEQUENCE);
    assert_eq!(measures.texts(tags::PIXEL_SPACING), ["0.70", "0.9"]);
    let series = child(&file, tags::REFERENCED_SERIES_SEQUENCE);
    let referenced = child(series, tags::REFERENCED_INSTANCE_SEQUENCE);
    assert_eq!(referenced.text(tags::REFERENCED_SOP_INSTANCE_UID).unwrap(), "2.25.2000");
}

#[test]
fn planes_that_differ_are_written_with_each_frame() {
    let mut instances = single_frames(17, 13, AXIAL, &along(2, 10.0, 2.5, 3));
    let mut other = (*instances[2].dataset).clone();
    put(&mut other, tags::IMAGE_ORIENTATION_PATIENT, VR::DS, &["1.0", "0", "0", "0", "1", "0"]);
    instances[2].dataset = Arc::new(other);
    let (_, file) =
        round_trip("mixed", &blocks(17, 13, 3), &slices(&instances), &SegOptions::default());
    let shared = child(&file, tags::SHARED_FUNCTIONAL_GROUPS_SEQUENCE);
    assert!(shared.get(tags::PLANE_ORIENTATION_SEQUENCE).is_none());
    assert!(shared.get(tags::PIXEL_MEASURES_SEQUENCE).is_some());
    let frames = file.element(tags::PER_FRAME_FUNCTIONAL_GROUPS_SEQUENCE).unwrap();
    let last = frames.value().items().unwrap().last().unwrap();
    let own = child(last, tags::PLANE_ORIENTATION_SEQUENCE);
    assert_eq!(own.texts(tags::IMAGE_ORIENTATION_PATIENT)[0], "1.0");
}

#[test]
fn overlong_strings_are_kept_with_a_warning() {
    let mut positions = along(2, 10.0, 2.5, 3);
    positions[1][0] = "-100.12345678901234567".to_owned();
    let instances = single_frames(17, 13, AXIAL, &positions);
    let slices = slices(&instances);
    let labels = blocks(17, 13, 3);
    let seg = write_seg(&labels, &slices, &segments(), &SegOptions::default());
    // `read_labels` compares the positions.
    assert_eq!(read_labels(&read(&seg), &slices, &[1, 2, 3]), labels.mapv(u16::from));
    assert!(seg.summary.warnings[0].contains("16 characters"), "{:?}", seg.summary.warnings);
}
