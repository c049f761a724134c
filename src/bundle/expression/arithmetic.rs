//! Python's operators on resolved values.
//!
//! Integers have 64 bits. Results that do not fit, or are not finite, are refused.

use std::cmp::Ordering;

use super::super::value::Value;
use super::ast::{BinaryOp, CompareOp, UnaryOp};
use super::{Fault, Scope};

/// Length limit for a string or list created by an operator.
const MAX_LENGTH: usize = 100_000;

/// A number; booleans count as integers, as in Python.
#[derive(Clone, Copy)]
pub(super) enum Number {
    Int(i64),
    Float(f64),
}

impl Number {
    pub fn of(value: &Value) -> Option<Self> {
        match value {
            Value::Bool(b) => Some(Self::Int(i64::from(*b))),
            Value::Int(i) => Some(Self::Int(*i)),
            Value::Float(x) => Some(Self::Float(*x)),
            _ => None,
        }
    }

    pub fn as_f64(self) -> f64 {
        match self {
            Self::Int(i) => i as f64,
            Self::Float(x) => x,
        }
    }

    fn compare(self, other: Self) -> Option<Ordering> {
        match (self, other) {
            (Self::Int(a), Self::Int(b)) => Some(a.cmp(&b)),
            (a, b) => a.as_f64().partial_cmp(&b.as_f64()),
        }
    }
}

/// Returns a finite float as a value.
pub(super) fn finite(x: f64) -> Result<Value, Fault> {
    if x.is_finite() {
        Ok(Value::Float(x))
    } else {
        Err(Fault::Here("gives a number that is not finite".to_owned()))
    }
}

/// Evaluates `op operand`. `not` works on truth values and is handled elsewhere.
pub(super) fn unary(op: UnaryOp, operand: &Value) -> Result<Value, Fault> {
    let integer = |i: Option<i64>| i.map(Value::Int).ok_or_else(too_large);
    match (op, Number::of(operand)) {
        (UnaryOp::Negative, Some(Number::Int(i))) => integer(i.checked_neg()),
        (UnaryOp::Negative, Some(Number::Float(x))) => Ok(Value::Float(-x)),
        (UnaryOp::Positive, Some(Number::Int(i))) => Ok(Value::Int(i)),
        (UnaryOp::Positive, Some(Number::Float(x))) => Ok(Value::Float(x)),
        (UnaryOp::Invert, Some(Number::Int(i))) => Ok(Value::Int(!i)),
        _ => Err(Fault::Here(format!("applies an operator to a {}", operand.type_name()))),
    }
}

/// Evaluates `left op right`. `and` and `or` are handled elsewhere.
pub(super) fn binary(
    op: BinaryOp,
    left: Value,
    right: Value,
    scope: &mut dyn Scope,
) -> Result<Value, Fault> {
    if let (Value::Bool(a), Value::Bool(b)) = (&left, &right) {
        match op {
            BinaryOp::BitOr => return Ok(Value::Bool(a | b)),
            BinaryOp::BitXor => return Ok(Value::Bool(a ^ b)),
            BinaryOp::BitAnd => return Ok(Value::Bool(a & b)),
            _ => {}
        }
    }
    if let (Some(a), Some(b)) = (Number::of(&left), Number::of(&right)) {
        return numeric(op, a, b);
    }
    match (op, left, right) {
        (BinaryOp::Add, Value::Str(a), Value::Str(b)) => {
            joined_length(a.len(), b.len(), scope)?;
            Ok(Value::Str(a + &b))
        }
        (BinaryOp::Add, Value::List(a), Value::List(b)) => concatenated(a, b, scope, Value::List),
        (BinaryOp::Add, Value::Tuple(a), Value::Tuple(b)) => {
            concatenated(a, b, scope, Value::Tuple)
        }
        (BinaryOp::Multiply, sequence, Value::Int(n)) => repeated(sequence, n, scope),
        (BinaryOp::Multiply, Value::Int(n), sequence) => repeated(sequence, n, scope),
        (op, left, right) => Err(Fault::Here(format!(
            "applies `{}` to a {} and a {}",
            op.symbol(),
            left.type_name(),
            right.type_name()
        ))),
    }
}

fn concatenated(
    mut a: Vec<Value>,
    b: Vec<Value>,
    scope: &mut dyn Scope,
    make: fn(Vec<Value>) -> Value,
) -> Result<Value, Fault> {
    joined_length(a.len(), b.len(), scope)?;
    a.extend(b);
    Ok(make(a))
}

fn joined_length(a: usize, b: usize, scope: &mut dyn Scope) -> Result<(), Fault> {
    scope.spend(a.saturating_add(b) / 32 + 1)?;
    if a.saturating_add(b) > MAX_LENGTH {
        return Err(Fault::Here(format!("makes something longer than {MAX_LENGTH}")));
    }
    Ok(())
}

fn repeated(sequence: Value, times: i64, scope: &mut dyn Scope) -> Result<Value, Fault> {
    let times = usize::try_from(times).unwrap_or(0);
    scope.spend(sequence.weight().saturating_mul(times))?;
    let length = |length: usize| match length.checked_mul(times) {
        Some(total) if total <= MAX_LENGTH => Ok(total),
        _ => Err(Fault::Here(format!("makes something longer than {MAX_LENGTH}"))),
    };
    let cycle = |items: Vec<Value>| -> Result<Vec<Value>, Fault> {
        let total = length(items.len())?;
        Ok(items.iter().cycle().take(total).cloned().collect())
    };
    match sequence {
        Value::Str(text) => {
            length(text.len())?;
            Ok(Value::Str(text.repeat(times)))
        }
        Value::List(items) => cycle(items).map(Value::List),
        Value::Tuple(items) => cycle(items).map(Value::Tuple),
        other => Err(Fault::Here(format!("applies `*` to a {}", other.type_name()))),
    }
}

fn too_large() -> Fault {
    Fault::Here("gives an integer of more than 64 bits".to_owned())
}

fn numeric(op: BinaryOp, a: Number, b: Number) -> Result<Value, Fault> {
    if let (Number::Int(a), Number::Int(b)) = (a, b)
        && let Some(result) = integral(op, a, b)
    {
        return result;
    }
    let (a, b) = (a.as_f64(), b.as_f64());
    let nonzero = |b: f64| {
        if b == 0.0 { Err(Fault::Here("divides by zero".to_owned())) } else { Ok(b) }
    };
    match op {
        BinaryOp::Add => finite(a + b),
        BinaryOp::Subtract => finite(a - b),
        BinaryOp::Multiply => finite(a * b),
        BinaryOp::Divide => finite(a / nonzero(b)?),
        BinaryOp::FloorDivide => finite((a / nonzero(b)?).floor()),
        BinaryOp::Modulo => {
            let b = nonzero(b)?;
            let remainder = a % b;
            finite(if remainder != 0.0 && (remainder < 0.0) != (b < 0.0) {
                remainder + b
            } else {
                remainder
            })
        }
        BinaryOp::Power => finite(a.powf(b)),
        _ => Err(Fault::Here(format!("applies `{}` to a float", op.symbol()))),
    }
}

/// Computes what Python computes exactly on integers; `None` if the result is a float.
fn integral(op: BinaryOp, a: i64, b: i64) -> Option<Result<Value, Fault>> {
    let exact = match op {
        BinaryOp::Add => a.checked_add(b),
        BinaryOp::Subtract => a.checked_sub(b),
        BinaryOp::Multiply => a.checked_mul(b),
        BinaryOp::FloorDivide | BinaryOp::Modulo if b == 0 => return None,
        BinaryOp::FloorDivide => floor_divide(a, b),
        BinaryOp::Modulo => floor_divide(a, b)
            .and_then(|quotient| quotient.checked_mul(b))
            .and_then(|product| a.checked_sub(product)),
        BinaryOp::Power if b >= 0 => u32::try_from(b).ok().and_then(|b| a.checked_pow(b)),
        BinaryOp::BitOr => Some(a | b),
        BinaryOp::BitXor => Some(a ^ b),
        BinaryOp::BitAnd => Some(a & b),
        BinaryOp::ShiftLeft => {
            let shift = u32::try_from(b).ok().filter(|shift| *shift < 63);
            shift.and_then(|shift| a.checked_mul(1 << shift))
        }
        BinaryOp::ShiftRight => u32::try_from(b).ok().map(|shift| a >> shift.min(63)),
        _ => return None,
    };
    Some(exact.map(Value::Int).ok_or_else(too_large))
}

fn floor_divide(a: i64, b: i64) -> Option<i64> {
    let quotient = a.checked_div(b)?;
    if a % b != 0 && (a < 0) != (b < 0) { quotient.checked_sub(1) } else { Some(quotient) }
}

/// Evaluates the comparison `left op right`.
pub(super) fn compare(op: CompareOp, left: &Value, right: &Value) -> Result<bool, Fault> {
    match op {
        CompareOp::Equal => equal(left, right),
        CompareOp::NotEqual => equal(left, right).map(|equal| !equal),
        CompareOp::In => contains(right, left),
        CompareOp::NotIn => contains(right, left).map(|found| !found),
        CompareOp::Is | CompareOp::IsNot => match (left, right) {
            (Value::Null | Value::Bool(_), other) | (other, Value::Null | Value::Bool(_)) => {
                let same = matches!((left, right), (Value::Null, Value::Null))
                    || matches!((left, right), (Value::Bool(a), Value::Bool(b)) if a == b);
                comparable(other)?;
                Ok(same == (op == CompareOp::Is))
            }
            _ => Err(Fault::Here("compares identities of other things than None".to_owned())),
        },
        _ => {
            let order = order(left, right)?;
            Ok(match op {
                CompareOp::Less => order == Ordering::Less,
                CompareOp::LessEqual => order != Ordering::Greater,
                CompareOp::Greater => order == Ordering::Greater,
                _ => order != Ordering::Less,
            })
        }
    }
}

/// Orders two numbers or strings.
pub(super) fn order(left: &Value, right: &Value) -> Result<Ordering, Fault> {
    let order = match (left, right) {
        (Value::Str(a), Value::Str(b)) => Some(a.cmp(b)),
        _ => match (Number::of(left), Number::of(right)) {
            (Some(a), Some(b)) => a.compare(b),
            _ => None,
        },
    };
    order.ok_or_else(|| {
        Fault::Here(format!("orders a {} and a {}", left.type_name(), right.type_name()))
    })
}

fn comparable(value: &Value) -> Result<(), Fault> {
    match value {
        Value::Symbol(name) => Err(Fault::Here(format!("compares `{name}`"))),
        Value::Lambda { .. } | Value::Component(_) => {
            Err(Fault::Here(format!("compares a {}", value.type_name())))
        }
        _ => Ok(()),
    }
}

fn equal(left: &Value, right: &Value) -> Result<bool, Fault> {
    if let (Some(a), Some(b)) = (Number::of(left), Number::of(right)) {
        return Ok(a.compare(b) == Some(Ordering::Equal));
    }
    let all = |a: &[Value], b: &[Value]| -> Result<bool, Fault> {
        for (a, b) in a.iter().zip(b) {
            if !equal(a, b)? {
                return Ok(false);
            }
        }
        Ok(a.len() == b.len())
    };
    match (left, right) {
        (Value::Str(a), Value::Str(b)) => Ok(a == b),
        (Value::List(a), Value::List(b)) | (Value::Tuple(a), Value::Tuple(b)) => all(a, b),
        (Value::Null, Value::Null) => Ok(true),
        (Value::Dict(_), Value::Dict(_)) => Err(Fault::Here("compares dictionaries".to_owned())),
        _ => {
            comparable(left)?;
            comparable(right)?;
            Ok(false)
        }
    }
}

fn contains(container: &Value, wanted: &Value) -> Result<bool, Fault> {
    match (container, wanted) {
        (Value::List(items) | Value::Tuple(items), _) => {
            for item in items {
                if equal(item, wanted)? {
                    return Ok(true);
                }
            }
            Ok(false)
        }
        (Value::Str(text), Value::Str(part)) => Ok(text.contains(part.as_str())),
        (Value::Dict(entries), Value::Str(key)) => Ok(entries.iter().any(|(k, _)| k == key)),
        _ => Err(Fault::Here(format!(
            "looks for a {} in a {}",
            wanted.type_name(),
            container.type_name()
        ))),
    }
}
