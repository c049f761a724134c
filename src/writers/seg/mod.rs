//! DICOM Segmentation objects (PS3.3 A.51, C.8.20): a label map, or masks that may overlap, and the
//! slices it was made from become one binary, bit-packed, explicit VR little endian Part 10 file.
//!
//! What viewers trip over decides the details:
//!
//! - Positions, orientations and spacings are the source's own strings. What is the same in all
//!   slices is written once, in the shared functional groups.
//! - Every class is described in the Segment Sequence, numbered from 1 without gaps, whether voxels
//!   of it were found or not. Frames without voxels are left out; where no voxel was found at all,
//!   one empty frame of the first segment in the first slice is kept, because an image has at least
//!   one frame, and the summary warns.
//! - Every frame refers to the source image (and frame) it lies on, and the Referenced Series
//!   Sequence lists all source images.
//! - The dimensions are Referenced Segment Number and Image Position (Patient): the index of the
//!   first is the segment number; that of the second counts the slices that have frames, in the
//!   order given, from 1 without gaps (PS3.3 C.7.6.17.1).
//! - Times are of the moment of writing, in the source's Timezone Offset From UTC (0008,0201) where
//!   it has one, which is then copied; in UTC otherwise, without adding that attribute, because it
//!   would give a new meaning to the copied Study Time too.
//! - The character set is the source's where it can carry every text, else UTF-8 (`ISO_IR 192`).

mod content;
mod dataset;
mod frames;
mod functional_groups;

use std::collections::HashSet;

use dicom_dictionary_std::uids;

use crate::dicom::{Instance, uid};
use crate::error::{Error, ErrorKind, Result};
use crate::writers::dicom::{self, Part10, Plane};
use crate::writers::{Label, Voxels};

pub use crate::dicom::segment::{Algorithm, Code, SegmentDescription};
pub use crate::writers::dicom::{Identity, SourceSlice};
use frames::{Layers, PlannedFrame, packed_length};

/// What to write.
#[derive(Debug, Clone)]
pub struct SegRequest<'a, L> {
    /// The segmentation's voxels.
    pub voxels: Voxels<'a, L>,
    /// Where the planes of `voxels` come from, one per index of their last axis.
    pub slices: &'a [SourceSlice<'a>],
    /// One segment for each foreground value of a label map, or for each mask in their order (the
    /// values then do not matter); numbered from 1 in this order.
    pub segments: &'a [SegmentDescription],
    /// What made the label map.
    pub algorithm: &'a Algorithm,
    /// What the UIDs are made from.
    pub identity: &'a Identity,
    /// Everything that has a default.
    pub options: &'a SegOptions,
}

/// What a caller may want otherwise.
#[derive(Debug, Clone, PartialEq)]
pub struct SegOptions {
    /// Series Description (0008,103E), at most 64 characters.
    pub series_description: String,
    /// Whether frames without voxels are left out.
    pub omit_empty_frames: bool,
    /// Spacing Between Slices (0018,0088) in millimetres, where the caller found it to be uniform.
    /// Also the Slice Thickness, where the source states none.
    pub spacing_between_slices: Option<f64>,
    /// The most bytes of Pixel Data in one object; what is beyond them goes into further objects of the
    /// same series. A DICOM element holds less than 4 GiB.
    pub largest_pixel_data: u32,
}

/// What UIDs of these objects are derived from beside what the segmentation was made of.
const KIND: &str = "SEG BINARY";

impl Default for SegOptions {
    fn default() -> Self {
        Self {
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
    /// What is in it.
    pub summary: SegSummary,
}

/// What a finished object holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegSummary {
    /// Its SOP Instance UID.
    pub sop_instance_uid: String,
    /// Its Series Instance UID.
    pub series_instance_uid: String,
    /// Number of frames.
    pub frames: usize,
    /// Voxels of each segment, in the order of the request's segments.
    pub voxels_per_segment: Vec<u64>,
    /// What a reader of the result should know: nothing found, doubtful attributes of the source.
    pub warnings: Vec<String>,
}

/// Whether slices can be the source of a segmentation of `columns` by `rows` pixels: what
/// [`write`] would refuse about them, known before there are voxels.
///
/// # Errors
///
/// As of [`write`], about the slices.
pub fn check_slices(slices: &[SourceSlice], columns: usize, rows: usize) -> Result<()> {
    dicom::check_consistent(&dicom::instances(slices), columns, rows)?;
    slices.iter().try_for_each(|slice| Plane::of(slice).map(|_| ()))
}

/// Writes a label map or masks as DICOM Segmentation objects: one, or several of one series where the
/// pixel data exceeds [`SegOptions::largest_pixel_data`].
///
/// # Errors
///
/// [`ErrorKind::InvalidImage`] where the slices do not belong together, are not of the label map's
/// size, or lack position, orientation or spacing; [`ErrorKind::InvalidModel`] where a label has no
/// segment or a text cannot be encoded; [`ErrorKind::Internal`] where the request contradicts
/// itself.
pub fn write<L: Label>(request: &SegRequest<L>) -> Result<Vec<Seg>> {
    check(request)?;
    let (columns, rows, _) = request.voxels.dim();
    let instances = dicom::instances(request.slices);
    dicom::check_consistent(&instances, columns, rows)?;
    let planes: Vec<Plane> = request.slices.iter().map(Plane::of).collect::<Result<_>>()?;
    let map = Layers::new(&request.voxels);
    let survey = map.survey(request.segments)?;
    let mut warnings = source_warnings(&instances, &planes);
    let frames = planned(request, survey.frames, &mut warnings);

    let most = u64::from(request.options.largest_pixel_data) * 8 / (columns * rows) as u64;
    let most = usize::try_from(most).unwrap_or(usize::MAX).max(1);
    let identity = request.identity;
    let series_instance_uid = identity.series(KIND);
    let objects = frames.chunks(most).enumerate().map(|(index, frames)| {
        let sop_instance_uid = identity.instance(KIND, index + 1);
        // Those of the whole segmentation are told once.
        let mut warnings = if index == 0 { std::mem::take(&mut warnings) } else { Vec::new() };
        let object = content::Content {
            request,
            sop_instance_uid: &sop_instance_uid,
            series_instance_uid: &series_instance_uid,
            number: index + 1,
            instances: &instances,
            planes: &planes,
            frames,
            overlap: map.overlap(),
        }
        .dataset(&mut warnings)?;
        let mut file = Part10::new(object, uids::EXPLICIT_VR_LITTLE_ENDIAN)?;
        let length = packed_length(frames.len(), columns * rows).ok_or_else(|| {
            Error::internal(format!("{} frames of {columns} × {rows} pixels", frames.len()))
        })?;
        let pixel_data = file.append_pixel_data(length)?;
        map.pack(frames, request.segments, pixel_data);
        let summary = SegSummary {
            sop_instance_uid,
            series_instance_uid: series_instance_uid.clone(),
            frames: frames.len(),
            voxels_per_segment: survey.voxels.clone(),
            warnings,
        };
        Ok(Seg { bytes: file.into_bytes(), summary })
    });
    objects.collect()
}

/// What is doubtful about the source.
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

/// The frames to write, at least one.
fn planned<L>(
    request: &SegRequest<L>,
    found: Vec<PlannedFrame>,
    warnings: &mut Vec<String>,
) -> Vec<PlannedFrame> {
    let frames = if request.options.omit_empty_frames {
        found
    } else {
        with_empty_frames(found, request.segments.len(), request.slices.len())
    };
    if !frames.is_empty() {
        return frames;
    }
    warnings.push(
        "no voxel of any segment was found; the segmentation holds one empty frame".to_owned(),
    );
    vec![PlannedFrame { segment: 0, slice: 0, rows: 0..0 }]
}

/// That the request agrees with itself.
fn check<L>(request: &SegRequest<L>) -> Result<()> {
    let (columns, rows, slices) = request.voxels.dim();
    if slices != request.slices.len() {
        return Err(Error::internal(format!(
            "the label map has {slices} slices, the request names {}",
            request.slices.len()
        )));
    }
    if [columns, rows].iter().any(|&n| n == 0 || n > usize::from(u16::MAX)) || slices == 0 {
        return Err(Error::internal(format!(
            "a label map of {columns} × {rows} × {slices} cannot be written"
        )));
    }
    if request.segments.is_empty() {
        return Err(Error::new(
            ErrorKind::InvalidModel,
            "the model package describes no foreground segment",
        ));
    }
    if let Voxels::Masks(masks) = &request.voxels
        && masks.dim().0 != request.segments.len()
    {
        return Err(Error::internal(format!(
            "there are {} masks for {} segments",
            masks.dim().0,
            request.segments.len()
        )));
    }
    let mut values = HashSet::new();
    for segment in request.segments {
        segment.check()?;
        if !values.insert(segment.value) && !matches!(request.voxels, Voxels::Masks(_)) {
            return Err(Error::new(
                ErrorKind::InvalidModel,
                format!("label value {} is described by two segments", segment.value),
            ));
        }
    }
    request.algorithm.check()?;
    crate::dicom::segment::check_text(&request.options.series_description, 64, "seriesDescription")
}

/// Every frame of every segment; those that were found keep their rows.
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
                .next_if(|frame| (frame.segment, frame.slice) == (segment, slice))
                .unwrap_or(PlannedFrame { segment, slice, rows: 0..0 })
        })
        .collect()
}
