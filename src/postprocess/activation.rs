//! `Activationsd` on one plane of the result.

use ndarray::{ArrayView3, Axis};

use super::curve::{exp, half_tanh, sigmoid};

/// The activation applied to the network's result first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Activation {
    /// Nothing.
    #[default]
    None,
    /// Softmax over the classes.
    Softmax,
    /// Sigmoid of each class.
    Sigmoid,
}

impl Activation {
    /// Applies it to a plane with axes (class, Y, Z). `out` gets the same axis order, row by row.
    pub fn apply(self, plane: ArrayView3<f32>, out: &mut Vec<f32>) {
        let (classes, _, _) = plane.dim();
        out.clear();
        match self {
            Self::None => each_row(plane, |row| out.extend_from_slice(row)),
            Self::Sigmoid => each_row(plane, |row| out.extend(row.iter().map(|&v| sigmoid(v)))),
            Self::Softmax => {
                each_row(plane, |row| out.extend_from_slice(row));
                let area = out.len() / classes.max(1);
                softmax(out, area);
            }
        }
    }

    /// Computes the difference of class 1 and class 0 after the activation, for a result of two
    /// classes. Its sign gives the argmax, so only the difference has to be resampled.
    pub fn difference(self, plane: ArrayView3<f32>, out: &mut Vec<f32>) {
        out.clear();
        let (zero, one) = plane.split_at(Axis(0), 1);
        let mut second = Vec::with_capacity(one.len());
        each_row(one.slice_axis(Axis(0), (..1).into()), |row| second.extend_from_slice(row));
        let mut second = second.chunks_exact(plane.dim().2.max(1));
        each_row(zero, |zero| {
            let pairs = zero.iter().zip(second.next().unwrap_or(&[]));
            match self {
                Self::None => out.extend(pairs.map(|(a, b)| b - a)),
                // softmax₁ − softmax₀ = tanh((l₁ − l₀) / 2)
                Self::Softmax => out.extend(pairs.map(|(a, b)| half_tanh(b - a))),
                Self::Sigmoid => out.extend(pairs.map(|(&a, &b)| sigmoid(b) - sigmoid(a))),
            }
        });
    }
}

/// Calls `f` with every row along Z, in order and contiguous: loops over slices are vectorised, those
/// over views are not.
fn each_row(plane: ArrayView3<f32>, mut f: impl FnMut(&[f32])) {
    for row in plane.rows() {
        match row.as_slice() {
            Some(row) => f(row),
            None => f(&row.to_vec()),
        }
    }
}

/// Computes the softmax over the classes of a plane, after subtracting the largest value.
fn softmax(values: &mut [f32], area: usize) {
    let mut largest = vec![f32::NEG_INFINITY; area];
    let mut sum = vec![0f32; area];
    for class in values.chunks(area.max(1)) {
        for (m, &v) in largest.iter_mut().zip(class) {
            *m = m.max(v);
        }
    }
    for class in values.chunks_mut(area.max(1)) {
        for ((v, &m), s) in class.iter_mut().zip(&largest).zip(&mut sum) {
            *v = exp(*v - m);
            *s += *v;
        }
    }
    for class in values.chunks_mut(area.max(1)) {
        for (v, &s) in class.iter_mut().zip(&sum) {
            *v /= s;
        }
    }
}
