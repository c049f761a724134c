//! A resolved component of a bundle's configuration.

use serde_json::{Map, Value};

/// One `_target_` of `inference.json` with its arguments resolved: every reference, macro and
/// supported expression replaced by a plain JSON value.
///
/// Values without a plain form are objects with one key that begins with `$` (a configuration may not
/// contain such a key itself):
///
/// - `{"$symbol": "numpy.float32"}`: the full name of a library item, or a call that only names a
///   device (`torch.device('cpu')`);
/// - `{"$lambda": {"params": ["x"], "body": "x > 0"}}`: a function, its body in a normal form: single
///   spaces around operators and after commas, no redundant parentheses, single quotes, full module
///   names, references replaced by their values;
/// - `{"$ref": "preprocessing"}`: another component of the configuration, by its id;
/// - `{"$component": {"target": …, "args": …}}`: a nested component;
/// - `{"$unevaluated": …}`: the text of an unsupported expression, in arguments that serving never
///   reads (devices, where and how `SaveImage` writes).
///
/// Tuples become lists.
#[derive(Debug, Clone, PartialEq)]
pub struct Component {
    /// The class name without its module: `Spacingd`, whether written `Spacingd`, `SpacingD`,
    /// `SpacingDict` or `monai.transforms.Spacingd`. A class outside MONAI keeps its module:
    /// `scripts.inferer.Vista3dInferer`.
    pub target: String,
    /// The arguments, without keys that begin with an underscore (`_target_`, `_mode_`).
    pub args: Map<String, Value>,
    /// Its path in MONAI's notation for ids: `preprocessing#transforms#3`.
    pub path: String,
}

/// Returns the class name of a `_target_`; see [`Component::target`].
pub(super) fn class_name(target: &str) -> String {
    let target = target.trim();
    let name = match target.rsplit_once('.') {
        Some((module, name)) if module == "monai" || module.starts_with("monai.") => name,
        Some(_) => return target.to_owned(),
        None => target,
    };
    // MONAI gives every dictionary transform three names, and no other class ends like this.
    for ending in ["Dict", "D"] {
        if let Some(stem) = name.strip_suffix(ending).filter(|stem| !stem.is_empty()) {
            return format!("{stem}d");
        }
    }
    name.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn class_names() {
        for name in ["Spacingd", "SpacingD", "SpacingDict", "monai.transforms.spatial.SpacingD"] {
            assert_eq!(class_name(name), "Spacingd", "{name}");
        }
        assert_eq!(class_name("SlidingWindowInferer"), "SlidingWindowInferer");
        assert_eq!(class_name("scripts.transforms.Spacingd"), "scripts.transforms.Spacingd");
        assert_eq!(class_name("monailabel.x.Spacingd"), "monailabel.x.Spacingd");
    }
}
