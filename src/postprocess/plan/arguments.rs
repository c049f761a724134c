//! Parses the arguments of postprocessing transforms.

use crate::bundle::Args;
use crate::error::Result;
use crate::postprocess::Activation;

use super::InvertSpec;

/// The operations of one `AsDiscreted`, in order.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct AsDiscrete {
    pub argmax: bool,
    pub to_onehot: Option<usize>,
    pub threshold: Option<f32>,
    pub rounding: bool,
}

impl AsDiscrete {
    /// Parses a component's arguments.
    pub(super) fn from_args(args: &mut Args) -> Result<Self> {
        // Results are integers, whatever type they would be written as.
        args.ignore(&["dtype"]);
        if args.number("dim")?.is_some_and(|d| d != 0.0) {
            return Err(args.invalid("dim", "0"));
        }
        if !args.boolean("keepdim", true)? {
            return Err(args.invalid("keepdim", "true"));
        }
        let to_onehot = match only_number(args, "to_onehot")? {
            None => None,
            Some(n) if (2.0..=256.0).contains(&n) && n.fract() == 0.0 => Some(n as usize),
            Some(_) => return Err(args.invalid("to_onehot", "a number of classes from 2 to 256")),
        };
        let rounding = match args.string("rounding")? {
            None => false,
            Some("torchrounding") => true,
            Some(_) => return Err(args.invalid("rounding", "torchrounding")),
        };
        let threshold = only_number(args, "threshold")?.map(|t| t as f32);
        Ok(Self { argmax: flag(args, "argmax")?, to_onehot, threshold, rounding })
    }
}

/// Returns a number, or the element of a list of one for the single key.
fn only_number(args: &mut Args, name: &str) -> Result<Option<f64>> {
    match args.raw(name) {
        Some(serde_json::Value::Array(list)) if list.len() == 1 && list[0].is_null() => Ok(None),
        Some(serde_json::Value::Array(list)) if list.len() == 1 => {
            list[0].as_f64().map(Some).ok_or_else(|| args.invalid(name, "a number"))
        }
        _ => args.number(name),
    }
}

/// Parses the activation of an `Activationsd`.
pub(super) fn activation(args: &mut Args) -> Result<Activation> {
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

/// Returns a boolean, or the element of a list of one for the single key.
fn flag(args: &mut Args, name: &str) -> Result<bool> {
    match args.raw(name) {
        Some(serde_json::Value::Array(list)) if list.len() == 1 => {
            list[0].as_bool().ok_or_else(|| args.invalid(name, "true or false"))
        }
        _ => args.boolean(name, false),
    }
}

/// Parses the arguments of an `Invertd`.
pub(super) fn invert(args: &mut Args) -> Result<InvertSpec> {
    // There is one image and one preprocessing; the device of tensors does not matter.
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
