//! Reads the components of a bundle's postprocessing one by one.

use serde_json::Value;

use super::arguments::{AsDiscrete, activation, invert};
use super::{Discretise, Form, PostPlan};
use crate::bundle::{Args, Component};
use crate::error::{Error, ErrorKind, Result};
use crate::postprocess::{Activation, LabelOperation};

/// The warning if `Invertd` interpolates labels.
pub(super) const LABELS_INTERPOLATED: &str = "postprocessing: Invertd has nearest_interp false after \
     AsDiscreted, so that labels are interpolated where the way back resamples, as in MONAI. Values \
     between labels are rounded, so that a rim of label 1 may lie between labels 0 and 2; with \
     nearest_interp true there is none";

/// The warning if `Invertd` interpolates channels of 0 and 1 and nothing discretises them again.
pub(super) const CHANNELS_INTERPOLATED: &str = "postprocessing: Invertd has nearest_interp false \
     after AsDiscreted, so that masks are interpolated where the way back resamples, as in MONAI. No \
     AsDiscreted follows: what is above a half belongs to the mask";

/// Transforms that only bundles with several networks use.
const SEVERAL_NETWORKS: [&str; 4] =
    ["MeanEnsembled", "MeanEnsemble", "VoteEnsembled", "VoteEnsemble"];

/// Creates the plan of all components.
pub(super) fn read(components: &[Component]) -> Result<PostPlan> {
    let mut plan = PostPlan::default();
    for component in components {
        add(&mut plan, component)?;
    }
    simplify(&mut plan);
    Ok(plan)
}

/// Describes what one component by itself would do, if its arguments do not say so themselves.
pub(super) fn describe(component: &Component) -> Result<String> {
    // Considered by itself, it finds whatever it works on.
    let attempts = [
        PostPlan::default(),
        PostPlan { before: Some(Discretise::Argmax), ..PostPlan::default() },
        PostPlan { before: Some(Discretise::Threshold(0.5)), ..PostPlan::default() },
    ];
    let mut error = None;
    for mut plan in attempts {
        match add(&mut plan, component) {
            Ok(()) => return Ok(note(component).to_owned()),
            // The first error is about the arguments, if those are at fault.
            Err(e) => error = error.or(Some(e)),
        }
    }
    error.map_or(Ok(String::new()), Err)
}

fn note(component: &Component) -> &'static str {
    match component.target.as_str() {
        "SaveImaged" | "SaveImage" => "nothing to do: outputs are what the request asks for",
        "EnsureTyped" | "EnsureType" => "nothing to do",
        "RemoveSmallObjectsd" | "RemoveSmallObjects" => {
            "what is smaller than min_size goes, and what has exactly that size stays"
        }
        _ => "",
    }
}

/// Arguments for which dictionary transforms take one value per key.
const BY_KEY: [&str; 9] = [
    "softmax",
    "sigmoid",
    "other",
    "argmax",
    "to_onehot",
    "threshold",
    "rounding",
    "nearest_interp",
    "post_func",
];

/// Returns the component for the network's result. If it has several keys, lists with a value per key
/// become the value for `pred`, or for the first key if `pred` is not among them.
fn for_result(component: &Component) -> Component {
    let mut alone = component.clone();
    let Some(keys) = component.args.get("keys").and_then(Value::as_array) else { return alone };
    let place = keys.iter().position(|key| key == "pred").unwrap_or(0);
    for name in BY_KEY {
        if let Some(Value::Array(list)) = alone.args.get(name)
            && list.len() == keys.len()
            && let Some(value) = list.get(place).cloned()
        {
            alone.args.insert(name.to_owned(), value);
        }
    }
    alone
}

fn add(plan: &mut PostPlan, component: &Component) -> Result<()> {
    let component = &for_result(component);
    let mut args = Args::new(component);
    args.ignore(&["keys", "allow_missing_keys"]);
    if let Some(operation) = LabelOperation::from_args(&component.target, &mut args)? {
        args.finish()?;
        return add_operation(plan, component, operation);
    }
    match component.target.as_str() {
        "Activationsd" | "Activations" => {
            if plan.reached() != Form::Values {
                return Err(misplaced(component, "it must come before AsDiscreted"));
            }
            let place = match plan.invert {
                None => &mut plan.activation,
                Some(_) => &mut plan.activation_after,
            };
            if *place != Activation::None {
                return Err(misplaced(component, "one activation is supported here"));
            }
            *place = activation(&mut args)?;
        }
        "Invertd" => {
            if plan.invert.is_some() {
                return Err(misplaced(component, "one inversion is supported"));
            }
            plan.invert = Some(invert(&mut args)?);
        }
        "AsDiscreted" | "AsDiscrete" => {
            let wanted = AsDiscrete::from_args(&mut args)?;
            discretise(plan, component, wanted)?;
        }
        "EnsureTyped" | "EnsureType" => {
            args.ignore(&["data_type", "dtype", "device", "wrap_sequence", "track_meta"]);
        }
        // Outputs are chosen by the request.
        "SaveImaged" | "SaveImage" => return Ok(()),
        several if SEVERAL_NETWORKS.contains(&several) => {
            return Err(misplaced(
                component,
                "it combines the results of several networks, and a bundle here has one",
            ));
        }
        other => {
            return Err(Error::new(
                ErrorKind::InvalidModel,
                format!("{}: transform {other} is not supported in postprocessing", component.path),
            )
            .with("path", component.path.as_str())
            .with("target", other));
        }
    }
    args.finish()
}

fn add_operation(
    plan: &mut PostPlan,
    component: &Component,
    operation: LabelOperation,
) -> Result<()> {
    let form = plan.reached();
    if form == Form::Values {
        return Err(misplaced(component, "it must follow AsDiscreted"));
    }
    if plan.is_pending() {
        // Operations need labels, and interpolated values are not labels yet.
        plan.resolve(component, Discretise::Round)?;
    }
    let form = plan.reached();
    match &operation {
        LabelOperation::Merge(_) if !matches!(form, Form::Masks | Form::Sets(_)) => {
            return Err(misplaced(component, "it merges masks, and there are none here"));
        }
        LabelOperation::KeepLargest { onehot: Some(false), .. }
            if matches!(form, Form::Sets(_)) =>
        {
            return Err(misplaced(
                component,
                "is_onehot is false, and AsDiscreted with to_onehot made one-hot channels",
            ));
        }
        _ => {}
    }
    plan.push(operation);
    Ok(())
}

/// Adds one `AsDiscreted`, which may do several things in order.
fn discretise(plan: &mut PostPlan, component: &Component, wanted: AsDiscrete) -> Result<()> {
    let AsDiscrete { argmax, to_onehot, threshold, rounding } = wanted;
    // How values are discretised, if they first have to become labels or masks.
    let pending = plan.is_pending();
    let mut threshold = threshold;
    if plan.reached() == Form::Values || pending {
        let first = match (argmax, threshold, rounding) {
            (true, _, _) => Some(Discretise::Argmax),
            (false, Some(t), _) => {
                threshold = None;
                Some(Discretise::Threshold(t))
            }
            (false, None, true) => Some(Discretise::Round),
            (false, None, false) => None,
        };
        match first {
            // A one-hot form of values between labels would be that of the labels below them.
            _ if to_onehot.is_some() && !argmax => {
                return Err(misplaced(component, "to_onehot needs labels: set argmax"));
            }
            None => return Ok(()),
            Some(first) if pending => plan.resolve(component, first)?,
            Some(Discretise::Round) if !plan.bounded() => {
                return Err(misplaced(
                    component,
                    "rounding needs values from 0 to 1: put Activationsd before it",
                ));
            }
            Some(first) => plan.set(first),
        }
    } else if argmax {
        match plan.reached() {
            Form::Masks | Form::Sets(_) => plan.push(LabelOperation::Argmax),
            _ => {
                return Err(misplaced(
                    component,
                    "there are labels already, so argmax makes 0 of all",
                ));
            }
        }
    }
    if let Some(classes) = to_onehot {
        if matches!(plan.reached(), Form::Sets(_) | Form::Merged) {
            return Err(misplaced(component, "to_onehot needs labels that are classes"));
        }
        plan.push(LabelOperation::OneHot { classes });
    }
    if let Some(t) = threshold {
        let channels = matches!(plan.reached(), Form::Masks | Form::Sets(_) | Form::Binary);
        if channels && !(t > 0.0 && t <= 1.0) {
            return Err(misplaced(
                component,
                "channels are 0 or 1, so a threshold has to be above 0 and at most 1",
            ));
        }
        if plan.reached() == Form::Merged {
            return Err(misplaced(component, "a threshold of merged labels has no name"));
        }
        if !channels {
            plan.push(LabelOperation::Threshold(t));
        }
    }
    // Rounding already discretised labels and masks changes nothing: they are whole numbers.
    Ok(())
}

impl PostPlan {
    /// Returns the form of the result so far.
    fn reached(&self) -> Form {
        self.forms().last().copied().unwrap_or(Form::Values)
    }

    /// Whether labels or masks were interpolated and not discretised since.
    fn is_pending(&self) -> bool {
        self.interpolates_labels() && self.after.is_none()
    }

    /// Whether values lie between 0 and 1.
    fn bounded(&self) -> bool {
        let last = match self.activation_after {
            Activation::None => self.activation,
            after => after,
        };
        last != Activation::None
    }

    /// Sets the first discretisation of values.
    fn set(&mut self, discretise: Discretise) {
        if self.invert.is_some() {
            self.after = Some(discretise);
        } else {
            self.before = Some(discretise);
        }
    }

    /// Sets the discretisation of interpolated labels or masks.
    fn resolve(&mut self, component: &Component, discretise: Discretise) -> Result<()> {
        let filled =
            |operation: &LabelOperation| matches!(operation, LabelOperation::FillHoles { .. });
        match (self.reached(), discretise) {
            (Form::Labels | Form::Binary | Form::Merged, Discretise::Argmax) => {
                return Err(misplaced(
                    component,
                    "there are labels already, so argmax makes 0 of all",
                ));
            }
            (Form::Merged, Discretise::Threshold(_)) => {
                return Err(misplaced(component, "a threshold of merged labels has no name"));
            }
            (Form::Sets(_), Discretise::Threshold(t)) if t < 0.5 => {
                return Err(misplaced(
                    component,
                    "below 0.5 classes would overlap; use argmax, or a threshold of 0.5 or more",
                ));
            }
            (Form::Sets(_), Discretise::Threshold(_) | Discretise::Round)
                if self.operations_before.iter().any(filled) =>
            {
                return Err(misplaced(component, "FillHolesd makes classes overlap; use argmax"));
            }
            (Form::Sets(classes), Discretise::Threshold(_) | Discretise::Round) => {
                self.after = Some(discretise);
                // The following operations work on channels, as the previous ones did.
                self.push(LabelOperation::OneHot { classes });
            }
            _ => self.after = Some(discretise),
        }
        Ok(())
    }

    fn push(&mut self, operation: LabelOperation) {
        if self.invert.is_some() {
            self.operations_after.push(operation);
        } else {
            self.operations_before.push(operation);
        }
    }
}

/// Removes a one-hot form if every operation after it does the same with labels.
fn simplify(plan: &mut PostPlan) {
    if plan.interpolates_labels() {
        return;
    }
    let same = |operation: &LabelOperation| {
        matches!(
            operation,
            LabelOperation::KeepLargest { onehot: None | Some(true), .. } | LabelOperation::Argmax
        )
    };
    let all: Vec<LabelOperation> =
        plan.operations_before.iter().chain(&plan.operations_after).cloned().collect();
    let Some(at) = all.iter().position(|o| matches!(o, LabelOperation::OneHot { .. })) else {
        return;
    };
    if !all[at + 1..].iter().all(same) {
        return;
    }
    let before = plan.operations_before.len();
    let keep = |(index, operation): &(usize, LabelOperation)| {
        *index < at || !matches!(operation, LabelOperation::OneHot { .. } | LabelOperation::Argmax)
    };
    let (mut first, mut rest) = (Vec::new(), Vec::new());
    for (index, operation) in all.into_iter().enumerate().filter(keep) {
        if index < before { first.push(operation) } else { rest.push(operation) }
    }
    (plan.operations_before, plan.operations_after) = (first, rest);
}

fn misplaced(component: &Component, why: &str) -> Error {
    Error::new(
        ErrorKind::InvalidModel,
        format!("{}: {} is not supported here: {why}", component.path, component.target),
    )
    .with("path", component.path.as_str())
}
