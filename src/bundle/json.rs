//! Reads a configuration file as JSON, or as YAML by its extension.
//!
//! Duplicate keys in an object are refused, because it is unclear which one counts. Size and nesting
//! are limited (nesting by `serde_json`, or by `yaml`).

use std::fs::File;
use std::io::Read;
use std::path::Path;

use serde_json::Value;

use super::problem::Problem;
use super::unique::{MAX_BYTES, Unique};
use super::yaml;

/// Reads the file at `path`; problems refer to it as `name`.
pub(super) fn read(path: &Path, name: &str) -> Result<Value, Problem> {
    let wrong = |message: String| Problem::in_file(name, message);
    let file = File::open(path).map_err(|e| wrong(format!("cannot be read: {}", e.kind())))?;
    let mut bytes = Vec::new();
    file.take(MAX_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(|e| wrong(format!("cannot be read: {}", e.kind())))?;
    if yaml::is_name(name) { yaml::bounded(&bytes, name) } else { bounded(&bytes, name) }
}

/// Parses a JSON text of limited size; problems refer to it as `name`.
pub(super) fn bounded(bytes: &[u8], name: &str) -> Result<Value, Problem> {
    let wrong = |message: String| Problem::in_file(name, message);
    if bytes.len() as u64 > MAX_BYTES {
        return Err(wrong(format!("is larger than {} MiB", MAX_BYTES >> 20)));
    }
    parse(bytes).map_err(|e| wrong(format!("is not valid JSON: {e}")))
}

/// Parses a JSON text with unique keys.
pub(super) fn parse(bytes: &[u8]) -> serde_json::Result<Value> {
    serde_json::from_slice::<Unique>(bytes).map(|unique| unique.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn same_values_as_serde_json() {
        let text = br#"{"b": [1, -2, 2.5, "s", null, true], "a": {"x": {}}}"#;
        let expected: Value = serde_json::from_slice(text).unwrap();
        assert_eq!(parse(text).unwrap(), expected);
    }

    #[test]
    fn a_key_given_twice_is_refused_by_name() {
        let error = parse(br#"{"a": {"pixdim": 1, "pixdim": 2}}"#).unwrap_err();
        assert!(error.to_string().contains("\"pixdim\" is given twice"), "{error}");
    }

    #[test]
    fn nesting_is_bounded() {
        let deep = "[".repeat(100_000);
        assert!(parse(deep.as_bytes()).is_err());
    }
}
