//! Writes RT Structure Sets (PS3.3 A.19): the segments of a segmentation as closed planar contours, one
//! ROI per segment, in an object that treatment planning systems can read.
//!
//! - Contours are created by [`contours`]: however a reader rasterises them, it reproduces the mask.
//!   Each lies in the plane of its slice and refers to its image and frame, so tilted and oblique
//!   slices work like any other, and ROIs may overlap.
//! - Points are in millimetres in the patient's coordinates (LPS), computed from the source's own
//!   position, orientation and spacing. A coordinate that is constant within a slice is the source's
//!   own string.
//! - The transfer syntax is Implicit VR Little Endian: with explicit VRs, a decimal string is limited
//!   to 65534 bytes, which is less than 3000 points (note to Contour Data, PS3.3 Table C.8-42).
//! - A segment without voxels becomes an ROI without contours, and the summary contains a warning.
//! - The meaning of a region for treatment is only given for anatomy (`ORGAN`); the set is
//!   `UNAPPROVED`.

mod bits;
mod contours;
mod dataset;
mod encode;
mod plane;
mod runs;
mod slices;

use dicom_dictionary_std::{tags, uids};

use crate::dicom::Dataset;
use crate::dicom::segment::{Algorithm, SegmentDescription};
use crate::error::{Error, ErrorKind, Result};
use crate::writers::dicom::{self, Identity, Part10, SourceSlice, color};
use crate::writers::{Label, Voxels};
use encode::Elements;
use slices::{ContourSlice, Piece};

/// The input of [`write`].
#[derive(Debug, Clone, Copy)]
pub struct RtStructRequest<'a, 'v, L> {
    /// The segmentation's voxels.
    pub voxels: &'a Voxels<'v, L>,
    /// The source of each plane of `voxels`, one per index of the last axis.
    pub slices: &'a [SourceSlice<'a>],
    /// One segment for each foreground value of a label map, or for each mask in order. ROIs are
    /// numbered from 1 in this order.
    pub segments: &'a [SegmentDescription],
    /// The algorithm that made the segmentation.
    pub algorithm: &'a Algorithm,
    /// The seed of the UIDs.
    pub identity: &'a Identity,
    /// Optional settings.
    pub options: &'a RtStructOptions,
}

/// Settings with defaults.
#[derive(Debug, Clone, PartialEq)]
pub struct RtStructOptions {
    /// Series Description (0008,103E) and Structure Set Name (3006,0004), at most 64 characters.
    pub series_description: String,
    /// Volume of a voxel in cubic millimetres, if all have the same, for ROI Volume (3006,002C).
    pub voxel_volume: Option<f64>,
}

impl Default for RtStructOptions {
    fn default() -> Self {
        Self {
            series_description: "AI generated RTSTRUCT, not for clinical use.".to_owned(),
            voxel_volume: None,
        }
    }
}

/// A finished object.
#[derive(Debug, Clone)]
pub struct RtStruct {
    /// The complete Part 10 file.
    pub bytes: Vec<u8>,
    /// Summary of its content.
    pub summary: RtStructSummary,
}

/// The content of a finished object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RtStructSummary {
    /// Its SOP Instance UID.
    pub sop_instance_uid: String,
    /// Its Series Instance UID.
    pub series_instance_uid: String,
    /// Number of contours of each segment, in the order of the request's segments.
    pub contours_per_segment: Vec<usize>,
    /// Number of voxels of each segment, in the same order.
    pub voxels_per_segment: Vec<u64>,
    /// Warnings for readers: segments without contours, questionable attributes of the source.
    pub warnings: Vec<String>,
}

/// Kind from which these objects' UIDs are derived, besides the segmentation's identity.
const KIND: &str = "RTSTRUCT";

/// Limit on the pixels of a slice: there may be twice as many corners, which are counted in 32 bits.
const MOST_PIXELS: usize = 1 << 30;

/// Returns the bytes of memory that [`write`] needs for a volume of these columns, rows and slices with
/// `threads` threads: contours once in parts and once joined, and the tracing state of each thread.
pub fn working_bytes(dims: [usize; 3], threads: usize) -> u64 {
    let [columns, rows, _] = dims.map(|n| n as u64);
    let tracing = columns.saturating_mul(rows).saturating_mul(TRACED_PIXEL);
    let tracing = tracing.saturating_mul(threads as u64);
    largest(dims).saturating_mul(2).saturating_add(tracing)
}

/// Upper bound on the bytes per pixel of a traced slice; a chequered one needs the most.
const TRACED_PIXEL: u64 = 64;

/// Returns the limit on the bytes of all contours. Anatomy, even a hundred organs, needs less than a
/// byte per voxel; noise is refused before it fills the memory.
fn largest(dims: [usize; 3]) -> u64 {
    const LEAST: u64 = 32 << 20;
    const MOST: u64 = 1 << 30;
    let voxels = dims.iter().fold(1, |product: u64, &n| product.saturating_mul(n as u64));
    voxels.saturating_mul(2).clamp(LEAST, MOST)
}

/// Checks whether slices of `columns` by `rows` pixels can be the source of an RT Structure Set:
/// [`write`] would refuse them otherwise. This is known before there are voxels.
///
/// # Errors
///
/// Propagates the errors of [`write`] about the slices.
pub fn check_slices(slices: &[SourceSlice], columns: usize, rows: usize) -> Result<()> {
    dicom::check_consistent(&dicom::instances(slices), columns, rows)?;
    if columns.saturating_mul(rows) > MOST_PIXELS {
        return Err(Error::new(
            ErrorKind::InvalidImage,
            format!("slices of {columns} × {rows} pixels are too large for an RT Structure Set"),
        )
        .with("attribute", "Rows"));
    }
    planes(slices, columns, rows).map(|_| ())
}

fn planes(slices: &[SourceSlice], columns: usize, rows: usize) -> Result<Vec<ContourSlice>> {
    slices.iter().map(|slice| ContourSlice::of(slice, columns, rows)).collect()
}

/// Writes the segments of a segmentation as an RT Structure Set.
///
/// # Errors
///
/// [`ErrorKind::InvalidImage`] if the slices do not belong together, do not match the voxels' size, or
/// lack a valid position, orientation or spacing, or if the contours are too large;
/// [`ErrorKind::InvalidModel`] if a label has no segment or a text cannot be encoded;
/// [`ErrorKind::Internal`] if the request is inconsistent.
pub fn write<L: Label>(request: &RtStructRequest<L>) -> Result<RtStruct> {
    let RtStructRequest { voxels, slices, segments, identity, .. } = request;
    dicom::Checked {
        voxels,
        slices: slices.len(),
        segments,
        algorithm: request.algorithm,
        series_description: &request.options.series_description,
    }
    .check()?;
    let (columns, rows, depth) = voxels.dim();
    check_slices(slices, columns, rows)?;
    let instances = dicom::instances(slices);
    let planes = planes(slices, columns, rows)?;
    let source = runs::Source::new(voxels, segments)?;
    let most = largest([columns, rows, depth]);
    let pieces = slices::contours(&source, &planes, most)?;
    let mut summary = RtStructSummary {
        sop_instance_uid: identity.instance(KIND, 1),
        series_instance_uid: identity.series(KIND),
        contours_per_segment: count(&pieces, segments.len(), |piece| piece.contours),
        voxels_per_segment: count(&pieces, segments.len(), |piece| piece.voxels),
        warnings: Vec::new(),
    };
    let object = dataset::Content {
        request,
        sop_instance_uid: &summary.sop_instance_uid,
        series_instance_uid: &summary.series_instance_uid,
        instances: &instances,
        voxels: &summary.voxels_per_segment,
    }
    .dataset(&mut summary.warnings)?;
    summary.warnings.extend(empty(segments, &summary.voxels_per_segment));
    Ok(RtStruct { bytes: file(object, segments, pieces)?, summary })
}

/// Sums a quantity of the pieces for each segment.
fn count<T: Default + Clone + std::ops::AddAssign>(
    pieces: &[Vec<Piece>],
    segments: usize,
    of: impl Fn(&Piece) -> T,
) -> Vec<T> {
    let mut sums = vec![T::default(); segments];
    for piece in pieces.iter().flatten() {
        if let Some(sum) = sums.get_mut(piece.segment) {
            *sum += of(piece);
        }
    }
    sums
}

/// Returns a warning about segments without contours.
fn empty(segments: &[SegmentDescription], voxels: &[u64]) -> Option<String> {
    /// How many segments are named.
    const NAMED: usize = 5;
    let empty = segments.iter().zip(voxels).filter(|(_, voxels)| **voxels == 0);
    let labels: Vec<&str> = empty.map(|(segment, _)| segment.label.as_str()).collect();
    if labels.is_empty() {
        return None;
    }
    let named = labels.get(..NAMED).unwrap_or(&labels).join(", ");
    let more = match labels.len().saturating_sub(NAMED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    Some(format!(
        "{} of {} ROIs of the RT Structure Set have no contours, for no voxel was found: {named}{more}",
        labels.len(),
        segments.len()
    ))
}

/// Writes the Part 10 file: the contours between the elements before and after them.
fn file(
    object: Dataset,
    segments: &[SegmentDescription],
    pieces: Vec<Vec<Piece>>,
) -> Result<Vec<u8>> {
    let (head, tail) =
        Part10::split(object, uids::IMPLICIT_VR_LITTLE_ENDIAN, tags::ROI_CONTOUR_SEQUENCE)?;
    let mut of_segment: Vec<Vec<Vec<u8>>> = vec![Vec::new(); segments.len()];
    let mut total = 0;
    for Piece { segment, items, .. } in pieces.into_iter().flatten() {
        total += items.len();
        if let Some(of) = of_segment.get_mut(segment) {
            of.push(items);
        }
    }
    // Bytes of an ROI's item, colour and number.
    const BESIDE: usize = 128;
    let mut elements = Elements::default();
    elements.reserve(head.len() + total + segments.len() * BESIDE + tail.len());
    elements.append(&head);
    let sequence = elements.begin(tags::ROI_CONTOUR_SEQUENCE);
    for (index, (segment, items)) in segments.iter().zip(of_segment).enumerate() {
        put_roi_contours(segment, index, items, &mut elements)?;
    }
    elements.end(sequence)?;
    elements.append(&tail);
    Ok(elements.into_bytes())
}

/// Writes an item of the ROI Contour Sequence (PS3.3 C.8.8.6). `index` counts from zero.
fn put_roi_contours(
    segment: &SegmentDescription,
    index: usize,
    contours: Vec<Vec<u8>>,
    to: &mut Elements,
) -> Result<()> {
    let colour = dicom::display_color(segment, index);
    let item = to.begin_item();
    to.u16s(tags::RECOMMENDED_DISPLAY_CIE_LAB_VALUE, &color::cielab(colour))?;
    to.text(tags::ROI_DISPLAY_COLOR, &colour.map(|c| c.to_string()).join("\\"))?;
    if !contours.is_empty() {
        let sequence = to.begin(tags::CONTOUR_SEQUENCE);
        contours.iter().for_each(|items| to.append(items));
        to.end(sequence)?;
    }
    to.text(tags::REFERENCED_ROI_NUMBER, &(index + 1).to_string())?;
    to.end(item)
}
