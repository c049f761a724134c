//! The surface within one cell: a table generated from a single rule.
//!
//! A cell has the centres of 2 × 2 × 2 voxels as its corners. Bits 0, 1 and 2 of a corner's number are
//! its x, y and z. The surface crosses each of the cell's 12 edges between an inside and an outside
//! corner, at its midpoint.
//!
//! On a face of the cell, walk around its corners counterclockwise, as seen from outside the cell.
//! Every run of inside corners is cut off by one segment, from the edge where the walk enters the run
//! to the edge where it leaves. So voxels that only touch along an edge or at a point are separate, and
//! the outside is connected there. A crossing is entered on one of its edge's two faces and left on the
//! other, because those are walked in opposite directions, so segments form closed loops. The
//! neighbouring cell at a face sees the same corners from the other side and has the same segments,
//! reversed: for any mask, the loops of all cells fit together without gaps.
//!
//! Loops are divided into triangles by diagonals. No diagonal joins two crossings of one face:
//! otherwise the neighbour could have the same diagonal, and four triangles would share it.

use std::sync::LazyLock;

/// A triangle's edges of the cell, counterclockwise as seen from outside the mask.
pub(super) type Triangle = [u8; 3];

/// An edge of a cell: it runs along `axis` from the corner at `start`, whose coordinate along that axis
/// is 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Edge {
    pub axis: usize,
    pub start: [usize; 3],
}

/// The triangles of each case. Bit `c` of a case is set if corner `c` is inside.
static CASES: LazyLock<Vec<Vec<Triangle>>> = LazyLock::new(|| (0..=u8::MAX).map(case).collect());

/// Returns the triangles of a cell.
pub(super) fn triangles(case: u8) -> &'static [Triangle] {
    CASES.get(usize::from(case)).map_or(&[], Vec::as_slice)
}

/// The edges of a cell, four along each axis.
pub(super) const EDGES: [Edge; 12] = {
    let mut edges = [Edge { axis: 0, start: [0; 3] }; 12];
    let mut index = 0;
    while index < 12 {
        let (axis, rest) = (index / 4, index % 4);
        let mut start = [0; 3];
        start[(axis + 1) % 3] = rest & 1;
        start[(axis + 2) % 3] = rest >> 1;
        edges[index] = Edge { axis, start };
        index += 1;
    }
    edges
};

/// Returns the edge between two corners that differ in one bit.
fn edge_between(a: usize, b: usize) -> usize {
    let axis = (a ^ b).trailing_zeros() as usize;
    let low = a & b;
    axis * 4 + (low >> ((axis + 1) % 3) & 1) + 2 * (low >> ((axis + 2) % 3) & 1)
}

/// Returns the corners of a face, counterclockwise as seen from outside the cell.
fn face(axis: usize, upper: bool) -> [usize; 4] {
    let (u, v) = (1 << ((axis + 1) % 3), 1 << ((axis + 2) % 3));
    let mut corners = [0, u, u | v, v].map(|corner| corner | usize::from(upper) << axis);
    if !upper {
        corners.reverse();
    }
    corners
}

fn case(case: u8) -> Vec<Triangle> {
    let inside = |corner: usize| case >> corner & 1 == 1;
    let mut next: [Option<usize>; 12] = [None; 12];
    for axis in 0..3 {
        for corners in [face(axis, false), face(axis, true)] {
            for at in (0..4).filter(|&at| inside(corners[(at + 1) % 4]) && !inside(corners[at])) {
                let enters = edge_between(corners[at], corners[(at + 1) % 4]);
                // The first following step from inside to outside; it exists because `at` is outside.
                let leaves = (at + 1..at + 4)
                    .find(|&i| !inside(corners[(i + 1) % 4]))
                    .map(|i| edge_between(corners[i % 4], corners[(i + 1) % 4]));
                next[enters] = leaves;
            }
        }
    }
    let mut triangles = Vec::new();
    for first in 0..12 {
        let mut ring = Vec::new();
        let mut at = first;
        while let Some(after) = next[at].take() {
            ring.push(at);
            at = after;
        }
        triangles.extend(divided(&ring));
    }
    triangles
}

/// Divides the ring into triangles by the allowed diagonals with the least total length.
fn divided(ring: &[usize]) -> Vec<Triangle> {
    if ring.len() < 3 {
        return Vec::new();
    }
    best(ring).map_or(Vec::new(), |(_, triangles)| triangles)
}

/// Tries every possible third corner for the triangle at the ring's closing side.
fn best(ring: &[usize]) -> Option<(u32, Vec<Triangle>)> {
    let last = ring.len() - 1;
    let mut least: Option<(u32, Vec<Triangle>)> = None;
    for middle in 1..last {
        let mut cost = 0;
        let mut triangles = vec![[ring[0] as u8, ring[middle] as u8, ring[last] as u8]];
        let mut allowed = true;
        for part in [&ring[..=middle], &ring[middle..]] {
            if part.len() < 3 {
                continue;
            }
            let (from, to) = (part[0], part[part.len() - 1]);
            match best(part).filter(|_| !on_one_face(from, to)) {
                Some((more, inner)) => {
                    cost += more + distance(from, to);
                    triangles.extend(inner);
                }
                None => allowed = false,
            }
        }
        if allowed && least.as_ref().is_none_or(|(other, _)| cost < *other) {
            least = Some((cost, triangles));
        }
    }
    least
}

/// Returns twice the coordinates of an edge's midpoint.
fn middle(edge: usize) -> [i32; 3] {
    let Edge { axis, start } = EDGES[edge];
    std::array::from_fn(|i| 2 * start[i] as i32 + i32::from(i == axis))
}

/// Returns four times the squared distance between two edges' midpoints.
fn distance(a: usize, b: usize) -> u32 {
    let (a, b) = (middle(a), middle(b));
    (0..3).map(|i| a[i].abs_diff(b[i]).pow(2)).sum()
}

/// Whether both edges belong to one face of the cell.
fn on_one_face(a: usize, b: usize) -> bool {
    let (a, b) = (middle(a), middle(b));
    (0..3).any(|i| a[i] == b[i] && a[i] != 1)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    /// Returns the directed edges that belong to a single triangle.
    fn rim(case: u8) -> Vec<[u8; 2]> {
        let mut uses: HashMap<[u8; 2], i32> = HashMap::new();
        for t in triangles(case) {
            for i in 0..3 {
                let (a, b) = (t[i], t[(i + 1) % 3]);
                *uses.entry([a, b]).or_default() += 1;
                assert!(uses[&[a, b]] == 1, "case {case}: {a} to {b} is used twice");
            }
        }
        let all: Vec<[u8; 2]> = uses.keys().copied().collect();
        all.into_iter().filter(|&[a, b]| !uses.contains_key(&[b, a])).collect()
    }

    #[test]
    fn every_crossing_is_used_and_no_other_edge() {
        for case in 0..=255_u8 {
            let inside = |corner: usize| case >> corner & 1 == 1;
            let mut used = [false; 12];
            triangles(case).iter().flatten().for_each(|&edge| used[usize::from(edge)] = true);
            for (edge, Edge { axis, start }) in EDGES.into_iter().enumerate() {
                let from = start[0] | start[1] << 1 | start[2] << 2;
                assert_eq!(used[edge], inside(from) != inside(from | 1 << axis), "case {case}");
                assert_eq!(edge_between(from | 1 << axis, from), edge);
            }
        }
    }

    #[test]
    fn rims_lie_on_faces_and_diagonals_do_not() {
        for case in 0..=255_u8 {
            let rim = rim(case);
            for t in triangles(case) {
                for i in 0..3 {
                    let (a, b) = (t[i], t[(i + 1) % 3]);
                    let at_rim = rim.contains(&[a, b]);
                    assert_eq!(at_rim, on_one_face(a.into(), b.into()), "case {case}: {a} to {b}");
                }
            }
        }
    }

    /// The rim of a cell on a face equals its neighbour's, reversed.
    #[test]
    fn neighbours_fit() {
        for axis in 0..3 {
            let bit = 1_usize << axis;
            let on_face = |edge: u8, upper: bool| {
                let Edge { axis: along, start } = EDGES[usize::from(edge)];
                along != axis && (start[axis] == 1) == upper
            };
            // The same edge, seen from the cell on the other side.
            let across = |edge: u8| {
                let Edge { axis: along, mut start } = EDGES[usize::from(edge)];
                start[axis] ^= 1;
                let from = start[0] | start[1] << 1 | start[2] << 2;
                edge_between(from, from | 1 << along) as u8
            };
            let part = |case: u8, upper: bool| {
                let mut part = rim(case);
                part.retain(|edge| edge.iter().all(|&end| on_face(end, upper)));
                part.sort_unstable();
                part
            };
            for below in 0..=255_u8 {
                for above in 0..=255_u8 {
                    let agree = (0..8)
                        .filter(|corner| corner & bit != 0)
                        .all(|corner| below >> corner & 1 == above >> (corner & !bit) & 1);
                    if !agree {
                        continue;
                    }
                    let mut reversed: Vec<[u8; 2]> =
                        part(above, false).iter().map(|&[a, b]| [across(b), across(a)]).collect();
                    reversed.sort_unstable();
                    assert_eq!(part(below, true), reversed, "{below} below {above}");
                }
            }
        }
    }

    #[test]
    fn triangles_face_outwards() {
        for corner in 0..8_usize {
            let [triangle] = triangles(1 << corner) else { panic!("one corner, one triangle") };
            let [a, b, c] = triangle.map(|edge| middle(edge.into()));
            let (u, v) = ([0, 1, 2].map(|i| b[i] - a[i]), [0, 1, 2].map(|i| c[i] - a[i]));
            let normal =
                [u[1] * v[2] - u[2] * v[1], u[2] * v[0] - u[0] * v[2], u[0] * v[1] - u[1] * v[0]];
            for i in 0..3 {
                let outwards = if corner >> i & 1 == 1 { -1 } else { 1 };
                assert_eq!(normal[i].signum(), outwards, "corner {corner}");
            }
        }
    }
}
