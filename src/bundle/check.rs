//! What `bundle check` reports: every part of a bundle, and everything that keeps it from running.

use std::fmt;
use std::path::Path;

use serde::Serialize;

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

/// All that was found in a bundle.
#[derive(Debug, Clone, Serialize)]
pub struct CheckReport {
    /// The bundle's name.
    pub name: String,
    /// Its version, empty where it gives none.
    pub version: String,
    /// Whether there is nothing to keep the bundle from being served.
    pub runs: bool,
    /// The three stages in order.
    pub stages: Vec<CheckedStage>,
    /// The network, where its file was opened.
    pub network: Option<NetworkPart>,
    /// What is wrong beside single components.
    pub problems: Vec<Problem>,
    /// What is odd but no hindrance.
    pub warnings: Vec<String>,
}

/// One stage with its components in order.
#[derive(Debug, Clone, Serialize)]
pub struct CheckedStage {
    /// Which stage this is.
    pub stage: Stage,
    /// Its components.
    pub components: Vec<CheckedComponent>,
}

/// One component and what would become of it.
#[derive(Debug, Clone, Serialize)]
pub struct CheckedComponent {
    /// Where it stands: `preprocessing#transforms#3`.
    pub path: String,
    /// Its class, where that could be read.
    pub target: Option<String>,
    /// What would become of it.
    #[serde(flatten)]
    pub outcome: Outcome,
}

/// What would become of a component.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "lowercase", tag = "outcome")]
pub enum Outcome {
    /// It would run.
    Runs {
        /// What it would do, in one line.
        does: String,
    },
    /// It is switched off by `_disabled_`.
    Disabled,
    /// It cannot run.
    Fails {
        /// Everything that keeps it from running.
        problems: Vec<Problem>,
    },
}

/// Checks the bundle in `dir`; `capabilities` says of a resolved component what it would do, or why
/// it cannot be run.
///
/// # Errors
///
/// [`crate::error::ErrorKind::ModelNotFound`] where `dir` is no folder; everything else is in the
/// report.
pub fn check_report(
    dir: &Path,
    capabilities: &dyn Fn(Stage, &Component) -> Result<String>,
) -> Result<CheckReport> {
    let mut reading = Reading::of(dir)?;
    let _ = reading.image_keys();
    let mut stages = Vec::new();
    for (stage, entries) in [
        (Stage::Preprocessing, std::mem::take(&mut reading.preprocessing)),
        (Stage::Inferer, std::mem::take(&mut reading.inferer)),
        (Stage::Postprocessing, std::mem::take(&mut reading.postprocessing)),
    ] {
        let check = |entry| checked(stage, entry, capabilities);
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
    })
}

fn checked(
    stage: Stage,
    entry: Entry,
    capabilities: &dyn Fn(Stage, &Component) -> Result<String>,
) -> CheckedComponent {
    match entry {
        Entry::Ready(component) => {
            let outcome = match capabilities(stage, &component) {
                Ok(does) => Outcome::Runs { does },
                Err(error) => Outcome::Fails { problems: vec![refusal(&component, &error)] },
            };
            CheckedComponent { path: component.path, target: Some(component.target), outcome }
        }
        Entry::Disabled { target, path } => {
            CheckedComponent { path, target: Some(target), outcome: Outcome::Disabled }
        }
        Entry::Failed { target, path, problems } => {
            CheckedComponent { path, target, outcome: Outcome::Fails { problems } }
        }
    }
}

/// Why a component that could be read cannot be run. The error may name an argument in its details.
fn refusal(component: &Component, error: &crate::error::Error) -> Problem {
    let path = error.details().get("path").and_then(|path| path.as_str());
    let path = path.unwrap_or(&component.path);
    // Where an error stands alone it says the path itself; here that is beside it.
    let message = error.message();
    let bare = message.strip_prefix(path).and_then(|rest| rest.strip_prefix(": "));
    Problem {
        file: super::documents::MAIN_FILE.to_owned(),
        path: path.to_owned(),
        message: bare.unwrap_or(message).to_owned(),
    }
}

impl CheckedComponent {
    /// What keeps it from running; nothing where it runs or is switched off.
    pub fn problems(&self) -> &[Problem] {
        match &self.outcome {
            Outcome::Fails { problems } => problems,
            Outcome::Runs { .. } | Outcome::Disabled => &[],
        }
    }
}

impl CheckReport {
    /// Adds what is wrong with the whole rather than with one component.
    pub fn add(&mut self, error: &crate::error::Error) {
        let path = error.details().get("path").and_then(|path| path.as_str());
        self.problems.push(Problem {
            file: super::documents::MAIN_FILE.to_owned(),
            path: path.unwrap_or_default().to_owned(),
            message: error.message().to_owned(),
        });
        self.runs = false;
    }

    /// Whether every component runs by itself.
    pub fn components_run(&self) -> bool {
        let components = self.stages.iter().flat_map(|stage| &stage.components);
        components.into_iter().all(|component| component.problems().is_empty())
    }

    /// Every problem, those of components included, in the order of the report.
    pub fn all_problems(&self) -> Vec<&Problem> {
        let components = self.stages.iter().flat_map(|stage| &stage.components);
        let in_stages = components.flat_map(CheckedComponent::problems);
        self.problems.iter().chain(in_stages).collect()
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Preprocessing => "preprocessing",
            Self::Inferer => "inferer",
            Self::Postprocessing => "postprocessing",
        })
    }
}

impl fmt::Display for CheckReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} {}", self.name, self.version)?;
        for stage in &self.stages {
            writeln!(f, "\n{}", stage.stage)?;
            for component in &stage.components {
                write_component(f, component)?;
            }
        }
        if let Some(network) = &self.network {
            write!(f, "\nnetwork\n{network}")?;
        }
        if !self.problems.is_empty() {
            writeln!(f, "\nproblems")?;
            self.problems.iter().try_for_each(|problem| writeln!(f, "  {problem}"))?;
        }
        if !self.warnings.is_empty() {
            writeln!(f, "\nwarnings")?;
            self.warnings.iter().try_for_each(|warning| writeln!(f, "  {warning}"))?;
        }
        match self.all_problems().len() {
            0 => writeln!(f, "\nthis bundle can be served"),
            1 => writeln!(f, "\nthis bundle cannot be served: 1 problem"),
            count => writeln!(f, "\nthis bundle cannot be served: {count} problems"),
        }
    }
}

fn write_component(f: &mut fmt::Formatter<'_>, component: &CheckedComponent) -> fmt::Result {
    let target = component.target.as_deref().unwrap_or("?");
    match &component.outcome {
        Outcome::Runs { does } => writeln!(f, "  ok        {target}: {does}"),
        Outcome::Disabled => writeln!(f, "  disabled  {target} ({})", component.path),
        Outcome::Fails { problems } => {
            writeln!(f, "  fails     {target} ({})", component.path)?;
            problems.iter().try_for_each(|p| writeln!(f, "            {}: {}", p.path, p.message))
        }
    }
}
