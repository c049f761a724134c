//! DICOM SEG and NIfTI written from synthetic sources and from a real series' headers, read back
//! with `dicom-object`. Every case is also left in a folder (`AHI_SEG_FIXTURES`, or
//! `seg-fixtures` in the target folder) for `tests/python/test_seg.py`, which reads it with
//! highdicom, nibabel and dciodvfy.

use std::io::Read;
use std::path::PathBuf;
use std::sync::Arc;

use ahi_inference::dicom::segment::{Algorithm, Code, SegmentDescription};
use ahi_inference::dicom::{Attributes, Dataset, FrameDescriptor, Instance};
use ahi_inference::error::ErrorKind;
use ahi_inference::writers::Voxels;
use ahi_inference::writers::seg::{Identity, Seg, SegOptions, SegRequest, SourceSlice, write};
use ahi_inference::writers::{Label, nifti};
use dicom_core::value::DataSetSequence;
use dicom_core::{DataElement, PrimitiveValue, Tag, VR};
use dicom_dictionary_std::{tags, uids};
use dicom_object::{DefaultDicomObject, OpenFileOptions};
use ndarray::{Array3, ShapeBuilder};
use proptest::prelude::*;

use crate::common::shared;

const AXIAL: [&str; 6] = ["1", "0", "0", "0", "1", "0"];

fn put(dataset: &mut Dataset, tag: Tag, vr: VR, values: &[&str]) {
    let values = PrimitiveValue::Strs(values.iter().map(|&value| value.to_owned()).collect());
    dataset.put(DataElement::new(tag, vr, values));
}

fn put_items(dataset: &mut Dataset, tag: Tag, items: Vec<Dataset>) {
    dataset.put(DataElement::new(tag, VR::SQ, DataSetSequence::from(items)));
}

fn child(dataset: &Dataset, tag: Tag) -> &Dataset {
    let items = dataset.element(tag).unwrap().value().items().unwrap();
    assert_eq!(items.len(), 1, "{tag}");
    &items[0]
}

/// Header of a CT instance but for its plane.
fn header(sop_instance_uid: &str, columns: u16, rows: u16) -> Dataset {
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

fn instance(dataset: Dataset, frames: usize) -> Instance {
    Instance {
        sop_instance_uid: dataset.text(tags::SOP_INSTANCE_UID).unwrap(),
        sop_class_uid: dataset.text(tags::SOP_CLASS_UID).unwrap(),
        transfer_syntax: uids::EXPLICIT_VR_LITTLE_ENDIAN.to_owned(),
        frames: vec![FrameDescriptor::default(); frames],
        dataset: Arc::new(dataset),
    }
}

/// One instance per position.
fn single_frames(
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

/// One enhanced instance with all positions; orientation and spacing are shared by its frames.
fn multi_frame(
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

/// Positions along the axis `index`, as scanners write them.
fn along(index: usize, start: f64, step: f64, count: usize) -> Vec<[String; 3]> {
    let position = |i: usize| {
        let mut position = ["-100.50", "-90.250", "12.0"].map(str::to_owned);
        position[index] = format!("{:.3}", start + step * i as f64);
        position
    };
    (0..count).map(position).collect()
}

fn slices(instances: &[Instance]) -> Vec<SourceSlice<'_>> {
    instances.iter().map(|instance| SourceSlice { instance, frame: 0 }).collect()
}

fn frames_of(instance: &Instance) -> Vec<SourceSlice<'_>> {
    (0..instance.frames.len()).map(|frame| SourceSlice { instance, frame }).collect()
}

fn segment(value: u16, label: &str, code: &str) -> SegmentDescription {
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

fn segments() -> Vec<SegmentDescription> {
    let mut kidney = segment(2, "Kidney", "64033007");
    kidney.type_modifier = Some(Code::sct("7771000", "Left"));
    kidney.color = Some([200, 100, 50]);
    let mut lesion = segment(3, "Neoplasm", "108369006");
    lesion.category = Code::sct("49755003", "Morphologically Abnormal Structure");
    lesion.anatomic_region = Some(Code::sct("10200004", "Liver"));
    vec![segment(1, "Spleen", "78961009"), kidney, lesion]
}

/// Two blocks without any symmetry, in slices that are not the first; class 3 has no voxel.
fn blocks(columns: usize, rows: usize, slices: usize) -> Array3<u8> {
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

/// What a model tells of its network.
const PARAMETERS: &str =
    "network SHA-256=ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

fn write_seg<L: Label>(
    labels: &Array3<L>,
    slices: &[SourceSlice],
    segments: &[SegmentDescription],
    options: &SegOptions,
) -> Seg {
    let mut algorithm = Algorithm::new("spleen_ct_segmentation", "0.5.3");
    algorithm.parameters = Some(PARAMETERS.to_owned());
    let request = SegRequest {
        voxels: Voxels::Labels(labels.view()),
        slices,
        segments,
        algorithm: &algorithm,
        identity: &Identity::fresh(),
        options,
    };
    let mut objects = write(&request).unwrap();
    assert_eq!(objects.len(), 1);
    objects.remove(0)
}

fn read(seg: &Seg) -> DefaultDicomObject {
    OpenFileOptions::new().from_reader(seg.bytes.as_slice()).unwrap()
}

/// The label map in a segmentation: bits to voxels, planes found through the source they refer to,
/// each checked to lie where its source slice lies.
fn read_labels(file: &Dataset, slices: &[SourceSlice], values: &[u16]) -> Array3<u16> {
    let size = |tag| file.required_integer(tag).unwrap() as usize;
    let (columns, rows) = (size(tags::COLUMNS), size(tags::ROWS));
    let bytes = file.element(tags::PIXEL_DATA).unwrap().to_bytes().unwrap();
    let frames = file.element(tags::PER_FRAME_FUNCTIONAL_GROUPS_SEQUENCE).unwrap();
    let frames = frames.value().items().unwrap();
    assert_eq!(frames.len(), size(tags::NUMBER_OF_FRAMES));
    assert_eq!(bytes.len(), (frames.len() * columns * rows).div_ceil(8).next_multiple_of(2));

    let mut labels = Array3::zeros((columns, rows, slices.len()));
    for (index, frame) in frames.iter().enumerate() {
        let number = child(frame, tags::SEGMENT_IDENTIFICATION_SEQUENCE)
            .required_integer(tags::REFERENCED_SEGMENT_NUMBER)
            .unwrap();
        let value = values[number as usize - 1];
        let source =
            child(child(frame, tags::DERIVATION_IMAGE_SEQUENCE), tags::SOURCE_IMAGE_SEQUENCE);
        let source_uid = source.text(tags::REFERENCED_SOP_INSTANCE_UID).unwrap();
        let source_frame = source.integer(tags::REFERENCED_FRAME_NUMBER).unwrap_or(1) as usize - 1;
        let z = slices
            .iter()
            .position(|s| s.instance.sop_instance_uid == source_uid && s.frame == source_frame)
            .unwrap();
        let position = child(frame, tags::PLANE_POSITION_SEQUENCE);
        assert_eq!(position.texts(tags::IMAGE_POSITION_PATIENT), source_position(&slices[z]));
        for y in 0..rows {
            for x in 0..columns {
                let bit = (index * rows + y) * columns + x;
                if bytes[bit / 8] >> (bit % 8) & 1 == 1 {
                    assert_eq!(labels[(x, y, z)], 0, "two segments share a voxel");
                    labels[(x, y, z)] = value;
                }
            }
        }
    }
    labels
}

fn source_position(slice: &SourceSlice) -> Vec<String> {
    let dataset = &slice.instance.dataset;
    let frames = dataset.get(tags::PER_FRAME_FUNCTIONAL_GROUPS_SEQUENCE);
    let holder = frames.map_or(&**dataset, |frames| {
        child(&frames.value().items().unwrap()[slice.frame], tags::PLANE_POSITION_SEQUENCE)
    });
    holder.texts(tags::IMAGE_POSITION_PATIENT)
}

/// The folder that a case is left in, created where it is missing.
fn fixture_folder(name: &str) -> PathBuf {
    let folder = std::env::var_os("AHI_SEG_FIXTURES").map_or_else(
        || PathBuf::from(env!("CARGO_TARGET_TMPDIR")).with_file_name("seg-fixtures"),
        PathBuf::from,
    );
    let folder = folder.join(name);
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

/// Writes the case, reads it back, and leaves it for the Python tests.
fn round_trip(
    name: &str,
    labels: &Array3<u8>,
    slices: &[SourceSlice],
    options: &SegOptions,
) -> (Seg, DefaultDicomObject) {
    let segments = segments();
    let seg = write_seg(labels, slices, &segments, options);
    let file = read(&seg);
    assert_eq!(read_labels(&file, slices, &[1, 2, 3]), labels.mapv(u16::from), "{name}");
    for (segment, &voxels) in segments.iter().zip(&seg.summary.voxels_per_segment) {
        let expected = labels.iter().filter(|&&label| u16::from(label) == segment.value).count();
        assert_eq!(voxels, expected as u64, "{name}: {}", segment.label);
    }

    let folder = fixture_folder(name);
    std::fs::write(folder.join("seg.dcm"), &seg.bytes).unwrap();
    ndarray_npy::write_npy(folder.join("labels.npy"), labels).unwrap();
    let sources: Vec<serde_json::Value> = slices
        .iter()
        .map(|slice| {
            serde_json::json!({
                "sopInstanceUID": slice.instance.sop_instance_uid,
                "frame": slice.frame,
                "multiFrame": slice.instance.frames.len() > 1,
                "position": source_position(slice),
            })
        })
        .collect();
    std::fs::write(folder.join("sources.json"), serde_json::to_vec(&sources).unwrap()).unwrap();
    (seg, file)
}

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

    // The first slice has no frame: the second one has the first index.
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
fn patient_and_study_are_the_sources() {
    let instances = single_frames(17, 13, AXIAL, &along(2, 10.0, 2.5, 7));
    let seg =
        write_seg(&blocks(17, 13, 7), &slices(&instances), &segments(), &SegOptions::default());
    let file = read(&seg);
    let source = &instances[0].dataset;
    for tag in [
        tags::SPECIFIC_CHARACTER_SET,
        tags::PATIENT_NAME,
        tags::PATIENT_ID,
        tags::PATIENT_BIRTH_DATE,
        tags::PATIENT_SEX,
        tags::PATIENT_AGE,
        tags::STUDY_INSTANCE_UID,
        tags::STUDY_DATE,
        tags::STUDY_TIME,
        tags::ACCESSION_NUMBER,
        tags::FRAME_OF_REFERENCE_UID,
        tags::TIMEZONE_OFFSET_FROM_UTC,
        tags::BODY_PART_EXAMINED,
    ] {
        assert_eq!(file.texts(tag), source.texts(tag), "{tag}");
    }
    // The name in Latin-1, as the source has it.
    let name = b"M\xfcller^Zo\xeb";
    assert!(seg.bytes.windows(name.len()).any(|bytes| bytes == name));
    // Absent from the source, but not to be absent from the study (type 2).
    assert!(file.element(tags::REFERRING_PHYSICIAN_NAME).unwrap().value().primitive().is_some());
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
fn nothing_found_is_one_empty_frame_and_a_warning() {
    let instances = single_frames(17, 13, AXIAL, &along(2, 10.0, 2.5, 3));
    let labels = Array3::zeros((17, 13, 3));
    let (seg, _) = round_trip("empty", &labels, &slices(&instances), &SegOptions::default());
    assert_eq!(seg.summary.frames, 1);
    assert_eq!(seg.summary.voxels_per_segment, [0, 0, 0]);
    assert!(seg.summary.warnings[0].contains("no voxel"), "{:?}", seg.summary.warnings);
}

#[test]
fn empty_frames_are_kept_on_request() {
    let instances = single_frames(17, 13, AXIAL, &along(2, 10.0, 2.5, 4));
    let options = SegOptions { omit_empty_frames: false, ..SegOptions::default() };
    let (seg, _) = round_trip("all_frames", &blocks(17, 13, 4), &slices(&instances), &options);
    assert_eq!(seg.summary.frames, 3 * 4);
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
fn headers_of_a_real_series() {
    let Some(path) = shared("data/cranium_ct_dicom.zip") else { return };
    let mut archive = zip::ZipArchive::new(std::fs::File::open(path).unwrap()).unwrap();
    let mut instances: Vec<Instance> = (0..archive.len())
        .map(|index| {
            let mut bytes = Vec::new();
            archive.by_index(index).unwrap().read_to_end(&mut bytes).unwrap();
            let options = OpenFileOptions::new().read_until(tags::PIXEL_DATA);
            instance(options.from_reader(bytes.as_slice()).unwrap().into_inner(), 1)
        })
        .collect();
    let height =
        |i: &Instance| i.dataset.numbers::<3>(tags::IMAGE_POSITION_PATIENT).map(|p| p[2]).unwrap();
    instances.sort_by(|a, b| height(a).total_cmp(&height(b)));
    let labels = Array3::from_shape_fn((256, 256, instances.len()).f(), |(x, y, z)| {
        let distance = x.abs_diff(110).pow(2) + 2 * y.abs_diff(140).pow(2) + z.abs_diff(40).pow(2);
        if distance < 900 { 2 } else { u8::from(distance < 2500) }
    });
    let (_, file) = round_trip("cranium", &labels, &slices(&instances), &SegOptions::default());
    for tag in [tags::PATIENT_NAME, tags::SPECIFIC_CHARACTER_SET, tags::STUDY_INSTANCE_UID] {
        assert_eq!(file.texts(tag), instances[0].dataset.texts(tag), "{tag}");
    }
}

#[test]
fn loss_and_missing_frame_of_reference_are_reported() {
    let mut instances = single_frames(17, 13, AXIAL, &along(2, 10.0, 2.5, 3));
    for instance in &mut instances {
        let mut dataset = (*instance.dataset).clone();
        dataset.remove_element(tags::FRAME_OF_REFERENCE_UID);
        put(&mut dataset, tags::LOSSY_IMAGE_COMPRESSION, VR::CS, &["01"]);
        put(&mut dataset, tags::LOSSY_IMAGE_COMPRESSION_RATIO, VR::DS, &["9.5"]);
        put(&mut dataset, tags::LOSSY_IMAGE_COMPRESSION_METHOD, VR::CS, &["ISO_15444_1"]);
        instance.dataset = Arc::new(dataset);
    }
    let (seg, file) =
        round_trip("lossy", &blocks(17, 13, 3), &slices(&instances), &SegOptions::default());
    assert_eq!(file.text(tags::LOSSY_IMAGE_COMPRESSION_RATIO).unwrap(), "9.5");
    assert!(file.text(tags::FRAME_OF_REFERENCE_UID).is_some());
    assert_eq!(seg.summary.warnings.len(), 1);
    assert!(seg.summary.warnings[0].contains("FrameOfReferenceUID"));
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

#[test]
fn label_values_need_not_be_segment_numbers() {
    let instances = single_frames(5, 3, AXIAL, &along(2, 10.0, 2.5, 2));
    let labels = Array3::from_shape_fn((5, 3, 2), |(x, y, _)| [0, 300, 7][(x + y) % 3]);
    let segments = [segment(300, "Rib", "113197003"), segment(7, "Liver", "10200004")];
    let slices = slices(&instances);
    let seg = write_seg::<u16>(&labels, &slices, &segments, &SegOptions::default());
    assert_eq!(read_labels(&read(&seg), &slices, &[300, 7]), labels);
}

#[test]
fn what_does_not_belong_together_is_refused() {
    let algorithm = Algorithm::new("model", "1");
    let options = SegOptions::default();
    let segments = segments();
    let refusal = |instances: &[Instance], labels: &Array3<u8>| {
        let slices = slices(instances);
        let request = SegRequest {
            voxels: Voxels::Labels(labels.view()),
            slices: &slices,
            segments: &segments,
            algorithm: &algorithm,
            identity: &Identity::fresh(),
            options: &options,
        };
        write(&request).unwrap_err()
    };
    let good = single_frames(17, 13, AXIAL, &along(2, 10.0, 2.5, 3));
    let changed = |tag, vr, values: &[&str]| {
        let mut instances = good.clone();
        let mut dataset = (*instances[1].dataset).clone();
        put(&mut dataset, tag, vr, values);
        instances[1].dataset = Arc::new(dataset);
        instances
    };

    let e = refusal(&changed(tags::PATIENT_ID, VR::LO, &["Somebody"]), &blocks(17, 13, 3));
    assert_eq!(e.kind(), ErrorKind::InvalidImage);
    assert_eq!(e.details()["sopInstanceUID"], "2.25.1001");
    assert!(e.message().contains("PatientID") && !e.message().contains("Somebody"), "{e}");

    let e =
        refusal(&changed(tags::IMAGE_POSITION_PATIENT, VR::DS, &["1", "2"]), &blocks(17, 13, 3));
    assert!(e.message().contains("ImagePositionPatient"), "{e}");
    assert_eq!(e.details()["sopInstanceUID"], "2.25.1001");

    let e = refusal(&good, &blocks(13, 17, 3));
    assert!(e.message().contains("Columns is 17"), "{e}");

    let e = refusal(&good, &blocks(17, 13, 2));
    assert_eq!(e.kind(), ErrorKind::Internal);

    // A single-frame instance has no second frame.
    let labels = blocks(17, 13, 3);
    let mut wrong_frame = slices(&good);
    wrong_frame[1].frame = 1;
    let request = SegRequest {
        voxels: Voxels::Labels(labels.view()),
        slices: &wrong_frame,
        segments: &segments,
        algorithm: &algorithm,
        identity: &Identity::fresh(),
        options: &options,
    };
    assert_eq!(write(&request).unwrap_err().kind(), ErrorKind::Internal);

    let e = refusal(&good, &Array3::from_elem((17, 13, 3), 9));
    assert_eq!((e.kind(), &e.details()["labelValue"]), (ErrorKind::InvalidModel, &9.into()));
}

#[test]
fn nifti_for_nibabel() {
    // Oblique, left-handed and far from the origin.
    let affine = [
        [-0.7, 0.1, 0.4, 101.5],
        [0.096_596_5, 0.684_5, 0.2, -90.25],
        [-0.110_9, -0.215_9, 2.4, 12.125],
        [0.0, 0.0, 0.0, 1.0],
    ];
    let straight = [
        [0.0, 0.0, -2.0, 10.0],
        [-0.9, 0.0, 0.0, 20.0],
        [0.0, -0.7, 0.0, 30.0],
        [0.0, 0.0, 0.0, 1.0],
    ];
    let folder = fixture_folder("nifti");
    let labels = blocks(17, 13, 5);
    ndarray_npy::write_npy(folder.join("labels.npy"), &labels).unwrap();
    for (name, affine) in [("sheared", affine), ("straight", straight)] {
        let file = nifti::write(labels.view(), &affine).unwrap().bytes;
        assert_eq!(file[..2], [0x1f, 0x8b]);
        std::fs::write(folder.join(format!("{name}.nii.gz")), file).unwrap();
        let affine: Vec<f64> = affine.into_iter().flatten().collect();
        let affine = ndarray::Array2::from_shape_vec((4, 4), affine).unwrap();
        ndarray_npy::write_npy(folder.join(format!("{name}.affine.npy")), &affine).unwrap();
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Packing and unpacking is the identity for every size of frame, layout and set of classes.
    #[test]
    fn unpacking_gives_back_every_label(
        (columns, rows, count) in (1_usize..20, 1_usize..12, 1_usize..12),
        row_major in any::<bool>(),
        density in 1_u8..40,
        seed in any::<u64>(),
    ) {
        let instances =
            single_frames(columns as u16, rows as u16, AXIAL, &along(2, 0.0, 1.0, count));
        let mut state = seed | 1;
        let labels = Array3::from_shape_fn((columns, rows, count).set_f(!row_major), |_| {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            let value = (state >> 40) as u8 % density;
            if value > 3 { 0 } else { value }
        });
        let slices = slices(&instances);
        let seg = write_seg(&labels, &slices, &segments(), &SegOptions::default());
        prop_assert_eq!(read_labels(&read(&seg), &slices, &[1, 2, 3]), labels.mapv(u16::from));
    }
}

#[test]
fn pixel_data_beyond_one_element_goes_into_further_objects() {
    let instances = single_frames(17, 13, AXIAL, &along(2, 10.0, 2.5, 6));
    let (labels, slices, segments) = (blocks(17, 13, 6), slices(&instances), segments());
    let whole = write_seg(&labels, &slices, &segments, &SegOptions::default());
    // Room for two frames of 221 pixels.
    let options = SegOptions { largest_pixel_data: 56, ..SegOptions::default() };
    let algorithm = Algorithm::new("model", "1");
    let request = SegRequest {
        voxels: Voxels::Labels(labels.view()),
        slices: &slices,
        segments: &segments,
        algorithm: &algorithm,
        identity: &Identity::fresh(),
        options: &options,
    };
    let objects = write(&request).unwrap();
    assert_eq!(objects.len(), whole.summary.frames.div_ceil(2));
    let mut together = Array3::<u16>::zeros((17, 13, 6));
    let tracking = |file: &Dataset| {
        let items = file.element(tags::SEGMENT_SEQUENCE).unwrap().value().items().unwrap().to_vec();
        items.iter().map(|item| item.text(tags::TRACKING_UID).unwrap()).collect::<Vec<_>>()
    };
    let first = read(&objects[0]);
    for (index, object) in objects.iter().enumerate() {
        let file = read(object);
        together += &read_labels(&file, &slices, &[1, 2, 3]);
        assert_eq!(object.summary.series_instance_uid, objects[0].summary.series_instance_uid);
        assert_eq!(file.integer(tags::INSTANCE_NUMBER), Some(index as i64 + 1));
        assert_eq!(tracking(&file), tracking(&first));
        assert_eq!(file.text(tags::SOP_INSTANCE_UID).unwrap(), object.summary.sop_instance_uid);
    }
    assert_eq!(together, labels.mapv(u16::from));
}

#[test]
fn uids_with_leading_zeros_are_referred_to_as_they_are() {
    let mut instances = single_frames(17, 13, AXIAL, &along(2, 10.0, 2.5, 3));
    let mut dataset = (*instances[1].dataset).clone();
    put(&mut dataset, tags::SOP_INSTANCE_UID, VR::UI, &["2.25.0100"]);
    instances[1].dataset = Arc::new(dataset);
    instances[1].sop_instance_uid = "2.25.0100".to_owned();
    let (labels, slices) = (blocks(17, 13, 3), slices(&instances));
    let seg = write_seg(&labels, &slices, &segments(), &SegOptions::default());
    assert!(seg.summary.warnings.iter().any(|w| w.contains("leading zeros")));
    assert_eq!(read_labels(&read(&seg), &slices, &[1, 2, 3]), labels.mapv(u16::from));
}

#[test]
fn loss_is_known_from_the_transfer_syntax_where_no_attribute_says_it() {
    let lossy = |transfer_syntax: &str, said: Option<&str>| {
        let mut instances = single_frames(17, 13, AXIAL, &along(2, 10.0, 2.5, 3));
        for instance in &mut instances {
            instance.transfer_syntax = transfer_syntax.to_owned();
            if let Some(said) = said {
                let mut dataset = (*instance.dataset).clone();
                put(&mut dataset, tags::LOSSY_IMAGE_COMPRESSION, VR::CS, &[said]);
                instance.dataset = Arc::new(dataset);
            }
        }
        let labels = blocks(17, 13, 3);
        let seg = write_seg(&labels, &slices(&instances), &segments(), &SegOptions::default());
        read(&seg).text(tags::LOSSY_IMAGE_COMPRESSION).unwrap()
    };
    assert_eq!(lossy(uids::JPEG_BASELINE8_BIT, None), "01");
    assert_eq!(lossy(uids::JPEG2000, None), "01");
    assert_eq!(lossy(uids::JPEG2000, Some("00")), "00");
    assert_eq!(lossy(uids::HTJ2K_LOSSLESS_RPCL, None), "00");
    assert_eq!(lossy(uids::HTJ2K_LOSSLESS_RPCL, Some("01")), "01");
}
