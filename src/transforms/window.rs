//! Cuts a window out of the grid: the shared part of all cropping and padding.

use ndarray::{Array4, ArrayView4, Axis, Slice, Zip};

use super::{Applied, AxisTaps, Image};
use crate::bundle::Args;
use crate::error::{Error, ErrorKind, Result};
use crate::memory::zeros;
use crate::volume::Affine;

/// Limit on the voxels along an axis.
const LARGEST: usize = 100_000;

/// Values of a window outside of the image (`mode` of MONAI's padding).
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum PadMode {
    /// A constant.
    Constant(f32),
    /// The border voxel.
    Edge,
    /// Mirrored without repeating the border voxel.
    Reflect,
    /// Mirrored with the border voxel repeated.
    Symmetric,
    /// Wrapped around.
    Wrap,
}

impl PadMode {
    /// Parses `mode` and the constant's value.
    pub(super) fn from_args(args: &mut Args) -> Result<Self> {
        let value = match args.number("value")? {
            Some(value) => value,
            None => args.number("constant_values")?.unwrap_or(0.0),
        };
        match args.string("mode")? {
            None | Some("constant") => Ok(Self::Constant(value as f32)),
            Some(_) if value != 0.0 => Err(args.invalid("mode", "\"constant\" beside a value")),
            Some("edge" | "replicate") => Ok(Self::Edge),
            Some("reflect") => Ok(Self::Reflect),
            Some("symmetric") => Ok(Self::Symmetric),
            Some("wrap" | "circular") => Ok(Self::Wrap),
            Some(_) => Err(args.invalid("mode", "constant, edge, reflect, symmetric or wrap")),
        }
    }

    /// Returns the index that provides the value at `i` on an axis of `n`; `None` for the constant.
    fn source(self, i: i64, n: i64) -> Option<usize> {
        let index = match self {
            _ if (0..n).contains(&i) => i,
            Self::Constant(_) => return None,
            Self::Edge => i.clamp(0, n - 1),
            // A single voxel can only be mirrored onto itself.
            Self::Reflect if n == 1 => 0,
            Self::Reflect => (n - 1) - ((n - 1) - i.rem_euclid(2 * (n - 1))).abs(),
            Self::Symmetric => {
                let i = i.rem_euclid(2 * n);
                if i < n { i } else { 2 * n - 1 - i }
            }
            Self::Wrap => i.rem_euclid(n),
        };
        Some(index as usize)
    }

    /// Whether PyTorch, which implements these modes for MONAI, allows this padding on an axis of `n`.
    fn allows(self, before: i64, after: i64, n: i64) -> bool {
        match self {
            Self::Reflect => before.max(after) < n,
            Self::Wrap => before.max(after) <= n,
            _ => true,
        }
    }
}

/// Cuts the window of size `to` that begins at `offset`, which may lie outside of the image. Updates
/// the affine and records the window.
///
/// # Errors
/// [`ErrorKind::InvalidImage`] for an empty window, or one that the mode cannot fill.
pub(super) fn cut(
    mut image: Image,
    offset: [i64; 3],
    to: [usize; 3],
    pad: PadMode,
) -> Result<Image> {
    let from = image.dims();
    let mut outside = false;
    let mut tables: [Vec<Option<usize>>; 3] = Default::default();
    for axis in 0..3 {
        let (begin, end) = (offset[axis], offset[axis] + to[axis] as i64);
        let (low, high) = (begin.max(0), end.min(from[axis] as i64));
        if to[axis] > LARGEST {
            return Err(Error::new(
                ErrorKind::InvalidModel,
                format!("padding would give {} voxels along an axis", to[axis]),
            ));
        }
        if low >= high {
            return Err(Error::new(
                ErrorKind::InvalidImage,
                format!("cropping to {begin}..{end} of {} voxels leaves none", from[axis]),
            ));
        }
        image.data.slice_axis_inplace(Axis(axis + 1), Slice::from(low as usize..high as usize));
        let (before, after, n) = (low - begin, end - high, high - low);
        if !pad.allows(before, after, n) {
            return Err(Error::new(
                ErrorKind::InvalidImage,
                format!(
                    "{n} voxels along an axis are too few to be padded by {before} and {after}"
                ),
            ));
        }
        outside |= before > 0 || after > 0;
        tables[axis] = (0..to[axis] as i64).map(|i| pad.source(i - before, n)).collect();
    }
    if outside {
        let constant = if let PadMode::Constant(value) = pad { value } else { 0.0 };
        image.data = gather(image.data.view(), &tables, constant)?;
    }
    image.affine = shifted(&image.affine, offset);
    image.applied.push(Applied::Window { offset, from, to });
    Ok(image)
}

/// Returns the affine of a grid that begins at `offset`.
fn shifted(affine: &Affine, offset: [i64; 3]) -> Affine {
    let mut out = *affine;
    out.set_origin(affine.apply(offset.map(|o| o as f64)));
    out
}

/// Gathers each output voxel from the indices given by its axes, in the memory order of the input.
fn gather(
    input: ArrayView4<f32>,
    tables: &[Vec<Option<usize>>; 3],
    constant: f32,
) -> Result<Array4<f32>> {
    let shape = [input.dim().0, tables[0].len(), tables[1].len(), tables[2].len()];
    let mut output = like(&input, shape)?;
    Zip::indexed(&mut output).par_for_each(|(c, x, y, z), out| {
        *out = match (tables[0][x], tables[1][y], tables[2][z]) {
            (Some(x), Some(y), Some(z)) => input[[c, x, y, z]],
            _ => constant,
        };
    });
    Ok(output)
}

/// Allocates an array of another size with the same memory order of axes.
fn like(input: &ArrayView4<f32>, shape: [usize; 4]) -> Result<Array4<f32>> {
    let mut order = [0, 1, 2, 3];
    order.sort_by_key(|&a| std::cmp::Reverse(input.strides()[a].unsigned_abs()));
    let mut back = [0; 4];
    for (position, &axis) in order.iter().enumerate() {
        back[axis] = position;
    }
    Ok(zeros(order.map(|a| shape[a]), "a padded image")?.permuted_axes(back))
}

/// Returns the inverse: cropped voxels become 0, and padding is removed.
pub(crate) fn inverse_taps(offset: [i64; 3], from: [usize; 3], to: [usize; 3]) -> [AxisTaps; 3] {
    std::array::from_fn(|axis| {
        AxisTaps::from_rows(
            to[axis],
            (0..from[axis] as i64).map(|i| {
                let index = i - offset[axis];
                (0..to[axis] as i64).contains(&index).then_some((index as usize, 1.0))
            }),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_those_of_numpy() {
        let line =
            |mode: PadMode| -> Vec<Option<usize>> { (-3..7).map(|i| mode.source(i, 4)).collect() };
        let indices = |of: [usize; 10]| of.map(Some).to_vec();
        assert_eq!(line(PadMode::Edge), indices([0, 0, 0, 0, 1, 2, 3, 3, 3, 3]));
        assert_eq!(line(PadMode::Reflect), indices([3, 2, 1, 0, 1, 2, 3, 2, 1, 0]));
        assert_eq!(line(PadMode::Symmetric), indices([2, 1, 0, 0, 1, 2, 3, 3, 2, 1]));
        assert_eq!(line(PadMode::Wrap), indices([1, 2, 3, 0, 1, 2, 3, 0, 1, 2]));
        assert_eq!(line(PadMode::Constant(5.0))[2..5], [None, Some(0), Some(1)]);
    }

    #[test]
    fn what_cannot_be_filled_or_is_empty_is_refused() {
        let image = || Image::new(Array4::zeros((1, 4, 4, 4)), Affine::IDENTITY);
        assert!(cut(image(), [-4, 0, 0], [8, 4, 4], PadMode::Reflect).is_err());
        assert!(cut(image(), [-3, 0, 0], [7, 4, 4], PadMode::Reflect).is_ok());
        assert!(cut(image(), [4, 0, 0], [2, 4, 4], PadMode::Edge).is_err());
        assert!(cut(image(), [0; 3], [0, 4, 4], PadMode::Edge).is_err());
    }
}
