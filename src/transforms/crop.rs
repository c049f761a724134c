//! Cropping: `CropForegroundd`, `CenterSpatialCropd` and `SpatialCropd`.

use super::foreground::{Selection, bounding_box};
use super::pad::{divisible_size, fall_back, padded};
use super::window::{PadMode, cut};
use super::{Extent, Image, Transform};
use crate::bundle::Args;
use crate::error::{Error, ErrorKind, Result};

/// `monai.transforms.CropForegroundd`: crops to the bounding box of the foreground plus a margin. Parts
/// outside of the image are padded.
#[derive(Debug, Clone, PartialEq)]
pub struct CropForegroundd {
    select: Selection,
    margin: [i64; 3],
    allow_smaller: bool,
    k_divisible: [i64; 3],
    pad: PadMode,
}

impl CropForegroundd {
    pub(super) fn from_args(args: &mut Args) -> Result<Self> {
        // There is one image, which is its own source; the coordinates would only be recorded.
        args.ignore(&["source_key", "start_coord_key", "end_coord_key"]);
        let margin = args.whole_per_axis("margin")?.unwrap_or([0; 3]);
        if margin.iter().any(|m| *m < 0) {
            return Err(args.invalid("margin", "numbers of at least 0"));
        }
        Ok(Self {
            select: Selection::from_args(args)?,
            margin,
            allow_smaller: args.truth("allow_smaller", false)?,
            k_divisible: args.whole_per_axis("k_divisible")?.unwrap_or([1; 3]),
            pad: PadMode::from_args(args)?,
        })
    }
}

impl Transform for CropForegroundd {
    fn apply(&self, image: Image) -> Result<Image> {
        let dims = image.dims();
        let Some(found) = bounding_box(image.data.view(), &self.select)? else {
            return Err(Error::new(
                ErrorKind::InvalidImage,
                "there is no foreground in the image to crop to",
            ));
        };
        let mut offset = [0; 3];
        let mut size = [0; 3];
        for axis in 0..3 {
            let (first, last) = found[axis];
            let mut start = first as i64 - self.margin[axis];
            let mut end = last as i64 + self.margin[axis] + 1;
            if self.allow_smaller {
                start = start.max(0);
                end = end.min(dims[axis] as i64);
            }
            size[axis] = divisible_size(end - start, self.k_divisible[axis]);
            offset[axis] = start - (size[axis] - (end - start)).div_euclid(2);
        }
        cut(image, offset, size.map(|s| s as usize), self.pad)
    }

    /// Predicts the extent if the whole image is foreground, which is the largest possible one.
    fn extent(&self, image: Extent) -> Result<Extent> {
        let size = std::array::from_fn(|a| {
            let margin = if self.allow_smaller { 0 } else { self.margin[a].saturating_mul(2) };
            divisible_size((image.dims[a] as i64).saturating_add(margin), self.k_divisible[a])
        });
        Ok(padded(image, size))
    }
}

/// `monai.transforms.CenterSpatialCropd`.
#[derive(Debug, Clone, PartialEq)]
pub struct CenterSpatialCropd {
    roi_size: [i64; 3],
}

impl CenterSpatialCropd {
    pub(super) fn from_args(args: &mut Args) -> Result<Self> {
        let roi_size = args
            .whole_per_axis("roi_size")?
            .ok_or_else(|| args.invalid("roi_size", "a whole number or three of them"))?;
        Ok(Self { roi_size })
    }
}

impl Transform for CenterSpatialCropd {
    fn apply(&self, image: Image) -> Result<Image> {
        let dims = image.dims().map(|n| n as i64);
        let size = fall_back(self.roi_size, dims);
        let start: [i64; 3] = std::array::from_fn(|a| (dims[a] / 2 - size[a] / 2).max(0));
        crop(image, start, std::array::from_fn(|a| start[a] + size[a]))
    }

    fn extent(&self, image: Extent) -> Result<Extent> {
        let dims = image.dims.map(|n| n as i64);
        let size = fall_back(self.roi_size, dims);
        Ok(Extent { dims: std::array::from_fn(|a| size[a].min(dims[a]) as usize), ..image })
    }
}

/// `monai.transforms.SpatialCropd` by centre and size, or by start and end. Axes without a range are
/// not cropped.
#[derive(Debug, Clone, PartialEq)]
pub struct SpatialCropd {
    ranges: Vec<(i64, i64)>,
}

impl SpatialCropd {
    pub(super) fn from_args(args: &mut Args) -> Result<Self> {
        let mut read = |name| args.whole_numbers(name);
        let (center, size) = (read("roi_center")?, read("roi_size")?);
        let (start, end) = (read("roi_start")?, read("roi_end")?);
        let ranges = if let (Some(center), Some(size)) = (center, size) {
            pairs(center, size).map(|pairs| {
                let range = |(c, s): (i64, i64)| {
                    let start = (c - s / 2).max(0);
                    (start, start + s)
                };
                pairs.into_iter().map(range).collect()
            })
        } else if let (Some(start), Some(end)) = (start, end) {
            pairs(start, end)
        } else {
            None
        };
        match ranges {
            Some(ranges) => Ok(Self { ranges }),
            None => Err(args.invalid(
                "roi_start",
                "up to three numbers beside as many in roi_end (or roi_center and roi_size)",
            )),
        }
    }
}

impl Transform for SpatialCropd {
    fn apply(&self, image: Image) -> Result<Image> {
        let dims = image.dims().map(|n| n as i64);
        let range = |a: usize| self.ranges.get(a).copied().unwrap_or((0, dims[a]));
        crop(image, [0, 1, 2].map(|a| range(a).0.max(0)), [0, 1, 2].map(|a| range(a).1))
    }

    fn extent(&self, image: Extent) -> Result<Extent> {
        let dims = image.dims.map(|n| n as i64);
        let size = |a: usize| {
            let (start, end) = self.ranges.get(a).copied().unwrap_or((0, dims[a]));
            (end.min(dims[a]) - start.max(0)).max(0) as usize
        };
        Ok(Extent { dims: [0, 1, 2].map(size), ..image })
    }
}

/// Brings both lists to one length, up to three; a single number stands for all axes.
fn pairs(a: Vec<i64>, b: Vec<i64>) -> Option<Vec<(i64, i64)>> {
    let n = a.len().max(b.len());
    let long = |list: Vec<i64>| match list.len() {
        1 => Some(vec![list[0]; n]),
        length => (length == n).then_some(list),
    };
    let (a, b) = (long(a)?, long(b)?);
    (1..=3).contains(&n).then(|| a.into_iter().zip(b).collect())
}

/// Cuts out the voxels from `start` to `end` (exclusive) that exist.
fn crop(image: Image, start: [i64; 3], end: [i64; 3]) -> Result<Image> {
    let dims = image.dims();
    let size = std::array::from_fn(|a| (end[a].min(dims[a] as i64) - start[a]).max(0) as usize);
    cut(image, start, size, PadMode::Constant(0.0))
}
