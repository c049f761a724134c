//! Resolved values of a configuration.

use super::id::NodeId;

/// A resolved value: Python's plain types, and placeholders for things that are not evaluated.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value {
    /// `None`.
    Null,
    /// `True`, `False`.
    Bool(bool),
    /// `int`, of 64 bits.
    Int(i64),
    /// `float`, finite.
    Float(f64),
    /// `str`.
    Str(String),
    /// `list`.
    List(Vec<Value>),
    /// `tuple`.
    Tuple(Vec<Value>),
    /// `dict` with string keys, in order.
    Dict(Vec<(String, Value)>),
    /// A library name in full: `numpy.float32`.
    Symbol(String),
    /// A function written in the configuration, its body in a normal form.
    Lambda { params: Vec<String>, body: String },
    /// A `_target_` item, by its id; its arguments are not resolved here.
    Component(NodeId),
}

impl Value {
    /// Returns Python's name of the type, for messages.
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::Null => "None",
            Self::Bool(_) => "bool",
            Self::Int(_) => "int",
            Self::Float(_) => "float",
            Self::Str(_) => "str",
            Self::List(_) => "list",
            Self::Tuple(_) => "tuple",
            Self::Dict(_) => "dict",
            Self::Symbol(_) => "library object",
            Self::Lambda { .. } => "function",
            Self::Component(_) => "component",
        }
    }

    /// Returns Python's truth value; `None` for placeholders.
    pub fn truth(&self) -> Option<bool> {
        Some(match self {
            Self::Null => false,
            Self::Bool(b) => *b,
            Self::Int(i) => *i != 0,
            Self::Float(x) => *x != 0.0,
            Self::Str(s) => !s.is_empty(),
            Self::List(items) | Self::Tuple(items) => !items.is_empty(),
            Self::Dict(entries) => !entries.is_empty(),
            Self::Symbol(_) => return None,
            Self::Lambda { .. } | Self::Component(_) => true,
        })
    }

    /// Returns roughly how much memory a copy takes, in units of a small value.
    pub fn weight(&self) -> usize {
        match self {
            Self::Str(s) | Self::Symbol(s) => 1 + s.len() / 32,
            Self::List(items) | Self::Tuple(items) => {
                1 + items.iter().map(Self::weight).sum::<usize>()
            }
            Self::Dict(entries) => {
                1 + entries.iter().map(|(k, v)| 1 + k.len() / 32 + v.weight()).sum::<usize>()
            }
            Self::Lambda { body, .. } => 1 + body.len() / 32,
            _ => 1,
        }
    }
}
