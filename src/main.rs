//! The `ahi-inference` program; see `cli` for its subcommands.

use std::process::ExitCode;

fn main() -> ExitCode {
    ahi_inference::cli::main()
}
