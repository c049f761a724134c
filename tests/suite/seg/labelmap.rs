//! DICOM SEG of type LABELMAP in every encoding.

use std::path::Path;

use ahi_inference::codec::{self, FrameFormat, Samples};
use ahi_inference::dicom::encoding::FrameEncoding;
use ahi_inference::dicom::p10::{P10Instance, read_bytes};
use ahi_inference::dicom::segment::SegmentDescription;
use ahi_inference::dicom::{Attributes, Dataset};
use ahi_inference::writers::seg::{Seg, SegOptions, SegmentationType, SourceSlice};
use ahi_inference::writers::{Label, Voxels};
use dicom_dictionary_std::{tags, uids};
use ndarray::Array3;

use super::round_trip::{
    fixture_folder, leave_sources, read, source_position, try_write, write_seg,
};
use super::sources::{AXIAL, along, blocks, child, segment, segments, single_frames, slices};

const ENCODINGS: [(&str, FrameEncoding); 3] = [
    ("native", FrameEncoding::Native),
    ("rle", FrameEncoding::Rle),
    ("htj2k", FrameEncoding::Htj2k),
];

fn options(encoding: FrameEncoding, others: &SegOptions) -> SegOptions {
    let segmentation_type = SegmentationType::LabelMap(encoding);
    SegOptions { segmentation_type, ..others.clone() }
}

fn items(dataset: &Dataset, tag: dicom_core::Tag) -> &[Dataset] {
    dataset.element(tag).unwrap().value().items().unwrap()
}

/// Returns the Segment Numbers in a file. Planes are found through the source frames they refer to, and each is
/// checked to lie where its source slice lies.
fn read_numbers(file: &P10Instance, slices: &[SourceSlice]) -> Array3<u16> {
    let dataset = &file.dataset;
    let format = FrameFormat::from_dataset(dataset).unwrap();
    let (columns, rows) = (format.columns as usize, format.rows as usize);
    let mut numbers = Array3::zeros((columns, rows, slices.len()));
    let frames = items(dataset, tags::PER_FRAME_FUNCTIONAL_GROUPS_SEQUENCE);
    assert_eq!(frames.len(), file.frames.len());
    assert_eq!(dataset.integer(tags::NUMBER_OF_FRAMES), Some(frames.len() as i64));
    let mut last = None;
    for (index, (frame, encoded)) in frames.iter().zip(&file.frames).enumerate() {
        let source =
            child(child(frame, tags::DERIVATION_IMAGE_SEQUENCE), tags::SOURCE_IMAGE_SEQUENCE);
        let uid = source.text(tags::REFERENCED_SOP_INSTANCE_UID).unwrap();
        let number = source.integer(tags::REFERENCED_FRAME_NUMBER).unwrap_or(1) as usize - 1;
        let same =
            |slice: &SourceSlice| slice.instance.sop_instance_uid == uid && slice.frame == number;
        let z = slices.iter().position(same).unwrap();
        assert!(last < Some(z), "in the order of the slices, each once");
        last = Some(z);
        let position = child(frame, tags::PLANE_POSITION_SEQUENCE);
        assert_eq!(position.texts(tags::IMAGE_POSITION_PATIENT), source_position(&slices[z]));
        assert!(frame.get(tags::SEGMENT_IDENTIFICATION_SEQUENCE).is_none());
        let content = child(frame, tags::FRAME_CONTENT_SEQUENCE);
        let indices = content.element(tags::DIMENSION_INDEX_VALUES).unwrap();
        assert_eq!(indices.to_multi_int::<i64>().unwrap(), [index as i64 + 1]);

        let decoded = codec::decode(&file.transfer_syntax, encoded, &format).unwrap();
        let Samples::U16(pixels) = decoded else { panic!("{decoded:?}") };
        for (i, pixel) in pixels.into_iter().enumerate() {
            numbers[(i % columns, i / columns, z)] = pixel;
        }
    }
    numbers
}

fn numbers_of<L: Label>(labels: &Array3<L>, segments: &[SegmentDescription]) -> Array3<u16> {
    labels.mapv(|label| {
        let value: u16 = label.into();
        segments.iter().zip(1..).find(|(segment, _)| segment.value == value).map_or(0, |(_, n)| n)
    })
}

/// Writes a label map in every encoding, reads each back, and saves them in `folder`.
pub(crate) fn every_encoding<L: Label>(
    folder: &Path,
    labels: &Array3<L>,
    slices: &[SourceSlice],
    segments: &[SegmentDescription],
    others: &SegOptions,
) {
    let expected = numbers_of(labels, segments);
    for (name, encoding) in ENCODINGS {
        let seg = write_seg(labels, slices, segments, &options(encoding, others));
        let file = read_bytes(&seg.bytes).unwrap();
        assert_eq!(file.transfer_syntax, encoding.transfer_syntax());
        assert_eq!(file.sop_class_uid, uids::LABEL_MAP_SEGMENTATION_STORAGE);
        assert_eq!(read_numbers(&file, slices), expected, "{name}");
        let with_voxels = (0..slices.len())
            .filter(|&z| labels.index_axis(ndarray::Axis(2), z).iter().any(|v| (*v).into() != 0))
            .count();
        let kept = if others.omit_empty_frames { with_voxels.max(1) } else { slices.len() };
        assert_eq!(seg.summary.frames, kept, "{name}");
        std::fs::write(folder.join(format!("labelmap-{name}.dcm")), &seg.bytes).unwrap();
    }
}

#[test]
fn a_label_map_describes_its_background_and_each_segment() {
    let instances = single_frames(17, 13, AXIAL, &along(2, 10.0, 2.5, 7));
    let (labels, slices, segments) = (blocks(17, 13, 7), slices(&instances), segments());
    let others = SegOptions::default();
    let written = |options: &SegOptions| write_seg(&labels, &slices, &segments, options);
    let seg = written(&options(FrameEncoding::Rle, &others));
    let dataset = read_bytes(&seg.bytes).unwrap().dataset;
    let text = |tag| dataset.text(tag).unwrap();
    assert_eq!(text(tags::SEGMENTATION_TYPE), "LABELMAP");
    assert_eq!(text(tags::SEGMENTS_OVERLAP), "NO");
    assert_eq!(text(tags::PHOTOMETRIC_INTERPRETATION), "MONOCHROME2");
    assert_eq!(text(tags::LOSSY_IMAGE_COMPRESSION), "00");
    for (tag, expected) in [
        (tags::BITS_ALLOCATED, 8),
        (tags::BITS_STORED, 8),
        (tags::HIGH_BIT, 7),
        (tags::PIXEL_REPRESENTATION, 0),
        (tags::PIXEL_PADDING_VALUE, 0),
        (tags::SERIES_NUMBER, 1009),
    ] {
        assert_eq!(dataset.integer(tag), Some(expected), "{tag}");
    }
    let index = child(&dataset, tags::DIMENSION_INDEX_SEQUENCE);
    assert_eq!(
        index.element(tags::DIMENSION_INDEX_POINTER).unwrap().value().to_tag().unwrap(),
        tags::IMAGE_POSITION_PATIENT
    );
    let described = items(&dataset, tags::SEGMENT_SEQUENCE);
    let numbers: Vec<_> = described.iter().map(|item| item.integer(tags::SEGMENT_NUMBER)).collect();
    assert_eq!(numbers, [0, 1, 2, 3].map(Some));
    let meaning = |item, tag| child(item, tag).text(tags::CODE_MEANING).unwrap();
    let property = tags::SEGMENTED_PROPERTY_TYPE_CODE_SEQUENCE;
    assert_eq!(meaning(&described[0], property), "Background");
    assert!(described[0].get(tags::TRACKING_UID).is_none());

    // Both types describe segments, including their tracking, in the same way.
    let binary = written(&others);
    // Read by the same reader and compared as text: sequences of undefined length never compare equal.
    let (one, other) = (read(&seg), read(&binary));
    let texts = |file: &Dataset| -> Vec<String> {
        items(file, tags::SEGMENT_SEQUENCE).iter().map(|item| format!("{item:?}")).collect()
    };
    assert_eq!(texts(&other), texts(&one)[1..]);
    assert_eq!(binary.summary.voxels_per_segment, seg.summary.voxels_per_segment);
    assert_ne!(binary.summary.series_instance_uid, seg.summary.series_instance_uid);
    assert_ne!(binary.summary.sop_instance_uid, seg.summary.sop_instance_uid);
    let organization = |dataset: &Dataset| {
        let sequence = child(dataset, tags::DIMENSION_ORGANIZATION_SEQUENCE);
        sequence.text(tags::DIMENSION_ORGANIZATION_UID).unwrap()
    };
    assert_ne!(organization(&other), organization(&dataset));
    // The same pixels in another encoding give the same instance.
    let native = written(&options(FrameEncoding::Native, &others));
    assert_eq!(native.summary, seg.summary);
    assert!(seg.bytes.len() < native.bytes.len());
}

#[test]
fn more_than_255_segments_take_16_bits() {
    let instances = single_frames(40, 21, AXIAL, &along(2, 10.0, 2.5, 3));
    // Values that differ from the segment numbers and are not sorted.
    let values: Vec<u16> = (0..300).map(|i| 1 + i * 211 % 65_521).collect();
    let named = |&value: &u16| segment(value, &format!("Part {value}"), "91723000");
    let segments: Vec<SegmentDescription> = values.iter().map(named).collect();
    let labels = Array3::from_shape_fn((40, 21, 3), |(x, y, z)| match x / 2 + 20 * (y / 2) + z {
        number @ 1..=210 => values[(number * 7) % 300],
        _ => 0,
    });
    let (folder, slices) = (fixture_folder("many"), slices(&instances));
    every_encoding(&folder, &labels, &slices, &segments, &SegOptions::default());
    leave_sources(&folder, &numbers_of(&labels, &segments), &slices);
    let seg = write_seg(&labels, &slices, &segments, &SegOptions::default());
    std::fs::write(folder.join("seg.dcm"), &seg.bytes).unwrap();
    let file = read_bytes(&std::fs::read(folder.join("labelmap-rle.dcm")).unwrap()).unwrap();
    assert_eq!(file.dataset.integer(tags::BITS_ALLOCATED), Some(16));
    assert_eq!(file.dataset.integer(tags::HIGH_BIT), Some(15));
}

#[test]
fn label_maps_beyond_one_element_go_into_further_objects() {
    let instances = single_frames(17, 13, AXIAL, &along(2, 10.0, 2.5, 6));
    let (labels, slices, segments) = (blocks(17, 13, 6), slices(&instances), segments());
    for (name, encoding) in ENCODINGS {
        let written = |largest_pixel_data| -> Vec<Seg> {
            let others = SegOptions { largest_pixel_data, ..SegOptions::default() };
            let options = options(encoding, &others);
            try_write(Voxels::Labels(labels.view()), &slices, &segments, &options).unwrap()
        };
        // Each object holds one frame however little room there is, and several only if they are known to fit.
        let objects = written(2);
        assert_eq!(objects.len(), 5, "{name}");
        assert_eq!(written(1 << 18).len(), if encoding == FrameEncoding::Htj2k { 2 } else { 1 });
        let mut together = Array3::<u16>::zeros((17, 13, 6));
        for object in &objects {
            together += &read_numbers(&read_bytes(&object.bytes).unwrap(), &slices);
        }
        assert_eq!(together, numbers_of(&labels, &segments), "{name}");
    }
}
