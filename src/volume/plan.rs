//! Decides which frames form the volume, and in which order, from headers only.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use super::Geometry;
use super::affine::{Affine, cross, dot, lps_ras, norm};
use super::candidates::{self, Candidate, VolumeId};
use super::slice::{FrameGeometry, frames_of};
use super::stack::{Resampling, Stack, stack};
use super::values;
use crate::codec::FrameFormat;
use crate::dicom::{FrameKey, Series};
use crate::error::{Error, ErrorKind, Result};
use crate::policy::{Policy, Wanted};

/// A volume to be filled: its grid, and for each slice the frame that fills it.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The grid: X along increasing column index, Y along increasing row index, Z along the normal
    /// `row × column` in increasing position.
    pub geometry: Geometry,
    /// The source's frames in the order of Z: the grid's own slices unless there is a `resampling`.
    pub slices: Vec<Slice>,
    /// How to interpolate the grid's slices if the source's are unevenly spaced.
    pub resampling: Option<Resampling>,
    /// Which volume this is, if the series has several.
    pub volume: Option<VolumeId>,
    /// Units of the physical values, such as `HU`, if the header states them.
    pub units: Option<String>,
    /// Deviations tolerated by the policy, for the response. No patient attributes.
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

impl Slice {
    /// Converts a stored value to physical units, computed in f64 and rounded once.
    pub(crate) fn physical(&self, stored: f64) -> f32 {
        let (slope, intercept) = self.rescale;
        (stored * slope + intercept) as f32
    }
}

/// Groups and orders the frames of a series into volumes: the `wanted` one, or those that the
/// policy selects, at least one.
///
/// # Errors
/// [`ErrorKind::InvalidImage`], naming the instance whose orientation, size, spacing, position or
/// pixel meaning is missing, wrong or different from the others', or the two instances between
/// which a slice is missing. If nothing selects one of several volumes, the error lists them.
pub fn plan(series: &Series, policy: &Policy, wanted: Wanted) -> Result<Vec<Plan>> {
    let mut warnings = Vec::new();
    let frames = read_all(series, &mut warnings)?;
    let candidates = candidates::chosen(series, candidates::find(series, frames)?, wanted, policy)?;
    candidates
        .into_iter()
        .map(|candidate| {
            let id = candidate.id.clone();
            one(series, candidate, policy, warnings.clone()).map_err(|e| match &id {
                Some(id) => e.context(format_args!("volume {} ({})", id.number, id.name)),
                None => e,
            })
        })
        .collect()
}

fn one(
    series: &Series,
    candidate: Candidate,
    policy: &Policy,
    mut warnings: Vec<String>,
) -> Result<Plan> {
    if let Some(id) = &candidate.id {
        let VolumeId { number, of, name } = id;
        warnings.push(format!("volume {number} of the {of} in the series was taken: {name}"));
    }
    let first = &candidate.frames[0];
    let normal = cross(first.row_direction, first.column_direction);
    let stack = stack(series, candidate.frames, normal, policy, &mut warnings)?;
    let geometry = geometry(&stack, normal, &mut warnings);
    check_extent(&geometry)?;
    let first = &stack.frames[0];
    let dataset = &series.instances[first.key.instance].dataset;
    if values::is_inverted(dataset) {
        warnings
            .push("PhotometricInterpretation is MONOCHROME1; stored values were inverted".into());
    }
    let units = values::units(dataset, first.key.frame);
    let slices = stack
        .frames
        .into_iter()
        .map(|f| Slice { key: f.key, rescale: f.rescale, format: f.format })
        .collect();
    let Stack { resampling, .. } = stack;
    Ok(Plan { geometry, slices, resampling, volume: candidate.id, units, warnings })
}

/// Reads every frame of the series' slices. Duplicate instances are used once.
fn read_all(series: &Series, warnings: &mut Vec<String>) -> Result<Vec<FrameGeometry>> {
    let slices = series.slices();
    if slices.instances.is_empty() {
        return Err(Error::new(
            ErrorKind::InvalidImage,
            format!(
                "series {} has no slices; it has {}",
                series.series_instance_uid,
                slices.found()
            ),
        ));
    }
    warnings.extend(slices.warnings());
    let mut frames: Vec<FrameGeometry> = Vec::with_capacity(series.instances.len());
    let mut seen: HashMap<&str, std::ops::Range<usize>> = HashMap::new();
    let mut twice = 0usize;
    for index in slices.instances {
        let instance = &series.instances[index];
        let read = frames_of(index, instance)?;
        match seen.entry(&instance.sop_instance_uid) {
            Entry::Vacant(entry) => {
                entry.insert(frames.len()..frames.len() + read.len());
                frames.extend(read);
            }
            Entry::Occupied(entry) => {
                check_identical(instance, &frames[entry.get().clone()], &read)?;
                twice += 1;
            }
        }
    }
    if twice > 0 {
        warnings.push(format!("{twice} instance(s) that were there twice were taken once"));
    }
    Ok(frames)
}

/// Checks that two instances with the same UID are identical.
fn check_identical(
    instance: &crate::dicom::Instance,
    first: &[FrameGeometry],
    second: &[FrameGeometry],
) -> Result<()> {
    let alike = |a: &FrameGeometry, b: &FrameGeometry| {
        let a = FrameGeometry { key: b.key, ..a.clone() };
        a == *b
    };
    if first.len() == second.len() && first.iter().zip(second).all(|(a, b)| alike(a, b)) {
        return Ok(());
    }
    let uid = instance.sop_instance_uid.as_str();
    Err(Error::new(
        ErrorKind::InvalidImage,
        format!("two different instances have the SOPInstanceUID {uid}; one of them is wrong"),
    )
    .with("attribute", "SOPInstanceUID")
    .with("sopInstanceUID", uid))
}

/// Maximum length of a volume's longest side in millimetres, and of its second longest: no patient
/// is taller, no bore wider.
const LONGEST_SIDES: [f64; 2] = [2500.0, 1500.0];

/// Rejects implausible spacings: resampled to a model's spacing, the volume would exceed any
/// memory.
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

/// Computes the affine of PS3.3 C.7.6.2.1.1, extended to slices and converted to RAS+. The step
/// from slice to slice is the mean one, from first to last, so a gantry tilt remains in it as a
/// shear.
fn geometry(stack: &Stack, normal: [f64; 3], warnings: &mut Vec<String>) -> Geometry {
    let first = &stack.frames[0];
    let step = stack.step;
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
    let dims = [first.format.columns as usize, first.format.rows as usize, stack.count];
    Geometry { dims, affine: lps_ras(&lps) }
}
