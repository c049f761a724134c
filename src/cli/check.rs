//! `bundle check`: what a model package would run, and everything it cannot.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::error::{Error, ErrorKind, Result};
use crate::registry::check_bundle;

/// Settings of `bundle`.
#[derive(Debug, Args)]
pub struct BundleArgs {
    #[command(subcommand)]
    command: BundleCommand,
}

#[derive(Debug, Subcommand)]
enum BundleCommand {
    /// Print what would run, stage by stage, and every thing that cannot, with its JSON path.
    Check {
        /// Folder of the bundle.
        path: PathBuf,
        /// As JSON.
        #[arg(long, env = "BUNDLE_CHECK_JSON")]
        json: bool,
    },
}

/// Prints the report; an error where the bundle cannot be served.
pub fn run(args: &BundleArgs) -> Result<()> {
    let BundleCommand::Check { path, json } = &args.command;
    let report = check_bundle(path)?;
    if *json {
        let text = serde_json::to_string_pretty(&report)
            .map_err(|e| Error::internal("the report cannot be written").caused_by(e))?;
        println!("{text}");
    } else {
        println!("{report}");
    }
    if report.runs {
        return Ok(());
    }
    Err(Error::new(ErrorKind::InvalidModel, format!("{} cannot be served", path.display())))
}
