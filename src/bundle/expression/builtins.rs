//! The supported calls: Python's built-in functions without side effects.

use super::super::value::Value;
use super::arithmetic::{self, Number, finite};
use super::ast::BinaryOp;
use super::{Fault, Scope};

/// Length limit for a range.
const MAX_RANGE: usize = 100_000;

/// Types that are also values, as in `dtype: "$float"`.
pub(super) const TYPES: [&str; 4] = ["bool", "float", "int", "str"];

/// The functions supported by [`call`].
pub(super) const FUNCTIONS: [&str; 14] = [
    "abs", "bool", "dict", "float", "int", "len", "list", "max", "min", "range", "sorted", "str",
    "sum", "tuple",
];

/// Evaluates `name(*args)`; `name` is one of [`FUNCTIONS`] except `dict`.
pub(super) fn call(name: &str, args: Vec<Value>, scope: &mut dyn Scope) -> Result<Value, Fault> {
    match (name, args.as_slice()) {
        ("abs", [value]) => match Number::of(value) {
            Some(Number::Int(i)) => i.checked_abs().map(Value::Int).ok_or_else(|| wrong(name)),
            Some(Number::Float(x)) => Ok(Value::Float(x.abs())),
            None => Err(wrong(name)),
        },
        ("bool", [value]) => value.truth().map(Value::Bool).ok_or_else(|| wrong(name)),
        ("float", [value]) => to_float(value),
        ("int", [value]) => to_int(value),
        ("str", [value]) => to_str(value),
        ("len", [Value::Str(text)]) => Ok(length(text.chars().count())),
        ("len", [Value::List(items) | Value::Tuple(items)]) => Ok(length(items.len())),
        ("len", [Value::Dict(entries)]) => Ok(length(entries.len())),
        ("list", []) => Ok(Value::List(Vec::new())),
        ("tuple", []) => Ok(Value::Tuple(Vec::new())),
        ("list", [value]) => items(value, scope).map(Value::List),
        ("tuple", [value]) => items(value, scope).map(Value::Tuple),
        ("range", [Value::Int(stop)]) => range(0, *stop, 1, scope),
        ("range", [Value::Int(start), Value::Int(stop)]) => range(*start, *stop, 1, scope),
        ("range", [Value::Int(start), Value::Int(stop), Value::Int(step)]) => {
            range(*start, *stop, *step, scope)
        }
        ("min" | "max", [value]) => extreme(name, items(value, scope)?),
        ("min" | "max", [_, _, ..]) => extreme(name, args),
        ("sum", [value]) => sum(items(value, scope)?, Value::Int(0), scope),
        ("sum", [value, start]) => sum(items(value, scope)?, start.clone(), scope),
        ("sorted", [value]) => sorted(items(value, scope)?),
        _ => Err(wrong(name)),
    }
}

fn wrong(name: &str) -> Fault {
    Fault::Here(format!("calls `{name}` with arguments it does not take here"))
}

fn length(length: usize) -> Value {
    Value::Int(i64::try_from(length).unwrap_or(i64::MAX))
}

/// Returns the items that iterating over a value yields.
pub(super) fn items(value: &Value, scope: &mut dyn Scope) -> Result<Vec<Value>, Fault> {
    scope.spend(value.weight())?;
    match value {
        Value::List(items) | Value::Tuple(items) => Ok(items.clone()),
        Value::Dict(entries) => Ok(entries.iter().map(|(k, _)| Value::Str(k.clone())).collect()),
        Value::Str(text) => {
            scope.spend(text.len())?;
            Ok(text.chars().map(|c| Value::Str(c.to_string())).collect())
        }
        other => Err(Fault::Here(format!("iterates over a {}", other.type_name()))),
    }
}

fn range(start: i64, stop: i64, step: i64, scope: &mut dyn Scope) -> Result<Value, Fault> {
    if step == 0 {
        return Err(wrong("range"));
    }
    let (start, stop, wide) = (i128::from(start), i128::from(stop), i128::from(step));
    let span = if step > 0 { stop - start } else { start - stop };
    let count = if span <= 0 { 0 } else { (span - 1) / wide.abs() + 1 };
    let count = usize::try_from(count).ok().filter(|count| *count <= MAX_RANGE);
    let count = count
        .ok_or_else(|| Fault::Here(format!("makes a range of more than {MAX_RANGE} numbers")))?;
    scope.spend(count)?;
    let numbers = (0..count as i128).map(|index| start + index * wide);
    // Every number lies between two 64-bit numbers.
    Ok(Value::List(numbers.map(|n| Value::Int(n as i64)).collect()))
}

fn to_float(value: &Value) -> Result<Value, Fault> {
    match (Number::of(value), value) {
        (Some(number), _) => Ok(Value::Float(number.as_f64())),
        (None, Value::Str(text)) => finite(text.trim().parse().map_err(|_| wrong("float"))?),
        _ => Err(wrong("float")),
    }
}

fn to_int(value: &Value) -> Result<Value, Fault> {
    match (Number::of(value), value) {
        (Some(Number::Int(i)), _) => Ok(Value::Int(i)),
        (Some(Number::Float(x)), _) if x.abs() < 9.0e18 => Ok(Value::Int(x as i64)),
        (None, Value::Str(text)) => text.trim().parse().map(Value::Int).map_err(|_| wrong("int")),
        _ => Err(wrong("int")),
    }
}

fn to_str(value: &Value) -> Result<Value, Fault> {
    let text = match value {
        Value::Str(text) => text.clone(),
        Value::Int(i) => i.to_string(),
        Value::Bool(true) => "True".to_owned(),
        Value::Bool(false) => "False".to_owned(),
        Value::Null => "None".to_owned(),
        // In this range, Python and Rust format a float alike.
        Value::Float(x) if *x == 0.0 || (1e-4..1e16).contains(&x.abs()) => format!("{x:?}"),
        _ => return Err(wrong("str")),
    };
    Ok(Value::Str(text))
}

fn extreme(name: &str, values: Vec<Value>) -> Result<Value, Fault> {
    let mut values = values.into_iter();
    let mut best = values.next().ok_or_else(|| wrong(name))?;
    for value in values {
        let order = arithmetic::order(&value, &best)?;
        if if name == "min" { order.is_lt() } else { order.is_gt() } {
            best = value;
        }
    }
    Ok(best)
}

fn sum(values: Vec<Value>, start: Value, scope: &mut dyn Scope) -> Result<Value, Fault> {
    if matches!(start, Value::Str(_)) {
        return Err(wrong("sum"));
    }
    let mut total = start;
    for value in values {
        scope.spend(1)?;
        total = arithmetic::binary(BinaryOp::Add, total, value, scope)?;
    }
    Ok(total)
}

fn sorted(mut values: Vec<Value>) -> Result<Value, Fault> {
    // All of one kind, so that the order below is total.
    let all_text = values.iter().all(|value| matches!(value, Value::Str(_)));
    if !all_text && !values.iter().all(|value| Number::of(value).is_some()) {
        return Err(wrong("sorted"));
    }
    values.sort_by(|a, b| arithmetic::order(a, b).unwrap_or(std::cmp::Ordering::Equal));
    Ok(Value::List(values))
}
