//! `models`: lists what a folder of model packages serves.

use std::collections::BTreeSet;
use std::path::PathBuf;

use clap::Args;
use serde_json::{Map, Value, json};

use super::console::{self, shown};
use super::format::{Format, FormatArgs};
use super::table::table;
use crate::config::ComputeArgs;
use crate::error::{Error, ErrorKind, Result};
use crate::inference::Network;
use crate::registry::{Describe, LoadOptions, Model, ModelLocation, check_bundle, discover};

/// Settings of `models`.
#[derive(Debug, Clone, Args)]
pub struct ModelsArgs {
    /// Folder that is a MONAI bundle, or that holds one or several of them
    #[arg(value_name = "DIR", env = "MODEL_DIR", default_value = "/opt/ml/model")]
    pub dir: PathBuf,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub format: FormatArgs,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub compute: ComputeArgs,
}

/// Maximum number of segments listed in a table; JSON lists all.
const MOST_LISTED: usize = 8;

/// Loads each model as `serve` does, one after the other, and prints its description or why it
/// cannot be served.
///
/// # Errors
/// [`ErrorKind::Configuration`] if there is no package; [`ErrorKind::InvalidModel`], after all
/// models are printed, if one cannot be served.
pub(super) fn run(args: &ModelsArgs) -> Result<()> {
    let format = args.format.chosen()?;
    let options = LoadOptions::from(&args.compute.clone().settings());
    let locations = discover(&args.dir)?;
    let told: Vec<Map<String, Value>> =
        locations.iter().map(|location| describe(location, &options)).collect();
    let text = match format {
        Format::Json => serde_json::to_string_pretty(&json!({ "models": told }))
            .map_err(|e| Error::internal("the list cannot be written").caused_by(e))?,
        Format::Table => listing(&told, console::width()),
    };
    console::print(&text)?;
    let faulty: Vec<&str> = told
        .iter()
        .filter(|model| model.contains_key("error"))
        .filter_map(|model| model.get("name")?.as_str())
        .collect();
    if faulty.is_empty() {
        return Ok(());
    }
    let message =
        format!("{} of {} cannot be served: {}", faulty.len(), told.len(), faulty.join(", "));
    Err(Error::new(ErrorKind::InvalidModel, message).with("models", faulty))
}

/// Describes what a package serves, or all problems that keep it from being served.
fn describe(location: &ModelLocation, options: &LoadOptions) -> Map<String, Value> {
    let mut told = Map::new();
    told.insert("name".to_owned(), json!(location.name));
    told.insert("path".to_owned(), json!(location.path.to_string_lossy()));
    match Model::load(&location.name, &location.path, options) {
        Ok(model) => {
            let window = model.inferer.window(model.network.shape());
            told.insert("window".to_owned(), json!(window));
            told.extend(model.describe());
        }
        Err(error) => {
            let (code, message) = (error.kind().code(), error.message());
            told.insert("error".to_owned(), json!({"code": code, "message": message}));
            told.insert("problems".to_owned(), problems(location));
        }
    }
    told
}

/// Returns all problems that `bundle check` finds.
fn problems(location: &ModelLocation) -> Value {
    match check_bundle(&location.path) {
        Ok(report) => {
            report.all_problems().iter().map(|problem| json!(problem.to_string())).collect()
        }
        // Already reported when loading the model.
        Err(_) => json!([]),
    }
}

fn listing(models: &[Map<String, Value>], width: u16) -> String {
    let (served, faulty): (Vec<_>, Vec<_>) =
        models.iter().partition(|model| !model.contains_key("error"));
    let mut text = Vec::new();
    if !served.is_empty() {
        let header = ["model", "version", "images", "window", "segments", "outputs", "runs on"];
        text.push(table(&header, &[], served.iter().map(|model| row(model)).collect(), width));
        text.extend(notes(&served));
    }
    for model in faulty {
        text.push(format!("{} cannot be served: {}", one(model, "name"), error(model)));
        let problems = model.get("problems").and_then(Value::as_array);
        let problems = problems.into_iter().flatten().filter_map(Value::as_str);
        text.extend(problems.map(|problem| format!("  {}", shown(problem))));
    }
    text.join("\n")
}

/// Returns the reasons for the chosen execution providers, each once.
fn notes(models: &[&Map<String, Value>]) -> BTreeSet<String> {
    let note = |model: &&Map<String, Value>| {
        let reason = model.get("executionProviderReason")?.as_str()?;
        Some(format!("{}: {}", provider(model), shown(reason)))
    };
    models.iter().filter_map(note).collect()
}

/// Returns the provider without its suffix: `CPU` for `CPUExecutionProvider`.
fn provider(model: &Map<String, Value>) -> String {
    let name = one(model, "executionProvider");
    name.strip_suffix("ExecutionProvider").map_or(name.clone(), str::to_owned)
}

fn row(model: &Map<String, Value>) -> Vec<String> {
    vec![
        one(model, "name"),
        one(model, "version"),
        several(model, "images"),
        window(model),
        several(model, "segments"),
        several(model, "outputs"),
        provider(model),
    ]
}

fn one(model: &Map<String, Value>, name: &str) -> String {
    model.get(name).and_then(Value::as_str).map(shown).unwrap_or_default()
}

fn error(model: &Map<String, Value>) -> String {
    model.get("error").and_then(|error| error["message"].as_str()).map(shown).unwrap_or_default()
}

fn several(model: &Map<String, Value>, name: &str) -> String {
    let all = model.get(name).and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let listed: Vec<String> =
        all.iter().filter_map(Value::as_str).take(MOST_LISTED).map(shown).collect();
    match all.len() - listed.len() {
        0 => listed.join(", "),
        more => format!("{} and {more} more", listed.join(", ")),
    }
}

fn window(model: &Map<String, Value>) -> String {
    let sides = model.get("window").and_then(Value::as_array).into_iter().flatten();
    let side = |side: &Value| side.as_u64().map_or_else(|| "any".to_owned(), |n| n.to_string());
    sides.map(side).collect::<Vec<_>>().join(" × ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn models_and_faults_are_listed() {
        let labels: Vec<String> = (0..105).map(|i| format!("organ {i}")).collect();
        let good = json!({
            "name": "organs", "version": "1.2", "images": ["image"], "window": [96, null, 32],
            "segments": labels, "outputs": ["dicom-seg"], "executionProvider": "CPUExecutionProvider", "broken": false,
            "executionProviderReason": "there is no GPU",
        });
        let bad = json!({
            "name": "torn\x1b", "error": {"code": "invalid_model", "message": "is cut short"},
            "problems": ["configs/inference.json: inferer: unknown"],
        });
        let models = [good, bad].map(|model| model.as_object().unwrap().clone());
        let text = listing(&models, 200);
        assert!(text.contains("96 × any × 32"), "{text}");
        assert!(text.contains("organ 7 and 97 more") && !text.contains("organ 8,"), "{text}");
        assert_eq!(text.matches("CPU: there is no GPU").count(), 1, "{text}");
        let faults = "torn\\u{1b} cannot be served: is cut short\n  configs/inference.json: inferer: unknown";
        assert!(text.ends_with(faults), "{text}");
    }
}
