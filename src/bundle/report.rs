//! Formats the findings about a bundle for people: one table per stage.

use std::fmt;

use serde_json::{Map, Value};

use super::check::{CheckReport, CheckedComponent, Outcome, Stage};

/// Line width at which arguments wrap.
const WIDTH: usize = 110;

/// Width of the first column, including spaces.
const OUTCOME: usize = 12;

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
        writeln!(f, "{}", format!("{} {}", self.name, self.version).trim_end())?;
        let components = self.stages.iter().flat_map(|stage| &stage.components);
        let runs = components.filter(|c| matches!(c.outcome, Outcome::Runs { .. }));
        let names = runs.filter_map(|c| c.target.as_deref()).map(|name| name.chars().count());
        let names = names.max().unwrap_or(0).min(WIDTH / 3);
        for stage in &self.stages {
            writeln!(f, "\n{}", stage.stage)?;
            stage
                .components
                .iter()
                .try_for_each(|component| write_component(f, component, names))?;
            if stage.components.is_empty() {
                writeln!(f, "  none")?;
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
            for warning in &self.warnings {
                write_wrapped(f, "  ", 2, words(warning))?;
            }
        }
        match self.all_problems().len() {
            0 => writeln!(f, "\nthis bundle can be served"),
            1 => writeln!(f, "\nthis bundle cannot be served: 1 problem"),
            count => writeln!(f, "\nthis bundle cannot be served: {count} problems"),
        }
    }
}

/// Writes one row of a stage's table; the column of names has `width` characters.
fn write_component(
    f: &mut fmt::Formatter<'_>,
    component: &CheckedComponent,
    width: usize,
) -> fmt::Result {
    let target = component.target.as_deref().unwrap_or("?");
    match &component.outcome {
        Outcome::Runs { does } => {
            let start = format!("  ok        {target:width$}  ");
            let column = OUTCOME + width + 2;
            let arguments = arguments(&component.arguments);
            if arguments.is_empty() {
                writeln!(f, "{}", start.trim_end())?;
            } else {
                write_wrapped(f, &start, column, arguments.iter().map(String::as_str))?;
            }
            if does.is_empty() {
                return Ok(());
            }
            write_wrapped(f, &format!("{:column$}→ ", ""), column + 2, words(does))
        }
        Outcome::Disabled => writeln!(f, "  disabled  {target} ({})", component.path),
        Outcome::Fails { problems } => {
            writeln!(f, "  fails     {target} ({})", component.path)?;
            problems.iter().try_for_each(|p| writeln!(f, "            {}: {}", p.path, p.message))
        }
    }
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split_whitespace()
}

/// Writes pieces after `start`; full lines continue at `column`.
fn write_wrapped<'t>(
    f: &mut fmt::Formatter<'_>,
    start: &str,
    column: usize,
    pieces: impl Iterator<Item = &'t str>,
) -> fmt::Result {
    let (mut line, mut empty) = (start.to_owned(), true);
    for piece in pieces {
        if !empty && line.chars().count() + 1 + piece.chars().count() > WIDTH {
            writeln!(f, "{line}")?;
            (line, empty) = (" ".repeat(column), true);
        }
        if !empty {
            line.push(' ');
        }
        line.push_str(piece);
        empty = false;
    }
    writeln!(f, "{}", line.trim_end())
}

/// Formats every argument as `name: value`, with commas in between.
fn arguments(arguments: &Map<String, Value>) -> Vec<String> {
    let last = arguments.len().saturating_sub(1);
    let shown = arguments.iter().enumerate().map(|(index, (name, value))| {
        let comma = if index < last { "," } else { "" };
        format!("{name}: {}{comma}", shown(value))
    });
    shown.collect()
}

/// Formats a value as in the configuration, whose nesting is limited.
fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(list) => {
            let list: Vec<String> = list.iter().map(shown).collect();
            format!("[{}]", list.join(", "))
        }
        Value::Object(map) => object(map),
        other => other.to_string(),
    }
}

fn object(map: &Map<String, Value>) -> String {
    let text = |value: Option<&Value>| value.map(shown).unwrap_or_default();
    if let Some(id) = map.get("$ref") {
        return format!("@{}", shown(id));
    }
    if let Some(name) = map.get("$symbol") {
        return shown(name);
    }
    if let Some(lambda) = map.get("$lambda") {
        let names = lambda.get("params").and_then(Value::as_array);
        let names: Vec<String> = names.into_iter().flatten().map(shown).collect();
        return format!("lambda {}: {}", names.join(", "), text(lambda.get("body")));
    }
    if let Some(component) = map.get("$component") {
        let inner = component.get("args").and_then(Value::as_object).map(arguments);
        let inner = inner.unwrap_or_default().join(" ");
        return format!("{}({inner})", text(component.get("target")));
    }
    if let Some(node) = map.get("$unevaluated") {
        return shown(node);
    }
    format!("{{{}}}", arguments(map).join(" "))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::check::CheckedStage;
    use super::*;

    #[test]
    fn stages_are_tables_with_their_arguments() {
        let component = |target: &str, arguments: Value, does: &str| CheckedComponent {
            path: "preprocessing#transforms#0".to_owned(),
            target: Some(target.to_owned()),
            arguments: arguments.as_object().unwrap().clone(),
            outcome: Outcome::Runs { does: does.to_owned() },
        };
        let lambda = json!({"$lambda": {"params": ["x"], "body": "x > 0"}});
        let report = CheckReport {
            name: "name".to_owned(),
            version: "1.0".to_owned(),
            runs: true,
            stages: vec![CheckedStage {
                stage: Stage::Preprocessing,
                components: vec![
                    component("LoadImaged", json!({"keys": ["image"]}), "nothing left to do"),
                    component("CropForegroundd", json!({"select_fn": lambda, "margin": 2}), ""),
                    component("Invertd", json!({"transform": {"$ref": "preprocessing"}}), ""),
                    component("Flipd", json!({"keys": vec!["a_long_name"; 9]}), ""),
                ],
            }],
            network: None,
            problems: Vec::new(),
            warnings: Vec::new(),
            file: String::new(),
        };
        let expected = "name 1.0\n\npreprocessing\n\
             \u{20} ok        LoadImaged       keys: [image]\n\
             \u{20}                            → nothing left to do\n\
             \u{20} ok        CropForegroundd  select_fn: lambda x: x > 0, margin: 2\n\
             \u{20} ok        Invertd          transform: @preprocessing\n\
             \u{20} ok        Flipd            keys: [a_long_name, a_long_name, a_long_name, ";
        let text = report.to_string();
        assert!(text.starts_with(expected), "{text}\n{expected}");
        assert!(text.ends_with("\n\nthis bundle can be served\n"), "{text}");
    }
}
