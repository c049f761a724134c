//! Separable linear maps between grids.
//!
//! Cropping, padding, flipping, resizing and axis-aligned resampling all compute each output value from
//! a few input values along each axis. With one sparse matrix per axis ([`AxisTaps`]), any chain of
//! them is again such a map ([`GridMap`]). So undoing a whole preprocessing chain is a single pass over
//! the result, which can run slab by slab.

use ndarray::{Array3, ArrayView3, Axis};
use rayon::prelude::*;

use crate::error::{Error, Result};
use crate::kernels;
use crate::memory::take_kept;

/// A sparse matrix along one axis in compressed row form: for each output index, the input indices and
/// their weights. An empty row gives 0 (outside of the input).
#[derive(Debug, Clone, PartialEq)]
pub struct AxisTaps {
    inputs: usize,
    starts: Vec<u32>,
    taps: Vec<(u32, f64)>,
}

impl AxisTaps {
    /// Creates the matrix from the taps of each output index. Indices must be below `inputs`. Taps of
    /// weight zero are dropped.
    pub fn from_rows<R>(inputs: usize, rows: impl IntoIterator<Item = R>) -> Self
    where
        R: IntoIterator<Item = (usize, f64)>,
    {
        let mut this = Self { inputs, starts: vec![0], taps: Vec::new() };
        for row in rows {
            for (index, weight) in row {
                assert!(index < inputs, "tap {index} of {inputs}");
                if weight != 0.0 {
                    this.taps.push((index as u32, weight));
                }
            }
            this.starts.push(this.taps.len() as u32);
        }
        this
    }

    /// Creates the identity: every output is the input of the same index.
    pub fn identity(n: usize) -> Self {
        Self::from_rows(n, (0..n).map(|i| [(i, 1.0)]))
    }

    /// Returns the number of input indices.
    pub fn inputs(&self) -> usize {
        self.inputs
    }

    /// Returns the number of output indices.
    pub fn outputs(&self) -> usize {
        self.starts.len() - 1
    }

    /// Returns the taps of output index `i`, by ascending input index.
    #[inline]
    pub fn row(&self, i: usize) -> &[(u32, f64)] {
        &self.taps[self.starts[i] as usize..self.starts[i + 1] as usize]
    }

    /// Composes this map with `first`, which is applied before it: output ← `self` ← `first` ← input.
    pub fn after(&self, first: &Self) -> Self {
        let rows = (0..self.outputs()).map(|i| {
            let mut row: Vec<(usize, f64)> = Vec::new();
            for &(middle, w) in self.row(i) {
                for &(input, v) in first.row(middle as usize) {
                    match row.iter_mut().find(|(index, _)| *index == input as usize) {
                        Some((_, sum)) => *sum += w * v,
                        None => row.push((input as usize, w * v)),
                    }
                }
            }
            row.sort_unstable_by_key(|(index, _)| *index);
            row
        });
        Self::from_rows(first.inputs, rows.collect::<Vec<_>>())
    }

    /// Returns the same map with the input axis reversed.
    pub fn with_reversed_input(&self) -> Self {
        let n = self.inputs;
        let rows = (0..self.outputs())
            .map(|i| self.row(i).iter().rev().map(move |&(t, w)| (n - 1 - t as usize, w)));
        Self::from_rows(n, rows)
    }

    /// Returns the same map with the output axis reversed.
    pub fn with_reversed_output(&self) -> Self {
        let rows =
            (0..self.outputs()).rev().map(|i| self.row(i).iter().map(|&(t, w)| (t as usize, w)));
        Self::from_rows(self.inputs, rows)
    }

    /// Returns each row as two taps (the second of weight zero if there is only one); `None` if a row
    /// has more.
    pub fn pairs(&self) -> Option<Vec<Pair>> {
        (0..self.outputs())
            .map(|i| match *self.row(i) {
                [] => Some(Pair { index: [0, 0], weight: [0.0, 0.0] }),
                [(a, w)] => Some(Pair { index: [a, a], weight: [w, 0.0] }),
                [(a, w), (b, v)] => Some(Pair { index: [a, b], weight: [w, v] }),
                _ => None,
            })
            .collect()
    }
}

/// Two taps.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pair {
    /// Input indices.
    pub index: [u32; 2],
    /// Their weights.
    pub weight: [f64; 2],
}

/// A linear map from one grid to another; each output axis is computed from a single input axis.
#[derive(Debug, Clone, PartialEq)]
pub struct GridMap {
    /// The input axis of each output axis: a permutation.
    pub source: [usize; 3],
    /// The taps of each output axis along its input axis.
    pub taps: [AxisTaps; 3],
}

impl GridMap {
    /// Creates the identity on a grid.
    pub fn identity(dims: [usize; 3]) -> Self {
        Self { source: [0, 1, 2], taps: dims.map(AxisTaps::identity) }
    }

    /// Creates a map without permutation.
    pub fn from_taps(taps: [AxisTaps; 3]) -> Self {
        Self { source: [0, 1, 2], taps }
    }

    /// Returns the size of the output grid.
    pub fn outputs(&self) -> [usize; 3] {
        std::array::from_fn(|i| self.taps[i].outputs())
    }

    /// Returns the size of the input grid.
    pub fn inputs(&self) -> [usize; 3] {
        let mut dims = [0; 3];
        for (taps, &source) in self.taps.iter().zip(&self.source) {
            dims[source] = taps.inputs();
        }
        dims
    }

    /// Composes this map with `first`, which is applied before it. Fails if their grids do not match.
    pub fn after(&self, first: &Self) -> Result<Self> {
        if self.inputs() != first.outputs() {
            return Err(Error::internal(format!(
                "grids {:?} and {:?} do not meet",
                first.outputs(),
                self.inputs()
            )));
        }
        Ok(Self {
            source: self.source.map(|s| first.source[s]),
            taps: std::array::from_fn(|i| self.taps[i].after(&first.taps[self.source[i]])),
        })
    }

    /// Applies the map in f64 and rounds once. The output's fastest axis is the one computed from the
    /// input's fastest axis, so both are traversed in memory order.
    ///
    /// # Errors
    /// [`ErrorKind::OutOfMemory`](crate::error::ErrorKind::OutOfMemory) if there is no memory for the
    /// result.
    pub fn apply(&self, input: ArrayView3<f32>) -> Result<Array3<f32>> {
        let view = input.permuted_axes(self.source);
        apply_separable(view, &self.taps)
    }
}

/// Applies taps to each axis of `input` (shape = inputs of the taps).
fn apply_separable(mut input: ArrayView3<f32>, taps: &[AxisTaps; 3]) -> Result<Array3<f32>> {
    let mut taps: [AxisTaps; 3] = taps.clone();
    for axis in 0..3 {
        if input.strides()[axis] < 0 {
            input.invert_axis(Axis(axis));
            taps[axis] = taps[axis].with_reversed_input();
        }
    }
    let mut order = [0, 1, 2];
    order.sort_by_key(|&a| std::cmp::Reverse(input.strides()[a]));
    let input = input.permuted_axes(order);
    let [slow, mid, fast] = order.map(|a| &taps[a]);
    let contiguous = input.as_standard_layout();
    let (_, rows, length) = contiguous.dim();
    let shape = [slow.outputs(), mid.outputs(), fast.outputs()];
    let mut output = take_kept::<f32>(size(shape), "a resampled image")?;
    if !output.is_empty() {
        let data = contiguous.as_slice().unwrap_or_else(|| unreachable!("standard layout"));
        let fast_pairs = fast.pairs();
        output.par_chunks_mut(shape[1] * shape[2]).enumerate().for_each(|(s, plane)| {
            let mut blended = vec![0f64; length];
            for (m, out) in plane.chunks_mut(shape[2]).enumerate() {
                blend_rows(data, [rows, length], slow.row(s), mid.row(m), &mut blended);
                along_row(&blended, fast, fast_pairs.as_deref(), out);
            }
        });
    }
    let output = Array3::from_shape_vec((shape[0], shape[1], shape[2]), output)
        .unwrap_or_else(|_| unreachable!("the vector has the product of the shape"));
    let mut back = [0; 3];
    for (position, &axis) in order.iter().enumerate() {
        back[axis] = position;
    }
    Ok(output.permuted_axes(back))
}

/// Returns the number of voxels of a grid, saturating on overflow at a size that no buffer can have.
pub(super) fn size(shape: [usize; 3]) -> usize {
    shape.iter().fold(1, |product: usize, &n| product.saturating_mul(n))
}

/// `blended = Σ ws·wm · data[s, m, ..]`.
fn blend_rows(
    data: &[f32],
    [rows, length]: [usize; 2],
    slow: &[(u32, f64)],
    mid: &[(u32, f64)],
    blended: &mut [f64],
) {
    let row = |s: u32, m: u32| {
        let start = (s as usize * rows + m as usize) * length;
        &data[start..start + length]
    };
    match (slow, mid) {
        (&[(s, ws)], &[(a, wa), (b, wb)]) => {
            kernels::mix_two_exactly(blended, [(ws * wa, row(s, a)), (ws * wb, row(s, b))]);
        }
        (&[(s, ws), (t, wt)], &[(a, wa), (b, wb)]) => kernels::mix_four_exactly(
            blended,
            [
                (ws * wa, row(s, a)),
                (ws * wb, row(s, b)),
                (wt * wa, row(t, a)),
                (wt * wb, row(t, b)),
            ],
        ),
        _ => {
            blended.fill(0.0);
            for &(s, ws) in slow {
                for &(m, wm) in mid {
                    kernels::add_scaled_exactly(blended, ws * wm, row(s, m));
                }
            }
        }
    }
}

fn along_row(blended: &[f64], fast: &AxisTaps, pairs: Option<&[Pair]>, out: &mut [f32]) {
    match pairs {
        Some(pairs) => {
            for (o, p) in out.iter_mut().zip(pairs) {
                let [a, b] = p.index.map(|i| blended[i as usize]);
                *o = (p.weight[0] * a + p.weight[1] * b) as f32;
            }
        }
        None => {
            for (i, o) in out.iter_mut().enumerate() {
                *o = fast.row(i).iter().map(|&(t, w)| w * blended[t as usize]).sum::<f64>() as f32;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use ndarray::ShapeBuilder;

    use super::*;

    fn halves(n: usize) -> AxisTaps {
        AxisTaps::from_rows(n, (0..n - 1).map(|i| [(i, 0.5), (i + 1, 0.5)]))
    }

    #[test]
    fn composition_is_one_map_after_the_other() {
        let first = GridMap {
            source: [2, 0, 1],
            taps: [halves(5), AxisTaps::identity(3).with_reversed_output(), halves(4)],
        };
        let second = GridMap { source: [1, 0, 2], taps: [halves(3), halves(4), halves(3)] };
        let input =
            Array3::from_shape_fn((3, 4, 5), |(x, y, z)| (x * x + 7 * y + 3 * z * y) as f32);
        let two = second.apply(first.apply(input.view()).unwrap().view()).unwrap();
        let one = second.after(&first).unwrap().apply(input.view()).unwrap();
        assert_eq!(one.dim(), two.dim());
        assert!(one.iter().zip(&two).all(|(a, b)| (a - b).abs() < 1e-5));
    }

    #[test]
    fn memory_order_changes_nothing() {
        let map = GridMap::from_taps([halves(4), halves(5), halves(6)]);
        let c = Array3::from_shape_fn((4, 5, 6), |(x, y, z)| (x * 31 + y * y + z) as f32);
        let mut f = Array3::<f32>::zeros((4, 5, 6).f());
        f.assign(&c);
        let mut reversed = c.clone();
        reversed.invert_axis(Axis(1));
        let mut stored = reversed.as_standard_layout().into_owned();
        stored.invert_axis(Axis(1));
        let expected = map.apply(c.view()).unwrap();
        assert_eq!(map.apply(f.view()).unwrap(), expected);
        assert_eq!(map.apply(stored.view()).unwrap(), expected);
    }
}
