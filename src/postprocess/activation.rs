//! `Activationsd` on one plane of the result.

use ndarray::{ArrayView3, Axis};

use crate::kernels::{self, contiguous};

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
        let (classes, rows, length) = plane.dim();
        out.clear();
        match self {
            Self::None | Self::Softmax => {
                for row in plane.rows() {
                    out.extend_from_slice(&contiguous(row));
                }
                if self == Self::Softmax {
                    softmax(out, rows * length);
                }
            }
            Self::Sigmoid => {
                out.resize(classes * rows * length, 0.0);
                for (out, row) in out.chunks_mut(length.max(1)).zip(plane.rows()) {
                    kernels::sigmoids(out, &contiguous(row));
                }
            }
        }
    }

    /// Computes the difference of class 1 and class 0 after the activation, for a result of two
    /// classes. Its sign gives the argmax, so only the difference has to be resampled.
    pub fn difference(self, plane: ArrayView3<f32>, out: &mut Vec<f32>) {
        let (_, rows, length) = plane.dim();
        out.clear();
        out.resize(rows * length, 0.0);
        let [zero, one] = [0, 1].map(|class| plane.index_axis_move(Axis(0), class));
        let pairs = zero.rows().into_iter().zip(one.rows());
        for (out, (zero, one)) in out.chunks_mut(length.max(1)).zip(pairs) {
            let (zero, one) = (contiguous(zero), contiguous(one));
            match self {
                Self::None => kernels::differences(out, &zero, &one),
                Self::Softmax => kernels::softmax_differences(out, &zero, &one),
                Self::Sigmoid => kernels::sigmoid_differences(out, &zero, &one),
            }
        }
    }
}

/// Computes the softmax over the classes of a plane, after subtracting the largest value.
fn softmax(values: &mut [f32], area: usize) {
    let mut largest = vec![f32::NEG_INFINITY; area];
    let mut sum = vec![0f32; area];
    for class in values.chunks(area.max(1)) {
        kernels::raise(&mut largest, class);
    }
    for class in values.chunks_mut(area.max(1)) {
        kernels::to_exponentials(class, &mut sum, &largest);
    }
    for class in values.chunks_mut(area.max(1)) {
        kernels::divide(class, 1.0, &sum);
    }
}
