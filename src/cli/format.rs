//! Selects the output format: for people or for programs.

use std::io::IsTerminal;

use clap::Args;

use crate::error::{Error, ErrorKind, Result};

/// Flags about what is printed.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Printing")]
pub struct FormatArgs {
    /// Print JSON, errors included, as is done where standard output is no terminal
    #[arg(long, env = "PRINT_JSON")]
    pub json: bool,
    /// Print a table, as is done on a terminal
    #[arg(long, env = "PRINT_TABLE")]
    pub table: bool,
}

/// The output format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    /// For programs.
    Json,
    /// For people.
    Table,
}

impl FormatArgs {
    /// Returns the format requested by the flags, or by default the one that suits standard output.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`] if both are requested.
    pub(super) fn chosen(&self) -> Result<Format> {
        match (self.json, self.table) {
            (true, true) => Err(Error::new(
                ErrorKind::Configuration,
                "--json (PRINT_JSON) and --table (PRINT_TABLE) exclude each other; give one of them",
            )),
            (true, false) => Ok(Format::Json),
            (false, true) => Ok(Format::Table),
            (false, false) if std::io::stdout().is_terminal() => Ok(Format::Table),
            (false, false) => Ok(Format::Json),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_say_what_is_printed() {
        let chosen = |json, table| FormatArgs { json, table }.chosen();
        assert_eq!(chosen(true, false).unwrap(), Format::Json);
        assert_eq!(chosen(false, true).unwrap(), Format::Table);
        assert_eq!(chosen(true, true).unwrap_err().kind(), ErrorKind::Configuration);
    }
}
