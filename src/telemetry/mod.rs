//! Logging and metrics.
//!
//! Log lines go to standard error, through the progress bar if one is drawn: JSON in a container,
//! text on a terminal. Every line logged for a request carries its identifiers through the
//! request's span. Lines below the level `info` are logged for this crate only: the AWS clients log
//! whole responses at `trace`, and the metadata of an image set contains the patient's name. Lines
//! with the target [`AUDIT`] are always logged.

mod calls;
pub mod metrics;
mod namer;

use std::any::Any;
use std::io::{IsTerminal, Write};
use std::panic::PanicHookInfo;

use tracing::{Level, Metadata};
use tracing_subscriber::filter::{EnvFilter, FilterExt, LevelFilter, filter_fn};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, fmt};

pub use metrics::Metrics;

use crate::config::LogArgs;
use crate::error::{Error, ErrorKind, Result};

/// Target of audit lines, which are logged whatever the log level.
pub const AUDIT: &str = "audit";

/// Initializes logging for the whole process. `usual` is the default filter; `lines` creates the
/// writer of each line. Panics are logged, too.
///
/// # Errors
/// [`ErrorKind::Configuration`] if the filter is malformed or logging has already been initialized.
pub fn init(args: &LogArgs, usual: &str, lines: fn() -> Box<dyn Write>) -> Result<()> {
    let filter = EnvFilter::try_new(args.log_level.as_deref().unwrap_or(usual)).map_err(|e| {
        Error::new(ErrorKind::Configuration, format!("--log-level: not a filter: {e}"))
    })?;
    let filter = filter.and(filter_fn(may_be_logged));
    let audit = filter_fn(|metadata| metadata.target() == AUDIT);
    let filter = filter.or(audit.with_max_level_hint(LevelFilter::INFO));
    let terminal = std::io::stderr().is_terminal();
    let layer = fmt::layer().with_writer(lines).with_ansi(terminal);
    let layer = if args.log_format.is_json(terminal) {
        layer.json().flatten_event(true).with_span_list(false).with_filter(filter).boxed()
    } else {
        layer.with_filter(filter).boxed()
    };
    tracing_subscriber::registry().with(layer).try_init().map_err(|e| {
        Error::new(ErrorKind::Configuration, "logging was started twice").caused_by(e)
    })?;
    std::panic::set_hook(Box::new(log_panic));
    Ok(())
}

fn may_be_logged(metadata: &Metadata<'_>) -> bool {
    let ours = metadata.target().split("::").next() == Some(env!("CARGO_CRATE_NAME"));
    // ONNX Runtime logs each allocation at the level `info`.
    let most = if metadata.target().starts_with("ort::") { Level::WARN } else { Level::INFO };
    // The library of the local S3 logs every rejection as an error, together with the whole
    // request.
    if matches!(metadata.target().split("::").next(), Some("s3s" | "s3s_fs")) {
        return false;
    }
    // A line contains only the innermost span, which must be ours: it carries the identifiers.
    ours || (metadata.is_event() && *metadata.level() <= most)
}

fn log_panic(info: &PanicHookInfo<'_>) {
    let location = info.location().map(ToString::to_string).unwrap_or_default();
    let payload = literal(info.payload());
    tracing::error!(location, payload, "panic");
}

/// Returns the message of a panic if it is a string literal. A formatted message may contain data.
fn literal(payload: &dyn Any) -> &'static str {
    payload.downcast_ref::<&'static str>().copied().unwrap_or("(message left out)")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formatted_panic_messages_are_left_out() {
        let name = "Doe^Jane".to_owned();
        let payload = std::panic::catch_unwind(|| panic!("patient {name}")).unwrap_err();
        assert_eq!(literal(payload.as_ref()), "(message left out)");
        let payload = std::panic::catch_unwind(|| panic!("a defect")).unwrap_err();
        assert_eq!(literal(payload.as_ref()), "a defect");
    }
}
