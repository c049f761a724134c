//! Console output for people: lines that do not break progress bars, and external text escaped for
//! the terminal.

use std::io::{self, IsTerminal, Write};
use std::sync::LazyLock;

use indicatif::MultiProgress;

use crate::error::{Error, ErrorKind, Result};

/// All progress bars of the process; hidden if standard error is not a terminal.
pub(super) static BARS: LazyLock<MultiProgress> = LazyLock::new(MultiProgress::new);

/// Columns assumed if the terminal does not report its width.
const USUAL_WIDTH: u16 = 80;

/// Writes log lines to standard error, above the progress bars.
#[derive(Debug)]
pub(super) struct LogLines {
    terminal: bool,
}

impl LogLines {
    /// Creates the writer for the logging of the process.
    pub fn writer() -> Box<dyn Write> {
        Box::new(Self { terminal: io::stderr().is_terminal() })
    }
}

impl Write for LogLines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.terminal {
            true => BARS.suspend(|| io::stderr().write(bytes)),
            false => io::stderr().write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

/// Prints `text` and a line end. A closed pipe is not an error.
///
/// # Errors
/// [`ErrorKind::Io`] if standard output cannot be written.
pub(super) fn print(text: &str) -> Result<()> {
    let mut out = io::stdout().lock();
    let text = text.trim_end_matches('\n');
    match writeln!(out, "{text}").and_then(|()| out.flush()) {
        Err(e) if e.kind() != io::ErrorKind::BrokenPipe => {
            let message = format!("standard output cannot be written: {}", e.kind());
            Err(Error::new(ErrorKind::Io, message).caused_by(e))
        }
        _ => Ok(()),
    }
}

/// Returns the number of columns of the terminal at standard output.
pub(super) fn width() -> u16 {
    let size = terminal_size::terminal_size_of(io::stdout());
    size.map_or(USUAL_WIDTH, |(width, _)| width.0)
}

/// Escapes characters that a terminal interprets: control characters and those that change the
/// writing direction. File names and text in DICOM objects may contain any.
pub(super) fn shown(text: &str) -> String {
    let acts = |c: char| {
        c.is_control()
            || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if acts(c) {
            shown.extend(c.escape_default());
        } else {
            shown.push(c);
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_is_shown_acts_on_a_terminal() {
        assert_eq!(shown("Fígado 肝"), "Fígado 肝");
        assert_eq!(shown("a\x1b[2Jb\r\n\u{9b}c"), "a\\u{1b}[2Jb\\r\\n\\u{9b}c");
        assert_eq!(shown("\u{202e}dcm.exe"), "\\u{202e}dcm.exe");
    }
}
