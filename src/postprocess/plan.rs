//! A bundle's postprocessing read into what the engine does, in its order.

use crate::bundle::{Args, Component, ResultForm};
use crate::error::{Error, ErrorKind, Result};

use super::activation::Activation;
use super::components::LabelOperation;

/// What follows the network.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct PostPlan {
    /// Applied first.
    pub activation: Activation,
    /// Discretisation on the network's grid, before any inversion.
    pub before: Option<Discretise>,
    /// The way back to the source's grid; without it the result is brought back all the same,
    /// because outputs are written on the source's grid. Labels and masks that were discretised
    /// before always take the nearest voxel: with `nearest_interp` false MONAI interpolates between
    /// label numbers, and halfway from label 1 to 3 lies none of them.
    pub invert: Option<InvertSpec>,
    /// Discretisation on the source's grid.
    pub after: Option<Discretise>,
    /// Operations on the labels of the network's grid, in their order.
    pub operations_before: Vec<LabelOperation>,
    /// Operations on the labels of the source's grid, in their order.
    pub operations_after: Vec<LabelOperation>,
}

/// `AsDiscreted`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Discretise {
    /// The class with the largest value; the first of equals.
    Argmax,
    /// 1 where a value is at least this, for each class.
    Threshold(f32),
}

/// `Invertd`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InvertSpec {
    /// Every resampling takes the nearest voxel.
    pub nearest: bool,
}

impl PostPlan {
    /// From a bundle's postprocessing. What is not supported is [`ErrorKind::InvalidModel`] naming
    /// its JSON path.
    pub fn new(components: &[Component]) -> Result<Self> {
        let mut plan = Self::default();
        for component in components {
            if !plan.add_operation(component)? {
                plan.add(component)?;
            } else if plan.before.is_none() && plan.after.is_none() {
                return Err(misplaced(component, "it must follow AsDiscreted"));
            } else if plan.merges() > 1 || plan.merges_labels() {
                return Err(misplaced(component, "it merges masks, and there are none here"));
            }
        }
        if plan.before.is_none() && plan.after.is_none() {
            return Err(Error::new(
                ErrorKind::InvalidModel,
                "postprocessing: there is no AsDiscreted, so there are no labels to write",
            ));
        }
        Ok(plan)
    }

    /// What the voxels of the result say, for a network of so many output channels.
    pub fn form(&self, channels: usize) -> ResultForm {
        let operations = self.operations_before.iter().chain(&self.operations_after);
        let merged = operations.into_iter().find_map(|operation| match operation {
            LabelOperation::Merge(merge) => Some(merge.cases.clone()),
            _ => None,
        });
        let thresholds =
            matches!(self.before.or(self.after), Some(Discretise::Threshold(_))) && channels > 1;
        match merged {
            Some(cases) => ResultForm::Merged(cases),
            None if thresholds => ResultForm::Masks,
            None => ResultForm::Labels,
        }
    }

    fn merges(&self) -> usize {
        let operations = self.operations_before.iter().chain(&self.operations_after);
        operations.filter(|operation| matches!(operation, LabelOperation::Merge(_))).count()
    }

    fn merges_labels(&self) -> bool {
        self.merges() > 0 && self.before.or(self.after) == Some(Discretise::Argmax)
    }

    /// What would become of one component by itself.
    pub fn describe(component: &Component) -> Result<String> {
        let mut alone = Self::default();
        if !alone.add_operation(component)? {
            alone.add(component)?;
        }
        Ok(match alone {
            Self {
                activation: Activation::None,
                before: None,
                invert: None,
                operations_before,
                ..
            } if operations_before.is_empty() => {
                "nothing to do: outputs are what the request asks for".to_owned()
            }
            Self { operations_before, .. } if !operations_before.is_empty() => {
                format!("{:?}", operations_before[0])
            }
            Self { before: Some(discretise), .. } => format!("{discretise:?}"),
            Self { invert: Some(invert), .. } => format!("{invert:?}"),
            Self { activation, .. } => format!("{activation:?}"),
        })
    }

    /// Adds an operation on labels; false where the component is none.
    fn add_operation(&mut self, component: &Component) -> Result<bool> {
        let mut args = Args::new(component);
        args.ignore(&["keys", "allow_missing_keys"]);
        let Some(operation) = LabelOperation::from_args(&component.target, &mut args)? else {
            return Ok(false);
        };
        args.finish()?;
        if self.invert.is_some() {
            self.operations_after.push(operation);
        } else {
            self.operations_before.push(operation);
        }
        Ok(true)
    }

    fn add(&mut self, component: &Component) -> Result<()> {
        let mut args = Args::new(component);
        args.ignore(&["keys", "allow_missing_keys"]);
        let discretised = self.before.is_some() || self.after.is_some();
        match component.target.as_str() {
            "Activationsd" | "Activations" => {
                if discretised || self.invert.is_some() || self.activation != Activation::None {
                    return Err(misplaced(component, "it must come first"));
                }
                self.activation = activation(&mut args)?;
            }
            "Invertd" => {
                if self.invert.is_some() {
                    return Err(misplaced(component, "one inversion is supported"));
                }
                self.invert = Some(invert(&mut args)?);
            }
            "AsDiscreted" | "AsDiscrete" => {
                if discretised {
                    return Err(misplaced(component, "one discretisation is supported"));
                }
                let discretise = discretise(&mut args)?;
                if self.invert.is_some() {
                    self.after = discretise;
                } else {
                    self.before = discretise;
                }
            }
            "EnsureTyped" | "EnsureType" => {
                args.ignore(&["data_type", "dtype", "device", "wrap_sequence", "track_meta"]);
            }
            // Outputs are the request's business.
            "SaveImaged" | "SaveImage" => return Ok(()),
            other => {
                return Err(Error::new(
                    ErrorKind::InvalidModel,
                    format!(
                        "{}: transform {other} is not supported in postprocessing",
                        component.path
                    ),
                )
                .with("path", component.path.as_str())
                .with("target", other));
            }
        }
        args.finish()
    }
}

fn misplaced(component: &Component, why: &str) -> Error {
    Error::new(
        ErrorKind::InvalidModel,
        format!("{}: {} is not supported here: {why}", component.path, component.target),
    )
    .with("path", component.path.as_str())
}

fn activation(args: &mut Args) -> Result<Activation> {
    if args.raw("other").is_some() {
        return Err(args.invalid("other", "nothing"));
    }
    if args.number("dim")?.is_some_and(|d| d != 0.0) {
        return Err(args.invalid("dim", "0"));
    }
    match (flag(args, "softmax")?, flag(args, "sigmoid")?) {
        (true, true) => Err(args.invalid("softmax", "true only without sigmoid")),
        (true, false) => Ok(Activation::Softmax),
        (false, true) => Ok(Activation::Sigmoid),
        (false, false) => Ok(Activation::None),
    }
}

/// A truth value, or a list of one for the single key.
fn flag(args: &mut Args, name: &str) -> Result<bool> {
    match args.raw(name) {
        Some(serde_json::Value::Array(list)) if list.len() == 1 => {
            list[0].as_bool().ok_or_else(|| args.invalid(name, "true or false"))
        }
        _ => args.boolean(name, false),
    }
}

fn invert(args: &mut Args) -> Result<InvertSpec> {
    // There is one image and one preprocessing; where tensors live does not matter.
    args.ignore(&[
        "transform",
        "orig_keys",
        "meta_keys",
        "orig_meta_keys",
        "meta_key_postfix",
        "to_tensor",
        "device",
    ]);
    if args.raw("post_func").is_some() {
        return Err(args.invalid("post_func", "nothing"));
    }
    let nearest = match args.raw("nearest_interp") {
        None => true,
        Some(_) => flag(args, "nearest_interp")?,
    };
    Ok(InvertSpec { nearest })
}

fn discretise(args: &mut Args) -> Result<Option<Discretise>> {
    // A one-hot form of the labels says the same as the labels.
    args.ignore(&["to_onehot"]);
    if args.raw("rounding").is_some() {
        return Err(args.invalid("rounding", "nothing"));
    }
    if args.number("dim")?.is_some_and(|d| d != 0.0) {
        return Err(args.invalid("dim", "0"));
    }
    let argmax = flag(args, "argmax")?;
    let threshold = match args.raw("threshold") {
        Some(serde_json::Value::Array(list)) if list.len() == 1 => list[0].as_f64(),
        _ => args.number("threshold")?,
    };
    match (argmax, threshold) {
        (true, None) => Ok(Some(Discretise::Argmax)),
        (false, Some(t)) => Ok(Some(Discretise::Threshold(t as f32))),
        (false, None) => Ok(None),
        (true, Some(_)) => Err(args.invalid("threshold", "a number only without argmax")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn components(list: &[(&str, Value)]) -> Vec<Component> {
        let component = |(i, (target, args)): (usize, &(&str, Value))| Component {
            target: (*target).to_owned(),
            args: args.as_object().unwrap().clone(),
            path: format!("postprocessing#transforms#{i}"),
        };
        list.iter().enumerate().map(component).collect()
    }

    #[test]
    fn operations_stand_on_the_side_of_the_inversion_they_are_written_on() {
        let largest = ("KeepLargestConnectedComponentd", json!({"applied_labels": [1, 2]}));
        let plan = PostPlan::new(&components(&[
            ("AsDiscreted", json!({"keys": "pred", "argmax": true})),
            largest.clone(),
            ("Invertd", json!({"keys": "pred", "nearest_interp": false})),
            ("FillHolesd", json!({"keys": "pred"})),
            ("RemoveSmallObjectsd", json!({"min_size": 10})),
        ]))
        .unwrap();
        assert_eq!(plan.before, Some(Discretise::Argmax));
        let [LabelOperation::KeepLargest { applied_labels, independent, .. }] =
            &plan.operations_before[..]
        else {
            panic!("{plan:?}");
        };
        assert_eq!((applied_labels.as_deref(), *independent), (Some(&[1, 2][..]), true));
        assert!(matches!(
            plan.operations_after[..],
            [LabelOperation::FillHoles { .. }, LabelOperation::RemoveSmall { .. }]
        ));
        let described = PostPlan::describe(&components(&[largest])[0]).unwrap();
        assert!(described.contains("KeepLargest"), "{described}");
    }

    #[test]
    fn operations_need_labels_and_arguments_that_are_known() {
        let argmax = ("AsDiscreted", json!({"argmax": true}));
        for list in [
            vec![("FillHolesd", json!({})), argmax.clone()],
            vec![argmax.clone(), ("RemoveSmallObjectsd", json!({"by_measure": true}))],
            vec![
                argmax.clone(),
                ("KeepLargestConnectedComponentd", json!({"applied_labels": [300]})),
            ],
            vec![argmax.clone(), ("KeepLargestConnectedComponentd", json!({"connectivity": 4}))],
            vec![argmax, ("LabelFilterd", json!({}))],
        ] {
            let error = PostPlan::new(&components(&list)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidModel, "{error}");
            assert!(error.message().contains("postprocessing#transforms#"), "{error}");
        }
    }
}
