//! The jobs that systemd starts: run, restore, browse, dump, load.

mod account;
mod configuration;
mod dump;
mod environment;
mod load;
mod monitor;
mod requests;
mod run;

use model::{Exit, ScheduleName};

use environment::Paths;

/// Backs up one schedule.
#[must_use]
pub fn run(schedule: &ScheduleName) -> Exit {
    crate::log::begin();
    run::run(schedule, &Paths::installed())
}

/// Records the end of a job that could not do so itself.
#[must_use]
pub fn record_end(schedule: &ScheduleName) -> Exit {
    crate::log::begin();
    run::record_end(schedule, &Paths::installed())
}

/// Does the queued restores of one schedule.
#[must_use]
pub fn restore(schedule: &ScheduleName) -> Exit {
    crate::log::begin();
    requests::restore(schedule, &Paths::installed())
}

/// Does the queued listings and checks of one schedule.
#[must_use]
pub fn browse(schedule: &ScheduleName) -> Exit {
    crate::log::begin();
    requests::browse(schedule, &Paths::installed())
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
