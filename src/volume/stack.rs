//! Orders the slices of one volume and checks that they form a stack: on a line, evenly spaced.

use super::affine::{dot, norm};
use super::apart::same_position;
use super::slice::{FrameGeometry, name, uid};
use crate::dicom::Series;
use crate::error::{Error, ErrorKind, Result};
use crate::policy::{Duplicates, Gaps, Policy};

/// Slices ordered along the normal, and the regular grid through them.
#[derive(Debug)]
pub(super) struct Stack {
    /// The frames, lowest position along the normal first.
    pub frames: Vec<FrameGeometry>,
    /// Step from one grid slice to the next, LPS+ millimetres.
    pub step: [f64; 3],
    /// Number of grid slices.
    pub count: usize,
    /// How to interpolate the grid slices, if they are not the frames themselves.
    pub resampling: Option<Resampling>,
}

/// A grid whose slices lie between those of the source.
#[derive(Debug, Clone, PartialEq)]
pub struct Resampling {
    /// For each grid slice, the source slice below it and the weight (0 to less than 1) of the next
    /// source slice.
    pub mix: Vec<(usize, f32)>,
    /// For each source slice, the nearest grid slice.
    pub nearest: Vec<usize>,
}

/// Largest distance of a slice from its position on the grid, as a fraction of the voxel size along
/// the stack or of the pixel size within the slice.
const OFF_GRID: f64 = 0.2;

/// Largest deviation of a distance between neighbours from the usual one, as a fraction of it.
const UNEVEN: f64 = 0.05;

/// Deviations below this, in millimetres, are ignored.
const NO_MATTER: f64 = 0.01;

/// Largest angle between the direction of a stack and the slices' normal, in degrees: gantries tilt
/// by up to 30; anything steeper is not a stack of slices.
const STEEPEST: f64 = 40.0;

/// Maximum number of interpolated slices per source slice.
const FINEST: usize = 16;

/// Orders the frames of one volume, at least one, and determines their grid.
///
/// # Errors
/// [`ErrorKind::InvalidImage`], naming the instances at fault, if slices share a position, deviate
/// from the line of the others, lean too far, or are unevenly spaced and `policy` does not allow
/// that.
pub(super) fn stack(
    series: &Series,
    mut frames: Vec<FrameGeometry>,
    normal: [f64; 3],
    policy: &Policy,
    warnings: &mut Vec<String>,
) -> Result<Stack> {
    order(&mut frames, normal);
    remove_duplicates(series, &mut frames, normal, policy.duplicates, warnings)?;
    let [first, .., last] = &frames[..] else { return Ok(single(frames, normal, warnings)) };
    let line = Line::new(first, last, normal);
    line.check_lean(series, first, last)?;
    let rounding = rounding(&frames);
    line.check_sideways(series, &frames, rounding)?;
    let heights: Vec<f64> = frames.iter().map(|f| line.height(f)).collect();
    let Some(fault) = uneven(&heights, rounding) else {
        let count = frames.len();
        return Ok(Stack { step: line.step(count), count, frames, resampling: None });
    };
    let message = fault.message(series, &frames);
    match policy.gaps {
        Gaps::Refuse => Err(fault.error(
            series,
            &frames,
            format!(
                "{message}; a slice is missing or the spacing is uneven; the policy \"gaps\": \
                 \"interpolate\" would fill in between"
            ),
        )),
        Gaps::Interpolate => {
            let (count, resampling) = interpolated(series, &frames, &heights)?;
            let step = line.step(count);
            warnings.push(format!(
                "{message}; the {} slices were interpolated onto {count} slices {:.3} mm apart",
                frames.len(),
                dot(step, normal)
            ));
            Ok(Stack { step, count, frames, resampling: Some(resampling) })
        }
    }
}

/// Whether frames form a regular stack: no duplicate positions, even spacing, on one line.
pub(super) fn is_regular(frames: &[FrameGeometry], normal: [f64; 3]) -> bool {
    let mut frames = frames.to_vec();
    order(&mut frames, normal);
    let [first, .., last] = &frames[..] else { return true };
    let line = Line::new(first, last, normal);
    let heights: Vec<f64> = frames.iter().map(|f| line.height(f)).collect();
    let rounding = rounding(&frames);
    let apart = heights.windows(2).zip(&frames).all(|(h, f)| h[1] - h[0] >= same_position(f));
    apart && line.sideways(&frames, rounding).is_none() && uneven(&heights, rounding).is_none()
}

fn order(frames: &mut [FrameGeometry], normal: [f64; 3]) {
    frames.sort_by(|a, b| {
        dot(a.position, normal)
            .total_cmp(&dot(b.position, normal))
            .then(a.instance_number.cmp(&b.instance_number))
            .then(a.key.cmp(&b.key))
    });
}

fn single(frames: Vec<FrameGeometry>, normal: [f64; 3], warnings: &mut Vec<String>) -> Stack {
    let stated = frames.first().and_then(|frame| frame.slice_thickness);
    let thickness = stated.filter(|t| *t > 0.0).unwrap_or(1.0);
    warnings.push(format!(
        "the series has a single slice; its SliceThickness of {thickness} mm is taken as spacing"
    ));
    Stack { step: normal.map(|n| n * thickness), count: frames.len(), frames, resampling: None }
}

fn remove_duplicates(
    series: &Series,
    frames: &mut Vec<FrameGeometry>,
    normal: [f64; 3],
    policy: Duplicates,
    warnings: &mut Vec<String>,
) -> Result<()> {
    let mut kept: Vec<FrameGeometry> = Vec::with_capacity(frames.len());
    let mut dropped = 0usize;
    for frame in frames.drain(..) {
        let previous = kept.last().filter(|previous| {
            dot(frame.position, normal) - dot(previous.position, normal) <= same_position(previous)
        });
        match previous {
            None => kept.push(frame),
            Some(_) if policy == Duplicates::First => dropped += 1,
            Some(previous) => {
                return Err(Error::new(
                    ErrorKind::InvalidImage,
                    format!(
                        "instances {} and {} lie at the same position, and no attribute tells them \
                         apart; the policy \"duplicates\": \"first\" would take the one with the \
                         lowest InstanceNumber",
                        name(series, previous),
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

/// The line through the first and the last slice.
struct Line {
    start: [f64; 3],
    along: [f64; 3],
    normal: [f64; 3],
    /// Distance between its ends along the normal.
    length: f64,
}

/// Two neighbours with an irregular distance between them.
struct Jump {
    after: usize,
    distance: f64,
}

impl Line {
    fn new(first: &FrameGeometry, last: &FrameGeometry, normal: [f64; 3]) -> Self {
        let along = std::array::from_fn(|i| last.position[i] - first.position[i]);
        Self { start: first.position, along, normal, length: dot(along, normal) }
    }

    /// Returns the distance of a frame from the first one along the normal.
    fn height(&self, frame: &FrameGeometry) -> f64 {
        dot(frame.position, self.normal) - dot(self.start, self.normal)
    }

    /// Returns the step from slice to slice if there are `count` slices.
    fn step(&self, count: usize) -> [f64; 3] {
        self.along.map(|v| v / (count - 1) as f64)
    }

    fn check_lean(
        &self,
        series: &Series,
        first: &FrameGeometry,
        last: &FrameGeometry,
    ) -> Result<()> {
        let lean = (self.length / norm(self.along)).clamp(-1.0, 1.0).acos().to_degrees();
        if lean <= STEEPEST {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::InvalidImage,
            format!(
                "from instance {} to instance {} the stack leans by {lean:.1} degrees from the slices' \
                 normal; no gantry tilts so far ({STEEPEST} degrees are taken), so ImagePositionPatient \
                 or ImageOrientationPatient is wrong, or there are several stacks",
                name(series, first),
                name(series, last)
            ),
        )
        .with("attribute", "ImagePositionPatient")
        .with("sopInstanceUID", uid(series, last)))
    }

    /// Returns the offset of a frame from the line, in millimetres within its plane.
    fn beside(&self, frame: &FrameGeometry) -> [f64; 3] {
        let share = self.height(frame) / self.length;
        std::array::from_fn(|i| frame.position[i] - self.start[i] - self.along[i] * share)
    }

    /// Returns the neighbours with the largest sideways shift, if any slice is too far from the
    /// line.
    fn sideways(&self, frames: &[FrameGeometry], rounding: f64) -> Option<Jump> {
        let offsets: Vec<[f64; 3]> = frames.iter().map(|frame| self.beside(frame)).collect();
        let too_far = frames.iter().zip(&offsets).any(|(frame, offset)| {
            let pixel = frame.pixel_spacing[0].min(frame.pixel_spacing[1]);
            norm(*offset) > (OFF_GRID * pixel).max(NO_MATTER).max(rounding)
        });
        let jump = |pair: &[[f64; 3]]| norm(std::array::from_fn(|i| pair[1][i] - pair[0][i]));
        let jumps = offsets.windows(2).map(jump).enumerate();
        let largest = jumps.max_by(|(_, a), (_, b)| a.total_cmp(b));
        largest.filter(|_| too_far).map(|(after, distance)| Jump { after, distance })
    }

    fn check_sideways(
        &self,
        series: &Series,
        frames: &[FrameGeometry],
        rounding: f64,
    ) -> Result<()> {
        let Some(Jump { after, distance }) = self.sideways(frames, rounding) else { return Ok(()) };
        let (before, next) = (&frames[after], &frames[after + 1]);
        Err(Error::new(
            ErrorKind::InvalidImage,
            format!(
                "slices do not lie on a line: from instance {} to instance {} they shift by \
                 {distance:.3} mm within their plane; ImagePositionPatient is wrong, or the patient or \
                 table was moved",
                name(series, before),
                name(series, next)
            ),
        )
        .with("attribute", "ImagePositionPatient")
        .with("sopInstanceUID", uid(series, before))
        .with("nextSopInstanceUID", uid(series, next)))
    }
}

/// Kinds of uneven spacing.
enum Uneven {
    /// Two neighbours whose distance differs from the usual one.
    Step { after: usize, step: f64, usual: f64 },
    /// Small deviations add up: a slice is far from its position on the regular grid.
    Drift { at: usize, off: f64, mean: f64 },
}

impl Uneven {
    fn at(&self) -> usize {
        match self {
            Self::Step { after, .. } => *after,
            Self::Drift { at, .. } => at.saturating_sub(1),
        }
    }

    fn message(&self, series: &Series, frames: &[FrameGeometry]) -> String {
        match self {
            Self::Step { after, step, usual } => format!(
                "slices are {step:.3} mm apart between instances {} and {} where {usual:.3} mm is usual",
                name(series, &frames[*after]),
                name(series, &frames[after + 1])
            ),
            Self::Drift { at, off, mean } => format!(
                "slice {} of {} (instance {}) lies {off:.3} mm from its place in a stack of the mean \
                 distance {mean:.3} mm",
                at + 1,
                frames.len(),
                name(series, &frames[*at])
            ),
        }
    }

    fn error(&self, series: &Series, frames: &[FrameGeometry], message: String) -> Error {
        let at = self.at();
        Error::new(ErrorKind::InvalidImage, message)
            .with("attribute", "ImagePositionPatient")
            .with("sopInstanceUID", uid(series, &frames[at]))
            .with("nextSopInstanceUID", uid(series, &frames[at + 1]))
    }
}

/// Finds the unevenness in slices at these heights, at least two in increasing order.
fn uneven(heights: &[f64], rounding: f64) -> Option<Uneven> {
    let steps: Vec<f64> = heights.windows(2).map(|pair| pair[1] - pair[0]).collect();
    let usual = median(&steps)?;
    // Positions are written with few decimals, which alone may change a step by this much.
    let rounding = rounding.min(OFF_GRID * usual);
    let tolerance = (UNEVEN * usual).max(NO_MATTER).max(rounding);
    let step = steps.iter().position(|step| (step - usual).abs() > tolerance);
    if let Some(after) = step {
        return Some(Uneven::Step { after, step: steps[after], usual });
    }
    let mean = heights.last()? / steps.len() as f64;
    let off = |(index, height): (usize, &f64)| (index, (height - mean * index as f64).abs());
    let (at, off) = heights.iter().enumerate().map(off).max_by(|a, b| a.1.total_cmp(&b.1))?;
    (off > (OFF_GRID * mean).max(NO_MATTER)).then_some(Uneven::Drift { at, off, mean })
}

/// Returns the resolution of the positions' decimals if that is a tenth or a hundredth of a
/// millimetre; 0 if they are finer.
fn rounding(frames: &[FrameGeometry]) -> f64 {
    let multiples = |unit: f64| {
        frames.iter().flat_map(|frame| frame.position).all(|value| {
            let places = value / unit;
            (places - places.round()).abs() < 1e-6 * places.abs().max(1.0)
        })
    };
    // Both ends of a step may be off by half of it.
    const SLACK: f64 = 1.001;
    [0.1, 0.01].into_iter().find(|unit| multiples(*unit)).map_or(0.0, |unit| unit * SLACK)
}

/// Determines the regular grid from the first slice to the last whose spacing is, up to rounding,
/// at most the smallest distance between two slices.
fn interpolated(
    series: &Series,
    frames: &[FrameGeometry],
    heights: &[f64],
) -> Result<(usize, Resampling)> {
    let length = heights.last().copied().unwrap_or(0.0);
    let gaps = heights.windows(2).map(|pair| pair[1] - pair[0]).enumerate();
    let (at, smallest) = gaps
        .min_by(|a, b| a.1.total_cmp(&b.1))
        .ok_or_else(|| Error::internal("a stack of one slice is interpolated"))?;
    // A distance that fits within this tolerance counts as fitting exactly.
    const FITS: f64 = 0.02;
    let steps = (length / smallest - FITS).ceil().max(1.0);
    if steps >= (FINEST * frames.len()) as f64 {
        return Err(Error::new(
            ErrorKind::InvalidImage,
            format!(
                "the slices of instances {} and {} are only {smallest:.3} mm apart, which would take {} \
                 slices to fill {length:.1} mm; at most {FINEST} times the series' own are interpolated",
                name(series, &frames[at]),
                name(series, &frames[at + 1]),
                steps + 1.0
            ),
        )
        .with("sopInstanceUID", uid(series, &frames[at]))
        .with("nextSopInstanceUID", uid(series, &frames[at + 1])));
    }
    let count = steps as usize + 1;
    let step = length / steps;
    let mix = (0..count).map(|slice| between(heights, slice as f64 * step)).collect();
    let nearest = heights.iter().map(|h| ((h / step).round() as usize).min(count - 1)).collect();
    Ok((count, Resampling { mix, nearest }))
}

/// Returns the source slice below a height, and the weight of the next one.
fn between(heights: &[f64], height: f64) -> (usize, f32) {
    /// Fraction of a distance within which a grid slice coincides with a source slice.
    const SAME: f64 = 0.02;
    let above = heights.partition_point(|h| *h <= height);
    let below = above.saturating_sub(1);
    let Some(next) = heights.get(below + 1) else { return (below, 0.0) };
    match (height - heights[below]) / (next - heights[below]) {
        weight if weight < SAME => (below, 0.0),
        weight if weight > 1.0 - SAME => (below + 1, 0.0),
        weight => (below, weight as f32),
    }
}

fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied()
}
