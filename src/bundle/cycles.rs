//! Rejects circular references.
//!
//! An item depends on every item that it, or anything below it, refers to. MONAI resolves all of these
//! before the item itself and refuses cycles. This check does the same, whether or not evaluation would
//! follow the cycle.

use std::collections::BTreeSet;

use serde_json::Value as Json;

use super::documents::{Documents, circle};
use super::expression::{self, Expr};
use super::id::{NodeId, Reference};
use super::problem::Problem;
use super::resolver::Resolver;

/// Length limit for a chain of references.
const MAX_DEPTH: usize = 200;

/// Fails if `root` depends on an item that depends on itself.
pub(super) fn refuse_cycles(resolver: &mut Resolver<'_>, root: &NodeId) -> Result<(), Problem> {
    let (root, _) = resolver.documents.locate(root)?;
    let mut search = Search { resolver, way: Vec::new(), done: BTreeSet::new() };
    search.visit(&root)
}

struct Search<'r, 'a> {
    resolver: &'r mut Resolver<'a>,
    way: Vec<NodeId>,
    done: BTreeSet<NodeId>,
}

impl Search<'_, '_> {
    fn visit(&mut self, id: &NodeId) -> Result<(), Problem> {
        if self.done.contains(id) {
            return Ok(());
        }
        if self.way.contains(id) {
            let start = self.way.first().unwrap_or(id);
            return Err(Documents::problem(start, circle("references", &self.way, id)));
        }
        if self.way.len() == MAX_DEPTH {
            return Err(Documents::problem(
                id,
                format!("references lead from item to item more than {MAX_DEPTH} times"),
            ));
        }
        self.way.push(id.clone());
        for target in self.dependencies(id)? {
            self.visit(&target)?;
        }
        self.way.pop();
        self.done.insert(id.clone());
        Ok(())
    }

    /// Returns the existing items that the item and everything below it refer to.
    fn dependencies(&mut self, top: &NodeId) -> Result<BTreeSet<NodeId>, Problem> {
        let mut found = BTreeSet::new();
        let mut open = vec![top.clone()];
        while let Some(id) = open.pop() {
            self.resolver.spend(&id, 1)?;
            // Missing items are reported when their value is needed.
            let Ok((at, node)) = self.resolver.documents.locate(&id) else { continue };
            if at != id {
                found.insert(at);
                continue;
            }
            match node {
                Json::Object(map) => open.extend(map.keys().map(|key| at.child(key))),
                Json::Array(items) => open.extend((0..items.len()).map(|i| at.child(i))),
                Json::String(text) => {
                    let references = references(text);
                    self.resolver.spend(&at, text.len() / 32)?;
                    let targets = references.iter().filter_map(|reference| {
                        let target = self.resolver.target(&at, reference).ok()?;
                        self.resolver.documents.locate(&target).ok().map(|(real, _)| real)
                    });
                    found.extend(targets);
                }
                _ => {}
            }
        }
        Ok(found)
    }
}

fn references(text: &str) -> Vec<Reference> {
    if let Some(reference) = Reference::whole(text) {
        return vec![reference];
    }
    let Some(source) = text.strip_prefix('$') else { return Vec::new() };
    let mut found = Vec::new();
    if let Ok(expr) = expression::parse(source) {
        collect(&expr, &mut found);
    }
    found
}

fn collect(expr: &Expr, found: &mut Vec<Reference>) {
    if let Expr::Reference(reference) = expr {
        found.push(reference.clone());
    }
    expr.for_each_child(&mut |child| collect(child, found));
}
