//! What a bundle would run: `bundle check`.

use std::path::Path;

use crate::bundle::{Args, CheckReport, Component, Stage, check_report};
use crate::error::{Error, ErrorKind, Result};
use crate::inference::SlidingWindowInferer;
use crate::postprocess::PostPlan;
use crate::transforms;

/// Checks every part of the bundle in `dir` against what the stages can do.
///
/// # Errors
///
/// [`ErrorKind::ModelNotFound`] where `dir` is no folder; everything else is in the report.
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
        Stage::Inferer => inferer(component).map(|inferer| format!("{inferer:?}")),
        Stage::Postprocessing => PostPlan::describe(component),
    }
}

/// The inferer that a component names.
pub fn inferer(component: &Component) -> Result<SlidingWindowInferer> {
    if component.target != "SlidingWindowInferer" {
        return Err(Error::new(
            ErrorKind::InvalidModel,
            format!("{}: inferer {} is not supported", component.path, component.target),
        )
        .with("path", component.path.as_str())
        .with("target", component.target.as_str()));
    }
    let mut args = Args::new(component);
    let inferer = SlidingWindowInferer::from_args(&mut args)?;
    args.finish()?;
    Ok(inferer)
}
