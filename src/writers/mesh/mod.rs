//! Surface meshes of segments: STL for printing and existing software, glTF for viewers.
//!
//! The surface of a segment's voxels is extracted by marching cubes, smoothed, and adjusted to the
//! volume of its voxels. Guarantees for readers:
//!
//! - **Closed.** Every edge belongs to two triangles, which traverse it in opposite directions. The
//!   triangles are counterclockwise as seen from outside, whatever the handedness of the voxels' axes.
//!   No triangle is degenerate.
//! - **Volume.** It matches that of the voxels within 0.1 %, if the shape allows it: a segment of
//!   scattered single voxels may lose more, because no vertex moves more than 0.42 voxels from the
//!   border.
//! - **Topology.** Cavities are kept, as surfaces that face inwards. Voxels that only touch along an
//!   edge or at a corner are separate. Segments of fewer than 100 voxels are not smoothed.
//! - **Axes.** The vertices are in millimetres along the patient's axes as in DICOM, LPS+ (PS3.3
//!   C.7.6.2.1.1): X to the left, Y to the back, Z to the head. MONAI Deploy's operator also writes
//!   LPS+ but omits the position of the first voxel, which is included here. By its standard, a glTF
//!   file is in metres with Y up: its root node rotates and scales the vertices accordingly.
//!
//! Meshes with more vertices in total than [`most_vertices`] would be of no use to a viewer and of
//! unbounded size. In that case, voxels are merged into blocks of 2 × 2 × 2 or more, which are inside
//! if at least half of their voxels are, and a warning says so.

mod bits;
mod cases;
mod coarse;
mod extract;
mod glb;
mod grid;
mod measure;
mod place;
mod smooth;
mod stl;
mod surface;
#[cfg(test)]
mod tests;

use rayon::prelude::*;

use crate::error::Result;
use crate::volume::Affine;
use coarse::Coarse;
pub use grid::{Grid, MaskGrid, SegmentGrid};
use place::Placed;
pub use place::check;

/// Returns the limit on the vertices of all segments' meshes together, for a volume of this many
/// voxels. A tenth of the voxels is several times what organs need.
pub fn most_vertices(voxels: u64) -> u64 {
    const MOST: u64 = 4_000_000;
    const LEAST: u64 = 100_000;
    (voxels / 10).clamp(LEAST, MOST)
}

/// One segment to create a mesh of.
pub struct Shape<'a, G> {
    /// Its Segment Number.
    pub number: u16,
    /// Its display name.
    pub name: &'a str,
    /// Its display colour, sRGB.
    pub color: [u8; 3],
    /// Its voxels, in a box.
    pub grid: G,
    /// The first voxel of the box, axes (X, Y, Z).
    pub offset: [usize; 3],
}

/// The file formats to write.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Formats {
    /// Binary STL.
    pub stl: bool,
    /// Binary glTF 2.0.
    pub glb: bool,
}

/// The created files.
#[derive(Debug, Default)]
pub struct Files {
    /// Binary STL: the closed surfaces of all segments in order.
    pub stl: Option<Vec<u8>>,
    /// Binary glTF 2.0: a node, a mesh and a material for each segment with voxels.
    pub glb: Option<Vec<u8>>,
    /// Number of voxels merged along each axis, if more than one.
    pub coarsened: Option<usize>,
}

/// Creates the meshes of all shapes that have voxels, with at most `most` vertices in total. `affine`
/// maps voxel indices to RAS+ millimetres.
///
/// # Errors
/// [`Error::internal`](crate::error::Error::internal) if a file would exceed the limit of its format,
/// which `most` should prevent.
pub fn write<G: Grid>(
    shapes: &[Shape<G>],
    affine: &Affine,
    most: u64,
    formats: Formats,
) -> Result<Files> {
    let factor = factor(shapes, most);
    let mut stl = formats.stl.then(stl::Writer::new);
    let mut glb = formats.glb.then(glb::Writer::new);
    // Limits the number of meshes held at a time besides the files.
    for several in shapes.chunks(rayon::current_num_threads().max(1)) {
        let meshes: Vec<Placed> =
            several.par_iter().map(|shape| mesh(shape, affine, factor)).collect::<Result<_>>()?;
        for (shape, mesh) in several.iter().zip(&meshes).filter(|(_, mesh)| !mesh.is_empty()) {
            if let Some(stl) = &mut stl {
                stl.append(mesh)?;
            }
            if let Some(glb) = &mut glb {
                glb.append(&glb::Part {
                    number: shape.number,
                    name: shape.name,
                    color: shape.color,
                    mesh,
                })?;
            }
        }
    }
    Ok(Files {
        stl: stl.map(stl::Writer::finish),
        glb: glb.map(glb::Writer::finish).transpose()?,
        coarsened: (factor > 1).then_some(factor),
    })
}

/// Returns how many voxels to merge along each axis so that the meshes have at most `most` vertices.
fn factor<G: Grid>(shapes: &[Shape<G>], most: u64) -> usize {
    let vertices = |factor: usize| -> u64 {
        shapes.par_iter().map(|shape| extract::crossings(&Coarse::new(&shape.grid, factor))).sum()
    };
    // With this factor, a box of less than 2^16 voxels along each axis becomes a single voxel.
    (0..=16).map(|power| 1 << power).find(|&factor| vertices(factor) <= most).unwrap_or(1 << 16)
}

fn mesh<G: Grid>(shape: &Shape<G>, affine: &Affine, factor: usize) -> Result<Placed> {
    let grid = Coarse::new(&shape.grid, factor);
    let mut surface = extract::extract(&grid)?;
    smooth::smooth(&mut surface);
    Ok(place::place(&surface, &grid.affine(affine, shape.offset)))
}
