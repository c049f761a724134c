//! Typed access to a component's arguments. Unread arguments are an error, so no argument of a bundle
//! is silently ignored.

use std::collections::BTreeSet;

use serde_json::Value;

use super::Component;
use crate::error::{Error, ErrorKind, Result};

/// The arguments of one component, each to be read once.
pub struct Args<'a> {
    component: &'a Component,
    read: BTreeSet<&'a str>,
}

impl<'a> Args<'a> {
    /// Wraps the arguments of `component`, none of them read.
    pub fn new(component: &'a Component) -> Self {
        Self { component, read: BTreeSet::new() }
    }

    /// Returns the path of the component in its file.
    pub fn path(&self) -> &str {
        &self.component.path
    }

    /// Marks arguments as read whose value does not affect serving.
    pub fn ignore(&mut self, names: &[&str]) {
        for name in names {
            self.raw(name);
        }
    }

    /// Returns the raw value; `None` if absent or null.
    pub fn raw(&mut self, name: &str) -> Option<&'a Value> {
        let (key, value) = self.component.args.get_key_value(name)?;
        self.read.insert(key);
        Some(value).filter(|v| !v.is_null())
    }

    /// Returns a number.
    pub fn number(&mut self, name: &str) -> Result<Option<f64>> {
        self.typed(name, "a number", Value::as_f64)
    }

    /// Returns a number, which is required.
    pub fn required_number(&mut self, name: &str) -> Result<f64> {
        self.number(name)?.ok_or_else(|| self.missing(name))
    }

    /// Returns a number whose default is not null: `None` only for an explicit null.
    pub fn nullable_number(&mut self, name: &str, default: f64) -> Result<Option<f64>> {
        if self.component.args.contains_key(name) { self.number(name) } else { Ok(Some(default)) }
    }

    /// Returns the truth value by Python's rules: bundles also write `"True"` and 1, and any non-empty
    /// string is true.
    pub fn truth(&mut self, name: &str, default: bool) -> Result<bool> {
        let truth = self.typed(name, "true or false", |v| match v {
            Value::Bool(b) => Some(*b),
            Value::Number(n) => n.as_f64().map(|n| n != 0.0),
            Value::String(s) => Some(!s.is_empty()),
            _ => None,
        })?;
        Ok(truth.unwrap_or(default && !self.component.args.contains_key(name)))
    }

    /// Returns a boolean, or the default.
    pub fn boolean(&mut self, name: &str, default: bool) -> Result<bool> {
        Ok(self.typed(name, "true or false", Value::as_bool)?.unwrap_or(default))
    }

    /// Returns a string. A list of equal strings (one for each key) counts as that string.
    pub fn string(&mut self, name: &str) -> Result<Option<&'a str>> {
        self.typed(name, "a string", |v| only(v).as_str())
    }

    /// Returns three numbers, one for each axis. As in MONAI, a single number stands for all axes, and
    /// a shorter list is extended with its last element.
    pub fn per_axis(&mut self, name: &str) -> Result<Option<[f64; 3]>> {
        self.typed(name, "a number or up to three numbers", |v| {
            let given: Vec<f64> = match v {
                Value::Array(list) => list.iter().map(Value::as_f64).collect::<Option<_>>()?,
                other => vec![other.as_f64()?],
            };
            let last = *given.last()?;
            (given.len() <= 3)
                .then(|| std::array::from_fn(|i| given.get(i).copied().unwrap_or(last)))
        })
    }

    /// Returns whole numbers, one for each axis: a single number stands for all axes, a list has three.
    /// Null in the list becomes -1, which MONAI takes as the image's own size.
    pub fn whole_per_axis(&mut self, name: &str) -> Result<Option<[i64; 3]>> {
        self.typed(name, "a whole number or three of them", |v| match v {
            Value::Array(list) => {
                let axis = |v: &Value| if v.is_null() { Some(-1) } else { whole(v) };
                list.iter().map(axis).collect::<Option<Vec<i64>>>()?.try_into().ok()
            }
            other => whole(other).map(|n| [n; 3]),
        })
    }

    /// Returns a whole number or a list of them.
    pub fn whole_numbers(&mut self, name: &str) -> Result<Option<Vec<i64>>> {
        self.typed(name, "a whole number or a list of them", |v| match v {
            Value::Array(list) => list.iter().map(whole).collect(),
            other => whole(other).map(|n| vec![n]),
        })
    }

    /// Accepts the argument only if it names a floating point type: images are always f32.
    pub fn float_dtype(&mut self, name: &str) -> Result<()> {
        let Some(value) = self.raw(name) else { return Ok(()) };
        let text = value
            .as_str()
            .or_else(|| value.get("$symbol").and_then(Value::as_str))
            .unwrap_or_default();
        if text.contains("float") {
            return Ok(());
        }
        Err(self.invalid(name, "a floating point type"))
    }

    /// Creates an error about one argument that says what is expected.
    pub fn invalid(&self, name: &str, expected: &str) -> Error {
        let path = format!("{}#{name}", self.component.path);
        let given = self.component.args.get(name).map(Value::to_string).unwrap_or_default();
        Error::new(
            ErrorKind::InvalidModel,
            format!("{path}: {} takes {expected} here, not {given}", self.component.target),
        )
        .with("path", path)
    }

    /// Checks that all arguments were read.
    pub fn finish(self) -> Result<()> {
        match self.component.args.keys().find(|k| !self.read.contains(k.as_str())) {
            None => Ok(()),
            Some(name) => {
                let path = format!("{}#{name}", self.component.path);
                Err(Error::new(
                    ErrorKind::InvalidModel,
                    format!(
                        "{path}: argument {name} of {} is not supported",
                        self.component.target
                    ),
                )
                .with("path", path))
            }
        }
    }

    fn missing(&self, name: &str) -> Error {
        let path = &self.component.path;
        Error::new(
            ErrorKind::InvalidModel,
            format!("{path}: {} needs the argument {name}", self.component.target),
        )
        .with("path", path.as_str())
    }

    fn typed<T>(
        &mut self,
        name: &str,
        expected: &str,
        read: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Result<Option<T>> {
        let Some(value) = self.raw(name) else { return Ok(None) };
        read(value).map(Some).ok_or_else(|| self.invalid(name, expected))
    }
}

/// Returns a whole number, even if written with a decimal point. Its size is limited so that sums of a
/// few cannot overflow.
fn whole(value: &Value) -> Option<i64> {
    let number = value.as_f64()?;
    (number.fract() == 0.0 && number.abs() <= f64::from(i32::MAX)).then_some(number as i64)
}

/// Returns the common element of a list whose elements are all equal, else the value itself.
fn only(value: &Value) -> &Value {
    match value.as_array().map(Vec::as_slice) {
        Some([first, rest @ ..]) if rest.iter().all(|v| v == first) => first,
        _ => value,
    }
}
