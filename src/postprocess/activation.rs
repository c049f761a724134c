//! `Activationsd` on one plane of the result.

use ndarray::ArrayView3;

/// What is applied to the network's result before anything else.
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
    /// Applies it to a plane with axes (class, Y, Z); `out` has the same order, row by row.
    pub fn apply(self, plane: ArrayView3<f32>, out: &mut Vec<f32>) {
        let (classes, _, _) = plane.dim();
        out.clear();
        match self {
            Self::None => out.extend(plane.iter()),
            Self::Sigmoid => out.extend(plane.iter().map(|&v| 1.0 / (1.0 + (-v).exp()))),
            Self::Softmax => {
                out.extend(plane.iter());
                let area = out.len() / classes.max(1);
                softmax(out, area);
            }
        }
    }

    /// The difference of class 1 and class 0 after the activation, for a result of two classes:
    /// its sign is their argmax, and it is all that has to be resampled.
    pub fn difference(self, plane: ArrayView3<f32>, out: &mut Vec<f32>) {
        out.clear();
        let (zero, one) =
            (plane.index_axis(ndarray::Axis(0), 0), plane.index_axis(ndarray::Axis(0), 1));
        let pairs = zero.iter().zip(one.iter());
        match self {
            Self::None => out.extend(pairs.map(|(a, b)| b - a)),
            // softmax₁ − softmax₀ = tanh((l₁ − l₀) / 2)
            Self::Softmax => out.extend(pairs.map(|(a, b)| ((b - a) * 0.5).tanh())),
            Self::Sigmoid => {
                let sigmoid = |v: f32| 1.0 / (1.0 + (-v).exp());
                out.extend(pairs.map(|(&a, &b)| sigmoid(b) - sigmoid(a)));
            }
        }
    }
}

/// Softmax over the classes of a plane, with the largest subtracted first.
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
            *v = (*v - m).exp();
            *s += *v;
        }
    }
    for class in values.chunks_mut(area.max(1)) {
        for (v, &s) in class.iter_mut().zip(&sum) {
            *v /= s;
        }
    }
}
