//! Reading a configuration file as JSON, or as YAML where its name says so.
//!
//! A key given twice in one object is refused: which of the two would count is not something to guess.
//! Size and nesting are bounded (the latter by `serde_json`, or by `yaml`).

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use super::problem::Problem;
use super::yaml;

/// The largest configuration file read. Published ones stay below 20 kB.
pub(super) const MAX_BYTES: u64 = 4 << 20;

/// Reads the file at `path`; `name` is what to call it in a problem.
pub(super) fn read(path: &Path, name: &str) -> Result<Value, Problem> {
    let wrong = |message: String| Problem::in_file(name, message);
    let file = File::open(path).map_err(|e| wrong(format!("cannot be read: {}", e.kind())))?;
    let mut bytes = Vec::new();
    file.take(MAX_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(|e| wrong(format!("cannot be read: {}", e.kind())))?;
    if yaml::is_name(name) { yaml::bounded(&bytes, name) } else { bounded(&bytes, name) }
}

/// Parses one JSON text of bounded size; `name` is what to call it in a problem.
pub(super) fn bounded(bytes: &[u8], name: &str) -> Result<Value, Problem> {
    let wrong = |message: String| Problem::in_file(name, message);
    if bytes.len() as u64 > MAX_BYTES {
        return Err(wrong(format!("is larger than {} MiB", MAX_BYTES >> 20)));
    }
    parse(bytes).map_err(|e| wrong(format!("is not valid JSON: {e}")))
}

/// Parses one JSON text with unique keys.
pub(super) fn parse(bytes: &[u8]) -> serde_json::Result<Value> {
    serde_json::from_slice::<Unique>(bytes).map(|unique| unique.0)
}

/// A JSON value in whose objects no key comes twice.
pub(super) struct Unique(pub(super) Value);

impl<'de> Deserialize<'de> for Unique {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(UniqueVisitor).map(Unique)
    }
}

struct UniqueVisitor;

impl<'de> Visitor<'de> for UniqueVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("number not finite"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(Unique(item)) = items.next_element()? {
            list.push(item);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(key) = entries.next_key::<String>()? {
            let Unique(value) = entries.next_value()?;
            if map.contains_key(&key) {
                return Err(A::Error::custom(format!("key {key:?} is given twice")));
            }
            map.insert(key, value);
        }
        Ok(Value::Object(map))
    }
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
