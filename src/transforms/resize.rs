//! `Resized`: resizes the image to a number of voxels, like `torch.nn.functional.interpolate`.
//!
//! PyTorch computes source positions and weights in f32, and so does this module, because the
//! difference to f64 shows in the result.

use ndarray::Axis;

use super::spacing::stack;
use super::{Applied, AxisTaps, Extent, GridMap, Image, Transform};
use crate::bundle::Args;
use crate::error::{Error, ErrorKind, Result};
use crate::memory::keep;
use crate::volume::Affine;

/// How a resized voxel is computed (`mode` of `torch.nn.functional.interpolate`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResizeMode {
    /// The mean of the voxels it covers, wholly or partly.
    Area,
    /// The voxel at its lower edge.
    Nearest,
    /// The voxel at its centre.
    NearestExact,
    /// Linear along each axis.
    Linear {
        /// Aligns the centres of the outermost voxels rather than the edges of the image.
        align_corners: bool,
    },
}

impl ResizeMode {
    /// Returns the map from a grid of size `from` to one of size `to`.
    pub fn grid_map(self, from: [usize; 3], to: [usize; 3]) -> GridMap {
        if from == to {
            return GridMap::identity(from);
        }
        GridMap::from_taps(std::array::from_fn(|axis| {
            let (n, m) = (from[axis], to[axis]);
            AxisTaps::from_rows(n, (0..m).map(|i| self.taps(i, n, m)))
        }))
    }

    /// Returns the input voxels, of `n`, that output voxel `i` of `m` is computed from.
    fn taps(self, i: usize, n: usize, m: usize) -> Vec<(usize, f64)> {
        let scale = n as f32 / m as f32;
        let single = |position: f32| vec![((position as usize).min(n - 1), 1.0)];
        match self {
            Self::Nearest => single((i as f32 * scale).floor()),
            Self::NearestExact => single(((i as f32 + 0.5) * scale).floor()),
            Self::Area => {
                let (start, end) = (i * n / m, ((i + 1) * n).div_ceil(m));
                let weight = 1.0 / (end - start) as f64;
                (start..end).map(|index| (index, weight)).collect()
            }
            Self::Linear { align_corners } => {
                let position = if align_corners {
                    let step = if m > 1 { (n - 1) as f32 / (m - 1) as f32 } else { 0.0 };
                    step * i as f32
                } else {
                    (scale * (i as f32 + 0.5) - 0.5).max(0.0)
                };
                let low = (position as usize).min(n - 1);
                let weight = (position - low as f32).clamp(0.0, 1.0);
                let high = (low + 1).min(n - 1);
                if high == low {
                    return vec![(low, 1.0)];
                }
                vec![(low, f64::from(1.0 - weight)), (high, f64::from(weight))]
            }
        }
    }
}

/// `monai.transforms.Resized`.
#[derive(Debug, Clone, PartialEq)]
pub struct Resized {
    size: Size,
    mode: ResizeMode,
}

#[derive(Debug, Clone, PartialEq)]
enum Size {
    /// `size_mode` "all": the size along each axis; axes not above 0 keep theirs.
    All([i64; 3]),
    /// `size_mode` "longest": the size along the longest axis; the others follow in proportion.
    Longest(f64),
}

impl Resized {
    pub(super) fn from_args(args: &mut Args) -> Result<Self> {
        args.float_dtype("dtype")?;
        args.ignore(&["anti_aliasing_sigma"]);
        if args.truth("anti_aliasing", false)? {
            return Err(args.invalid("anti_aliasing", "false"));
        }
        let longest = match args.string("size_mode")? {
            None | Some("all") => false,
            Some("longest") => true,
            Some(_) => return Err(args.invalid("size_mode", "\"all\" or \"longest\"")),
        };
        let given = args.whole_numbers("spatial_size")?.unwrap_or_default();
        let size = match (longest, &given[..]) {
            (true, &[n]) if n > 0 => Size::Longest(n as f64),
            (false, &[x, y, z]) => Size::All([x, y, z]),
            (true, _) => return Err(args.invalid("spatial_size", "one whole number above 0")),
            (false, _) => return Err(args.invalid("spatial_size", "three whole numbers")),
        };
        Ok(Self { size, mode: mode_from_args(args)? })
    }

    fn output(&self, dims: [usize; 3]) -> [usize; 3] {
        match &self.size {
            Size::All(size) => std::array::from_fn(|a| match size[a] {
                n if n > 0 => n as usize,
                _ => dims[a],
            }),
            Size::Longest(n) => {
                let scale = n / dims.into_iter().max().unwrap_or(1) as f64;
                dims.map(|d| (d as f64 * scale).round_ties_even() as usize)
            }
        }
    }
}

/// Parses `mode` and `align_corners`; the latter is only valid with linear interpolation.
fn mode_from_args(args: &mut Args) -> Result<ResizeMode> {
    let given = match args.raw("align_corners") {
        Some(serde_json::Value::Array(list)) => match list.as_slice() {
            [only] => only.as_bool(),
            _ => return Err(args.invalid("align_corners", "true, false or null")),
        },
        Some(value) => Some(
            value.as_bool().ok_or_else(|| args.invalid("align_corners", "true, false or null"))?,
        ),
        None => None,
    };
    let mode = match args.string("mode")? {
        None | Some("area") => ResizeMode::Area,
        Some("nearest") => ResizeMode::Nearest,
        Some("nearest-exact") => ResizeMode::NearestExact,
        Some("linear" | "bilinear" | "trilinear") => {
            return Ok(ResizeMode::Linear { align_corners: given.unwrap_or(false) });
        }
        Some(_) => {
            return Err(args.invalid("mode", "area, nearest, nearest-exact or trilinear"));
        }
    };
    if given.is_some() {
        return Err(args.invalid("align_corners", "null with every mode but trilinear"));
    }
    Ok(mode)
}

impl Transform for Resized {
    fn extent(&self, image: Extent) -> Result<Extent> {
        let dims = self.checked(image.dims)?;
        let affine = image.affine.mul(&self.affine(image.dims, dims));
        Ok(Extent { dims, affine, way: image.way.straight(), ..image })
    }

    fn copies(&self) -> bool {
        true
    }

    fn apply(&self, mut image: Image) -> Result<Image> {
        let from = image.dims();
        let to = self.checked(from)?;
        let map = self.mode.grid_map(from, to);
        let channels = image.data.axis_iter(Axis(0)).map(|c| map.apply(c));
        let resized = stack(channels.collect::<Result<_>>()?)?;
        let source = std::mem::replace(&mut image.data, resized);
        keep(source.into_raw_vec_and_offset().0);
        image.affine = image.affine.mul(&self.affine(from, to));
        image.applied.push(Applied::Resize { mode: self.mode, from, to });
        Ok(image)
    }
}

impl Resized {
    /// Returns the size to which an image of size `from` is resized, if it is valid.
    fn checked(&self, from: [usize; 3]) -> Result<[usize; 3]> {
        let to = self.output(from);
        if from.contains(&0) || to.iter().any(|n| !(1..=100_000).contains(n)) {
            return Err(Error::new(
                ErrorKind::InvalidImage,
                format!("an image of {from:?} voxels cannot be resized to {to:?}"),
            ));
        }
        Ok(to)
    }

    /// `monai.transforms.utils.scale_affine`: maps output indices to input indices.
    fn affine(&self, from: [usize; 3], to: [usize; 3]) -> Affine {
        let mut affine = Affine::IDENTITY;
        if from == to {
            return affine;
        }
        let corners = self.mode == ResizeMode::Linear { align_corners: true };
        for axis in 0..3 {
            let (n, m) = (from[axis] as f64, to[axis] as f64);
            let scale = match (corners, m > 1.0) {
                (true, true) => (n - 1.0) / (m - 1.0),
                (true, false) => 0.0,
                (false, _) => n / m,
            };
            affine.0[axis][axis] = scale;
            affine.0[axis][3] = if corners { 0.0 } else { (scale - 1.0) / 2.0 };
        }
        affine
    }
}
