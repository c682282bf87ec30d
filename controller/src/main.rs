//! The `backstay-controller` program.

use std::process::ExitCode;

fn main() -> ExitCode {
    controller::main()
}
