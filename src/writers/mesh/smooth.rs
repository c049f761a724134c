//! The steps between voxels taken out of a surface, without its volume.
//!
//! Taubin's filter: each vertex goes some way towards the mean of its neighbours, which smooths and
//! shrinks, and then a little further back, which undoes the shrinking for all but the smallest
//! features. Afterwards all vertices are moved along their normals, outwards or inwards, by the one
//! distance that gives the surface the volume of its voxels.
//!
//! Everything is computed in voxels and not in millimetres. The means of neighbours do not depend on
//! the axes they are computed in, and what is uncertain about a mask's border is a part of a voxel,
//! whatever its size.
//!
//! No vertex leaves its place by more than [`LEASH`]. The vertices of marching cubes are at least
//! √½ = 0.707 apart, so that no two of them can meet while the filter runs, and the surface stays within
//! the voxels on both sides of the border. The correction of volume may use a little more, [`REACH`],
//! which only structures as thin as one voxel need.

use super::measure::{area, normals, volume};
use super::surface::Surface;

/// Farther than that, in voxels, the filter moves no vertex.
const LEASH: f32 = 0.35;
/// Farther than that, in voxels, no vertex is from where it began.
const REACH: f32 = 0.42;
/// Steps forth and back.
const ROUNDS: usize = 12;
/// The share of the way to the neighbours' mean, forth and back: frequencies below
/// 1 / FORTH + 1 / BACK = 0.1 pass (Taubin 1995).
const FORTH: f32 = 0.5;
const BACK: f32 = -0.526_315_8;
/// Surfaces of fewer voxels are as they are: a filter would take all of their form.
const FEWEST_VOXELS: u64 = 100;
/// The share of the volume that may be wrong.
const TOLERANCE: f64 = 0.001;
/// A triangle smaller than that, in squared voxels, is not left: its corners go back to their places,
/// where the smallest is √3/8.
const LEAST_AREA: f32 = 0.001;

/// Smooths a surface of [`FEWEST_VOXELS`] or more, and gives any its voxels' volume, as far as
/// [`REACH`] allows.
pub(super) fn smooth(surface: &mut Surface) {
    let places = surface.vertices.clone();
    if surface.voxels >= FEWEST_VOXELS {
        filter(surface, &places);
    }
    inflate(surface, &places);
    if untangle(surface, &places) {
        // What was put back is small, and the volume nearly right.
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

/// The number of triangles at each vertex, which is that of its neighbours.
fn degrees(surface: &Surface) -> Vec<f32> {
    let mut degrees = vec![0.0; surface.vertices.len()];
    for &corner in surface.triangles.iter().flatten() {
        degrees[corner as usize] += 1.0;
    }
    degrees
}

/// Moves each vertex by `share` of its way to the mean of its neighbours.
fn step(surface: &mut Surface, degrees: &[f32], sums: &mut [[f32; 3]], share: f32) {
    sums.fill([0.0; 3]);
    for &[a, b, c] in &surface.triangles {
        // A triangle's way around meets each neighbour once: the next triangle has it as its other.
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

/// Brings a vertex back to `most` from its place where it is farther away.
fn hold(vertex: &mut [f32; 3], place: &[f32; 3], most: f32) {
    let way: [f32; 3] = std::array::from_fn(|i| vertex[i] - place[i]);
    let length = way.iter().map(|x| x * x).sum::<f32>().sqrt();
    if length > most {
        *vertex = std::array::from_fn(|i| place[i] + way[i] * (most / length));
    }
}

/// Moves all vertices along their normals until the volume is that of the voxels.
fn inflate(surface: &mut Surface, places: &[[f32; 3]]) {
    const MOST_STEPS: usize = 12;
    let wanted = surface.voxels as f64;
    for step in 0..MOST_STEPS {
        let missing = wanted - volume(surface);
        // One step is made in any case: on a border between two segments, both surfaces have the same
        // vertices, and readers of STL would take those for one.
        if step > 0 && missing.abs() <= TOLERANCE * wanted {
            return;
        }
        let (normals, growth) = normals(surface);
        if growth <= 0.0 {
            return;
        }
        // The vertices on their leashes stay behind; the next step makes up for them.
        let distance = (missing / growth).clamp(-0.25, 0.25) as f32;
        for ((vertex, normal), place) in surface.vertices.iter_mut().zip(&normals).zip(places) {
            for i in 0..3 {
                vertex[i] += distance * normal[i];
            }
            hold(vertex, place, REACH);
        }
    }
}

/// Puts the corners of triangles that have become too small back to their places; whether there were
/// any.
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
