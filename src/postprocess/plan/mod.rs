//! Translates a bundle's postprocessing into the engine's operations, in order.

mod arguments;
mod reading;

use crate::bundle::{Component, ResultForm};
use crate::error::{Error, ErrorKind, Result};

use super::activation::Activation;
use super::components::LabelOperation;

/// The processing after the network.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct PostPlan {
    /// Activation on the network's grid, applied first.
    pub activation: Activation,
    /// Discretisation on the network's grid, before any inversion.
    pub before: Option<Discretise>,
    /// The inverse to the source's grid. Without it, the result is still mapped back, by the nearest
    /// voxel, because outputs are written on the source's grid.
    pub invert: Option<InvertSpec>,
    /// Activation of values on the source's grid.
    pub activation_after: Activation,
    /// Discretisation on the source's grid. If it is `None`, labels and masks that were interpolated on
    /// the way (`before`, and `nearest_interp` false) are rounded.
    pub after: Option<Discretise>,
    /// Operations on labels on the network's grid, in order.
    pub operations_before: Vec<LabelOperation>,
    /// Operations on labels on the source's grid, in order.
    pub operations_after: Vec<LabelOperation>,
}

/// `AsDiscreted`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Discretise {
    /// The class with the largest value; the first of equal ones.
    Argmax,
    /// For each class, 1 if a value is at least this.
    Threshold(f32),
    /// The nearest whole number, halves to even. A probability becomes 1 above one half.
    Round,
}

/// `Invertd`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InvertSpec {
    /// Every resampling uses the nearest voxel.
    pub nearest: bool,
}

/// The form of the result at a point of the postprocessing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// Values of each class.
    Values,
    /// A label map.
    Labels,
    /// A label map of 0 and 1 that was made from another one.
    Binary,
    /// Masks, one for each channel of the network.
    Masks,
    /// One-hot channels of this many classes.
    Sets(usize),
    /// Masks merged into labels.
    Merged,
}

impl PostPlan {
    /// Creates the plan from a bundle's postprocessing.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidModel`] with the JSON path of anything unsupported.
    pub fn new(components: &[Component]) -> Result<Self> {
        let plan = reading::read(components)?;
        if plan.before.is_none() && plan.after.is_none() {
            return Err(Error::new(
                ErrorKind::InvalidModel,
                "postprocessing: there is no AsDiscreted, so there are no labels to write",
            ));
        }
        Ok(plan)
    }

    /// Whether mapping back uses the nearest voxel.
    pub fn nearest(&self) -> bool {
        self.invert.is_none_or(|invert| invert.nearest)
    }

    /// Whether labels or masks are interpolated when mapped back.
    pub fn interpolates_labels(&self) -> bool {
        self.before.is_some() && !self.nearest()
    }

    /// Returns what a user of the result should know about its processing.
    pub fn warnings(&self) -> Vec<String> {
        if !self.interpolates_labels() {
            return Vec::new();
        }
        let channels = |form: &Form| matches!(form, Form::Masks | Form::Sets(_));
        match (self.forms().iter().any(channels), self.after) {
            (false, _) => vec![reading::LABELS_INTERPOLATED.to_owned()],
            (true, None | Some(Discretise::Round)) => {
                vec![reading::CHANNELS_INTERPOLATED.to_owned()]
            }
            (true, _) => Vec::new(),
        }
    }

    /// Returns the form of the result, for a network with this many output channels.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidModel`] if the postprocessing does not match that number.
    pub fn form(&self, channels: usize) -> Result<ResultForm> {
        let forms = self.forms();
        let invalid = |why: String| {
            Err(Error::new(ErrorKind::InvalidModel, format!("postprocessing: {why}")))
        };
        for pair in forms.windows(2) {
            match pair {
                [Form::Masks, Form::Sets(_)] if channels > 1 => {
                    return invalid(format!(
                        "AsDiscreted with to_onehot needs labels, and the network gives {channels} \
                         channels: set argmax"
                    ));
                }
                [Form::Masks, Form::Labels] if channels == 1 => {
                    return invalid(
                        "AsDiscreted with argmax makes 0 of a single channel".to_owned(),
                    );
                }
                [Form::Labels, Form::Sets(classes)] if *classes < channels => {
                    return invalid(format!(
                        "AsDiscreted has to_onehot {classes}, and the network gives {channels} classes"
                    ));
                }
                [Form::Labels, Form::Binary] if channels > 2 => {
                    return invalid(format!(
                        "AsDiscreted with a threshold makes one mask of {} classes, which has no name \
                         in metadata.json",
                        channels - 1
                    ));
                }
                _ => {}
            }
        }
        let operations = self.operations_before.iter().chain(&self.operations_after);
        let merged = operations.into_iter().find_map(|operation| match operation {
            LabelOperation::Merge(merge) => Some(merge.cases.clone()),
            _ => None,
        });
        Ok(match (merged, forms.last()) {
            (Some(cases), _) => ResultForm::Merged(cases),
            (None, Some(Form::Masks)) if channels > 1 => ResultForm::Masks,
            _ => ResultForm::Labels,
        })
    }

    /// Describes what one component by itself would do, if its arguments do not say so themselves; else
    /// empty.
    ///
    /// # Errors
    /// Propagates the errors of [`new`](Self::new), as far as this component alone is at fault.
    pub fn describe(component: &Component) -> Result<String> {
        reading::describe(component)
    }

    /// Returns the successive forms of the result.
    pub(super) fn forms(&self) -> Vec<Form> {
        let first = |discretise: Discretise| match discretise {
            Discretise::Argmax => Form::Labels,
            Discretise::Threshold(_) | Discretise::Round => Form::Masks,
        };
        let mut forms = vec![Form::Values];
        let follow = |forms: &mut Vec<Form>, operations: &[LabelOperation]| {
            for operation in operations {
                let form = forms.last().copied().unwrap_or(Form::Values);
                forms.extend(after(form, operation));
            }
        };
        forms.extend(self.before.map(first));
        follow(&mut forms, &self.operations_before);
        match (self.before, self.after, forms.last()) {
            (None, Some(discretise), _) => forms.push(first(discretise)),
            (Some(_), Some(Discretise::Threshold(_)), Some(Form::Labels)) => {
                forms.push(Form::Binary);
            }
            (Some(_), Some(Discretise::Argmax), Some(Form::Masks | Form::Sets(_))) => {
                forms.push(Form::Labels);
            }
            // If at most one class is above one half, channels are labels.
            (Some(_), Some(_), Some(Form::Sets(_))) => {
                forms.push(Form::Labels);
            }
            _ => {}
        }
        follow(&mut forms, &self.operations_after);
        forms
    }
}

/// Returns the form after an operation, if it changes the form.
fn after(form: Form, operation: &LabelOperation) -> Option<Form> {
    match (operation, form) {
        (LabelOperation::Merge(_), _) => Some(Form::Merged),
        (LabelOperation::OneHot { classes }, _) => Some(Form::Sets(*classes)),
        (LabelOperation::Argmax, _) => Some(Form::Labels),
        (LabelOperation::Threshold(_), Form::Labels | Form::Merged) => Some(Form::Binary),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
