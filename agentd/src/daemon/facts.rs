//! How the server is, as the controller shows it: told when it changes.

use std::collections::BTreeMap;
use std::time::Duration;

use ledger::CommandState as KeptState;
use model::{DestinationName, Instant, ScheduleName, SnapshotId};
use protocol::control::{ControlReply, ControlRequest, SystemStatus};
use protocol::{
    CommandReport, DestinationReport, DriftReport, GenerationReport, Host, Origin, Report,
    ScheduleReport, SnapshotReport,
};
use serde::Deserialize;
use settings::Settings;

use super::backoff::Backoff;
use super::{DaemonError, Places, Shared, commands, local, now, wait};

/// How long changes are collected before they are looked at.
const SETTLE: Duration = Duration::from_millis(500);
/// How often the server is looked at although nothing was noticed: what leaves no trace in a
/// file, as a timer that was stopped by hand.
const LOOK_EVERY: Duration = Duration::from_secs(600);
/// Snapshots of one listing that are reported; newer ones first.
const SNAPSHOTS_MAX: usize = 5000;

pub(super) async fn run(shared: &Shared) -> Result<(), DaemonError> {
    let mut told = Report::default();
    let mut backoff = Backoff::default();
    loop {
        tokio::select! {
            () = shared.look.notified() => tokio::time::sleep(SETTLE).await,
            () = wait::pause(LOOK_EVERY) => {}
        }
        if shared.repair.take() {
            repair(shared).await;
        }
        let mut found = look(shared).await;
        keep_first_notice(&mut found, &told);
        while let Err(error) = tell(shared, &found, &mut told).await {
            let DaemonError::Call(error) = error else {
                return Err(error);
            };
            tracing::debug!("{}", crate::log::chain(&error));
            tokio::select! {
                () = tokio::time::sleep(backoff.failed(error.after(), shared.retry_max())) => {}
                () = shared.reached.notified() => {}
            }
        }
        backoff.succeeded();
    }
}

/// A difference that was told already keeps the time at which it was noticed first.
fn keep_first_notice(found: &mut Report, told: &Report) {
    for drift in found.drift.iter_mut().flatten() {
        let known = told.drift.iter().flatten().find(|known| {
            (&known.unit, &known.kind, &known.detail) == (&drift.unit, &drift.kind, &drift.detail)
        });
        drift.noticed_at = known.map_or(drift.noticed_at, |known| known.noticed_at);
    }
}

/// Sends the parts that differ from what was told before.
async fn tell(shared: &Shared, found: &Report, told: &mut Report) -> Result<(), DaemonError> {
    macro_rules! changed {
        ($($part:ident),+) => {
            Report { $($part: found.$part.clone().filter(|_| found.$part != told.$part),)+
                     ..Report::default() }
        };
    }
    let report = changed!(host, generation, drift, schedules, destinations, accounts);
    if report == Report::default() {
        return Ok(());
    }
    send(shared, &report).await?;
    *told = found.clone();
    Ok(())
}

async fn send(shared: &Shared, report: &Report) -> Result<(), DaemonError> {
    let body = serde_json::to_vec(report).map_err(|e| DaemonError::Answer(e.to_string()))?;
    shared.call("POST", "/agent/v1/report", Some(body)).await?;
    Ok(())
}

/// Tells what became of commands: what was said in memory, and the ends in the ledger.
pub(super) async fn tell_commands(shared: &Shared) -> Result<(), DaemonError> {
    let said = shared.said.take();
    let ended = shared.ledger.borrow().unreported_commands()?;
    if said.is_empty() && ended.is_empty() {
        return Ok(());
    }
    let mut report = Report::default();
    report.commands.clone_from(&said);
    for command in &ended {
        report.commands.push(commands::end(command));
        if command.state == KeptState::Done {
            report.snapshots.extend(listed(command));
        }
    }
    if let Err(error) = send(shared, &report).await {
        let mut later = shared.said.borrow_mut();
        let newer = std::mem::take(&mut *later);
        *later = said
            .into_iter()
            .chain(newer)
            .collect::<Vec<CommandReport>>();
        return Err(error);
    }
    let mut ledger = shared.ledger.borrow_mut();
    for command in &ended {
        ledger.mark_reported(command.id)?;
    }
    Ok(())
}

/// A row of a listing's outcome: one snapshot at one destination.
#[derive(Deserialize)]
struct Row {
    id: SnapshotId,
    destination: DestinationName,
    taken_at: Instant,
    is_complete: bool,
    bytes: u64,
}

#[derive(Deserialize, Default)]
struct Listing {
    #[serde(default)]
    snapshots: Vec<Row>,
}

/// Joins the rows of a listing by snapshot. Copies of one run are separate snapshots of separate
/// repositories, unless they have the same id.
fn listed(command: &ledger::Command) -> Vec<SnapshotReport> {
    let listing: Listing = command
        .outcome
        .as_deref()
        .and_then(|text| serde_json::from_str(text).ok())
        .unwrap_or_default();
    let mut found: BTreeMap<(Instant, SnapshotId), SnapshotReport> = BTreeMap::new();
    for row in listing.snapshots {
        found
            .entry((row.taken_at, row.id))
            .or_insert_with(|| SnapshotReport {
                schedule: command.schedule.clone(),
                id: row.id,
                taken_at: row.taken_at,
                destinations: Vec::new(),
                total_bytes: row.bytes,
                status: if row.is_complete {
                    "complete"
                } else {
                    "partial"
                }
                .to_owned(),
            })
            .destinations
            .push(row.destination);
    }
    found.into_values().rev().take(SNAPSHOTS_MAX).collect()
}

async fn repair(shared: &Shared) {
    let request = ControlRequest::Reconcile {};
    match local::say(&shared.places.apply_socket(), &request).await {
        Ok(ControlReply::Applied(outcome)) => {
            for drift in &outcome.repaired {
                tracing::info!(unit = drift.unit, "put right: {}", drift.detail);
            }
        }
        Ok(ControlReply::Failed { message, .. }) => tracing::warn!("not put right: {message}"),
        Ok(_) => tracing::warn!("apply answered something else than asked for"),
        Err(error) => tracing::warn!("{}", crate::log::chain(&error)),
    }
}

/// Looks at everything that a report holds. What cannot be looked at is left out.
async fn look(shared: &Shared) -> Report {
    let status = match local::say(&shared.places.apply_socket(), &ControlRequest::Status {}).await {
        Ok(ControlReply::Status(status)) => Some(status),
        Ok(_) => None,
        Err(error) => {
            tracing::debug!("{}", crate::log::chain(&error));
            None
        }
    };
    let mut report = Report {
        host: Some(host(&shared.places)),
        generation: status.as_ref().map(generation),
        drift: status.as_ref().map(drift),
        ..Report::default()
    };
    if let Some(refused) = shared.refused.borrow().clone() {
        let known = report.generation.take().unwrap_or_default();
        report.generation = Some(GenerationReport {
            applied: known.applied,
            hash: known.hash,
            ..refused
        });
    }
    match crate::configuration::load(&shared.places.root) {
        Ok(settings) => {
            report.schedules = Some(schedules(&settings, status.as_ref()));
            report.destinations = Some(destinations(&settings));
            report.accounts = Some(accounts(&shared.places, &settings));
        }
        Err(problems) => tracing::debug!("the configuration cannot be shown: {problems}"),
    }
    report
}

fn generation(status: &SystemStatus) -> GenerationReport {
    let refused = status.refused.as_ref();
    GenerationReport {
        applied: status.generation,
        hash: status.generation_hash,
        refused: refused.and_then(|refused| refused.number),
        code: refused.map(|refused| refused.code.clone()),
        error: refused
            .map(|refused| refused.message.clone())
            .or_else(|| status.problems.first().cloned()),
    }
}

/// What is there now, and what was put right within the last day.
fn drift(status: &SystemStatus) -> Vec<DriftReport> {
    let recent = now().plus_secs(-24 * 3600);
    let current = status.drift.iter().map(|drift| DriftReport {
        unit: drift.unit.clone(),
        kind: drift.kind.word().to_owned(),
        detail: drift.detail.clone(),
        noticed_at: status.at,
    });
    let repaired = status
        .repaired
        .iter()
        .filter(|repaired| repaired.at >= recent)
        .map(|repaired| DriftReport {
            unit: repaired.drift.unit.clone(),
            kind: "repaired".to_owned(),
            detail: format!("{}; it was put right", repaired.drift.detail),
            noticed_at: repaired.at,
        });
    current.chain(repaired).collect()
}

fn schedules(settings: &Settings, status: Option<&SystemStatus>) -> Vec<ScheduleReport> {
    let timer = |name: &ScheduleName| status?.timers.iter().find(|timer| timer.schedule == *name);
    settings
        .schedules
        .values()
        .map(|schedule| ScheduleReport {
            name: schedule.name.clone(),
            origin: if schedule.origin.synced {
                Origin::Controller
            } else {
                Origin::Server
            },
            enabled: timer(&schedule.name).map_or(schedule.enabled, |timer| timer.armed),
            scope: schedule.scope,
            toml: settings::schedule_text(schedule),
            next_run_at: timer(&schedule.name).and_then(|timer| timer.next_at),
        })
        .collect()
}

fn destinations(settings: &Settings) -> Vec<DestinationReport> {
    settings
        .destinations
        .values()
        .map(|destination| {
            let (kind, place) = match &destination.place {
                settings::Place::Local { path } => ("local", path.display().to_string()),
                settings::Place::S3 {
                    endpoint,
                    bucket,
                    path,
                    ..
                } => ("s3", format!("{endpoint}/{bucket}/{path}")),
            };
            DestinationReport {
                name: destination.name.clone(),
                kind: kind.to_owned(),
                place: place.trim_end_matches('/').to_owned(),
            }
        })
        .collect()
}

/// Says what the server is: host name, operating system, version of the agent.
pub(super) fn host(places: &Places) -> Host {
    let release = std::fs::read_to_string(places.root.join("etc/os-release")).unwrap_or_default();
    let os = release
        .lines()
        .find_map(|line| line.strip_prefix("PRETTY_NAME="))
        .map_or("Linux", |name| name.trim_matches('"'));
    Host {
        hostname: rustix::system::uname()
            .nodename()
            .to_string_lossy()
            .into_owned(),
        os: os.to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
    }
}

/// Lists the users that the hosting layout counts as accounts. Homes are not looked at: the
/// daemon has no right to.
fn accounts(places: &Places, settings: &Settings) -> Vec<String> {
    let users = std::fs::read_to_string(places.root.join("etc/passwd")).unwrap_or_default();
    let layout = &settings.agent.hosting;
    let mut names: Vec<String> = users
        .lines()
        .filter_map(|line| {
            let mut fields = line.split(':');
            let name = fields.next()?;
            let uid: u32 = fields.nth(1)?.parse().ok()?;
            let counts = (layout.uid_min..=layout.uid_max).contains(&uid)
                && !layout.exclude_users.iter().any(|excluded| excluded == name);
            counts.then(|| name.to_owned())
        })
        .collect();
    names.sort();
    names.dedup();
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_of_one_snapshot_are_one_line_of_a_listing() {
        let row = |destination: &str, at: &str, id: char| {
            format!(
                r#"{{"id":"{}","destination":"{destination}","taken_at":"{at}","run":null,"is_complete":true,"entries":3,"bytes":5}}"#,
                id.to_string().repeat(32)
            )
        };
        let rows = [
            row("local", "2026-01-01T00:00:00Z", 'a'),
            row("offsite", "2026-01-01T00:00:00Z", 'a'),
            row("local", "2026-01-02T00:00:00Z", 'b'),
        ];
        let command = ledger::Command {
            id: model::CommandId::from_bytes([1; 16]),
            schedule: ScheduleName::new("nightly").unwrap(),
            kind: "list_snapshots".into(),
            body: "{}".into(),
            state: KeptState::Done,
            accepted_at: Instant::default(),
            expires_at: Instant::default(),
            outcome: Some(format!(r#"{{"snapshots":[{}]}}"#, rows.join(","))),
        };
        let found = listed(&command);
        assert_eq!(found.len(), 2);
        assert_eq!(found[0].taken_at.to_string(), "2026-01-02T00:00:00Z");
        assert_eq!(found[1].destinations.len(), 2);
    }

    #[test]
    fn accounts_are_the_users_of_the_layout() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("etc")).unwrap();
        let users = "root:x:0:0::/root:/bin/sh\nglobex:x:1001:1001::/home/globex:/bin/sh\n\
                     acme:x:1000:1000::/home/acme:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n";
        std::fs::write(root.path().join("etc/passwd"), users).unwrap();
        let places = Places::below(root.path());
        assert_eq!(accounts(&places, &Settings::default()), ["acme", "globex"]);
    }
}
