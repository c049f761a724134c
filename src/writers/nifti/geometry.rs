//! The geometry of a NIfTI file: an affine with orthogonal axes, and slices shifted to fit it.

use crate::error::{Error, ErrorKind, Result};

/// Tolerated deviation of the axes from orthogonal, as a cosine, for a quaternion to represent them.
const ORTHOGONAL: f64 = 1e-5;

/// An upright stack: the same slices, each shifted within its plane.
pub(super) struct Upright {
    /// Affine to RAS, with orthogonal axes.
    pub affine: [[f64; 4]; 4],
    /// Extents along X and Y that contain all slices.
    pub dims: [usize; 2],
    /// Offset of each slice along X and Y.
    pub offsets: Vec<[usize; 2]>,
}

impl Upright {
    pub fn of([x, y, z]: [usize; 3], affine: &[[f64; 4]; 4]) -> Result<Self> {
        let as_it_is = Self { affine: *affine, dims: [x, y], offsets: vec![[0, 0]; z] };
        let Some(geometry) = Geometry::of(affine) else {
            return Err(Error::new(
                ErrorKind::InvalidImage,
                "the volume's affine is not finite or not invertible",
            ));
        };
        if geometry.quaternion.is_some() {
            return Ok(as_it_is);
        }
        let column = |c: usize| [affine[0][c], affine[1][c], affine[2][c]];
        let [sx, sy, _] = geometry.spacing;
        let (i, step) = (column(0).map(|v| v / sx), column(2));
        // Directions rounded to a few decimals are not exactly orthogonal.
        let along = dot(column(1), i);
        let j: [f64; 3] = std::array::from_fn(|r| column(1)[r] - along * i[r]);
        let length = dot(j, j).sqrt();
        let j = j.map(|v| v / length);
        let k = cross(i, j);
        let height = dot(step, k);
        let shifts = [dot(step, i) / sx, dot(step, j) / sy];
        let pixels = |slice: usize| shifts.map(|shift| (shift * slice as f64).round());
        let last = pixels(z.saturating_sub(1));
        // In a plausible stack, no slice is that far from the first; `extents` refuses the size before
        // that.
        const FARTHEST: f64 = 1e6;
        if last.iter().any(|shift| shift.is_nan() || shift.abs() > FARTHEST) {
            return Err(Error::new(
                ErrorKind::InvalidImage,
                "the stack leans too much to be written as NIfTI",
            ));
        }
        let start = last.map(|shift| shift.min(0.0));
        let offset = |slice: usize| {
            let at = pixels(slice);
            [(at[0] - start[0]) as usize, (at[1] - start[1]) as usize]
        };
        let origin = column(3);
        let mut upright = [[0.0, 0.0, 0.0, 0.0]; 4];
        upright[3][3] = 1.0;
        for r in 0..3 {
            upright[r] = [
                i[r] * sx,
                j[r] * sy,
                k[r] * height,
                origin[r] + i[r] * sx * start[0] + j[r] * sy * start[1],
            ];
        }
        Ok(Self {
            affine: upright,
            dims: [x + last[0].abs() as usize, y + last[1].abs() as usize],
            offsets: (0..z).map(offset).collect(),
        })
    }
}

/// Header fields derived from an affine.
#[derive(Debug, PartialEq)]
pub(super) struct Geometry {
    /// Size of a voxel along each axis in millimetres.
    pub spacing: [f64; 3],
    /// `qfac`: -1 if the axes are left-handed.
    pub handedness: f64,
    /// The rotation as a quaternion's b, c and d, if the axes are orthogonal.
    pub quaternion: Option<[f64; 3]>,
}

impl Geometry {
    /// Returns `None` if the affine is not finite or not invertible.
    pub fn of(affine: &[[f64; 4]; 4]) -> Option<Self> {
        if !affine.as_flattened().iter().all(|x| x.is_finite()) {
            return None;
        }
        let [[a00, a01, a02, _], [a10, a11, a12, _], [a20, a21, a22, _], _] = *affine;
        let columns = [[a00, a10, a20], [a01, a11, a21], [a02, a12, a22]];
        let spacing = columns.map(|column| dot(column, column).sqrt());
        if spacing.iter().any(|&length| length <= 0.0) {
            return None;
        }
        let [i, j, k] = columns;
        let [si, sj, sk] = spacing;
        let (i, j, k) = (i.map(|c| c / si), j.map(|c| c / sj), k.map(|c| c / sk));
        let determinant = dot(cross(i, j), k);
        if determinant.abs() < 1e-6 {
            return None;
        }
        let orthogonal =
            [dot(i, j), dot(j, k), dot(k, i)].iter().all(|cosine| cosine.abs() < ORTHOGONAL);
        let handedness = determinant.signum();
        let quaternion = orthogonal.then(|| quaternion(i, j, k.map(|c| c * handedness)));
        Some(Self { spacing, handedness, quaternion })
    }
}

/// Returns b, c and d of the unit quaternion, with nonnegative a, of the rotation with these columns.
fn quaternion(i: [f64; 3], j: [f64; 3], k: [f64; 3]) -> [f64; 3] {
    let ([r11, r21, r31], [r12, r22, r32], [r13, r23, r33]) = (i, j, k);
    // Squares of twice a, b, c, d: the largest one is used as the divisor.
    let squares = [
        1.0 + r11 + r22 + r33,
        1.0 + r11 - r22 - r33,
        1.0 - r11 + r22 - r33,
        1.0 - r11 - r22 + r33,
    ];
    let largest = squares.into_iter().fold(0.0, f64::max);
    let divisor = 2.0 * largest.sqrt();
    let [aa, bb, cc, _] = squares;
    let [a, b, c, d] = if aa == largest {
        [largest, r32 - r23, r13 - r31, r21 - r12]
    } else if bb == largest {
        [r32 - r23, largest, r12 + r21, r13 + r31]
    } else if cc == largest {
        [r13 - r31, r12 + r21, largest, r23 + r32]
    } else {
        [r21 - r12, r13 + r31, r23 + r32, largest]
    };
    let sign = if a < 0.0 { -1.0 } else { 1.0 };
    [b, c, d].map(|x| sign * x / divisor)
}

fn dot(a: [f64; 3], b: [f64; 3]) -> f64 {
    let ([a0, a1, a2], [b0, b1, b2]) = (a, b);
    a0 * b0 + a1 * b1 + a2 * b2
}

fn cross(a: [f64; 3], b: [f64; 3]) -> [f64; 3] {
    let ([a0, a1, a2], [b0, b1, b2]) = (a, b);
    [a1 * b2 - a2 * b1, a2 * b0 - a0 * b2, a0 * b1 - a1 * b0]
}
