//! Ids of configuration items, and references to them.
//!
//! An id is the path from the top of the configuration to an item: `preprocessing#transforms#3`. MONAI
//! separates its parts with `::` and, in older bundles, `#`. Both are accepted; `#` is shown.

use std::fmt;
use std::sync::Arc;

/// The path to one item of the configuration.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct NodeId {
    /// The file that a macro refers to; `None` for the main configuration.
    pub document: Option<Arc<str>>,
    /// Keys of objects and indices of lists, from the top.
    pub segments: Vec<String>,
}

impl NodeId {
    /// Returns the id of an item of the main configuration, in either notation.
    pub fn main(id: &str) -> Self {
        Self { document: None, segments: split(id) }
    }

    /// Returns the id of the item `key` below this one.
    pub fn child(&self, key: impl ToString) -> Self {
        let mut child = self.clone();
        child.segments.push(key.to_string());
        child
    }

    /// Whether `other` is this item or below it.
    pub fn contains(&self, other: &NodeId) -> bool {
        self.document == other.document && other.segments.starts_with(&self.segments)
    }

    /// Returns the id within its file, with `#`.
    pub fn path(&self) -> String {
        self.segments.join("#")
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(document) = &self.document {
            write!(f, "{document}#")?;
        }
        f.write_str(&self.path())
    }
}

/// A reference as written after `@` (or an id after `%`): absolute, or relative if it begins with
/// separators, one per level up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reference {
    up: usize,
    segments: Vec<String>,
}

impl Reference {
    /// Parses an id without its `@` or `%`.
    pub fn parse(id: &str) -> Self {
        let mut rest = id;
        let mut up = 0;
        while let Some(shorter) = strip_separator(rest) {
            rest = shorter;
            up += 1;
        }
        Self { up, segments: split(rest) }
    }

    /// Parses a string that is a reference as a whole: `@` and words between separators. To MONAI, any
    /// other string with an `@` is an ordinary string.
    pub fn whole(text: &str) -> Option<Self> {
        let id = text.strip_prefix('@')?;
        (scan(id) == id.len()).then(|| Self::parse(id))
    }

    /// Whether the reference goes up from its own position.
    pub fn is_relative(&self) -> bool {
        self.up > 0
    }

    /// Resolves the reference from the item `base` of the main configuration. Returns `None` if it goes
    /// above the top.
    pub fn resolve(&self, base: &NodeId) -> Option<NodeId> {
        let kept = match self.up {
            0 => 0,
            up => base.segments.len().checked_sub(up)?,
        };
        let mut segments = base.segments[..kept].to_vec();
        segments.extend(self.segments.iter().cloned());
        Some(NodeId { document: None, segments })
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "@{}{}", "#".repeat(self.up), self.segments.join("#"))
    }
}

/// Returns how many bytes at the start of `text` belong to a reference, after its `@`.
pub(crate) fn scan(text: &str) -> usize {
    let mut taken = 0;
    loop {
        let rest = &text[taken..];
        if let Some(shorter) = strip_separator(rest) {
            taken = text.len() - shorter.len();
        } else if let Some(c) = rest.chars().next().filter(|c| c.is_alphanumeric() || *c == '_') {
            taken += c.len_utf8();
        } else {
            return taken;
        }
    }
}

fn strip_separator(text: &str) -> Option<&str> {
    text.strip_prefix('#').or_else(|| text.strip_prefix("::"))
}

fn split(id: &str) -> Vec<String> {
    if id.is_empty() {
        return Vec::new();
    }
    id.replace('#', "::").split("::").map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_separators_mean_the_same() {
        let base = NodeId::main("x");
        let old = Reference::whole("@net#blocks#0").unwrap().resolve(&base).unwrap();
        let new = Reference::whole("@net::blocks::0").unwrap().resolve(&base).unwrap();
        assert_eq!(old, new);
        assert_eq!(old.to_string(), "net#blocks#0");
    }

    #[test]
    fn relative_references_go_up_one_level_per_separator() {
        let base = NodeId::main("b#value3#2");
        let at = |text| Reference::whole(text).unwrap().resolve(&base).map(|id| id.to_string());
        assert_eq!(at("@#1").unwrap(), "b#value3#1");
        assert_eq!(at("@##value1").unwrap(), "b#value1");
        assert_eq!(at("@###a").unwrap(), "a");
        assert_eq!(at("@####a"), None);
    }

    #[test]
    fn text_with_an_at_sign_in_it_is_no_reference() {
        for text in ["user@host", "@a b", "@a.b", "a", "@a-b"] {
            assert_eq!(Reference::whole(text), None, "{text}");
        }
    }
}
