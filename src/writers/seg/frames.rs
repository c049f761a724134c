//! From a label map to bit-packed frames. One pass over the labels counts the voxels of every
//! segment and finds which frames are not empty; a second one, over the rows that hold something,
//! sets the bits. Nothing of the size of a volume is made for any segment.

use std::borrow::Cow;
use std::ops::Range;

use ndarray::ArrayView3;
use rayon::prelude::*;

use crate::dicom::segment::SegmentDescription;
use crate::error::{Error, ErrorKind, Result};
use crate::writers::Label;
use crate::writers::layout::slice_order;

/// A label map with its slices one after the other, each row by row.
pub(super) struct LabelMap<'a, L: Clone> {
    voxels: Cow<'a, [L]>,
    columns: usize,
    rows: usize,
}

/// One frame of the object to write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PlannedFrame {
    /// Index into the segment descriptions.
    pub segment: usize,
    /// Index into the slices.
    pub slice: usize,
    /// The rows that hold voxels of the segment lie in this range.
    pub rows: Range<usize>,
}

/// What is in a label map.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Survey {
    /// Voxels of each segment, in the order of the descriptions.
    pub voxels: Vec<u64>,
    /// The frames that are not empty, by segment and then by slice.
    pub frames: Vec<PlannedFrame>,
}

/// What one slice holds of a segment.
struct Content {
    segment: usize,
    voxels: u64,
    rows: Range<usize>,
}

impl<'a, L: Label> LabelMap<'a, L> {
    /// `labels` has the axes (X, Y, Z).
    pub fn new(labels: ArrayView3<'a, L>) -> Self {
        let (columns, rows, _) = labels.dim();
        Self { voxels: slice_order(labels), columns, rows }
    }

    fn pixels(&self) -> usize {
        self.columns * self.rows
    }

    /// Counts voxels and finds the frames that are not empty. A value without a description is an
    /// error: dropping it would lose what the network found.
    pub fn survey(&self, segments: &[SegmentDescription]) -> Result<Survey> {
        let mut segment_of = vec![None; usize::from(u16::MAX) + 1];
        for (index, segment) in segments.iter().enumerate() {
            if let Some(entry) = segment_of.get_mut(usize::from(segment.value)) {
                *entry = Some(index);
            }
        }
        let contents: Vec<Vec<Content>> = self
            .voxels
            .par_chunks_exact(self.pixels())
            .map(|plane| self.slice_content(plane, &segment_of, segments.len()))
            .collect::<Result<_>>()?;

        let mut survey = Survey { voxels: vec![0; segments.len()], frames: Vec::new() };
        for (slice, contents) in contents.into_iter().enumerate() {
            for content in contents {
                if let Some(voxels) = survey.voxels.get_mut(content.segment) {
                    *voxels += content.voxels;
                }
                let Content { segment, rows, .. } = content;
                survey.frames.push(PlannedFrame { segment, slice, rows });
            }
        }
        survey.frames.sort_by_key(|frame| (frame.segment, frame.slice));
        Ok(survey)
    }

    fn slice_content(
        &self,
        plane: &[L],
        segment_of: &[Option<usize>],
        segments: usize,
    ) -> Result<Vec<Content>> {
        let mut found: Vec<Option<Content>> = Vec::new();
        for (y, row) in plane.chunks_exact(self.columns).enumerate() {
            // Most rows are background: this test runs at the speed of memory, the runs do not.
            if row.iter().fold(0, |bits, &label| bits | label.into()) == 0 {
                continue;
            }
            for run in row.chunk_by(|a, b| a == b) {
                let value: u16 = run.first().map_or(0, |&label| label.into());
                if value == 0 {
                    continue;
                }
                let segment =
                    segment_of.get(usize::from(value)).copied().flatten().ok_or_else(|| {
                        Error::new(
                            ErrorKind::InvalidModel,
                            format!(
                                "the label map has the value {value}, for which the model package \
                                 describes no segment"
                            ),
                        )
                        .with("labelValue", value)
                    })?;
                if found.is_empty() {
                    found.resize_with(segments, || None);
                }
                if let Some(entry) = found.get_mut(segment) {
                    let content =
                        entry.get_or_insert(Content { segment, voxels: 0, rows: y..y + 1 });
                    content.voxels += run.len() as u64;
                    content.rows.end = y + 1;
                }
            }
        }
        Ok(found.into_iter().flatten().collect())
    }

    /// Sets, in the zeroed `out`, a bit for every voxel of a frame's segment: frames follow each
    /// other without padding, row by row, the first pixel in the least significant bit (PS3.5
    /// 8.1.1). `out` has at least [`packed_length`] bytes.
    pub fn pack(&self, frames: &[PlannedFrame], segments: &[SegmentDescription], out: &mut [u8]) {
        // Where frames do not end on a byte, only every second, fourth or eighth one does: those
        // that share bytes are packed by one thread.
        let pixels = self.pixels();
        let together = 8 >> pixels.trailing_zeros().min(3);
        out.par_chunks_mut(pixels * together / 8).zip(frames.par_chunks(together)).for_each(
            |(out, frames)| {
                for (index, frame) in frames.iter().enumerate() {
                    let value = segments.get(frame.segment).map_or(0, |segment| segment.value);
                    let plane = self.voxels.chunks_exact(pixels).nth(frame.slice).unwrap_or(&[]);
                    let rows = plane.chunks_exact(self.columns).enumerate();
                    for (y, row) in rows.take(frame.rows.end).skip(frame.rows.start) {
                        pack_row(row, value, out, index * pixels + y * self.columns);
                    }
                }
            },
        );
    }
}

/// Bytes of Pixel Data for `frames` frames of `pixels` pixels: bits rounded up to an even number of
/// bytes (PS3.5 8.1.1), `None` where that overflows.
pub(super) fn packed_length(frames: usize, pixels: usize) -> Option<usize> {
    let bits = frames.checked_mul(pixels)?;
    bits.div_ceil(8).checked_next_multiple_of(2)
}

/// Sets the bits of `out`, counted from `start`, where `row` equals `value`.
fn pack_row<L: Label>(row: &[L], value: u16, out: &mut [u8], start: usize) {
    let bits = |labels: &[L]| {
        labels.iter().rev().fold(0_u8, |bits, &label| bits << 1 | u8::from(label.into() == value))
    };
    let Some(out) = out.get_mut(start / 8..) else { return };
    let mut out = out.iter_mut();
    let lead = (start.wrapping_neg() % 8).min(row.len());
    let (head, rest) = row.split_at(lead);
    if !head.is_empty()
        && let Some(byte) = out.next()
    {
        *byte |= bits(head) << (start % 8);
    }
    for (byte, labels) in out.zip(rest.chunks(8)) {
        *byte |= bits(labels);
    }
}

#[cfg(test)]
mod tests {
    use ndarray::Array3;

    use super::*;
    use crate::dicom::segment::Code;

    fn segment(value: u16) -> SegmentDescription {
        SegmentDescription {
            value,
            label: format!("class {value}"),
            category: Code::sct("85756007", "Tissue"),
            property_type: Code::sct("85756007", "Tissue"),
            type_modifier: None,
            anatomic_region: None,
            color: None,
        }
    }

    #[test]
    fn bits_run_on_across_frames() {
        // 3 columns, 1 row, 3 slices: 9 bits, of which the last begins the second byte.
        let labels = Array3::from_shape_fn((3, 1, 3), |(x, _, z)| u8::from((x + z) % 2 == 0));
        let map = LabelMap::new(labels.view());
        let survey = map.survey(&[segment(1)]).unwrap();
        assert_eq!(survey.voxels, [5]);
        assert_eq!(packed_length(3, 3), Some(2));
        let mut out = vec![0; 2];
        map.pack(&survey.frames, &[segment(1)], &mut out);
        // Pixels 101 010 101, the first in the least significant bit.
        assert_eq!(out, [0b0101_0101, 0b1]);
    }

    #[test]
    fn a_value_without_a_description_is_refused() {
        let labels = Array3::from_elem((2, 2, 1), 7_u8);
        let e = LabelMap::new(labels.view()).survey(&[segment(1)]).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::InvalidModel);
        assert_eq!(e.details()["labelValue"], 7);
    }

    #[test]
    fn frames_are_ordered_by_segment_then_slice() {
        let labels = Array3::from_shape_fn((2, 3, 3), |(x, y, z)| match (x, y, z) {
            (0, 1, 0) | (1, 2, 0) | (0, 0, 2) => 2_u8,
            (1, 0, 2) => 1,
            _ => 0,
        });
        let survey = LabelMap::new(labels.view()).survey(&[segment(1), segment(2)]).unwrap();
        let frame = |segment, slice, rows| PlannedFrame { segment, slice, rows };
        assert_eq!(survey.frames, [frame(0, 2, 0..1), frame(1, 0, 1..3), frame(1, 2, 0..1)]);
        assert_eq!(survey.voxels, [1, 3]);
    }
}
