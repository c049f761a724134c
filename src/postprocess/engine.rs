//! Turns planes of values on the network's grid into labels or masks on the source's, in one pass if
//! the inverse allows it.

use ndarray::{Array3, ArrayView3, Axis};

use super::Segmentation;
use super::activation::Activation;
use super::arrays::masks_of;
use super::decide::{Decision, Rule};
use super::fused::{Fused, segmentation};
use super::inverse::Inverse;
use super::oblique::Oblique;
use super::route::Route;
use crate::error::{Error, ErrorKind, Result};
use crate::kernels::curve::sigmoid;

/// One pass over planes as they arrive.
pub(super) enum Engine {
    /// Axis by axis.
    Straight(Box<Fused>),
    /// Between grids that are rotated or sheared against each other.
    Oblique(Box<Oblique>),
}

impl Engine {
    /// Creates the engine for planes of size `dims` with `activation`; `None` if the inverse has to be
    /// applied step by step.
    pub(super) fn new(
        activation: Activation,
        decision: Decision,
        inverse: &Inverse,
        dims: [usize; 3],
    ) -> Result<Option<Self>> {
        Ok(match inverse {
            Inverse::Separable(map) => {
                Some(Self::Straight(Box::new(Fused::new(activation, decision, map, dims)?)))
            }
            Inverse::Steps(steps) => match Route::of(steps)? {
                Some(route) => {
                    let oblique = Oblique::new(activation, decision, route, dims)?;
                    Some(Self::Oblique(Box::new(oblique)))
                }
                None => None,
            },
        })
    }

    /// Processes rows from `y` on of the planes `x`, `x + 1`, …, each with axes (class, Y, Z).
    pub(super) fn planes(&mut self, x: usize, y: usize, planes: &[ArrayView3<f32>]) {
        match self {
            Self::Straight(fused) => fused.planes(x, y, planes),
            Self::Oblique(oblique) => oblique.planes(x, y, planes),
        }
    }

    /// Returns the result after all planes have arrived.
    pub(super) fn finish(self) -> Result<Segmentation> {
        match self {
            Self::Straight(fused) => fused.finish(),
            Self::Oblique(oblique) => oblique.finish(),
        }
    }
}

/// Does the same class by class: `values` maps a class to the source's grid, of size `dims`.
pub(super) fn by_class(
    decision: Decision,
    classes: usize,
    dims: [usize; 3],
    values: impl Fn(usize) -> Result<Array3<f32>>,
) -> Result<Segmentation> {
    let Decision { rule, activation, .. } = decision;
    let values = |class: usize| -> Result<Array3<f32>> {
        let mut values = values(class)?;
        if activation == Activation::Sigmoid {
            values.par_mapv_inplace(sigmoid);
        }
        Ok(values)
    };
    match rule {
        Rule::Threshold(_) if activation == Activation::Softmax => Err(Error::new(
            ErrorKind::InvalidModel,
            "postprocessing: a threshold after a softmax that follows Invertd needs a way back with one \
             resampling; put Activationsd before Invertd",
        )),
        Rule::Threshold(t) => {
            let mut masks = masks_of(classes, dims)?;
            for (class, mut mask) in masks.outer_iter_mut().enumerate() {
                let values = values(class)?;
                let beyond = |m: &mut u8, &v: &f32| *m = u8::from(v >= t);
                ndarray::Zip::from(&mut mask).and(&values).par_for_each(beyond);
            }
            Ok(segmentation(rule, masks))
        }
        Rule::Round => {
            let mut labels = masks_of(1, dims)?;
            let values = values(0)?;
            let rounded = |l: &mut u8, &v: &f32| *l = v.round_ties_even() as u8;
            ndarray::Zip::from(labels.index_axis_mut(Axis(0), 0))
                .and(&values)
                .par_for_each(rounded);
            Ok(segmentation(rule, labels))
        }
        Rule::Sign | Rule::Argmax | Rule::Majority(_) => {
            let mut best = values(0)?;
            let mut masks = masks_of(1, dims)?;
            let mut labels = masks.index_axis_mut(Axis(0), 0);
            for class in 1..classes {
                let values = values(class)?;
                ndarray::Zip::from(&mut best).and(&mut labels).and(&values).par_for_each(
                    |b, l, &v| {
                        if v > *b {
                            *b = v;
                            *l = class as u8;
                        }
                    },
                );
            }
            if let Rule::Majority(t) = rule {
                let least = |l: &mut u8, &b: &f32| *l = if b >= t { *l } else { 0 };
                ndarray::Zip::from(&mut labels).and(&best).par_for_each(least);
            }
            Ok(segmentation(rule, masks))
        }
    }
}
