//! Subcommands, their flags, and the process exit.

mod check;
mod clients;
mod compare;
mod console;
mod exit;
mod fetch;
mod format;
mod hints;
mod input;
mod models;
mod ping;
mod progress;
mod run;
mod serve;
mod shell;
mod table;

use std::io::IsTerminal;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};
use tokio::runtime::{Builder, Runtime};

pub use run::RunArgs;

use crate::config::{LogArgs, LogFormat, ServeArgs, refuse_unknown_variables};
use crate::emulator::cli::{EmulateArgs, ImportArgs};
use crate::error::{Error, Result};
use crate::memory;
use crate::phantom::PhantomArgs;
use crate::telemetry;

/// Medical image segmentation server: AWS HealthImaging in, DICOM SEG out, for SageMaker
#[derive(Debug, Parser)]
#[command(name = "ahi-inference", version)]
pub struct Cli {
    /// How to log.
    #[command(flatten)]
    pub log: LogArgs,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve requests as a SageMaker container does
    Serve(Box<ServeArgs>),
    /// Ask whether the server on this machine is ready; for a container's health check
    Ping(ping::PingArgs),
    /// Segment images without a server
    Run(Box<RunArgs>),
    /// List the models that a folder serves
    Models(models::ModelsArgs),
    /// Look into model packages
    Bundle(check::BundleArgs),
    /// Fetch image sets of AWS HealthImaging as DICOM files
    Fetch(fetch::FetchArgs),

    /// A local AWS HealthImaging, for demos and tests
    Emulate(EmulateArgs),
    /// Bring DICOM files into the local AWS HealthImaging
    Import(ImportArgs),
    /// Make a synthetic CT as DICOM files, with its truth
    Phantom(PhantomArgs),

    /// Print what completes commands in a shell
    Completions(shell::CompletionsArgs),
    /// Print the manual page, or write all of them to a folder
    Man(shell::ManArgs),
}

impl Command {
    /// Returns the name of the subcommand.
    fn name(&self) -> &'static str {
        match self {
            Self::Serve(_) => "serve",
            Self::Ping(_) => "ping",
            Self::Run(_) => "run",
            Self::Models(_) => "models",
            Self::Bundle(_) => "bundle",
            Self::Fetch(_) => "fetch",
            Self::Emulate(_) => "emulate",
            Self::Import(_) => "import",
            Self::Phantom(_) => "phantom",
            Self::Completions(_) => "completions",
            Self::Man(_) => "man",
        }
    }

    /// Whether the subcommand draws its own output on a terminal.
    fn draws(&self) -> bool {
        matches!(self, Self::Run(_) | Self::Models(_) | Self::Fetch(_) | Self::Import(_))
    }

    /// Whether the flags request JSON, including for errors.
    fn wants_json(&self) -> bool {
        match self {
            Self::Run(args) => args.format.json,
            Self::Models(args) => args.format.json,
            _ => false,
        }
    }
}

/// Runs the program with the process's arguments and environment.
pub fn main() -> ExitCode {
    memory::map_large_blocks();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return exit::usage(&error),
    };
    let form = match cli.command.wants_json() {
        true => LogFormat::Json,
        false => cli.log.log_format,
    };
    let subcommand = cli.command.name();
    let result = execute(cli);
    progress::clear();
    result.unwrap_or_else(|error| exit::failure(&error, form, subcommand))
}

fn execute(cli: Cli) -> Result<ExitCode> {
    let variables = std::env::vars_os().map(|(name, _)| name.to_string_lossy().into_owned());
    refuse_unknown_variables(&Cli::command(), variables)?;
    let quiet = std::io::stderr().is_terminal() && cli.command.draws();
    telemetry::init(&cli.log, if quiet { "warn" } else { "info" }, console::LogLines::writer)?;
    match cli.command {
        Command::Serve(args) => serve::serve(*args).map(exit::drained),
        Command::Ping(args) => ping::run(&args).map(|()| ExitCode::SUCCESS),
        Command::Run(args) => to_the_end(run::run(*args)),
        Command::Models(args) => models::run(&args).map(|()| ExitCode::SUCCESS),
        Command::Bundle(args) => to_the_end(check::run(args)),
        Command::Fetch(args) => to_the_end(fetch::run(args)),
        Command::Emulate(args) => to_the_end(args.run()),
        Command::Import(args) => to_the_end(args.run()),
        Command::Phantom(args) => to_the_end(args.run()),
        Command::Completions(args) => {
            shell::completions(&args, Cli::command()).map(|()| ExitCode::SUCCESS)
        }
        Command::Man(args) => shell::man(&args, Cli::command()).map(|()| ExitCode::SUCCESS),
    }
}

/// Runs a subcommand on a runtime until it returns.
fn to_the_end(command: impl Future<Output = Result<()>>) -> Result<ExitCode> {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let runtime = runtime("main", cores)?;
    let result = runtime.block_on(command);
    runtime.shutdown_background();
    result.map(|()| ExitCode::SUCCESS)
}

/// Creates a runtime whose threads are named `name`.
fn runtime(name: &str, threads: usize) -> Result<Runtime> {
    Builder::new_multi_thread()
        .worker_threads(threads)
        .thread_name(name)
        .enable_all()
        .build()
        .map_err(|e| Error::internal("threads cannot be started").caused_by(e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn sagemakers_one_word_is_enough() {
        let cli = Cli::try_parse_from(["ahi-inference", "serve"]).unwrap();
        assert!(matches!(cli.command, Command::Serve(_)));
        assert_eq!(cli.command.name(), "serve");
        assert_eq!(cli.log.log_format, LogFormat::Auto);
    }
}
