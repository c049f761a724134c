//! How the process ends: its exit codes and its last line.
//!
//! | code | meaning |
//! |---|---|
//! | 0 | done |
//! | 1 | failed |
//! | 2 | flags, environment or set-up are wrong |
//! | 3 | told to stop, and requests were still running when their time was up |

use std::io::IsTerminal;
use std::process::ExitCode;

use serde_json::json;

use crate::config::LogFormat;
use crate::error::{Error, ErrorKind};
use crate::scheduler::Drained;

const FAILED: u8 = 1;
const USAGE: u8 = 2;
const CANCELLED: u8 = 3;

/// Ends after flags that clap refused, or after `--help` and `--version`.
pub(super) fn usage(error: &clap::Error) -> ExitCode {
    let terminal = std::io::stderr().is_terminal();
    if !error.use_stderr() || terminal {
        // Nothing is left to be done where not even this can be written.
        let _ = error.print();
    } else {
        let words = error.render().to_string();
        let words: Vec<&str> = words.split_whitespace().collect();
        let error = Error::new(ErrorKind::Configuration, words.join(" "));
        eprintln!("{}", line(&error, true));
    }
    if error.use_stderr() { ExitCode::from(USAGE) } else { ExitCode::SUCCESS }
}

/// Ends after an error, with one line on standard error that says what it was.
pub(super) fn failure(error: &Error, format: LogFormat) -> ExitCode {
    let json = format.is_json(std::io::stderr().is_terminal());
    eprintln!("{}", line(error, json));
    match error.kind() {
        ErrorKind::Configuration => ExitCode::from(USAGE),
        _ => ExitCode::from(FAILED),
    }
}

/// Ends after a server that was told to stop.
pub(super) fn drained(drained: Drained) -> ExitCode {
    match drained {
        Drained::Finished => ExitCode::SUCCESS,
        Drained::Cancelled(_) => ExitCode::from(CANCELLED),
    }
}

fn line(error: &Error, as_json: bool) -> String {
    let code = error.kind().code();
    let first = std::error::Error::source(error);
    let causes: Vec<String> =
        std::iter::successors(first, |e| e.source()).map(ToString::to_string).collect();
    if as_json {
        return json!({
            "level": "ERROR",
            "code": code,
            "message": error.message(),
            "details": error.details(),
            "causes": causes,
        })
        .to_string();
    }
    let parts = std::iter::once(error.message()).chain(causes.iter().map(String::as_str));
    let text = parts.collect::<Vec<_>>().join(": ").replace('\n', " ");
    format!("error ({code}): {text}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_is_one_line() {
        let below = std::io::Error::other("a\nb");
        let error = Error::new(ErrorKind::Io, "cannot read").with("path", "x").caused_by(below);
        assert_eq!(line(&error, false), "error (io): cannot read: a b");
        let json: serde_json::Value = serde_json::from_str(&line(&error, true)).unwrap();
        assert_eq!(json["code"], "io");
        assert_eq!(json["causes"][0], "a\nb");
        assert!(!line(&error, true).contains('\n'));
    }
}
