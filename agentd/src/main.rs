//! The `backstay-agentd` program.

use std::process::ExitCode;

fn main() -> ExitCode {
    safefs::give_large_blocks_back();
    agentd::main()
}
