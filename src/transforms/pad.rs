//! Padding: `SpatialPadd`, `DivisiblePadd` and `BorderPadd`.

use super::window::{PadMode, cut};
use super::{Extent, Image, Transform};
use crate::bundle::Args;
use crate::error::Result;

/// Which ends are padded (`monai.utils.Method`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Method {
    /// Both ends; the far end gets an odd voxel.
    Symmetric,
    /// The far end.
    End,
}

impl Method {
    fn from_args(args: &mut Args) -> Result<Self> {
        match args.string("method")? {
            None | Some("symmetric") => Ok(Self::Symmetric),
            Some("end") => Ok(Self::End),
            Some(_) => Err(args.invalid("method", "\"symmetric\" or \"end\"")),
        }
    }
}

/// Pads to at least `size`.
fn pad_to(image: Image, size: [i64; 3], method: Method, mode: PadMode) -> Result<Image> {
    let dims = image.dims().map(|n| n as i64);
    let to: [i64; 3] = std::array::from_fn(|a| size[a].max(dims[a]));
    let offset = match method {
        Method::Symmetric => std::array::from_fn(|a| -((to[a] - dims[a]) / 2)),
        Method::End => [0; 3],
    };
    cut(image, offset, to.map(|n| n as usize), mode)
}

/// Returns the extent of an image padded to at least `size`. The affine is kept: no later transform
/// depends on the position.
pub(super) fn padded(image: Extent, size: [i64; 3]) -> Extent {
    let size = size.map(|n| usize::try_from(n).unwrap_or(0));
    Extent { dims: std::array::from_fn(|a| size[a].max(image.dims[a])), ..image }
}

/// `monai.utils.fall_back_tuple`: sizes not above 0 default to the image's own size.
pub(super) fn fall_back(given: [i64; 3], dims: [i64; 3]) -> [i64; 3] {
    std::array::from_fn(|a| if given[a] > 0 { given[a] } else { dims[a] })
}

/// Rounds `size` up to a multiple of `k`, if `k` is above 0.
pub(super) fn divisible_size(size: i64, k: i64) -> i64 {
    if k > 0 { size.saturating_add(k - 1).div_euclid(k) * k } else { size }
}

/// `monai.transforms.SpatialPadd`: pads to a size.
#[derive(Debug, Clone, PartialEq)]
pub struct SpatialPadd {
    spatial_size: [i64; 3],
    method: Method,
    mode: PadMode,
}

impl SpatialPadd {
    pub(super) fn from_args(args: &mut Args) -> Result<Self> {
        let spatial_size = args
            .whole_per_axis("spatial_size")?
            .ok_or_else(|| args.invalid("spatial_size", "a whole number or three of them"))?;
        let (method, mode) = (Method::from_args(args)?, PadMode::from_args(args)?);
        Ok(Self { spatial_size, method, mode })
    }
}

impl Transform for SpatialPadd {
    fn apply(&self, image: Image) -> Result<Image> {
        let size = fall_back(self.spatial_size, image.dims().map(|n| n as i64));
        pad_to(image, size, self.method, self.mode)
    }

    fn extent(&self, image: Extent) -> Result<Extent> {
        let size = fall_back(self.spatial_size, image.dims.map(|n| n as i64));
        Ok(padded(image, size))
    }
}

/// `monai.transforms.DivisiblePadd`: pads to multiples of `k`.
#[derive(Debug, Clone, PartialEq)]
pub struct DivisiblePadd {
    k: [i64; 3],
    method: Method,
    mode: PadMode,
}

impl DivisiblePadd {
    pub(super) fn from_args(args: &mut Args) -> Result<Self> {
        let k = args
            .whole_per_axis("k")?
            .ok_or_else(|| args.invalid("k", "a whole number or three of them"))?;
        let (method, mode) = (Method::from_args(args)?, PadMode::from_args(args)?);
        Ok(Self { k, method, mode })
    }
}

impl Transform for DivisiblePadd {
    fn apply(&self, image: Image) -> Result<Image> {
        let dims = image.dims().map(|n| n as i64);
        let size = std::array::from_fn(|a| divisible_size(dims[a], self.k[a]));
        pad_to(image, size, self.method, self.mode)
    }

    fn extent(&self, image: Extent) -> Result<Extent> {
        let dims = image.dims.map(|n| n as i64);
        Ok(padded(image, std::array::from_fn(|a| divisible_size(dims[a], self.k[a]))))
    }
}

/// `monai.transforms.BorderPadd`: pads by given widths.
#[derive(Debug, Clone, PartialEq)]
pub struct BorderPadd {
    /// Voxels before and after each axis.
    border: [(i64, i64); 3],
    mode: PadMode,
}

impl BorderPadd {
    pub(super) fn from_args(args: &mut Args) -> Result<Self> {
        let border = args.whole_numbers("spatial_border")?.unwrap_or_default();
        // MONAI treats negative widths as zero.
        let border: Vec<i64> = border.into_iter().map(|n| n.max(0)).collect();
        let border = match border[..] {
            [n] => [(n, n); 3],
            [x, y, z] => [(x, x), (y, y), (z, z)],
            [a, b, c, d, e, f] => [(a, b), (c, d), (e, f)],
            _ => return Err(args.invalid("spatial_border", "one, three or six whole numbers")),
        };
        Ok(Self { border, mode: PadMode::from_args(args)? })
    }
}

impl Transform for BorderPadd {
    fn apply(&self, image: Image) -> Result<Image> {
        let dims = image.dims();
        let offset = self.border.map(|(before, _)| -before);
        let to = std::array::from_fn(|a| {
            let (before, after) = self.border[a];
            dims[a] + (before + after) as usize
        });
        cut(image, offset, to, self.mode)
    }

    fn extent(&self, image: Extent) -> Result<Extent> {
        let borders = self.border.map(|(before, after)| before.saturating_add(after));
        let dims = image.dims.map(|n| n as i64);
        Ok(padded(image, std::array::from_fn(|a| dims[a].saturating_add(borders[a]))))
    }
}
