//! Resolves configuration items into values.
//!
//! Resolution starts at an item and only follows what that item refers to, so items that serving does
//! not need (datasets, handlers, checkpoints) are never read. A `_target_` item is not expanded: its
//! value is its id, and [`super::chain`] resolves the arguments of those that run. The total work of
//! one reading and the depth are limited.

use std::collections::BTreeMap;

use serde_json::Value as Json;

use super::documents::Documents;
use super::expression::{self, Fault, Scope};
use super::id::{NodeId, Reference};
use super::problem::Problem;
use super::value::Value;

/// Limit on how deep items may lead to one another, including levels within expressions: it bounds the
/// stack.
const MAX_DEPTH: usize = 256;

/// Work limit for one reading, in small values created.
const BUDGET: usize = 1_000_000;

/// Modules that MONAI makes available to every expression.
const KNOWN_MODULES: [(&str, &str); 4] =
    [("monai", "monai"), ("torch", "torch"), ("np", "numpy"), ("numpy", "numpy")];

/// Resolves items of one configuration.
pub(super) struct Resolver<'a> {
    pub documents: &'a Documents,
    modules: BTreeMap<String, String>,
    remaining: usize,
    depth: usize,
}

impl<'a> Resolver<'a> {
    /// Creates a resolver for `documents`. All import statements in the main configuration apply,
    /// wherever they are.
    pub fn new(documents: &'a Documents) -> Self {
        let own = |(alias, full): (&str, &str)| (alias.to_owned(), full.to_owned());
        let mut modules = KNOWN_MODULES.into_iter().map(own).collect();
        collect_imports(documents.main(), &mut modules);
        Self { documents, modules, remaining: BUDGET, depth: 0 }
    }

    /// Accounts for `units` of work at `id`.
    pub fn spend(&mut self, id: &NodeId, units: usize) -> Result<(), Problem> {
        match self.remaining.checked_sub(units) {
            Some(left) => {
                self.remaining = left;
                Ok(())
            }
            None => {
                self.remaining = 0;
                Err(Documents::problem(id, "the configuration takes too much work to resolve"))
            }
        }
    }

    /// Runs `work` one level deeper.
    pub fn deeper<T>(
        &mut self,
        id: &NodeId,
        work: impl FnOnce(&mut Self) -> Result<T, Problem>,
    ) -> Result<T, Problem> {
        self.deeper_by(1, id, work)
    }

    fn deeper_by<T>(
        &mut self,
        levels: usize,
        id: &NodeId,
        work: impl FnOnce(&mut Self) -> Result<T, Problem>,
    ) -> Result<T, Problem> {
        if self.depth + levels > MAX_DEPTH {
            return Err(Documents::problem(
                id,
                format!("items lead to one another more than {MAX_DEPTH} deep"),
            ));
        }
        self.depth += levels;
        let result = work(self);
        self.depth -= levels;
        result
    }

    /// Returns the value of the item `id`. A disabled component is `None`.
    pub fn resolve(&mut self, id: &NodeId) -> Result<Value, Problem> {
        self.deeper(id, |resolver| {
            let (id, node) = resolver.documents.locate(id)?;
            resolver.spend(&id, 1)?;
            resolver.node(&id, node)
        })
    }

    fn node(&mut self, id: &NodeId, node: &Json) -> Result<Value, Problem> {
        match node {
            Json::Null => Ok(Value::Null),
            Json::Bool(b) => Ok(Value::Bool(*b)),
            Json::Number(number) => match (number.as_i64(), number.as_f64()) {
                (Some(i), _) => Ok(Value::Int(i)),
                (None, Some(x)) if number.is_f64() => Ok(Value::Float(x)),
                _ => Err(Documents::problem(id, "is an integer of more than 64 bits")),
            },
            Json::String(text) => self.text(id, text),
            Json::Array(items) => {
                let mut values = Vec::with_capacity(items.len());
                for index in 0..items.len() {
                    values.extend(self.unless_disabled(&id.child(index))?);
                }
                Ok(Value::List(values))
            }
            Json::Object(map) if map.contains_key("_target_") => {
                let disabled = self.is_disabled(id)?;
                Ok(if disabled { Value::Null } else { Value::Component(id.clone()) })
            }
            Json::Object(map) => {
                let mut entries = Vec::with_capacity(map.len());
                for key in map.keys() {
                    let value = self.unless_disabled(&id.child(key))?;
                    entries.extend(value.map(|value| (key.clone(), value)));
                }
                Ok(Value::Dict(entries))
            }
        }
    }

    /// Returns the value of an element of a list or an object, or `None` for a disabled component,
    /// which is left out.
    fn unless_disabled(&mut self, id: &NodeId) -> Result<Option<Value>, Problem> {
        let value = self.resolve(id)?;
        Ok(if value == Value::Null && self.is_component(id) { None } else { Some(value) })
    }

    /// Whether the item itself is a component, rather than a reference to one.
    pub fn is_component(&self, id: &NodeId) -> bool {
        self.documents.locate(id).is_ok_and(|(_, node)| node.get("_target_").is_some())
    }

    /// Whether a component is switched off: `_disabled_` is true, or text that means true.
    pub fn is_disabled(&mut self, id: &NodeId) -> Result<bool, Problem> {
        let flag = id.child("_disabled_");
        if !self.documents.has(&flag) {
            return Ok(false);
        }
        match self.resolve(&flag)? {
            Value::Str(text) => Ok(text.trim().eq_ignore_ascii_case("true")),
            value => value.truth().ok_or_else(|| {
                Documents::problem(
                    &flag,
                    format!("is a {}, neither true nor false", value.type_name()),
                )
            }),
        }
    }

    fn text(&mut self, id: &NodeId, text: &str) -> Result<Value, Problem> {
        if let Some(reference) = Reference::whole(text) {
            return self.resolve(&self.target(id, &reference)?);
        }
        if let Some(source) = text.strip_prefix('$') {
            return self.expression(id, source);
        }
        self.spend(id, text.len() / 32)?;
        Ok(Value::Str(text.to_owned()))
    }

    /// Returns the item that a reference at `id` denotes, which must exist.
    pub fn target(&self, id: &NodeId, reference: &Reference) -> Result<NodeId, Problem> {
        if id.document.is_some() && reference.is_relative() {
            return Err(Documents::problem(
                id,
                format!("refers to `{reference}`, relative to nothing in a file named by a macro"),
            ));
        }
        let target = reference.resolve(id).filter(|target| !target.segments.is_empty());
        let target = target.ok_or_else(|| {
            Documents::problem(id, format!("refers to `{reference}`, which is no item"))
        })?;
        match self.documents.locate(&target) {
            Ok(_) => Ok(target),
            Err(why) => Err(Documents::problem(
                id,
                format!("refers to `{reference}`, which is not to be had: {}", why.message),
            )),
        }
    }

    fn expression(&mut self, id: &NodeId, source: &str) -> Result<Value, Problem> {
        let wrong = |message: String| {
            Documents::problem(id, format!("expression `${}` {message}", shortened(source)))
        };
        if let Some((_, full)) = expression::parse_import(source) {
            return Ok(Value::Symbol(full));
        }
        self.spend(id, source.len())?;
        let expr = expression::parse(source).map_err(wrong)?;
        match expression::evaluate(&expr, &mut At { resolver: self, id }) {
            Ok(value) => Ok(value),
            Err(Fault::Here(message)) => Err(wrong(message)),
            Err(Fault::Elsewhere(problem)) => Err(problem),
        }
    }
}

/// The scope of an expression at `id`.
struct At<'r, 'a> {
    resolver: &'r mut Resolver<'a>,
    id: &'r NodeId,
}

impl Scope for At<'_, '_> {
    fn reference(&mut self, reference: &Reference, depth: usize) -> Result<Value, Fault> {
        let target = self.resolver.target(self.id, reference).map_err(Fault::Elsewhere)?;
        let resolve = |resolver: &mut Resolver<'_>| resolver.resolve(&target);
        self.resolver.deeper_by(depth, self.id, resolve).map_err(Fault::Elsewhere)
    }

    fn module(&self, name: &str) -> Option<String> {
        self.resolver.modules.get(name).cloned()
    }

    fn spend(&mut self, units: usize) -> Result<(), Fault> {
        self.resolver.spend(self.id, units).map_err(Fault::Elsewhere)
    }
}

fn collect_imports(node: &Json, modules: &mut BTreeMap<String, String>) {
    match node {
        Json::String(text) => {
            modules.extend(text.strip_prefix('$').and_then(expression::parse_import));
        }
        Json::Array(items) => items.iter().for_each(|item| collect_imports(item, modules)),
        Json::Object(map) => map.values().for_each(|item| collect_imports(item, modules)),
        _ => {}
    }
}

/// Shortens an expression for a message.
fn shortened(source: &str) -> String {
    const SHOWN: usize = 160;
    let source = source.trim_end();
    match source.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &source[..end]),
        None => source.to_owned(),
    }
}
