//! Locates the three parts of serving: preprocessing, inferer, postprocessing.
//!
//! MONAI runs the `evaluator`, so its arguments are followed: `inferer`, `postprocessing`, and
//! `val_data_loader` and `dataset` to the dataset's `transform`. If that fails, the parts are looked up
//! by the names that the model zoo gives them.

use super::chain::dereference;
use super::component::class_name;
use super::documents::Documents;
use super::id::NodeId;
use super::problem::Problem;
use super::resolver::Resolver;
use super::value::Value;

/// The ids of the parts; `None` for a missing part.
#[derive(Debug, Default)]
pub(super) struct Roots {
    pub preprocessing: Option<NodeId>,
    pub inferer: Option<NodeId>,
    pub postprocessing: Option<NodeId>,
    pub problems: Vec<Problem>,
    pub warnings: Vec<String>,
}

/// Arguments of `SupervisedEvaluator` that replace code which this server implements.
const REPLACING: [&str; 2] = ["prepare_batch", "iteration_update"];

/// Locates the parts.
pub(super) fn find(resolver: &mut Resolver<'_>) -> Roots {
    let mut roots = Roots::default();
    check_evaluator(resolver, &mut roots);
    let transform = ["val_data_loader", "dataset", "transform"];
    let mut ways = vec![[&["evaluator"][..], &transform].concat()];
    ways.push(vec!["dataloader", "dataset", "transform"]);
    ways.push(vec!["dataset", "transform"]);
    roots.preprocessing =
        part(resolver, &ways, &["preprocessing", "preprocessing_transforms"], &mut roots.warnings);
    roots.inferer =
        part(resolver, &[vec!["evaluator", "inferer"]], &["inferer"], &mut roots.warnings);
    roots.postprocessing = part(
        resolver,
        &[vec!["evaluator", "postprocessing"]],
        &["postprocessing", "postprocessing_transforms"],
        &mut roots.warnings,
    );
    roots
}

/// Returns the item at the end of the first existing path, or under the first existing name.
fn part(
    resolver: &mut Resolver<'_>,
    ways: &[Vec<&str>],
    names: &[&str],
    warnings: &mut Vec<String>,
) -> Option<NodeId> {
    let named: Vec<NodeId> = names
        .iter()
        .map(|name| NodeId::main(name))
        .filter(|id| resolver.documents.has(id))
        .collect();
    let Some((way, found)) = ways.iter().find_map(|way| Some((way, follow(resolver, way)?))) else {
        return named.into_iter().next();
    };
    if let Some(other) = named.first()
        && dereference(resolver, other).is_ok_and(|other| other != found)
    {
        warnings
            .push(format!("`{other}` is not used: `{}` leads to `{found}` instead", way.join("#")));
    }
    Some(found)
}

/// Follows keys from item to item, resolving references in between.
fn follow(resolver: &mut Resolver<'_>, way: &[&str]) -> Option<NodeId> {
    let (first, rest) = way.split_first()?;
    let mut at = NodeId::main(first);
    for key in rest {
        at = dereference(resolver, &at).ok()?.child(key);
    }
    let given = resolver.documents.locate(&at).is_ok_and(|(_, node)| !node.is_null());
    // A broken reference is reported when the part is resolved.
    given.then(|| dereference(resolver, &at).unwrap_or(at))
}

/// Records features of an evaluator that are not supported.
fn check_evaluator(resolver: &mut Resolver<'_>, roots: &mut Roots) {
    let Ok(id) = dereference(resolver, &NodeId::main("evaluator")) else { return };
    let at = id.child("_target_");
    if !resolver.documents.has(&at) {
        return;
    }
    match resolver.resolve(&at) {
        Ok(Value::Str(name) | Value::Symbol(name)) => {
            let name = class_name(&name);
            if name != "SupervisedEvaluator" {
                roots.problems.push(Documents::problem(
                    &at,
                    format!("evaluator `{name}` is not supported, only SupervisedEvaluator is"),
                ));
            }
        }
        Ok(_) => roots.problems.push(Documents::problem(&at, "is not the name of a class")),
        Err(problem) => roots.problems.push(problem),
    }
    for key in REPLACING {
        let at = id.child(key);
        let given = resolver.documents.locate(&at).is_ok_and(|(_, node)| !node.is_null());
        if given {
            roots.problems.push(Documents::problem(
                &at,
                format!("`{key}` replaces what the evaluator does and is not supported"),
            ));
        }
    }
    if resolver.documents.has(&id.child("_requires_")) {
        roots.warnings.push(format!("`{id}#_requires_` is not run"));
    }
}
