//! Checks what a bundle would run: `bundle check`.

use std::path::Path;

use super::fit;
use crate::bundle::serving::Serving;
use crate::bundle::{
    BundleConfig, CheckReport, Component, MODEL_FILE, NetworkPart, Problem, Stage, check_report,
    segment_descriptions,
};
use crate::error::{ErrorKind, Result};
use crate::inference::{
    Inferer, Network, NetworkSettings, NetworkShape, OnnxNetwork, ProviderChoice,
};
use crate::postprocess::PostPlan;
use crate::transforms::{self, Preprocessing};

/// Checks each part of the bundle in `dir` against the capabilities of the stages, and then the
/// whole: the order of the steps and the names of the classes.
///
/// # Errors
///
/// [`ErrorKind::ModelNotFound`](crate::error::ErrorKind::ModelNotFound) if `dir` is not a folder;
/// every other problem is in the report.
pub fn check_bundle(dir: &Path) -> Result<CheckReport> {
    let mut report = check_report(dir, &capability)?;
    // If parts fail or the configuration cannot be read, checking the whole adds nothing.
    if report.components_run()
        && let Ok(config) = BundleConfig::read(dir)
    {
        for error in whole(&config, dir) {
            report.add(&error);
        }
        if let Ok(plan) = PostPlan::new(&config.postprocessing) {
            report.warnings.extend(plan.warnings());
        }
        network(&mut report, &config, dir);
    }
    Ok(report)
}

/// Opens the network and compares it with the configuration, as loading a model does.
fn network(report: &mut CheckReport, config: &BundleConfig, dir: &Path) {
    let path = dir.join(MODEL_FILE);
    if !path.is_file() {
        return;
    }
    // On the CPU with one session: the abilities of a device are no property of the bundle.
    let settings = NetworkSettings {
        provider: ProviderChoice::Cpu,
        threads: Some(1),
        side_by_side: 1,
        ..NetworkSettings::default()
    };
    let network = match OnnxNetwork::load(&path, &settings) {
        Ok(network) => network,
        Err(error) if error.kind() == ErrorKind::InvalidModel => {
            let message = error.message();
            let path = path.display().to_string();
            let bare = message.strip_prefix(&path).and_then(|rest| rest.strip_prefix(": "));
            return unfit(report, bare.unwrap_or(message));
        }
        // A failure to run it on this machine says nothing about the bundle.
        Err(error) => {
            report.warnings.push(format!("{MODEL_FILE} was not opened: {}", error.message()));
            return;
        }
    };
    let shape = network.shape();
    report.network = Some(NetworkPart {
        file: MODEL_FILE.to_owned(),
        sha256: network.sha256().to_owned(),
        input: sizes(shape),
        output_channels: shape.output_channels,
        norms_in_two_stages: network.norms_in_two_stages(),
    });
    report.warnings.extend(network.norms_warning());
    let across = Preprocessing::new(&config.preprocessing, &config.image_keys);
    let Ok(inferer) = across.and_then(|p| Inferer::from_component(&config.inferer, p.plane_across))
    else {
        return;
    };
    for fault in fit::faults(config, &inferer, shape) {
        let message = fault.message();
        let bare = message.strip_prefix(MODEL_FILE).map(str::trim_start);
        unfit(report, bare.unwrap_or(message));
    }
    report.warnings.extend(fit::notes(&inferer, shape));
}

/// Adds a problem of the network.
fn unfit(report: &mut CheckReport, message: &str) {
    report.problems.push(Problem::in_file(MODEL_FILE, message));
    report.runs = false;
}

/// Returns the input sizes as the network declares them.
fn sizes(shape: NetworkShape) -> Vec<Option<usize>> {
    let spatial = if shape.planar { &shape.spatial[..2] } else { &shape.spatial[..] };
    [shape.batch, shape.input_channels].into_iter().chain(spatial.iter().copied()).collect()
}

/// Describes what a component does beyond its arguments, or fails if it is not supported.
fn capability(stage: Stage, component: &Component) -> Result<String> {
    match stage {
        Stage::Preprocessing => transforms::describe(component),
        Stage::Inferer => Inferer::from_component(component, None).map(|_| String::new()),
        Stage::Postprocessing => PostPlan::describe(component),
    }
}

/// Returns the errors that keep individually valid components from running together.
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

/// Checks that the class names, including those of `serving.json`, can be encoded in DICOM.
fn segments(config: &BundleConfig, plan: &PostPlan, dir: &Path) -> Result<()> {
    let serving = Serving::read(&dir.join("serving.json"))?;
    let Some(output) = config.network.outputs.first() else { return Ok(()) };
    let channels = output.num_channels.unwrap_or(output.channel_def.len());
    segment_descriptions(&output.channel_def, serving.as_ref(), &plan.form(channels)?).map(|_| ())
}
