//! The `backstay-agentd` program.

use std::process::ExitCode;

fn main() -> ExitCode {
    agentd::main()
}
