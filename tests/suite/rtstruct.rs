//! Writes RT Structure Sets from synthetic sources and reads them back with `dicom-object`. The contours of each
//! ROI, rasterised onto the slices they refer to, must give the segment's mask. Every case is also saved to a
//! folder (`RTSTRUCT_FIXTURES`, or `rtstruct-fixtures` in the target folder) for
//! `tests/python/test_rtstruct.py`, which reads it with pydicom, plastimatch and dciodvfy.

use std::collections::HashMap;
use std::path::PathBuf;

use ahi_inference::dicom::segment::{Algorithm, Code, SegmentDescription};
use ahi_inference::dicom::{Attributes, Dataset};
use ahi_inference::error::{Error, ErrorKind};
use ahi_inference::writers::dicom::{Identity, SourceSlice};
use ahi_inference::writers::rtstruct::{
    RtStruct, RtStructOptions, RtStructRequest, check_slices, write,
};
use ahi_inference::writers::{Label, Voxels};
use dicom_core::VR;
use dicom_dictionary_std::{tags, uids};
use dicom_object::{DefaultDicomObject, OpenFileOptions};
use ndarray::{Array3, Array4, ArrayView3, Axis, s};

use crate::seg::sources::{
    AXIAL, along, child, frames_of, multi_frame, put, segment, single_frames, slices,
};

const COLUMNS: usize = 40;
const ROWS: usize = 31;

fn segments() -> Vec<SegmentDescription> {
    let mut kidney = segment(2, "Kidney", "64033007");
    kidney.type_modifier = Some(Code::sct("7771000", "Left"));
    kidney.color = Some([200, 100, 50]);
    let mut lesion = segment(3, "Neoplasm", "108369006");
    lesion.category = Code::sct("49755003", "Morphologically Abnormal Structure");
    lesion.anatomic_region = Some(Code::sct("10200004", "Liver"));
    vec![segment(1, "Spleen", "78961009"), kidney, lesion, segment(4, "Colon", "71854001")]
}

/// Returns label maps that are difficult to contour: a ring around a ring around an island, in slices other than
/// the first; pixels along the image border that touch at their corners; noise. Class 4 has no voxels.
fn shapes(depth: usize) -> Array3<u8> {
    Array3::from_shape_fn((COLUMNS, ROWS, depth), |(x, y, z)| {
        let radius = (x as f64 - 18.0).hypot(y as f64 - 14.0);
        let noise = (x * 7919 + y * 104_729 + z * 31 + x * y * 13) % 11;
        match () {
            () if z == 0 => 0,
            () if x > 33 => 3 * u8::from(noise < 5),
            () if y > 28 || x == 0 => 2 * u8::from((x + y + z) % 2 == 0),
            () if radius < 2.0 + z as f64 / 3.0 => 1,
            () if (5.0..7.5).contains(&radius) => 2,
            () if (9.0..13.0).contains(&radius) => 1,
            () => 0,
        }
    })
}

fn mask_of(labels: ArrayView3<u8>, value: u8) -> Array3<u8> {
    labels.mapv(|label| u8::from(label == value))
}

fn try_write<L: Label>(
    voxels: Voxels<L>,
    slices: &[SourceSlice],
    segments: &[SegmentDescription],
) -> Result<RtStruct, Error> {
    write(&RtStructRequest {
        voxels: &voxels,
        slices,
        segments,
        algorithm: &Algorithm::new("spleen_ct_segmentation", "0.5.3"),
        identity: &Identity::derived(["test"]),
        options: &RtStructOptions { voxel_volume: Some(1.5), ..RtStructOptions::default() },
    })
}

fn read(structure_set: &RtStruct) -> DefaultDicomObject {
    OpenFileOptions::new().from_reader(structure_set.bytes.as_slice()).unwrap()
}

fn items(dataset: &Dataset, tag: dicom_core::Tag) -> &[Dataset] {
    dataset.element(tag).unwrap().value().items().unwrap()
}

fn numbers(dataset: &Dataset, tag: dicom_core::Tag) -> Vec<f64> {
    dataset.texts(tag).iter().map(|text| text.trim().parse().unwrap()).collect()
}

/// Returns the position, orientation and spacing of a slice, from wherever the source stores them.
fn geometry(slice: &SourceSlice) -> (Vec<f64>, Vec<f64>, Vec<f64>) {
    let dataset = &slice.instance.dataset;
    let find = |group, tag| {
        let frames = dataset.get(tags::PER_FRAME_FUNCTIONAL_GROUPS_SEQUENCE);
        let frame = frames.map(|frames| &frames.value().items().unwrap()[slice.frame]);
        let shared = || child(dataset, tags::SHARED_FUNCTIONAL_GROUPS_SEQUENCE);
        let holder = match frame {
            None => dataset,
            Some(frame) if frame.get(group).is_some() => child(frame, group),
            Some(_) => child(shared(), group),
        };
        numbers(holder, tag)
    };
    (
        find(tags::PLANE_POSITION_SEQUENCE, tags::IMAGE_POSITION_PATIENT),
        find(tags::PLANE_ORIENTATION_SEQUENCE, tags::IMAGE_ORIENTATION_PATIENT),
        find(tags::PIXEL_MEASURES_SEQUENCE, tags::PIXEL_SPACING),
    )
}

/// Converts patient coordinates to columns and rows of a slice. Panics if a point lies off the slice's plane.
fn in_pixels(slice: &SourceSlice, points: &[f64]) -> Vec<[f64; 2]> {
    let (position, orientation, spacing) = geometry(slice);
    let (row, column) = orientation.split_at(3);
    let normal: Vec<f64> = (0..3)
        .map(|i| {
            let (j, k) = ((i + 1) % 3, (i + 2) % 3);
            row[j] * column[k] - row[k] * column[j]
        })
        .collect();
    let point = |point: &[f64]| {
        let along = |axis: &[f64]| (0..3).map(|i| (point[i] - position[i]) * axis[i]).sum::<f64>();
        assert!(along(&normal).abs() < 1e-3, "a point beside its plane");
        [along(row) / spacing[1], along(column) / spacing[0]]
    };
    points.chunks_exact(3).map(point).collect()
}

/// Sets the pixels whose centres are inside a contour by the even-odd rule.
fn fill(contour: &[[f64; 2]], mask: &mut Array3<u8>, z: usize) {
    let (columns, rows, _) = mask.dim();
    for y in 0..rows {
        let centre = y as f64;
        let edges = contour.iter().zip(contour.iter().cycle().skip(1));
        let crossing = edges.filter(|(a, b)| (a[1] > centre) != (b[1] > centre));
        let mut at: Vec<f64> = crossing
            .map(|(a, b)| {
                // Ordered, so that both directions of an edge give the same result.
                let (a, b) = if a[1] < b[1] { (a, b) } else { (b, a) };
                a[0] + (centre - a[1]) / (b[1] - a[1]) * (b[0] - a[0])
            })
            .collect();
        at.sort_by(f64::total_cmp);
        for pair in at.chunks_exact(2) {
            for x in (0..columns).filter(|&x| (pair[0]..pair[1]).contains(&(x as f64))) {
                mask[(x, y, z)] = 1;
            }
        }
    }
}

/// Returns the mask of each ROI with its number of contours.
fn read_masks(
    file: &Dataset,
    slices: &[SourceSlice],
    dims: (usize, usize, usize),
) -> Vec<(Array3<u8>, usize)> {
    let index: HashMap<(String, i64), usize> = slices
        .iter()
        .enumerate()
        .map(|(z, s)| ((s.instance.sop_instance_uid.clone(), s.frame as i64 + 1), z))
        .collect();
    let read = |roi: &Dataset| {
        let mut mask = Array3::zeros(dims);
        let Some(contours) = roi.get(tags::CONTOUR_SEQUENCE) else { return (mask, 0) };
        let contours = contours.value().items().unwrap();
        for contour in contours {
            assert_eq!(contour.text(tags::CONTOUR_GEOMETRIC_TYPE).unwrap(), "CLOSED_PLANAR");
            let image = child(contour, tags::CONTOUR_IMAGE_SEQUENCE);
            let uid = image.text(tags::REFERENCED_SOP_INSTANCE_UID).unwrap();
            let frame = image.integer(tags::REFERENCED_FRAME_NUMBER).unwrap_or(1);
            let z = index[&(uid, frame)];
            let texts = contour.texts(tags::CONTOUR_DATA);
            assert!(texts.iter().all(|text| text.trim().len() <= 16));
            let points = numbers(contour, tags::CONTOUR_DATA);
            let count = contour.integer(tags::NUMBER_OF_CONTOUR_POINTS).unwrap();
            assert_eq!(points.len() as i64, 3 * count);
            fill(&in_pixels(&slices[z], &points), &mut mask, z);
        }
        (mask, contours.len())
    };
    items(file, tags::ROI_CONTOUR_SEQUENCE).iter().map(read).collect()
}

fn fixture_folder(name: &str) -> PathBuf {
    let folder = std::env::var_os("RTSTRUCT_FIXTURES").map_or_else(
        || PathBuf::from(env!("CARGO_TARGET_TMPDIR")).with_file_name("rtstruct-fixtures"),
        PathBuf::from,
    );
    let folder = folder.join(name);
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

/// Writes masks, reads them back, and saves everything for the Python tests.
fn round_trip<L: Label>(
    name: &str,
    voxels: Voxels<L>,
    expected: &[Array3<u8>],
    slices: &[SourceSlice],
) -> (RtStruct, DefaultDicomObject) {
    let segments = &segments()[..expected.len()];
    let written = try_write(voxels, slices, segments).unwrap();
    let file = read(&written);
    let found = read_masks(&file, slices, expected[0].dim());
    assert_eq!(found.len(), expected.len());
    for (index, ((mask, contours), expected)) in found.iter().zip(expected).enumerate() {
        assert!(mask == expected, "{name}: {}", segments[index].label);
        assert_eq!(written.summary.contours_per_segment[index], *contours);
        let voxels = expected.iter().map(|&v| u64::from(v)).sum::<u64>();
        assert_eq!(written.summary.voxels_per_segment[index], voxels);
    }

    let folder = fixture_folder(name);
    std::fs::write(folder.join("rtstruct.dcm"), &written.bytes).unwrap();
    let views: Vec<_> = expected.iter().map(|mask| mask.view()).collect();
    let masks = ndarray::stack(Axis(0), &views).unwrap();
    ndarray_npy::write_npy(folder.join("masks.npy"), &masks).unwrap();
    let sources: Vec<serde_json::Value> = slices
        .iter()
        .map(|slice| {
            let (position, orientation, spacing) = geometry(slice);
            serde_json::json!({
                "sopInstanceUID": slice.instance.sop_instance_uid,
                "frame": slice.frame,
                "position": position,
                "orientation": orientation,
                "spacing": spacing,
            })
        })
        .collect();
    std::fs::write(folder.join("sources.json"), serde_json::to_vec(&sources).unwrap()).unwrap();
    (written, file)
}

fn round_trip_labels(
    name: &str,
    labels: &Array3<u8>,
    slices: &[SourceSlice],
) -> (RtStruct, DefaultDicomObject) {
    let expected: Vec<Array3<u8>> = (1..=4).map(|value| mask_of(labels.view(), value)).collect();
    round_trip(name, Voxels::Labels(labels.view()), &expected, slices)
}

#[test]
fn axial_slices() {
    let instances = single_frames(COLUMNS as u16, ROWS as u16, AXIAL, &along(2, 10.0, 2.5, 6));
    let labels = shapes(6);
    let (written, file) = round_trip_labels("axial", &labels, &slices(&instances));
    assert_eq!(file.meta().transfer_syntax(), uids::IMPLICIT_VR_LITTLE_ENDIAN);
    assert_eq!(file.meta().media_storage_sop_class_uid(), uids::RT_STRUCTURE_SET_STORAGE);
    let text = |tag| file.text(tag).unwrap();
    assert_eq!(text(tags::MODALITY), "RTSTRUCT");
    assert_eq!(text(tags::SOP_INSTANCE_UID), written.summary.sop_instance_uid);
    assert_eq!(text(tags::SERIES_INSTANCE_UID), written.summary.series_instance_uid);
    assert_eq!(text(tags::STUDY_INSTANCE_UID), "2.25.1");
    assert_eq!(text(tags::FRAME_OF_REFERENCE_UID), "2.25.3");
    assert_eq!(text(tags::PATIENT_NAME), "Müller^Zoë");
    assert_eq!(text(tags::APPROVAL_STATUS), "UNAPPROVED");
    assert!(text(tags::STRUCTURE_SET_DATE).len() == 8);
    assert!(text(tags::STRUCTURE_SET_LABEL).len() <= 16);

    let frame_of_reference = child(&file, tags::REFERENCED_FRAME_OF_REFERENCE_SEQUENCE);
    assert_eq!(frame_of_reference.text(tags::FRAME_OF_REFERENCE_UID).unwrap(), "2.25.3");
    let study = child(frame_of_reference, tags::RT_REFERENCED_STUDY_SEQUENCE);
    assert_eq!(study.text(tags::REFERENCED_SOP_INSTANCE_UID).unwrap(), "2.25.1");
    let series = child(study, tags::RT_REFERENCED_SERIES_SEQUENCE);
    assert_eq!(series.text(tags::SERIES_INSTANCE_UID).unwrap(), "2.25.2");
    let images = items(series, tags::CONTOUR_IMAGE_SEQUENCE).iter();
    let images: Vec<String> =
        images.map(|image| image.text(tags::REFERENCED_SOP_INSTANCE_UID).unwrap()).collect();
    let all: Vec<&str> = instances.iter().map(|i| i.sop_instance_uid.as_str()).collect();
    assert_eq!(images, all);

    // In a plane that is not oblique, all points have the slice's own coordinate.
    let contour = &items(&items(&file, tags::ROI_CONTOUR_SEQUENCE)[0], tags::CONTOUR_SEQUENCE)[0];
    let data = contour.texts(tags::CONTOUR_DATA);
    assert!(data.iter().skip(2).step_by(3).all(|z| z == "12.500"), "{data:?}");
}

#[test]
fn rois_say_what_they_are() {
    let instances = single_frames(COLUMNS as u16, ROWS as u16, AXIAL, &along(2, 10.0, 2.5, 3));
    let labels = shapes(3);
    let written =
        try_write(Voxels::Labels(labels.view()), &slices(&instances), &segments()).unwrap();
    let file = read(&written);
    let rois = items(&file, tags::STRUCTURE_SET_ROI_SEQUENCE);
    let observations = items(&file, tags::RTROI_OBSERVATIONS_SEQUENCE);
    let contours = items(&file, tags::ROI_CONTOUR_SEQUENCE);
    assert_eq!([rois.len(), observations.len(), contours.len()], [4; 3]);
    for (index, segment) in segments().iter().enumerate() {
        let (roi, observation, contours) = (&rois[index], &observations[index], &contours[index]);
        let number = index as i64 + 1;
        assert_eq!(roi.integer(tags::ROI_NUMBER), Some(number));
        assert_eq!(observation.integer(tags::REFERENCED_ROI_NUMBER), Some(number));
        assert_eq!(contours.integer(tags::REFERENCED_ROI_NUMBER), Some(number));
        assert_eq!(roi.text(tags::ROI_NAME).unwrap(), segment.label);
        assert_eq!(roi.text(tags::ROI_GENERATION_ALGORITHM).unwrap(), "AUTOMATIC");
        assert_eq!(roi.text(tags::REFERENCED_FRAME_OF_REFERENCE_UID).unwrap(), "2.25.3");
        let voxels = labels.iter().filter(|&&label| u16::from(label) == segment.value).count();
        let volume = numbers(roi, tags::ROI_VOLUME)[0];
        assert!((volume - voxels as f64 * 1.5 / 1000.0).abs() < 1e-9, "cubic centimetres");
        let code = child(observation, tags::RTROI_IDENTIFICATION_CODE_SEQUENCE);
        assert_eq!(code.text(tags::CODE_VALUE).unwrap(), segment.property_type.value);
        assert_eq!(contours.get(tags::CONTOUR_SEQUENCE).is_some(), voxels > 0);
    }
    assert_eq!(numbers(&contours[1], tags::ROI_DISPLAY_COLOR), [200.0, 100.0, 50.0]);
    let types: Vec<_> =
        observations.iter().map(|item| item.text(tags::RTROI_INTERPRETED_TYPE)).collect();
    // A network's output does not make a lesion a treatment target.
    assert_eq!(types, [Some("ORGAN".into()), Some("ORGAN".into()), None, Some("ORGAN".into())]);
    let [warning] = &written.summary.warnings[..] else { panic!("{:?}", written.summary.warnings) };
    assert!(warning.contains("1 of 4") && warning.contains("Colon"), "{warning}");
}

#[test]
fn sagittal_coronal_and_oblique_slices() {
    let shape = (COLUMNS as u16, ROWS as u16);
    let sagittal =
        single_frames(shape.0, shape.1, ["0", "1", "0", "0", "0", "-1"], &along(0, -30.0, 4.0, 5));
    round_trip_labels("sagittal", &shapes(5), &slices(&sagittal));
    let coronal =
        single_frames(shape.0, shape.1, ["1", "0", "0", "0", "0", "-1"], &along(1, 9.0, 3.0, 5));
    round_trip_labels("coronal", &shapes(5), &slices(&coronal));
    let orientation = [
        "0.98480775301221",
        "0.15038373318043",
        "-0.0868240888335",
        "-0.1736481776669",
        "0.85286853195244",
        "-0.4924038765061",
    ];
    // Positions along the normal.
    let positions: Vec<[String; 3]> = (0..5)
        .map(|i| {
            let t = f64::from(i) * 3.1;
            [
                "-120.1234567".to_owned(),
                format!("{:.7}", -80.5 + 0.5 * t),
                format!("{:.7}", 33.3 + 0.866_025_403_784 * t),
            ]
        })
        .collect();
    let oblique = single_frames(shape.0, shape.1, orientation, &positions);
    round_trip_labels("oblique", &shapes(5), &slices(&oblique));
}

#[test]
fn tilted_slices_have_their_own_planes() {
    // A tilted gantry: slices are axial, each shifted further back.
    let positions: Vec<[String; 3]> = (0..5)
        .map(|i| {
            [
                "-100.5".to_owned(),
                format!("{:.4}", -90.25 + 0.7 * f64::from(i)),
                format!("{}", 3 * i),
            ]
        })
        .collect();
    let instances = single_frames(COLUMNS as u16, ROWS as u16, AXIAL, &positions);
    round_trip_labels("tilted", &shapes(5), &slices(&instances));
}

#[test]
fn frames_of_an_enhanced_instance() {
    let source = multi_frame(COLUMNS as u16, ROWS as u16, AXIAL, &along(2, 10.0, 2.5, 5));
    let (_, file) = round_trip_labels("multi_frame", &shapes(5), &frames_of(&source));
    let images = |file: &Dataset| {
        let item = child(file, tags::REFERENCED_FRAME_OF_REFERENCE_SEQUENCE);
        let study = child(item, tags::RT_REFERENCED_STUDY_SEQUENCE);
        let series = child(study, tags::RT_REFERENCED_SERIES_SEQUENCE);
        child(series, tags::CONTOUR_IMAGE_SEQUENCE).texts(tags::REFERENCED_FRAME_NUMBER)
    };
    assert!(images(&file).is_empty(), "all frames are slices");
    let some = &frames_of(&source)[1..4];
    let labels = shapes(3);
    let written = try_write(Voxels::Labels(labels.view()), some, &segments()).unwrap();
    assert_eq!(images(&read(&written)), ["2", "3", "4"]);
    let found = read_masks(&read(&written), some, labels.dim());
    assert!(found[0].0 == mask_of(labels.view(), 1));
}

#[test]
fn regions_overlap_in_masks_and_sets() {
    let instances = single_frames(COLUMNS as u16, ROWS as u16, AXIAL, &along(2, 10.0, 2.5, 4));
    let labels = shapes(4);
    let mut masks = Array4::<u8>::zeros((3, COLUMNS, ROWS, 4));
    for value in 1..=3_u8 {
        masks
            .index_axis_mut(Axis(0), usize::from(value) - 1)
            .assign(&mask_of(labels.view(), value));
    }
    masks.slice_mut(s![2, 10..30, 5..25, 2]).fill(1);
    let expected: Vec<Array3<u8>> = masks.axis_iter(Axis(0)).map(|mask| mask.to_owned()).collect();
    let (one, _) =
        round_trip("overlap", Voxels::<u8>::Masks(masks.view()), &expected, &slices(&instances));

    let members: Vec<Vec<u16>> =
        (0..8).map(|bits| (1..=3).filter(|value| bits >> (value - 1) & 1 == 1).collect()).collect();
    let codes = Array3::from_shape_fn((COLUMNS, ROWS, 4), |(x, y, z)| {
        (0..3).map(|i| u16::from(masks[[i, x, y, z]]) << i).sum::<u16>()
    });
    let sets = Voxels::Sets { codes: codes.view(), members: &members };
    let other = try_write(sets, &slices(&instances), &segments()[..3]).unwrap();
    let contours = |written: &RtStruct| {
        let file = read(written);
        items(&file, tags::ROI_CONTOUR_SEQUENCE).to_vec()
    };
    assert!(contours(&one) == contours(&other));
    assert_eq!(one.summary, other.summary, "the same UIDs too");
}

#[test]
fn contours_longer_than_explicit_vrs_allow() {
    // A sieve whose holes are all joined into one contour.
    let (columns, rows) = (120, 100);
    let instances = single_frames(columns as u16, rows as u16, AXIAL, &along(2, 10.0, 2.5, 2));
    let labels = Array3::from_shape_fn((columns, rows, 2), |(x, y, z)| {
        u8::from(z == 1 && (x % 4 != 1 || y % 4 != 1))
    });
    let expected = [labels.clone()];
    let (written, file) =
        round_trip("sieve", Voxels::Labels(labels.view()), &expected, &slices(&instances));
    let roi = &items(&file, tags::ROI_CONTOUR_SEQUENCE)[0];
    let longest = items(roi, tags::CONTOUR_SEQUENCE)
        .iter()
        .map(|contour| contour.element(tags::CONTOUR_DATA).unwrap().to_bytes().unwrap().len())
        .max();
    assert!(longest > Some(65_534), "{longest:?} of {}", written.bytes.len());
}

#[test]
fn nothing_found_is_rois_without_contours() {
    let instances = single_frames(COLUMNS as u16, ROWS as u16, AXIAL, &along(2, 10.0, 2.5, 2));
    let labels = Array3::zeros((COLUMNS, ROWS, 2));
    let (written, _) = round_trip_labels("empty", &labels, &slices(&instances));
    assert!(written.summary.warnings[0].contains("4 of 4"), "{:?}", written.summary.warnings);
}

#[test]
fn what_cannot_be_written_is_refused() {
    let labels = shapes(3);
    let kind = |positions: &[[String; 3]], segments: &[SegmentDescription]| {
        let instances = single_frames(COLUMNS as u16, ROWS as u16, AXIAL, positions);
        let early = check_slices(&slices(&instances), COLUMNS, ROWS).err();
        let late =
            try_write(Voxels::Labels(labels.view()), &slices(&instances), segments).unwrap_err();
        (early.map(|e| e.kind()), late.kind())
    };
    let good = along(2, 10.0, 2.5, 3);
    // A label that no segment describes.
    assert_eq!(kind(&good, &segments()[..2]), (None, ErrorKind::InvalidModel));
    assert_eq!(kind(&good, &[]), (None, ErrorKind::InvalidModel));
    // Fewer slices than the voxels have planes.
    assert_eq!(kind(&good[..2], &segments()), (None, ErrorKind::Internal));
    let mut far = good.clone();
    far[1][2] = "1e12".to_owned();
    assert_eq!(kind(&far, &segments()), (Some(ErrorKind::InvalidImage), ErrorKind::InvalidImage));

    let mut instances = single_frames(COLUMNS as u16, ROWS as u16, AXIAL, &good);
    let mut dataset = (*instances[2].dataset).clone();
    put(&mut dataset, tags::PIXEL_SPACING, VR::DS, &["0.00001", "0.9"]);
    instances[2].dataset = std::sync::Arc::new(dataset);
    let error = check_slices(&slices(&instances), COLUMNS, ROWS).unwrap_err();
    assert_eq!(error.details()["sopInstanceUID"], "2.25.1002");
    assert_eq!(error.details()["attribute"], "PixelSpacing");
}

#[test]
fn noise_is_refused_before_it_fills_the_memory() {
    // A checkerboard volume has a contour for every second voxel.
    let side = 600;
    let instances = single_frames(side as u16, side as u16, AXIAL, &along(2, 10.0, 2.5, 2));
    let labels = Array3::from_shape_fn((side, side, 2), |(x, y, z)| ((x + y + z) % 2) as u8);
    let error =
        try_write(Voxels::Labels(labels.view()), &slices(&instances), &segments()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidImage);
    assert!(error.message().contains("32 MiB"), "{error}");
}
