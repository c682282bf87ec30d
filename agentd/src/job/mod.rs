//! The jobs that systemd starts: run, restore, browse, dump, load.

mod account;
mod configuration;
mod dump;
mod ended;
mod environment;
mod load;
mod monitor;
mod order;
mod owed;
mod requests;
mod run;

use std::path::Path;

use edge::Clock as _;
use ledger::Ledger;
use model::{Exit, ScheduleName};

use environment::{Invocation, Paths, SystemClock};

/// Ends what dead jobs left open in the ledger: each run and each command has its end. What cannot
/// be ended now is ended by whoever comes next.
pub(crate) fn end_dead_work(ledger: &mut Ledger) {
    match ledger.end_dead_work(&requests::KINDS, SystemClock.now()) {
        Ok(ended) if ended == ledger::Ended::default() => {}
        Ok(ended) => tracing::warn!(
            runs = ended.runs,
            commands = ended.commands,
            "work of dead jobs was recorded as failed"
        ),
        Err(error) => tracing::warn!("ending dead work: {}", crate::log::chain(&error)),
    }
}

/// Notes that the server is on, and gives what was due of schedules that are gone its record.
/// What fails now is done by whoever comes next.
pub(crate) fn settle_ended(ledger: &mut Ledger, root: &Path) {
    let now = SystemClock.now();
    let invocation = Invocation::read(now);
    let settled = ended::witness(ledger, &invocation, now).and_then(|witness| {
        let all = crate::configuration::ended(root);
        ended::settle_ended(ledger, &all, &witness, now)
    });
    if let Err(error) = settled {
        tracing::warn!(
            "settling what removed schedules owe: {}",
            crate::log::chain(&error)
        );
    }
}

/// Backs up one schedule.
#[must_use]
pub fn run(schedule: &ScheduleName) -> Exit {
    run::run(schedule, &Paths::installed())
}

/// Records the end of a job that could not do so itself.
#[must_use]
pub fn record_end(schedule: &ScheduleName) -> Exit {
    run::record_end(schedule, &Paths::installed())
}

/// Does the queued restores of one schedule.
#[must_use]
pub fn restore(schedule: &ScheduleName) -> Exit {
    requests::restore(schedule, &Paths::installed())
}

/// Does the queued listings and checks of one schedule.
#[must_use]
pub fn browse(schedule: &ScheduleName) -> Exit {
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
