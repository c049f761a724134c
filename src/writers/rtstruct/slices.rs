//! Creates the contours of every slice, as items of Contour Sequences (PS3.3 C.8.8.6).

use std::sync::atomic::{AtomicU64, Ordering};

use dicom_dictionary_std::tags;
use rayon::prelude::*;

use super::bits::Bits;
use super::contours::{Point, Tracer};
use super::encode::Elements;
use super::plane::ContourPlane;
use super::runs::{Run, SliceRuns, Source};
use crate::error::{Error, ErrorKind, Result};
use crate::writers::Label;
use crate::writers::dicom::SourceSlice;

/// The contours of one segment in one slice.
pub(super) struct Piece {
    /// The segment's index.
    pub segment: usize,
    /// Number of its pixels in the slice.
    pub voxels: u64,
    /// Number of contours.
    pub contours: usize,
    /// Encoded items of a Contour Sequence.
    pub items: Vec<u8>,
}

/// A slice prepared for its contours.
pub(super) struct ContourSlice {
    pub plane: ContourPlane,
    /// Contour Image Sequence (3006,0016), encoded.
    reference: Vec<u8>,
}

impl ContourSlice {
    /// Prepares a slice of `columns` by `rows` pixels.
    ///
    /// # Errors
    /// Propagates the errors of [`ContourPlane::of`].
    pub fn of(slice: &SourceSlice, columns: usize, rows: usize) -> Result<Self> {
        let plane = ContourPlane::of(slice, columns, rows)?;
        let mut elements = Elements::default();
        let sequence = elements.begin(tags::CONTOUR_IMAGE_SEQUENCE);
        let item = elements.begin_item();
        elements.uid(tags::REFERENCED_SOP_CLASS_UID, &slice.instance.sop_class_uid)?;
        elements.uid(tags::REFERENCED_SOP_INSTANCE_UID, &slice.instance.sop_instance_uid)?;
        if slice.is_multi_frame() {
            elements.text(tags::REFERENCED_FRAME_NUMBER, &(slice.frame + 1).to_string())?;
        }
        elements.end(item)?;
        elements.end(sequence)?;
        Ok(Self { plane, reference: elements.into_bytes() })
    }
}

/// Returns the contours of all slices in order, and within a slice by segment. They take at most `most`
/// bytes in total.
///
/// # Errors
/// [`ErrorKind::InvalidImage`] if they take more. Propagates the errors of [`Source::read`].
pub(super) fn contours<L: Label>(
    source: &Source<L>,
    slices: &[ContourSlice],
    most: u64,
) -> Result<Vec<Vec<Piece>>> {
    let used = AtomicU64::new(0);
    let numbered = slices.par_iter().enumerate();
    numbered
        .map_init(Worker::default, |worker, (index, slice)| {
            source.read(index, &mut worker.runs)?;
            let mut pieces = Vec::new();
            for (segment, runs) in worker.runs.segments() {
                let corner = draw(runs, &mut worker.bits);
                worker.items.clear();
                let budget = Budget { used: &used, most };
                let to = &mut worker.items;
                let mut encoder = Encoder { slice, corner, budget, to, contours: 0 };
                let mut result = Ok(());
                worker.tracer.trace(&worker.bits, |contour| {
                    if result.is_ok() {
                        result = encoder.put(contour);
                    }
                });
                result?;
                let contours = encoder.contours;
                let voxels = runs.iter().map(|run| run.columns.len() as u64).sum();
                // An exact-size copy: the buffer may be twice as large.
                let items = worker.items.bytes().to_vec();
                pieces.push(Piece { segment, voxels, contours, items });
            }
            Ok(pieces)
        })
        .collect()
}

/// State that a thread reuses from slice to slice.
#[derive(Default)]
struct Worker {
    runs: SliceRuns,
    bits: Bits,
    tracer: Tracer,
    items: Elements,
}

/// Draws the runs into `bits`, which covers their bounding box, and returns its first column and row.
fn draw(runs: &[Run], bits: &mut Bits) -> [usize; 2] {
    let left = runs.iter().map(|run| run.columns.start).min().unwrap_or(0);
    let right = runs.iter().map(|run| run.columns.end).max().unwrap_or(0);
    // Runs are ordered by row.
    let top = runs.first().map_or(0, |run| run.row);
    let bottom = runs.last().map_or(0, |run| run.row + 1);
    bits.clear(right - left, bottom - top);
    for Run { row, columns } in runs {
        bits.add_run(row - top, columns.start - left..columns.end - left);
    }
    [left, top]
}

/// Bytes that all threads together may still write.
struct Budget<'b> {
    used: &'b AtomicU64,
    most: u64,
}

impl Budget<'_> {
    fn take(&self, bytes: usize) -> Result<()> {
        let used = self.used.fetch_add(bytes as u64, Ordering::Relaxed) + bytes as u64;
        if used <= self.most {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::InvalidImage,
            format!(
                "the contours of the segments take more than {} MiB: the result has too many small \
                 parts for an RT Structure Set; ask for other outputs, or let the model package \
                 remove small components",
                self.most >> 20
            ),
        ))
    }
}

/// Writes the contours of a segment in a slice.
struct Encoder<'s> {
    slice: &'s ContourSlice,
    /// Column and row that points are relative to.
    corner: [usize; 2],
    budget: Budget<'s>,
    to: &'s mut Elements,
    contours: usize,
}

impl Encoder<'_> {
    fn put(&mut self, contour: &[Point]) -> Result<()> {
        let before = self.to.len();
        let item = self.to.begin_item();
        self.to.append(&self.slice.reference);
        self.to.text(tags::CONTOUR_GEOMETRIC_TYPE, "CLOSED_PLANAR")?;
        self.to.text(tags::NUMBER_OF_CONTOUR_POINTS, &contour.len().to_string())?;
        let data = self.to.begin(tags::CONTOUR_DATA);
        for &point in contour {
            self.slice.plane.push(point, self.corner, self.to.bytes_mut());
        }
        // No separator follows the last coordinate.
        self.to.bytes_mut().pop();
        self.to.pad(&data, b' ');
        self.to.end(data)?;
        self.to.end(item)?;
        self.contours += 1;
        self.budget.take(self.to.len() - before)
    }
}
