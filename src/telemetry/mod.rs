//! Logging: JSON lines in a container, readable on a terminal, always on standard error. Lines carry
//! UIDs and identifiers, never patient attributes.

use std::io::IsTerminal;

use clap::{Args, ValueEnum};
use tracing_subscriber::EnvFilter;

use crate::error::{Error, ErrorKind, Result};

/// Settings of logging.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Logging")]
pub struct LogArgs {
    /// What is logged, as `tracing` filters are written: info, or ahi_inference=debug,warn.
    #[arg(long, env = "LOG", default_value = "info,ort=warn,aws_config=warn", global = true, value_name = "FILTER")]
    pub log: String,
    /// How lines are written.
    #[arg(long, env = "LOG_FORMAT", default_value = "auto", value_enum, global = true)]
    pub log_format: LogFormat,
}

/// Forms of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// Text on a terminal, else JSON.
    Auto,
    /// One JSON object a line.
    Json,
    /// Text.
    Text,
}

/// Starts logging. Called once.
///
/// # Errors
///
/// [`ErrorKind::Configuration`] where the filter cannot be read.
pub fn init(args: &LogArgs) -> Result<()> {
    let filter = EnvFilter::try_new(&args.log).map_err(|e| {
        Error::new(ErrorKind::Configuration, format!("--log {:?} is no filter: {e}", args.log))
    })?;
    let json = match args.log_format {
        LogFormat::Json => true,
        LogFormat::Text => false,
        LogFormat::Auto => !std::io::stderr().is_terminal(),
    };
    let builder =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let started = if json {
        builder.json().flatten_event(true).with_current_span(true).with_span_list(false).try_init()
    } else {
        builder.with_ansi(std::io::stderr().is_terminal()).try_init()
    };
    started.map_err(|e| Error::internal("logging was started twice").caused_by(e))
}
