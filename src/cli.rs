//! Subcommands and their flags.
