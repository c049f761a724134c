//! The report of `bundle check`: every part of a bundle, and everything that prevents it from running.

use std::path::Path;

use serde::Serialize;
use serde_json::{Map, Value};

use super::chain::Entry;
use super::component::Component;
use super::config::Reading;
use super::network_part::NetworkPart;
use super::problem::Problem;
use super::{MODEL_FILE, model_missing};
use crate::error::Result;

/// The part of the pipeline a component belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Stage {
    /// Before the network.
    Preprocessing,
    /// How the network is applied.
    Inferer,
    /// After the network.
    Postprocessing,
}

/// The findings about a bundle.
#[derive(Debug, Clone, Serialize)]
pub struct CheckReport {
    /// The bundle's name.
    pub name: String,
    /// Its version; empty if it has none.
    pub version: String,
    /// Whether the bundle can be served.
    pub runs: bool,
    /// The three stages in order.
    pub stages: Vec<CheckedStage>,
    /// The network, if its file was opened.
    pub network: Option<NetworkPart>,
    /// Problems that do not belong to a single component.
    pub problems: Vec<Problem>,
    /// Oddities that do not prevent serving.
    pub warnings: Vec<String>,
    /// Path of the configuration file.
    pub file: String,
}

/// One stage with its components in order.
#[derive(Debug, Clone, Serialize)]
pub struct CheckedStage {
    /// Which stage this is.
    pub stage: Stage,
    /// Its components.
    pub components: Vec<CheckedComponent>,
}

/// One component and its outcome.
#[derive(Debug, Clone, Serialize)]
pub struct CheckedComponent {
    /// Its path: `preprocessing#transforms#3`.
    pub path: String,
    /// Its class, if that could be read.
    pub target: Option<String>,
    /// Its arguments with references and expressions resolved; empty if they could not be read.
    pub arguments: Map<String, Value>,
    /// What would happen to it.
    #[serde(flatten)]
    pub outcome: Outcome,
}

/// What would happen to a component.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "lowercase", tag = "outcome")]
pub enum Outcome {
    /// It would run.
    Runs {
        /// What it would do, if its arguments do not say so themselves; else empty.
        does: String,
    },
    /// It is switched off by `_disabled_`.
    Disabled,
    /// It cannot run.
    Fails {
        /// Everything that prevents it from running.
        problems: Vec<Problem>,
    },
}

/// Checks the bundle in `dir`. For a resolved component, `capabilities` returns what it would do beyond
/// what its arguments say, or why it cannot run.
///
/// # Errors
///
/// [`crate::error::ErrorKind::ModelNotFound`] if `dir` is not a folder. Everything else is in the
/// report.
pub fn check_report(
    dir: &Path,
    capabilities: &dyn Fn(Stage, &Component) -> Result<String>,
) -> Result<CheckReport> {
    let mut reading = Reading::of(dir)?;
    let _ = reading.image_keys();
    let mut stages = Vec::new();
    let file = std::mem::take(&mut reading.main_file);
    for (stage, entries) in [
        (Stage::Preprocessing, std::mem::take(&mut reading.preprocessing)),
        (Stage::Inferer, std::mem::take(&mut reading.inferer)),
        (Stage::Postprocessing, std::mem::take(&mut reading.postprocessing)),
    ] {
        let check = |entry| checked(stage, entry, &file, capabilities);
        stages.push(CheckedStage { stage, components: entries.into_iter().map(check).collect() });
    }
    let mut problems = reading.problems;
    if !dir.join(MODEL_FILE).is_file() {
        problems.push(Problem::in_file(MODEL_FILE, model_missing()));
    }
    let fails = |component: &CheckedComponent| matches!(component.outcome, Outcome::Fails { .. });
    let runs = problems.is_empty() && !stages.iter().any(|s| s.components.iter().any(fails));
    Ok(CheckReport {
        name: reading.name,
        version: reading.metadata.version.unwrap_or_default(),
        runs,
        stages,
        network: None,
        problems,
        warnings: reading.warnings,
        file,
    })
}

fn checked(
    stage: Stage,
    entry: Entry,
    file: &str,
    capabilities: &dyn Fn(Stage, &Component) -> Result<String>,
) -> CheckedComponent {
    match entry {
        Entry::Ready(component) => {
            let outcome = match capabilities(stage, &component) {
                Ok(does) => Outcome::Runs { does },
                Err(error) => Outcome::Fails { problems: vec![refusal(&component, file, &error)] },
            };
            let Component { target, args: arguments, path } = component;
            CheckedComponent { path, target: Some(target), arguments, outcome }
        }
        Entry::Disabled { target, path } => {
            let (target, arguments) = (Some(target), Map::new());
            CheckedComponent { path, target, arguments, outcome: Outcome::Disabled }
        }
        Entry::Failed { target, path, problems } => {
            let arguments = Map::new();
            CheckedComponent { path, target, arguments, outcome: Outcome::Fails { problems } }
        }
    }
}

/// Describes why a readable component cannot run. The error may name an argument in its details.
fn refusal(component: &Component, file: &str, error: &crate::error::Error) -> Problem {
    let path = error.details().get("path").and_then(|path| path.as_str());
    let path = path.unwrap_or(&component.path);
    // An error on its own includes the path in its message; here, the path has its own field.
    let message = error.message();
    let bare = message.strip_prefix(path).and_then(|rest| rest.strip_prefix(": "));
    Problem {
        file: file.to_owned(),
        path: path.to_owned(),
        message: bare.unwrap_or(message).to_owned(),
    }
}

impl CheckedComponent {
    /// Returns what prevents it from running; empty if it runs or is switched off.
    pub fn problems(&self) -> &[Problem] {
        match &self.outcome {
            Outcome::Fails { problems } => problems,
            Outcome::Runs { .. } | Outcome::Disabled => &[],
        }
    }
}

impl CheckReport {
    /// Adds a problem of the bundle as a whole.
    pub fn add(&mut self, error: &crate::error::Error) {
        let path = error.details().get("path").and_then(|path| path.as_str());
        self.problems.push(Problem {
            file: self.file.clone(),
            path: path.unwrap_or_default().to_owned(),
            message: error.message().to_owned(),
        });
        self.runs = false;
    }

    /// Whether every component runs, considered by itself.
    pub fn components_run(&self) -> bool {
        let components = self.stages.iter().flat_map(|stage| &stage.components);
        components.into_iter().all(|component| component.problems().is_empty())
    }

    /// Returns every problem, including those of components, in the order of the report.
    pub fn all_problems(&self) -> Vec<&Problem> {
        let components = self.stages.iter().flat_map(|stage| &stage.components);
        let in_stages = components.flat_map(CheckedComponent::problems);
        self.problems.iter().chain(in_stages).collect()
    }
}
