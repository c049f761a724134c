//! Evaluates expressions.

use super::super::value::Value;
use super::ast::{BinaryOp, Clause, ComprehensionKind, Expr, UnaryOp};
use super::print::print;
use super::{Fault, Scope, arithmetic, builtins};

/// Calls that return their argument, or a copy of it.
const COPIES: [&str; 2] = ["copy.copy", "copy.deepcopy"];

/// Calls that only name something the server chooses itself; the call stays a symbol.
const NOT_EVALUATED: [&str; 1] = ["torch.device"];

/// Evaluates `expr` in `scope`.
pub(crate) fn evaluate(expr: &Expr, scope: &mut dyn Scope) -> Result<Value, Fault> {
    Evaluator { scope, locals: Vec::new(), depth: 0 }.value(expr)
}

struct Evaluator<'s> {
    scope: &'s mut dyn Scope,
    /// Variables of comprehensions, innermost last.
    locals: Vec<(String, Value)>,
    depth: usize,
}

type Evaluated<T = Value> = Result<T, Fault>;

impl Evaluator<'_> {
    fn value(&mut self, expr: &Expr) -> Evaluated {
        self.scope.spend(1)?;
        self.depth += 1;
        let value = self.any(expr);
        self.depth -= 1;
        value
    }

    fn any(&mut self, expr: &Expr) -> Evaluated {
        match expr {
            Expr::Null => Ok(Value::Null),
            Expr::Bool(b) => Ok(Value::Bool(*b)),
            Expr::Int(i) => Ok(Value::Int(*i)),
            Expr::Float(x) => Ok(Value::Float(*x)),
            Expr::Str(text) => {
                self.scope.spend(text.len() / 32)?;
                Ok(Value::Str(text.clone()))
            }
            Expr::Name(name) => self.name(name),
            Expr::Reference(reference) => self.scope.reference(reference, self.depth),
            Expr::List(items) => self.items(items).map(Value::List),
            Expr::Tuple(items) => self.items(items).map(Value::Tuple),
            Expr::Dict(entries) => self.dict(entries),
            Expr::Unary(UnaryOp::Not, operand) => Ok(Value::Bool(!self.truth(operand)?)),
            Expr::Unary(op, operand) => arithmetic::unary(*op, &self.value(operand)?),
            Expr::Binary(BinaryOp::And, left, right) => {
                let left = self.value(left)?;
                if truth(&left)? { self.value(right) } else { Ok(left) }
            }
            Expr::Binary(BinaryOp::Or, left, right) => {
                let left = self.value(left)?;
                if truth(&left)? { Ok(left) } else { self.value(right) }
            }
            Expr::Binary(op, left, right) => {
                let (left, right) = (self.value(left)?, self.value(right)?);
                arithmetic::binary(*op, left, right, self.scope)
            }
            Expr::Compare(first, links) => {
                let mut left = self.value(first)?;
                for (op, operand) in links {
                    let right = self.value(operand)?;
                    self.scope.spend(left.weight() + right.weight())?;
                    if !arithmetic::compare(*op, &left, &right)? {
                        return Ok(Value::Bool(false));
                    }
                    left = right;
                }
                Ok(Value::Bool(true))
            }
            Expr::Conditional { condition, then, otherwise } => {
                if self.truth(condition)? {
                    self.value(then)
                } else {
                    self.value(otherwise)
                }
            }
            Expr::Attribute(object, name) => self.attribute(expr, object, name),
            Expr::Index(object, index) => self.index(object, index),
            Expr::Call { function, args, keywords } => self.call(expr, function, args, keywords),
            Expr::Lambda { params, body } => {
                if !self.locals.is_empty() {
                    return Err(Fault::Here("makes a function inside a comprehension".to_owned()));
                }
                let text = print(body, params, self.depth, self.scope)?;
                Ok(Value::Lambda { params: params.clone(), body: text })
            }
            Expr::Comprehension { kind, element, clauses } => {
                self.comprehension(kind, element, clauses)
            }
            Expr::Set(_) => Err(Fault::Here("makes a set".to_owned())),
            Expr::Slice(..) | Expr::Starred(_) => {
                Err(Fault::Here("has a slice or a star where a value belongs".to_owned()))
            }
        }
    }

    fn truth(&mut self, expr: &Expr) -> Evaluated<bool> {
        truth(&self.value(expr)?)
    }

    fn local(&self, name: &str) -> Option<&Value> {
        self.locals.iter().rev().find(|(local, _)| local == name).map(|(_, value)| value)
    }

    fn name(&mut self, name: &str) -> Evaluated {
        if let Some(value) = self.local(name) {
            let value = value.clone();
            self.scope.spend(value.weight())?;
            return Ok(value);
        }
        if let Some(full) = self.scope.module(name) {
            return Ok(Value::Symbol(full));
        }
        if builtins::TYPES.contains(&name) {
            return Ok(Value::Symbol(name.to_owned()));
        }
        Err(Fault::Here(format!("uses `{name}`, which is not imported and not known here")))
    }

    fn items(&mut self, exprs: &[Expr]) -> Evaluated<Vec<Value>> {
        let mut values = Vec::with_capacity(exprs.len());
        for expr in exprs {
            if let Expr::Starred(inner) = expr {
                let inner = self.value(inner)?;
                values.extend(builtins::items(&inner, self.scope)?);
            } else {
                values.push(self.value(expr)?);
            }
        }
        Ok(values)
    }

    fn dict(&mut self, entries: &[(Option<Expr>, Expr)]) -> Evaluated {
        let mut dict = Vec::new();
        for (key, value) in entries {
            match key {
                Some(key) => {
                    let key = self.value(key)?;
                    let value = self.value(value)?;
                    self.insert(&mut dict, key, value)?;
                }
                None => match self.value(value)? {
                    Value::Dict(more) => {
                        for (key, value) in more {
                            self.insert(&mut dict, Value::Str(key), value)?;
                        }
                    }
                    other => {
                        return Err(Fault::Here(format!("unpacks a {}", other.type_name())));
                    }
                },
            }
        }
        Ok(Value::Dict(dict))
    }

    fn insert(
        &mut self,
        dict: &mut Vec<(String, Value)>,
        key: Value,
        value: Value,
    ) -> Evaluated<()> {
        let Value::Str(key) = key else {
            return Err(Fault::Here(format!("has a {} as a dictionary's key", key.type_name())));
        };
        self.scope.spend(1 + dict.len() / 8)?;
        match dict.iter_mut().find(|(known, _)| *known == key) {
            Some((_, slot)) => *slot = value,
            None => dict.push((key, value)),
        }
        Ok(())
    }

    fn attribute(&mut self, whole: &Expr, object: &Expr, name: &str) -> Evaluated {
        match self.value(object)? {
            Value::Symbol(module) if !module.contains('(') => {
                self.scope.spend(module.len() / 32)?;
                Ok(Value::Symbol(format!("{module}.{name}")))
            }
            other => {
                let whole = print(whole, &[], self.depth, self.scope)
                    .unwrap_or_else(|_| format!("….{name}"));
                Err(Fault::Here(format!(
                    "reads `{whole}`, an attribute of a {}",
                    other.type_name()
                )))
            }
        }
    }

    fn index(&mut self, object: &Expr, index: &Expr) -> Evaluated {
        let object = self.value(object)?;
        if let Expr::Slice(start, stop, step) = index {
            let mut bound = |bound: &Option<Box<Expr>>| match bound {
                None => Ok(None),
                Some(expr) => match self.value(expr)? {
                    Value::Null => Ok(None),
                    Value::Int(i) => Ok(Some(i)),
                    other => Err(Fault::Here(format!("slices with a {}", other.type_name()))),
                },
            };
            let bounds = (bound(start)?, bound(stop)?, bound(step)?);
            return slice(object, bounds);
        }
        let index = self.value(index)?;
        let missing = || Fault::Here("reads an item that does not exist".to_owned());
        match (object, index) {
            (Value::List(mut items) | Value::Tuple(mut items), Value::Int(index)) => {
                let at = position(index, items.len()).ok_or_else(missing)?;
                Ok(items.swap_remove(at))
            }
            (Value::Str(text), Value::Int(index)) => {
                let at = position(index, text.chars().count()).ok_or_else(missing)?;
                text.chars().nth(at).map(|c| Value::Str(c.to_string())).ok_or_else(missing)
            }
            (Value::Dict(entries), Value::Str(key)) => {
                let found = entries.into_iter().find(|(k, _)| *k == key);
                found.map(|(_, value)| value).ok_or_else(missing)
            }
            (object, index) => Err(Fault::Here(format!(
                "indexes a {} with a {}",
                object.type_name(),
                index.type_name()
            ))),
        }
    }

    fn call(
        &mut self,
        whole: &Expr,
        function: &Expr,
        args: &[Expr],
        keywords: &[(Option<String>, Expr)],
    ) -> Evaluated {
        let name = self.callee(function);
        let Some(name) = name else {
            let function = print(function, &[], self.depth, self.scope)?;
            return Err(Fault::Here(format!("calls `{function}`")));
        };
        if NOT_EVALUATED.contains(&name.as_str()) {
            return print(whole, &[], self.depth, self.scope).map(Value::Symbol);
        }
        if name == "dict" && args.is_empty() {
            let key = |name: &Option<String>| name.clone().map(Expr::Str);
            let entries: Vec<_> = keywords.iter().map(|(k, v)| (key(k), v.clone())).collect();
            return self.dict(&entries);
        }
        let is_copy = COPIES.contains(&name.as_str());
        if !is_copy && !builtins::FUNCTIONS.contains(&name.as_str()) {
            return Err(Fault::Here(format!("calls `{name}`, which is not evaluated here")));
        }
        if !keywords.is_empty() {
            return Err(Fault::Here(format!("calls `{name}` with keyword arguments")));
        }
        let mut args = self.items(args)?;
        match args.pop() {
            Some(only) if is_copy && args.is_empty() => Ok(only),
            _ if is_copy => {
                Err(Fault::Here(format!("calls `{name}` with other than one argument")))
            }
            last => {
                args.extend(last);
                builtins::call(&name, args, self.scope)
            }
        }
    }

    /// Returns the full name of a called function, if it has one.
    fn callee(&self, function: &Expr) -> Option<String> {
        match function {
            Expr::Name(name) if self.local(name).is_some() => None,
            Expr::Name(name) => Some(self.scope.module(name).unwrap_or_else(|| name.clone())),
            Expr::Attribute(object, name) => match &**object {
                Expr::Name(module) if self.local(module).is_none() => {
                    Some(format!("{}.{name}", self.scope.module(module)?))
                }
                Expr::Attribute(..) => Some(format!("{}.{name}", self.callee(object)?)),
                _ => None,
            },
            _ => None,
        }
    }

    fn comprehension(
        &mut self,
        kind: &ComprehensionKind,
        element: &Expr,
        clauses: &[Clause],
    ) -> Evaluated {
        match kind {
            ComprehensionKind::List | ComprehensionKind::Generator => {
                let mut made = Vec::new();
                self.each(clauses, &mut |evaluator| {
                    made.push(evaluator.value(element)?);
                    Ok(())
                })?;
                Ok(Value::List(made))
            }
            ComprehensionKind::Dict(key) => {
                let mut made = Vec::new();
                self.each(clauses, &mut |evaluator| {
                    let key = evaluator.value(key)?;
                    let value = evaluator.value(element)?;
                    evaluator.insert(&mut made, key, value)
                })?;
                Ok(Value::Dict(made))
            }
            ComprehensionKind::Set => Err(Fault::Here("makes a set".to_owned())),
        }
    }

    /// Runs `body` for each combination that the clauses produce.
    fn each(
        &mut self,
        clauses: &[Clause],
        body: &mut dyn FnMut(&mut Self) -> Evaluated<()>,
    ) -> Evaluated<()> {
        let Some((clause, inner)) = clauses.split_first() else { return body(self) };
        let items = self.value(&clause.items)?;
        for item in builtins::items(&items, self.scope)? {
            self.scope.spend(1)?;
            let outer = self.locals.len();
            self.bind(&clause.targets, item)?;
            let mut taken = true;
            for condition in &clause.conditions {
                taken = taken && self.truth(condition)?;
            }
            if taken {
                self.each(inner, body)?;
            }
            self.locals.truncate(outer);
        }
        Ok(())
    }

    fn bind(&mut self, targets: &[String], item: Value) -> Evaluated<()> {
        if let [target] = targets {
            self.locals.push((target.clone(), item));
            return Ok(());
        }
        let parts = builtins::items(&item, self.scope)?;
        if parts.len() != targets.len() {
            return Err(Fault::Here(format!(
                "takes {} items apart into {} names",
                parts.len(),
                targets.len()
            )));
        }
        self.locals.extend(targets.iter().cloned().zip(parts));
        Ok(())
    }
}

fn truth(value: &Value) -> Evaluated<bool> {
    value.truth().ok_or_else(|| {
        let name = if let Value::Symbol(name) = value { name.as_str() } else { "a value" };
        Fault::Here(format!("depends on whether `{name}` is true"))
    })
}

/// Resolves a Python index into `length` items; negative indices count from the end.
fn position(index: i64, length: usize) -> Option<usize> {
    let index = if index < 0 { index.checked_add(i64::try_from(length).ok()?)? } else { index };
    usize::try_from(index).ok().filter(|index| *index < length)
}

type Bounds = (Option<i64>, Option<i64>, Option<i64>);

fn slice(object: Value, (start, stop, step): Bounds) -> Evaluated {
    let step = step.unwrap_or(1);
    if step <= 0 {
        return Err(Fault::Here("slices with a step that is not positive".to_owned()));
    }
    let step = usize::try_from(step).unwrap_or(usize::MAX);
    let range = |length: usize| {
        let size = i64::try_from(length).unwrap_or(i64::MAX);
        let clamp = |bound: i64| {
            let bound = if bound < 0 { bound.saturating_add(size) } else { bound };
            usize::try_from(bound.clamp(0, size)).unwrap_or(0)
        };
        let (start, stop) = (start.map_or(0, clamp), stop.map_or(length, clamp));
        (start, stop.saturating_sub(start))
    };
    let cut = |items: Vec<Value>| -> Vec<Value> {
        let (start, count) = range(items.len());
        items.into_iter().skip(start).take(count).step_by(step).collect()
    };
    match object {
        Value::List(items) => Ok(Value::List(cut(items))),
        Value::Tuple(items) => Ok(Value::Tuple(cut(items))),
        Value::Str(text) => {
            let (start, count) = range(text.chars().count());
            Ok(Value::Str(text.chars().skip(start).take(count).step_by(step).collect()))
        }
        other => Err(Fault::Here(format!("slices a {}", other.type_name()))),
    }
}
