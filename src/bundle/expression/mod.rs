//! Python expressions in a configuration (`$@bundle_root + '/eval'`), evaluated without Python.
//!
//! Only what serving may need is evaluated: literals, arithmetic, comparisons, conditions, indices,
//! comprehensions, a handful of calls without side effects, and `@` references. Library names stay
//! symbols, and a `lambda` stays a function in a normal form. Everything else is refused. The size of
//! an expression and the work it may cause are limited, because bundles are untrusted.

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

/// Why an expression cannot be evaluated.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Fault {
    /// The fault is in the expression itself; the text says what is not supported.
    Here(String),
    /// The fault is in an item it refers to.
    Elsewhere(Problem),
}

/// The surroundings of an expression in the configuration.
pub(crate) trait Scope {
    /// Returns the value of an item, for a reference nested `depth` levels deep in its expression.
    fn reference(&mut self, reference: &Reference, depth: usize) -> Result<Value, Fault>;

    /// Returns the full name of the module, or the member of one, that was imported as `name`.
    fn module(&self, name: &str) -> Option<String>;

    /// Accounts for work about to be done, in units of one small value. Fails once the limit is
    /// exceeded.
    fn spend(&mut self, units: usize) -> Result<(), Fault>;
}

/// Parses an import statement into `(alias, full name)`; `None` if `source` is not one.
///
/// `import a.b` binds `a`; `import a.b as c` and `from a import b as c` bind `c`. If one statement has
/// several names, MONAI uses the first.
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
