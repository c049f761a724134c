//! 4×4 affine matrices between voxel indices and patient space, in f64.
//!
//! Matrices act on column vectors of homogeneous coordinates: `world = affine · (i, j, k, 1)`. The
//! world is RAS+ in millimetres (as in NIfTI and MONAI); DICOM uses LPS+.

use crate::error::{Error, ErrorKind, Result};

/// An affine matrix; the last row is `0 0 0 1`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Affine(pub [[f64; 4]; 4]);

impl Affine {
    /// The identity matrix.
    pub const IDENTITY: Self =
        Self([[1., 0., 0., 0.], [0., 1., 0., 0.], [0., 0., 1., 0.], [0., 0., 0., 1.]]);

    /// Creates a matrix from three columns (the steps in millimetres along each index) and an
    /// origin.
    pub fn from_columns(columns: [[f64; 3]; 3], origin: [f64; 3]) -> Self {
        let mut m = Self::IDENTITY.0;
        for r in 0..3 {
            for c in 0..3 {
                m[r][c] = columns[c][r];
            }
            m[r][3] = origin[r];
        }
        Self(m)
    }

    /// Returns column `c` of the linear part.
    pub fn column(&self, c: usize) -> [f64; 3] {
        [self.0[0][c], self.0[1][c], self.0[2][c]]
    }

    /// Returns the translation.
    pub fn origin(&self) -> [f64; 3] {
        self.column(3)
    }

    /// Replaces the translation.
    pub fn set_origin(&mut self, origin: [f64; 3]) {
        for (row, value) in self.0.iter_mut().zip(origin) {
            row[3] = value;
        }
    }

    /// Returns the matrix product `self · other`.
    pub fn mul(&self, other: &Self) -> Self {
        let mut out = [[0.0; 4]; 4];
        for (r, row) in out.iter_mut().enumerate() {
            for (c, cell) in row.iter_mut().enumerate() {
                *cell = (0..4).map(|k| self.0[r][k] * other.0[k][c]).sum();
            }
        }
        Self(out)
    }

    /// Returns the point `self · (p, 1)`.
    pub fn apply(&self, p: [f64; 3]) -> [f64; 3] {
        std::array::from_fn(|r| {
            self.0[r][0] * p[0] + self.0[r][1] * p[1] + self.0[r][2] * p[2] + self.0[r][3]
        })
    }

    /// Returns the voxel size along each index: the norms of the columns, or 1 for a zero column
    /// (`monai.data.utils.affine_to_spacing`).
    pub fn spacing(&self) -> [f64; 3] {
        std::array::from_fn(|c| match norm(self.column(c)) {
            0.0 => 1.0,
            n => n,
        })
    }

    /// Solves `self · x = other` by Gaussian elimination with partial pivoting
    /// (`numpy.linalg.solve`); fails if `self` is singular.
    ///
    /// Follows the operation order of LAPACK's `dgesv` over OpenBLAS, including its fused
    /// multiply-adds and reciprocal pivots: the last bit decides whether a resampled image that
    /// ends exactly between two voxels gets one more, and on which side a nearest-neighbour tie
    /// falls.
    pub fn solve(&self, other: &Self) -> Result<Self> {
        solve(self.0, other.0).map(Self)
    }

    /// Returns the inverse; fails if there is none.
    pub fn inverse(&self) -> Result<Self> {
        self.solve(&Self::IDENTITY)
    }

    /// Whether every element is within `atol + 1e-5·|other|` of the other's (`numpy.allclose`).
    pub fn all_close(&self, other: &Self, atol: f64) -> bool {
        self.0
            .iter()
            .flatten()
            .zip(other.0.iter().flatten())
            .all(|(a, b)| (a - b).abs() <= atol + 1e-5 * b.abs())
    }
}

/// Like [`Affine::solve`], for matrices of any size.
fn solve<const N: usize>(mut a: [[f64; N]; N], mut b: [[f64; N]; N]) -> Result<[[f64; N]; N]> {
    for col in 0..N {
        let pivot =
            (col..N).max_by(|&i, &j| a[i][col].abs().total_cmp(&a[j][col].abs())).unwrap_or(col);
        if a[pivot][col].abs() < 1e-300 || !a[pivot][col].is_finite() {
            return Err(Error::new(ErrorKind::InvalidImage, "the image's affine is singular"));
        }
        a.swap(col, pivot);
        b.swap(col, pivot);
        let reciprocal = 1.0 / a[col][col];
        for row in col + 1..N {
            let factor = -(a[row][col] * reciprocal);
            for k in 0..N {
                a[row][k] = factor.mul_add(a[col][k], a[row][k]);
                b[row][k] = factor.mul_add(b[col][k], b[row][k]);
            }
        }
    }
    for col in (0..N).rev() {
        let reciprocal = 1.0 / a[col][col];
        for k in 0..N {
            b[col][k] *= reciprocal;
            for row in 0..col {
                b[row][k] = (-b[col][k]).mul_add(a[row][col], b[row][k]);
            }
        }
    }
    Ok(b)
}

/// Matrix product with fused multiply-adds, as `numpy.matmul` over OpenBLAS computes it.
fn fused_product<const N: usize>(a: &[[f64; N]; N], b: &[[f64; N]; N]) -> [[f64; N]; N] {
    std::array::from_fn(|r| {
        std::array::from_fn(|c| (0..N).fold(0.0, |sum, k| a[r][k].mul_add(b[k][c], sum)))
    })
}

/// Returns the rotation in `affine`: the linear part without voxel sizes and shear, computed from
/// the Cholesky factor of `AᵀA` as in `monai.data.utils.zoom_affine`, in LAPACK's order of
/// operations.
///
/// # Errors
///
/// [`ErrorKind::InvalidImage`] if the linear part is singular.
pub fn rotation(affine: &Affine) -> Result<[[f64; 3]; 3]> {
    let linear: [[f64; 3]; 3] = std::array::from_fn(|r| std::array::from_fn(|c| affine.0[r][c]));
    let transposed = std::array::from_fn(|r| std::array::from_fn(|c| linear[c][r]));
    let gram = fused_product(&transposed, &linear);
    let mut factor = [[0.0f64; 3]; 3];
    for c in 0..3 {
        let diagonal = (0..c).fold(gram[c][c], |s, k| (-factor[c][k]).mul_add(factor[c][k], s));
        if diagonal.is_nan() || diagonal < 1e-24 {
            return Err(Error::new(ErrorKind::InvalidImage, "the image's affine is singular"));
        }
        factor[c][c] = diagonal.sqrt();
        let reciprocal = 1.0 / factor[c][c];
        for r in c + 1..3 {
            let rest = (0..c).fold(gram[r][c], |s, k| (-factor[r][k]).mul_add(factor[c][k], s));
            factor[r][c] = rest * reciprocal;
        }
    }
    let upper = std::array::from_fn(|r| std::array::from_fn(|c| factor[c][r]));
    let identity = std::array::from_fn(|r| std::array::from_fn(|c| f64::from(u8::from(r == c))));
    Ok(fused_product(&linear, &solve(upper, identity)?))
}

/// Converts between LPS+ (DICOM) and RAS+ (NIfTI, MONAI): the first two axes change sign.
pub fn lps_ras(affine: &Affine) -> Affine {
    let mut m = affine.0;
    for row in &mut m[..2] {
        for cell in row {
            *cell = -*cell;
        }
    }
    Affine(m)
}

/// Returns the scalar product.
pub fn dot(a: [f64; 3], b: [f64; 3]) -> f64 {
    a[0] * b[0] + a[1] * b[1] + a[2] * b[2]
}

/// Returns the vector product.
pub fn cross(a: [f64; 3], b: [f64; 3]) -> [f64; 3] {
    [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]]
}

/// Returns the Euclidean norm.
pub fn norm(a: [f64; 3]) -> f64 {
    dot(a, a).sqrt()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn inverse_undoes(cells in prop::array::uniform12(-3.0..3.0f64)) {
            let mut a = Affine::IDENTITY;
            for (i, v) in cells.iter().enumerate() {
                a.0[i / 4][i % 4] += v;
            }
            prop_assume!(dot(cross(a.column(0), a.column(1)), a.column(2)).abs() > 0.1);
            let id = a.mul(&a.inverse().unwrap());
            prop_assert!(id.all_close(&Affine::IDENTITY, 1e-9));
        }
    }

    #[test]
    fn singular_is_refused() {
        let a = Affine::from_columns([[1., 0., 0.], [2., 0., 0.], [0., 0., 1.]], [0.; 3]);
        assert_eq!(a.inverse().unwrap_err().kind(), ErrorKind::InvalidImage);
    }
}
