//! The voxels of a segmentation, as passed to every writer.

use std::ops::Range;

use ndarray::{Array3, ArrayView3, ArrayView4, Axis, ShapeBuilder, Zip, s};

use super::Label;

/// The voxels of a segmentation, with any strides. If X is fastest and Z slowest, they are read in
/// place; other layouts are copied once.
#[derive(Debug, Clone)]
pub enum Voxels<'a, L> {
    /// A label map, axes (X: columns, Y: rows, Z: slices); 0 is background.
    Labels(ArrayView3<'a, L>),
    /// Masks of 0 and 1, axes (segment, X, Y, Z), which may overlap.
    Masks(ArrayView4<'a, u8>),
    /// Sets of label values, which may overlap. Each voxel, axes (X, Y, Z), is an index into `members`;
    /// 0 among the members is background.
    Sets {
        /// The set of each voxel.
        codes: ArrayView3<'a, L>,
        /// The label values of each set.
        members: &'a [Vec<u16>],
    },
}

impl<L> Voxels<'_, L> {
    /// Returns the number of columns, rows and slices.
    pub fn dim(&self) -> (usize, usize, usize) {
        match self {
            Self::Labels(voxels) | Self::Sets { codes: voxels, .. } => voxels.dim(),
            Self::Masks(masks) => {
                let (_, columns, rows, slices) = masks.dim();
                (columns, rows, slices)
            }
        }
    }
}

/// A box of voxels: half-open ranges along X, Y and Z.
pub type Bounds = [Range<usize>; 3];

impl<L: Label> Voxels<'_, L> {
    /// Returns the mask of one segment within `bounds`: 1 inside and 0 elsewhere, axes (X, Y, Z), X
    /// fastest in memory. `index` is the segment's position in the descriptions, which selects the mask
    /// if there are masks; `value` is its value in a label map. Bounds beyond the volume are clipped.
    pub fn mask(&self, index: usize, value: u16, bounds: &Bounds) -> Array3<u8> {
        let (columns, rows, slices) = self.dim();
        let cut = |range: &Range<usize>, most: usize| {
            let end = range.end.min(most);
            range.start.min(end)..end
        };
        let [x, y, z] = [cut(&bounds[0], columns), cut(&bounds[1], rows), cut(&bounds[2], slices)];
        let mut mask = Array3::zeros((x.len(), y.len(), z.len()).f());
        let part = s![x, y, z];
        match self {
            Self::Labels(labels) => Zip::from(&mut mask)
                .and(labels.slice(part))
                .par_for_each(|to, &label| *to = u8::from(label.into() == value)),
            Self::Sets { codes, members } => {
                let having: Vec<bool> = members.iter().map(|set| set.contains(&value)).collect();
                Zip::from(&mut mask).and(codes.slice(part)).par_for_each(|to, &code| {
                    *to = u8::from(having.get(usize::from(code.into())).copied().unwrap_or(false));
                });
            }
            Self::Masks(masks) if index < masks.len_of(Axis(0)) => {
                mask.assign(&masks.index_axis(Axis(0), index).slice(part));
            }
            Self::Masks(_) => {}
        }
        mask
    }
}

#[cfg(test)]
mod tests {
    use ndarray::Array4;

    use super::*;

    #[test]
    fn masks_are_the_same_of_every_form() {
        let labels = Array3::from_shape_fn((5, 4, 3), |(x, y, z)| ((x + 2 * y + z) % 3) as u8);
        let masks = Array4::from_shape_fn((2, 5, 4, 3), |(segment, x, y, z)| {
            u8::from(usize::from(labels[[x, y, z]]) == segment + 1)
        });
        let members = vec![vec![], vec![1], vec![2]];
        let bounds = [1..4, 0..4, 1..30];
        let expected = labels.slice(s![1..4, 0..4, 1..3]).mapv(|label| u8::from(label == 2));
        let forms = [
            Voxels::Labels(labels.view()),
            Voxels::Masks(masks.view()),
            Voxels::Sets { codes: labels.view(), members: &members },
        ];
        for form in forms {
            assert_eq!(form.mask(1, 2, &bounds), expected, "{form:?}");
        }
        let backwards = Range { start: 2, end: 1 };
        let none = Voxels::Labels(labels.view()).mask(0, 1, &[9..12, backwards, 0..3]);
        assert!(none.is_empty());
    }
}
