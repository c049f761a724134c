//! Process exit: the exit codes and the final error message.
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

use super::console::shown;
use super::hints;
use crate::config::LogFormat;
use crate::error::{Error, ErrorKind};
use crate::scheduler::Drained;

const FAILED: u8 = 1;
const USAGE: u8 = 2;
const CANCELLED: u8 = 3;

/// How an error is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// A JSON object, for programs.
    Json,
    /// A line, for logs.
    Line,
    /// Sentences with hints, for people.
    Sentences,
}

impl Form {
    /// Returns the form for `format`, depending on whether standard error is a terminal.
    fn of(format: LogFormat, terminal: bool) -> Self {
        match (format.is_json(terminal), terminal) {
            (true, _) => Self::Json,
            (false, true) => Self::Sentences,
            (false, false) => Self::Line,
        }
    }
}

/// Exits after flags rejected by clap, or after `--help` and `--version`.
pub(super) fn usage(error: &clap::Error) -> ExitCode {
    let json = std::env::args_os().any(|argument| argument == "--json");
    let people = std::io::stderr().is_terminal() && !json;
    if !error.use_stderr() || people {
        // If this fails, nothing can be reported.
        let _ = error.print();
    } else {
        let words = error.render().to_string();
        let words: Vec<&str> = words.split_whitespace().collect();
        let error = Error::new(ErrorKind::Configuration, words.join(" "));
        eprintln!("{}", told(&error, Form::Json, ""));
    }
    if error.use_stderr() { ExitCode::from(USAGE) } else { ExitCode::SUCCESS }
}

/// Exits `subcommand` with an error printed to standard error.
pub(super) fn failure(error: &Error, format: LogFormat, subcommand: &str) -> ExitCode {
    let form = Form::of(format, std::io::stderr().is_terminal());
    eprintln!("{}", told(error, form, subcommand));
    match error.kind() {
        ErrorKind::Configuration => ExitCode::from(USAGE),
        _ => ExitCode::from(FAILED),
    }
}

/// Exits after a server was told to stop.
pub(super) fn drained(drained: Drained) -> ExitCode {
    match drained {
        Drained::Finished => ExitCode::SUCCESS,
        Drained::Cancelled(_) => ExitCode::from(CANCELLED),
    }
}

fn told(error: &Error, form: Form, subcommand: &str) -> String {
    let code = error.kind().code();
    let first = std::error::Error::source(error);
    let causes: Vec<String> =
        std::iter::successors(first, |e| e.source()).map(ToString::to_string).collect();
    match form {
        Form::Json => json!({
            "level": "ERROR",
            "code": code,
            "message": error.message(),
            "details": error.details(),
            "causes": causes,
        })
        .to_string(),
        Form::Line => {
            let parts = std::iter::once(error.message()).chain(causes.iter().map(String::as_str));
            let text = parts.collect::<Vec<_>>().join(": ").replace('\n', " ");
            format!("error ({code}): {text}")
        }
        Form::Sentences => {
            let mut lines = vec![format!("error: {}", shown(error.message()))];
            lines.extend(causes.iter().map(|cause| format!("  because: {}", shown(cause))));
            let hints = hints::of(error, subcommand);
            lines.extend(hints.iter().map(|hint| format!("hint: {hint}")));
            lines.join("\n")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error() -> Error {
        let below = std::io::Error::other("a\nb\x1b[2J");
        Error::new(ErrorKind::Configuration, "cannot read").with("path", "x").caused_by(below)
    }

    #[test]
    fn the_last_line_of_a_log_is_one_line() {
        let line = told(&error(), Form::Line, "run");
        assert!(line.starts_with("error (configuration): cannot read: a b"), "{line}");
        let json = told(&error(), Form::Json, "run");
        assert!(!json.contains('\n'));
        let json: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(json["code"], "configuration");
        assert_eq!(json["causes"][0], "a\nb\x1b[2J");
    }

    #[test]
    fn at_a_terminal_errors_are_sentences() {
        let text = told(&error(), Form::Sentences, "run");
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "error: cannot read");
        assert_eq!(lines[1], "  because: a\\nb\\u{1b}[2J");
        assert!(lines[2].starts_with("hint: `ahi-inference run --help`"), "{text}");
    }

    #[test]
    fn programs_and_logs_get_theirs() {
        assert_eq!(Form::of(LogFormat::Auto, true), Form::Sentences);
        assert_eq!(Form::of(LogFormat::Auto, false), Form::Json);
        assert_eq!(Form::of(LogFormat::Json, true), Form::Json);
        assert_eq!(Form::of(LogFormat::Text, false), Form::Line);
    }
}
