//! The first pass over a segmentation: sizes, bounding boxes, sums and components of all segments.

use std::ops::Range;

use rayon::prelude::*;

use super::components::{Chain, NOISE, Slab, Tally, Tracer};
use super::spread::{Spread, Value};
use crate::error::{Error, Result};
use crate::writers::layer::{Layer, Run};
use crate::writers::{Bounds, Label};

/// Slices per slab, which one thread processes. Sums are formed within each slab and then over the
/// slabs in order, so they do not depend on the number of threads.
const SLAB: usize = 8;

/// The findings about one segment.
#[derive(Debug, Clone)]
pub(super) struct Found<V: Value> {
    pub(super) voxels: u64,
    pub(super) bounds: Option<Bounds>,
    /// Sums of the voxels' indices along X, Y and Z.
    pub(super) sums: [u64; 3],
    pub(super) spread: Spread<V>,
    pub(super) components: Tally,
}

impl<V: Value> Default for Found<V> {
    fn default() -> Self {
        let (bounds, sums, components) = (None, [0; 3], Tally::default());
        Self { voxels: 0, bounds, sums, spread: Spread::default(), components }
    }
}

impl<V: Value> Found<V> {
    /// Adds a run of row `y` of slice `z` with its values.
    fn add(&mut self, run: &Run, [y, z]: [usize; 2], values: &[V]) {
        let (start, end) = (usize::from(run.start), usize::from(run.end));
        let length = (end - start) as u64;
        self.voxels += length;
        // Twice the sum of consecutive numbers is their count times the sum of the ends.
        self.sums[0] += length * (start + end - 1) as u64 / 2;
        self.sums[1] += length * y as u64;
        self.sums[2] += length * z as u64;
        widen(&mut self.bounds, &[start..end, y..y + 1, z..z + 1]);
        self.spread.add(values);
    }

    /// Adds another part of the segment.
    fn merge(&mut self, other: &Self) {
        let Some(bounds) = &other.bounds else { return };
        widen(&mut self.bounds, bounds);
        self.voxels += other.voxels;
        self.sums.iter_mut().zip(other.sums).for_each(|(sum, other)| *sum += other);
        self.spread.merge(&other.spread);
    }
}

fn widen(bounds: &mut Option<Bounds>, by: &Bounds) {
    match bounds {
        None => *bounds = Some(by.clone()),
        Some(bounds) => {
            for (own, by) in bounds.iter_mut().zip(by) {
                *own = own.start.min(by.start)..own.end.max(by.end);
            }
        }
    }
}

/// Measures all `segments` segments of a layer; `values` are the values of its voxels.
pub(super) fn survey<L: Label, V: Value>(
    layer: &Layer<L>,
    values: &[V],
    segments: usize,
) -> Result<Vec<Found<V>>> {
    let mut all: Vec<Found<V>> = vec![Found::default(); segments];
    let mut chain = Chain::new(segments);
    let slabs = slabs(layer.dims[2]);
    // Limits the number of slabs that wait to be joined.
    for some in slabs.chunks(at_once()) {
        let done: Vec<(Vec<Found<V>>, Slab)> = some
            .par_iter()
            .map(|slices| of_slab(layer, values, slices.clone(), segments))
            .collect::<Result<_>>()?;
        for (found, slab) in done {
            all.iter_mut().zip(&found).for_each(|(all, found)| all.merge(found));
            chain.append(slab);
        }
    }
    for (found, components) in all.iter_mut().zip(chain.finish()) {
        found.components = components;
    }
    Ok(all)
}

/// Returns an upper bound on the bytes that [`survey`] uses for a grid of these dimensions.
pub(super) fn working_bytes([columns, rows, slices]: [usize; 3]) -> u64 {
    let slabs = at_once().min(slices.div_ceil(SLAB));
    let bytes = [rows, slabs, NOISE].into_iter().fold(columns, usize::saturating_mul);
    bytes as u64
}

fn at_once() -> usize {
    2 * rayon::current_num_threads()
}

/// Splits the slices into slabs.
pub(super) fn slabs(slices: usize) -> Vec<Range<usize>> {
    (0..slices).step_by(SLAB).map(|start| start..(start + SLAB).min(slices)).collect()
}

fn of_slab<L: Label, V: Value>(
    layer: &Layer<L>,
    values: &[V],
    slices: Range<usize>,
    segments: usize,
) -> Result<(Vec<Found<V>>, Slab)> {
    let mut found: Vec<Found<V>> = vec![Found::default(); segments];
    let mut tracer = Tracer::default();
    let mut runs = Vec::new();
    for z in slices {
        for y in 0..layer.dims[1] {
            layer.runs(layer.row(y, z), &mut runs)?;
            for run in &runs {
                let of_run = values_of(layer, values, run, [y, z])?;
                found[usize::from(run.segment)].add(run, [y, z], of_run);
            }
            tracer.row(&runs);
        }
        tracer.end_slice();
    }
    Ok((found, tracer.finish(segments)))
}

/// Returns the values of a run of row `y` of slice `z`.
pub(super) fn values_of<'v, L: Label, V: Value>(
    layer: &Layer<L>,
    values: &'v [V],
    run: &Run,
    [y, z]: [usize; 2],
) -> Result<&'v [V]> {
    let [columns, rows, _] = layer.dims;
    let row = (z * rows + y) * columns;
    let range = row + usize::from(run.start)..row + usize::from(run.end);
    values.get(range).ok_or_else(|| Error::internal("the image is smaller than its segmentation"))
}
