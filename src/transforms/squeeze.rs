//! `SqueezeDimd`: 2D images, held as volumes one voxel deep.
//!
//! An [`Image`] always keeps its four axes. This module tracks which of them MONAI's tensor no longer
//! has, and refuses transforms that would work on other axes than the bundle intends.

use super::{Image, Transform};
use crate::bundle::{Args, Component};
use crate::error::{Error, ErrorKind, Result};

/// `monai.transforms.SqueezeDim` of a spatial axis, which must be one voxel long.
#[derive(Debug)]
pub(super) struct SqueezeDimd {
    /// 0, 1 or 2 for X, Y or Z.
    axis: usize,
}

impl Transform for SqueezeDimd {
    fn apply(&self, image: Image) -> Result<Image> {
        match image.dims()[self.axis] {
            1 => Ok(image),
            n => Err(Error::new(
                ErrorKind::InvalidImage,
                format!(
                    "SqueezeDimd: the model takes a single plane, the image has {n} voxels along \
                     its axis {}",
                    self.axis
                ),
            )),
        }
    }
}

/// Returns the axis that a `SqueezeDimd` removes: a spatial axis, or `None` for the channel axis.
fn squeezed(component: &Component) -> Result<Option<usize>> {
    let mut args = Args::new(component);
    args.ignore(&["keys", "allow_missing_keys", "update_meta"]);
    let expected = "one axis of the channel, X, Y and Z (0 to 3 or -4 to -1)";
    // An explicit null means every axis of one voxel, which depends on the image.
    if component.args.get("dim").is_some_and(serde_json::Value::is_null) {
        return Err(args.invalid("dim", expected));
    }
    let axis = match args.whole_numbers("dim")?.as_deref() {
        None | Some([0 | -4]) => None,
        Some([dim @ 1..=3]) => Some(*dim as usize - 1),
        Some([dim @ -3..=-1]) => Some((dim + 3) as usize),
        _ => return Err(args.invalid("dim", expected)),
    };
    args.finish()?;
    Ok(axis)
}

/// Builds the transform of a `SqueezeDimd`; `None` for the channel axis, which only affects
/// [`Dimensions`].
pub(super) fn build(component: &Component) -> Result<Option<Box<dyn Transform>>> {
    Ok(squeezed(component)?.map(|axis| Box::new(SqueezeDimd { axis }) as Box<dyn Transform>))
}

/// Whether a component is a `SqueezeDim` or `SqueezeDimd`.
pub(super) fn is_squeeze(component: &Component) -> bool {
    matches!(component.target.as_str(), "SqueezeDim" | "SqueezeDimd")
}

/// The axes that MONAI's tensor lacks after some steps of a chain.
#[derive(Debug, Default)]
pub(super) struct Dimensions {
    no_channel: bool,
    plane: Option<usize>,
}

/// Transforms that do not depend on axes.
const ANY_AXES: [&str; 5] = ["EnsureType", "CastToType", "ToTensor", "ToDevice", "Identity"];

/// Transforms that treat the voxels of a plane like those of a volume.
const VOXELS: [&str; 9] = [
    "ScaleIntensity",
    "ScaleIntensityRange",
    "ScaleIntensityRangePercentiles",
    "ClipIntensityPercentiles",
    "NormalizeIntensity",
    "ThresholdIntensity",
    "ConcatItems",
    "DeleteItems",
    "EnsureChannelFirst",
];

impl Dimensions {
    /// Applies one component; `all` tells whether its keys cover every image.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidModel`] if the component would work on axes that no longer exist.
    pub fn follow(&mut self, component: &Component, all: bool) -> Result<()> {
        let name = component.target.strip_suffix('d').unwrap_or(&component.target);
        if is_squeeze(component) {
            let axis = squeezed(component)?;
            if !all {
                return Err(refuse(component, "is not supported on some of several images"));
            }
            if self.no_channel || (self.plane.is_some() && axis.is_some()) {
                return Err(refuse(component, "is not supported after another SqueezeDimd"));
            }
            match axis {
                None => self.no_channel = true,
                axis => self.plane = axis,
            }
            return Ok(());
        }
        if self.no_channel && name == "EnsureChannelFirst" {
            self.no_channel = false;
            return Ok(());
        }
        let fits = ANY_AXES.contains(&name)
            || (!self.no_channel && (self.plane.is_none() || VOXELS.contains(&name)));
        if fits {
            return Ok(());
        }
        let why = match self.no_channel {
            true => {
                "needs channels, which SqueezeDimd took away; put EnsureChannelFirstd before it"
            }
            false => "is not supported on the plane that SqueezeDimd leaves; put it before",
        };
        Err(refuse(component, why))
    }

    /// Returns the spatial axis that is missing at the end of the chain.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidModel`] if the channel axis is missing.
    pub fn end(&self) -> Result<Option<usize>> {
        if self.no_channel {
            let why = "preprocessing: SqueezeDimd leaves no channels; end with EnsureChannelFirstd";
            return Err(Error::new(ErrorKind::InvalidModel, why));
        }
        Ok(self.plane)
    }
}

fn refuse(component: &Component, why: &str) -> Error {
    let Component { target, path, .. } = component;
    Error::new(ErrorKind::InvalidModel, format!("{path}: {target} {why}"))
        .with("path", path.as_str())
        .with("target", target.as_str())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn chain(list: &[(&str, Value)]) -> Result<Option<usize>> {
        let mut dimensions = Dimensions::default();
        for (i, (target, args)) in list.iter().enumerate() {
            let component = Component {
                target: (*target).to_owned(),
                args: args.as_object().unwrap().clone(),
                path: format!("preprocessing#transforms#{i}"),
            };
            dimensions.follow(&component, true)?;
        }
        dimensions.end()
    }

    #[test]
    fn a_plane_is_left_across_the_axis() {
        for (dim, axis) in [(1, 0), (3, 2), (-1, 2), (-3, 0)] {
            let squeeze = ("SqueezeDimd", json!({"keys": "image", "dim": dim}));
            let scale = ("ScaleIntensityd", json!({}));
            assert_eq!(chain(&[squeeze, scale]).unwrap(), Some(axis));
        }
        assert_eq!(chain(&[("Orientationd", json!({}))]).unwrap(), None);
    }

    #[test]
    fn channels_must_come_back() {
        let squeeze = ("SqueezeDimd", json!({"keys": "image"}));
        let back = ("EnsureChannelFirstd", json!({"channel_dim": "no_channel"}));
        assert_eq!(chain(&[squeeze.clone(), back.clone()]).unwrap(), None);
        for list in [
            vec![squeeze.clone()],
            vec![squeeze.clone(), ("Spacingd", json!({})), back.clone()],
            vec![squeeze.clone(), ("SqueezeDimd", json!({"dim": 1})), back],
        ] {
            assert_eq!(chain(&list).unwrap_err().kind(), ErrorKind::InvalidModel);
        }
    }

    #[test]
    fn what_would_work_on_other_axes_is_refused() {
        let squeeze = ("SqueezeDimd", json!({"dim": -1}));
        for target in ["Orientationd", "Resized", "SpatialPadd", "SqueezeDimd"] {
            let error = chain(&[squeeze.clone(), (target, json!({"dim": 1}))]).unwrap_err();
            assert!(error.message().starts_with("preprocessing#transforms#1"), "{error}");
        }
        for dim in [json!(null), json!(4), json!([1, 2]), json!("x")] {
            assert!(chain(&[("SqueezeDimd", json!({"dim": dim}))]).is_err());
        }
    }
}
