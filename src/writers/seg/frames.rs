//! Converts a label map or masks to frames: either bit-packed, one for each segment and slice, or of
//! Segment Numbers, one for each slice. One pass over the labels counts the voxels of every segment and
//! finds the nonempty frames; a second pass, over the nonempty rows, sets the pixels. Nothing of the
//! size of a volume is allocated for any segment.

use std::borrow::Cow;
use std::ops::Range;

use ndarray::{ArrayView3, Axis};
use rayon::prelude::*;

use crate::dicom::segment::SegmentDescription;
use crate::error::{Error, ErrorKind, Result};
use crate::kernels;
use crate::writers::layout::slice_order;
use crate::writers::{Label, Voxels};

/// A label map slice by slice, each row by row.
pub(super) struct LabelMap<'a, L: Clone> {
    voxels: Cow<'a, [L]>,
    /// If voxels are sets of values, the values of each set.
    members: Option<&'a [Vec<u16>]>,
    columns: usize,
    rows: usize,
}

/// One frame of the object to write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PlannedFrame {
    /// Index into the segment descriptions; `None` if the frame shows all segments.
    pub segment: Option<usize>,
    /// Index into the slices.
    pub slice: usize,
    /// Range of rows that contains the voxels of the segment, or of any.
    pub rows: Range<usize>,
}

/// The content of a label map.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Survey {
    /// Number of voxels of each segment, in the order of the descriptions.
    pub voxels: Vec<u64>,
    /// The nonempty frames, ordered by segment and then by slice.
    pub frames: Vec<PlannedFrame>,
}

/// The content of one slice for a segment.
struct Content {
    segment: usize,
    voxels: u64,
    rows: Range<usize>,
}

impl<'a, L: Label> LabelMap<'a, L> {
    /// Creates a label map from `labels`, axes (X, Y, Z).
    pub fn new(labels: ArrayView3<'a, L>) -> Self {
        let (columns, rows, _) = labels.dim();
        Self { voxels: slice_order(labels), members: None, columns, rows }
    }

    fn pixels(&self) -> usize {
        self.columns * self.rows
    }

    /// Counts voxels and finds the nonempty frames. A value without a description is an error: dropping
    /// it would lose a finding of the network.
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
                survey.frames.push(PlannedFrame { segment: Some(segment), slice, rows });
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
            // Most rows are background. This check runs at memory speed; the search for runs does not.
            if kernels::is_uniform(row, L::default()) {
                continue;
            }
            for run in kernels::runs(row) {
                let value: u16 = run.first().map_or(0, |&label| label.into());
                let alone = [value];
                for &value in self.values(&alone).iter().filter(|value| **value != 0) {
                    let segment =
                        segment_of.get(usize::from(value)).copied().flatten().ok_or_else(|| {
                            Error::new(
                                ErrorKind::InvalidModel,
                                format!(
                                    "the label map has the value {value}, for which the model \
                                     package describes no segment"
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
        }
        Ok(found.into_iter().flatten().collect())
    }

    /// Returns the values that a voxel's value represents.
    fn values<'v>(&'v self, alone: &'v [u16; 1]) -> &'v [u16] {
        match self.members {
            None => alone,
            Some(members) => members.get(usize::from(alone[0])).map_or(&[], Vec::as_slice),
        }
    }

    /// Returns, if voxel values are sets, whether each set contains `value`.
    fn having(&self, value: u16) -> Option<Vec<bool>> {
        self.members.map(|members| members.iter().map(|set| set.contains(&value)).collect())
    }

    /// Whether any voxel has several values other than 0.
    fn overlap(&self) -> bool {
        let Some(members) = self.members else { return false };
        let several = |set: &Vec<u16>| set.iter().filter(|value| **value != 0).count() > 1;
        let several: Vec<bool> = members.iter().map(several).collect();
        let code = |&voxel: &L| usize::from(Into::<u16>::into(voxel));
        self.voxels.par_iter().any(|voxel| several.get(code(voxel)).copied().unwrap_or(false))
    }

    /// Returns the Segment Number for each value of a voxel; 0 for background.
    fn numbers(&self, segments: &[SegmentDescription]) -> Vec<u16> {
        let mut of_value = vec![0; usize::from(u16::MAX) + 1];
        for (segment, number) in segments.iter().zip(1..) {
            of_value[usize::from(segment.value)] = number;
        }
        let Some(members) = self.members else { return of_value };
        let number = |set: &Vec<u16>| set.iter().map(|value| of_value[usize::from(*value)]).max();
        members.iter().map(|set| number(set).unwrap_or(0)).collect()
    }

    /// Sets, in `out`, the pixels of a frame's slice for which `numbers` has a number.
    fn paint(&self, frame: &PlannedFrame, numbers: &[u16], out: &mut [u16]) {
        let rows = frame.rows.start * self.columns..frame.rows.end * self.columns;
        let (Some(voxels), Some(out)) =
            (self.plane(frame.slice).get(rows.clone()), out.get_mut(rows))
        else {
            return;
        };
        for (pixel, &voxel) in out.iter_mut().zip(voxels) {
            let value: u16 = voxel.into();
            match numbers.get(usize::from(value)) {
                None | Some(0) => {}
                Some(&number) => *pixel = number,
            }
        }
    }

    /// Returns the rows of one slice.
    fn plane(&self, slice: usize) -> &[L] {
        self.voxels.chunks_exact(self.pixels()).nth(slice).unwrap_or(&[])
    }
}

/// The source of the segments.
pub(super) enum Layers<'a, L: Clone> {
    /// One label map, or map of label sets, for all segments.
    Labels(LabelMap<'a, L>),
    /// One mask per segment, in the order of the descriptions.
    Masks(Vec<LabelMap<'a, u8>>),
}

impl<'a, L: Label> Layers<'a, L> {
    pub fn new(voxels: &Voxels<'a, L>) -> Self {
        match voxels {
            Voxels::Labels(labels) => Self::Labels(LabelMap::new(*labels)),
            Voxels::Sets { codes, members } => {
                Self::Labels(LabelMap { members: Some(members), ..LabelMap::new(*codes) })
            }
            Voxels::Masks(masks) => {
                let channels = masks.axis_iter(Axis(0)).enumerate();
                let views = channels.map(|(c, _)| masks.index_axis_move(Axis(0), c));
                Self::Masks(views.map(LabelMap::new).collect())
            }
        }
    }

    /// Counts voxels and finds the nonempty frames. A label without a description is an error, and so
    /// is a mask with a value other than 0 and 1.
    pub fn survey(&self, segments: &[SegmentDescription]) -> Result<Survey> {
        let masks = match self {
            Self::Labels(map) => return map.survey(segments),
            Self::Masks(masks) => masks,
        };
        let mut all = Survey { voxels: vec![0; segments.len()], frames: Vec::new() };
        for (index, (mask, segment)) in masks.iter().zip(segments).enumerate() {
            let alone = SegmentDescription { value: MASK, ..segment.clone() };
            let found = mask.survey(std::slice::from_ref(&alone))?;
            all.voxels[index] = found.voxels.first().copied().unwrap_or(0);
            let frames = found.frames.into_iter();
            all.frames.extend(frames.map(|frame| PlannedFrame { segment: Some(index), ..frame }));
        }
        Ok(all)
    }

    /// Whether any voxel belongs to several segments.
    pub fn overlap(&self) -> bool {
        let masks = match self {
            Self::Masks(masks) => masks,
            Self::Labels(map) => return map.overlap(),
        };
        let Some(first) = masks.first() else { return false };
        let indices = 0..first.voxels.len();
        indices.into_par_iter().any(|i| {
            masks.iter().filter(|mask| mask.voxels.get(i).is_some_and(|v| *v != 0)).count() > 1
        })
    }

    /// Sets, in the zeroed `out`, a bit for every voxel of a frame's segment. Frames follow each other
    /// without padding, row by row, the first pixel in the least significant bit (PS3.5 8.1.1). `out`
    /// must have at least [`packed_length`] bytes.
    pub fn pack(&self, frames: &[PlannedFrame], segments: &[SegmentDescription], out: &mut [u8]) {
        match self {
            Self::Labels(map) => {
                let value = |frame: &PlannedFrame| Some(segments.get(frame.segment?)?.value);
                pack(frames, |frame| value(frame).map(|value| (map, value)), out);
            }
            Self::Masks(masks) => {
                let mask = |frame: &PlannedFrame| masks.get(frame.segment?);
                pack(frames, |frame| mask(frame).map(|mask| (mask, MASK)), out);
            }
        }
    }
}

/// The Segment Number of each voxel value, once for a label map, or for each mask.
pub(super) struct Numbers(Vec<Vec<u16>>);

impl<L: Label> Layers<'_, L> {
    /// Returns the numbers of `segments`, counted from 1 in order.
    pub fn numbers(&self, segments: &[SegmentDescription]) -> Numbers {
        Numbers(match self {
            Self::Labels(map) => vec![map.numbers(segments)],
            // For the values 0 and 1.
            Self::Masks(masks) => (1..).take(masks.len()).map(|number| vec![0, number]).collect(),
        })
    }

    /// Sets, in the zeroed `out`, the Segment Number of every voxel of a frame's slice, row by row. If
    /// segments overlap, the last one is visible.
    pub fn paint(&self, frame: &PlannedFrame, numbers: &Numbers, out: &mut [u16]) {
        match self {
            Self::Labels(map) => {
                numbers.0.iter().for_each(|numbers| map.paint(frame, numbers, out));
            }
            Self::Masks(masks) => {
                let layers = masks.iter().zip(&numbers.0);
                layers.for_each(|(mask, numbers)| mask.paint(frame, numbers, out));
            }
        }
    }
}

/// The value of a mask inside its segment.
const MASK: u16 = 1;

/// Packs `frames`; `source` gives the map and value of each.
fn pack<'m, L: Label + 'm>(
    frames: &[PlannedFrame],
    source: impl Fn(&PlannedFrame) -> Option<(&'m LabelMap<'m, L>, u16)> + Sync,
    out: &mut [u8],
) {
    let Some((map, _)) = frames.first().and_then(&source) else { return };
    let (pixels, columns) = (map.pixels(), map.columns);
    // If frames do not end on a byte boundary, only every second, fourth or eighth one does: frames
    // that share bytes are packed by one thread.
    let together = 8 >> pixels.trailing_zeros().min(3);
    out.par_chunks_mut(pixels * together / 8).zip(frames.par_chunks(together)).for_each(
        |(out, frames)| {
            for (index, frame) in frames.iter().enumerate() {
                let Some((map, value)) = source(frame) else { continue };
                let having = map.having(value);
                let rows = map.plane(frame.slice).chunks_exact(columns).enumerate();
                for (y, row) in rows.take(frame.rows.end).skip(frame.rows.start) {
                    let start = index * pixels + y * columns;
                    match &having {
                        None => pack_row(row, |label| label == value, out, start),
                        Some(having) => pack_row(
                            row,
                            |code| having.get(usize::from(code)).copied().unwrap_or(false),
                            out,
                            start,
                        ),
                    }
                }
            }
        },
    );
}

/// Returns the bytes of Pixel Data for `frames` frames of `pixels` pixels: the bits, rounded up to an
/// even number of bytes (PS3.5 8.1.1). Returns `None` on overflow.
pub(super) fn packed_length(frames: usize, pixels: usize) -> Option<usize> {
    let bits = frames.checked_mul(pixels)?;
    bits.div_ceil(8).checked_next_multiple_of(2)
}

/// Sets the bits of `out`, counted from `start`, for the values of `row` that are chosen.
fn pack_row<L: Label>(row: &[L], chosen: impl Fn(u16) -> bool, out: &mut [u8], start: usize) {
    let bits = |labels: &[L]| {
        labels.iter().rev().fold(0_u8, |bits, &label| bits << 1 | u8::from(chosen(label.into())))
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

    fn segment(value: u16) -> SegmentDescription {
        SegmentDescription::tissue(value, &format!("class {value}"))
    }

    #[test]
    fn bits_run_on_across_frames() {
        // 3 columns, 1 row, 3 slices: 9 bits, of which the last starts the second byte.
        let labels = Array3::from_shape_fn((3, 1, 3), |(x, _, z)| u8::from((x + z) % 2 == 0));
        let map = Layers::new(&Voxels::Labels(labels.view()));
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
        let frame = |segment, slice, rows| PlannedFrame { segment: Some(segment), slice, rows };
        assert_eq!(survey.frames, [frame(0, 2, 0..1), frame(1, 0, 1..3), frame(1, 2, 0..1)]);
        assert_eq!(survey.voxels, [1, 3]);
    }

    #[test]
    fn every_form_is_painted_alike() {
        let labels = Array3::from_shape_fn((5, 4, 2), |(x, y, _)| [0_u16, 900, 7][(x + y) % 3]);
        let members: Vec<Vec<u16>> = vec![vec![], vec![0, 7], vec![900]];
        let codes = labels.mapv(|label| match label {
            0 => 0_u16,
            900 => 2,
            _ => 1,
        });
        let masks = ndarray::Array4::from_shape_fn((2, 5, 4, 2), |(segment, x, y, z)| {
            u8::from(labels[[x, y, z]] == [7, 900][segment])
        });
        let segments = [segment(7), segment(900)];
        let frame = PlannedFrame { segment: None, slice: 1, rows: 1..3 };
        let painted = |layers: &Layers<u16>| {
            let mut out = vec![0; 20];
            layers.paint(&frame, &layers.numbers(&segments), &mut out);
            out
        };
        let expected: Vec<u16> = (0..20)
            .map(|i| match (i / 5, labels[[i % 5, i / 5, 1]]) {
                (1..3, 7) => 1,
                (1..3, 900) => 2,
                _ => 0,
            })
            .collect();
        let sets = Voxels::Sets { codes: codes.view(), members: &members };
        for voxels in [Voxels::Labels(labels.view()), sets, Voxels::Masks(masks.view())] {
            let layers = Layers::new(&voxels);
            assert!(!layers.overlap());
            assert_eq!(painted(&layers), expected, "{voxels:?}");
        }
    }

    #[test]
    fn sets_are_written_as_their_masks_are() {
        let members: Vec<Vec<u16>> = vec![vec![], vec![0], vec![0, 2], vec![1, 2], vec![1]];
        let codes = Array3::from_shape_fn((5, 3, 2), |(x, y, z)| ((x * y + z) % 5) as u16);
        let mut masks = ndarray::Array4::<u8>::zeros((2, 5, 3, 2));
        for ((x, y, z), &code) in codes.indexed_iter() {
            for value in [1, 2_u16] {
                masks[[usize::from(value) - 1, x, y, z]] =
                    u8::from(members[usize::from(code)].contains(&value));
            }
        }
        let segments = [segment(1), segment(2)];
        let sets = Layers::new(&Voxels::Sets { codes: codes.view(), members: &members });
        let masks = Layers::<u8>::new(&Voxels::Masks(masks.view()));
        let survey = sets.survey(&segments).unwrap();
        assert_eq!(survey, masks.survey(&segments).unwrap());
        assert!(sets.overlap() && masks.overlap());
        let (mut a, mut b) = (vec![0; 8], vec![0; 8]);
        sets.pack(&survey.frames, &segments, &mut a);
        masks.pack(&survey.frames, &segments, &mut b);
        assert_eq!(a, b);
        assert!(sets.survey(&segments[..1]).is_err(), "a value without a description");
    }

    #[test]
    fn masks_may_share_voxels() {
        let mut masks = ndarray::Array4::<u8>::zeros((2, 4, 2, 3));
        masks.index_axis_mut(Axis(0), 0).slice_mut(ndarray::s![1..3, 0, 2]).fill(1);
        masks.index_axis_mut(Axis(0), 1).slice_mut(ndarray::s![2..4, 0..2, 2]).fill(1);
        let layers = Layers::<u8>::new(&Voxels::Masks(masks.view()));
        assert!(layers.overlap());
        // Descriptions of masks may have any value.
        let segments = [segment(5), segment(1)];
        let survey = layers.survey(&segments).unwrap();
        assert_eq!(survey.voxels, [2, 4]);
        let frame = |segment, rows| PlannedFrame { segment: Some(segment), slice: 2, rows };
        assert_eq!(survey.frames, [frame(0, 0..1), frame(1, 0..2)]);
        let mut out = vec![0; 2];
        layers.pack(&survey.frames, &segments, &mut out);
        assert_eq!(out, [0b0000_0110, 0b1100_1100]);
        masks.index_axis_mut(Axis(0), 0).fill(0);
        assert!(!Layers::<u8>::new(&Voxels::Masks(masks.view())).overlap());
    }
}
