//! Prints an expression in a normal form.
//!
//! A `lambda` is passed on in this form, so that it can be recognised: one space around operators and
//! after commas, no redundant parentheses, single quotes, references replaced by their values, and full
//! module names (`np.where` is `numpy.where`).

use super::super::value::Value;
use super::ast::{Clause, ComprehensionKind, Expr, UnaryOp, precedence as level};
use super::{Fault, Scope};

/// Prints `expr`. References and modules are looked up in `scope`; `params` are not modules. `depth` is
/// the nesting depth of the expression.
pub(super) fn print(
    expr: &Expr,
    params: &[String],
    depth: usize,
    scope: &mut dyn Scope,
) -> Result<String, Fault> {
    let mut bound = params.to_vec();
    collect_bound_names(expr, &mut bound);
    let mut printer = Printer { scope, bound, depth, out: String::new() };
    printer.expr(expr, level::LAMBDA)?;
    Ok(printer.out)
}

struct Printer<'s> {
    scope: &'s mut dyn Scope,
    /// Parameters and comprehension variables, which are not modules.
    bound: Vec<String>,
    depth: usize,
    out: String,
}

type Printed = Result<(), Fault>;

impl Printer<'_> {
    fn text(&mut self, text: &str) {
        self.out.push_str(text);
    }

    /// Prints `expr`, in parentheses if it binds less tightly than `floor`.
    fn expr(&mut self, expr: &Expr, floor: u8) -> Printed {
        self.scope.spend(1)?;
        let bracketed = precedence(expr) < floor;
        if bracketed {
            self.text("(");
        }
        self.depth += 1;
        let written = self.bare(expr);
        self.depth -= 1;
        written?;
        if bracketed {
            self.text(")");
        }
        Ok(())
    }

    fn bare(&mut self, expr: &Expr) -> Printed {
        match expr {
            Expr::Null => self.text("None"),
            Expr::Bool(true) => self.text("True"),
            Expr::Bool(false) => self.text("False"),
            Expr::Int(value) => self.text(&value.to_string()),
            Expr::Float(value) => self.text(&format!("{value:?}")),
            Expr::Str(value) => self.text(&quoted(value)),
            Expr::Name(name) => self.name(name),
            Expr::Reference(reference) => {
                let value = self.scope.reference(reference, self.depth)?;
                self.scope.spend(value.weight())?;
                let text = literal(&value).ok_or_else(|| {
                    Fault::Here(format!(
                        "uses `{reference}`, a {}, inside a function",
                        value.type_name()
                    ))
                })?;
                self.text(&text);
            }
            Expr::List(items) => self.sequence("[", items, "]")?,
            Expr::Tuple(items) if items.len() == 1 => self.sequence("(", items, ",)")?,
            Expr::Tuple(items) => self.sequence("(", items, ")")?,
            Expr::Set(items) => self.sequence("{", items, "}")?,
            Expr::Dict(entries) => self.dict(entries)?,
            Expr::Starred(inner) => {
                self.text("*");
                self.expr(inner, level::BIT_OR)?;
            }
            Expr::Unary(op, inner) => {
                let (text, floor) = match op {
                    UnaryOp::Negative => ("-", level::UNARY),
                    UnaryOp::Positive => ("+", level::UNARY),
                    UnaryOp::Invert => ("~", level::UNARY),
                    UnaryOp::Not => ("not ", level::NOT),
                };
                self.text(text);
                self.expr(inner, floor)?;
            }
            Expr::Binary(op, left, right) => {
                let own = op.precedence();
                let right_to_left = own == level::POWER;
                self.expr(left, if right_to_left { own + 1 } else { own })?;
                self.text(&format!(" {} ", op.symbol()));
                self.expr(right, if right_to_left { level::UNARY } else { own + 1 })?;
            }
            Expr::Compare(first, links) => {
                self.expr(first, level::BIT_OR)?;
                for (op, operand) in links {
                    self.text(&format!(" {} ", op.symbol()));
                    self.expr(operand, level::BIT_OR)?;
                }
            }
            Expr::Conditional { condition, then, otherwise } => {
                self.expr(then, level::OR)?;
                self.text(" if ");
                self.expr(condition, level::OR)?;
                self.text(" else ");
                self.expr(otherwise, level::LAMBDA)?;
            }
            Expr::Attribute(object, name) => {
                let is_number = matches!(**object, Expr::Int(_));
                self.expr(object, if is_number { level::ATOM + 1 } else { level::POSTFIX })?;
                self.text(".");
                self.text(name);
            }
            Expr::Index(object, index) => {
                self.expr(object, level::POSTFIX)?;
                self.index(index)?;
            }
            Expr::Slice(start, stop, step) => self.slice([start, stop, step])?,
            Expr::Call { function, args, keywords } => {
                self.expr(function, level::POSTFIX)?;
                self.call(args, keywords)?;
            }
            Expr::Lambda { params, body } => {
                let gap = if params.is_empty() { "" } else { " " };
                self.text(&format!("lambda{gap}{}: ", params.join(", ")));
                self.expr(body, level::LAMBDA)?;
            }
            Expr::Comprehension { kind, element, clauses } => {
                self.comprehension(kind, element, clauses)?;
            }
        }
        Ok(())
    }

    fn name(&mut self, name: &str) {
        let module = self.scope.module(name).filter(|_| !self.bound.iter().any(|b| b == name));
        let text = module.unwrap_or_else(|| name.to_owned());
        self.text(&text);
    }

    fn items(&mut self, items: &[Expr]) -> Printed {
        for (index, item) in items.iter().enumerate() {
            if index > 0 {
                self.text(", ");
            }
            self.expr(item, level::LAMBDA)?;
        }
        Ok(())
    }

    fn sequence(&mut self, open: &str, items: &[Expr], close: &str) -> Printed {
        self.text(open);
        self.items(items)?;
        self.text(close);
        Ok(())
    }

    fn dict(&mut self, entries: &[(Option<Expr>, Expr)]) -> Printed {
        self.text("{");
        for (index, (key, value)) in entries.iter().enumerate() {
            if index > 0 {
                self.text(", ");
            }
            match key {
                Some(key) => {
                    self.expr(key, level::LAMBDA)?;
                    self.text(": ");
                }
                None => self.text("**"),
            }
            self.expr(value, level::LAMBDA)?;
        }
        self.text("}");
        Ok(())
    }

    fn index(&mut self, index: &Expr) -> Printed {
        self.text("[");
        match index {
            Expr::Tuple(items) if items.len() > 1 => self.items(items)?,
            other => self.expr(other, level::LAMBDA)?,
        }
        self.text("]");
        Ok(())
    }

    fn slice(&mut self, [start, stop, step]: [&Option<Box<Expr>>; 3]) -> Printed {
        if let Some(start) = start {
            self.expr(start, level::LAMBDA)?;
        }
        self.text(":");
        if let Some(stop) = stop {
            self.expr(stop, level::LAMBDA)?;
        }
        if let Some(step) = step {
            self.text(":");
            self.expr(step, level::LAMBDA)?;
        }
        Ok(())
    }

    fn call(&mut self, args: &[Expr], keywords: &[(Option<String>, Expr)]) -> Printed {
        self.text("(");
        self.items(args)?;
        for (index, (name, value)) in keywords.iter().enumerate() {
            if index > 0 || !args.is_empty() {
                self.text(", ");
            }
            match name {
                Some(name) => self.text(&format!("{name}=")),
                None => self.text("**"),
            }
            self.expr(value, level::LAMBDA)?;
        }
        self.text(")");
        Ok(())
    }

    fn comprehension(
        &mut self,
        kind: &ComprehensionKind,
        element: &Expr,
        clauses: &[Clause],
    ) -> Printed {
        let (open, close) = match kind {
            ComprehensionKind::List => ("[", "]"),
            ComprehensionKind::Generator => ("(", ")"),
            ComprehensionKind::Set | ComprehensionKind::Dict(_) => ("{", "}"),
        };
        self.text(open);
        if let ComprehensionKind::Dict(key) = kind {
            self.expr(key, level::LAMBDA)?;
            self.text(": ");
        }
        self.expr(element, level::LAMBDA)?;
        for clause in clauses {
            self.text(&format!(" for {} in ", clause.targets.join(", ")));
            self.expr(&clause.items, level::OR)?;
            for condition in &clause.conditions {
                self.text(" if ");
                self.expr(condition, level::OR)?;
            }
        }
        self.text(close);
        Ok(())
    }
}

/// Formats a constant as Python source; `None` if it is not a constant.
fn literal(value: &Value) -> Option<String> {
    let all = |items: &[Value]| {
        let texts: Option<Vec<String>> = items.iter().map(literal).collect();
        texts.map(|texts| texts.join(", "))
    };
    Some(match value {
        Value::Null => "None".to_owned(),
        Value::Bool(true) => "True".to_owned(),
        Value::Bool(false) => "False".to_owned(),
        Value::Int(value) => parenthesised(value.to_string()),
        Value::Float(value) => parenthesised(format!("{value:?}")),
        Value::Str(value) => quoted(value),
        Value::List(items) => format!("[{}]", all(items)?),
        Value::Tuple(items) if items.len() == 1 => format!("({},)", all(items)?),
        Value::Tuple(items) => format!("({})", all(items)?),
        Value::Dict(entries) => {
            let entry = |(k, v): &(String, Value)| Some(format!("{}: {}", quoted(k), literal(v)?));
            let texts: Option<Vec<String>> = entries.iter().map(entry).collect();
            format!("{{{}}}", texts?.join(", "))
        }
        Value::Symbol(name) => name.clone(),
        Value::Lambda { .. } | Value::Component(_) => return None,
    })
}

/// A negative number replaces a name here, and must bind as tightly.
fn parenthesised(number: String) -> String {
    if number.starts_with('-') { format!("({number})") } else { number }
}

fn quoted(text: &str) -> String {
    let mut out = String::from("'");
    for c in text.chars() {
        match c {
            '\\' | '\'' => out.extend(['\\', c]),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            c if c.is_control() => out.push_str(&format!("\\U{:08x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('\'');
    out
}

fn precedence(expr: &Expr) -> u8 {
    match expr {
        Expr::Lambda { .. } => level::LAMBDA,
        Expr::Conditional { .. } => level::CONDITIONAL,
        Expr::Binary(op, ..) => op.precedence(),
        Expr::Unary(UnaryOp::Not, _) => level::NOT,
        Expr::Unary(..) => level::UNARY,
        Expr::Compare(..) => level::COMPARE,
        Expr::Attribute(..) | Expr::Index(..) | Expr::Call { .. } => level::POSTFIX,
        _ => level::ATOM,
    }
}

fn collect_bound_names(expr: &Expr, names: &mut Vec<String>) {
    match expr {
        Expr::Lambda { params, .. } => names.extend(params.iter().cloned()),
        Expr::Comprehension { clauses, .. } => {
            names.extend(clauses.iter().flat_map(|clause| clause.targets.iter().cloned()));
        }
        _ => {}
    }
    expr.for_each_child(&mut |child| collect_bound_names(child, names));
}
