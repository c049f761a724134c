//! What a bundle would run: `bundle check`.

use std::path::Path;

use crate::bundle::{CheckReport, Component, Stage, check_report};
use crate::error::Result;
use crate::inference::Inferer;
use crate::postprocess::PostPlan;
use crate::transforms;

/// Checks every part of the bundle in `dir` against what the stages can do.
///
/// # Errors
///
/// [`ErrorKind::ModelNotFound`](crate::error::ErrorKind::ModelNotFound) where `dir` is no folder; everything else is in the report.
pub fn check_bundle(dir: &Path) -> Result<CheckReport> {
    check_report(dir, &capability)
}

/// What becomes of one component, or why it cannot run.
fn capability(stage: Stage, component: &Component) -> Result<String> {
    match stage {
        Stage::Preprocessing => Ok(match transforms::build(component)? {
            Some(transform) => format!("{transform:?}"),
            None => "nothing left to do: images are loaded channel-first as f32".to_owned(),
        }),
        Stage::Inferer => Inferer::from_component(component).map(|inferer| format!("{inferer:?}")),
        Stage::Postprocessing => PostPlan::describe(component),
    }
}
