//! Writes segmentations, reads them back, and saves them for the Python tests.

use std::path::{Path, PathBuf};

use ahi_inference::dicom::segment::{Algorithm, SegmentDescription};
use ahi_inference::dicom::{Attributes, Dataset};
use ahi_inference::error::Error;
use ahi_inference::writers::seg::{Identity, Seg, SegOptions, SegRequest, SourceSlice, write};
use ahi_inference::writers::{Label, Voxels};
use dicom_dictionary_std::tags;
use dicom_object::{DefaultDicomObject, OpenFileOptions};
use ndarray::Array3;
use ndarray_npy::WritableElement;

use super::labelmap::every_encoding;
use super::sources::{child, segments};

/// Algorithm parameters, as a model states them for its network.
const PARAMETERS: &str =
    "network SHA-256=ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

/// Writes a segmentation and returns its objects, or the writer's error.
pub(crate) fn try_write<L: Label>(
    voxels: Voxels<L>,
    slices: &[SourceSlice],
    segments: &[SegmentDescription],
    options: &SegOptions,
) -> Result<Vec<Seg>, Error> {
    let mut algorithm = Algorithm::new("spleen_ct_segmentation", "0.5.3");
    algorithm.parameters = Some(PARAMETERS.to_owned());
    // Reborrows the voxels, so that their lifetime matches that of the other references.
    let voxels = match &voxels {
        Voxels::Labels(labels) => Voxels::Labels(labels.view()),
        Voxels::Masks(masks) => Voxels::Masks(masks.view()),
        Voxels::Sets { codes, members } => Voxels::Sets { codes: codes.view(), members },
    };
    write(&SegRequest {
        voxels,
        slices,
        segments,
        algorithm: &algorithm,
        identity: &Identity::derived(["test"]),
        options,
    })
}

/// Writes a label map that takes a single object.
pub(crate) fn write_seg<L: Label>(
    labels: &Array3<L>,
    slices: &[SourceSlice],
    segments: &[SegmentDescription],
    options: &SegOptions,
) -> Seg {
    let mut objects = try_write(Voxels::Labels(labels.view()), slices, segments, options).unwrap();
    assert_eq!(objects.len(), 1);
    objects.remove(0)
}

pub(crate) fn read(seg: &Seg) -> DefaultDicomObject {
    OpenFileOptions::new().from_reader(seg.bytes.as_slice()).unwrap()
}

/// Returns the label map in a segmentation. Planes are found through the source frames they refer to, and each
/// is checked to lie where its source slice lies.
pub(crate) fn read_labels(file: &Dataset, slices: &[SourceSlice], values: &[u16]) -> Array3<u16> {
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

pub(crate) fn source_position(slice: &SourceSlice) -> Vec<String> {
    let dataset = &slice.instance.dataset;
    let frames = dataset.get(tags::PER_FRAME_FUNCTIONAL_GROUPS_SEQUENCE);
    let holder = frames.map_or(&**dataset, |frames| {
        child(&frames.value().items().unwrap()[slice.frame], tags::PLANE_POSITION_SEQUENCE)
    });
    holder.texts(tags::IMAGE_POSITION_PATIENT)
}

/// Returns the folder for a case, creating it if it is missing.
pub(crate) fn fixture_folder(name: &str) -> PathBuf {
    let folder = std::env::var_os("AHI_SEG_FIXTURES").map_or_else(
        || PathBuf::from(env!("CARGO_TARGET_TMPDIR")).with_file_name("seg-fixtures"),
        PathBuf::from,
    );
    let folder = folder.join(name);
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

/// Writes a case as BINARY, and as LABELMAP in every encoding, reads it back, and saves it for the Python tests.
pub(crate) fn round_trip(
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
    every_encoding(&folder, labels, slices, &segments, options);
    leave_sources(&folder, labels, slices);
    (seg, file)
}

/// Saves the labels and sources that the Python tests compare with.
pub(crate) fn leave_sources<L: Label + WritableElement>(
    folder: &Path,
    labels: &Array3<L>,
    slices: &[SourceSlice],
) {
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
}
