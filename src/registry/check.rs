//! What a bundle would run: `bundle check`.

use std::path::Path;

use crate::bundle::serving::Serving;
use crate::bundle::{
    BundleConfig, CheckReport, Component, Stage, check_report, segment_descriptions,
};
use crate::error::Result;
use crate::inference::Inferer;
use crate::postprocess::PostPlan;
use crate::transforms::{self, Preprocessing};

/// Checks every part of the bundle in `dir` against what the stages can do, and then the whole:
/// the order of the steps, and the names of the classes.
///
/// # Errors
///
/// [`ErrorKind::ModelNotFound`](crate::error::ErrorKind::ModelNotFound) where `dir` is no folder; everything else is in the report.
pub fn check_bundle(dir: &Path) -> Result<CheckReport> {
    let mut report = check_report(dir, &capability)?;
    // Where parts fail, or the configuration cannot be read, the whole says nothing more.
    if report.components_run()
        && let Ok(config) = BundleConfig::read(dir)
    {
        for error in whole(&config, dir) {
            report.add(&error);
        }
        if let Ok(plan) = PostPlan::new(&config.postprocessing) {
            report.warnings.extend(plan.warnings());
        }
    }
    Ok(report)
}

/// What becomes of one component beside what its arguments say, or why it cannot run.
fn capability(stage: Stage, component: &Component) -> Result<String> {
    match stage {
        Stage::Preprocessing => transforms::describe(component),
        Stage::Inferer => Inferer::from_component(component, None).map(|_| String::new()),
        Stage::Postprocessing => PostPlan::describe(component),
    }
}

/// Everything that keeps components which run by themselves from running together.
fn whole(config: &BundleConfig, dir: &Path) -> Vec<crate::error::Error> {
    let mut errors = Vec::new();
    match Preprocessing::new(&config.preprocessing, &config.image_keys) {
        Ok(steps) => {
            errors.extend(Inferer::from_component(&config.inferer, steps.plane_across).err());
        }
        Err(error) => errors.push(error),
    }
    match PostPlan::new(&config.postprocessing) {
        Ok(plan) => errors.extend(segments(config, &plan, dir).err()),
        Err(error) => errors.push(error),
    }
    errors
}

/// Whether the result's classes have names that DICOM can hold, `serving.json` included.
fn segments(config: &BundleConfig, plan: &PostPlan, dir: &Path) -> Result<()> {
    let serving = Serving::read(&dir.join("serving.json"))?;
    let Some(output) = config.network.outputs.first() else { return Ok(()) };
    let channels = output.num_channels.unwrap_or(output.channel_def.len());
    segment_descriptions(&output.channel_def, serving.as_ref(), &plan.form(channels)?).map(|_| ())
}
