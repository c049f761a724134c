//! Chooses the planes to show and their orientation on screen.

use super::extents::Extent;
use crate::volume::affine::norm;
use crate::volume::{Affine, Geometry};

/// One plane through a volume, as oriented on screen.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct View {
    /// `axial`, `coronal` or `sagittal`.
    pub name: &'static str,
    /// The voxel axes that run to the right and downwards.
    pub across: Run,
    pub down: Run,
    /// The voxel axis along the line of sight, and the slice on it.
    pub through: usize,
    pub slice: usize,
}

/// A voxel axis on screen.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Run {
    /// 0, 1 or 2 for X, Y or Z.
    pub axis: usize,
    /// Whether it runs against its indices.
    pub reversed: bool,
    /// Number of voxels.
    pub voxels: usize,
    /// Distance from the first voxel's edge to the last's, in millimetres.
    pub length: f64,
    /// The letters of the sides at its beginning and end.
    pub letters: [char; 2],
}

impl Run {
    /// Returns the index of the voxel at `position` voxels from the beginning.
    pub fn index(&self, position: f64) -> f64 {
        if self.reversed { self.voxels as f64 - 1.0 - position } else { position }
    }
}

/// The letters at the negative and positive ends of the patient's axes in RAS+.
const LETTERS: [[char; 2]; 3] = [['L', 'R'], ['P', 'A'], ['F', 'H']];

/// The planes with the patient axes that run across, down and through. By radiological convention, the
/// right is on the left, and so on: on screen, all axes run against RAS+.
const PLANES: [(&str, [usize; 3]); 3] =
    [("axial", [0, 1, 2]), ("coronal", [0, 2, 1]), ("sagittal", [1, 2, 0])];

/// Returns the planes worth showing.
pub(super) fn views(geometry: &Geometry, extents: &[Extent]) -> Vec<View> {
    let axes = nearest_axes(&geometry.affine);
    let spacing = geometry.affine.spacing();
    let run = |patient: usize| {
        let axis = axes[patient];
        let [against, along] = LETTERS[patient];
        Run {
            axis,
            reversed: geometry.affine.0[patient][axis] > 0.0,
            voxels: geometry.dims[axis],
            length: geometry.dims[axis] as f64 * spacing[axis],
            letters: [along, against],
        }
    };
    let view = |(name, [across, down, through]): (&'static str, [usize; 3])| {
        let through = axes[through];
        let slice = fullest(extents, through, geometry.dims[through]);
        View { name, across: run(across), down: run(down), through, slice }
    };
    let all: Vec<View> = PLANES.into_iter().map(view).collect();
    let is_plane = |view: &&View| view.across.voxels > 1 && view.down.voxels > 1;
    let planes: Vec<View> = all.iter().filter(is_plane).cloned().collect();
    // A volume of a single row has no plane; then the plane of its slices is as good as any.
    if planes.is_empty() { all.into_iter().filter(|v| v.through == 2).collect() } else { planes }
}

/// Assigns to each patient axis a different voxel axis, maximising the alignment.
fn nearest_axes(affine: &Affine) -> [usize; 3] {
    const ORDERS: [[usize; 3]; 6] =
        [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];
    let along = |order: &[usize; 3]| -> f64 {
        let cosine = |(patient, &axis): (usize, &usize)| {
            affine.0[patient][axis].abs() / norm(affine.column(axis)).max(f64::MIN_POSITIVE)
        };
        order.iter().enumerate().map(cosine).sum()
    };
    let better = |best: [usize; 3], order: [usize; 3]| {
        if along(&order) > along(&best) + 1e-9 { order } else { best }
    };
    ORDERS.into_iter().fold(ORDERS[0], better)
}

/// Returns the slice along `axis` that shows most of the segments: the middle one of the best.
fn fullest(extents: &[Extent], axis: usize, slices: usize) -> usize {
    /// Weight, in segments, of the number of voxels in a slice: it decides between otherwise equal
    /// slices.
    const PREFERENCE: f64 = 0.01;
    let mut scores = vec![0.0_f64; slices];
    let mut voxels = vec![0_u64; slices];
    let most = |counts: &[u64]| counts.iter().copied().max().unwrap_or(0).max(1) as f64;
    for extent in extents {
        let counts = &extent.slices[axis];
        let largest = most(counts);
        for ((score, voxels), &count) in scores.iter_mut().zip(&mut voxels).zip(counts) {
            *score += count as f64 / largest;
            *voxels += count;
        }
    }
    let largest = most(&voxels);
    for (score, &voxels) in scores.iter_mut().zip(&voxels) {
        *score += PREFERENCE * voxels as f64 / largest;
    }
    let best = scores.iter().copied().fold(0.0, f64::max);
    let as_good: Vec<usize> = (0..slices).filter(|&at| scores[at] >= best - 1e-9).collect();
    as_good.get(as_good.len() / 2).copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn geometry(columns: [[f64; 3]; 3], dims: [usize; 3]) -> Geometry {
        Geometry { dims, affine: Affine::from_columns(columns, [10.0, 20.0, 30.0]) }
    }

    fn extent(dims: [usize; 3]) -> Extent {
        Extent { slices: dims.map(|n| vec![0; n]), voxels: 0 }
    }

    /// Returns, for each view, its name, and for across and down the axis and whether it is reversed.
    fn shape(views: &[View]) -> Vec<(&str, usize, bool, usize, bool)> {
        views
            .iter()
            .map(|v| (v.name, v.across.axis, v.across.reversed, v.down.axis, v.down.reversed))
            .collect()
    }

    #[test]
    fn radiological_convention_whatever_the_order() {
        let dims = [10, 20, 30];
        // As in DICOM's axial slices from the feet upwards: X to the left, Y to the back.
        let usual = geometry([[-0.5, 0.0, 0.0], [0.0, -0.5, 0.0], [0.0, 0.0, 2.0]], dims);
        let all = views(&usual, &[extent(dims)]);
        assert_eq!(
            shape(&all),
            [
                ("axial", 0, false, 1, false),
                ("coronal", 0, false, 2, true),
                ("sagittal", 1, false, 2, true),
            ]
        );
        let letters: Vec<_> = all.iter().map(|v| (v.across.letters, v.down.letters)).collect();
        assert_eq!(
            letters,
            [(['R', 'L'], ['A', 'P']), (['R', 'L'], ['H', 'F']), (['A', 'P'], ['H', 'F']),]
        );
        assert_eq!(all[1].down.length, 60.0);
        assert_eq!(all[1].down.index(0.0), 29.0);

        // Sagittal slices from right to left: X to the back, Y downwards; slightly tilted.
        let sagittal = geometry([[0.05, -0.5, 0.1], [0.0, 0.0, -0.5], [-3.0, 0.2, 0.0]], dims);
        let all = views(&sagittal, &[extent(dims)]);
        assert_eq!(
            shape(&all),
            [
                ("axial", 2, false, 0, false),
                ("coronal", 2, false, 1, false),
                ("sagittal", 0, false, 1, false),
            ]
        );
    }

    #[test]
    fn one_slice_is_shown_alone() {
        let columns = [[-1.0, 0.0, 0.0], [0.0, -1.0, 0.0], [0.0, 0.0, 5.0]];
        let all = views(&geometry(columns, [64, 48, 1]), &[]);
        assert_eq!(all.iter().map(|v| v.name).collect::<Vec<_>>(), ["axial"]);
        let row = views(&geometry(columns, [64, 1, 1]), &[]);
        assert_eq!(row.iter().map(|v| v.name).collect::<Vec<_>>(), ["axial"]);
    }

    #[test]
    fn small_segments_count_as_large_ones_do() {
        let dims = [1, 1, 9];
        let (mut large, mut small) = (extent(dims), extent(dims));
        large.slices[2] = vec![900, 1000, 900, 880, 870, 860, 0, 0, 0];
        small.slices[2] = vec![0, 0, 0, 1, 2, 2, 1, 0, 0];
        assert_eq!(fullest(&[large.clone()], 2, 9), 1);
        assert_eq!(fullest(&[large, small.clone()], 2, 9), 4);
        assert_eq!(fullest(&[small], 2, 9), 5);
        assert_eq!(fullest(&[extent(dims)], 2, 9), 4, "the middle where there is nothing");
    }
}
