//! `backstay-agentd restore NAME` and `browse NAME`: the commands that are queued for a schedule.

use edge::{Clock as _, TreePath};
use ledger::{Command, CommandState, Ledger, LedgerError, Progress};
use model::{ByteCount, DestinationName, Exit, RunId, ScheduleName, SnapshotId};
use ops::{RestoreTo, SnapshotRow};
use sd_notify::NotifyState;
use serde::{Deserialize, Serialize};
use settings::Settings;

use super::configuration;
use super::environment::{Invocation, Paths, SystemClock};
use super::monitor::{JobMonitor, notify};
use super::order::{self, Order, Origin};
use super::run::{destinations, schedule_key};
use crate::log::chain;

/// The kind of a restore in the ledger.
pub(crate) const RESTORE: &str = "restore";
/// The kind of a listing in the ledger.
pub(crate) const LIST_SNAPSHOTS: &str = "list_snapshots";

/// The kinds that have units of their own.
pub(crate) const KINDS: [&str; 2] = [RESTORE, LIST_SNAPSHOTS];

/// Failed objects that an outcome names; the log has all.
const FAILURES_NAMED_MAX: usize = 20;

/// Where a restore goes, as in [`protocol::RestoreTarget`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Target {
    /// Over what is there.
    InPlace,
    /// Below an absolute directory.
    Directory(String),
}

/// What is to be restored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RestoreBody {
    pub(crate) snapshot: SnapshotId,
    pub(crate) destination: Option<DestinationName>,
    pub(crate) target: Target,
    #[serde(default)]
    pub(crate) path: Option<String>,
}

/// The outcome of a command in the ledger. It may leave the server, so it names no file but the
/// places that were published.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct Outcome {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) error: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) summary: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) published: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) failures: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) snapshots: Vec<SnapshotRow>,
}

/// Does every queued restore of a schedule.
pub(super) fn restore(name: &ScheduleName, paths: &Paths) -> Exit {
    serve(name, paths, RESTORE, |command, settings, invocation| {
        restore_one(command, settings, invocation, paths)
    })
}

/// Does every queued listing of a schedule.
pub(super) fn browse(name: &ScheduleName, paths: &Paths) -> Exit {
    serve(
        name,
        paths,
        LIST_SNAPSHOTS,
        |command, settings, invocation| list_one(command, settings, invocation, paths),
    )
}

fn serve(
    name: &ScheduleName,
    paths: &Paths,
    kind: &str,
    work: impl Fn(&Command, &Settings, &Invocation) -> Result<Outcome, String>,
) -> Exit {
    let invocation = Invocation::read(SystemClock.now());
    let served = Ledger::open(&paths.ledger).and_then(|mut ledger| {
        let _claim = ledger.claim(kind, name).inspect_err(|error| {
            tracing::warn!("marking the {kind} of {name} as alive: {error}");
        });
        let cut = "{\"error\":\"cut off: the server was shut down or the job was killed\"}";
        // systemd runs one instance at a time: what is still running belongs to a dead one.
        ledger.fail_running_commands(Some(name), &[kind], cut, SystemClock.now())?;
        let mut failed = false;
        while let Some(command) = ledger.take_command(name, &[kind], SystemClock.now())? {
            failed |= !answer(&mut ledger, &command, &work, &invocation)?;
        }
        Ok(failed)
    });
    match served {
        Ok(false) => Exit::Done,
        Ok(true) => Exit::Failed,
        Err(error) => {
            tracing::error!("{kind} for {name}: {}", chain(&error));
            Exit::Failed
        }
    }
}

fn answer(
    ledger: &mut Ledger,
    command: &Command,
    work: &impl Fn(&Command, &Settings, &Invocation) -> Result<Outcome, String>,
    invocation: &Invocation,
) -> Result<bool, LedgerError> {
    let result = configuration::load()
        .map_err(|error| format!("the configuration cannot be read: {error}"))
        .and_then(|settings| work(command, &settings, invocation));
    let (state, outcome) = match result {
        Ok(outcome) if outcome.error.is_none() => (CommandState::Done, outcome),
        Ok(outcome) => (CommandState::Failed, outcome),
        Err(error) => {
            tracing::error!("{} {}: {error}", command.kind, command.id);
            (
                CommandState::Failed,
                Outcome {
                    error: Some(error),
                    ..Outcome::default()
                },
            )
        }
    };
    let text = serde_json::to_string(&outcome).unwrap_or_default();
    ledger.finish_command(command.id, state, &text, SystemClock.now())?;
    Ok(state == CommandState::Done)
}

fn restore_one(
    command: &Command,
    settings: &Settings,
    invocation: &Invocation,
    paths: &Paths,
) -> Result<Outcome, String> {
    let Order { body, origin } = order::read(command, &paths.root, SystemClock.now())?;
    let only = match &body.path {
        Some(text) => Some(TreePath::parse(text.as_bytes()).map_err(|error| error.to_string())?),
        None => None,
    };
    let id = RunId::from_bytes(*command.id.as_bytes());
    let progress = Progress {
        id,
        schedule: command.schedule.to_string(),
        work: RESTORE.to_owned(),
        phase: "opening".to_owned(),
        entries: 0,
        bytes: ByteCount::ZERO,
        bytes_expected: None,
        started_at: SystemClock.now(),
    };
    let monitor = JobMonitor::begin(progress, &paths.ledger);
    notify(&[NotifyState::Status("opening")]);
    let to = match &body.target {
        Target::InPlace => RestoreTo::InPlace {
            id: command.id.to_string(),
            load_socket: paths.load_socket.clone(),
        },
        Target::Directory(directory) => match origin {
            Origin::Root => RestoreTo::Directory(directory.into()),
            Origin::Controller => RestoreTo::PlainDirectory(directory.into()),
        },
    };
    let restored = restore_from(&body, command, settings, invocation, &|view, snapshot| {
        ops::restore(view, snapshot, only.as_ref(), &to, &monitor)
            .map_err(|error| not_restored(&ops::explain(&error), origin))
    });
    drop(monitor);
    let cleared = Ledger::open(&paths.ledger).and_then(|mut ledger| ledger.clear_progress(id));
    if let Err(error) = cleared {
        // The restore is what it is; ended work shows no progress anyway.
        tracing::warn!("{}", chain(&error));
    }
    restored
}

/// Says why a restore did not begin or broke off. What a controller is told names no file.
fn not_restored(error: &str, origin: Origin) -> String {
    if origin == Origin::Root {
        return error.to_owned();
    }
    tracing::error!("{error}");
    let cause = error.rsplit(": ").next().unwrap_or(error);
    let journal = "the journal of its unit on the server says where";
    if cause.contains('/') {
        format!("the restore broke off; {journal}")
    } else {
        format!("the restore broke off: {cause}; {journal}")
    }
}

type Restorer<'a> = &'a dyn Fn(&ops::View, &ops::Snapshot) -> Result<ops::RestoreOutcome, String>;

fn restore_from(
    body: &RestoreBody,
    command: &Command,
    settings: &Settings,
    invocation: &Invocation,
    restorer: Restorer<'_>,
) -> Result<Outcome, String> {
    let schedule = settings
        .schedules
        .get(&command.schedule)
        .ok_or_else(|| format!("there is no schedule {}", command.schedule))?;
    let key = schedule_key(&command.schedule, invocation)?;
    let mut tried = Vec::new();
    for destination in destinations(schedule, settings, invocation) {
        if body
            .destination
            .as_ref()
            .is_some_and(|wanted| *wanted != destination.name)
        {
            continue;
        }
        let found = ops::open_snapshot(&destination, &key, body.snapshot);
        match found {
            Ok((view, snapshot)) => return restorer(&view, &snapshot).map(told),
            Err(error) => tried.push(format!("{}: {error}", destination.name)),
        }
    }
    if tried.is_empty() {
        return Err("the schedule has no such destination".to_owned());
    }
    Err(tried.join("; "))
}

fn told(outcome: ops::RestoreOutcome) -> Outcome {
    for failure in &outcome.failures {
        tracing::warn!("{}: {}", failure.object, failure.error);
    }
    let summary = format!("{} entries, {} restored", outcome.entries, outcome.bytes);
    let error = match (outcome.is_cancelled, outcome.failed) {
        (true, _) if outcome.published.is_empty() => Some(format!(
            "stopped after {summary}; nothing was put in place: ask for the restore again"
        )),
        (true, _) => Some(format!("stopped after {summary}; the rest stays as it was")),
        (false, 0) => None,
        (false, failed) => Some(format!("{summary}; {failed} could not be restored")),
    };
    Outcome {
        error,
        summary: Some(summary),
        published: outcome.published,
        failures: causes(&outcome.failures),
        snapshots: Vec::new(),
    }
}

/// Gives the causes without names, each once with how many entries it hit.
fn causes(failures: &[model::Failure]) -> Vec<String> {
    let mut counted: Vec<(&str, usize)> = Vec::new();
    for failure in failures {
        let cause = failure.error.rsplit(": ").next().unwrap_or(&failure.error);
        match counted.iter_mut().find(|(known, _)| *known == cause) {
            Some((_, count)) => *count += 1,
            None => counted.push((cause, 1)),
        }
    }
    let line = |(cause, count): &(&str, usize)| match count {
        1 => (*cause).to_owned(),
        count => format!("{cause} ({count} entries)"),
    };
    counted.iter().take(FAILURES_NAMED_MAX).map(line).collect()
}

fn list_one(
    command: &Command,
    settings: &Settings,
    invocation: &Invocation,
    paths: &Paths,
) -> Result<Outcome, String> {
    let schedule = settings
        .schedules
        .get(&command.schedule)
        .ok_or_else(|| format!("there is no schedule {}", command.schedule))?;
    let key = schedule_key(&command.schedule, invocation)?;
    let mut outcome = Outcome::default();
    let mut failed = Vec::new();
    for destination in destinations(schedule, settings, invocation) {
        match ops::snapshots_at(&destination, &key, &paths.cache) {
            Ok(rows) => outcome.snapshots.extend(rows),
            Err(error) => failed.push(format!("{}: {error}", destination.name)),
        }
    }
    if !failed.is_empty() {
        outcome.error = Some(failed.join("; "));
    }
    Ok(outcome)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_controller_is_told_why_and_not_where() {
        let error = "staging in /home/acme/plan: it is not empty: it holds x";
        assert_eq!(not_restored(error, Origin::Root), error);
        let told = not_restored(error, Origin::Controller);
        assert!(
            told.contains("it holds x") && !told.contains("acme"),
            "{told}"
        );
        let told = not_restored("staging in a: b: /home/acme is gone", Origin::Controller);
        assert!(!told.contains("acme"), "{told}");
    }

    #[test]
    fn each_cause_is_told_once_and_names_no_file() {
        let failure = |error: &str| model::Failure {
            object: "/acme.1001/files/home/acme/plan".into(),
            error: error.into(),
            class: model::ErrorClass::Never,
        };
        let failures = [
            failure("frame 0 of p/1: sealed bytes are damaged"),
            failure("writing /home/acme/plan: disk full"),
            failure("frame 1 of p/1: sealed bytes are damaged"),
        ];
        assert_eq!(
            causes(&failures),
            ["sealed bytes are damaged (2 entries)", "disk full"]
        );
    }
}
