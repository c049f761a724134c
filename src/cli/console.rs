//! What the process writes for people: lines that do not break progress bars, and text from outside in a form that
//! a terminal only shows.

use std::io::{self, IsTerminal, Write};
use std::sync::LazyLock;

use indicatif::MultiProgress;

use crate::error::{Error, ErrorKind, Result};

/// All progress bars of the process; hidden where standard error is no terminal.
pub(super) static BARS: LazyLock<MultiProgress> = LazyLock::new(MultiProgress::new);

/// Columns of a terminal that does not say how many it has.
const USUAL_WIDTH: u16 = 80;

/// Standard error for log lines, above the bars that are drawn.
#[derive(Debug)]
pub(super) struct LogLines {
    terminal: bool,
}

impl LogLines {
    /// For the logging of the process.
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

/// Prints `text` and a line end. Whoever reads it may have stopped, which is no error.
///
/// # Errors
/// [`ErrorKind::Io`] where standard output cannot be written.
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

/// Columns of the terminal that standard output is.
pub(super) fn width() -> u16 {
    let size = terminal_size::terminal_size_of(io::stdout());
    size.map_or(USUAL_WIDTH, |(width, _)| width.0)
}

/// `text` with whatever could act on a terminal written out: control characters and those that change the
/// direction of writing. Names of files and texts of DICOM objects may hold any.
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
