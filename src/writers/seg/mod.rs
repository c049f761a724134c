//! Writes DICOM Segmentation objects (PS3.3 A.51, C.8.20): a label map, or masks that may overlap, and
//! the source slices become one Part 10 file. Type BINARY has bit-packed frames of one segment each in
//! explicit VR little endian, which every viewer supports. Type LABELMAP, part of DICOM since 2024d,
//! has one frame per slice, whose pixels are Segment Numbers, optionally compressed.
//!
//! Known problems of viewers decide the details:
//!
//! - Positions, orientations and spacings are the source's own strings. What is the same in all slices
//!   is written once, in the shared functional groups.
//! - Every class is described in the Segment Sequence, numbered from 1 without gaps, whether or not any
//!   of its voxels were found. Frames without voxels are left out. If no voxel was found at all, one
//!   empty frame of the first segment in the first slice is kept, because an image has at least one
//!   frame, and the summary contains a warning.
//! - Every frame refers to its source image (and frame), and the Referenced Series Sequence lists all
//!   source images.
//! - The dimensions are Referenced Segment Number and Image Position (Patient). The index of the first
//!   is the segment number; that of the second counts the slices that have frames, in the given order,
//!   from 1 without gaps (PS3.3 C.7.6.17.1). A label map only has the second.
//! - The background of a label map is Segment Number 0, described as such. Pixel Padding Value names
//!   it, and it fills slices without a frame. Photometric Interpretation is MONOCHROME2: colours belong
//!   to the segments, as in BINARY, so no palette has to be kept consistent with them.
//! - Times are those of writing, in the source's Timezone Offset From UTC (0008,0201) if it has one,
//!   which is then copied. Otherwise they are in UTC, without that attribute, because it would change
//!   the meaning of the copied Study Time too.
//! - The character set is the source's if it can represent every text, else UTF-8 (`ISO_IR 192`).

mod content;
mod dataset;
mod frames;
mod functional_groups;
mod labelmap;

use std::ops::Range;

use dicom_dictionary_std::uids;

use crate::dicom::encoding::FrameEncoding;
use crate::dicom::{Dataset, Instance, uid};
use crate::error::{Error, Result};
use crate::writers::dicom::{self, Part10, Plane};
use crate::writers::{Label, Voxels};

pub use crate::dicom::segment::{Algorithm, Code, SegmentDescription};
pub use crate::writers::dicom::{Identity, SourceSlice};
pub use labelmap::most_bytes as most_label_map_bytes;

use frames::{Layers, PlannedFrame, packed_length};

/// The input of [`write`].
#[derive(Debug, Clone)]
pub struct SegRequest<'a, L> {
    /// The segmentation's voxels.
    pub voxels: Voxels<'a, L>,
    /// The source of each plane of `voxels`, one per index of the last axis.
    pub slices: &'a [SourceSlice<'a>],
    /// One segment for each foreground value of a label map, or for each mask in order (the values are
    /// then ignored). They are numbered from 1 in this order.
    pub segments: &'a [SegmentDescription],
    /// The algorithm that made the label map.
    pub algorithm: &'a Algorithm,
    /// The seed of the UIDs.
    pub identity: &'a Identity,
    /// Optional settings.
    pub options: &'a SegOptions,
}

/// Segmentation Type (0062,0001).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SegmentationType {
    /// A frame with one bit per pixel for each segment and slice (SOP class Segmentation Storage).
    #[default]
    Binary,
    /// A frame of Segment Numbers for each slice (SOP class Label Map Segmentation Storage), in this
    /// encoding. Segments must not overlap.
    LabelMap(FrameEncoding),
}

impl SegmentationType {
    /// Returns the kind from which the UIDs of such objects are derived, besides the segmentation's
    /// identity. The same pixels in another encoding are the same instance.
    fn kind(self) -> &'static str {
        match self {
            Self::Binary => "SEG BINARY",
            Self::LabelMap(_) => "SEG LABELMAP",
        }
    }

    /// Returns the offset of the series number from that of the source series.
    fn series_number_offset(self) -> i64 {
        match self {
            Self::Binary => 1000,
            Self::LabelMap(_) => 1005,
        }
    }
}

/// Settings with defaults.
#[derive(Debug, Clone, PartialEq)]
pub struct SegOptions {
    /// The type of object.
    pub segmentation_type: SegmentationType,
    /// Series Description (0008,103E), at most 64 characters.
    pub series_description: String,
    /// Whether to leave out frames without voxels.
    pub omit_empty_frames: bool,
    /// Spacing Between Slices (0018,0088) in millimetres, if the caller found it to be uniform. Also
    /// used as the Slice Thickness if the source has none.
    pub spacing_between_slices: Option<f64>,
    /// Limit on the bytes of Pixel Data in one object; the rest goes into further objects of the same
    /// series. A DICOM element holds less than 4 GiB.
    pub largest_pixel_data: u32,
}

impl Default for SegOptions {
    fn default() -> Self {
        Self {
            segmentation_type: SegmentationType::default(),
            series_description: "AI generated Seg, not for clinical use.".to_owned(),
            omit_empty_frames: true,
            spacing_between_slices: None,
            largest_pixel_data: dicom::LARGEST_VALUE,
        }
    }
}

/// A finished object.
#[derive(Debug, Clone)]
pub struct Seg {
    /// The complete Part 10 file.
    pub bytes: Vec<u8>,
    /// Summary of its content.
    pub summary: SegSummary,
}

/// The content of a finished object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegSummary {
    /// Its SOP Instance UID.
    pub sop_instance_uid: String,
    /// Its Series Instance UID.
    pub series_instance_uid: String,
    /// Number of frames.
    pub frames: usize,
    /// Range of positions of the segments that may have voxels in it.
    pub segments: Range<usize>,
    /// Number of voxels of each segment, in the order of the request's segments.
    pub voxels_per_segment: Vec<u64>,
    /// Warnings for readers: nothing found, questionable attributes of the source.
    pub warnings: Vec<String>,
}

/// Checks whether slices can be the source of a segmentation of `columns` by `rows` pixels: [`write`]
/// would refuse them otherwise. This is known before there are voxels.
///
/// # Errors
///
/// Propagates the errors of [`write`] about the slices.
pub fn check_slices(slices: &[SourceSlice], columns: usize, rows: usize) -> Result<()> {
    dicom::check_consistent(&dicom::instances(slices), columns, rows)?;
    slices.iter().try_for_each(|slice| Plane::of(slice).map(|_| ()))
}

/// Writes a label map or masks as DICOM Segmentation objects: one, or several in one series if the
/// pixel data exceeds [`SegOptions::largest_pixel_data`].
///
/// # Errors
///
/// `InvalidImage` if the slices do not belong together, do not match the label map's size, or lack
/// position, orientation or spacing; `InvalidModel` if a label has no segment or a text cannot be
/// encoded; `InvalidRequest` if segments of a label map overlap; `Internal` if the request is
/// inconsistent.
pub fn write<L: Label>(request: &SegRequest<L>) -> Result<Vec<Seg>> {
    dicom::Checked {
        voxels: &request.voxels,
        slices: request.slices.len(),
        segments: request.segments,
        algorithm: request.algorithm,
        series_description: &request.options.series_description,
    }
    .check()?;
    let (columns, rows, _) = request.voxels.dim();
    let instances = dicom::instances(request.slices);
    dicom::check_consistent(&instances, columns, rows)?;
    let planes: Vec<Plane> = request.slices.iter().map(Plane::of).collect::<Result<_>>()?;
    let map = Layers::new(&request.voxels);
    let survey = map.survey(request.segments)?;
    let mut warnings = source_warnings(&instances, &planes);
    let frames = planned(request, survey.frames, &mut warnings);
    let overlap = map.overlap();
    let pixels = Pixels::new(request, &map, overlap)?;

    let identity = request.identity;
    let kind = request.options.segmentation_type.kind();
    let series_instance_uid = identity.series(kind);
    let most = pixels.frames_in_one(request.options.largest_pixel_data);
    let objects = frames.chunks(most).enumerate().map(|(index, frames)| {
        let sop_instance_uid = identity.instance(kind, index + 1);
        // Warnings about the whole segmentation are reported once.
        let mut warnings = if index == 0 { std::mem::take(&mut warnings) } else { Vec::new() };
        let object = content::Content {
            request,
            sop_instance_uid: &sop_instance_uid,
            series_instance_uid: &series_instance_uid,
            number: index + 1,
            instances: &instances,
            planes: &planes,
            frames,
            overlap,
        }
        .dataset(&mut warnings)?;
        let bytes = pixels.file(object, frames)?;
        let summary = SegSummary {
            sop_instance_uid,
            series_instance_uid: series_instance_uid.clone(),
            frames: frames.len(),
            segments: segments_of(frames, request.segments.len()),
            voxels_per_segment: survey.voxels.clone(),
            warnings,
        };
        Ok(Seg { bytes, summary })
    });
    objects.collect()
}

/// The source of the objects' pixel data.
enum Pixels<'a, L: Label> {
    Bits { layers: &'a Layers<'a, L>, segments: &'a [SegmentDescription], pixels: usize },
    Numbers(labelmap::Frames<'a, L>),
}

impl<'a, L: Label> Pixels<'a, L> {
    fn new(request: &'a SegRequest<L>, layers: &'a Layers<'a, L>, overlap: bool) -> Result<Self> {
        let (columns, rows, _) = request.voxels.dim();
        let segments = request.segments;
        match request.options.segmentation_type {
            SegmentationType::Binary => Ok(Self::Bits { layers, segments, pixels: columns * rows }),
            SegmentationType::LabelMap(encoding) => {
                let size = [columns, rows];
                labelmap::Frames::new(layers, segments, size, encoding, overlap).map(Self::Numbers)
            }
        }
    }

    /// Returns how many frames fit into one object with `most` bytes of pixel data, at least one.
    fn frames_in_one(&self, most: u32) -> usize {
        match self {
            Self::Bits { pixels, .. } => {
                let frames = u64::from(most) * 8 / *pixels as u64;
                usize::try_from(frames).unwrap_or(usize::MAX).max(1)
            }
            Self::Numbers(frames) => frames.in_one(most),
        }
    }

    /// Returns the complete Part 10 file of `object`, which contains everything but the pixel data,
    /// with these frames.
    fn file(&self, object: Dataset, frames: &[PlannedFrame]) -> Result<Vec<u8>> {
        match self {
            Self::Bits { layers, segments, pixels } => {
                let mut file = Part10::new(object, uids::EXPLICIT_VR_LITTLE_ENDIAN)?;
                let length = packed_length(frames.len(), *pixels).ok_or_else(|| {
                    Error::internal(format!("{} frames of {pixels} pixels", frames.len()))
                })?;
                layers.pack(frames, segments, file.append_pixel_data(length)?);
                Ok(file.into_bytes())
            }
            Self::Numbers(numbers) => numbers.file(object, frames),
        }
    }
}

/// Returns the range of segments of ordered frames, out of `all`: frames of a label map may show any.
fn segments_of(frames: &[PlannedFrame], all: usize) -> Range<usize> {
    match [frames.first(), frames.last()].map(|frame| frame.and_then(|frame| frame.segment)) {
        [Some(first), Some(last)] => first..last + 1,
        _ => 0..all,
    }
}

/// Returns warnings about questionable attributes of the source.
fn source_warnings(instances: &[&Instance], planes: &[Plane]) -> Vec<String> {
    let mut warnings = Vec::new();
    if planes.iter().any(Plane::is_overlong) {
        warnings.push(
            "decimal strings of the source's planes are longer than DICOM's 16 characters; they \
             were copied as they are"
                .to_owned(),
        );
    }
    if instances.iter().any(|i| !uid::is_valid(&i.sop_instance_uid)) {
        warnings.push(
            "UIDs of the source have components with leading zeros, which DICOM does not allow; they \
             were copied as they are"
                .to_owned(),
        );
    }
    warnings
}

/// Returns the frames to write, at least one.
fn planned<L>(
    request: &SegRequest<L>,
    found: Vec<PlannedFrame>,
    warnings: &mut Vec<String>,
) -> Vec<PlannedFrame> {
    let (slices, omit) = (request.slices.len(), request.options.omit_empty_frames);
    let (frames, first) = match request.options.segmentation_type {
        SegmentationType::Binary if omit => (found, Some(0)),
        SegmentationType::Binary => {
            (with_empty_frames(found, request.segments.len(), slices), Some(0))
        }
        SegmentationType::LabelMap(_) => {
            (labelmap::planned(&found, (!omit).then_some(slices)), None)
        }
    };
    if !frames.is_empty() {
        return frames;
    }
    warnings.push(
        "no voxel of any segment was found; the segmentation holds one empty frame".to_owned(),
    );
    vec![PlannedFrame { segment: first, slice: 0, rows: 0..0 }]
}

/// Returns every frame of every segment; frames that were found keep their rows.
fn with_empty_frames(
    found: Vec<PlannedFrame>,
    segments: usize,
    slices: usize,
) -> Vec<PlannedFrame> {
    let mut found = found.into_iter().peekable();
    (0..segments)
        .flat_map(|segment| (0..slices).map(move |slice| (segment, slice)))
        .map(|(segment, slice)| {
            found
                .next_if(|frame| (frame.segment, frame.slice) == (Some(segment), slice))
                .unwrap_or(PlannedFrame { segment: Some(segment), slice, rows: 0..0 })
        })
        .collect()
}
