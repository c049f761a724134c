//! Surfaces from voxels to the patient.

use super::Surface;
use super::measure::normals;
use crate::error::{Error, ErrorKind, Result};
use crate::volume::Affine;
use crate::volume::affine::{cross, dot, lps_ras, norm};

/// A mesh in patient space.
#[derive(Debug, Default)]
pub(super) struct Placed {
    /// LPS+ millimetres.
    pub vertices: Vec<[f32; 3]>,
    /// Unit normals of the vertices, outwards, in the same axes.
    pub normals: Vec<[f32; 3]>,
    /// Indices of vertices, counterclockwise from outside.
    pub triangles: Vec<[u32; 3]>,
}

impl Placed {
    /// Whether there is nothing of it.
    pub fn is_empty(&self) -> bool {
        self.triangles.is_empty()
    }
}

/// Puts a surface where `affine` says, which takes voxels to RAS+ millimetres.
pub(super) fn place(surface: &Surface, affine: &Affine) -> Result<Placed> {
    let affine = lps_ras(affine);
    let place = |vertex: &[f32; 3]| affine.apply(vertex.map(f64::from)).map(|x| x as f32);
    let vertices: Vec<[f32; 3]> = surface.vertices.iter().map(place).collect();
    check_precision(&vertices, &affine)?;
    let axes = [affine.column(0), affine.column(1), affine.column(2)];
    let mirrored = dot(cross(axes[0], axes[1]), axes[2]) < 0.0;
    let turn = |[a, b, c]: &[u32; 3]| if mirrored { [*a, *c, *b] } else { [*a, *b, *c] };
    let triangles = surface.triangles.iter().map(turn).collect();
    let placed = Surface { vertices, triangles, voxels: surface.voxels };
    let (mut normals, _) = normals(&placed);
    // Where a vertex's triangles cancel out, any direction is as good; glTF wants unit vectors.
    normals.iter_mut().filter(|normal| **normal == [0.0; 3]).for_each(|n| *n = [0.0, 0.0, 1.0]);
    let Surface { vertices, triangles, .. } = placed;
    Ok(Placed { vertices, normals, triangles })
}

/// That single precision leaves a hundredth of a voxel at these coordinates.
fn check_precision(vertices: &[[f32; 3]], affine: &Affine) -> Result<()> {
    const SHARE: f64 = 0.01;
    let farthest = vertices.iter().flatten().fold(0.0_f32, |most, x| most.max(x.abs()));
    let finite = vertices.iter().flatten().all(|x| x.is_finite());
    let smallest = (0..3).map(|axis| norm(affine.column(axis))).fold(f64::INFINITY, f64::min);
    if finite && f64::from(farthest) * f64::from(f32::EPSILON) <= SHARE * smallest {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::InvalidImage,
        "the image lies so far from the origin of patient space that the single precision of mesh \
         files cannot tell its voxels apart; ask for another output",
    )
    .with("attribute", "ImagePositionPatient"))
}
