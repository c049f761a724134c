//! `configs/metadata.json`: what a bundle states about itself and its network.
//!
//! Published files vary in what they provide, so nothing here is required. Missing or malformed entries
//! are left out with a warning.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;
use serde_json::{Map, Value};

/// The parts of `metadata.json` that serving uses.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Metadata {
    pub name: Option<String>,
    pub version: Option<String>,
    pub task: Option<String>,
    pub description: Option<String>,
    pub network: NetworkFormat,
}

/// The network's inputs and outputs (`network_data_format`), in the file's order.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct NetworkFormat {
    /// Inputs by name, usually one called `image`.
    pub inputs: Vec<TensorFormat>,
    /// Outputs by name, usually one called `pred`.
    pub outputs: Vec<TensorFormat>,
}

/// One input or output of the network.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct TensorFormat {
    /// The key in the configuration's dictionaries: `image`, `pred`.
    pub name: String,
    /// `type`: `image`, `object`, …
    pub kind: Option<String>,
    /// `format`: `hounsfield`, `magnitude`, `segmentation`, `labels`, …
    pub format: Option<String>,
    /// `modality`, as the bundle writes it: `CT`, `MR`, `MRI`, …
    pub modality: Option<String>,
    /// Channels, without the batch.
    pub num_channels: Option<usize>,
    /// Extents of the spatial axes, in MONAI's order (first to last axis after the channel).
    pub spatial_shape: Vec<Extent>,
    /// `dtype`: `float32`, …
    pub dtype: Option<String>,
    /// Smallest and largest value.
    pub value_range: Option<(f64, f64)>,
    /// Whether the network sees patches of an image rather than the whole.
    pub is_patch_data: Option<bool>,
    /// What each channel is; for an output, the class of each index.
    pub channel_def: BTreeMap<usize, String>,
}

/// The extent of one spatial axis.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Extent {
    /// A number of voxels.
    Fixed(usize),
    /// A condition in `n` and `p`: `8*n`, `2**p*n`; `*` is any extent.
    Formula(String),
}

impl fmt::Display for Extent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fixed(extent) => write!(f, "{extent}"),
            Self::Formula(formula) => f.write_str(formula),
        }
    }
}

/// Reads the file's content and adds missing or unknown entries to `warnings`.
pub(super) fn read(content: &Value, warnings: &mut Vec<String>) -> Metadata {
    let mut reader = Reader { warnings };
    let Some(top) = content.as_object() else {
        reader.warn("", "is not an object");
        return Metadata::default();
    };
    let network = reader.network(top);
    Metadata {
        name: reader.text(top, "", "name"),
        version: reader.text(top, "", "version"),
        task: reader.text(top, "", "task"),
        description: reader.text(top, "", "description"),
        network,
    }
}

struct Reader<'w> {
    warnings: &'w mut Vec<String>,
}

impl Reader<'_> {
    fn warn(&mut self, path: &str, message: &str) {
        let gap = if path.is_empty() { "" } else { ": " };
        self.warnings.push(format!("configs/metadata.json{gap}{path}: {message}"));
    }

    /// Returns a text. Absence is fine; another type causes a warning.
    fn text(&mut self, map: &Map<String, Value>, path: &str, key: &str) -> Option<String> {
        match map.get(key)? {
            Value::String(text) => Some(text.trim().to_owned()),
            Value::Null => None,
            _ => {
                self.warn(&below(path, key), "is not text and is left out");
                None
            }
        }
    }

    fn network(&mut self, top: &Map<String, Value>) -> NetworkFormat {
        let Some(format) = top.get("network_data_format").and_then(Value::as_object) else {
            self.warn("network_data_format", "is missing: names of classes are not known");
            return NetworkFormat::default();
        };
        NetworkFormat {
            inputs: self.tensors(format, "inputs"),
            outputs: self.tensors(format, "outputs"),
        }
    }

    fn tensors(&mut self, format: &Map<String, Value>, side: &str) -> Vec<TensorFormat> {
        let path = below("network_data_format", side);
        let Some(tensors) = format.get(side).and_then(Value::as_object) else {
            self.warn(&path, "is missing");
            return Vec::new();
        };
        let mut read = Vec::new();
        for (name, value) in tensors {
            let path = below(&path, name);
            match value.as_object() {
                Some(map) => read.push(self.tensor(name, map, &path)),
                None => self.warn(&path, "is not an object and is left out"),
            }
        }
        read
    }

    fn tensor(&mut self, name: &str, map: &Map<String, Value>, path: &str) -> TensorFormat {
        TensorFormat {
            name: name.to_owned(),
            kind: self.text(map, path, "type"),
            format: self.text(map, path, "format"),
            modality: self.text(map, path, "modality"),
            num_channels: self.count(map, path, "num_channels"),
            spatial_shape: self.shape(map, path),
            dtype: self.text(map, path, "dtype"),
            value_range: self.range(map, path),
            is_patch_data: map.get("is_patch_data").and_then(Value::as_bool),
            channel_def: self.channels(map, path),
        }
    }

    fn count(&mut self, map: &Map<String, Value>, path: &str, key: &str) -> Option<usize> {
        let count = map.get(key).and_then(Value::as_u64).and_then(|n| usize::try_from(n).ok());
        if count.is_none() {
            self.warn(&below(path, key), "is missing or not a number");
        }
        count
    }

    fn shape(&mut self, map: &Map<String, Value>, path: &str) -> Vec<Extent> {
        let extent = |value: &Value| match value {
            Value::String(formula) => Some(Extent::Formula(formula.trim().to_owned())),
            other => other.as_u64().and_then(|n| usize::try_from(n).ok()).map(Extent::Fixed),
        };
        let shape = map.get("spatial_shape").and_then(Value::as_array);
        let shape = shape.and_then(|axes| axes.iter().map(extent).collect::<Option<Vec<_>>>());
        shape.unwrap_or_else(|| {
            self.warn(&below(path, "spatial_shape"), "is missing or not a list of extents");
            Vec::new()
        })
    }

    fn range(&mut self, map: &Map<String, Value>, path: &str) -> Option<(f64, f64)> {
        match map.get("value_range")?.as_array()?.as_slice() {
            [] => None,
            [low, high] if low.is_number() && high.is_number() => {
                Some((low.as_f64()?, high.as_f64()?))
            }
            _ => {
                self.warn(&below(path, "value_range"), "is not two numbers and is left out");
                None
            }
        }
    }

    fn channels(&mut self, map: &Map<String, Value>, path: &str) -> BTreeMap<usize, String> {
        let path = below(path, "channel_def");
        let Some(channels) = map.get("channel_def").and_then(Value::as_object) else {
            self.warn(&path, "is missing: names of channels are not known");
            return BTreeMap::new();
        };
        let mut read = BTreeMap::new();
        for (key, value) in channels {
            match (key.trim().parse::<usize>(), value.as_str()) {
                (Ok(index), Some(name)) => {
                    read.insert(index, name.trim().to_owned());
                }
                _ => self.warn(&below(&path, key), "is not an index with a name and is left out"),
            }
        }
        read
    }
}

fn below(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}#{key}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_full_file_gives_no_warning() {
        let mut warnings = Vec::new();
        let image = json!({
            "type": "image", "format": "magnitude", "modality": "MR", "num_channels": 2,
            "spatial_shape": ["8*n", 96, "*"], "dtype": "float32", "value_range": [],
            "is_patch_data": true, "channel_def": {"0": "T1 ", "10": "T2"},
        });
        let content = json!({
            "name": "n", "version": "1.0",
            "network_data_format": {"inputs": {"image": image}, "outputs": {}},
        });
        let metadata = read(&content, &mut warnings);
        assert_eq!(warnings, Vec::<String>::new());
        let input = &metadata.network.inputs[0];
        assert_eq!(input.spatial_shape[..2], [Extent::Formula("8*n".into()), Extent::Fixed(96)]);
        assert_eq!(input.channel_def, BTreeMap::from([(0, "T1".into()), (10, "T2".into())]));
        assert_eq!(input.value_range, None);
    }

    #[test]
    fn what_is_missing_or_wrong_is_warned_of_and_left_out() {
        let mut warnings = Vec::new();
        let pred = json!({"num_channels": "2", "channel_def": {"a": "x", "1": "y", "2": 3}});
        let content = json!({
            "name": 3, "network_data_format": {"outputs": {"pred": pred, "other": 1}},
        });
        let metadata = read(&content, &mut warnings);
        assert_eq!(metadata.name, None);
        assert_eq!(metadata.network.outputs[0].channel_def, BTreeMap::from([(1, "y".into())]));
        for path in [
            "name",
            "inputs",
            "pred#num_channels",
            "pred#spatial_shape",
            "pred#channel_def#a",
            "pred#channel_def#2",
            "outputs#other",
        ] {
            assert!(
                warnings.iter().any(|w| w.contains(&format!("{path}:"))),
                "{path}: {warnings:?}"
            );
        }
        assert_eq!(read(&json!([]), &mut warnings), Metadata::default());
    }
}
