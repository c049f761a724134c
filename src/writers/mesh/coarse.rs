//! A mask at a fraction of its resolution.

use super::bits::{Plane, ones};
use super::grid::Grid;
use crate::volume::Affine;

/// A mask whose voxels are blocks of another mask: inside if at least half of a block's voxels are. If
/// a block extends beyond the box, its voxels outside of the box count as outside.
pub(super) struct Coarse<G> {
    grid: G,
    factor: usize,
}

impl<G: Grid> Coarse<G> {
    /// Creates blocks of `factor` voxels along each axis; the mask itself if that is 1.
    pub fn new(grid: G, factor: usize) -> Self {
        Self { grid, factor: factor.max(1) }
    }

    /// Returns the affine of the blocks, given the voxels' `affine`; the box begins at voxel `offset`.
    pub fn affine(&self, affine: &Affine, offset: [usize; 3]) -> Affine {
        let step = self.factor as f64;
        let mut blocks = *affine;
        // The centre of the first block lies between its voxels.
        let first = offset.map(|at| at as f64 + (step - 1.0) / 2.0);
        blocks.set_origin(affine.apply(first));
        for row in &mut blocks.0[..3] {
            row[..3].iter_mut().for_each(|cell| *cell *= step);
        }
        blocks
    }
}

impl<G: Grid> Grid for Coarse<G> {
    fn dims(&self) -> [usize; 3] {
        self.grid.dims().map(|n| n.div_ceil(self.factor))
    }

    fn plane(&self, z: usize, plane: &mut Plane) {
        if self.factor == 1 {
            return self.grid.plane(z, plane);
        }
        let [columns, rows, planes] = self.grid.dims();
        let [blocks, block_rows, _] = self.dims();
        let mut counts = vec![0_u64; blocks * block_rows];
        let mut fine = Plane::new(columns, rows);
        let first = z.saturating_mul(self.factor);
        for z in (first..planes).take(self.factor) {
            fine.clear();
            self.grid.plane(z, &mut fine);
            for y in 0..rows {
                let counts = counts.get_mut(y / self.factor * blocks..).unwrap_or(&mut []);
                for (at, &word) in fine.row(y + 1).iter().enumerate() {
                    for x in ones(word, at) {
                        if let Some(count) = counts.get_mut((x - 1) / self.factor) {
                            *count += 1;
                        }
                    }
                }
            }
        }
        let half = (self.factor as u64).saturating_pow(3).div_ceil(2);
        for (y, counts) in counts.chunks_exact(blocks.max(1)).enumerate() {
            plane.set_row(y, counts.iter().map(|&count| count >= half));
        }
    }
}
