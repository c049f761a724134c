//! Log settings.

use clap::{Args, ValueEnum};

/// Flags about logs, the same for every subcommand.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Logs")]
pub struct LogArgs {
    /// error, warn, info, debug or trace, or a filter such as `info,ahi_inference::source=debug` [default: info;
    /// warn for commands that draw their progress on a terminal]
    #[arg(long, env = "LOG_LEVEL", value_name = "FILTER", global = true)]
    pub log_level: Option<String>,
    /// How log lines look
    #[arg(
        long,
        env = "LOG_FORMAT",
        value_enum,
        default_value_t,
        value_name = "FORMAT",
        global = true
    )]
    pub log_format: LogFormat,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum LogFormat {
    /// Text on a terminal, JSON elsewhere.
    #[default]
    Auto,
    /// One line of text per event.
    Text,
    /// One JSON object per line.
    Json,
}

impl LogFormat {
    /// Whether log lines are JSON, depending on whether standard error is a terminal.
    pub fn is_json(self, stderr_is_terminal: bool) -> bool {
        match self {
            Self::Auto => !stderr_is_terminal,
            Self::Text => false,
            Self::Json => true,
        }
    }
}
