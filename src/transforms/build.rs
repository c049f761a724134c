//! Builds transforms from a bundle's components.

use serde_json::{Value, json};

use super::crop::{CenterSpatialCropd, CropForegroundd, SpatialCropd};
use super::intensity::{
    ClipIntensityPercentilesd, NormalizeIntensityd, ScaleIntensityRangePercentilesd,
    ScaleIntensityRanged, ScaleIntensityd, ThresholdIntensityd,
};
use super::pad::{BorderPadd, DivisiblePadd, SpatialPadd};
use super::resize::Resized;
use super::turn::Turn;
use super::{Orientationd, Spacingd, Transform, squeeze};
use crate::bundle::{Args, Component};
use crate::error::{Error, ErrorKind, Result};

/// Builds the transform that a component names. Returns `None` for those with nothing left to do: the
/// image is loaded, channel-first and f32 before the first transform runs.
///
/// # Errors
/// [`ErrorKind::InvalidModel`] with the JSON path of an unsupported transform or argument.
pub fn build(component: &Component) -> Result<Option<Box<dyn Transform>>> {
    if squeeze::is_squeeze(component) {
        return squeeze::build(component);
    }
    let mut args = Args::new(component);
    args.ignore(&["allow_missing_keys", "lazy"]);
    let transform = match nothing_to_do(&component.target, &mut args)? {
        true => None,
        false => Some(transform(&component.target, &mut args)?),
    };
    args.ignore(&["keys"]);
    args.finish()?;
    Ok(transform)
}

fn transform(target: &str, args: &mut Args) -> Result<Box<dyn Transform>> {
    Ok(match array_name(target) {
        "Orientation" => Box::new(Orientationd::from_args(args)?),
        "Flip" => Box::new(Turn::flip(args)?),
        "Rotate90" => Box::new(Turn::quarter_turns(args)?),
        "Spacing" => Box::new(Spacingd::from_args(args)?),
        "Resize" => Box::new(Resized::from_args(args)?),
        "CropForeground" => Box::new(CropForegroundd::from_args(args)?),
        "CenterSpatialCrop" => Box::new(CenterSpatialCropd::from_args(args)?),
        "SpatialCrop" => Box::new(SpatialCropd::from_args(args)?),
        "SpatialPad" => Box::new(SpatialPadd::from_args(args)?),
        "DivisiblePad" => Box::new(DivisiblePadd::from_args(args)?),
        "BorderPad" => Box::new(BorderPadd::from_args(args)?),
        "ScaleIntensity" => Box::new(ScaleIntensityd::from_args(args)?),
        "ScaleIntensityRange" => Box::new(ScaleIntensityRanged::from_args(args)?),
        "ScaleIntensityRangePercentiles" => {
            Box::new(ScaleIntensityRangePercentilesd::from_args(args)?)
        }
        "ClipIntensityPercentiles" => Box::new(ClipIntensityPercentilesd::from_args(args)?),
        "NormalizeIntensity" => Box::new(NormalizeIntensityd::from_args(args)?),
        "ThresholdIntensity" => Box::new(ThresholdIntensityd::from_args(args)?),
        _ => {
            return Err(Error::new(
                ErrorKind::InvalidModel,
                format!("{}: transform {target} is not supported in preprocessing", args.path()),
            )
            .with("path", args.path())
            .with("target", target));
        }
    })
}

/// Returns the name of the array transform that a dictionary transform wraps: without the final `d`.
fn array_name(target: &str) -> &str {
    match target.strip_suffix('d') {
        Some(name) if !target.ends_with("Pad") => name,
        _ => target,
    }
}

/// Whether the component leaves an f32 image in memory unchanged; its arguments are read.
fn nothing_to_do(target: &str, args: &mut Args) -> Result<bool> {
    match array_name(target) {
        "LoadImage" => args.ignore(&[
            "reader",
            "dtype",
            "meta_keys",
            "meta_key_postfix",
            "overwriting",
            "image_only",
            "ensure_channel_first",
            "simple_keys",
            "prune_meta_pattern",
            "prune_meta_sep",
        ]),
        "EnsureChannelFirst" => args.ignore(&["strict_check", "channel_dim"]),
        "EnsureType" => {
            args.ignore(&["data_type", "device", "wrap_sequence", "track_meta"]);
            args.float_dtype("dtype")?;
        }
        "CastToType" => args.float_dtype("dtype")?,
        "ToTensor" => {
            args.ignore(&["device", "wrap_sequence", "track_meta"]);
            args.float_dtype("dtype")?;
        }
        "ToDevice" => args.ignore(&["device", "non_blocking"]),
        "DeleteItems" => args.ignore(&["sep", "use_re"]),
        "Identity" => {}
        "ConcatItems" => only_one_item(args)?,
        "Lambda" => only_identity(args)?,
        _ => return Ok(false),
    }
    Ok(true)
}

/// Reads arguments for concatenation, which has nothing to do: there is only one image.
fn only_one_item(args: &mut Args) -> Result<()> {
    args.ignore(&["name"]);
    if args.number("dim")?.is_some_and(|dim| dim != 0.0) {
        return Err(args.invalid("dim", "0"));
    }
    match args.raw("keys") {
        Some(Value::Array(list)) if list.len() > 1 => Err(args.invalid("keys", "one key")),
        _ => Ok(()),
    }
}

/// Checks that a function in a configuration is the identity.
fn only_identity(args: &mut Args) -> Result<()> {
    args.ignore(&["inv_func", "track_meta", "overwrite"]);
    let lambda = args.raw("func").and_then(|f| f.get("$lambda"));
    let identity = lambda.is_some_and(|lambda| {
        let parameters = lambda.get("params").and_then(Value::as_array);
        let body = lambda.get("body").unwrap_or(&Value::Null);
        parameters.is_some_and(|list| json!(list) == json!([body]))
    });
    if identity { Ok(()) } else { Err(args.invalid("func", "the identity (lambda x: x)")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(target: &str, args: Value) -> Result<bool> {
        let args = args.as_object().unwrap().clone();
        let path = "preprocessing#transforms#4".to_owned();
        build(&Component { target: target.to_owned(), args, path }).map(|t| t.is_some())
    }

    #[test]
    fn what_changes_nothing_is_left_out() {
        assert!(!outcome("CastToTyped", json!({"keys": "image", "dtype": "float32"})).unwrap());
        assert!(!outcome("ConcatItemsd", json!({"keys": ["image"], "name": "x"})).unwrap());
        let identity = json!({"func": {"$lambda": {"params": ["x"], "body": "x"}}});
        assert!(!outcome("Lambdad", identity).unwrap());
        assert!(outcome("DivisiblePadd", json!({"k": 16})).unwrap());
        assert!(outcome("DivisiblePad", json!({"k": 16})).unwrap());
    }

    #[test]
    fn what_would_be_skipped_in_silence_is_refused() {
        for (target, args) in [
            ("CastToTyped", json!({"dtype": "uint8"})),
            ("ConcatItemsd", json!({"keys": ["t1", "t2"], "name": "image"})),
            ("Lambdad", json!({"func": {"$lambda": {"params": ["x"], "body": "x + 1"}}})),
            ("Resized", json!({"spatial_size": [8, 8, 8], "mode": "area", "align_corners": true})),
            ("Resized", json!({"spatial_size": 8})),
            ("SpatialPadd", json!({"spatial_size": [8, 8]})),
            ("DivisiblePadd", json!({"k": 16, "colour": 1})),
            (
                "CropForegroundd",
                json!({"select_fn": {"$lambda": {"params": ["x"], "body": "x.any()"}}}),
            ),
            ("RandFlipd", json!({})),
        ] {
            let error = outcome(target, args).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidModel, "{target}");
            assert!(error.message().contains("preprocessing#transforms#4"), "{error}");
        }
    }
}
