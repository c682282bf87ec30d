//! `status`: the server on one page, with agent and controller dead or alive.

use clap::Args;
use ledger::{Ledger, Progress};
use model::{Exit, RunState};
use protocol::control::{SystemStatus, TimerStatus};
use serde::Serialize;
use settings::Settings;

use crate::configuration;
use crate::control;
use crate::problem::Problem;
use crate::schedule::{self, ScheduleRow};
use crate::screen::{Screen, Tone, counted, plain, toned};
use crate::server::{Server, ledger_problem};
use crate::time::{now, relative};

/// How to judge.
#[derive(Debug, Args)]
pub struct StatusArguments {
    /// End with 3 when something needs a look, for use by monitoring: a schedule's newest run did
    /// not end well, a timer is not armed, the configuration has faults, the ledger cannot be written
    #[arg(long)]
    check: bool,
}

/// The server, for programs.
#[derive(Serialize)]
struct Status {
    server: Option<String>,
    controller: Option<String>,
    version: &'static str,
    schedules: Vec<ScheduleRow>,
    running: Vec<Progress>,
    results_waiting: u64,
    /// Why no run can begin: its record could not be written.
    ledger_error: Option<String>,
    /// What systemd has; nothing when it could not be asked.
    system: Option<SystemStatus>,
    /// Why systemd could not be asked.
    system_error: Option<String>,
}

impl Status {
    /// Adds what systemd has: the true next elapse of each timer, and what is amiss.
    fn add_system(&mut self, answer: Result<SystemStatus, Problem>) {
        match answer {
            Ok(system) => {
                for timer in &system.timers {
                    let row = self
                        .schedules
                        .iter_mut()
                        .find(|row| row.name == timer.schedule);
                    if let Some(row) = row {
                        row.next_due_at = timer.next_at.or(row.next_due_at);
                        row.armed = Some(timer.armed);
                    }
                }
                self.system = Some(system);
            }
            Err(problem) => self.system_error = Some(problem.summary()),
        }
    }

    fn is_well(&self) -> bool {
        let disarmed = |timer: &TimerStatus| timer.enabled && !timer.armed;
        let system = self.system.as_ref();
        !self.schedules.iter().any(is_unwell)
            && self.ledger_error.is_none()
            && system.is_some_and(|s| s.problems.is_empty() && !s.timers.iter().any(disarmed))
    }
}

/// Shows the server on one page.
///
/// # Errors
///
/// When configuration or ledger cannot be read.
pub fn status(
    server: &Server,
    arguments: &StatusArguments,
    screen: &mut Screen,
) -> Result<Exit, Problem> {
    server.installed()?;
    let settings = configuration::load(server)?;
    let ledger = server.ledger()?;
    let mut status = gather(server, &settings, ledger.as_ref())?;
    status.add_system(control::status(server));
    let exit = if arguments.check && !status.is_well() {
        Exit::Partial
    } else {
        Exit::Done
    };
    if screen.is_json() {
        screen.json(&status)?;
    } else {
        show(&status, screen)?;
    }
    Ok(exit)
}

fn is_unwell(row: &ScheduleRow) -> bool {
    let last = row.last_run.as_ref().map(|run| run.state);
    row.enabled && !matches!(last, None | Some(RunState::Ok | RunState::Running))
}

fn gather(
    server: &Server,
    settings: &Settings,
    ledger: Option<&Ledger>,
) -> Result<Status, Problem> {
    let joined = server.joined();
    let (running, results_waiting) = match ledger {
        Some(ledger) => (
            ledger.progress().map_err(|e| ledger_problem(&e))?,
            ledger.outbox_len().map_err(|e| ledger_problem(&e))?,
        ),
        None => (Vec::new(), 0),
    };
    Ok(Status {
        server: match &joined {
            Some(record) => Some(record.server_name.to_string()),
            None => settings.agent.server.as_ref().map(ToString::to_string),
        },
        controller: joined.map(|record| record.host),
        version: env!("CARGO_PKG_VERSION"),
        schedules: schedule::rows(settings, ledger)?,
        running,
        results_waiting,
        ledger_error: server
            .writable_ledger()
            .err()
            .map(|problem| problem.summary()),
        system: None,
        system_error: None,
    })
}

fn show(status: &Status, screen: &mut Screen) -> Result<(), Problem> {
    let name = status.server.as_deref().unwrap_or("this server");
    screen.line(&[
        toned(name, Tone::Strong),
        plain(format!("  Backstay {}", status.version)),
    ])?;
    let controller = match &status.controller {
        Some(host) => format!("controller {host}"),
        None => "no controller: this server stands alone".to_owned(),
    };
    let waiting = match usize::try_from(status.results_waiting) {
        Ok(0) | Err(_) => String::new(),
        Ok(_) if status.controller.is_none() => String::new(),
        Ok(count) => format!(", {} to deliver", counted(count, "result")),
    };
    screen.line(&[plain(controller), toned(waiting, Tone::Warning)])?;
    show_running(&status.running, screen)?;
    show_system(status, screen)?;
    screen.line(&[])?;
    if status.schedules.is_empty() {
        screen.line(&[toned("No schedules: nothing is backed up.", Tone::Warning)])?;
    } else {
        screen.table(&schedule::table(&status.schedules))?;
    }
    Ok(())
}

fn show_system(status: &Status, screen: &mut Screen) -> Result<(), Problem> {
    let mut warn = |tone: Tone, head: &str, text: &str| {
        screen.line(&[
            toned(format!("{head}: "), tone),
            plain(model::escape(text.as_bytes())),
        ])
    };
    if let Some(error) = &status.ledger_error {
        warn(Tone::Bad, "no run can begin", error)?;
    }
    if let Some(error) = &status.system_error {
        warn(Tone::Warning, "systemd was not asked", error)?;
    }
    let Some(system) = &status.system else {
        return Ok(());
    };
    if let Some(refused) = &system.refused {
        warn(Tone::Bad, "refused", &refused.message)?;
    }
    for fault in &system.problems {
        warn(Tone::Bad, "not applied", fault)?;
    }
    for drift in &system.drift {
        let text = format!("{}: {}", drift.unit, drift.detail);
        warn(Tone::Warning, drift.kind.word(), &text)?;
    }
    Ok(())
}

fn show_running(running: &[Progress], screen: &mut Screen) -> Result<(), Problem> {
    let now = now();
    for progress in running {
        let of = progress
            .bytes_expected
            .map_or(String::new(), |bytes| format!(" of {bytes}"));
        screen.line(&[
            toned("now ", Tone::Good),
            plain(format!(
                "{} of {}: {}, {} entries, {}{of}, began {}",
                progress.work,
                progress.schedule,
                progress.phase,
                progress.entries,
                progress.bytes,
                relative(progress.started_at, now),
            )),
        ])?;
    }
    Ok(())
}
