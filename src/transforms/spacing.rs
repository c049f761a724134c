//! `Spacingd`: resamples to a voxel size.

use ndarray::{Array4, Axis};

use super::resample::{Grid, Interpolation, PaddingMode, Resample};
use super::{Applied, Extent, Image, Transform};
use crate::bundle::Args;
use crate::error::{Error, ErrorKind, Result};
use crate::memory::keep;
use crate::volume::Affine;
use crate::volume::affine::rotation;

/// `monai.transforms.Spacingd`.
#[derive(Debug, Clone, PartialEq)]
pub struct Spacingd {
    pixdim: [f64; 3],
    min_pixdim: Option<[f64; 3]>,
    max_pixdim: Option<[f64; 3]>,
    diagonal: bool,
    scale_extent: bool,
    resample: Resample,
}

/// `monai.data.utils.AFFINE_TOL`.
const AFFINE_TOLERANCE: f64 = 1e-3;

impl Spacingd {
    pub(super) fn from_args(args: &mut Args) -> Result<Self> {
        // Images are processed one at a time, so there is no second shape to match. All arithmetic is
        // f64, whatever `dtype` says.
        args.ignore(&["ensure_same_shape"]);
        args.float_dtype("dtype")?;
        if args.boolean("recompute_affine", false)? {
            return Err(args.invalid("recompute_affine", "false"));
        }
        let pixdim = args
            .per_axis("pixdim")?
            .ok_or_else(|| args.invalid("pixdim", "one to three numbers"))?;
        Ok(Self {
            pixdim,
            min_pixdim: args.per_axis("min_pixdim")?,
            max_pixdim: args.per_axis("max_pixdim")?,
            diagonal: args.boolean("diagonal", false)?,
            scale_extent: args.boolean("scale_extent", false)?,
            resample: resample_from_args(args)?,
        })
    }

    /// Returns the size and affine of the output.
    fn output_grid(&self, dims: [usize; 3], affine: &Affine) -> Result<Grid> {
        let original = affine.spacing();
        let wanted = std::array::from_fn(|i| {
            let target = self.pixdim[i];
            let min = self.min_pixdim.map_or(target, |m| m[i].min(target));
            let max = self.max_pixdim.map_or(target, |m| m[i].max(target));
            let kept = (min - AFFINE_TOLERANCE..=max + AFFINE_TOLERANCE).contains(&original[i]);
            if kept { original[i] } else { target }
        });
        let mut output = zoomed(affine, wanted, self.diagonal)?;
        let (shape, offset) = shape_and_offset(dims, affine, &output, self.scale_extent)?;
        output.set_origin(offset);
        Ok((shape, output))
    }
}

/// Parses `mode`, `padding_mode` and `align_corners`, with MONAI's defaults.
pub(super) fn resample_from_args(args: &mut Args) -> Result<Resample> {
    let mode = match args.string("mode")? {
        None | Some("bilinear") => Interpolation::Linear,
        Some("nearest") => Interpolation::Nearest,
        Some(_) => return Err(args.invalid("mode", "\"bilinear\" or \"nearest\"")),
    };
    let padding = match args.string("padding_mode")? {
        None | Some("border") => PaddingMode::Border,
        Some("zeros") => PaddingMode::Zeros,
        Some("reflection") => PaddingMode::Reflection,
        Some(_) => return Err(args.invalid("padding_mode", "border, zeros or reflection")),
    };
    let align_corners = match args.raw("align_corners") {
        None => false,
        Some(serde_json::Value::Array(list)) => {
            list.first().and_then(serde_json::Value::as_bool).unwrap_or(false)
        }
        Some(_) => args.boolean("align_corners", false)?,
    };
    Ok(Resample { mode, padding, align_corners })
}

impl Transform for Spacingd {
    fn extent(&self, image: Extent) -> Result<Extent> {
        let from = (image.dims, image.affine);
        let to = self.output_grid(from.0, &from.1)?;
        let way = image.way.resampled(self.resample.grid_map(&to, &from)?.is_some());
        Ok(Extent { dims: to.0, affine: to.1, way, ..image })
    }

    fn copies(&self) -> bool {
        true
    }

    fn apply(&self, mut image: Image) -> Result<Image> {
        let from = (image.dims(), image.affine);
        let to = self.output_grid(from.0, &from.1)?;
        let channels = image
            .data
            .axis_iter(Axis(0))
            .map(|channel| self.resample.apply(channel, &from, &to))
            .collect::<Result<Vec<_>>>()?;
        let source = std::mem::replace(&mut image.data, stack(channels)?);
        keep(source.into_raw_vec_and_offset().0);
        image.affine = to.1;
        image.applied.push(Applied::Resample { resample: self.resample, from, to });
        Ok(image)
    }
}

/// Stacks channels along a new first axis. A single channel keeps its memory order and is not copied.
pub(super) fn stack(mut channels: Vec<ndarray::Array3<f32>>) -> Result<Array4<f32>> {
    if channels.len() == 1 {
        return Ok(channels.remove(0).insert_axis(Axis(0)));
    }
    let views: Vec<_> = channels.iter().map(|c| c.view()).collect();
    ndarray::stack(Axis(0), &views)
        .map_err(|e| Error::internal("channels differ in size").caused_by(e))
}

/// `monai.data.utils.zoom_affine`: the rotation of `affine` with other voxel sizes and without shear.
fn zoomed(affine: &Affine, scale: [f64; 3], diagonal: bool) -> Result<Affine> {
    let norm = affine.spacing();
    let scale: [f64; 3] = std::array::from_fn(|i| match scale[i] {
        s if s > 0.0 => s,
        _ => norm[i],
    });
    let mut output = Affine::IDENTITY;
    if diagonal {
        for (i, s) in scale.into_iter().enumerate() {
            output.0[i][i] = s;
        }
        return Ok(output);
    }
    let rotation = rotation(affine)?;
    for r in 0..3 {
        for c in 0..3 {
            output.0[r][c] = rotation[r][c] * scale[c];
        }
    }
    Ok(output)
}

/// `monai.data.utils.compute_shape_offset`.
fn shape_and_offset(
    dims: [usize; 3],
    input: &Affine,
    output: &Affine,
    scale_extent: bool,
) -> Result<([usize; 3], [f64; 3])> {
    let to_output = output.solve(input)?;
    let range = |n: usize| {
        if scale_extent { [-0.5, n as f64 - 0.5] } else { [0.0, n as f64 - 1.0] }
    };
    let [rx, ry, rz] = dims.map(range);
    let corners: [[f64; 3]; 8] = std::array::from_fn(|i| [rx[i >> 2], ry[(i >> 1) & 1], rz[i & 1]]);
    let mapped: Vec<[f64; 3]> = corners.iter().map(|&c| to_output.apply(c)).collect();
    let mut shape = [0; 3];
    for (axis, size) in shape.iter_mut().enumerate() {
        let values = mapped.iter().map(|c| c[axis]);
        let extent = values.clone().fold(f64::MIN, f64::max) - values.fold(f64::MAX, f64::min);
        let n = if scale_extent { extent } else { extent + 1.0 }.round_ties_even();
        if !(1.0..=100_000.0).contains(&n) {
            return Err(Error::new(
                ErrorKind::InvalidImage,
                format!(
                    "resampling would give {n} voxels along an axis; PixelSpacing or the distance \
                     between slices is implausible"
                ),
            )
            .with("attribute", "PixelSpacing"));
        }
        *size = n as usize;
    }
    let mut offset = offset_of(dims, shape, input, output, &corners, &mapped);
    if scale_extent {
        let index = std::array::from_fn(|i| 0.5 * (dims[i] as f64 / shape[i] as f64 - 1.0));
        let shifted = input.apply(index);
        offset = std::array::from_fn(|i| shifted[i].abs() * offset[i].signum());
    }
    Ok((shape, offset))
}

/// Returns the world position of the output's first voxel: the corner from which all others lie in
/// positive direction or, if there is none, the position that aligns the centres.
fn offset_of(
    dims: [usize; 3],
    shape: [usize; 3],
    input: &Affine,
    output: &Affine,
    corners: &[[f64; 3]],
    mapped: &[[f64; 3]],
) -> [f64; 3] {
    for (corner, origin) in corners.iter().zip(mapped) {
        let smallest = (0..3)
            .map(|a| mapped.iter().map(|m| m[a] - origin[a]).fold(f64::MAX, f64::min))
            .fold(f64::MAX, f64::min);
        // numpy.allclose(min, 0, rtol=…) keeps the default absolute tolerance.
        if smallest.abs() <= 1e-8 {
            return input.apply(*corner);
        }
    }
    let half = |n: [usize; 3]| n.map(|v| v as f64 / 2.0);
    let linear = |a: &Affine, p: [f64; 3]| -> [f64; 3] {
        let origin = a.origin();
        let moved = a.apply(p);
        std::array::from_fn(|i| moved[i] - origin[i])
    };
    let (from, to) = (input.apply(half(dims)), linear(output, half(shape)));
    std::array::from_fn(|i| from[i] - to[i])
}
