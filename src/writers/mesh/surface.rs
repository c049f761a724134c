//! A triangle mesh.

/// A triangle mesh in voxels.
#[derive(Debug, Clone, Default)]
pub(super) struct Surface {
    /// Axes (X, Y, Z), from the centre of the first voxel of a box.
    pub vertices: Vec<[f32; 3]>,
    /// Indices of vertices, counterclockwise from outside if the axes are right-handed.
    pub triangles: Vec<[u32; 3]>,
    /// Number of voxels inside.
    pub voxels: u64,
}
