//! Attributes that a segmentation copies from its source.

use std::io::Read;
use std::sync::Arc;

use ahi_inference::dicom::{Attributes, Instance};
use ahi_inference::writers::seg::SegOptions;
use dicom_core::VR;
use dicom_dictionary_std::{tags, uids};
use dicom_object::OpenFileOptions;
use ndarray::{Array3, ShapeBuilder};

use super::round_trip::{read, read_labels, round_trip, write_seg};
use super::sources::{AXIAL, along, blocks, instance, put, segments, single_frames, slices};
use crate::common::shared;

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
    // The name is in Latin-1, as in the source.
    let name = b"M\xfcller^Zo\xeb";
    assert!(seg.bytes.windows(name.len()).any(|bytes| bytes == name));
    // Absent from the source, but must be present in the segmentation (type 2).
    assert!(file.element(tags::REFERRING_PHYSICIAN_NAME).unwrap().value().primitive().is_some());
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
