//! Reads a segmentation row by row, as runs of voxels of each segment, for writers and measurements.

use std::borrow::Cow;

use ndarray::ArrayView3;

use crate::dicom::segment::SegmentDescription;
use crate::error::{Error, ErrorKind, Result};
use crate::kernels;
use crate::writers::Label;
use crate::writers::layout::slice_order;

/// The segments of the voxels with some value.
#[derive(Debug, Clone)]
pub(in crate::writers) enum Meaning {
    /// Positions of the segments in the descriptions.
    Segments(Vec<u16>),
    /// A label that has no description.
    Undescribed(u16),
}

/// Voxels slice by slice, each row by row.
pub(in crate::writers) struct Layer<'a, L: Clone> {
    voxels: Cow<'a, [L]>,
    /// Columns, rows and slices.
    pub(in crate::writers) dims: [usize; 3],
    /// The meaning of each value; values beyond belong to no segment.
    meaning: Vec<Meaning>,
}

/// Limit on the pixels of a slice, so that 32 bits can count those of a slab and of the slice before
/// it.
const MOST_PIXELS: usize = (u32::MAX / 16) as usize;

/// Voxels `start..end` of a row that belong to a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::writers) struct Run {
    pub(in crate::writers) segment: u16,
    pub(in crate::writers) start: u16,
    pub(in crate::writers) end: u16,
}

/// Returns the meaning of the values of a label map. 0 is background.
pub(in crate::writers) fn labels(segments: &[SegmentDescription]) -> Vec<Meaning> {
    // Every possible label.
    let mut meaning: Vec<Meaning> = (0..=u16::MAX).map(Meaning::Undescribed).collect();
    meaning[0] = Meaning::Segments(Vec::new());
    for (segment, index) in segments.iter().zip(0..) {
        meaning[usize::from(segment.value)] = Meaning::Segments(vec![index]);
    }
    meaning
}

/// Returns the meaning of the codes of label sets. The member 0 is background.
pub(in crate::writers) fn sets(
    members: &[Vec<u16>],
    segments: &[SegmentDescription],
) -> Vec<Meaning> {
    let position = |label: u16| segments.iter().zip(0..).find(|(s, _)| s.value == label);
    let meaning = |set: &Vec<u16>| {
        let labels = set.iter().copied().filter(|label| *label != 0);
        let found: Result<Vec<u16>, u16> =
            labels.map(|label| position(label).map(|(_, index)| index).ok_or(label)).collect();
        found.map_or_else(Meaning::Undescribed, Meaning::Segments)
    };
    members.iter().map(meaning).collect()
}

impl<'a, L: Label> Layer<'a, L> {
    /// Creates a layer of `voxels`, axes (X, Y, Z).
    pub(in crate::writers) fn new(
        voxels: ArrayView3<'a, L>,
        meaning: Vec<Meaning>,
    ) -> Result<Self> {
        let (columns, rows, slices) = voxels.dim();
        // Runs store columns in 16 bits, and components of a slab are counted in 32.
        let pixels = columns.saturating_mul(rows);
        if columns > usize::from(u16::MAX) || pixels > MOST_PIXELS {
            return Err(Error::internal(format!("slices of {columns} × {rows} pixels")));
        }
        Ok(Self { voxels: slice_order(voxels), dims: [columns, rows, slices], meaning })
    }

    /// Returns the voxels of row `y` of slice `z`; empty if there is no such row.
    pub(in crate::writers) fn row(&self, y: usize, z: usize) -> &[L] {
        let [columns, rows, _] = self.dims;
        let start = (z * rows + y) * columns;
        self.voxels.get(start..start + columns).unwrap_or_default()
    }

    /// Finds the runs of a row, ordered by segment and then from left to right.
    pub(in crate::writers) fn runs(&self, row: &[L], runs: &mut Vec<Run>) -> Result<()> {
        runs.clear();
        let Some(&first) = row.first() else { return Ok(()) };
        // Most rows are background. This check runs at memory speed; the search for runs does not.
        if kernels::is_uniform(row, first) {
            let end = row.len() as u16;
            runs.extend(self.segments(first.into())?.iter().map(|&segment| Run {
                segment,
                start: 0,
                end,
            }));
            return Ok(());
        }
        let mut open: Vec<Run> = Vec::new();
        let mut at = 0;
        for part in kernels::runs(row) {
            let segments = self.segments(part.first().map_or(0, |&label| label.into()))?;
            open.retain(|run| {
                let stays = segments.contains(&run.segment);
                if !stays {
                    runs.push(Run { end: at, ..*run });
                }
                stays
            });
            for &segment in segments {
                if !open.iter().any(|run| run.segment == segment) {
                    open.push(Run { segment, start: at, end: at });
                }
            }
            at += part.len() as u16;
        }
        runs.extend(open.into_iter().map(|run| Run { end: at, ..run }));
        runs.sort_unstable_by_key(|run| (run.segment, run.start));
        Ok(())
    }

    fn segments(&self, value: u16) -> Result<&[u16]> {
        match self.meaning.get(usize::from(value)) {
            Some(Meaning::Segments(segments)) => Ok(segments),
            None => Ok(&[]),
            Some(Meaning::Undescribed(label)) => Err(Error::new(
                ErrorKind::InvalidModel,
                format!("the network gave label {label}, which channel_def does not describe"),
            )
            .with("labelValue", *label)),
        }
    }
}

#[cfg(test)]
mod tests {
    use ndarray::Array3;

    use super::*;

    #[test]
    fn runs_of_overlapping_sets_go_on_while_their_segment_does() {
        let codes = Array3::from_shape_vec((7, 1, 1), vec![0_u8, 1, 2, 3, 3, 1, 1]).unwrap();
        let segments = [vec![], vec![0], vec![0, 1], vec![1]].map(Meaning::Segments).to_vec();
        let layer = Layer::new(codes.view(), segments).unwrap();
        let mut runs = Vec::new();
        layer.runs(layer.row(0, 0), &mut runs).unwrap();
        let run = |segment, start, end| Run { segment, start, end };
        assert_eq!(runs, [run(0, 1, 3), run(0, 5, 7), run(1, 2, 5)]);
        assert!(layer.row(0, 1).is_empty());
    }

    #[test]
    fn rows_of_one_value_are_one_run() {
        let labels = Array3::from_elem((5, 2, 1), 3_u8);
        let meaning = vec![Meaning::Undescribed(9); 3];
        let layer = Layer::new(labels.view(), [meaning, vec![Meaning::Segments(vec![4])]].concat());
        let layer = layer.unwrap();
        let mut runs = Vec::new();
        layer.runs(layer.row(1, 0), &mut runs).unwrap();
        assert_eq!(runs, [Run { segment: 4, start: 0, end: 5 }]);
        let e = layer.runs(&[1, 3], &mut runs).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::InvalidModel);
        assert!(e.message().contains("label 9"), "{e}");
    }
}
