//! `schedule list` and `schedule show`: what this server is told to do, and when it is due next.

use model::{Exit, RunRecord, ScheduleName, Scope};
use serde::Serialize;
use settings::{Accounts, Schedule, Settings, destination_text, schedule_text};

use ledger::{Ledger, RunFilter};

use crate::configuration;
use crate::history::state_text;
use crate::problem::Problem;
use crate::screen::{Screen, Table, Text, Tone, plain, toned};
use crate::server::{Server, ledger_problem};
use crate::time::{local, now, relative};

/// One schedule, for programs.
#[derive(Serialize)]
pub struct ScheduleRow {
    /// Its name.
    pub name: ScheduleName,
    /// What it backs up.
    pub scope: Scope,
    /// The accounts, or nothing for all.
    pub accounts: Option<Vec<String>>,
    /// When, as it was written.
    pub when: String,
    /// Whether its timer is to be armed.
    pub enabled: bool,
    /// The next due time; with the timer's spread when systemd was asked.
    pub next_due_at: Option<model::Instant>,
    /// Whether systemd will fire its timer; nothing when systemd was not asked.
    pub armed: Option<bool>,
    /// Where it backs up to.
    pub destinations: Vec<String>,
    /// The file and line, or the generation, that it was written in.
    pub origin: String,
    /// Its newest run.
    pub last_run: Option<RunRecord>,
}

/// Gathers the rows of all schedules.
///
/// # Errors
///
/// When the ledger cannot be read.
pub fn rows(settings: &Settings, ledger: Option<&Ledger>) -> Result<Vec<ScheduleRow>, Problem> {
    let all = settings.schedules.values();
    all.map(|schedule| row(schedule, ledger)).collect()
}

fn row(schedule: &Schedule, ledger: Option<&Ledger>) -> Result<ScheduleRow, Problem> {
    Ok(ScheduleRow {
        name: schedule.name.clone(),
        scope: schedule.scope,
        accounts: match &schedule.accounts {
            Accounts::All => None,
            Accounts::Only(names) => Some(names.clone()),
        },
        when: schedule.when.text().to_owned(),
        enabled: schedule.enabled,
        next_due_at: schedule
            .enabled
            .then(|| schedule.when.next_after(now()))
            .flatten(),
        armed: None,
        destinations: schedule
            .destinations
            .iter()
            .map(ToString::to_string)
            .collect(),
        origin: format!("{}:{}", schedule.origin.file, schedule.origin.line),
        last_run: last_run(schedule, ledger)?,
    })
}

fn last_run(schedule: &Schedule, ledger: Option<&Ledger>) -> Result<Option<RunRecord>, Problem> {
    let Some(ledger) = ledger else {
        return Ok(None);
    };
    let filter = RunFilter {
        schedule: Some(schedule.name.clone()),
        state: None,
        limit: 1,
    };
    let mut runs = ledger.runs(&filter).map_err(|e| ledger_problem(&e))?;
    Ok(runs.pop())
}

/// Shows all schedules.
///
/// # Errors
///
/// When configuration or ledger cannot be read.
pub fn list(server: &Server, screen: &mut Screen) -> Result<Exit, Problem> {
    let settings = configuration::load(server)?;
    let rows = rows(&settings, server.ledger()?.as_ref())?;
    if screen.is_json() {
        screen.json(&rows)?;
        return Ok(Exit::Done);
    }
    if rows.is_empty() {
        screen.line(&[toned(
            "No schedules. Write one to /etc/backstay/schedules.d/NAME.toml, then: backstayctl apply",
            Tone::Faint,
        )])?;
        return Ok(Exit::Done);
    }
    screen.table(&table(&rows))?;
    Ok(Exit::Done)
}

/// Lays rows out for people.
pub fn table(rows: &[ScheduleRow]) -> Table {
    let mut table = Table::new(&[
        "schedule",
        "scope",
        "when",
        "next due",
        "last run",
        "state",
        "destinations",
    ]);
    let now = now();
    for row in rows {
        let last = row.last_run.as_ref();
        table.row(vec![
            plain(&row.name),
            plain(scope_word(row.scope)),
            plain(&row.when),
            match row.next_due_at {
                _ if row.enabled && row.armed == Some(false) => toned("NOT ARMED", Tone::Bad),
                Some(at) => plain(format!("{} ({})", local(at), relative(at, now))),
                None if row.enabled => toned("never", Tone::Warning),
                None => toned("disabled", Tone::Warning),
            },
            plain(last.map_or("-".to_owned(), |run| local(run.started_at))),
            last.map_or_else(
                || toned("never ran", Tone::Faint),
                |run| state_text(run.state),
            ),
            plain(row.destinations.join(", ")),
        ]);
    }
    table
}

const fn scope_word(scope: Scope) -> &'static str {
    match scope {
        Scope::Full => "full",
        Scope::Web => "web",
        Scope::Db => "db",
    }
}

/// Shows one schedule: its text as it is understood, and its next due times.
///
/// # Errors
///
/// When there is no such schedule, or the configuration cannot be read.
pub fn show(server: &Server, name: &ScheduleName, screen: &mut Screen) -> Result<Exit, Problem> {
    /// How many due times are shown.
    const DUE_SHOWN: usize = 5;
    let settings = configuration::load(server)?;
    let schedule = configuration::schedule(&settings, name)?;
    if screen.is_json() {
        screen.json(&row(schedule, server.ledger()?.as_ref())?)?;
        return Ok(Exit::Done);
    }
    let heading = |text: &str| [toned(text, Tone::Faint)];
    let from = format!("# {}:{}", schedule.origin.file, schedule.origin.line);
    screen.line(&heading(&from))?;
    screen.bytes(schedule_text(schedule).as_bytes())?;
    for destination in settings.destinations_of(schedule) {
        screen.line(&[])?;
        let from = format!("# {}:{}", destination.origin.file, destination.origin.line);
        screen.line(&heading(&from))?;
        screen.bytes(destination_text(destination).as_bytes())?;
    }
    screen.line(&[])?;
    let now = now();
    let mut at = now;
    for _ in 0..if schedule.enabled { DUE_SHOWN } else { 0 } {
        let Some(due) = schedule.when.next_after(at) else {
            break;
        };
        at = due;
        screen.line(&due_line(due, now))?;
    }
    Ok(Exit::Done)
}

fn due_line(due: model::Instant, now: model::Instant) -> [Text; 3] {
    [
        toned("due ", Tone::Faint),
        plain(local(due)),
        toned(format!("  {}", relative(due, now)), Tone::Faint),
    ]
}
