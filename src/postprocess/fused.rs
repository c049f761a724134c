//! Inverse resampling and discretisation in one pass.
//!
//! Planes of the network's grid arrive in groups, in order of X; within each group, rows arrive in
//! order of Y. An output row needs a few input rows. When the last of them has arrived, the input rows
//! are blended, the blend is interpolated along the row and compared, and only a label is stored. Input
//! that no later row needs is released.

use ndarray::{Array4, ArrayView3, ArrayViewMut3, Axis, s};
use rayon::prelude::*;

use super::Segmentation;
use super::activation::Activation;
use super::arrays::masks_of;
use super::decide::{Buffers, Decision, Line, Rule, Scratch};
use super::held::Held;
use crate::error::{Error, Result};
use crate::kernels::{self, Pairs};
use crate::transforms::{AxisTaps, GridMap};

/// Output planes are processed in tiles of this many, so that labels are written in runs of a cache line.
const TILE: usize = 64;

pub(super) struct Fused {
    activation: Activation,
    decision: Decision,
    rows: Rows,
    /// Output axes computed from the network's X, Y and Z.
    axes: [usize; 3],
    along_x: AxisTaps,
    along_y: AxisTaps,
    /// Output indices along the network's X and Y.
    order_x: Order,
    order_y: Order,
    /// Number of complete planes, and number of rows of the following planes, that have arrived.
    planes_done: usize,
    rows_done: usize,
    held: Held,
    output: Array4<u8>,
}

/// Output indices along one axis, ordered by the last input index they need.
struct Order {
    indices: Vec<usize>,
    done: usize,
}

impl Order {
    fn new(taps: &AxisTaps) -> Self {
        let last_needed = |i: usize| taps.row(i).iter().map(|t| t.0 as usize + 1).max();
        let mut indices: Vec<usize> = (0..taps.outputs()).collect();
        indices.sort_by_key(|&i| last_needed(i).unwrap_or(0));
        Self { indices, done: 0 }
    }

    /// Returns the pending outputs that need nothing from `arrived` on.
    fn ready(&self, taps: &AxisTaps, arrived: usize) -> &[usize] {
        let left = &self.indices[self.done..];
        let within = |i: &&usize| taps.row(**i).iter().all(|t| (t.0 as usize) < arrived);
        &left[..left.iter().take_while(within).count()]
    }

    /// Returns the first input index still needed after `done` outputs; `otherwise` if none is.
    fn needed(&self, taps: &AxisTaps, done: usize, otherwise: usize) -> usize {
        let taps = self.indices[done..].iter().flat_map(|&i| taps.row(i));
        taps.map(|t| t.0 as usize).min().unwrap_or(otherwise)
    }
}

/// The rows of a plane and the taps along them.
struct Rows {
    /// Rows per plane and voxels per row: the network's Y and Z.
    ny: usize,
    nz: usize,
    along: AxisTaps,
    along_row: Along,
}

/// How an output row is computed from the input's, in f32.
enum Along {
    /// Copied unchanged.
    Same,
    /// From two values each, by index and weight.
    Pairs(Pairs),
    /// From any number of taps.
    Many,
}

impl Along {
    fn new(taps: &AxisTaps, inputs: usize) -> Self {
        let same = |i: usize| *taps.row(i) == [(i as u32, 1.0)];
        if taps.outputs() == inputs && (0..inputs).all(same) {
            return Self::Same;
        }
        taps.pairs().map_or(Self::Many, |pairs| {
            let pairs = pairs.iter().map(|p| (p.index, p.weight.map(|w| w as f32)));
            Self::Pairs(Pairs::new(inputs, pairs))
        })
    }
}

/// Returns planes after their activation, channel by channel; for two classes, only the difference.
pub(super) fn activated(
    activation: Activation,
    rule: Rule,
    planes: &[ArrayView3<f32>],
) -> Vec<Vec<f32>> {
    let activate = |plane: &ArrayView3<f32>| {
        let mut out = Vec::with_capacity(plane.len());
        match rule {
            Rule::Sign => activation.difference(plane.view(), &mut out),
            _ => activation.apply(plane.view(), &mut out),
        }
        out
    };
    planes.par_iter().map(activate).collect()
}

/// Converts the decisions to the form of segmentation that the rule produces.
pub(super) fn segmentation(rule: Rule, output: Array4<u8>) -> Segmentation {
    match rule {
        Rule::Threshold(_) => Segmentation::Masks(output),
        _ => Segmentation::Labels(output.index_axis_move(Axis(0), 0)),
    }
}

impl Fused {
    /// Creates the engine for planes of size `dims` with `activation`, mapped back by `map`.
    pub(super) fn new(
        activation: Activation,
        decision: Decision,
        map: &GridMap,
        dims: [usize; 3],
    ) -> Result<Self> {
        if map.inputs() != dims {
            return Err(Error::internal(format!(
                "the result is {dims:?}, its way back begins at {:?}",
                map.inputs()
            )));
        }
        let mut axes = [0; 3];
        for (output, &input) in map.source.iter().enumerate() {
            axes[input] = output;
        }
        let [along_x, along_y, along] = axes.map(|a| map.taps[a].clone());
        let along_row = Along::new(&along, dims[2]);
        Ok(Self {
            activation,
            decision,
            rows: Rows { ny: dims[1], nz: dims[2], along, along_row },
            axes,
            order_x: Order::new(&along_x),
            order_y: Order::new(&along_y),
            along_x,
            along_y,
            planes_done: 0,
            rows_done: 0,
            held: Held::default(),
            output: masks_of(decision.results(), map.outputs())?,
        })
    }

    pub(super) fn planes(&mut self, x: usize, y: usize, planes: &[ArrayView3<f32>]) {
        debug_assert_eq!((x, y), (self.planes_done, self.rows_done));
        let activated = activated(self.activation, self.decision.rule, planes);
        let rows = planes.first().map_or(0, |plane| plane.dim().1);
        self.held.add(x, y, rows, activated);
        let (arrived_x, arrived_y) = (x + planes.len(), y + rows);
        let mut across = self.order_x.ready(&self.along_x, arrived_x).to_vec();
        // Labels are copied in runs where a tile's planes lie side by side.
        across.sort_unstable();
        let mut down = vec![false; self.along_y.outputs()];
        let ready = self.order_y.ready(&self.along_y, arrived_y).len();
        for &index in self.order_y.ready(&self.along_y, arrived_y) {
            down[index] = true;
        }
        self.make(&across, &down);
        self.order_y.done += ready;
        self.rows_done = arrived_y;
        let later = self.order_x.done + across.len();
        let needed = self.order_x.needed(&self.along_x, later, arrived_x);
        if arrived_y == self.rows.ny {
            self.order_x.done = later;
            (self.order_y.done, self.rows_done, self.planes_done) = (0, 0, arrived_x);
            self.held.forget_planes(needed);
        } else {
            let row = self.order_y.needed(&self.along_y, self.order_y.done, arrived_y);
            self.held.forget_rows(needed, row);
        }
    }

    pub(super) fn finish(self) -> Result<Segmentation> {
        if self.order_x.done != self.order_x.indices.len() || self.rows_done != 0 {
            return Err(Error::internal("planes of the result are missing"));
        }
        Ok(segmentation(self.decision.rule, self.output))
    }

    /// Computes the output planes `across` the network's X, ascending, in the rows selected by `down`.
    fn make(&mut self, across: &[usize], down: &[bool]) {
        let [ax, ay, az] = self.axes;
        let (held, decision) = (&self.held, self.decision);
        let (rows, along_x, along_y) = (&self.rows, &self.along_x, &self.along_y);
        let length = rows.along.outputs();
        // Axes (result, network's X, Y, Z), so that each output row across Y is a separate view.
        let mut output = self.output.view_mut().permuted_axes([0, ax + 1, ay + 1, az + 1]);
        // Only the selected rows are shared out: they lie side by side, and one thread would get all of them.
        let lines = output.axis_iter_mut(Axis(2)).enumerate().filter(|(y, _)| down[*y]);
        let lines: Vec<_> = lines.collect();
        lines.into_par_iter().with_max_len(1).for_each(|(y, mut target)| {
            let mut scratch = Scratch::new(rows.nz, length);
            let mut labels = vec![0u8; target.dim().0 * TILE.min(across.len()) * length];
            let mut taps = Vec::new();
            for tile in across.chunks(TILE) {
                let labels = &mut labels[..target.dim().0 * tile.len() * length];
                for (i, &x) in tile.iter().enumerate() {
                    set_taps(&mut taps, along_x.row(x), along_y.row(y), held.first);
                    let source = Source { held, taps: &taps, rows };
                    let mut out = labels.chunks_mut(length).skip(i).step_by(tile.len());
                    decision.decide(&source, &mut scratch, &mut out);
                }
                scatter(labels, tile, length, &mut target);
            }
        });
    }
}

/// Sets `taps` to the input rows of an output row, and their weights: `across` planes, of which `first` is the
/// first that is held, and `down` their rows.
fn set_taps(taps: &mut Vec<Tap>, across: &[(u32, f64)], down: &[(u32, f64)], first: usize) {
    taps.clear();
    for &(plane, across) in across {
        let plane = plane as usize - first;
        taps.extend(down.iter().map(|&(row, down)| Tap {
            plane,
            row: row as usize,
            weight: across * down,
        }));
    }
}

/// Copies a tile of labels (result, tile, row) into the output (result, X, row), in runs across the tile. The
/// planes of the tile ascend.
fn scatter(labels: &[u8], tile: &[usize], length: usize, target: &mut ArrayViewMut3<u8>) {
    let (Some(&low), Some(&high)) = (tile.first(), tile.last()) else { return };
    let mut across = vec![0; tile.len() * length];
    for (r, labels) in labels.chunks(tile.len() * length).enumerate() {
        kernels::transpose((labels, length), (&mut across, tile.len()), [length, tile.len()]);
        let mut target = target.slice_mut(s![r, low..=high, ..]);
        for (mut run, labels) in target.columns_mut().into_iter().zip(across.chunks(tile.len())) {
            match run.as_slice_mut() {
                Some(run) if run.len() == labels.len() => copy_run(run, labels),
                _ => tile.iter().zip(labels).for_each(|(x, &label)| run[x - low] = label),
            }
        }
    }
}

/// Copies labels of planes side by side; those of a whole tile in registers.
fn copy_run(run: &mut [u8], labels: &[u8]) {
    match (run.first_chunk_mut::<TILE>(), labels.first_chunk::<TILE>()) {
        (Some(run), Some(labels)) => *run = *labels,
        _ => run.copy_from_slice(labels),
    }
}

/// An input row and its weight.
struct Tap {
    plane: usize,
    row: usize,
    weight: f64,
}

/// The input rows that make up one output row.
struct Source<'a> {
    held: &'a Held,
    taps: &'a [Tap],
    rows: &'a Rows,
}

impl Source<'_> {
    fn row(&self, tap: &Tap, channel: usize) -> &[f32] {
        self.held.row(tap.plane, channel, tap.row, self.rows.nz)
    }
}

impl Line for Source<'_> {
    fn values<'s>(&self, channel: usize, buffers: &'s mut Buffers) -> &'s [f32] {
        let Buffers { blended, values } = buffers;
        let row = |tap: &Tap| (tap.weight as f32, self.row(tap, channel));
        match self.taps {
            [a, b] => kernels::mix_two(blended, [a, b].map(row)),
            [a, b, c, d] => kernels::mix_four(blended, [a, b, c, d].map(row)),
            taps => {
                blended.fill(0.0);
                for (weight, row) in taps.iter().map(row) {
                    kernels::add_scaled(blended, weight, row);
                }
            }
        }
        match &self.rows.along_row {
            Along::Same => return blended,
            Along::Pairs(pairs) => pairs.apply(blended, values),
            Along::Many => {
                for (z, out) in values.iter_mut().enumerate() {
                    let row = self.rows.along.row(z);
                    *out = row.iter().map(|&(i, w)| w as f32 * blended[i as usize]).sum();
                }
            }
        }
        values
    }

    fn exact(&self, channel: usize, z: usize) -> f32 {
        let mut sum = 0.0;
        for tap in self.taps {
            let row = self.row(tap, channel);
            for &(i, w) in self.rows.along.row(z) {
                sum += tap.weight * w * f64::from(row[i as usize]);
            }
        }
        sum as f32
    }
}
