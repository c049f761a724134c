//! How voxels map to pixels, frames and objects.

use ahi_inference::dicom::{Attributes, Dataset};
use ahi_inference::writers::Voxels;
use ahi_inference::writers::seg::SegOptions;
use dicom_dictionary_std::tags;
use ndarray::{Array3, ShapeBuilder};
use proptest::prelude::*;

use super::round_trip::{read, read_labels, round_trip, try_write, write_seg};
use super::sources::{AXIAL, along, blocks, segment, segments, single_frames, slices};

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
fn label_values_need_not_be_segment_numbers() {
    let instances = single_frames(5, 3, AXIAL, &along(2, 10.0, 2.5, 2));
    let labels = Array3::from_shape_fn((5, 3, 2), |(x, y, _)| [0, 300, 7][(x + y) % 3]);
    let segments = [segment(300, "Rib", "113197003"), segment(7, "Liver", "10200004")];
    let slices = slices(&instances);
    let seg = write_seg::<u16>(&labels, &slices, &segments, &SegOptions::default());
    assert_eq!(read_labels(&read(&seg), &slices, &[300, 7]), labels);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Packing and unpacking restores every label, for every frame size, memory layout and set of classes.
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
    let voxels = Voxels::Labels(labels.view());
    let objects = try_write(voxels, &slices, &segments, &options).unwrap();
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
