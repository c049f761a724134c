//! Surface meshes of segments: STL for printing and for what reads it already, glTF for viewers.
//!
//! The surface of a segment's voxels is found by marching cubes, smoothed, and given the volume of its
//! voxels back. What a reader may rely on:
//!
//! - **Closed.** Every edge belongs to two triangles, which run through it in opposite directions. The
//!   triangles are counterclockwise as seen from outside, whatever the handedness of the voxels' axes.
//!   No triangle is without area.
//! - **Volume.** That of the voxels within 0.1 %, as long as the form allows it: a segment of scattered
//!   single voxels may lack more, because no vertex goes farther than 0.42 of a voxel from the border.
//! - **Topology.** Cavities stay, as surfaces that face inwards. Voxels that touch along an edge or in
//!   a corner alone are apart. Segments of fewer than 100 voxels are not smoothed.
//! - **Axes.** The vertices are millimetres of the patient's axes as DICOM has them, LPS+ (PS3.3
//!   C.7.6.2.1.1): X to the left, Y to the back, Z to the head. MONAI Deploy's operator writes LPS+ as
//!   well, but leaves out the position of the first voxel; here it is in. A glTF file is in metres with
//!   Y upwards by its standard: the node at its root turns and scales the vertices accordingly.
//!
//! Meshes of more vertices in total than [`most_vertices`] says would be of no use to a viewer and of
//! unbounded size. Voxels are then taken together, 2 × 2 × 2 or more, where at least half of them are of
//! the segment, and a warning says so.

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

/// The most vertices of all segments' meshes together, of a volume of so many voxels. A tenth of the
/// voxels is several times what organs have.
pub fn most_vertices(voxels: u64) -> u64 {
    const MOST: u64 = 4_000_000;
    const LEAST: u64 = 100_000;
    (voxels / 10).clamp(LEAST, MOST)
}

/// One segment to make a mesh of.
pub struct Shape<'a, G> {
    /// Its Segment Number.
    pub number: u16,
    /// What it is called.
    pub name: &'a str,
    /// Its display colour, sRGB.
    pub color: [u8; 3],
    /// Its voxels, in a box.
    pub grid: G,
    /// The first voxel of the box, axes (X, Y, Z).
    pub offset: [usize; 3],
}

/// Which files to make.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Formats {
    /// Binary STL.
    pub stl: bool,
    /// Binary glTF 2.0.
    pub glb: bool,
}

/// Files of meshes.
#[derive(Debug, Default)]
pub struct Files {
    /// Binary STL: the closed surfaces of all segments one after the other, in their order.
    pub stl: Option<Vec<u8>>,
    /// Binary glTF 2.0: a node, a mesh and a material for each segment that has voxels.
    pub glb: Option<Vec<u8>>,
    /// Voxels that were taken together along each axis, where it was more than one.
    pub coarsened: Option<usize>,
}

/// Makes the meshes of all shapes that have voxels, of `most` vertices in total. `affine` takes indices
/// of voxels to RAS+ millimetres.
///
/// # Errors
/// [`Error::internal`](crate::error::Error::internal) where a file would be larger than its format allows, which
/// `most` is to prevent.
pub fn write<G: Grid>(
    shapes: &[Shape<G>],
    affine: &Affine,
    most: u64,
    formats: Formats,
) -> Result<Files> {
    let factor = factor(shapes, most);
    let mut stl = formats.stl.then(stl::Writer::new);
    let mut glb = formats.glb.then(glb::Writer::new);
    // Only so many meshes at a time are held beside the files.
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

/// How many voxels along each axis are to be taken together so that the meshes have no more than
/// `most` vertices.
fn factor<G: Grid>(shapes: &[Shape<G>], most: u64) -> usize {
    let vertices = |factor: usize| -> u64 {
        shapes.par_iter().map(|shape| extract::crossings(&Coarse::new(&shape.grid, factor))).sum()
    };
    // A box of less than 2^16 voxels along each axis has become a single voxel at the end.
    (0..=16).map(|power| 1 << power).find(|&factor| vertices(factor) <= most).unwrap_or(1 << 16)
}

fn mesh<G: Grid>(shape: &Shape<G>, affine: &Affine, factor: usize) -> Result<Placed> {
    let grid = Coarse::new(&shape.grid, factor);
    let mut surface = extract::extract(&grid)?;
    smooth::smooth(&mut surface);
    Ok(place::place(&surface, &grid.affine(affine, shape.offset)))
}
