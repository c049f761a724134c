//! Inverse resampling and discretisation in one pass, between grids that are rotated or sheared against
//! each other.
//!
//! Every output voxel depends on a few planes and rows of the network's grid, wherever it lies. It is
//! computed as soon as the last of them has arrived, so for any orientation, only the neighbourhood of
//! the arriving rows is held. Output is processed in short pieces of lines along the direction of the
//! network's rows. For each piece, it is recorded when its voxels can be computed.

use std::sync::atomic::{AtomicU64, Ordering};

use ndarray::{Array4, ArrayView3, ArrayViewMut2, Axis};
use rayon::prelude::*;

use super::Segmentation;
use super::activation::Activation;
use super::arrays::masks_of;
use super::decide::{Buffers, Decision, Line, Scratch};
use super::fused::{activated, segmentation};
use super::held::Held;
use super::route::Route;
use crate::error::{Error, Result};
use crate::memory::reserve;
use crate::transforms::voxels;

/// Voxels per piece.
pub(super) const PIECE: usize = 64;

/// When the voxels of a piece can be computed: the range, ends included, of the last planes and rows
/// that they need.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reach {
    planes: [u32; 2],
    rows: [u32; 2],
}

pub(super) struct Oblique {
    activation: Activation,
    decision: Decision,
    route: Route,
    /// Output axes: two across lines, then the one along them.
    axes: [usize; 3],
    /// The reach of each piece, line by line.
    reaches: Vec<Reach>,
    /// For each plane: the first plane needed by voxels whose last plane is this or a later one.
    first_planes: Vec<u32>,
    /// The same for rows.
    first_rows: Vec<u32>,
    /// Voxels per row, and rows, of the network's grid.
    nz: usize,
    ny: usize,
    planes_done: usize,
    rows_done: usize,
    made: AtomicU64,
    held: Held,
    output: Array4<u8>,
}

impl Oblique {
    /// Creates the engine for planes of size `dims` with `activation`, mapped back along `route`.
    pub(super) fn new(
        activation: Activation,
        decision: Decision,
        route: Route,
        dims: [usize; 3],
    ) -> Result<Self> {
        if route.inputs() != dims {
            return Err(Error::internal(format!(
                "the result is {dims:?}, its way back begins at {:?}",
                route.inputs()
            )));
        }
        let along = route.along(2);
        let axes = match along {
            0 => [2, 1, 0],
            1 => [2, 0, 1],
            _ => [1, 0, 2],
        };
        let output = masks_of(decision.results(), route.outputs())?;
        let survey = Survey::of(&route, axes, dims)?;
        Ok(Self {
            activation,
            decision,
            axes,
            reaches: survey.reaches,
            first_planes: survey.first_planes,
            first_rows: survey.first_rows,
            nz: dims[2],
            ny: dims[1],
            planes_done: 0,
            rows_done: 0,
            made: AtomicU64::new(0),
            held: Held::default(),
            output,
            route,
        })
    }

    pub(super) fn planes(&mut self, x: usize, y: usize, planes: &[ArrayView3<f32>]) {
        debug_assert_eq!((x, y), (self.planes_done, self.rows_done));
        let rows = planes.first().map_or(0, |plane| plane.dim().1);
        let activated = activated(self.activation, self.decision.rule, planes);
        self.held.add(x, y, rows, activated);
        let (arrived_x, arrived_y) = (x + planes.len(), y + rows);
        self.make(&Band {
            planes: [x as u32, arrived_x as u32],
            rows: [y as u32, arrived_y as u32],
        });
        let needed = self.first_planes.get(arrived_x).map_or(arrived_x, |&p| p as usize);
        if arrived_y == self.ny {
            (self.rows_done, self.planes_done) = (0, arrived_x);
            self.held.forget_planes(needed);
        } else {
            self.rows_done = arrived_y;
            let row = self.first_rows.get(arrived_y).map_or(arrived_y, |&r| r as usize);
            self.held.forget_rows(needed, row);
        }
    }

    pub(super) fn finish(self) -> Result<Segmentation> {
        if self.made.into_inner() != voxels(self.route.outputs()) {
            return Err(Error::internal("planes of the result are missing"));
        }
        Ok(segmentation(self.decision.rule, self.output))
    }

    /// Computes the voxels that this band completes.
    fn make(&mut self, band: &Band) {
        let [slow, mid, along] = self.axes;
        let dims = self.route.outputs();
        let pieces = dims[along].div_ceil(PIECE);
        let (route, held, decision, nz) = (&self.route, &self.held, self.decision, self.nz);
        let (reaches, made, axes) = (&self.reaches, &self.made, self.axes);
        let output = self.output.view_mut();
        let mut output = output.permuted_axes([slow + 1, mid + 1, 0, along + 1]);
        output.axis_iter_mut(Axis(0)).into_par_iter().enumerate().for_each_init(
            || Worker::new(nz, decision),
            |worker, (s, mut plane)| {
                for (m, mut line) in plane.axis_iter_mut(Axis(0)).enumerate() {
                    let first = (s * dims[mid] + m) * pieces;
                    for piece in 0..pieces {
                        if !band.touches(&reaches[first + piece]) {
                            continue;
                        }
                        let range = piece * PIECE..((piece + 1) * PIECE).min(dims[along]);
                        worker.gather(range, band, held, route, |i| {
                            let mut at = [0; 3];
                            (at[axes[0]], at[axes[1]], at[axes[2]]) = (s, m, i);
                            at
                        });
                        worker.write(held, &mut line);
                        made.fetch_add(worker.indices.len() as u64, Ordering::Relaxed);
                    }
                }
            },
        );
    }
}

/// Planes and rows that arrived together, ends excluded.
struct Band {
    planes: [u32; 2],
    rows: [u32; 2],
}

impl Band {
    fn touches(&self, reach: &Reach) -> bool {
        let meets = |a: [u32; 2], b: [u32; 2]| a[0] < b[1] && b[0] <= a[1];
        meets(reach.planes, self.planes) && meets(reach.rows, self.rows)
    }

    fn has(&self, [plane, row]: [u32; 2]) -> bool {
        (self.planes[0]..self.planes[1]).contains(&plane)
            && (self.rows[0]..self.rows[1]).contains(&row)
    }
}

/// Returns the last plane and row of a voxel's taps; the very first for a voxel without taps.
fn last(inside: bool, [x, y, _]: &[Vec<(u32, f64)>; 3]) -> [u32; 2] {
    let last = |taps: &[(u32, f64)]| taps.iter().map(|tap| tap.0).max().unwrap_or(0);
    if inside { [last(x), last(y)] } else { [0, 0] }
}

/// The precomputed reaches of all pieces.
struct Survey {
    reaches: Vec<Reach>,
    first_planes: Vec<u32>,
    first_rows: Vec<u32>,
}

impl Survey {
    fn of(route: &Route, [slow, mid, along]: [usize; 3], inputs: [usize; 3]) -> Result<Self> {
        let dims = route.outputs();
        let pieces = dims[along].div_ceil(PIECE);
        let of_plane = dims[mid] * pieces;
        let count = dims[slow].saturating_mul(of_plane);
        let mut reaches = Vec::new();
        reserve(&mut reaches, count, "the way back")?;
        reaches.resize(count, Reach { planes: [u32::MAX, 0], rows: [u32::MAX, 0] });
        let none = || {
            let none = |n: usize| (0..n as u32).collect::<Vec<u32>>();
            [none(inputs[0]), none(inputs[1])]
        };
        let [mut first_planes, mut first_rows] = reaches
            .par_chunks_mut(of_plane.max(1))
            .enumerate()
            .fold(none, |mut firsts, (s, reaches)| {
                let mut taps: [Vec<(u32, f64)>; 3] = Default::default();
                let mut at = [0; 3];
                at[slow] = s;
                for (index, reach) in reaches.iter_mut().enumerate() {
                    at[mid] = index / pieces;
                    let start = index % pieces * PIECE;
                    for i in start..(start + PIECE).min(dims[along]) {
                        at[along] = i;
                        let inside = route.taps(at, &mut taps);
                        let [plane, row] = last(inside, &taps);
                        reach.planes = widened(reach.planes, plane);
                        reach.rows = widened(reach.rows, row);
                        for (firsts, (taps, last)) in
                            firsts.iter_mut().zip(taps.iter().zip([plane, row]))
                        {
                            if let (true, Some(first)) = (inside, firsts.get_mut(last as usize)) {
                                let lowest = taps.iter().map(|tap| tap.0).min();
                                *first = (*first).min(lowest.unwrap_or(last));
                            }
                        }
                    }
                }
                firsts
            })
            .reduce(none, |mut a, b| {
                for (a, b) in a.iter_mut().flatten().zip(b.iter().flatten()) {
                    *a = (*a).min(*b);
                }
                a
            });
        for firsts in [&mut first_planes, &mut first_rows] {
            for i in (1..firsts.len()).rev() {
                firsts[i - 1] = firsts[i - 1].min(firsts[i]);
            }
        }
        Ok(Self { reaches, first_planes, first_rows })
    }
}

fn widened([low, high]: [u32; 2], value: u32) -> [u32; 2] {
    [low.min(value), high.max(value)]
}

/// A voxel's share of a row of the network's grid.
#[derive(Clone, Copy)]
struct Tap {
    /// Index into the worker's rows.
    row: u32,
    z: u32,
    weight: f64,
}

/// One thread's voxels of a piece.
struct Worker {
    decision: Decision,
    nz: usize,
    taps: [Vec<(u32, f64)>; 3],
    /// Index along the line of each voxel, and the end of its taps.
    indices: Vec<usize>,
    ends: Vec<usize>,
    parts: Vec<Tap>,
    /// The planes and rows that are read.
    rows: Vec<[u32; 2]>,
    scratch: Scratch,
    results: Vec<u8>,
}

impl Worker {
    fn new(nz: usize, decision: Decision) -> Self {
        Self {
            decision,
            nz,
            taps: Default::default(),
            indices: Vec::with_capacity(PIECE),
            ends: Vec::with_capacity(PIECE),
            parts: Vec::with_capacity(8 * PIECE),
            rows: Vec::new(),
            scratch: Scratch::new(0, PIECE),
            results: Vec::new(),
        }
    }

    /// Collects the voxels of a piece that can be computed now.
    fn gather(
        &mut self,
        range: std::ops::Range<usize>,
        band: &Band,
        held: &Held,
        route: &Route,
        place: impl Fn(usize) -> [usize; 3],
    ) {
        self.indices.clear();
        self.ends.clear();
        self.parts.clear();
        self.rows.clear();
        for i in range {
            let inside = route.taps(place(i), &mut self.taps);
            if !band.has(last(inside, &self.taps)) {
                continue;
            }
            self.indices.push(i);
            if inside {
                self.add_parts(held.first as u32);
            }
            self.ends.push(self.parts.len());
        }
    }

    fn add_parts(&mut self, first: u32) {
        let Self { taps: [x, y, z], rows, parts, .. } = self;
        for &(plane, wx) in &*x {
            for &(row, wy) in &*y {
                let here = [plane - first, row];
                // The last rows are those of the previous voxel.
                let known = rows.iter().rposition(|known| *known == here);
                let row = known.unwrap_or_else(|| {
                    rows.push(here);
                    rows.len() - 1
                });
                let of_row =
                    z.iter().map(|&(z, wz)| Tap { row: row as u32, z, weight: wx * wy * wz });
                parts.extend(of_row);
            }
        }
    }

    /// Decides the collected voxels and writes them into their line, axes (result, index).
    fn write(&mut self, held: &Held, line: &mut ArrayViewMut2<u8>) {
        let count = self.indices.len();
        if count == 0 {
            return;
        }
        let Self { decision, nz, indices, ends, parts, rows, scratch, results, .. } = self;
        results.clear();
        results.resize(count * decision.results(), 0);
        scratch.shorten(count);
        let voxels = Voxels { held, rows, ends, parts, nz: *nz };
        decision.decide(&voxels, scratch, &mut results.chunks_mut(count));
        for (values, mut target) in results.chunks(count).zip(line.axis_iter_mut(Axis(0))) {
            for (&i, &value) in indices.iter().zip(values) {
                target[i] = value;
            }
        }
    }
}

/// Voxels of a piece as a line of values.
struct Voxels<'a> {
    held: &'a Held,
    rows: &'a [[u32; 2]],
    ends: &'a [usize],
    parts: &'a [Tap],
    nz: usize,
}

/// Number of rows that are looked up without allocation.
const FEW: usize = 16;

impl Voxels<'_> {
    fn row(&self, index: usize, channel: usize) -> &[f32] {
        let [plane, row] = self.rows[index];
        self.held.row(plane as usize, channel, row as usize, self.nz)
    }

    fn sums(&self, rows: &[&[f32]], out: &mut [f32]) {
        let mut start = 0;
        for (out, &end) in out.iter_mut().zip(self.ends) {
            let parts = &self.parts[start..end];
            *out = parts
                .iter()
                .map(|part| part.weight as f32 * rows[part.row as usize][part.z as usize])
                .sum();
            start = end;
        }
    }
}

impl Line for Voxels<'_> {
    fn values<'s>(&self, channel: usize, buffers: &'s mut Buffers) -> &'s [f32] {
        let out = &mut buffers.values;
        if self.rows.len() <= FEW {
            let mut rows: [&[f32]; FEW] = [&[]; FEW];
            for (index, row) in rows.iter_mut().enumerate().take(self.rows.len()) {
                *row = self.row(index, channel);
            }
            self.sums(&rows, out);
        } else {
            let rows: Vec<&[f32]> = (0..self.rows.len()).map(|i| self.row(i, channel)).collect();
            self.sums(&rows, out);
        }
        out
    }

    fn exact(&self, channel: usize, index: usize) -> f32 {
        let start = index.checked_sub(1).map_or(0, |before| self.ends[before]);
        let parts = &self.parts[start..self.ends[index]];
        let value = |part: &Tap| {
            part.weight * f64::from(self.row(part.row as usize, channel)[part.z as usize])
        };
        parts.iter().map(value).sum::<f64>() as f32
    }
}
