//! Takes the blended result plane by plane and makes the segmentation of it.

use ndarray::{Array3, Array4, ArrayView3, Axis, s};
use rayon::prelude::*;

use super::arrays::{masks_of, widened, zeros};
use super::fused::Fused;
use super::inverse::Inverse;
use super::plan::{Discretise, PostPlan};
use super::{Activation, LabelOperation, Segmentation};
use crate::error::{Error, ErrorKind, Result};
use crate::inference::PlaneSink;
use crate::transforms::Applied;

/// The engine behind the network.
pub struct Segmenter {
    plan: PostPlan,
    inverse: Inverse,
    state: State,
}

enum State {
    Waiting,
    /// Values are resampled and discretised as planes arrive.
    Fused(Box<Fused>),
    /// Labels (argmax) on the network's grid, brought back at the end.
    Labels(Array3<u8>),
    /// Masks (thresholds) on the network's grid, brought back at the end.
    Masks(Array4<u8>),
    /// Values of all classes, brought back one at a time: the sheared case.
    Values(Array4<f32>),
}

impl Segmenter {
    /// For an image that went through `applied` to size `dims`.
    pub fn new(plan: PostPlan, applied: &[Applied], dims: [usize; 3]) -> Result<Self> {
        // Labels have nothing between them, and outputs always lie on the source's grid.
        let nearest = plan.before.is_some() || plan.invert.is_none_or(|i| i.nearest);
        let inverse = Inverse::new(applied, dims, nearest)?;
        Ok(Self { plan, inverse, state: State::Waiting })
    }

    /// The segmentation, once all planes were taken.
    pub fn finish(self) -> Result<Segmentation> {
        let Self { plan, inverse, state } = self;
        let mut segmentation = match state {
            State::Waiting => Err(Error::internal("the network gave no result")),
            State::Fused(fused) => fused.finish(),
            State::Labels(labels) => labels_back(labels, &plan.operations_before, &inverse),
            State::Masks(masks) => masks_back(masks, &plan.operations_before, &inverse),
            State::Values(values) => match plan.after {
                Some(Discretise::Argmax) => argmax_by_class(&values, &inverse),
                Some(Discretise::Threshold(t)) => threshold_by_class(&values, &inverse, t),
                None => Err(Error::internal("no discretisation")),
            },
        }?;
        for operation in &plan.operations_after {
            operation.apply(&mut segmentation)?;
        }
        Ok(match segmentation {
            // A single mask is a label map.
            Segmentation::Masks(masks) if masks.dim().0 == 1 => {
                Segmentation::Labels(masks.index_axis_move(Axis(0), 0))
            }
            other => other,
        })
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
        self.state = match (self.plan.before, self.plan.after, &self.inverse) {
            (None, Some(discretise), Inverse::Separable(map)) => State::Fused(Box::new(
                Fused::new(self.plan.activation, discretise, map, classes, dims)?,
            )),
            (Some(Discretise::Argmax), _, _) => {
                State::Labels(zeros([1, dims[0], dims[1], dims[2]])?.index_axis_move(Axis(0), 0))
            }
            (Some(Discretise::Threshold(_)), _, _) => {
                State::Masks(zeros([classes, dims[0], dims[1], dims[2]])?)
            }
            _ => State::Values(zeros([classes, dims[0], dims[1], dims[2]])?),
        };
        Ok(())
    }

    fn planes(&mut self, x: usize, y: usize, planes: &[ArrayView3<f32>]) -> Result<()> {
        let activation = self.plan.activation;
        let rows = y..y + planes.first().map_or(0, |plane| plane.dim().1);
        match &mut self.state {
            State::Waiting => return Err(Error::internal("a plane came before the size")),
            State::Fused(fused) => fused.planes(x, y, planes),
            State::Labels(labels) => {
                let mut labels = labels.slice_mut(s![x..x + planes.len(), rows, ..]);
                let targets = labels.axis_iter_mut(Axis(0)).into_par_iter();
                targets.zip(planes).for_each(|(target, plane)| {
                    argmax_plane(activation, plane, target);
                });
            }
            State::Masks(masks) => {
                let Some(Discretise::Threshold(t)) = self.plan.before else {
                    return Err(Error::internal("masks without a threshold"));
                };
                let mut activated = Vec::new();
                for (i, plane) in planes.iter().enumerate() {
                    activation.apply(plane.view(), &mut activated);
                    let mut target = masks.slice_mut(s![.., x + i, rows.clone(), ..]);
                    target.iter_mut().zip(&activated).for_each(|(m, &v)| *m = u8::from(v >= t));
                }
            }
            State::Values(values) => {
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

/// Labels of the network's grid after `operations`, on the source's.
fn labels_back(
    labels: Array3<u8>,
    operations: &[LabelOperation],
    inverse: &Inverse,
) -> Result<Segmentation> {
    let mut segmentation = Segmentation::Labels(labels);
    for operation in operations {
        operation.apply(&mut segmentation)?;
    }
    let Segmentation::Labels(labels) = segmentation else {
        return Err(Error::internal("labels became masks"));
    };
    let values = widened(labels.view())?;
    drop(labels);
    let back = inverse.apply(values.view())?;
    drop(values);
    let mut out = masks_of(1, inverse.outputs())?.index_axis_move(Axis(0), 0);
    ndarray::Zip::from(&mut out).and(&back).par_for_each(|label, &v| *label = v as u8);
    Ok(Segmentation::Labels(out))
}

/// The same for masks.
fn masks_back(
    masks: Array4<u8>,
    operations: &[LabelOperation],
    inverse: &Inverse,
) -> Result<Segmentation> {
    let mut segmentation = Segmentation::Masks(masks);
    for operation in operations {
        operation.apply(&mut segmentation)?;
    }
    let masks = match segmentation {
        Segmentation::Masks(masks) => masks,
        Segmentation::Labels(labels) => return labels_back(labels, &[], inverse),
    };
    let mut out = masks_of(masks.dim().0, inverse.outputs())?;
    for (mut out, mask) in out.outer_iter_mut().zip(masks.outer_iter()) {
        let back = inverse.apply(widened(mask)?.view())?;
        ndarray::Zip::from(&mut out).and(&back).par_for_each(|m, &v| *m = v as u8);
    }
    Ok(Segmentation::Masks(out))
}

/// The first of the largest classes of each voxel of a plane.
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

fn argmax_by_class(values: &Array4<f32>, inverse: &Inverse) -> Result<Segmentation> {
    let mut classes = values.outer_iter();
    let first = classes.next().ok_or_else(|| Error::internal("the network has no classes"))?;
    let mut best = inverse.apply(first)?;
    let mut labels = masks_of(1, inverse.outputs())?.index_axis_move(Axis(0), 0);
    for (class, values) in classes.enumerate() {
        let values = inverse.apply(values)?;
        ndarray::Zip::from(&mut best).and(&mut labels).and(&values).par_for_each(|b, l, &v| {
            if v > *b {
                *b = v;
                *l = class as u8 + 1;
            }
        });
    }
    Ok(Segmentation::Labels(labels))
}

fn threshold_by_class(values: &Array4<f32>, inverse: &Inverse, t: f32) -> Result<Segmentation> {
    let mut masks = masks_of(values.dim().0, inverse.outputs())?;
    for (mut mask, values) in masks.outer_iter_mut().zip(values.outer_iter()) {
        let values = inverse.apply(values)?;
        ndarray::Zip::from(&mut mask).and(&values).par_for_each(|m, &v| *m = u8::from(v >= t));
    }
    Ok(Segmentation::Masks(masks))
}
