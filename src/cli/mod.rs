//! Subcommands and their flags. Every flag has an environment twin.
//!
//! Exit codes: 0 done; 1 failed; 2 wrong usage or settings; 3 stopped before all work was finished.

mod check;
mod run;
mod serve;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::emulator::cli::{EmulateArgs, ImportArgs};
use crate::error::{Error, ErrorKind, Result};
use crate::phantom::PhantomArgs;
use crate::telemetry::{self, LogArgs};

/// A medical image set from AWS HealthImaging to a finished segmentation.
#[derive(Debug, Parser)]
#[command(version, about, max_term_width = 100)]
struct Cli {
    #[command(flatten)]
    log: LogArgs,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve models over HTTP, as SageMaker runs a container.
    Serve(crate::config::ServeArgs),
    /// Segment a folder of DICOM files without a server.
    Run(run::RunArgs),
    /// Look into model packages.
    Bundle(check::BundleArgs),
    /// A local AWS HealthImaging, for demos and tests.
    Emulate(EmulateArgs),
    /// Bring DICOM files into the local AWS HealthImaging.
    Import(ImportArgs),
    /// Make a synthetic CT as DICOM files, with its truth.
    Phantom(PhantomArgs),
}

/// Runs the program.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    if let Err(error) = telemetry::init(&cli.log) {
        return failed(&error);
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(e) => return failed(&Error::internal("the runtime cannot be started").caused_by(e)),
    };
    let result = runtime.block_on(dispatch(cli.command));
    // What still runs was cancelled or is not waited for.
    runtime.shutdown_background();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(&error),
    }
}

async fn dispatch(command: Command) -> Result<()> {
    match command {
        Command::Serve(args) => serve::serve(args).await,
        Command::Run(args) => run::run(args).await,
        Command::Bundle(args) => check::run(&args),
        Command::Emulate(args) => args.run().await,
        Command::Import(args) => args.run().await,
        Command::Phantom(args) => args.run().await,
    }
}

/// Says on one line what failed.
fn failed(error: &Error) -> ExitCode {
    eprintln!("error: {error} [{}]", error.kind().code());
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        eprintln!("  caused by: {cause}");
        source = cause.source();
    }
    match error.kind() {
        ErrorKind::Configuration | ErrorKind::InvalidRequest => ExitCode::from(2),
        ErrorKind::DeadlineExceeded => ExitCode::from(3),
        _ => ExitCode::from(1),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn every_flag_has_an_environment_twin() {
        let cli = Cli::command();
        cli.clone().debug_assert();
        for command in cli.get_subcommands() {
            for arg in command.get_arguments() {
                let name = arg.get_id().as_str();
                if name != "help" && arg.get_long().is_some() {
                    assert!(arg.get_env().is_some(), "{} --{name}", command.get_name());
                }
            }
        }
    }
}
