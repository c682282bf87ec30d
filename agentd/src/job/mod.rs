//! The jobs that systemd starts: run, restore, browse, dump, load.

mod dump;
mod load;

use model::{Exit, ScheduleName};

/// Backs up one schedule.
#[must_use]
pub fn run(_schedule: &ScheduleName) -> Exit {
    Exit::Failed
}

/// Records the end of a job that could not do so itself.
#[must_use]
pub fn record_end(_schedule: &ScheduleName) -> Exit {
    Exit::Failed
}

/// Does the queued restores of one schedule.
#[must_use]
pub fn restore(_schedule: &ScheduleName) -> Exit {
    Exit::Failed
}

/// Does the queued listings and checks of one schedule.
#[must_use]
pub fn browse(_schedule: &ScheduleName) -> Exit {
    Exit::Failed
}

/// Serves one database dump.
#[must_use]
pub fn dump() -> Exit {
    dump::serve()
}

/// Serves one database load.
#[must_use]
pub fn load() -> Exit {
    load::serve()
}
