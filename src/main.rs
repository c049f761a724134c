//! The `ahi-inference` program; all of it is in the library.

use std::process::ExitCode;

use ahi_inference::memory::parachute::Parachute;

#[global_allocator]
static ALLOCATOR: Parachute = Parachute;

fn main() -> ExitCode {
    ahi_inference::cli::main()
}
