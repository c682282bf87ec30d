//! `backstay-agentd run NAME`: one run of one schedule, from systemd's start to the ledger's row.

use std::time::Duration;

use edge::Clock as _;
use ledger::{Claim, Ledger, LedgerError, Progress, RunStart, cut_off};
use model::{ByteCount, Exit, RunRecord, RunState, ScheduleName};
use ops::{BackupOutcome, BackupPlan, RunDestination, ScheduleKey, StorePlace, back_up_schedule};
use sd_notify::NotifyState;
use settings::{Schedule, Settings};

use super::account::{self, Planned};
use super::configuration;
use super::environment::{Invocation, Paths, SystemClock, SystemEntropy};
use super::monitor::{JobMonitor, notify};
use super::requests::KINDS;
use crate::log::chain;

/// How often the end of a run is written before it is given up.
const FINISH_ATTEMPTS_MAX: u32 = 5;

/// The pause before it is tried again.
const FINISH_AGAIN: Duration = Duration::from_secs(3);

/// Runs a schedule once.
pub(super) fn run(name: &ScheduleName, paths: &Paths) -> Exit {
    notify(&[NotifyState::Ready, NotifyState::Status("opening")]);
    let invocation = Invocation::read(SystemClock.now());
    let mut ledger = match Ledger::open(&paths.ledger) {
        Ok(ledger) => ledger,
        Err(error) => {
            tracing::error!(
                "cannot back up {name}: {}; nothing was begun",
                chain(&error)
            );
            return Exit::Failed;
        }
    };
    // Held until the run has its end: it tells others that the run's process lives.
    let _claim = claim(&ledger, name);
    super::end_dead_work(&mut ledger);
    super::settle_ended(&mut ledger, &paths.root);
    let settings = configuration::load();
    let begun = begin(&mut ledger, name, settings.as_ref().ok(), &invocation);
    let start = match begun {
        Ok(start) => start,
        Err(error) => {
            tracing::error!(
                "cannot back up {name}: {}; nothing was begun",
                chain(&error)
            );
            return Exit::Failed;
        }
    };
    let monitor = JobMonitor::begin(progress(&start), &paths.ledger);
    let outcome = match &settings {
        Ok(settings) => work(name, settings, &invocation, paths, &monitor),
        Err(error) => Err(format!("the configuration cannot be read: {error}")),
    };
    let record = record(&start, outcome, &monitor);
    drop(monitor);
    match finish(&mut ledger, &record) {
        Ok(()) => {
            tracing::info!("{name}: {}", record.summary);
            notify(&[NotifyState::Stopping, NotifyState::Status(&record.summary)]);
            exit(record.state)
        }
        Err(error) => {
            tracing::error!(
                "the result of {name} cannot be recorded: {}; it was: {}; snapshots that were \
                 stored stay, and the run will be recorded as cut off",
                chain(&error),
                record.summary
            );
            Exit::Failed
        }
    }
}

/// Writes the end of a run; a full disk or a busy ledger may pass.
fn finish(ledger: &mut Ledger, record: &RunRecord) -> Result<(), LedgerError> {
    for _ in 1..FINISH_ATTEMPTS_MAX {
        match ledger.finish_run(record) {
            Err(error @ LedgerError::Statement { .. }) => {
                tracing::warn!("{}; trying again", chain(&error));
                std::thread::sleep(FINISH_AGAIN);
            }
            done => return done,
        }
    }
    ledger.finish_run(record)
}

/// Marks the run as alive. Without the mark it goes on, and others may take it for dead.
fn claim(ledger: &Ledger, name: &ScheduleName) -> Option<Claim> {
    ledger
        .claim_run(name)
        .inspect_err(|error| tracing::warn!("marking the run of {name} as alive: {error}"))
        .ok()
}

fn begin(
    ledger: &mut Ledger,
    name: &ScheduleName,
    settings: Option<&Settings>,
    invocation: &Invocation,
) -> Result<RunStart, LedgerError> {
    let now = SystemClock.now();
    match settings.and_then(|settings| settings.schedules.get(name)) {
        Some(schedule) => {
            let planned = Planned {
                schedule: name,
                scope: schedule.scope,
                calendar: &schedule.when,
                armed_since: configuration::armed_since(schedule),
            };
            account::begin(ledger, &planned, invocation, now)
        }
        None => account::begin_unknown(ledger, name, invocation, now),
    }
}

fn progress(start: &RunStart) -> Progress {
    Progress {
        id: start.id,
        schedule: start.schedule.to_string(),
        work: "backup".to_owned(),
        phase: "opening".to_owned(),
        entries: 0,
        bytes: ByteCount::ZERO,
        bytes_expected: None,
        started_at: start.started_at,
    }
}

fn work(
    name: &ScheduleName,
    settings: &Settings,
    invocation: &Invocation,
    paths: &Paths,
    monitor: &JobMonitor,
) -> Result<BackupOutcome, String> {
    let schedule = settings
        .schedules
        .get(name)
        .ok_or_else(|| format!("there is no schedule {name} in the configuration"))?;
    let key = schedule_key(name, invocation)?;
    let host = configuration::host_name(settings);
    let plan = BackupPlan {
        schedule,
        limits: schedule.limits.or(settings.agent.limits),
        layout: &settings.agent.hosting,
        host: &host,
        run: invocation.id,
        key: &key,
        destinations: destinations(schedule, settings, invocation),
        cache: &paths.cache,
        dump_socket: &paths.dump_socket,
        clock: &SystemClock,
        entropy: &SystemEntropy,
        monitor,
    };
    Ok(back_up_schedule(plan))
}

/// Reads the schedule's key from the credential that systemd gave this unit.
pub(super) fn schedule_key(
    name: &ScheduleName,
    invocation: &Invocation,
) -> Result<ScheduleKey, String> {
    let credential = format!("schedule-{name}");
    let bytes = invocation
        .credential(&credential)
        .map_err(|error| format!("reading the credential {credential}: {error}"))?;
    let bytes = <[u8; 32]>::try_from(bytes.as_slice())
        .map_err(|_| format!("the credential {credential} is not a key of 32 bytes"))?;
    Ok(ScheduleKey::from_bytes(bytes))
}

/// Joins a schedule's destinations with the credentials that systemd gave this unit.
pub(super) fn destinations(
    schedule: &Schedule,
    settings: &Settings,
    invocation: &Invocation,
) -> Vec<RunDestination> {
    settings
        .destinations_of(schedule)
        .map(|destination| {
            let secret = destination.credential_id().map(|id| invocation.secret(&id));
            let place = match secret {
                None => StorePlace::new(&destination.place, None),
                Some(Ok(secret)) => StorePlace::new(&destination.place, Some(&secret)),
                Some(Err(error)) if error.kind() == std::io::ErrorKind::NotFound => {
                    Err(ops::PlaceError::NoCredential)
                }
                Some(Err(error)) => Err(ops::PlaceError::Unreadable(error)),
            };
            RunDestination {
                name: destination.name.clone(),
                required: destination.required,
                place,
            }
        })
        .collect()
}

fn record(
    start: &RunStart,
    outcome: Result<BackupOutcome, String>,
    monitor: &JobMonitor,
) -> RunRecord {
    let mut record = start.record();
    record.finished_at = Some(SystemClock.now());
    match outcome {
        Ok(outcome) => {
            for line in &outcome.forgotten {
                monitor.log(format!("{}: {}", line.destination, line.text));
            }
            record.state = outcome.state;
            record.summary = outcome.summary;
            record.counts = outcome.counts;
            record.copies = outcome.copies;
        }
        Err(why) => {
            record.state = RunState::Failed;
            record.summary =
                format!("nothing was backed up: {why}; earlier snapshots are untouched");
        }
    }
    for copy in &record.copies {
        monitor.log(match (&copy.snapshot, &copy.error) {
            (Some(snapshot), _) => {
                format!(
                    "{}: snapshot {snapshot}, {} stored",
                    copy.destination, copy.stored_bytes
                )
            }
            (None, error) => {
                format!(
                    "{}: no snapshot: {}",
                    copy.destination,
                    error.as_deref().unwrap_or("?")
                )
            }
        });
    }
    monitor.log(record.summary.clone());
    record.log = monitor.take_log();
    record
}

/// Closes the row of a run that ended without doing so itself. systemd calls it after every job.
pub(super) fn record_end(name: &ScheduleName, paths: &Paths) -> Exit {
    let now = SystemClock.now();
    let invocation = Invocation::read(now);
    let closed = Ledger::open(&paths.ledger).and_then(|mut ledger| {
        if let Some(record) = ledger.run(invocation.id)?
            && !record.state.is_final()
        {
            let result = std::env::var("SERVICE_RESULT").unwrap_or_default();
            let status = std::env::var("EXIT_STATUS").unwrap_or_default();
            let why = format!("the job ended ({result}, {status})");
            ledger.finish_run(&cut_off(record, &why, now))?;
        }
        // Restores and listings have their rows among the commands.
        ledger.end_dead_work(&KINDS, now)
    });
    match closed {
        Ok(_) => Exit::Done,
        Err(error) => {
            tracing::error!("recording the end of {name}: {}", chain(&error));
            Exit::Failed
        }
    }
}

fn exit(state: RunState) -> Exit {
    match state {
        RunState::Ok => Exit::Done,
        RunState::Partial => Exit::Partial,
        RunState::Cancelled => Exit::Interrupted,
        _ => Exit::Failed,
    }
}
