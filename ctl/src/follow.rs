//! Watching work that a systemd job does, through the ledger: a bar on a terminal, silence
//! elsewhere. Ending the watch does not end the work.

use std::time::{Duration, Instant as Moment};

use indicatif::{ProgressBar, ProgressStyle};
use ledger::{Command, CommandState, Ledger, Progress, RunFilter};
use model::{CommandId, Exit, Instant, RunId, RunRecord, ScheduleName};

use crate::problem::Problem;
use crate::server::{Server, ledger_problem};

/// How often the ledger is read.
const INTERVAL: Duration = Duration::from_millis(200);

/// How long a started job may take to show up in the ledger. A job waits for the domain's lock
/// and for others of its slice, but its row comes first.
const APPEARS_WITHIN: Duration = Duration::from_secs(60);

/// How long a unit may be gone without a row before it counts as ended: systemd says that a start is
/// under way only when it has begun.
const GONE_FOR: Duration = Duration::from_secs(2);

/// Opens the ledger, which the first job of a new server has yet to make.
///
/// # Errors
///
/// When it cannot be read, or is not there within a minute.
pub fn ledger(server: &Server, unit: &str) -> Result<Ledger, Problem> {
    let began = Moment::now();
    loop {
        match server.ledger()? {
            Some(ledger) => return Ok(ledger),
            None if began.elapsed() > APPEARS_WITHIN => return Err(not_begun(unit)),
            None => std::thread::sleep(INTERVAL),
        }
    }
}

/// Waits until a command has ended.
///
/// # Errors
///
/// When the ledger cannot be read, or the command is not begun within a minute.
pub fn command(ledger: &Ledger, id: CommandId, unit: &str) -> Result<Command, Problem> {
    let bar = Bar::new();
    let began = Moment::now();
    // The progress of a command is kept under the command's own number.
    let progress = RunId::from_bytes(*id.as_bytes());
    loop {
        let found = ledger.command(id).map_err(|e| ledger_problem(&e))?;
        match found {
            Some(command) => match command.state {
                CommandState::Done | CommandState::Failed => return Ok(command),
                CommandState::Queued if began.elapsed() > APPEARS_WITHIN => {
                    return Err(not_begun(unit));
                }
                CommandState::Queued | CommandState::Running => {}
            },
            None => return Err(not_begun(unit)),
        }
        bar.show(ledger, |row| row.id == progress)?;
        std::thread::sleep(INTERVAL);
    }
}

/// Waits until the run has ended that was asked for at `asked_at`, or the one it joined.
///
/// # Errors
///
/// When the ledger cannot be read, or no run appears within a minute or before its unit ends.
pub fn run(
    server: &Server,
    ledger: &Ledger,
    schedule: &ScheduleName,
    asked_at: Instant,
) -> Result<RunRecord, Problem> {
    let bar = Bar::new();
    let began = Moment::now();
    let mut known: Option<RunId> = None;
    let unit = format!("backstay-job@{schedule}.service");
    let mut gone_since: Option<Moment> = None;
    loop {
        // Looked at before the ledger: a unit that ends after this look may have written its row.
        if known.is_none() && server.is_live() && began.elapsed() > GONE_FOR {
            let is_gone = is_gone(&unit);
            gone_since = is_gone.then(|| gone_since.unwrap_or_else(Moment::now));
        }
        let record = match known {
            Some(id) => ledger.run(id).map_err(|e| ledger_problem(&e))?,
            None => newest(ledger, schedule, asked_at)?,
        };
        match record {
            Some(record) if record.state.is_final() => return Ok(record),
            Some(record) => known = Some(record.id),
            None if began.elapsed() > APPEARS_WITHIN => return Err(not_begun(&unit)),
            None if gone_since.is_some_and(|since| since.elapsed() > GONE_FOR) => {
                return Err(not_begun(&unit));
            }
            None => {}
        }
        bar.show(ledger, |row| Some(row.id) == known)?;
        std::thread::sleep(INTERVAL);
    }
}

/// True when systemd says that a unit does not run and does not start.
fn is_gone(unit: &str) -> bool {
    let output = std::process::Command::new("systemctl")
        .args(["is-active", unit])
        .output();
    output.is_ok_and(|output| matches!(output.stdout.trim_ascii(), b"inactive" | b"failed"))
}

/// Gives the newest run of the schedule that is under way or began after the question.
fn newest(
    ledger: &Ledger,
    schedule: &ScheduleName,
    asked_at: Instant,
) -> Result<Option<RunRecord>, Problem> {
    let filter = RunFilter {
        schedule: Some(schedule.clone()),
        state: None,
        limit: 5,
    };
    let runs = ledger.runs(&filter).map_err(|e| ledger_problem(&e))?;
    // Missed and skipped occurrences get rows too; they are not the run that was asked for.
    Ok(runs.into_iter().find(|run| answers(run, asked_at)))
}

fn answers(run: &RunRecord, asked_at: Instant) -> bool {
    use model::RunState::{Missed, Running, Skipped};
    match run.state {
        Running => true,
        Missed | Skipped => false,
        _ => run.started_at >= asked_at,
    }
}

fn not_begun(unit: &str) -> Problem {
    Problem::new(
        Exit::Failed,
        format!("{unit} was started, but it did not begin"),
    )
    .cause("no record of it was written: it ended before it could, or it waits and may still begin")
    .hint(format!("systemctl status {unit}"))
    .hint(format!("journalctl -u {unit} -n 50"))
}

/// A bar on standard error; invisible where that is not a terminal.
struct Bar {
    bar: ProgressBar,
}

impl Bar {
    fn new() -> Self {
        let bar = ProgressBar::new_spinner();
        bar.enable_steady_tick(Duration::from_millis(120));
        Self { bar }
    }

    fn show(&self, ledger: &Ledger, is_ours: impl Fn(&Progress) -> bool) -> Result<(), Problem> {
        let all = ledger.progress().map_err(|e| ledger_problem(&e))?;
        if let Some(progress) = all.iter().find(|row| is_ours(row)) {
            set(&self.bar, progress);
        }
        Ok(())
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

/// Lets a bar show how far work is.
pub fn set(bar: &ProgressBar, progress: &Progress) {
    let with_end = progress.bytes_expected.is_some_and(|bytes| bytes.get() > 0);
    let shape = if with_end {
        "{spinner} {msg} {wide_bar} {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec} {eta}"
    } else {
        "{spinner} {msg} {binary_bytes} {binary_bytes_per_sec}"
    };
    if let Ok(style) = ProgressStyle::with_template(shape) {
        bar.set_style(style);
    }
    if let Some(expected) = progress.bytes_expected {
        bar.set_length(expected.get());
    }
    bar.set_position(progress.bytes.get());
    bar.set_message(format!("{} ({} entries)", progress.phase, progress.entries));
}
