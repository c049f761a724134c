//! Input that the SEG writer refuses.

use std::sync::Arc;

use ahi_inference::dicom::Instance;
use ahi_inference::dicom::encoding::FrameEncoding;
use ahi_inference::error::ErrorKind;
use ahi_inference::writers::Voxels;
use ahi_inference::writers::seg::{SegOptions, SegmentationType, SourceSlice};
use dicom_core::VR;
use dicom_dictionary_std::tags;
use ndarray::{Array3, Array4};

use super::round_trip::try_write;
use super::sources::{AXIAL, along, blocks, put, segments, single_frames, slices};

#[test]
fn what_does_not_belong_together_is_refused() {
    let (segments, options) = (segments(), SegOptions::default());
    let refused = |slices: &[SourceSlice], labels: &Array3<u8>| {
        try_write(Voxels::Labels(labels.view()), slices, &segments, &options).unwrap_err()
    };
    let refusal = |instances: &[Instance], labels: &Array3<u8>| refused(&slices(instances), labels);
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
    let mut wrong_frame = slices(&good);
    wrong_frame[1].frame = 1;
    assert_eq!(refused(&wrong_frame, &blocks(17, 13, 3)).kind(), ErrorKind::Internal);

    let e = refusal(&good, &Array3::from_elem((17, 13, 3), 9));
    assert_eq!((e.kind(), &e.details()["labelValue"]), (ErrorKind::InvalidModel, &9.into()));
}

#[test]
fn segments_that_overlap_are_no_label_map() {
    let instances = single_frames(5, 3, AXIAL, &along(2, 10.0, 2.5, 2));
    let (slices, segments) = (slices(&instances), segments());
    let written = |voxels: Voxels<u16>, segmentation_type| {
        let options = SegOptions { segmentation_type, ..SegOptions::default() };
        try_write(voxels, &slices, &segments[..2], &options)
    };
    let label_map = SegmentationType::LabelMap(FrameEncoding::Rle);
    let mut masks = Array4::<u8>::zeros((2, 5, 3, 2));
    masks[[0, 1, 1, 1]] = 1;
    masks[[1, 2, 1, 1]] = 1;
    assert!(written(Voxels::Masks(masks.view()), label_map).is_ok(), "beside each other");
    masks[[1, 1, 1, 1]] = 1;
    let members = vec![vec![0], vec![1], vec![2], vec![1, 2]];
    let apart = Array3::from_shape_fn((5, 3, 2), |(x, y, _)| ((x + y) % 3) as u16);
    let mut codes = apart.clone();
    let sets = |codes| Voxels::Sets { codes, members: &members };
    assert!(written(sets(apart.view()), label_map).is_ok(), "no voxel has the set of both");
    codes[[4, 2, 1]] = 3;
    for voxels in [Voxels::Masks(masks.view()), sets(codes.view())] {
        let e = written(voxels.clone(), label_map).unwrap_err();
        assert_eq!(
            (e.kind(), &e.details()["field"]),
            (ErrorKind::InvalidRequest, &"outputs".into())
        );
        assert!(e.message().contains("ask for dicom-seg"), "{e}");
        assert!(written(voxels, SegmentationType::Binary).is_ok());
    }
}
