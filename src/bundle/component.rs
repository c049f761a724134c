//! A resolved component of a bundle's configuration.

use serde_json::{Map, Value};

/// One `_target_` of `inference.json` with its arguments resolved: every reference, macro and
/// supported expression replaced by a plain JSON value.
#[derive(Debug, Clone, PartialEq)]
pub struct Component {
    /// The class name without its module: `Spacingd`, whether written `Spacingd` or
    /// `monai.transforms.Spacingd`.
    pub target: String,
    /// The arguments. Keys that begin with an underscore (`_target_`, `_mode_`) are not in it.
    pub args: Map<String, Value>,
    /// Where it stands, as MONAI writes ids: `preprocessing#transforms#3`.
    pub path: String,
}
