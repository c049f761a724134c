//! Settings of results.

use clap::builder::BoolishValueParser;
use clap::{ArgAction, Args};

/// Flags about results.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Results")]
pub struct ResultArgs {
    /// Give the DICOM objects of every request UIDs of their own. Otherwise UIDs are derived from the
    /// model and the images, so that the same request makes the same instances
    #[arg(long, env = "FRESH_UIDS", value_name = "BOOL", action = ArgAction::Set, num_args = 0..=1,
          require_equals = true, default_value = "false", default_missing_value = "true",
          value_parser = BoolishValueParser::new())]
    pub fresh_uids: bool,
}
