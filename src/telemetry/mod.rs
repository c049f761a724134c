//! Logging, metrics and traces.
//!
//! Lines go to standard error, by way of whoever draws there, too: JSON in a container, text on a terminal. Every line written while a
//! request is worked on carries that request's identifiers through its span. Lines below the level
//! `info` are taken from this crate alone: the AWS clients write whole answers at `trace`, and the
//! metadata of an image set holds a patient's name. Lines of the target [`AUDIT`] are always written.

mod calls;
pub mod metrics;
mod namer;
pub mod traces;

use std::any::Any;
use std::io::{IsTerminal, Write};
use std::panic::PanicHookInfo;

use tracing::{Level, Metadata};
use tracing_subscriber::filter::{EnvFilter, FilterExt, LevelFilter, filter_fn};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, fmt};

pub use metrics::Metrics;
pub use traces::Trace;

use crate::config::LogArgs;
use crate::error::{Error, ErrorKind, Result};

/// Target of the audit's lines, which are written whatever the log's level is.
pub const AUDIT: &str = "audit";

/// Starts logging for the whole process, from the level `usual` on where nothing else is said, each line to a writer that `lines` makes for it, and sends panics to the
/// log.
///
/// # Errors
/// [`ErrorKind::Configuration`] where the filter is malformed or logging was started before.
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
    // ONNX Runtime tells of each of its allocations at the level `info`.
    let most = if metadata.target().starts_with("ort::") { Level::WARN } else { Level::INFO };
    // The local S3's library writes every refusal as an error, and whole requests with it.
    if matches!(metadata.target().split("::").next(), Some("s3s" | "s3s_fs")) {
        return false;
    }
    // A line names the innermost span alone, which has to be ours: it carries the identifiers.
    ours || (metadata.is_event() && *metadata.level() <= most)
}

fn log_panic(info: &PanicHookInfo<'_>) {
    let location = info.location().map(ToString::to_string).unwrap_or_default();
    let payload = literal(info.payload());
    tracing::error!(location, payload, "panic");
}

/// The message of a panic where it is a literal of the source. A formatted one may hold data.
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
