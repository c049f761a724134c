//! Smooths the steps between voxels while preserving the volume.
//!
//! Taubin's filter moves each vertex some way towards the mean of its neighbours, which smooths and
//! shrinks. It then moves it back a little further, which undoes the shrinking of all but the smallest
//! features. Afterwards, all vertices are moved along their normals, outwards or inwards, by the one
//! distance that gives the surface the volume of its voxels.
//!
//! Everything is computed in voxels, not millimetres. The means of neighbours do not depend on the
//! axes, and the uncertainty of a mask's border is a fraction of a voxel, whatever its size.
//!
//! The filter moves no vertex by more than [`LEASH`] from its original position. The vertices of
//! marching cubes are at least √½ = 0.707 apart, so no two of them can meet during filtering, and the
//! surface stays within the voxels on both sides of the border. The volume correction may use a little
//! more, [`REACH`], which only structures as thin as one voxel need.

use super::measure::{area, normals, volume};
use super::surface::Surface;

/// The most that the filter moves a vertex, in voxels.
const LEASH: f32 = 0.35;
/// The most that any vertex moves from its original position, in voxels.
const REACH: f32 = 0.42;
/// Rounds of forward and backward steps.
const ROUNDS: usize = 12;
/// Fraction of the way to the neighbours' mean, forward and backward. Frequencies below 1 / FORTH + 1 /
/// BACK = 0.1 pass (Taubin 1995).
const FORTH: f32 = 0.5;
const BACK: f32 = -0.526_315_8;
/// Surfaces of fewer voxels are not smoothed: the filter would remove their shape.
const FEWEST_VOXELS: u64 = 100;
/// Tolerated relative error of the volume.
const TOLERANCE: f64 = 0.001;
/// Smallest area of a triangle, in squared voxels. The corners of smaller ones return to their original
/// positions, where the smallest area is √3/8.
const LEAST_AREA: f32 = 0.001;

/// Smooths a surface of [`FEWEST_VOXELS`] or more. Adjusts any surface to the volume of its voxels, as
/// far as [`REACH`] allows.
pub(super) fn smooth(surface: &mut Surface) {
    let places = surface.vertices.clone();
    if surface.voxels >= FEWEST_VOXELS {
        filter(surface, &places);
    }
    inflate(surface, &places);
    if untangle(surface, &places) {
        // The restored parts are small, and the volume is nearly right.
        inflate(surface, &places);
        untangle(surface, &places);
    }
}

fn filter(surface: &mut Surface, places: &[[f32; 3]]) {
    let degrees = degrees(surface);
    let mut sums = vec![[0.0; 3]; places.len()];
    for _ in 0..ROUNDS {
        step(surface, &degrees, &mut sums, FORTH);
        step(surface, &degrees, &mut sums, BACK);
        for (vertex, place) in surface.vertices.iter_mut().zip(places) {
            hold(vertex, place, LEASH);
        }
    }
}

/// Returns the number of triangles at each vertex, which equals the number of its neighbours.
fn degrees(surface: &Surface) -> Vec<f32> {
    let mut degrees = vec![0.0; surface.vertices.len()];
    for &corner in surface.triangles.iter().flatten() {
        degrees[corner as usize] += 1.0;
    }
    degrees
}

/// Moves each vertex by the fraction `share` of its way to the mean of its neighbours.
fn step(surface: &mut Surface, degrees: &[f32], sums: &mut [[f32; 3]], share: f32) {
    sums.fill([0.0; 3]);
    for &[a, b, c] in &surface.triangles {
        // One direction per triangle visits each neighbour once: the adjacent triangle contributes the
        // other.
        for [from, to] in [[a, b], [b, c], [c, a]] {
            let neighbour = surface.vertices[to as usize];
            let sum = &mut sums[from as usize];
            for i in 0..3 {
                sum[i] += neighbour[i];
            }
        }
    }
    for ((vertex, sum), degree) in surface.vertices.iter_mut().zip(&*sums).zip(degrees) {
        for i in 0..3 {
            vertex[i] += share * (sum[i] / degree.max(1.0) - vertex[i]);
        }
    }
}

/// Limits the distance of a vertex from its original position to `most`.
fn hold(vertex: &mut [f32; 3], place: &[f32; 3], most: f32) {
    let way: [f32; 3] = std::array::from_fn(|i| vertex[i] - place[i]);
    let length = way.iter().map(|x| x * x).sum::<f32>().sqrt();
    if length > most {
        *vertex = std::array::from_fn(|i| place[i] + way[i] * (most / length));
    }
}

/// Moves all vertices along their normals until the volume matches the voxels.
fn inflate(surface: &mut Surface, places: &[[f32; 3]]) {
    const MOST_STEPS: usize = 12;
    let wanted = surface.voxels as f64;
    for step in 0..MOST_STEPS {
        let missing = wanted - volume(surface);
        // At least one step is made: on a border between two segments, both surfaces start with the
        // same vertices, and STL readers would merge those.
        if step > 0 && missing.abs() <= TOLERANCE * wanted {
            return;
        }
        let (normals, growth) = normals(surface);
        if growth <= 0.0 {
            return;
        }
        // Vertices at their limit do not move; the next step compensates for them.
        let distance = (missing / growth).clamp(-0.25, 0.25) as f32;
        for ((vertex, normal), place) in surface.vertices.iter_mut().zip(&normals).zip(places) {
            for i in 0..3 {
                vertex[i] += distance * normal[i];
            }
            hold(vertex, place, REACH);
        }
    }
}

/// Moves the corners of triangles that have become too small back to their original positions. Returns
/// whether there were any.
fn untangle(surface: &mut Surface, places: &[[f32; 3]]) -> bool {
    const MOST_TURNS: usize = 16;
    for turn in 0..MOST_TURNS {
        let vertices = &surface.vertices;
        let is_small = |triangle: &&[u32; 3]| {
            area(triangle.map(|corner| vertices[corner as usize])) < LEAST_AREA
        };
        let small = surface.triangles.iter().filter(is_small).flatten();
        let moved = |corner: &u32| vertices[*corner as usize] != places[*corner as usize];
        let back: Vec<u32> = small.copied().filter(moved).collect();
        if back.is_empty() {
            return turn > 0;
        }
        for corner in back {
            surface.vertices[corner as usize] = places[corner as usize];
        }
    }
    surface.vertices.copy_from_slice(places);
    true
}
