//! Marching cubes over a mask, two planes at a time.

use super::bits::{Plane, following, ones};
use super::cases::{EDGES, Edge, triangles};
use super::grid::Grid;
use super::surface::Surface;
use crate::error::{Error, Result};

/// Returns the surface of a mask. Its [`Surface::vertices`] are halfway between the centres of two
/// voxels, in voxels from the centre of the box's first voxel.
///
/// # Errors
/// [`Error::internal`] if the surface has more vertices than 32 bits can count.
pub(super) fn extract(mask: &impl Grid) -> Result<Surface> {
    let [columns, rows, planes] = mask.dims();
    let mut sheet = Sheet::new(columns, rows);
    let mut surface = Surface::default();
    let mut low = Plane::new(columns, rows);
    let mut high = low.clone();
    for z in 0..=planes {
        std::mem::swap(&mut low, &mut high);
        high.clear();
        if z < planes {
            mask.plane(z, &mut high);
            surface.voxels += high.count();
        }
        // Heights and indices include the rim, whose voxels are at -1.
        sheet.next_slab(&low, &high, z, &mut surface.vertices)?;
        sheet.cells(&low, &high, &mut surface.triangles);
    }
    Ok(surface)
}

/// Returns the number of faces between inside and outside voxels, which is the number of vertices of
/// the surface.
pub(super) fn crossings(mask: &impl Grid) -> u64 {
    let [columns, rows, planes] = mask.dims();
    let mut low = Plane::new(columns, rows);
    let mut high = low.clone();
    let mut found = 0_u64;
    for z in 0..=planes {
        std::mem::swap(&mut low, &mut high);
        high.clear();
        if z < planes {
            mask.plane(z, &mut high);
        }
        for y in 0..high.rows() {
            let (row, behind, below) = (high.row(y), high.row(y + 1), low.row(y));
            for (at, &word) in row.iter().enumerate() {
                let across = [
                    word ^ following(row, at),
                    word ^ behind.get(at).copied().unwrap_or(0),
                    word ^ below.get(at).copied().unwrap_or(0),
                ];
                found += across.iter().map(|word| u64::from(word.count_ones())).sum::<u64>();
            }
        }
    }
    found
}

/// The numbers of the vertices on the edges of a slab of cells between two planes. Entries of edges
/// without a crossing are left over from other slabs and never read.
struct Sheet {
    columns: usize,
    /// Edges along X and Y in the lower plane.
    low: [Vec<u32>; 2],
    /// Edges along X and Y in the upper plane.
    high: [Vec<u32>; 2],
    /// Edges along Z between the planes.
    between: Vec<u32>,
}

impl Sheet {
    fn new(columns: usize, rows: usize) -> Self {
        let plane = Plane::new(columns, rows);
        let edges = || vec![0_u32; plane.columns() * plane.rows()];
        Self {
            columns: plane.columns(),
            low: [edges(), edges()],
            high: [edges(), edges()],
            between: edges(),
        }
    }

    /// Creates the vertices of the upper plane and those between the planes, in slab `z`.
    fn next_slab(
        &mut self,
        low: &Plane,
        high: &Plane,
        z: usize,
        vertices: &mut Vec<[f32; 3]>,
    ) -> Result<()> {
        std::mem::swap(&mut self.low, &mut self.high);
        let Self { columns, high: [along_x, along_y], between, .. } = self;
        let mut put = |numbers: &mut Vec<u32>, x: usize, y: usize, middle: [f32; 3]| {
            let number = u32::try_from(vertices.len())
                .map_err(|_| Error::internal("a surface of more than 2^32 vertices"))?;
            if let Some(place) = numbers.get_mut(y * *columns + x) {
                *place = number;
            }
            let centre = [x as f32 - 1.0, y as f32 - 1.0, z as f32];
            vertices.push(std::array::from_fn(|i| centre[i] + middle[i]));
            Ok::<_, Error>(())
        };
        for y in 0..high.rows() {
            let (row, behind, below) = (high.row(y), high.row(y + 1), low.row(y));
            for (at, &word) in row.iter().enumerate() {
                let behind = behind.get(at).copied().unwrap_or(0);
                let below = below.get(at).copied().unwrap_or(0);
                for x in ones(word ^ following(row, at), at) {
                    put(along_x, x, y, [0.5, 0.0, 0.0])?;
                }
                for x in ones(word ^ behind, at) {
                    put(along_y, x, y, [0.0, 0.5, 0.0])?;
                }
                for x in ones(word ^ below, at) {
                    put(between, x, y, [0.0, 0.0, -0.5])?;
                }
            }
        }
        Ok(())
    }

    /// Creates the triangles of all cells between the planes.
    fn cells(&self, low: &Plane, high: &Plane, all: &mut Vec<[u32; 3]>) {
        for y in 0..low.rows() - 1 {
            let rows = [low.row(y), low.row(y + 1), high.row(y), high.row(y + 1)];
            for at in 0..rows[0].len() {
                // The corners of 64 cells: the voxels of the four rows, and the voxels after them.
                let left = rows.map(|row| row.get(at).copied().unwrap_or(0));
                let right = rows.map(|row| following(row, at));
                let any = left.iter().chain(&right).fold(0, |any, word| any | word);
                let every = left.iter().chain(&right).fold(u64::MAX, |every, word| every & word);
                for x in ones(any & !every, at) {
                    let bit = |word: u64| (word >> (x % 64) & 1) as u8;
                    let case = (0..4).fold(0, |case, row| {
                        case | bit(left[row]) << (2 * row) | bit(right[row]) << (2 * row + 1)
                    });
                    let number = |edge: u8| self.number(edge, x, y);
                    all.extend(triangles(case).iter().map(|triangle| triangle.map(number)));
                }
            }
        }
    }

    /// Returns the number of the vertex on an edge of the cell at column `x` and row `y`.
    fn number(&self, edge: u8, x: usize, y: usize) -> u32 {
        let Edge { axis, start } = EDGES[usize::from(edge) % EDGES.len()];
        let numbers = match (axis, start[2]) {
            (2, _) => &self.between,
            (axis, 0) => &self.low[axis],
            (axis, _) => &self.high[axis],
        };
        numbers.get((y + start[1]) * self.columns + x + start[0]).copied().unwrap_or(0)
    }
}
