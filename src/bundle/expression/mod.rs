//! Python expressions in a configuration (`$@bundle_root + '/eval'`), read without Python.
//!
//! What serving may need is evaluated: literals, arithmetic, comparisons, conditions, indices,
//! comprehensions, a handful of calls without side effects, and `@` references. Names of libraries
//! stay symbols, a `lambda` stays a function in a normal form; everything else is refused. The size
//! of an expression and the work it may cause are bounded, whoever wrote it.

mod arithmetic;
mod ast;
mod brackets;
mod builtins;
mod eval;
mod parse;
mod print;
mod token;

use super::id::Reference;
use super::problem::Problem;
use super::value::Value;

pub(super) use ast::Expr;
pub(super) use eval::evaluate;
pub(super) use parse::parse;

/// Why an expression has no value here.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Fault {
    /// The expression itself: what it does that is not supported.
    Here(String),
    /// An item it refers to.
    Elsewhere(Problem),
}

/// What an expression sees of the configuration around it.
pub(crate) trait Scope {
    /// The value of an item, for a reference that stands `depth` levels deep in its expression.
    fn reference(&mut self, reference: &Reference, depth: usize) -> Result<Value, Fault>;

    /// The full name of the module, or the member of one, that `name` was imported as.
    fn module(&self, name: &str) -> Option<String>;

    /// Accounts for work about to be done, in units of one small value; fails once there was too
    /// much.
    fn spend(&mut self, units: usize) -> Result<(), Fault>;
}

/// An import statement: `(alias, full name)`, or `None` where `source` is none.
///
/// `import a.b` binds `a`, `import a.b as c` and `from a import b as c` bind `c`. Of several names
/// in one statement MONAI takes the first.
pub(super) fn parse_import(source: &str) -> Option<(String, String)> {
    let words: Vec<&str> = source.split_whitespace().collect();
    let (full, rest) = match words.as_slice() {
        ["import", module, rest @ ..] => (module.trim_end_matches(',').to_owned(), rest),
        ["from", module, "import", name, rest @ ..] => {
            (format!("{module}.{}", name.trim_end_matches(',')), rest)
        }
        _ => return None,
    };
    let is_path = full
        .split('.')
        .all(|part| !part.is_empty() && part.chars().all(|c| c.is_alphanumeric() || c == '_'));
    if !is_path {
        return None;
    }
    match rest {
        ["as", alias, ..] => Some((alias.trim_end_matches(',').to_owned(), full)),
        _ if words[0] == "import" => {
            let first = full.split('.').next().unwrap_or(&full).to_owned();
            Some((first.clone(), first))
        }
        _ => Some((full.rsplit('.').next().unwrap_or(&full).to_owned(), full)),
    }
}

#[cfg(test)]
mod tests;
