//! Detects unknown environment variables.

use std::collections::BTreeSet;

use clap::Command;

use crate::error::{Error, ErrorKind, Result};

/// Prefix of variables that belong to this program.
const PREFIX: &str = "AHI_";

/// Used by the integration tests, which start this program with their own environment.
const NOT_SETTINGS: [&str; 1] = ["AHI_SHARED"];

/// Rejects variables that look like settings of this program but belong to no flag of `command` or
/// its subcommands: a misspelt setting would otherwise be ignored.
///
/// # Errors
/// [`ErrorKind::Configuration`], naming the variables.
pub fn refuse_unknown_variables(
    command: &Command,
    variables: impl Iterator<Item = String>,
) -> Result<()> {
    let mut known: BTreeSet<String> = NOT_SETTINGS.map(str::to_owned).into();
    collect(command, &mut known);
    let unknown: Vec<String> =
        variables.filter(|name| name.starts_with(PREFIX) && !known.contains(name)).collect();
    if unknown.is_empty() {
        return Ok(());
    }
    let ours: Vec<&str> =
        known.iter().filter(|n| n.starts_with(PREFIX)).map(String::as_str).collect();
    Err(Error::new(
        ErrorKind::Configuration,
        format!(
            "no setting is called {}; those that start with {PREFIX} are {}",
            unknown.join(", "),
            ours.join(", ")
        ),
    ))
}

fn collect(command: &Command, known: &mut BTreeSet<String>) {
    let variables = command.get_arguments().filter_map(|argument| argument.get_env());
    known.extend(variables.map(|name| name.to_string_lossy().into_owned()));
    for subcommand in command.get_subcommands() {
        collect(subcommand, known);
    }
}

#[cfg(test)]
mod tests {
    use clap::Args;

    use super::*;
    use crate::config::ServeArgs;

    #[test]
    fn misspelt_settings_are_named() {
        let command = ServeArgs::augment_args(Command::new("serve"));
        let check = |names: &[&str]| {
            refuse_unknown_variables(&command, names.iter().map(|&n| n.to_owned()))
        };
        assert!(check(&["AHI_ENDPOINT_URL", "AHI_SHARED", "PATH", "AWS_REGION"]).is_ok());
        let error = check(&["AHI_ENDPONT_URL"]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Configuration);
        assert!(error.message().contains("AHI_ENDPONT_URL"), "{error}");
        assert!(error.message().contains("AHI_ENDPOINT_URL"), "{error}");
    }
}
