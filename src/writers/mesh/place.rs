//! Transforms surfaces from voxels to patient space.

use super::measure::normals;
use super::surface::Surface;
use crate::error::{Error, ErrorKind, Result};
use crate::volume::affine::{cross, dot, lps_ras, norm};
use crate::volume::{Affine, Geometry};

/// A mesh in patient space.
#[derive(Debug, Default)]
pub(super) struct Placed {
    /// Vertices in LPS+ millimetres.
    pub vertices: Vec<[f32; 3]>,
    /// Unit normals of the vertices, outwards, in the same axes.
    pub normals: Vec<[f32; 3]>,
    /// Indices of vertices, counterclockwise from outside.
    pub triangles: Vec<[u32; 3]>,
}

impl Placed {
    /// Whether the mesh has no triangles.
    pub fn is_empty(&self) -> bool {
        self.triangles.is_empty()
    }
}

/// Transforms a surface by `affine`, which maps voxels to RAS+ millimetres.
pub(super) fn place(surface: &Surface, affine: &Affine) -> Placed {
    let affine = lps_ras(affine);
    let place = |vertex: &[f32; 3]| affine.apply(vertex.map(f64::from)).map(|x| x as f32);
    let vertices: Vec<[f32; 3]> = surface.vertices.iter().map(place).collect();
    let axes = [affine.column(0), affine.column(1), affine.column(2)];
    let mirrored = dot(cross(axes[0], axes[1]), axes[2]) < 0.0;
    let turn = |[a, b, c]: &[u32; 3]| if mirrored { [*a, *c, *b] } else { [*a, *b, *c] };
    let triangles = surface.triangles.iter().map(turn).collect();
    let placed = Surface { vertices, triangles, voxels: surface.voxels };
    let (mut normals, _) = normals(&placed);
    // If a vertex's triangles cancel out, any direction will do; glTF requires unit vectors.
    normals.iter_mut().filter(|normal| **normal == [0.0; 3]).for_each(|n| *n = [0.0, 0.0, 1.0]);
    let Surface { vertices, triangles, .. } = placed;
    Placed { vertices, normals, triangles }
}

/// Checks that single precision resolves a hundredth of a voxel at the coordinates of a volume.
///
/// # Errors
/// [`ErrorKind::InvalidImage`] if it does not.
pub fn check(geometry: &Geometry) -> Result<()> {
    const SHARE: f64 = 0.01;
    let affine = &geometry.affine;
    // The corners, one voxel beyond the outermost voxels.
    let corners = (0..8).map(|corner| {
        let index =
            |axis: usize| if corner >> axis & 1 == 1 { geometry.dims[axis] as f64 } else { -1.0 };
        affine.apply(std::array::from_fn(index))
    });
    // `max` would ignore NaN.
    let larger = |most: f64, x: f64| if x.is_nan() { f64::INFINITY } else { most.max(x.abs()) };
    let farthest = corners.flatten().fold(0.0, larger);
    let smallest = (0..3).map(|axis| norm(affine.column(axis))).fold(f64::INFINITY, f64::min);
    if farthest.is_finite() && farthest * f64::from(f32::EPSILON) <= SHARE * smallest {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::InvalidImage,
        "the image lies so far from the origin of patient space that the single precision of mesh \
         files cannot tell its voxels apart; ask for other outputs",
    )
    .with("attribute", "ImagePositionPatient"))
}
