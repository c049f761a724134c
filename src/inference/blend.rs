//! Accumulates the sums of overlapping windows, and keeps them only as long as a window can still reach
//! them.
//!
//! Windows arrive ordered by their start along X, then Y, then Z. Once they have passed, everything
//! before them is finished: planes up to the next start along X, in bands of rows up to the next start
//! along Y. A finished band is divided by its weights, handed to the sink and released. Across all
//! classes, only the overlap along X and one row of windows stay in memory.
//!
//! The last window along X ends with the image. It often starts close to the window before it, and the
//! two then overlap more than any other pair. If it takes less memory, both run along Y together, as
//! one step.

use ndarray::{
    Array3, ArrayView2, ArrayView3, ArrayView4, ArrayViewMut1, ArrayViewMut2, ArrayViewMut3, Axis,
    s,
};
use rayon::prelude::*;

use super::importance::{BlendMode, importance_map};
use super::plane_sink::PlaneSink;
use crate::error::{Error, ErrorKind, Result};
use crate::kernels::{self, contiguous};
use crate::memory::zeroed;

/// Least and most rows in a band.
const ROWS: [usize; 2] = [8, 32];

/// Sums of a band of all planes of a window, beyond which it has no more rows than the least.
const BAND_BYTES: usize = 4 << 20;

/// The layout of the windows.
pub(super) struct Grid<'a> {
    /// Size of a window.
    pub roi: [usize; 3],
    /// Size of the image padded to at least one window.
    pub padded: [usize; 3],
    /// Offset of the image in the padded image.
    pub before: [usize; 3],
    /// Size of the image.
    pub dims: [usize; 3],
    /// Where windows start along each axis, ascending.
    pub starts: &'a [Vec<usize>; 3],
}

impl Grid<'_> {
    /// Returns the starts along X, grouped into the steps in which windows arrive. Within a step,
    /// windows are ordered by their start along Y, then X, then Z.
    pub fn steps(&self) -> Vec<Vec<usize>> {
        let [xs, ys, _] = self.starts;
        let mut steps: Vec<Vec<usize>> = xs.iter().map(|&x| vec![x]).collect();
        if let [.., before, last] = xs[..] {
            let shared = |a: usize, b: usize| (a + self.roi[0]).saturating_sub(b);
            // Rows held: all those shared with the previous step, and one row of windows of the others.
            let held =
                |old: usize, planes: usize| old * self.padded[1] + (planes - old) * self.roi[1];
            let earlier = xs.len().checked_sub(3).map_or(0, |i| shared(xs[i], before));
            let apart = held(shared(before, last), self.roi[0]);
            let together = held(earlier, self.roi[0] + last - before);
            if together < apart && ys.len() > 1 {
                steps.truncate(xs.len() - 2);
                steps.push(vec![before, last]);
            }
        }
        steps
    }

    /// Returns the rows that are held and finished together. The more, the fewer times threads wait for each
    /// other; but the larger the sums of a row, the more memory is held. Where possible, bands begin where windows
    /// do, so that no finished row is held.
    fn band(&self, classes: usize) -> usize {
        let [_, ys, _] = self.starts;
        let step = ys.get(1).map_or(self.roi[1], |second| second - ys[0]);
        let row = [classes + 1, self.roi[0], self.padded[2]]
            .into_iter()
            .fold(size_of::<f32>(), usize::saturating_mul);
        let [least, most] = ROWS;
        let most = (BAND_BYTES / row.max(1)).clamp(least, most);
        (least..=most).rev().find(|&rows| step.is_multiple_of(rows)).unwrap_or(least)
    }

    /// Returns an upper bound on the rows along Z of the padded image whose sums are held at the same
    /// time, for results of `classes`.
    pub fn held_rows(&self, classes: usize) -> u64 {
        let band = self.band(classes);
        let steps = self.steps();
        let mut most = 0;
        for (index, step) in steps.iter().enumerate() {
            let (Some(&first), Some(&last)) = (step.first(), step.last()) else { continue };
            let planes = last + self.roi[0] - first;
            // Planes that windows of the previous step also reach are held whole; of the others, one
            // row of windows, rounded up to whole bands.
            let before = index.checked_sub(1).and_then(|i| steps[i].last());
            let shared = before.map_or(0, |&x| (x + self.roi[0]).saturating_sub(first));
            let window = self.roi[1].next_multiple_of(band) + band;
            let all = self.padded[1].next_multiple_of(band);
            let rows = window.min(all);
            let held =
                shared as u64 * all as u64 + planes.saturating_sub(shared) as u64 * rows as u64;
            // Planes shared with the next step are held whole by the end of this one.
            let after = steps.get(index + 1).and_then(|step| step.first());
            let kept = after.map_or(0, |&x| (last + self.roi[0]).saturating_sub(x));
            let end = kept as u64 * all as u64 + planes.saturating_sub(kept) as u64 * rows as u64;
            most = most.max(held).max(end);
        }
        most
    }

    /// Returns the starts of all windows in their order of arrival.
    pub fn windows(&self) -> Vec<[usize; 3]> {
        let [_, ys, zs] = self.starts;
        let mut windows = Vec::new();
        for step in self.steps() {
            for &y in ys {
                for &x in &step {
                    windows.extend(zs.iter().map(|&z| [x, y, z]));
                }
            }
        }
        windows
    }
}

/// The sums of a band of rows of a plane.
struct Band {
    /// Axes (class, Y, Z).
    sums: Array3<f32>,
    /// The buffer was used before and is to be filled with zeros.
    stale: bool,
}

/// Rolling sums of windows.
pub(super) struct Blend<'a> {
    grid: Grid<'a>,
    importance: Option<Array3<f32>>,
    /// How many windows cover each index along each axis (equal weights only).
    coverage: [Vec<f32>; 3],
    classes: usize,
    /// Rows of a band.
    band: usize,
    /// For each plane of the padded image, the sums of its bands, axes (class, Y, Z).
    /// With unequal weights, one extra class holds the sum of the weights.
    planes: Vec<Vec<Option<Band>>>,
    /// Buffers of released bands. All bands have the same size, so any buffer can be reused.
    free: Vec<Vec<f32>>,
    /// Starts of the steps along X, followed by the end of the image.
    steps: Vec<usize>,
    /// Step whose windows are being added.
    step: usize,
    /// Number of finished bands in that step.
    bands: usize,
}

impl<'a> Blend<'a> {
    pub fn new(grid: Grid<'a>, mode: BlendMode) -> Self {
        let coverage = std::array::from_fn(|a| {
            let mut count = vec![0.0; grid.padded[a]];
            for &start in &grid.starts[a] {
                for c in &mut count[start..start + grid.roi[a]] {
                    *c += 1.0;
                }
            }
            count
        });
        let importance = importance_map(mode, grid.roi);
        let mut steps: Vec<usize> =
            grid.steps().iter().filter_map(|s| s.first().copied()).collect();
        steps.push(grid.padded[0]);
        Self {
            grid,
            importance,
            coverage,
            classes: 0,
            band: 1,
            planes: Vec::new(),
            free: Vec::new(),
            steps,
            step: 0,
            bands: 0,
        }
    }

    /// Adds a window's result (class, X, Y, Z). Windows come in the order of [`Grid::windows`].
    pub fn add(
        &mut self,
        [x, y, z]: [usize; 3],
        result: ArrayView4<f32>,
        sink: &mut dyn PlaneSink,
    ) -> Result<()> {
        if self.classes == 0 {
            self.classes = result.dim().0;
            self.band = self.grid.band(self.classes);
            let bands = self.bands_in_all();
            self.planes.resize_with(self.grid.padded[0], || (0..bands).map(|_| None).collect());
            sink.begin(self.classes, self.grid.dims)?;
        }
        if result.dim().0 != self.classes {
            return Err(Error::new(
                ErrorKind::InvalidModel,
                "the network's number of classes changes from window to window",
            ));
        }
        while self.steps[self.step + 1] <= x {
            self.finish_bands(self.bands_in_all(), sink)?;
        }
        self.finish_bands(y / self.band, sink)?;
        self.reserve(x, y)?;
        let (importance, roi, rows) = (&self.importance, self.grid.roi, self.band);
        self.planes[x..x + roi[0]].par_iter_mut().enumerate().for_each(|(i, bands)| {
            for (band, held) in bands.iter_mut().enumerate() {
                let Some(Band { sums, stale }) = held else { continue };
                if std::mem::take(stale) {
                    sums.fill(0.0);
                }
                // Rows of this band that the window covers.
                let from = (band * rows).max(y);
                let to = ((band + 1) * rows).min(y + roi[1]);
                if from >= to {
                    continue;
                }
                let within = from - band * rows..to - band * rows;
                let inside = from - y..to - y;
                let target = sums.slice_mut(s![.., within, z..z + roi[2]]);
                let values = result.slice(s![.., i, inside.clone(), ..]);
                match importance {
                    None => add_equal(target, values),
                    Some(map) => add_weighted(target, values, map.slice(s![i, inside, ..])),
                }
            }
        });
        Ok(())
    }

    /// Allocates sums for every band that a window at (x, y) reaches and that has none yet.
    fn reserve(&mut self, x: usize, y: usize) -> Result<()> {
        let depth = self.classes + usize::from(self.importance.is_some());
        let (roi, nz, band) = (self.grid.roi, self.grid.padded[2], self.band);
        for plane in x..x + roi[0] {
            for place in &mut self.planes[plane][y / band..(y + roi[1]).div_ceil(band)] {
                if place.is_some() {
                    continue;
                }
                let (memory, stale) = match self.free.pop() {
                    Some(used) => (used, true),
                    None => (zeroed(depth * band * nz, "the sums of windows")?, false),
                };
                let sums = Array3::from_shape_vec((depth, band, nz), memory).ok();
                *place = sums.map(|sums| Band { sums, stale });
            }
        }
        Ok(())
    }

    /// Rows whose sums are held, and those in released buffers kept for reuse.
    #[cfg(test)]
    fn held_rows(&self) -> u64 {
        let held = self.planes.iter().flatten().flatten().count() + self.free.len();
        (held * self.band) as u64
    }

    fn bands_in_all(&self) -> usize {
        self.grid.padded[1].div_ceil(self.band)
    }

    /// Finishes the bands before `end` of the planes that no later step reaches. The last band ends the
    /// step.
    fn finish_bands(&mut self, end: usize, sink: &mut dyn PlaneSink) -> Result<()> {
        let (first, last) = (self.steps[self.step], self.steps[self.step + 1]);
        while self.bands < end {
            self.finish_band(first..last, self.bands, sink)?;
            self.bands += 1;
        }
        if self.bands == self.bands_in_all() {
            (self.step, self.bands) = (self.step + 1, 0);
        }
        Ok(())
    }

    fn finish_band(
        &mut self,
        planes: std::ops::Range<usize>,
        band: usize,
        sink: &mut dyn PlaneSink,
    ) -> Result<()> {
        let start = band * self.band;
        let (coverage, classes, weighted) =
            (&self.coverage, self.classes, self.importance.is_some());
        self.planes[planes.clone()].par_iter_mut().zip(planes.clone()).for_each(|(bands, x)| {
            if let Some(Band { sums, .. }) = &mut bands[band] {
                if weighted {
                    divide_by_weights(sums, classes);
                } else {
                    divide_by_coverage(sums, coverage[0][x], &coverage[1][start..], &coverage[2]);
                }
            }
        });
        let (before, dims) = (self.grid.before, self.grid.dims);
        // Rows of this band that belong to the image.
        let from = start.max(before[1]);
        let to = (start + self.band).min(before[1] + dims[1]);
        // Bands that lie entirely in the padding contain no rows of the image.
        let (from, to) = if from < to { (from, to) } else { (start, start) };
        let inner = s![..classes, from - start..to - start, before[2]..before[2] + dims[2]];
        let inside = before[0]..before[0] + dims[0];
        let views: Vec<ArrayView3<f32>> = planes
            .clone()
            .filter(|x| inside.contains(x))
            .filter_map(|x| self.planes[x][band].as_ref().map(|band| band.sums.slice(inner)))
            .collect();
        if !views.is_empty() && from < to {
            sink.planes(planes.start.max(before[0]) - before[0], from - before[1], &views)?;
        }
        for x in planes {
            if let Some(Band { sums, .. }) = self.planes[x][band].take() {
                self.free.push(sums.into_raw_vec_and_offset().0);
            }
        }
        Ok(())
    }

    /// Finishes the remaining bands.
    pub fn finish(&mut self, sink: &mut dyn PlaneSink) -> Result<()> {
        while self.step + 1 < self.steps.len() {
            self.finish_bands(self.bands_in_all(), sink)?;
        }
        Ok(())
    }
}

/// Adds values with axes (class, Y, Z).
fn add_equal(mut target: ArrayViewMut3<f32>, values: ArrayView3<f32>) {
    for (target, values) in target.outer_iter_mut().zip(values.outer_iter()) {
        each_row(target, values, |target, values, _| kernels::add(target, values));
    }
}

/// Adds weighted values, and adds the weights to the extra class after the last.
fn add_weighted(mut target: ArrayViewMut3<f32>, values: ArrayView3<f32>, weights: ArrayView2<f32>) {
    for (target, values) in target.outer_iter_mut().zip(values.outer_iter()) {
        each_row(target, values, |target, values, row| {
            kernels::add_products(target, values, &contiguous(weights.row(row)));
        });
    }
    let sum = target.index_axis_mut(Axis(0), values.dim().0);
    each_row(sum, weights, |target, weights, _| kernels::add(target, weights));
}

fn divide_by_weights(band: &mut Array3<f32>, classes: usize) {
    let (mut values, weights) = band.view_mut().split_at(Axis(0), classes);
    for class in values.outer_iter_mut() {
        let weights = weights.index_axis(Axis(0), 0);
        each_row(class, weights, |values, weights, _| kernels::divide(values, 1.0, weights));
    }
}

fn divide_by_coverage(band: &mut Array3<f32>, x: f32, y: &[f32], z: &[f32]) {
    for mut class in band.outer_iter_mut() {
        for (row, &cy) in class.outer_iter_mut().zip(y) {
            kernels::divide(slice_of(row), x * cy, z);
        }
    }
}

/// Calls `f` with each row along Z of `target`, the same row of `values`, and its index.
fn each_row(
    mut target: ArrayViewMut2<f32>,
    values: ArrayView2<f32>,
    f: impl Fn(&mut [f32], &[f32], usize),
) {
    let rows = target.outer_iter_mut().zip(values.outer_iter()).enumerate();
    for (index, (target, values)) in rows {
        f(slice_of(target), &contiguous(values), index);
    }
}

/// Returns a row of a band, or a part of it.
fn slice_of(row: ArrayViewMut1<'_, f32>) -> &mut [f32] {
    row.into_slice().unwrap_or_else(|| unreachable!("bands are in standard layout"))
}

#[cfg(test)]
mod tests {
    use ndarray::Array4;
    use proptest::prelude::*;

    use super::*;

    /// Accepts and discards everything.
    struct Anything;

    impl PlaneSink for Anything {
        fn begin(&mut self, _: usize, _: [usize; 3]) -> Result<()> {
            Ok(())
        }

        fn planes(&mut self, _: usize, _: usize, _: &[ArrayView3<f32>]) -> Result<()> {
            Ok(())
        }
    }

    #[test]
    fn bands_begin_where_windows_do() {
        let band = |second: usize, classes: usize| {
            let starts = [vec![0], vec![0, second], vec![0]];
            let grid = Grid {
                roi: [96; 3],
                padded: [96, 200, 120],
                before: [0; 3],
                dims: [96, 200, 120],
                starts: &starts,
            };
            grid.band(classes)
        };
        assert_eq!([72, 48, 77, 83, 5].map(|second| band(second, 2)), [24, 24, 11, 8, 8]);
        // A row of so many classes is large.
        assert_eq!(band(72, 105), 8);
        let starts = [vec![0], vec![0], vec![0]];
        let dims = [usize::MAX / 2; 3];
        let huge = Grid { roi: dims, padded: dims, before: [0; 3], dims, starts: &starts };
        assert!(ROWS.contains(&huge.band(usize::MAX / 2)));
    }

    proptest! {
        /// The sums never exceed the forecast, and the forecast is not far off.
        #[test]
        fn held_rows_are_forecast(
            dims in [1usize..150, 1usize..150, 1usize..20],
            roi in [1usize..50, 1usize..60, 1usize..20],
            overlap in 0.0f64..0.8,
        ) {
            let starts: [Vec<usize>; 3] = std::array::from_fn(|a| {
                let (n, roi) = (dims[a].max(roi[a]), roi[a]);
                let step = ((roi as f64 * (1.0 - overlap)) as usize).max(1);
                let mut starts: Vec<usize> = (0..n - roi).step_by(step).collect();
                starts.push(n - roi);
                starts
            });
            let padded = std::array::from_fn(|a| dims[a].max(roi[a]));
            let grid = || Grid { roi, padded, before: [0; 3], dims, starts: &starts };
            let forecast = grid().held_rows(1);
            let mut blend = Blend::new(grid(), BlendMode::Constant);
            let result = Array4::<f32>::zeros((1, roi[0], roi[1], roi[2]));
            for window in grid().windows() {
                blend.add(window, result.view(), &mut Anything).unwrap();
            }
            let held = blend.held_rows();
            prop_assert!(held <= forecast, "{held} held, {forecast} forecast");
            let bands = (padded[0] * 3 * blend.band) as u64;
            prop_assert!(forecast <= held * 3 / 2 + bands, "{held} held, {forecast} forecast");
        }
    }
}
