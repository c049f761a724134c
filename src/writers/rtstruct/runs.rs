//! Finds the pixels of each segment in a slice, as runs of a row.

use ndarray::Axis;

use crate::dicom::segment::SegmentDescription;
use crate::error::Result;
use crate::writers::layer::{self, Layer, Meaning};
use crate::writers::{Label, Voxels};

/// Pixels of one row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Run {
    pub row: usize,
    pub columns: std::ops::Range<usize>,
}

/// The runs of every segment in a slice, row by row; the memory is reused for the next slice.
#[derive(Debug, Default)]
pub(super) struct SliceRuns {
    of_segment: Vec<Vec<Run>>,
    /// Segments with runs in the slice.
    present: Vec<usize>,
}

impl SliceRuns {
    /// Returns the segments with pixels in the slice, by index, with their runs.
    pub fn segments(&self) -> impl Iterator<Item = (usize, &[Run])> {
        self.present
            .iter()
            .filter_map(|&segment| Some((segment, &self.of_segment.get(segment)?[..])))
    }

    fn clear(&mut self, segments: usize) {
        for segment in self.present.drain(..) {
            if let Some(runs) = self.of_segment.get_mut(segment) {
                runs.clear();
            }
        }
        self.of_segment.resize_with(segments, Vec::new);
    }

    fn add(&mut self, segment: usize, run: Run) {
        let Some(runs) = self.of_segment.get_mut(segment) else { return };
        if runs.is_empty() {
            self.present.push(segment);
        }
        runs.push(run);
    }
}

/// The source of a segmentation's runs.
pub(super) enum Source<'a, L: Label> {
    /// One layer for all segments, with their number.
    One(Layer<'a, L>, usize),
    /// One mask per segment.
    Masks(Vec<Layer<'a, u8>>),
}

impl<'a, L: Label> Source<'a, L> {
    /// Prepares the voxels for reading.
    pub fn new(voxels: &Voxels<'a, L>, segments: &[SegmentDescription]) -> Result<Self> {
        let one = |layer| Self::One(layer, segments.len());
        match voxels {
            Voxels::Labels(labels) => Layer::new(*labels, layer::labels(segments)).map(one),
            Voxels::Sets { codes, members } => {
                Layer::new(*codes, layer::sets(members, segments)).map(one)
            }
            Voxels::Masks(masks) => {
                let count = masks.len_of(Axis(0)).min(segments.len());
                let views = (0..count).map(|index| masks.index_axis_move(Axis(0), index));
                let meaning = [Meaning::Segments(vec![]), Meaning::Segments(vec![0])].to_vec();
                let layers = views.map(|view| Layer::new(view, meaning.clone()));
                layers.collect::<Result<_>>().map(Self::Masks)
            }
        }
    }

    /// Finds the runs of a slice.
    ///
    /// # Errors
    /// `InvalidModel` if a voxel's value has no description.
    pub fn read(&self, slice: usize, runs: &mut SliceRuns) -> Result<()> {
        match self {
            Self::One(layer, segments) => {
                runs.clear(*segments);
                read_layer(layer, slice, 0, runs)
            }
            Self::Masks(masks) => {
                runs.clear(masks.len());
                masks
                    .iter()
                    .enumerate()
                    .try_for_each(|(segment, mask)| read_layer(mask, slice, segment, runs))
            }
        }
    }
}

/// Adds the runs of a layer's slice; its segments are numbered from `first`.
fn read_layer<T: Label>(
    layer: &Layer<T>,
    slice: usize,
    first: usize,
    to: &mut SliceRuns,
) -> Result<()> {
    let mut runs = Vec::new();
    for row in 0..layer.dims[1] {
        layer.runs(layer.row(row, slice), &mut runs)?;
        for run in &runs {
            let columns = usize::from(run.start)..usize::from(run.end);
            to.add(first + usize::from(run.segment), Run { row, columns });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use ndarray::{Array3, Array4};

    use super::*;
    use crate::error::ErrorKind;

    fn segment(value: u16) -> SegmentDescription {
        SegmentDescription::tissue(value, &format!("class {value}"))
    }

    fn read<L: Label>(
        voxels: &Voxels<L>,
        segments: &[SegmentDescription],
    ) -> Vec<Vec<(usize, Vec<Run>)>> {
        let source = Source::new(voxels, segments).unwrap();
        let mut runs = SliceRuns::default();
        let slices = 0..voxels.dim().2;
        slices
            .map(|slice| {
                source.read(slice, &mut runs).unwrap();
                let mut found: Vec<_> =
                    runs.segments().map(|(i, runs)| (i, runs.to_vec())).collect();
                found.sort_by_key(|(segment, _)| *segment);
                found
            })
            .collect()
    }

    #[test]
    fn every_form_has_the_same_runs() {
        let labels = Array3::from_shape_fn((9, 4, 3), |(x, y, z)| match (x, y, z) {
            (2..5, 1..3, 1) => 7_u8,
            (5.., 1, 1) | (0, 3, 2) => 2,
            _ => 0,
        });
        let segments = [segment(2), segment(7)];
        let found = read(&Voxels::Labels(labels.view()), &segments);
        assert!(found[0].is_empty());
        let run = |row, columns| Run { row, columns };
        assert_eq!(found[1], [(0, vec![run(1, 5..9)]), (1, vec![run(1, 2..5), run(2, 2..5)])]);
        assert_eq!(found[2], [(0, vec![run(3, 0..1)])]);

        let masks = Array4::from_shape_fn((2, 9, 4, 3), |(i, x, y, z)| {
            u8::from(u16::from(labels[[x, y, z]]) == segments[i].value)
        });
        assert_eq!(read(&Voxels::<u8>::Masks(masks.view()), &segments), found);
        let members = vec![vec![], vec![0], vec![0, 7], vec![2]];
        let codes = labels.mapv(|label| match label {
            7 => 2_u16,
            2 => 3,
            _ => 1,
        });
        let sets = Voxels::Sets { codes: codes.view(), members: &members };
        assert_eq!(read(&sets, &segments), found);
    }

    #[test]
    fn a_voxel_of_several_segments_is_in_the_runs_of_each() {
        let codes = Array3::from_shape_fn((4, 1, 1), |(x, ..)| [0_u16, 1, 2, 2][x]);
        let members = vec![vec![], vec![1], vec![1, 2]];
        let voxels = Voxels::Sets { codes: codes.view(), members: &members };
        let found = read(&voxels, &[segment(1), segment(2)]);
        let of =
            |segment: usize| found[0][segment].1.iter().map(|r| (r.columns.start, r.columns.end));
        assert_eq!(of(0).collect::<Vec<_>>(), [(1, 4)]);
        assert_eq!(of(1).collect::<Vec<_>>(), [(2, 4)]);
    }

    #[test]
    fn a_value_without_a_description_is_refused() {
        let labels = Array3::from_elem((2, 2, 1), 3_u8);
        for segments in [[segment(1)], [segment(4)]] {
            let source = Source::new(&Voxels::Labels(labels.view()), &segments).unwrap();
            let error = source.read(0, &mut SliceRuns::default()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidModel);
        }
    }
}
