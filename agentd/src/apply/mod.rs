//! The root half of the agent: verifies configuration, writes units, talks to systemd.

use model::Exit;

/// Serves the apply socket until idle.
#[must_use]
pub fn main() -> Exit {
    Exit::Failed
}

/// Replays an unfinished apply and repairs drift once.
#[must_use]
pub fn reconcile() -> Exit {
    Exit::Failed
}
