//! The configuration files, and lookup of items through macros.
//!
//! A macro (`%network_def`, `%configs/other.json#id`) stands for another item's content. It is followed
//! on lookup; nothing is copied. Only files in the bundle's `configs` folder can be named. Relative ids
//! and further macros inside such a file are refused, because MONAI does not resolve them.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use serde_json::Value;

use super::id::{NodeId, Reference};
use super::json;
use super::problem::Problem;

/// The main configuration file, relative to the bundle.
pub(super) const MAIN_FILE: &str = "configs/inference.json";

/// Limit on the macros that lead to one item.
const MAX_HOPS: usize = 32;

/// Limit on the other files that macros may name.
const MAX_INCLUDED: usize = 32;

/// The files of one configuration.
pub(super) struct Documents {
    main: Value,
    /// Included files, by the name a macro gives them.
    included: BTreeMap<String, Result<Value, String>>,
}

impl Documents {
    /// Creates the documents from the main configuration and the files in `configs` that its macros
    /// name. An unreadable file is only a problem when an item in it is needed.
    pub fn new(main: Value, configs: &Path) -> Self {
        let mut names = Vec::new();
        collect_file_names(&main, &mut names);
        names.sort();
        names.dedup();
        let mut included = BTreeMap::new();
        for (index, name) in names.into_iter().enumerate() {
            let content = if index < MAX_INCLUDED {
                read_included(configs, &name)
            } else {
                Err(format!("more than {MAX_INCLUDED} files are named by macros"))
            };
            included.insert(name, content);
        }
        Self { main, included }
    }

    /// Returns the main configuration as written.
    pub fn main(&self) -> &Value {
        &self.main
    }

    /// Returns the file that an id is in, relative to the bundle.
    pub fn file_of(id: &NodeId) -> String {
        id.document.as_deref().map_or_else(|| MAIN_FILE.to_owned(), shown_name)
    }

    /// Creates a problem at an item.
    pub fn problem(id: &NodeId, message: impl Into<String>) -> Problem {
        Problem { file: Self::file_of(id), path: id.path(), message: message.into() }
    }

    /// Whether an item with this id exists.
    pub fn has(&self, id: &NodeId) -> bool {
        self.locate(id).is_ok()
    }

    /// Returns the item with this id and, after following macros, the id where its content actually is.
    pub fn locate(&self, id: &NodeId) -> Result<(NodeId, &Value), Problem> {
        let mut visited = vec![id.clone()];
        loop {
            let wanted = visited.last().unwrap_or(id);
            match self.walk(wanted)? {
                Step::Found(node) => return Ok((wanted.clone(), node)),
                Step::Jump(next) => {
                    if visited.contains(&next) {
                        return Err(Self::problem(id, circle("macros", &visited, &next)));
                    }
                    if visited.len() > MAX_HOPS {
                        return Err(Self::problem(
                            id,
                            format!("more than {MAX_HOPS} macros lead from here to a value"),
                        ));
                    }
                    visited.push(next);
                }
            }
        }
    }

    /// Descends from the top to the item or the first macro on the way.
    fn walk(&self, wanted: &NodeId) -> Result<Step<'_>, Problem> {
        let mut node = self.top(wanted)?;
        for depth in 0..=wanted.segments.len() {
            let (above, below) = wanted.segments.split_at(depth);
            let here = || NodeId { document: wanted.document.clone(), segments: above.to_vec() };
            if let Some(text) = node.as_str().and_then(|s| s.strip_prefix('%')) {
                let mut target = macro_target(text, &here())?;
                target.segments.extend(below.iter().cloned());
                return Ok(Step::Jump(target));
            }
            let Some(key) = below.first() else { break };
            node = child(node, key).ok_or_else(|| {
                let message = if above.is_empty() {
                    format!("there is no item `{key}` in the configuration")
                } else {
                    format!("there is no item `{key}` in `{}`", here())
                };
                Self::problem(wanted, message)
            })?;
        }
        Ok(Step::Found(node))
    }

    fn top(&self, wanted: &NodeId) -> Result<&Value, Problem> {
        let Some(name) = wanted.document.as_deref() else { return Ok(&self.main) };
        match self.included.get(name) {
            Some(Ok(content)) => Ok(content),
            Some(Err(reason)) => Err(Problem::in_file(shown_name(name), reason)),
            None => Err(Problem::in_file(shown_name(name), "is named by a nested macro")),
        }
    }
}

enum Step<'a> {
    Found(&'a Value),
    Jump(NodeId),
}

/// Formats `a -> b -> a`, for a message about `what` that led back to `again`.
pub(super) fn circle(what: &str, visited: &[NodeId], again: &NodeId) -> String {
    let start = visited.iter().position(|id| id == again).unwrap_or(0);
    let mut names: Vec<String> = visited[start..].iter().map(|id| format!("`{id}`")).collect();
    names.push(format!("`{again}`"));
    format!("{what} go in a circle: {}", names.join(" -> "))
}

fn child<'a>(node: &'a Value, key: &str) -> Option<&'a Value> {
    match node {
        Value::Object(map) => map.get(key),
        Value::Array(items) => {
            let index: usize = key.parse().ok()?;
            items.get(index).filter(|_| index.to_string() == key)
        }
        _ => None,
    }
}

/// Returns the item that a macro at `here` stands for; `text` follows its `%`.
fn macro_target(text: &str, here: &NodeId) -> Result<NodeId, Problem> {
    if here.document.is_some() {
        return Err(Documents::problem(
            here,
            format!("macro `%{text}` stands in a file that is itself named by a macro"),
        ));
    }
    let (file, id) = split_file(text);
    let reference = Reference::parse(id);
    match file {
        Some(file) if reference.is_relative() => Err(Documents::problem(
            here,
            format!("macro `%{text}` gives an id relative to nothing in `{file}`"),
        )),
        Some(file) => Ok(NodeId { document: Some(Arc::from(file)), ..NodeId::main(id) }),
        None => reference
            .resolve(here)
            .ok_or_else(|| Documents::problem(here, format!("macro `%{text}` goes above the top"))),
    }
}

/// Splits `other.json#id` into the file and the id. Without a file, the whole text is an id.
fn split_file(text: &str) -> (Option<&str>, &str) {
    let lower = text.to_ascii_lowercase();
    let mut end = None;
    for suffix in [".json", ".yaml", ".yml"] {
        for (at, _) in lower.match_indices(suffix) {
            let after = at + suffix.len();
            let rest = &lower[after..];
            if rest.is_empty() || rest.starts_with('#') || rest.starts_with("::") {
                end = end.max(Some(after));
            }
        }
    }
    let Some(end) = end else { return (None, text) };
    let rest = &text[end..];
    let id = rest.strip_prefix('#').or_else(|| rest.strip_prefix("::")).unwrap_or(rest);
    (Some(&text[..end]), id)
}

fn collect_file_names(node: &Value, names: &mut Vec<String>) {
    match node {
        Value::String(text) => {
            let file = text.strip_prefix('%').and_then(|text| split_file(text).0);
            names.extend(file.map(str::to_owned));
        }
        Value::Array(items) => items.iter().for_each(|item| collect_file_names(item, names)),
        Value::Object(map) => map.values().for_each(|item| collect_file_names(item, names)),
        _ => {}
    }
}

/// Returns the path relative to the bundle of a file named by a macro.
fn shown_name(name: &str) -> String {
    let name = name.strip_prefix("./").unwrap_or(name);
    if name.starts_with("configs/") { name.to_owned() } else { format!("configs/{name}") }
}

fn read_included(configs: &Path, name: &str) -> Result<Value, String> {
    let path = confined(configs, name)?;
    json::read(&path, name).map_err(|problem| problem.message)
}

/// Returns the canonical path of a file named by a macro, which must be in `configs`.
fn confined(configs: &Path, name: &str) -> Result<PathBuf, String> {
    let outside = || "lies outside the bundle's `configs` folder".to_owned();
    let shown = shown_name(name);
    let inner = Path::new(shown.strip_prefix("configs/").unwrap_or(&shown));
    if !inner.components().all(|c| matches!(c, Component::Normal(_) | Component::CurDir)) {
        return Err(outside());
    }
    let missing = |e: std::io::Error| format!("cannot be read: {}", e.kind());
    let folder = configs.canonicalize().map_err(missing)?;
    let path = configs.join(inner).canonicalize().map_err(missing)?;
    if path.starts_with(&folder) { Ok(path) } else { Err(outside()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn documents(main: Value) -> Documents {
        Documents::new(main, Path::new("/nonexistent"))
    }

    #[test]
    fn macros_are_followed_at_the_end_and_on_the_way() {
        let d = documents(json!({"a": {"b": [1, {"c": 7}]}, "m": "%a#b", "n": ["%m::1"]}));
        assert_eq!(d.locate(&NodeId::main("n#0#c")).unwrap().1, &json!(7));
        let (id, node) = d.locate(&NodeId::main("m")).unwrap();
        assert_eq!((id.to_string().as_str(), node), ("a#b", &json!([1, {"c": 7}])));
    }

    #[test]
    fn relative_macros_start_where_they_stand() {
        let d = documents(json!({"b": {"value1": 2, "value2": "%#value1"}}));
        assert_eq!(d.locate(&NodeId::main("b#value2")).unwrap().1, &json!(2));
    }

    #[test]
    fn a_circle_of_macros_is_named() {
        let d = documents(json!({"a": "%b", "b": "%a"}));
        let problem = d.locate(&NodeId::main("a")).unwrap_err();
        assert_eq!(problem.message, "macros go in a circle: `a` -> `b` -> `a`");
    }

    #[test]
    fn file_and_id_are_told_apart() {
        assert_eq!(split_file("other.json#a::b"), (Some("other.json"), "a::b"));
        assert_eq!(split_file("configs/x.JSON"), (Some("configs/x.JSON"), ""));
        assert_eq!(split_file("json#a"), (None, "json#a"));
    }

    #[test]
    fn other_files_stay_in_the_configs_folder() {
        let bundle = tempfile::tempdir().unwrap();
        let configs = bundle.path().join("configs");
        std::fs::create_dir(&configs).unwrap();
        std::fs::write(configs.join("other.json"), r#"{"x": [4, 5]}"#).unwrap();
        std::fs::write(configs.join("other.yaml"), "x: [4, 5]\n").unwrap();
        std::fs::write(bundle.path().join("secret.json"), "{}").unwrap();
        #[cfg(unix)]
        std::os::unix::fs::symlink("../secret.json", configs.join("link.json")).unwrap();
        let main = json!({
            "ok": "%other.json#x#1", "same": "%configs/other.json::x", "up": "%../secret.json",
            "link": "%link.json", "absolute": "%/etc/x.json", "gone": "%gone.json#x",
            "yaml": "%other.yaml#x", "no_yaml": "%gone.yaml#x",
        });
        let d = Documents::new(main, &configs);
        assert_eq!(d.locate(&NodeId::main("ok")).unwrap().1, &json!(5));
        assert_eq!(d.locate(&NodeId::main("same")).unwrap().1, &json!([4, 5]));
        for id in ["up", "link", "absolute"] {
            let problem = d.locate(&NodeId::main(id)).unwrap_err();
            assert!(problem.message.contains("outside"), "{id}: {problem}");
        }
        assert!(d.locate(&NodeId::main("gone")).unwrap_err().message.contains("not found"));
        assert_eq!(d.locate(&NodeId::main("yaml")).unwrap().1, &json!([4, 5]));
        let gone = d.locate(&NodeId::main("no_yaml")).unwrap_err();
        assert!(gone.message.contains("cannot be read"), "{gone}");
    }
}
