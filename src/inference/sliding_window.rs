//! `SlidingWindowInferer`: runs overlapping windows through the network and blends their results.
//!
//! MONAI keeps the sums of all classes over the whole image. Here, windows are processed in the order
//! of their starts, and regions that no later window touches are passed on at once (`blend`).

use ndarray::{ArrayView4, ArrayViewMut4, Axis, Zip, s};
use rayon::prelude::*;

use super::blend::{Blend, Grid};
pub use super::importance::BlendMode;
use super::in_turn::{self, Work};
use super::network::Network;
use super::plane_sink::{PlaneSink, WindowStats};
use crate::bundle::Args;
use crate::error::{Error, ErrorKind, Result};
use crate::kernels;
use crate::memory::{any_values, zeros};
use crate::progress::Progress;

/// `monai.inferers.SlidingWindowInferer`.
#[derive(Debug, Clone, PartialEq)]
pub struct SlidingWindowInferer {
    /// Window size along X, Y, Z; `None` for the whole image along that axis.
    pub roi_size: [Option<usize>; 3],
    /// Windows in a batch.
    pub sw_batch_size: usize,
    /// Fraction of a window that the next one overlaps.
    pub overlap: [f64; 3],
    /// How overlapping windows are blended.
    pub mode: BlendMode,
    /// How the image is padded to one window.
    pub padding: WindowPadding,
    /// Whether windows of a constant value, such as air after clipping, run through the network only
    /// once per value.
    pub reuse_constant: bool,
}

/// How an image smaller than a window is padded (`padding_mode` of `torch.nn.functional.pad`).
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

impl SlidingWindowInferer {
    /// Parses a bundle's `inferer`.
    pub fn from_args(args: &mut Args) -> Result<Self> {
        // These choose devices, buffering, progress bars and caching in MONAI; none of them changes the
        // result.
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
        let sw_batch_size = sw_batch_size as usize;
        Ok(Self { roi_size, sw_batch_size, overlap, mode, padding, reuse_constant: true })
    }

    /// Returns the size of a window as passed to the network, for an image of size `dims`.
    pub fn window(&self, dims: [usize; 3]) -> [usize; 3] {
        std::array::from_fn(|a| self.roi_size[a].unwrap_or(dims[a]))
    }

    /// Runs `network` over `image` (axes C, X, Y, Z) and passes the blended result to `sink`.
    pub fn run(
        &self,
        image: ArrayView4<f32>,
        network: &dyn Network,
        sink: &mut dyn PlaneSink,
        progress: &dyn Progress,
    ) -> Result<WindowStats> {
        let (_, nx, ny, nz) = image.dim();
        let dims = [nx, ny, nz];
        let Layout { roi, before, padded, starts } = self.layout(dims);
        let image = self.padded(image, before, padded)?;
        let grid = Grid { roi, padded, before, dims, starts: &starts };
        let windows = grid.windows();
        let mut blend = Blend::new(grid, self.mode);
        let batch = self.batch(network);
        let work = Work { image: image.view(), windows: &windows, roi, network, progress, batch };
        in_turn::run(&work, self.reuse_constant, &mut blend, sink)
    }

    /// Returns the bytes that [`run`](Self::run) holds at the same time, besides the image of
    /// `channels` and `dims` in standard layout, for a network of `classes`: the padded image, the sums
    /// of windows, and batches with their results.
    pub fn forecast(
        &self,
        channels: usize,
        dims: [usize; 3],
        classes: usize,
        network: &dyn Network,
    ) -> u64 {
        const F32: u64 = size_of::<f32>() as u64;
        let Layout { roi, padded, starts, .. } = self.layout(dims);
        let filled = if padded == dims { 0 } else { voxels(padded) };
        let depth = classes as u64 + 1;
        let grid = Grid { roi, padded, before: [0; 3], dims, starts: &starts };
        let sums = grid.held_rows(classes).saturating_mul(padded[2] as u64).saturating_mul(depth);
        let windows = self.windows_at_once(network).saturating_mul(voxels(roi));
        let batches = windows.saturating_mul(channels as u64 + classes as u64);
        // The kept result for windows of a constant value.
        let known = voxels(roi).saturating_mul(classes as u64);
        [filled.saturating_mul(channels as u64), sums, batches, known]
            .into_iter()
            .fold(0, u64::saturating_add)
            .saturating_mul(F32)
    }

    /// Returns the number of windows in memory at the same time, with their results.
    fn windows_at_once(&self, network: &dyn Network) -> u64 {
        (self.batch(network) as u64).saturating_mul(network.workers() as u64)
    }

    /// Returns the number of windows in a batch.
    fn batch(&self, network: &dyn Network) -> usize {
        network.shape().batch.unwrap_or_else(|| network.batch(self.sw_batch_size)).max(1)
    }

    fn layout(&self, dims: [usize; 3]) -> Layout {
        let roi = self.window(dims);
        let before: [usize; 3] = std::array::from_fn(|a| roi[a].saturating_sub(dims[a]) / 2);
        let padded: [usize; 3] = std::array::from_fn(|a| dims[a].max(roi[a]));
        let starts = std::array::from_fn(|a| window_starts(padded[a], roi[a], self.overlap[a]));
        Layout { roi, before, padded, starts }
    }

    /// Returns the image in standard layout, padded to at least one window.
    fn padded<'a>(
        &self,
        image: ArrayView4<'a, f32>,
        before: [usize; 3],
        padded: [usize; 3],
    ) -> Result<ndarray::CowArray<'a, f32, ndarray::Ix4>> {
        let (channels, nx, ny, nz) = image.dim();
        let dims = [nx, ny, nz];
        if dims == padded {
            return standard_layout(image);
        }
        if let WindowPadding::Reflect = self.padding {
            // PyTorch rejects padding larger than a reflection can fill.
            if (0..3).any(|a| padded[a] - dims[a] - before[a] >= dims[a].max(1)) {
                return Err(Error::new(
                    ErrorKind::InvalidImage,
                    format!("an image of {dims:?} voxels is too small to be reflected to a window"),
                ));
            }
        }
        let mut filled = zeros([channels, padded[0], padded[1], padded[2]], IMAGE)?;
        if let WindowPadding::Constant(value) = self.padding {
            if value != 0.0 {
                filled.fill(value);
            }
            copy_into(filled.view_mut(), before, image);
            return Ok(filled.into());
        }
        let maps: [Vec<Option<usize>>; 3] = std::array::from_fn(|a| {
            (0..padded[a])
                .map(|i| self.padding.source(i as isize - before[a] as isize, dims[a]))
                .collect()
        });
        Zip::indexed(&mut filled).par_for_each(|(c, x, y, z), voxel| {
            if let (Some(x), Some(y), Some(z)) = (maps[0][x], maps[1][y], maps[2][z]) {
                *voxel = image[[c, x, y, z]];
            }
        });
        Ok(filled.into())
    }
}

/// The layout of windows on an image.
struct Layout {
    /// Size of a window.
    roi: [usize; 3],
    /// Voxels of padding before the image.
    before: [usize; 3],
    /// Size of the padded image.
    padded: [usize; 3],
    /// Starts of windows along each axis.
    starts: [Vec<usize>; 3],
}

fn voxels(dims: [usize; 3]) -> u64 {
    dims.iter().fold(1, |product: u64, &n| product.saturating_mul(n as u64))
}

impl WindowPadding {
    /// Returns the image index that fills position `i` (relative to the image); `None` for the
    /// constant.
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

/// Name of the image in errors of memory allocation.
const IMAGE: &str = "the network's image";

/// Returns the image with Z varying fastest.
///
/// # Errors
/// [`ErrorKind::OutOfMemory`] if there is no memory for the copy.
pub fn standard_layout(image: ArrayView4<f32>) -> Result<ndarray::CowArray<f32, ndarray::Ix4>> {
    if image.is_standard_layout() {
        return Ok(image.into());
    }
    let (c, x, y, z) = image.dim();
    let mut copy = any_values([c, x, y, z], IMAGE)?;
    copy_into(copy.view_mut(), [0; 3], image);
    Ok(copy.into())
}

/// Copies an image into `target`, in standard layout, from the voxel `before` on. Both have axes (channel, X,
/// Y, Z). If X or Y varies fastest in the image's memory, it is transposed in blocks that suit both orders.
fn copy_into(mut target: ArrayViewMut4<f32>, before: [usize; 3], image: ArrayView4<f32>) {
    const BLOCK: usize = 16;
    let (_, nx, ny, nz) = image.dim();
    let [bx, by, bz] = before;
    let (rows, row) = (target.dim().2, target.dim().3);
    for (mut target, source) in target.outer_iter_mut().zip(image.outer_iter()) {
        let memory =
            source.as_slice_memory_order().filter(|_| source.strides().iter().all(|s| *s > 0));
        let [sx, sy, sz] = std::array::from_fn(|axis| source.strides()[axis].unsigned_abs());
        let mut inner = target.slice_mut(s![bx..bx + nx, .., ..]);
        let blocks = inner.axis_chunks_iter_mut(Axis(0), BLOCK).into_par_iter();
        blocks.zip(source.axis_chunks_iter(Axis(0), BLOCK)).enumerate().for_each(
            |(block, (mut target, source))| {
                let (planes, x) = (source.dim().0, block * BLOCK);
                match (memory, target.as_slice_mut()) {
                    (Some(memory), Some(target)) if sx == 1 => {
                        for y in 0..ny {
                            let from = (&memory[x + y * sy..], sz);
                            let to = (&mut target[(by + y) * row + bz..], rows * row);
                            kernels::transpose(from, to, [planes, nz]);
                        }
                    }
                    (Some(memory), Some(target)) if sy == 1 => {
                        for plane in 0..planes {
                            let from = (&memory[(x + plane) * sx..], sz);
                            let to = (&mut target[(plane * rows + by) * row + bz..], row);
                            kernels::transpose(from, to, [ny, nz]);
                        }
                    }
                    _ => target.slice_mut(s![.., by..by + ny, bz..bz + nz]).assign(&source),
                }
            },
        );
    }
}

/// Returns the starts of windows along an axis, like `monai.data.utils.dense_patch_slices` with
/// `_get_scan_interval`. The last window is moved back to end with the image.
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

#[cfg(test)]
mod tests;
