//! `bundle`: what a model package would run, what it cannot, and what a lower precision changes.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};

use super::compare::{self, CompareArgs};
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
    /// Run a series in f32 and in another way, and print what differs: labels, Dice by segment, the largest
    /// difference of the network's values, and the time of a window.
    Compare(Box<CompareArgs>),
}

/// Runs the chosen subcommand.
pub async fn run(args: BundleArgs) -> Result<()> {
    match args.command {
        BundleCommand::Check { path, json } => check(&path, json),
        BundleCommand::Compare(args) => compare::run(*args).await,
    }
}

/// Prints the report; fails if the bundle cannot be served.
fn check(path: &Path, json: bool) -> Result<()> {
    let report = check_bundle(path)?;
    if json {
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
