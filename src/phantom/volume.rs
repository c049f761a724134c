//! Samples an anatomy like a CT scanner: densities with blur and noise, and the true labels.

use rayon::prelude::*;

use super::anatomy::Anatomy;
use super::random::{Random, VoxelNoise};

/// The voxel grid. Rows and columns are axial, as in a CT scanner.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Grid {
    /// Number of rows and of columns.
    pub(super) size: usize,
    pub(super) slices: usize,
    /// Distance between rows and between columns, in millimetres.
    pub(super) spacing: f64,
    /// Distance between slices, in millimetres.
    pub(super) slice_spacing: f64,
}

/// The voxels of a phantom. Both arrays hold slices from feet to head, each row by row: column
/// fastest.
#[derive(Debug, Clone)]
pub(super) struct Phantom {
    pub(super) grid: Grid,
    /// Patient coordinates (millimetres, LPS) of the centre of the first voxel: right, front, feet.
    pub(super) origin: [f64; 3],
    /// Hounsfield units.
    pub(super) hu: Vec<i16>,
    pub(super) labels: Vec<u8>,
}

/// Standard deviation of the noise added before the blur, which leaves about a quarter of it, and
/// after the blur.
const NOISE_BEFORE_BLUR: f64 = 55.0;
const NOISE_AFTER_BLUR: f64 = 7.0;

/// Range of values that fits 12 bits with a rescale intercept of -1024.
const HU_RANGE: (f32, f32) = (-1024.0, 3071.0);

impl Phantom {
    /// Scans the patient of `seed`.
    pub(super) fn scan(seed: u64, grid: Grid) -> Self {
        let anatomy = Anatomy::new(seed);
        let mut random = Random::new(seed, 2);
        let (coarse, fine) = (VoxelNoise::new(&mut random), VoxelNoise::new(&mut random));
        // Offset of the patient from the scanner's origin, in whole millimetres.
        let table = random.around([0.0, -60.0, -300.0], [20.0, 30.0, 200.0]).map(f64::round);
        let first = grid.first_voxel();

        let per_slice = grid.size * grid.size;
        let mut density = vec![0.0_f32; per_slice * grid.slices];
        let mut labels = vec![0_u8; density.len()];
        density
            .par_chunks_mut(per_slice)
            .zip(labels.par_chunks_mut(per_slice))
            .enumerate()
            .for_each(|(slice, (density, labels))| {
                for (i, (density, label)) in density.iter_mut().zip(labels).enumerate() {
                    let (row, column) = (i / grid.size, i % grid.size);
                    let tissue = anatomy.at([
                        first[0] + column as f64 * grid.spacing,
                        first[1] + row as f64 * grid.spacing,
                        first[2] + slice as f64 * grid.slice_spacing,
                    ]);
                    *label = tissue.label;
                    let noise = NOISE_BEFORE_BLUR * coarse.at(slice * per_slice + i);
                    *density = (tissue.hu + noise) as f32;
                }
            });
        for stride in [1, grid.size, per_slice] {
            density = blur(&density, stride, grid);
        }
        let hu = density
            .par_iter()
            .enumerate()
            .map(|(i, &x)| {
                let noisy = x + (NOISE_AFTER_BLUR * fine.at(i)) as f32;
                noisy.round().clamp(HU_RANGE.0, HU_RANGE.1) as i16
            })
            .collect();
        let origin = std::array::from_fn(|i| first[i] + table[i]);
        Self { grid, origin, hu, labels }
    }
}

impl Grid {
    /// Returns the centre of the first voxel, with the centre of the grid at the origin.
    fn first_voxel(&self) -> [f64; 3] {
        let start = |n: usize, spacing: f64| -0.5 * (n as f64 - 1.0) * spacing;
        let across = start(self.size, self.spacing);
        [across, across, start(self.slices, self.slice_spacing)]
    }

    /// Returns the number of voxels along the axis whose neighbours are `stride` apart.
    fn extent(&self, stride: usize) -> usize {
        if stride == self.size * self.size { self.slices } else { self.size }
    }
}

/// Applies the binomial filter (1 2 1)/4 along one axis; voxels at the edge count twice.
fn blur(values: &[f32], stride: usize, grid: Grid) -> Vec<f32> {
    let last = grid.extent(stride) - 1;
    (0..values.len())
        .into_par_iter()
        .map(|i| {
            let at = (i / stride) % (last + 1);
            let before = if at == 0 { i } else { i - stride };
            let after = if at == last { i } else { i + stride };
            0.25 * values[before] + 0.5 * values[i] + 0.25 * values[after]
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blur_keeps_the_sum_and_stays_on_its_axis() {
        let grid = Grid { size: 3, slices: 4, spacing: 1.0, slice_spacing: 1.0 };
        let mut values = vec![0.0; 36];
        values[13] = 4.0; // slice 1, row 1, column 1
        let blurred = blur(&values, 9, grid);
        assert_eq!((blurred[4], blurred[13], blurred[22]), (1.0, 2.0, 1.0));
        let edge = blur(&blurred, 9, grid);
        assert_eq!(edge.iter().sum::<f32>(), 4.0);
    }
}
