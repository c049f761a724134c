//! Resampling between two grids with affines: `monai.transforms.SpatialResample` as computed by
//! PyTorch's `affine_grid` and `grid_sample`.
//!
//! If both grids have the same axes, the map is separable and becomes a [`GridMap`]. A sheared grid
//! (gantry tilt) is sampled voxel by voxel. Coordinates are computed in f64 in PyTorch's order of
//! operations, so that nearest-neighbour ties resolve the same way.

use ndarray::{Array3, ArrayView3};
use rayon::prelude::*;

use super::grid::{AxisTaps, GridMap, size};
use crate::error::Result;
use crate::memory::zeroed;
use crate::volume::Affine;

/// How values between voxels are computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interpolation {
    /// Linear along each axis (MONAI's "bilinear").
    Linear,
    /// The nearest voxel, ties to the even index.
    Nearest,
}

/// Values outside of the image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PaddingMode {
    /// The nearest border voxel.
    Border,
    /// Zero.
    Zeros,
    /// The image mirrored at its border.
    Reflection,
}

/// Parameters of a resampling.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resample {
    /// Interpolation.
    pub mode: Interpolation,
    /// Padding.
    pub padding: PaddingMode,
    /// PyTorch's `align_corners`: here it only decides where reflections occur.
    pub align_corners: bool,
}

/// A grid: its size and its affine.
pub type Grid = ([usize; 3], Affine);

/// `monai.data.utils.AFFINE_TOL`.
const AFFINE_TOLERANCE: f64 = 1e-3;

/// Displacement in voxels below which an axis counts as aligned.
const STRAIGHT: f64 = 1e-8;

impl Resample {
    /// Returns the separable map from one grid to another; `None` if their axes are not aligned.
    pub fn grid_map(&self, from: &Grid, to: &Grid) -> Result<Option<GridMap>> {
        let xform = from.1.solve(&to.1)?;
        if unchanged(from, to, &xform) {
            return Ok(Some(GridMap::identity(from.0)));
        }
        if !is_diagonal(&xform, to.0) {
            return Ok(None);
        }
        let sampling = Sampling::new(&xform, from.0, to.0, self.align_corners)?;
        let taps = std::array::from_fn(|axis| {
            let rows = (0..to.0[axis]).map(|i| {
                let normalised =
                    sampling.theta[axis][axis] * sampling.base[axis][i] + sampling.theta[axis][3];
                self.taps_at(sampling.index(axis, normalised), from.0[axis])
            });
            AxisTaps::from_rows(from.0[axis], rows)
        });
        Ok(Some(GridMap::from_taps(taps)))
    }

    /// Resamples one channel.
    pub fn apply(&self, input: ArrayView3<f32>, from: &Grid, to: &Grid) -> Result<Array3<f32>> {
        if let Some(map) = self.grid_map(from, to)? {
            return map.apply(input);
        }
        Sampler::new(*self, from, to)?.apply(input)
    }

    /// Returns the voxels and weights that give the value at a coordinate along an axis of `n` voxels.
    fn taps_at(&self, coordinate: f64, n: usize) -> [(usize, f64); 2] {
        let last = (n - 1) as f64;
        let c = match self.padding {
            PaddingMode::Border => coordinate.clamp(0.0, last),
            PaddingMode::Reflection => {
                let reflected = if self.align_corners {
                    reflect(coordinate, 0.0, last)
                } else {
                    reflect(coordinate, -0.5, last + 0.5)
                };
                reflected.clamp(0.0, last)
            }
            PaddingMode::Zeros => coordinate,
        };
        let tap = |index: f64, weight: f64| {
            if index >= 0.0 && index <= last { (index as usize, weight) } else { (0, 0.0) }
        };
        match self.mode {
            Interpolation::Nearest => [tap(c.round_ties_even(), 1.0), (0, 0.0)],
            Interpolation::Linear => {
                let low = c.floor();
                [tap(low, low + 1.0 - c), tap(low + 1.0, c - low)]
            }
        }
    }
}

/// Reflects `x` into `[low, high]`, repeatedly if necessary.
fn reflect(x: f64, low: f64, high: f64) -> f64 {
    let span = high - low;
    if span <= 0.0 {
        return 0.0;
    }
    let distance = (x - low).abs();
    let extra = distance % span;
    if ((distance / span).floor() as i64) % 2 == 0 { extra + low } else { span - extra + low }
}

fn unchanged(from: &Grid, to: &Grid, xform: &Affine) -> bool {
    from.0 == to.0
        && (from.1.all_close(&to.1, AFFINE_TOLERANCE)
            || xform.all_close(&Affine::IDENTITY, AFFINE_TOLERANCE))
}

fn is_diagonal(xform: &Affine, dims: [usize; 3]) -> bool {
    (0..3).all(|r| {
        (0..3).filter(|c| *c != r).map(|c| xform.0[r][c].abs() * dims[c] as f64).sum::<f64>()
            < STRAIGHT
    })
}

/// A voxel-by-voxel resampling from one grid to another.
#[derive(Debug, Clone)]
pub(crate) struct Sampler {
    resample: Resample,
    sampling: Sampling,
    xform: Affine,
}

impl Sampler {
    /// Creates a sampler from grid `from` to grid `to`.
    pub(crate) fn new(resample: Resample, from: &Grid, to: &Grid) -> Result<Self> {
        let xform = from.1.solve(&to.1)?;
        let sampling = Sampling::new(&xform, from.0, to.0, resample.align_corners)?;
        Ok(Self { resample, sampling, xform })
    }

    /// Returns the input voxels along each axis that make up the output voxel `at`, with their weights.
    pub(crate) fn taps(&self, at: [usize; 3]) -> [[(usize, f64); 2]; 3] {
        let Sampling { theta, base, from, .. } = &self.sampling;
        let b: [f64; 3] = std::array::from_fn(|a| base[a][at[a]]);
        std::array::from_fn(|axis| {
            let t = &theta[axis];
            // Summed from the last axis, because MONAI passes the axes to PyTorch in reverse order.
            let normalised = t[2] * b[2] + t[1] * b[1] + t[0] * b[0] + t[3];
            self.resample.taps_at(self.sampling.index(axis, normalised), from[axis])
        })
    }

    fn apply(&self, input: ArrayView3<f32>) -> Result<Array3<f32>> {
        let [nx, ny, nz] = self.sampling.to;
        let mut output = zeroed::<f32>(size(self.sampling.to), "a resampled image")?;
        output.par_chunks_mut((ny * nz).max(1)).enumerate().for_each(|(x, plane)| {
            for (y, row) in plane.chunks_mut(nz.max(1)).enumerate() {
                for (z, out) in row.iter_mut().enumerate() {
                    *out = self.value_at(&input, [x, y, z]);
                }
            }
        });
        Ok(Array3::from_shape_vec((nx, ny, nz), output)
            .unwrap_or_else(|_| unreachable!("the vector has the product of the shape")))
    }

    fn value_at(&self, input: &ArrayView3<f32>, at: [usize; 3]) -> f32 {
        let [tx, ty, tz] = self.taps(at);
        let mut sum = 0.0;
        for (x, wx) in tx {
            for (y, wy) in ty {
                for (z, wz) in tz {
                    let w = wx * wy * wz;
                    if w != 0.0 {
                        sum += w * f64::from(input[[x, y, z]]);
                    }
                }
            }
        }
        sum as f32
    }

    /// Returns the output axis along which the input's `axis` changes most.
    pub(crate) fn steepest(&self, axis: usize) -> usize {
        let slope = |output: usize| self.xform.0[axis][output].abs();
        (0..3).max_by(|&a, &b| slope(a).total_cmp(&slope(b))).unwrap_or(axis)
    }
}

/// Maps output indices to input coordinates, through PyTorch's normalised coordinates.
#[derive(Debug, Clone)]
struct Sampling {
    from: [usize; 3],
    to: [usize; 3],
    /// Maps normalised output coordinates to normalised input coordinates.
    theta: [[f64; 4]; 3],
    /// Normalised coordinate of each output index along each axis.
    base: [Vec<f64>; 3],
    align_corners: bool,
}

impl Sampling {
    fn new(xform: &Affine, from: [usize; 3], to: [usize; 3], align_corners: bool) -> Result<Self> {
        let source = normalisation(from, align_corners);
        let target = normalisation(to, align_corners).inverse()?;
        let theta = source.mul(xform).mul(&target);
        Ok(Self {
            from,
            to,
            theta: [theta.0[0], theta.0[1], theta.0[2]],
            base: to.map(|n| base_coordinates(n, align_corners)),
            align_corners,
        })
    }

    /// Converts a normalised coordinate to an index along an input axis.
    fn index(&self, axis: usize, normalised: f64) -> f64 {
        let n = self.from[axis] as f64;
        if self.align_corners {
            (normalised + 1.0) / 2.0 * (n - 1.0)
        } else {
            ((normalised + 1.0) * n - 1.0) / 2.0
        }
    }
}

/// `monai.networks.utils.normalize_transform`: maps indices to [-1, 1].
fn normalisation(dims: [usize; 3], align_corners: bool) -> Affine {
    let mut m = Affine::IDENTITY;
    for (axis, &n) in dims.iter().enumerate() {
        let n = n as f64;
        if align_corners {
            m.0[axis][axis] = 2.0 / (if n <= 1.0 { 2.0 } else { n } - 1.0);
            m.0[axis][3] = -1.0;
        } else {
            m.0[axis][axis] = 2.0 / n;
            m.0[axis][3] = 1.0 / n - 1.0;
        }
    }
    m
}

/// The coordinates of `torch.nn.functional.affine_grid` along one axis.
fn base_coordinates(n: usize, align_corners: bool) -> Vec<f64> {
    if n <= 1 {
        return vec![0.0; n];
    }
    let step = 2.0 / (n as f64 - 1.0);
    let shrink = |v: f64| if align_corners { v } else { v * (n as f64 - 1.0) / n as f64 };
    (0..n)
        // torch.linspace counts from both ends, with fused multiply-adds.
        .map(|i| {
            if i < n / 2 {
                step.mul_add(i as f64, -1.0)
            } else {
                (-step).mul_add((n - 1 - i) as f64, 1.0)
            }
        })
        .map(shrink)
        .collect()
}
