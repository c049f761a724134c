//! The `ahi-inference` program; all of it is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    ahi_inference::cli::main()
}
