//! Which frames make the volume and in which order: read from headers alone.

use super::Geometry;
use super::affine::{Affine, cross, dot, lps_ras, norm};
use super::policy::{DuplicatePolicy, GapPolicy, VolumePolicy};
use super::slice::{FrameGeometry, frames_of};
use crate::codec::FrameFormat;
use crate::dicom::{Attributes, FrameKey, Series};
use crate::error::{Error, ErrorKind, Result};
use dicom_dictionary_std::tags;

/// A volume to be filled: its grid, and for each slice the frame that fills it.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The grid: X along increasing column index, Y along increasing row index, Z along the normal
    /// `row × column` in increasing position.
    pub geometry: Geometry,
    /// The frames in the order of Z.
    pub slices: Vec<Slice>,
    /// What was tolerated by the policy, for the answer. No patient attributes.
    pub warnings: Vec<String>,
}

/// One slice of a [`Plan`].
#[derive(Debug, Clone, PartialEq)]
pub struct Slice {
    /// The frame that fills it.
    pub key: FrameKey,
    /// RescaleSlope and RescaleIntercept.
    pub rescale: (f64, f64),
    /// The frame's pixel format.
    pub format: FrameFormat,
}

/// Orders the frames of a series into a volume.
///
/// Errors ([`ErrorKind::InvalidImage`]) name the instance whose orientation, size, spacing or
/// position is missing or differs from the first's, or the two between which a slice is missing.
pub fn plan(series: &Series, policy: &VolumePolicy) -> Result<Plan> {
    let mut warnings = Vec::new();
    let mut frames = read_all(series, &mut warnings)?;
    let Some(first) = frames.first().cloned() else {
        return Err(Error::new(
            ErrorKind::InvalidImage,
            format!("series {} has no images", series.series_instance_uid),
        ));
    };
    for frame in &frames[1..] {
        check_same(series, &first, frame, policy.attribute_tolerance)?;
    }
    let normal = cross(first.row_direction, first.column_direction);
    frames.sort_by(|a, b| {
        dot(a.position, normal)
            .total_cmp(&dot(b.position, normal))
            .then(a.instance_number.cmp(&b.instance_number))
            .then(a.key.cmp(&b.key))
    });
    remove_duplicates(series, &mut frames, normal, policy, &mut warnings)?;
    check_gaps(series, &frames, normal, policy, &mut warnings)?;
    let geometry = geometry(&frames, normal, &mut warnings);
    check_extent(&geometry)?;
    let slices = frames
        .into_iter()
        .map(|f| Slice { key: f.key, rescale: f.rescale, format: f.format })
        .collect();
    Ok(Plan { geometry, slices, warnings })
}

/// Every frame but those of localizers, which share a series with the stack they plan.
fn read_all(series: &Series, warnings: &mut Vec<String>) -> Result<Vec<FrameGeometry>> {
    let is_localizer = |i: &crate::dicom::Instance| {
        i.dataset.texts(tags::IMAGE_TYPE).iter().any(|t| t.eq_ignore_ascii_case("LOCALIZER"))
    };
    let localizers = series.instances.iter().filter(|i| is_localizer(i)).count();
    let skip = localizers > 0 && localizers < series.instances.len();
    if skip {
        warnings.push(format!("{localizers} localizer instance(s) were left out"));
    }
    let mut frames = Vec::with_capacity(series.instances.len());
    for (index, instance) in series.instances.iter().enumerate() {
        if !(skip && is_localizer(instance)) {
            frames.extend(frames_of(index, instance)?);
        }
    }
    Ok(frames)
}

fn uid<'a>(series: &'a Series, frame: &FrameGeometry) -> &'a str {
    &series.instances[frame.key.instance].sop_instance_uid
}

/// Names the instance (and the frame of a multi-frame one) for a message.
fn name(series: &Series, frame: &FrameGeometry) -> String {
    let uid = uid(series, frame);
    if series.instances[frame.key.instance].frames.len() > 1 {
        format!("{uid} (frame {})", frame.key.frame + 1)
    } else {
        uid.to_owned()
    }
}

fn check_same(
    series: &Series,
    first: &FrameGeometry,
    frame: &FrameGeometry,
    tolerance: f64,
) -> Result<()> {
    let near = |a: &[f64], b: &[f64]| a.iter().zip(b).all(|(x, y)| (x - y).abs() <= tolerance);
    let differing =
        if (first.format.rows, first.format.columns) != (frame.format.rows, frame.format.columns) {
            "Rows and Columns"
        } else if !near(&first.pixel_spacing, &frame.pixel_spacing) {
            "PixelSpacing"
        } else if !near(&first.row_direction, &frame.row_direction)
            || !near(&first.column_direction, &frame.column_direction)
        {
            "ImageOrientationPatient"
        } else if first.frame_of_reference != frame.frame_of_reference {
            "FrameOfReferenceUID"
        } else {
            return Ok(());
        };
    Err(Error::new(
        ErrorKind::InvalidImage,
        format!(
            "instance {}: {differing} differs from instance {}; the slices of a series must share it",
            name(series, frame),
            name(series, first)
        ),
    )
    .with("sopInstanceUID", uid(series, frame))
    .with("attribute", differing))
}

/// Distances below this share of a pixel count as the same position.
const SAME_POSITION: f64 = 1e-3;

fn remove_duplicates(
    series: &Series,
    frames: &mut Vec<FrameGeometry>,
    normal: [f64; 3],
    policy: &VolumePolicy,
    warnings: &mut Vec<String>,
) -> Result<()> {
    let mut kept: Vec<FrameGeometry> = Vec::with_capacity(frames.len());
    let mut dropped = 0usize;
    for frame in frames.drain(..) {
        let previous = kept.last().filter(|p| {
            (dot(frame.position, normal) - dot(p.position, normal)).abs()
                < SAME_POSITION * frame.pixel_spacing[0].min(1.0)
        });
        match previous {
            None => kept.push(frame),
            Some(p) if uid(series, p) == uid(series, &frame) && p.key.frame == frame.key.frame => {
                dropped += 1;
            }
            Some(_) if policy.duplicates == DuplicatePolicy::KeepFirst => dropped += 1,
            Some(p) => {
                return Err(Error::new(
                    ErrorKind::InvalidImage,
                    format!(
                        "instances {} and {} lie at the same position; send one volume a series \
                         or allow duplicates",
                        name(series, p),
                        name(series, &frame)
                    ),
                )
                .with("sopInstanceUID", uid(series, &frame)));
            }
        }
    }
    if dropped > 0 {
        warnings.push(format!("{dropped} slice(s) at positions already taken were left out"));
    }
    *frames = kept;
    Ok(())
}

fn check_gaps(
    series: &Series,
    frames: &[FrameGeometry],
    normal: [f64; 3],
    policy: &VolumePolicy,
    warnings: &mut Vec<String>,
) -> Result<()> {
    let steps: Vec<f64> = frames
        .windows(2)
        .map(|w| dot(w[1].position, normal) - dot(w[0].position, normal))
        .collect();
    let Some(median) = median(&steps) else { return Ok(()) };
    // Positions are written with few decimals: a step may be off by that much for no other reason.
    let tolerance = (policy.spacing_tolerance * median).max(0.01);
    let Some(at) = steps.iter().position(|s| (s - median).abs() > tolerance) else {
        return Ok(());
    };
    let message = format!(
        "slices are {:.3} mm apart between instances {} and {} where {median:.3} mm is usual",
        steps[at],
        name(series, &frames[at]),
        name(series, &frames[at + 1])
    );
    if policy.gaps == GapPolicy::Average {
        warnings.push(format!("{message}; the mean distance is used throughout"));
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::InvalidImage,
        format!("{message}: a slice is missing or the spacing is uneven"),
    )
    .with("sopInstanceUID", uid(series, &frames[at]))
    .with("nextSopInstanceUID", uid(series, &frames[at + 1])))
}

/// Longest side of a volume in millimetres, and the longest of the others: no patient is taller, no bore
/// wider.
const LONGEST_SIDES: [f64; 2] = [2500.0, 1500.0];

/// Refuses spacings that no scanner has: resampled to a model's spacing, they would fill any memory.
fn check_extent(geometry: &Geometry) -> Result<()> {
    let spacing = geometry.affine.spacing();
    let mut sides = [0, 1, 2].map(|a| (spacing[a] * (geometry.dims[a] - 1) as f64, a));
    sides.sort_by(|a, b| b.0.total_cmp(&a.0));
    for ((side, axis), longest) in sides.into_iter().zip(LONGEST_SIDES) {
        if side <= longest {
            continue;
        }
        let attribute = if axis == 2 { "ImagePositionPatient" } else { "PixelSpacing" };
        return Err(Error::new(
            ErrorKind::InvalidImage,
            format!(
                "the volume would be {side:.0} mm long ({} voxels of {} mm); {attribute} is \
                 implausible",
                geometry.dims[axis], spacing[axis]
            ),
        )
        .with("attribute", attribute));
    }
    Ok(())
}

fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied()
}

/// The affine of PS3.3 C.7.6.2.1.1 extended to slices, taken to RAS+. The step from slice to slice
/// is the mean one, from first to last, so a gantry tilt stays in it as a shear.
fn geometry(frames: &[FrameGeometry], normal: [f64; 3], warnings: &mut Vec<String>) -> Geometry {
    let first = &frames[0];
    let last = &frames[frames.len() - 1];
    let step = if frames.len() > 1 {
        let n = (frames.len() - 1) as f64;
        std::array::from_fn(|i| (last.position[i] - first.position[i]) / n)
    } else {
        let thickness = first.slice_thickness.filter(|t| *t > 0.0).unwrap_or(1.0);
        warnings.push(format!(
            "the series has a single slice; its SliceThickness of {thickness} mm is taken as spacing"
        ));
        normal.map(|n| n * thickness)
    };
    let tilt = (dot(step, normal) / norm(step)).clamp(-1.0, 1.0).acos().to_degrees();
    if tilt > 0.1 {
        warnings.push(format!(
            "the slices are stacked at {tilt:.1} degrees to their normal (gantry tilt); the volume \
             is resampled with that shear"
        ));
    }
    let [between_rows, between_columns] = first.pixel_spacing;
    let lps = Affine::from_columns(
        [
            first.row_direction.map(|v| v * between_columns),
            first.column_direction.map(|v| v * between_rows),
            step,
        ],
        first.position,
    );
    let dims = [first.format.columns as usize, first.format.rows as usize, frames.len()];
    Geometry { dims, affine: lps_ras(&lps) }
}
