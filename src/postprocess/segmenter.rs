//! Turns the blended result into a segmentation, plane by plane.

use ndarray::{Array3, Array4, ArrayView3, Axis, s};
use rayon::prelude::*;

use super::arrays::zeros;
use super::back;
use super::decide::{ABOVE_HALF, Decision, Rule};
use super::engine::{Engine, by_class};
use super::inverse::Inverse;
use super::plan::{Discretise, PostPlan};
use super::{Activation, Segmentation};
use crate::error::{Error, ErrorKind, Result};
use crate::inference::PlaneSink;
use crate::transforms::Applied;

/// The processing after the network.
pub struct Segmenter {
    plan: PostPlan,
    inverse: Inverse,
    state: State,
    /// Volume in cubic millimetres of a voxel of the network's grid, and of the source's.
    voxels: [f64; 2],
}

enum State {
    Waiting,
    /// Values are resampled and discretised as planes arrive.
    Engine(Engine),
    /// Labels (argmax) on the network's grid, mapped back at the end.
    Labels(Array3<u8>),
    /// Masks (thresholds) on the network's grid, mapped back at the end.
    Masks(Array4<u8>),
    /// Values of all classes, mapped back one at a time: the inverse has several resamplings.
    Values(Array4<f32>, Decision),
}

impl Segmenter {
    /// Creates a segmenter for an image that was transformed by `applied` to size `dims`.
    pub fn new(plan: PostPlan, applied: &[Applied], dims: [usize; 3]) -> Result<Self> {
        let inverse = Inverse::new(applied, dims, plan.nearest())?;
        Ok(Self { plan, inverse, state: State::Waiting, voxels: [1.0; 2] })
    }

    /// Sets the volume in cubic millimetres of a voxel of the network's grid, and of the source's, for
    /// operations that measure. The default is 1.
    #[must_use]
    pub fn with_voxels(mut self, network: f64, source: f64) -> Self {
        // MONAI uses 1 if there is none.
        self.voxels = [network, source].map(|v| if v > 0.0 { v } else { 1.0 });
        self
    }

    /// Returns the segmentation after all planes have been received.
    pub fn finish(self) -> Result<Segmentation> {
        let Self { plan, inverse, state, voxels: [network, source] } = self;
        let mut segmentation = match state {
            State::Waiting => return Err(Error::internal("the network gave no result")),
            State::Engine(engine) => engine.finish()?,
            State::Values(values, decision) => {
                by_class(decision, values.dim().0, inverse.outputs(), |class| {
                    inverse.apply(values.index_axis(Axis(0), class))
                })?
            }
            State::Labels(labels) => {
                brought_back(Segmentation::Labels(labels), &plan, network, &inverse)?
            }
            State::Masks(masks) => {
                brought_back(Segmentation::Masks(masks), &plan, network, &inverse)?
            }
        };
        for operation in &plan.operations_after {
            operation.in_voxels(source).apply(&mut segmentation)?;
        }
        Ok(match segmentation {
            // A single mask is a label map.
            Segmentation::Masks(masks) if masks.dim().0 == 1 => {
                Segmentation::Labels(masks.index_axis_move(Axis(0), 0))
            }
            // So are classes that do not overlap.
            Segmentation::Sets(sets) if !sets.overlap() => {
                let foreground = |set: &[u16]| set.iter().find(|class| **class != 0).copied();
                Segmentation::Labels(sets.labels(|set| foreground(set).unwrap_or(0) as u8)?)
            }
            other => other,
        })
    }

    /// Returns the decision on values of `classes` on the source's grid.
    fn decision(&self, discretise: Discretise, classes: usize) -> Decision {
        let activation = self.plan.activation_after;
        let (rule, channels) = match discretise {
            // A sigmoid in f32 creates ties that the difference does not have.
            Discretise::Argmax if classes == 2 && activation != Activation::Sigmoid => {
                (Rule::Sign, 1)
            }
            Discretise::Argmax => (Rule::Argmax, classes),
            Discretise::Threshold(t) => (Rule::Threshold(t), classes),
            Discretise::Round => (Rule::Threshold(ABOVE_HALF), classes),
        };
        Decision { rule, activation, channels }
    }
}

impl PlaneSink for Segmenter {
    fn begin(&mut self, classes: usize, dims: [usize; 3]) -> Result<()> {
        if classes > 256 {
            return Err(Error::new(
                ErrorKind::InvalidModel,
                format!("the network has {classes} classes; at most 256 are supported"),
            ));
        }
        self.state = match (self.plan.before, self.plan.after) {
            (Some(Discretise::Argmax), _) => {
                State::Labels(zeros([1, dims[0], dims[1], dims[2]])?.index_axis_move(Axis(0), 0))
            }
            (Some(Discretise::Threshold(_) | Discretise::Round), _) => {
                State::Masks(zeros([classes, dims[0], dims[1], dims[2]])?)
            }
            (None, Some(discretise)) => {
                let decision = self.decision(discretise, classes);
                match Engine::new(self.plan.activation, decision, &self.inverse, dims)? {
                    Some(engine) => State::Engine(engine),
                    None => {
                        let values = zeros([classes, dims[0], dims[1], dims[2]])?;
                        State::Values(values, Decision { channels: classes, ..decision })
                    }
                }
            }
            (None, None) => return Err(Error::internal("no discretisation")),
        };
        Ok(())
    }

    fn planes(&mut self, x: usize, y: usize, planes: &[ArrayView3<f32>]) -> Result<()> {
        let activation = self.plan.activation;
        let rows = y..y + planes.first().map_or(0, |plane| plane.dim().1);
        match &mut self.state {
            State::Waiting => return Err(Error::internal("a plane came before the size")),
            State::Engine(engine) => engine.planes(x, y, planes),
            State::Labels(labels) => {
                let mut labels = labels.slice_mut(s![x..x + planes.len(), rows, ..]);
                let targets = labels.axis_iter_mut(Axis(0)).into_par_iter();
                targets.zip(planes).for_each(|(target, plane)| {
                    argmax_plane(activation, plane, target);
                });
            }
            State::Masks(masks) => {
                let t = match self.plan.before {
                    Some(Discretise::Threshold(t)) => t,
                    Some(Discretise::Round) => ABOVE_HALF,
                    _ => return Err(Error::internal("masks without a threshold")),
                };
                let mut activated = Vec::new();
                for (i, plane) in planes.iter().enumerate() {
                    activation.apply(plane.view(), &mut activated);
                    let mut target = masks.slice_mut(s![.., x + i, rows.clone(), ..]);
                    target.iter_mut().zip(&activated).for_each(|(m, &v)| *m = u8::from(v >= t));
                }
            }
            State::Values(values, _) => {
                let mut activated = Vec::new();
                for (i, plane) in planes.iter().enumerate() {
                    activation.apply(plane.view(), &mut activated);
                    let mut target = values.slice_mut(s![.., x + i, rows.clone(), ..]);
                    target.iter_mut().zip(&activated).for_each(|(t, &v)| *t = v);
                }
            }
        }
        Ok(())
    }
}

/// Applies the operations on the network's grid, where voxels have `volume` cubic millimetres, and maps
/// the discretised result to the source's grid.
fn brought_back(
    mut there: Segmentation,
    plan: &PostPlan,
    volume: f64,
    inverse: &Inverse,
) -> Result<Segmentation> {
    for operation in &plan.operations_before {
        operation.in_voxels(volume).apply(&mut there)?;
    }
    if plan.nearest() {
        back::nearest(there, inverse)
    } else {
        back::interpolated(&there, plan.after, inverse)
    }
}

/// Computes the argmax of each voxel of a plane; of equal classes, the first.
fn argmax_plane(
    activation: Activation,
    plane: &ArrayView3<f32>,
    mut labels: ndarray::ArrayViewMut2<u8>,
) {
    let mut values = Vec::new();
    activation.apply(plane.view(), &mut values);
    let area = labels.len();
    let mut best = values[..area].to_vec();
    let mut class_of = vec![0u8; area];
    for (class, values) in values.chunks(area.max(1)).enumerate().skip(1) {
        for ((b, l), &v) in best.iter_mut().zip(&mut class_of).zip(values) {
            if v > *b {
                *b = v;
                *l = class as u8;
            }
        }
    }
    labels.iter_mut().zip(class_of).for_each(|(t, l)| *t = l);
}
