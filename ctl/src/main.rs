//! The `backstayctl` program.

use std::process::ExitCode;

fn main() -> ExitCode {
    safefs::give_large_blocks_back();
    ctl::main()
}
