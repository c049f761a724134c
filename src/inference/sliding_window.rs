//! `SlidingWindowInferer`: overlapping windows through the network, blended.
//!
//! MONAI keeps the sums of all classes over the whole image. Here windows are taken in the order of
//! their start along X; a plane that no later window touches is finished, divided by its weights
//! and handed on at once. Only as many planes as a window is deep are ever held.

use ndarray::{Array4, Array5, ArrayView3, ArrayView4, ArrayView5, Axis, s};
use rayon::prelude::*;

pub use super::importance::BlendMode;
use super::importance::importance_map;
use super::network::Network;
use crate::bundle::Args;
use crate::error::{Error, ErrorKind, Result};
use crate::progress::{Progress, Stage};

/// `monai.inferers.SlidingWindowInferer`.
#[derive(Debug, Clone, PartialEq)]
pub struct SlidingWindowInferer {
    /// Window size along X, Y, Z; `None` for the whole image along that axis.
    pub roi_size: [Option<usize>; 3],
    /// Windows in a batch.
    pub sw_batch_size: usize,
    /// Share of a window that the next one overlaps.
    pub overlap: [f64; 3],
    /// Blending.
    pub mode: BlendMode,
    /// What fills the image up to one window.
    pub padding: WindowPadding,
}

/// How an image smaller than a window is filled up (`padding_mode` of `torch.nn.functional.pad`).
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum WindowPadding {
    /// With a constant (`cval`).
    Constant(f32),
    /// Mirrored without repeating the border voxel.
    Reflect,
    /// With the border voxel.
    Replicate,
    /// Wrapped around.
    Circular,
}

/// Takes finished planes of the blended result.
pub trait PlaneSink {
    /// Called once, before the first plane: classes, and size along X, Y, Z.
    fn begin(&mut self, classes: usize, dims: [usize; 3]) -> Result<()>;

    /// The planes `x`, `x + 1`, … in turn, each with axes (class, Y, Z) in standard layout.
    fn planes(&mut self, x: usize, planes: &[ArrayView3<f32>]) -> Result<()>;
}

/// What a run took.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct WindowStats {
    /// Windows that went through the network.
    pub windows: usize,
    /// Seconds inside the network alone.
    pub network_seconds: f64,
}

impl SlidingWindowInferer {
    /// From a bundle's `inferer`.
    pub fn from_args(args: &mut Args) -> Result<Self> {
        // Where tensors live and how results are buffered there, progress bars, caching: none of it
        // changes the result.
        args.ignore(&[
            "sw_device",
            "device",
            "progress",
            "cache_roi_weight_map",
            "cpu_thresh",
            "buffer_steps",
            "buffer_dim",
            "with_coord",
        ]);
        let roi_size = args
            .per_axis("roi_size")?
            .ok_or_else(|| args.invalid("roi_size", "one to three whole numbers"))?
            .map(|v| (v >= 1.0).then_some(v as usize));
        let sw_batch_size = args.number("sw_batch_size")?.unwrap_or(1.0);
        if sw_batch_size < 1.0 {
            return Err(args.invalid("sw_batch_size", "a number of at least 1"));
        }
        let overlap = args.per_axis("overlap")?.unwrap_or([0.25; 3]);
        if overlap.iter().any(|o| !(0.0..1.0).contains(o)) {
            return Err(args.invalid("overlap", "numbers of at least 0 and below 1"));
        }
        let sigma_scale = args.per_axis("sigma_scale")?.unwrap_or([0.125; 3]);
        let mode = match args.string("mode")? {
            None | Some("constant") => BlendMode::Constant,
            Some("gaussian") => BlendMode::Gaussian { sigma_scale },
            Some(_) => return Err(args.invalid("mode", "\"constant\" or \"gaussian\"")),
        };
        let cval = args.number("cval")?.unwrap_or(0.0) as f32;
        let padding = match args.string("padding_mode")? {
            None | Some("constant") => WindowPadding::Constant(cval),
            Some("reflect") => WindowPadding::Reflect,
            Some("replicate") => WindowPadding::Replicate,
            Some("circular") => WindowPadding::Circular,
            Some(_) => {
                return Err(
                    args.invalid("padding_mode", "constant, reflect, replicate or circular")
                );
            }
        };
        Ok(Self { roi_size, sw_batch_size: sw_batch_size as usize, overlap, mode, padding })
    }

    /// Size of a window on an image of size `dims`, as given to the network.
    pub fn window(&self, dims: [usize; 3]) -> [usize; 3] {
        std::array::from_fn(|a| self.roi_size[a].unwrap_or(dims[a]))
    }

    /// Runs `network` over `image` (axes C, X, Y, Z) and hands the blended result to `sink`.
    pub fn run(
        &self,
        image: ArrayView4<f32>,
        network: &dyn Network,
        sink: &mut dyn PlaneSink,
        progress: &dyn Progress,
    ) -> Result<WindowStats> {
        let (_, nx, ny, nz) = image.dim();
        let dims = [nx, ny, nz];
        let roi = self.window(dims);
        let before: [usize; 3] = std::array::from_fn(|a| roi[a].saturating_sub(dims[a]) / 2);
        let padded: [usize; 3] = std::array::from_fn(|a| dims[a].max(roi[a]));
        let image = self.padded(image, before, padded)?;
        let starts: [Vec<usize>; 3] =
            std::array::from_fn(|a| window_starts(padded[a], roi[a], self.overlap[a]));
        let mut blend = Blend::new(roi, padded, before, dims, self.mode, &starts);
        let windows: Vec<[usize; 3]> = starts[0]
            .iter()
            .flat_map(|&x| {
                let (ys, zs) = (&starts[1], &starts[2]);
                ys.iter().flat_map(move |&y| zs.iter().map(move |&z| [x, y, z]))
            })
            .collect();
        let batch_size = network.shape().batch.unwrap_or(self.sw_batch_size).max(1);
        let mut stats = WindowStats { windows: windows.len(), network_seconds: 0.0 };
        let channels = image.dim().0;
        let mut buffer = Array5::<f32>::zeros((batch_size, channels, roi[0], roi[1], roi[2]));
        let fixed = network.shape().batch.is_some();
        let mut done = 0;
        for batch in windows.chunks(batch_size) {
            progress.check()?;
            gather(&image, batch, roi, &mut buffer);
            let run = if fixed { batch_size } else { batch.len() };
            let started = std::time::Instant::now();
            let mut inside = 0.0;
            network.run(buffer.slice(s![..run, .., .., .., ..]), &mut |result| {
                inside = started.elapsed().as_secs_f64();
                check_result(&result, run, roi)?;
                for (window, result) in batch.iter().zip(result.outer_iter()) {
                    blend.add(*window, result, sink)?;
                }
                Ok(())
            })?;
            stats.network_seconds += inside;
            done += batch.len();
            progress.advance(Stage::Inference, done, windows.len());
        }
        blend.finish(sink)?;
        Ok(stats)
    }

    /// The image in standard layout, filled up to at least one window.
    fn padded<'a>(
        &self,
        image: ArrayView4<'a, f32>,
        before: [usize; 3],
        padded: [usize; 3],
    ) -> Result<ndarray::CowArray<'a, f32, ndarray::Ix4>> {
        let (channels, nx, ny, nz) = image.dim();
        let dims = [nx, ny, nz];
        if dims == padded {
            return Ok(standard_layout(image));
        }
        let maps: [Vec<Option<usize>>; 3] = std::array::from_fn(|a| {
            (0..padded[a])
                .map(|i| self.padding.source(i as isize - before[a] as isize, dims[a]))
                .collect()
        });
        if let WindowPadding::Reflect = self.padding {
            // PyTorch refuses what a reflection cannot fill.
            if (0..3).any(|a| padded[a] - dims[a] - before[a] >= dims[a].max(1)) {
                return Err(Error::new(
                    ErrorKind::InvalidImage,
                    format!("an image of {dims:?} voxels is too small to be reflected to a window"),
                ));
            }
        }
        let fill = if let WindowPadding::Constant(v) = self.padding { v } else { 0.0 };
        let shape = (channels, padded[0], padded[1], padded[2]);
        Ok(Array4::from_shape_fn(shape, |(c, x, y, z)| {
            match (maps[0][x], maps[1][y], maps[2][z]) {
                (Some(x), Some(y), Some(z)) => image[[c, x, y, z]],
                _ => fill,
            }
        })
        .into())
    }
}

impl WindowPadding {
    /// The image index that fills position `i` (relative to the image), `None` for the constant.
    fn source(self, i: isize, n: usize) -> Option<usize> {
        let last = n as isize - 1;
        if (0..=last).contains(&i) {
            return Some(i as usize);
        }
        match self {
            Self::Constant(_) => None,
            Self::Replicate => Some(i.clamp(0, last) as usize),
            Self::Circular => Some(i.rem_euclid(n as isize) as usize),
            Self::Reflect => {
                let reflected = if i < 0 { -i } else { 2 * last - i };
                Some(reflected.clamp(0, last) as usize)
            }
        }
    }
}

/// The image with Z running fastest, copied in blocks that suit both memory orders.
fn standard_layout(image: ArrayView4<f32>) -> ndarray::CowArray<f32, ndarray::Ix4> {
    const BLOCK: usize = 16;
    if image.is_standard_layout() {
        return image.into();
    }
    let mut copy = Array4::<f32>::zeros(image.dim());
    for (target, source) in copy.outer_iter_mut().zip(image.outer_iter()) {
        let mut target = target;
        target
            .axis_chunks_iter_mut(Axis(0), BLOCK)
            .into_par_iter()
            .zip(source.axis_chunks_iter(Axis(0), BLOCK).into_par_iter())
            .for_each(|(mut target, source)| {
                let (nx, ny, nz) = source.dim();
                for y in 0..ny {
                    for z in 0..nz {
                        for x in 0..nx {
                            target[[x, y, z]] = source[[x, y, z]];
                        }
                    }
                }
            });
    }
    copy.into()
}

/// Where windows start along an axis: `monai.data.utils.dense_patch_slices` with
/// `_get_scan_interval`. The last one is moved back to end with the image.
fn window_starts(n: usize, roi: usize, overlap: f64) -> Vec<usize> {
    if n <= roi {
        return vec![0];
    }
    let interval = ((roi as f64 * (1.0 - overlap)) as usize).max(1);
    let mut starts = Vec::new();
    let mut start = 0;
    while start + roi < n {
        starts.push(start);
        start += interval;
    }
    starts.push(n - roi);
    starts
}

/// Copies windows out of the image (standard layout), row by row.
fn gather(
    image: &ndarray::CowArray<f32, ndarray::Ix4>,
    windows: &[[usize; 3]],
    roi: [usize; 3],
    buffer: &mut Array5<f32>,
) {
    buffer.outer_iter_mut().into_par_iter().zip(windows).for_each(|(mut target, &[x, y, z])| {
        let source = image.slice(s![.., x..x + roi[0], y..y + roi[1], z..z + roi[2]]);
        target.assign(&source);
    });
}

fn check_result(result: &ArrayView5<f32>, batch: usize, roi: [usize; 3]) -> Result<()> {
    let (n, _, x, y, z) = result.dim();
    if n != batch || [x, y, z] != roi {
        return Err(Error::new(
            ErrorKind::InvalidModel,
            format!(
                "the network gave a result of {n} windows of {:?} voxels for {batch} of {roi:?}",
                [x, y, z]
            ),
        ));
    }
    Ok(())
}

/// The rolling sums: one slot for each plane that windows still reach, by `x mod roi_x`.
struct Blend {
    roi: [usize; 3],
    padded: [usize; 3],
    /// Size of the image and where it lies in the padded one.
    dims: [usize; 3],
    before: [usize; 3],
    importance: Option<ndarray::Array3<f32>>,
    /// How many windows cover each index along each axis (equal weights only).
    coverage: [Vec<f32>; 3],
    classes: usize,
    /// (slot, class, Y, Z); with unequal weights one more class holds their sum.
    sums: Array4<f32>,
    /// Planes below this one are finished.
    next: usize,
}

impl Blend {
    fn new(
        roi: [usize; 3],
        padded: [usize; 3],
        before: [usize; 3],
        dims: [usize; 3],
        mode: BlendMode,
        starts: &[Vec<usize>; 3],
    ) -> Self {
        let coverage = std::array::from_fn(|a| {
            let mut count = vec![0.0; padded[a]];
            for &start in &starts[a] {
                for c in &mut count[start..start + roi[a]] {
                    *c += 1.0;
                }
            }
            count
        });
        Self {
            roi,
            padded,
            dims,
            before,
            importance: importance_map(mode, roi),
            coverage,
            classes: 0,
            sums: Array4::zeros((0, 0, 0, 0)),
            next: 0,
        }
    }

    /// Adds a window's result (class, X, Y, Z). Windows come in ascending order of their start
    /// along X, so planes before it are complete.
    fn add(
        &mut self,
        [x, y, z]: [usize; 3],
        result: ArrayView4<f32>,
        sink: &mut dyn PlaneSink,
    ) -> Result<()> {
        if self.classes == 0 {
            self.classes = result.dim().0;
            let extra = usize::from(self.importance.is_some());
            let (slots, [_, ny, nz]) = (self.roi[0], self.padded);
            self.sums = Array4::zeros((slots, self.classes + extra, ny, nz));
            sink.begin(self.classes, self.dims)?;
        }
        if result.dim().0 != self.classes {
            return Err(Error::new(
                ErrorKind::InvalidModel,
                "the network's number of classes changes from window to window",
            ));
        }
        self.emit_before(x, sink)?;
        let (roi, importance) = (self.roi, self.importance.as_ref());
        self.sums.outer_iter_mut().into_par_iter().enumerate().for_each(|(slot, mut plane)| {
            // The window's plane i lies in slot (x + i) mod roi_x.
            let i = (slot + roi[0] - x % roi[0]) % roi[0];
            let mut plane = plane.slice_mut(s![.., y..y + roi[1], z..z + roi[2]]);
            for (class, mut target) in plane.outer_iter_mut().enumerate() {
                match importance {
                    None => target += &result.slice(s![class, i, .., ..]),
                    Some(map) => {
                        let weights = map.index_axis(Axis(0), i);
                        if class < result.dim().0 {
                            let values = result.slice(s![class, i, .., ..]);
                            ndarray::Zip::from(&mut target)
                                .and(&values)
                                .and(&weights)
                                .for_each(|t, &v, &w| *t += v * w);
                        } else {
                            target += &weights;
                        }
                    }
                }
            }
        });
        Ok(())
    }

    /// Finishes, hands on and clears the planes before `end`.
    fn emit_before(&mut self, end: usize, sink: &mut dyn PlaneSink) -> Result<()> {
        if end <= self.next {
            return Ok(());
        }
        let (slots, first) = (self.roi[0], self.next);
        let count = end - first;
        let slot_range = |slot: usize| {
            // The plane that lies in this slot, if it is among those to finish.
            let offset = (slot + slots - first % slots) % slots;
            (offset < count).then_some(first + offset)
        };
        let coverage = &self.coverage;
        let (classes, weighted) = (self.classes, self.importance.is_some());
        self.sums.outer_iter_mut().into_par_iter().enumerate().for_each(|(slot, mut plane)| {
            if let Some(x) = slot_range(slot) {
                if weighted {
                    divide_by_weights(&mut plane, classes);
                } else {
                    divide_by_coverage(&mut plane, coverage[0][x], &coverage[1], &coverage[2]);
                }
            }
        });
        let image_x = self.before[0]..self.before[0] + self.dims[0];
        let (y, z) = (self.before[1], self.before[2]);
        let inner = s![..classes, y..y + self.dims[1], z..z + self.dims[2]];
        let views: Vec<ArrayView3<f32>> = (first..end)
            .filter(|x| image_x.contains(x))
            .map(|x| self.sums.index_axis(Axis(0), x % slots).slice_move(inner))
            .collect();
        if !views.is_empty() {
            sink.planes(first.max(image_x.start) - image_x.start, &views)?;
        }
        for x in first..end {
            self.sums.index_axis_mut(Axis(0), x % slots).fill(0.0);
        }
        self.next = end;
        Ok(())
    }

    fn finish(&mut self, sink: &mut dyn PlaneSink) -> Result<()> {
        self.emit_before(self.padded[0], sink)
    }
}

fn divide_by_weights(plane: &mut ndarray::ArrayViewMut3<f32>, classes: usize) {
    let (mut values, weights) = plane.view_mut().split_at(Axis(0), classes);
    let weights = weights.index_axis(Axis(0), 0);
    for mut class in values.outer_iter_mut() {
        class /= &weights;
    }
}

fn divide_by_coverage(plane: &mut ndarray::ArrayViewMut3<f32>, x: f32, y: &[f32], z: &[f32]) {
    for mut class in plane.outer_iter_mut() {
        for (mut row, &cy) in class.outer_iter_mut().zip(y) {
            for (value, &cz) in row.iter_mut().zip(z) {
                *value /= x * cy * cz;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_start_as_in_monai() {
        assert_eq!(window_starts(40, 16, 0.25), [0, 12, 24]);
        assert_eq!(window_starts(33, 16, 0.5), [0, 8, 16, 17]);
        assert_eq!(window_starts(21, 16, 0.625), [0, 5]);
        assert_eq!(window_starts(16, 16, 0.5), [0]);
        assert_eq!(window_starts(5, 16, 0.5), [0]);
    }

    #[test]
    fn padding_indices() {
        let at = |p: WindowPadding| -> Vec<_> { (-2..5).map(|i| p.source(i, 3)).collect() };
        assert_eq!(at(WindowPadding::Reflect), [2, 1, 0, 1, 2, 1, 0].map(Some));
        assert_eq!(at(WindowPadding::Replicate), [0, 0, 0, 1, 2, 2, 2].map(Some));
        assert_eq!(at(WindowPadding::Circular), [1, 2, 0, 1, 2, 0, 1].map(Some));
    }
}
