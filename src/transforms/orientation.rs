//! `Orientationd`: permutes and flips axes to the wanted anatomical codes.

use ndarray::Axis;

use super::{Applied, Extent, Image, Transform};
use crate::bundle::Args;
use crate::error::{Error, ErrorKind, Result};
use crate::volume::Affine;

/// `monai.transforms.Orientationd` with `axcodes` (such as RAS); `labels` must keep its default.
#[derive(Debug, Clone, PartialEq)]
pub struct Orientationd {
    /// For each output axis, the RAS axis it follows and whether it points in its positive direction.
    target: [(usize, bool); 3],
}

impl Orientationd {
    pub(super) fn from_args(args: &mut Args) -> Result<Self> {
        if args.boolean("as_closest_canonical", false)? {
            args.ignore(&["axcodes"]);
            return Self::new("RAS").map_err(|e| e.context(args.path()));
        }
        if let Some(labels) = args.raw("labels") {
            let default = serde_json::json!([["L", "R"], ["P", "A"], ["I", "S"]]);
            if *labels != default {
                return Err(args.invalid("labels", "its default (L R, P A, I S)"));
            }
        }
        match args.string("axcodes")? {
            Some(codes) => {
                Self::new(codes).map_err(|_| args.invalid("axcodes", "three of L/R, P/A, I/S"))
            }
            None => Err(args.invalid("axcodes", "three of L/R, P/A, I/S")),
        }
    }

    /// Parses three letters, one of each pair L/R, P/A, I/S.
    pub fn new(axcodes: &str) -> Result<Self> {
        let mut target = [(0, false); 3];
        let mut seen = [false; 3];
        let letters: Vec<char> = axcodes.chars().collect();
        let error = || {
            Error::new(ErrorKind::InvalidModel, format!("{axcodes:?} are not orientation codes"))
        };
        if letters.len() != 3 {
            return Err(error());
        }
        for (slot, letter) in target.iter_mut().zip(letters) {
            let axis_sign = match letter.to_ascii_uppercase() {
                'R' => (0, true),
                'L' => (0, false),
                'A' => (1, true),
                'P' => (1, false),
                'S' => (2, true),
                'I' => (2, false),
                _ => return Err(error()),
            };
            if std::mem::replace(&mut seen[axis_sign.0], true) {
                return Err(error());
            }
            *slot = axis_sign;
        }
        Ok(Self { target })
    }
}

impl Orientationd {
    /// Returns, for an image with this affine, the input axis of each output axis and whether it is
    /// reversed.
    fn axes(&self, affine: &Affine) -> Result<([usize; 3], [bool; 3])> {
        let current = io_orientation(affine);
        let mut source = [0; 3];
        let mut flipped = [false; 3];
        for (out, &(ras, positive)) in self.target.iter().enumerate() {
            // Each RAS axis is assigned to exactly one index axis.
            let input = current.iter().position(|&(axis, _)| axis == ras).ok_or_else(|| {
                Error::new(ErrorKind::InvalidImage, "the image's affine has no orientation")
            })?;
            source[out] = input;
            flipped[out] = current[input].1 != positive;
        }
        Ok((source, flipped))
    }
}

impl Transform for Orientationd {
    fn extent(&self, image: Extent) -> Result<Extent> {
        let (source, flipped) = self.axes(&image.affine)?;
        Ok(turned_extent(image, source, flipped))
    }

    fn apply(&self, image: Image) -> Result<Image> {
        let (source, flipped) = self.axes(&image.affine)?;
        Ok(turned(image, source, flipped))
    }
}

/// Returns a view of the image whose output axis `i` is input axis `source[i]`, reversed if
/// `flipped[i]`.
pub(super) fn turned(mut image: Image, source: [usize; 3], flipped: [bool; 3]) -> Image {
    let dims = image.dims();
    let mut data = image.data.permuted_axes([0, source[0] + 1, source[1] + 1, source[2] + 1]);
    for (axis, _) in flipped.iter().enumerate().filter(|(_, f)| **f) {
        data.invert_axis(Axis(axis + 1));
    }
    image.data = data;
    image.affine = reoriented(&image.affine, source, flipped, dims);
    image.applied.push(Applied::Orientation { source, flipped, dims });
    image
}

/// Returns the extent of the result of [`turned`].
pub(super) fn turned_extent(image: Extent, source: [usize; 3], flipped: [bool; 3]) -> Extent {
    let affine = reoriented(&image.affine, source, flipped, image.dims);
    Extent { dims: source.map(|axis| image.dims[axis]), affine, ..image }
}

/// Returns the affine after permuting and flipping: `affine · inv_ornt_aff` of nibabel.
fn reoriented(affine: &Affine, source: [usize; 3], flipped: [bool; 3], dims: [usize; 3]) -> Affine {
    let mut m = Affine([[0.0; 4]; 4]);
    m.0[3][3] = 1.0;
    for out in 0..3 {
        let input = source[out];
        m.0[input][out] = if flipped[out] { -1.0 } else { 1.0 };
        m.0[input][3] = if flipped[out] { dims[input] as f64 - 1.0 } else { 0.0 };
    }
    affine.mul(&m)
}

/// Returns, for each index axis, the closest RAS axis and whether it points in its positive direction
/// (`nibabel.io_orientation`). The rotation nearest to the affine decides, largest cosine first.
fn io_orientation(affine: &Affine) -> [(usize, bool); 3] {
    let spacing = affine.spacing();
    let mut rotation: [[f64; 3]; 3] =
        std::array::from_fn(|r| std::array::from_fn(|c| affine.0[r][c] / spacing[c]));
    nearest_rotation(&mut rotation);
    let mut result = [(0, true); 3];
    // nibabel processes the input axes by descending largest absolute cosine.
    let mut order = [0, 1, 2];
    let strength = |c: usize| (0..3).map(|r| rotation[r][c].abs()).fold(0.0f64, f64::max);
    order.sort_by(|&a, &b| strength(b).total_cmp(&strength(a)));
    let mut taken = [false; 3];
    for c in order {
        let mut best = None::<usize>;
        for r in (0..3).filter(|&r| !taken[r]) {
            if best.is_none_or(|b| rotation[r][c].abs() > rotation[b][c].abs()) {
                best = Some(r);
            }
        }
        if let Some(r) = best {
            taken[r] = true;
            result[c] = (r, rotation[r][c] >= 0.0);
        }
    }
    result
}

/// Replaces a matrix by its orthogonal polar factor, using Newton's iteration `R ← (R + R⁻ᵀ)/2`. This
/// equals the product of the singular vectors that nibabel uses. A singular matrix is left unchanged.
fn nearest_rotation(m: &mut [[f64; 3]; 3]) {
    for _ in 0..32 {
        let Some(inverse_transpose) = inverse_transpose(m) else { return };
        let mut change = 0.0f64;
        for r in 0..3 {
            for c in 0..3 {
                let next = 0.5 * (m[r][c] + inverse_transpose[r][c]);
                change = change.max((next - m[r][c]).abs());
                m[r][c] = next;
            }
        }
        if change < 1e-14 {
            return;
        }
    }
}

fn inverse_transpose(m: &[[f64; 3]; 3]) -> Option<[[f64; 3]; 3]> {
    let cofactor = |r: usize, c: usize| {
        let (r1, r2, c1, c2) = ((r + 1) % 3, (r + 2) % 3, (c + 1) % 3, (c + 2) % 3);
        m[r1][c1] * m[r2][c2] - m[r1][c2] * m[r2][c1]
    };
    let determinant: f64 = (0..3).map(|c| m[0][c] * cofactor(0, c)).sum();
    (determinant.abs() > 1e-12)
        .then(|| std::array::from_fn(|r| std::array::from_fn(|c| cofactor(r, c) / determinant)))
}

#[cfg(test)]
mod tests {
    use ndarray::Array4;

    use super::*;

    #[test]
    fn bad_codes_are_refused() {
        for codes in ["", "RA", "RAR", "RASS", "XYZ", "LRS"] {
            assert!(Orientationd::new(codes).is_err(), "{codes}");
        }
    }

    #[test]
    fn voxels_keep_their_place_in_the_world() {
        let data =
            Array4::from_shape_fn((1, 4, 3, 2), |(_, x, y, z)| (x * 100 + y * 10 + z) as f32);
        let affine = Affine::from_columns(
            [[0.0, -2.0, 0.1], [0.0, 0.0, 3.0], [-1.0, 0.05, 0.0]],
            [5.0, 6.0, 7.0],
        );
        let before = Image::new(data, affine);
        let after = Orientationd::new("RAS").unwrap().apply(before.clone()).unwrap();
        for ((c, x, y, z), v) in after.data.indexed_iter() {
            let world = after.affine.apply([x as f64, y as f64, z as f64]);
            let back = affine.inverse().unwrap().apply(world);
            let [i, j, k] = back.map(|b| b.round() as usize);
            assert_eq!(before.data[[c, i, j, k]], *v);
        }
        for i in 0..3 {
            assert!(after.affine.0[i][i] > 0.0);
        }
    }
}
