//! The `posthouse` binary: everything is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    posthouse::cli::main()
}
