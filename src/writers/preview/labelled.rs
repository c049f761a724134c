//! Access to a segmentation's voxels by segment.

use std::ops::Range;

use ndarray::{ArrayView1, ArrayView3, Axis, s};

use crate::kernels;
use crate::writers::{Label, Voxels};

/// Gives the positions of segments, which are numbered from 0 in the order of their descriptions.
pub trait Labelled: Sync {
    /// Calls `found` with each segment that contains the voxel (x, y, z).
    fn at(&self, voxel: [usize; 3], found: &mut dyn FnMut(usize));

    /// Calls `found` with each run of voxels of one segment in a row of the volume.
    fn runs(&self, y: usize, z: usize, found: &mut dyn FnMut(usize, Range<usize>));
}

/// Voxels with the segments that their values represent.
pub struct SegmentMap<'v, 'a, L> {
    voxels: &'v Voxels<'a, L>,
    /// For each voxel value, the segments that contain it. Values beyond the last belong to none.
    segments: Vec<Vec<usize>>,
}

impl<'v, 'a, L: Label> SegmentMap<'v, 'a, L> {
    /// Maps the label values `values`, in this order, to segments. They are ignored if `voxels` are
    /// masks.
    pub fn new(voxels: &'v Voxels<'a, L>, values: impl IntoIterator<Item = u16>) -> Self {
        let values: Vec<u16> = values.into_iter().collect();
        let of = |value: u16| values.iter().enumerate().filter(move |(_, v)| **v == value);
        let of_value = |value: u16| of(value).map(|(segment, _)| segment).collect::<Vec<_>>();
        let segments = match voxels {
            Voxels::Masks(_) => Vec::new(),
            Voxels::Labels(_) => {
                let most = values.iter().copied().max().unwrap_or(0);
                let mut by_value = vec![Vec::new(); usize::from(most) + 1];
                for (segment, &value) in values.iter().enumerate().filter(|(_, v)| **v != 0) {
                    by_value[usize::from(value)].push(segment);
                }
                by_value
            }
            Voxels::Sets { members, .. } => members
                .iter()
                .map(|set| {
                    set.iter().filter(|value| **value != 0).flat_map(|&v| of_value(v)).collect()
                })
                .collect(),
        };
        Self { voxels, segments }
    }

    fn segments(&self, value: L) -> &[usize] {
        self.segments.get(usize::from(value.into())).map_or(&[], Vec::as_slice)
    }
}

impl<L: Label> Labelled for SegmentMap<'_, '_, L> {
    fn at(&self, [x, y, z]: [usize; 3], found: &mut dyn FnMut(usize)) {
        match self.voxels {
            Voxels::Labels(values) | Voxels::Sets { codes: values, .. } => {
                if let Some(&value) = values.get((x, y, z)) {
                    self.segments(value).iter().for_each(|&segment| found(segment));
                }
            }
            Voxels::Masks(masks) => {
                for (segment, mask) in masks.axis_iter(Axis(0)).enumerate() {
                    if mask.get((x, y, z)).is_some_and(|inside| *inside != 0) {
                        found(segment);
                    }
                }
            }
        }
    }

    fn runs(&self, y: usize, z: usize, found: &mut dyn FnMut(usize, Range<usize>)) {
        match self.voxels {
            Voxels::Labels(values) | Voxels::Sets { codes: values, .. } => {
                for_each_run(row(values, y, z), &mut |value, run| {
                    self.segments(value).iter().for_each(|&segment| found(segment, run.clone()));
                });
            }
            Voxels::Masks(masks) => {
                for (segment, mask) in masks.axis_iter(Axis(0)).enumerate() {
                    for_each_run(row(&mask, y, z), &mut |value, run| {
                        if value != 0 {
                            found(segment, run);
                        }
                    });
                }
            }
        }
    }
}

/// Returns a row of voxels; empty outside the volume.
fn row<'r, T>(values: &'r ArrayView3<'_, T>, y: usize, z: usize) -> ArrayView1<'r, T> {
    let (_, rows, slices) = values.dim();
    if y < rows && z < slices { values.slice(s![.., y, z]) } else { ArrayView1::from(&[]) }
}

/// Calls `found` with each run of equal values, except the value 0.
fn for_each_run<T: Label>(row: ArrayView1<T>, found: &mut dyn FnMut(T, Range<usize>)) {
    let none = T::default();
    let Some(slice) = row.to_slice() else {
        let copy: Vec<T> = row.iter().copied().collect();
        return for_each_run(ArrayView1::from(&copy), found);
    };
    // Most rows are background. This check runs at memory speed; the search for runs does not.
    if kernels::is_uniform(slice, none) {
        return;
    }
    let mut start = 0;
    for run in kernels::runs(slice) {
        let end = start + run.len();
        if let Some(&value) = run.first().filter(|value| **value != none) {
            found(value, start..end);
        }
        start = end;
    }
}

#[cfg(test)]
mod tests {
    use ndarray::{Array3, Array4};

    use super::*;

    fn all<L: Label>(map: &SegmentMap<L>) -> [Vec<[usize; 4]>; 2] {
        let (mut single, mut runs) = (Vec::new(), Vec::new());
        for z in 0..3 {
            for y in 0..4 {
                for x in 0..5 {
                    map.at([x, y, z], &mut |segment| single.push([segment, x, y, z]));
                }
                map.runs(y, z, &mut |segment, run| {
                    runs.extend(run.map(|x| [segment, x, y, z]));
                });
            }
        }
        single.sort_unstable();
        runs.sort_unstable();
        [single, runs]
    }

    #[test]
    fn every_form_has_the_same_segments() {
        let labels = Array3::from_shape_fn((5, 4, 3), |(x, y, z)| match (x / 2 + y + z) % 4 {
            3 => 7_u8,
            value => value as u8,
        });
        let values = [7, 2, 5];
        let masks = Array4::from_shape_fn((3, 5, 4, 3), |(segment, x, y, z)| {
            u8::from(u16::from(labels[[x, y, z]]) == values[segment])
        });
        let members: Vec<Vec<u16>> =
            (0..8).map(|value| if value < 3 { vec![0, value] } else { vec![value] }).collect();
        let expected: Vec<[usize; 4]> = masks
            .indexed_iter()
            .filter(|(_, inside)| **inside != 0)
            .map(|((segment, x, y, z), _)| [segment, x, y, z])
            .collect();
        let mut transposed = labels.clone().reversed_axes().as_standard_layout().into_owned();
        transposed.swap_axes(0, 2);
        let forms = [
            Voxels::Labels(labels.view()),
            Voxels::Labels(transposed.view()),
            Voxels::Masks(masks.view()),
            Voxels::Sets { codes: labels.view(), members: &members },
        ];
        for form in forms {
            let mut expected = expected.clone();
            expected.sort_unstable();
            let [single, runs] = all(&SegmentMap::new(&form, values));
            assert_eq!(single, expected, "{form:?}");
            assert_eq!(runs, expected, "{form:?}");
        }
    }

    #[test]
    fn a_voxel_may_be_of_several_segments() {
        let codes = Array3::from_elem((5, 4, 3), 1_u8);
        let members = vec![vec![], vec![0, 1, 2]];
        let form = Voxels::Sets { codes: codes.view(), members: &members };
        let [single, runs] = all(&SegmentMap::new(&form, [1, 2]));
        assert_eq!(single.len(), 2 * 5 * 4 * 3);
        assert_eq!(single, runs);
    }
}
