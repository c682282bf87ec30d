//! The network half of the agent: fetches generations and commands, delivers results.

use model::Exit;

/// Runs until it is told to stop.
#[must_use]
pub fn main() -> Exit {
    Exit::Failed
}
