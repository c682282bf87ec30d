//! `schedule run`: starts a backup now and watches it.

use clap::Args;
use model::{Exit, RunState, ScheduleName};
use protocol::control::ControlRequest;

use crate::control;
use crate::follow;
use crate::history;
use crate::problem::Problem;
use crate::screen::{Screen, plain};
use crate::server::Server;
use crate::time::now;

/// What to start.
#[derive(Debug, Args)]
pub struct RunArguments {
    /// Which schedule
    #[arg(value_name = "SCHEDULE")]
    name: ScheduleName,
    /// Start it and do not wait for its end
    #[arg(long)]
    no_wait: bool,
}

/// Starts a run, or joins the one under way, and shows how it ended.
///
/// # Errors
///
/// When it cannot be started. A run that failed is the answer, not an error; the exit code tells.
pub fn run(
    server: &Server,
    arguments: &RunArguments,
    screen: &mut Screen,
) -> Result<Exit, Problem> {
    server.as_root("starting a backup")?;
    server.writable_ledger()?;
    let name = &arguments.name;
    let asked_at = now();
    let unit = control::start(server, &ControlRequest::StartJob { name: name.clone() })?;
    if arguments.no_wait {
        if screen.is_json() {
            screen.json(&serde_json::json!({ "started": unit }))?;
        } else {
            screen.line(&[plain(format!("Started {unit}."))])?;
        }
        return Ok(Exit::Done);
    }
    let ledger = follow::ledger(server, &unit)?;
    let record = follow::run(server, &ledger, name, asked_at)?;
    history::show_run(&record, screen)?;
    Ok(match record.state {
        RunState::Ok | RunState::Running => Exit::Done,
        RunState::Partial => Exit::Partial,
        RunState::Cancelled => Exit::Interrupted,
        RunState::Failed | RunState::Missed | RunState::Skipped => Exit::Failed,
    })
}
