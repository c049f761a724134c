//! Connection settings: their number and the clients' time limits.

use std::fs;
use std::time::Duration;

use clap::Args;

use super::parse::{bounded, seconds};
use super::wrong;
use crate::error::Result;

/// Connections beyond the limit, reserved for health probes.
pub const PROBE_CONNECTIONS: usize = 64;

/// File descriptors that the process needs besides client connections: libraries, logs, temporary
/// files and AWS connections.
const OTHER_FILES: usize = 256;

/// Default connection limit.
const USUAL_CONNECTIONS: usize = 1024;

/// Flags of connections.
#[derive(Debug, Clone, Args)]
pub struct ConnectionArgs {
    /// Connections of clients at once; beyond them, those that ask for nothing are closed, and what is
    /// no health probe is refused with 503 [default: 1024, as far as the limit of open files allows]
    #[arg(long, env = "MAX_CONNECTIONS", value_name = "N", value_parser = bounded::<1, 65_536>)]
    pub max_connections: Option<usize>,
    /// Time in which the headers of a request have to arrive
    #[arg(long, env = "HEADER_TIMEOUT", default_value = "10", value_name = "SECONDS",
          value_parser = seconds)]
    pub header_timeout: Duration,
    /// Time after which a connection on which nothing is asked is closed
    #[arg(long, env = "KEEP_ALIVE_TIMEOUT", default_value = "75", value_name = "SECONDS",
          value_parser = seconds)]
    pub keep_alive_timeout: Duration,
    /// Time in which a body or an answer has to get on by what MIN_TRANSFER_RATE makes of it
    #[arg(long, env = "TRANSFER_TIMEOUT", default_value = "30", value_name = "SECONDS",
          value_parser = seconds)]
    pub transfer_timeout: Duration,
    /// Bytes per second that a client has to send and to receive, over TRANSFER_TIMEOUT
    #[arg(long, env = "MIN_TRANSFER_RATE", default_value = "1024", value_name = "BYTES",
          value_parser = bounded::<1, { 1 << 30 }>)]
    pub min_transfer_rate: usize,
    /// Time that a body waits where other bodies hold all memory there is for them
    #[arg(long, env = "BODY_WAIT", default_value = "10", value_name = "SECONDS",
          value_parser = seconds)]
    pub body_wait: Duration,
}

/// Limits of client connections.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectionSettings {
    /// Maximum number of concurrent connections, not counting the reserve for health probes.
    pub most: usize,
    /// Time limit for the headers of a request.
    pub header_timeout: Duration,
    /// Time limit of an idle connection.
    pub keep_alive_timeout: Duration,
    /// Minimum pace of request and response bodies.
    pub pace: Pace,
    /// How long a body waits for memory.
    pub body_wait: Duration,
}

/// Minimum progress of a transfer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// A window of time spent waiting for the peer.
    pub window: Duration,
    /// Bytes that have to be transferred in the window, at least 1.
    pub bytes: usize,
}

impl Pace {
    /// Returns the pace of `rate` bytes per second over `window`.
    pub fn of(window: Duration, rate: usize) -> Self {
        let bytes = window.as_secs_f64() * rate as f64;
        // Float-to-integer casts saturate.
        Self { window, bytes: (bytes as usize).max(1) }
    }
}

impl Default for ConnectionSettings {
    fn default() -> Self {
        Self {
            most: USUAL_CONNECTIONS,
            header_timeout: Duration::from_secs(10),
            keep_alive_timeout: Duration::from_secs(75),
            pace: Pace::of(Duration::from_secs(30), 1024),
            body_wait: Duration::from_secs(10),
        }
    }
}

impl ConnectionArgs {
    /// Validates the flags against each other and against the limit of open files.
    pub(super) fn settings(self) -> Result<ConnectionSettings> {
        for (flag, time) in [
            ("--header-timeout", self.header_timeout),
            ("--keep-alive-timeout", self.keep_alive_timeout),
            ("--transfer-timeout", self.transfer_timeout),
        ] {
            if time.is_zero() {
                return Err(wrong(flag, "must be more than 0 seconds"));
            }
        }
        Ok(ConnectionSettings {
            most: most(self.max_connections, open_files())?,
            header_timeout: self.header_timeout,
            keep_alive_timeout: self.keep_alive_timeout,
            pace: Pace::of(self.transfer_timeout, self.min_transfer_rate),
            body_wait: self.body_wait,
        })
    }
}

/// Returns the connection limit for a process that may have `files` files open.
fn most(asked: Option<usize>, files: Option<usize>) -> Result<usize> {
    let room = files.map_or(usize::MAX, |n| n.saturating_sub(PROBE_CONNECTIONS + OTHER_FILES));
    match asked {
        Some(n) if n > room => Err(wrong(
            "--max-connections",
            format!(
                "{n} connections, {PROBE_CONNECTIONS} for probes and {OTHER_FILES} other files are \
                 more than the {} that may be open; raise that limit (ulimit -n)",
                files.unwrap_or(usize::MAX)
            ),
        )),
        Some(n) => Ok(n),
        None => Ok(USUAL_CONNECTIONS.min(room.max(1))),
    }
}

/// Returns the limit of open files, if known.
fn open_files() -> Option<usize> {
    let limits = fs::read_to_string("/proc/self/limits").ok()?;
    let line = limits.lines().find_map(|l| l.strip_prefix("Max open files"))?;
    // `unlimited` does not parse, and means no limit.
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_fit_into_the_limit_of_open_files() {
        assert_eq!(most(None, None).unwrap(), 1024);
        assert_eq!(most(None, Some(1024)).unwrap(), 704);
        assert_eq!(most(None, Some(100)).unwrap(), 1);
        assert_eq!(most(Some(5000), Some(1 << 20)).unwrap(), 5000);
        let error = most(Some(1000), Some(1024)).unwrap_err();
        assert!(error.message().contains("--max-connections"), "{error}");
        assert!(open_files().is_none_or(|n| n > 0));
    }

    #[test]
    fn a_pace_is_a_rate_over_its_window() {
        assert_eq!(Pace::of(Duration::from_secs(30), 1024).bytes, 30 * 1024);
        assert_eq!(Pace::of(Duration::from_millis(1), 1).bytes, 1);
    }
}
