//! Flattens the components composed by `Compose` into a chain and resolves their arguments.
//!
//! Every component is resolved separately, so one that fails leaves the others readable.

use serde_json::{Map, Value as Json, json};

use super::component::{Component, class_name};
use super::documents::Documents;
use super::id::{NodeId, Reference};
use super::problem::Problem;
use super::resolver::Resolver;
use super::value::Value;

/// One entry of a chain.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Entry {
    /// A resolved component.
    Ready(Component),
    /// A component switched off by `_disabled_`; it is not part of the chain.
    Disabled { target: String, path: String },
    /// An item that cannot be resolved.
    Failed { target: Option<String>, path: String, problems: Vec<Problem> },
}

impl Entry {
    /// Returns the problems that prevent it from being resolved.
    pub fn problems(&self) -> &[Problem] {
        match self {
            Self::Failed { problems, .. } => problems,
            Self::Ready(_) | Self::Disabled { .. } => &[],
        }
    }

    /// Returns the same problems mutably.
    pub fn problems_mut(&mut self) -> &mut [Problem] {
        match self {
            Self::Failed { problems, .. } => problems,
            Self::Ready(_) | Self::Disabled { .. } => &mut [],
        }
    }
}

/// Keys of a component that are not arguments (monai.bundle `ConfigComponent.non_arg_keys`).
const NO_ARGUMENTS: [&str; 5] = ["_target_", "_disabled_", "_requires_", "_desc_", "_mode_"];

/// Arguments without effect on the result: the server chooses its own devices.
const DEVICES: [&str; 2] = ["device", "sw_device"];

/// Arguments of `SaveImage` that can change the voxels. The others set names and formats of files that
/// the server does not write.
const SAVE_IMAGE_MEANING: [&str; 3] = ["keys", "resample", "allow_missing_keys"];

/// Follows references from `id` to the item itself.
pub(super) fn dereference(resolver: &mut Resolver<'_>, id: &NodeId) -> Result<NodeId, Problem> {
    resolver.deeper(id, |resolver| {
        let (id, node) = resolver.documents.locate(id)?;
        resolver.spend(&id, 1)?;
        let text = node.as_str().map(|text| text.strip_prefix('$').map_or(text, str::trim));
        let Some(reference) = text.and_then(Reference::whole) else { return Ok(id) };
        let target = resolver.target(&id, &reference)?;
        dereference(resolver, &target)
    })
}

/// Returns the chain at `root`: a `Compose`, with nested ones and lists flattened, or a single
/// component.
pub(super) fn chain(resolver: &mut Resolver<'_>, root: &NodeId) -> Vec<Entry> {
    let mut entries = Vec::new();
    append(resolver, root, &mut entries);
    entries
}

/// Appends the item at `id`; a failure becomes an entry.
fn append(resolver: &mut Resolver<'_>, id: &NodeId, entries: &mut Vec<Entry>) {
    let result = resolver.deeper(id, |resolver| try_append(resolver, id, entries));
    if let Err(problem) = result {
        entries.push(failed(id, None, vec![problem]));
    }
}

fn failed(id: &NodeId, target: Option<String>, problems: Vec<Problem>) -> Entry {
    let (file, path) = (Documents::file_of(id), id.path());
    let problems = problems.into_iter().map(|p| p.seen_from(&file, &path)).collect();
    Entry::Failed { target, path: id.to_string(), problems }
}

fn try_append(
    resolver: &mut Resolver<'_>,
    id: &NodeId,
    entries: &mut Vec<Entry>,
) -> Result<(), Problem> {
    let id = dereference(resolver, id)?;
    let (id, node) = resolver.documents.locate(&id)?;
    match node {
        Json::Array(items) => {
            (0..items.len()).for_each(|index| append(resolver, &id.child(index), entries));
            Ok(())
        }
        Json::Object(map) if map.contains_key("_target_") => {
            append_component(resolver, &id, entries)
        }
        Json::String(text) if text.starts_with('$') => {
            let value = resolver.resolve(&id)?;
            append_value(resolver, &id, value, entries)
        }
        _ => Err(Documents::problem(&id, "is neither a component nor a list of components")),
    }
}

/// Appends the value of an expression at `id`.
fn append_value(
    resolver: &mut Resolver<'_>,
    id: &NodeId,
    value: Value,
    entries: &mut Vec<Entry>,
) -> Result<(), Problem> {
    match value {
        Value::Component(component) => {
            append(resolver, &component, entries);
            Ok(())
        }
        Value::List(items) | Value::Tuple(items) => {
            items.into_iter().try_for_each(|item| append_value(resolver, id, item, entries))
        }
        other => Err(Documents::problem(
            id,
            format!("gives a {}, neither a component nor a list of them", other.type_name()),
        )),
    }
}

fn append_component(
    resolver: &mut Resolver<'_>,
    id: &NodeId,
    entries: &mut Vec<Entry>,
) -> Result<(), Problem> {
    let disabled = resolver.is_disabled(id);
    let target = match (&disabled, target(resolver, id)) {
        // Nothing in a disabled component is resolved.
        (Ok(true), target) => target.unwrap_or_else(|_| "?".to_owned()),
        (_, target) => target?,
    };
    if disabled? {
        entries.push(Entry::Disabled { target, path: id.to_string() });
        return Ok(());
    }
    if target == "Compose" {
        let problems = compose_problems(resolver, id);
        if !problems.is_empty() {
            entries.push(failed(id, Some(target), problems));
        }
        let transforms = id.child("transforms");
        if resolver.documents.locate(&transforms).is_ok_and(|(_, node)| !node.is_null()) {
            append(resolver, &transforms, entries);
        }
        return Ok(());
    }
    entries.push(match component(resolver, id, target.clone()) {
        Ok(component) => Entry::Ready(component),
        Err(problems) => failed(id, Some(target), problems),
    });
    Ok(())
}

/// Returns the class name of the component at `id`.
fn target(resolver: &mut Resolver<'_>, id: &NodeId) -> Result<String, Problem> {
    let at = id.child("_target_");
    match resolver.resolve(&at)? {
        Value::Str(name) | Value::Symbol(name) if !name.trim().is_empty() => Ok(class_name(&name)),
        other => Err(Documents::problem(
            &at,
            format!("gives a {}, not the name of a class", other.type_name()),
        )),
    }
}

/// Returns the unsupported underscored keys of the component at `id`.
fn key_problems(resolver: &mut Resolver<'_>, id: &NodeId) -> Vec<Problem> {
    let mut problems = Vec::new();
    for key in keys(resolver, id).into_iter().filter(|key| key.starts_with('_')) {
        let at = id.child(&key);
        let problem = match key.as_str() {
            "_mode_" => match resolver.resolve(&at) {
                Ok(Value::Str(mode)) if mode == "default" => None,
                Ok(_) => Some(Documents::problem(&at, "only the mode `default` is supported")),
                Err(problem) => Some(problem),
            },
            // All supported expressions are free of side effects, so it is enough that they resolve.
            "_requires_" => resolver.resolve(&at).err(),
            key if NO_ARGUMENTS.contains(&key) => None,
            key => Some(Documents::problem(&at, format!("`{key}` is no key of a component"))),
        };
        problems.extend(problem);
    }
    problems
}

/// Returns the unsupported arguments of `Compose`: they change how its transforms run, and only the
/// default is supported.
fn compose_problems(resolver: &mut Resolver<'_>, id: &NodeId) -> Vec<Problem> {
    let mut problems = key_problems(resolver, id);
    for key in keys(resolver, id).into_iter().filter(|key| !key.starts_with('_')) {
        let at = id.child(&key);
        let plain = match key.as_str() {
            "transforms" | "log_stats" => continue,
            "map_items" => resolver.resolve(&at).map(|value| value.truth() == Some(true)),
            "unpack_items" | "lazy" | "overrides" => {
                resolver.resolve(&at).map(|value| value.truth() == Some(false))
            }
            _ => Ok(false),
        };
        match plain {
            Ok(true) => {}
            Ok(false) => problems.push(Documents::problem(
                &at,
                format!("`{key}` with this value is not supported for Compose"),
            )),
            Err(problem) => problems.push(problem),
        }
    }
    problems
}

fn keys(resolver: &Resolver<'_>, id: &NodeId) -> Vec<String> {
    let node = resolver.documents.locate(id).ok().and_then(|(_, node)| node.as_object());
    node.map(|map| map.keys().cloned().collect()).unwrap_or_default()
}

/// Resolves the component at `id` with all its arguments, or returns everything that prevents it.
pub(super) fn component(
    resolver: &mut Resolver<'_>,
    id: &NodeId,
    target: String,
) -> Result<Component, Vec<Problem>> {
    let mut problems = key_problems(resolver, id);
    let mut args = Map::new();
    for key in keys(resolver, id).into_iter().filter(|key| !key.starts_with('_')) {
        match argument(resolver, id, &target, &key) {
            Ok(value) => args.extend(value.map(|value| (key, value))),
            Err(problem) => {
                let (file, path) = (Documents::file_of(id), id.child(&key).path());
                problems.push(problem.seen_from(&file, &path));
            }
        }
    }
    if !problems.is_empty() {
        return Err(problems);
    }
    Ok(Component { target, args, path: id.to_string() })
}

/// Resolves the value of one argument; `None` if it is a disabled component.
fn argument(
    resolver: &mut Resolver<'_>,
    id: &NodeId,
    target: &str,
    key: &str,
) -> Result<Option<Json>, Problem> {
    let at = id.child(key);
    let resolved = resolver.resolve(&at).and_then(|value| {
        if value == Value::Null && resolver.is_component(&at) {
            return Ok(None);
        }
        plain(resolver, &at, value).map(Some)
    });
    match resolved {
        Err(_) if is_never_read(target, key) => {
            let (_, node) = resolver.documents.locate(&at)?;
            Ok(Some(json!({ "$unevaluated": node })))
        }
        other => other,
    }
}

fn is_never_read(target: &str, key: &str) -> bool {
    DEVICES.contains(&key)
        || matches!(target, "SaveImage" | "SaveImaged") && !SAVE_IMAGE_MEANING.contains(&key)
}

/// Converts a value to JSON, for the argument at `at`.
fn plain(resolver: &mut Resolver<'_>, at: &NodeId, value: Value) -> Result<Json, Problem> {
    resolver.spend(at, 1)?;
    Ok(match value {
        Value::Null => Json::Null,
        Value::Bool(b) => Json::Bool(b),
        Value::Int(i) => Json::from(i),
        Value::Float(x) => Json::from(x),
        Value::Str(text) => Json::String(text),
        Value::List(items) | Value::Tuple(items) => {
            let items = items.into_iter().map(|item| plain(resolver, at, item));
            Json::Array(items.collect::<Result<_, _>>()?)
        }
        Value::Dict(entries) => {
            let mut map = Map::new();
            for (key, value) in entries {
                if key.starts_with('$') {
                    return Err(Documents::problem(
                        at,
                        format!("has a key {key:?}; keys may not begin with `$`"),
                    ));
                }
                map.insert(key, plain(resolver, at, value)?);
            }
            Json::Object(map)
        }
        Value::Symbol(name) => json!({ "$symbol": name }),
        Value::Lambda { params, body } => json!({ "$lambda": { "params": params, "body": body } }),
        Value::Component(id) if at.contains(&id) => resolver.deeper(&id, |resolver| {
            let target = target(resolver, &id)?;
            let inner = component(resolver, &id, target).map_err(first)?;
            Ok(json!({ "$component": { "target": inner.target, "args": inner.args } }))
        })?,
        Value::Component(id) => json!({ "$ref": id.to_string() }),
    })
}

fn first(mut problems: Vec<Problem>) -> Problem {
    problems.swap_remove(0)
}
