//! What a job tells while it works: status for systemd, progress and log in the ledger, and the
//! watchdog; and how it hears that it should stop.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use edge::{Event, Monitor, Phase};
use ledger::{CommandState, Ledger, LedgerError, Progress};
use model::{ByteCount, CommandId, Exit, Instant, RunState};
use sd_notify::NotifyState;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;

/// How often progress is written and the watchdog is fed.
const BEAT: Duration = Duration::from_secs(2);

/// How long work may take to end once it was asked to. Shorter than `TimeoutStopSec=` of the units, so
/// that the end is recorded before systemd kills the process: a dump or an upload may hang.
const STOP_TIME_MAX: Duration = Duration::from_secs(90);

/// How many failed objects appear in the log that leaves the server.
const FAILURES_LOGGED_MAX: usize = 100;

/// How the error of a source that cannot list databases begins.
const LISTING: &str = "listing databases ";

#[derive(Debug)]
struct State {
    progress: Progress,
    log: Vec<String>,
    failed: usize,
    changed: bool,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    cancelled: AtomicBool,
    paused: AtomicBool,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        // A poisoned lock only means that another thread panicked; the numbers are still good.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The monitor of one job. Dropping it stops its thread.
#[derive(Debug)]
pub(crate) struct JobMonitor {
    shared: Arc<Shared>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl JobMonitor {
    /// Begins to tell of the work that `progress` names, through the ledger at `path`.
    pub(crate) fn begin(progress: Progress, path: &Path) -> Self {
        let state = State {
            progress,
            log: Vec::new(),
            failed: 0,
            changed: true,
        };
        let shared = Arc::new(Shared {
            state: Mutex::new(state),
            cancelled: AtomicBool::new(false),
            paused: AtomicBool::new(false),
        });
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::Builder::new().name("monitor".into()).spawn({
            let shared = Arc::clone(&shared);
            let path = path.to_owned();
            move || watch(&shared, &path, stopped)
        });
        Self {
            shared,
            stop: Some(stop),
            thread: thread.ok(),
        }
    }

    /// Adds a line to the run's log, which leaves the server: no file names.
    pub(crate) fn log(&self, line: String) {
        tracing::info!("{line}");
        self.shared.state().log.push(line);
    }

    /// Gives the log so far.
    pub(crate) fn take_log(&self) -> Vec<String> {
        std::mem::take(&mut self.shared.state().log)
    }
}

impl Drop for JobMonitor {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            stop.send(()).unwrap_or_default();
        }
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap_or_default();
        }
    }
}

impl Monitor for JobMonitor {
    fn event(&self, event: Event<'_>) {
        let mut state = self.shared.state();
        state.changed = true;
        match event {
            Event::Phase(phase) => {
                state.progress.phase = word(phase).to_owned();
                tracing::info!("phase: {}", word(phase));
            }
            Event::Object(_) => {}
            Event::Progress {
                entries,
                bytes,
                bytes_expected,
            } => {
                state.progress.entries = entries;
                state.progress.bytes = bytes;
                state.progress.bytes_expected = bytes_expected;
            }
            Event::Failed { object, error } => {
                tracing::warn!("{object}: {error}");
                state.failed += 1;
                if state.failed <= FAILURES_LOGGED_MAX {
                    let line = redacted(object, error);
                    state.log.push(line);
                }
            }
            Event::Note(text) => {
                tracing::info!("{text}");
                state.log.push(text.to_owned());
            }
            Event::DestinationLost { destination, error } => {
                tracing::warn!("destination {destination}: {error}");
                state
                    .log
                    .push(format!("destination {destination} is lost: {error}"));
            }
        }
    }

    fn is_cancelled(&self) -> bool {
        self.shared.cancelled.load(Ordering::Relaxed)
    }

    fn is_paused(&self) -> bool {
        self.shared.paused.load(Ordering::Relaxed)
    }
}

/// Tells of a failed object without its name: the account or the database, and the cause.
///
/// An object is a path in the snapshot, or what the source could not look at: a path of the
/// server, the dump socket, an account.
fn redacted(object: &str, error: &str) -> String {
    let last = error.rsplit(": ").next().unwrap_or(error);
    // What the database's programs say holds colons and no path of a customer.
    let rest = error.split_once(": ").map_or(error, |(_, rest)| rest);
    let parts: Vec<&str> = object.trim_start_matches('/').split('/').collect();
    match (object.starts_with('/'), parts.as_slice()) {
        (true, [account, "databases", .., file]) => {
            let database = file.strip_suffix(".sql").unwrap_or(file);
            format!("database {database} of {account} was not backed up: {rest}")
        }
        (true, [account, "files", ..]) => format!("a file of {account} was not backed up: {last}"),
        (true, _) if error.starts_with(LISTING) => format!("no database was backed up: {rest}"),
        (true, _) => format!("a file or directory was not backed up: {last}"),
        (false, _) => format!("account {object} was not backed up: {last}"),
    }
}

fn word(phase: Phase) -> &'static str {
    match phase {
        Phase::Opening => "opening",
        Phase::Storing => "storing",
        Phase::Publishing => "publishing",
        Phase::Verifying => "verifying",
        Phase::Pruning => "pruning",
        Phase::Planning => "planning",
        Phase::Restoring => "restoring",
    }
}

/// The thread behind a monitor: signals, status, watchdog, progress.
fn watch(shared: &Shared, path: &Path, mut stopped: oneshot::Receiver<()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let Ok(runtime) = runtime else { return };
    runtime.block_on(async {
        let mut ledger = Ledger::open(path).ok();
        let (Ok(mut terminate), Ok(mut interrupt), Ok(mut pause), Ok(mut go_on)) = (
            signal(SignalKind::terminate()),
            signal(SignalKind::interrupt()),
            signal(SignalKind::user_defined1()),
            signal(SignalKind::user_defined2()),
        ) else {
            return;
        };
        let mut beat = tokio::time::interval(BEAT);
        let mut asked_at = None;
        loop {
            tokio::select! {
                _ = &mut stopped => return,
                _ = terminate.recv() => asked_at = asked_at.or_else(|| stop(shared)),
                _ = interrupt.recv() => asked_at = asked_at.or_else(|| stop(shared)),
                _ = pause.recv() => shared.paused.store(true, Ordering::Relaxed),
                _ = go_on.recv() => shared.paused.store(false, Ordering::Relaxed),
                _ = beat.tick() => tell(shared, ledger.as_mut()),
            }
            if asked_at.is_some_and(|at: tokio::time::Instant| at.elapsed() > STOP_TIME_MAX) {
                give_up(shared, ledger.as_mut());
            }
        }
    });
}

/// Asks the work to stop, and says when that was.
fn stop(shared: &Shared) -> Option<tokio::time::Instant> {
    tracing::info!("asked to stop");
    shared.cancelled.store(true, Ordering::Relaxed);
    Some(tokio::time::Instant::now())
}

/// Ends the process although its work hangs: with its record when that can be written, else the
/// next one writes it.
#[expect(clippy::exit, reason = "the thread that works hangs in a system call")]
fn give_up(shared: &Shared, ledger: Option<&mut Ledger>) {
    let progress = shared.state().progress.clone();
    let now = Instant::from_micros(jiff::Timestamp::now().as_microsecond());
    if let Some(ledger) = ledger
        && let Err(error) = record_cancelled(&progress, ledger, now)
    {
        tracing::error!("recording that the work was cancelled: {error}");
    }
    std::process::exit(i32::from(Exit::Interrupted.code()));
}

/// Writes the end of work that does not come to an end by itself.
fn record_cancelled(
    progress: &Progress,
    ledger: &mut Ledger,
    now: Instant,
) -> Result<(), LedgerError> {
    let seconds = STOP_TIME_MAX.as_secs();
    let hung = format!(
        "cancelled while {}; it did not end by itself within {seconds} s",
        progress.phase
    );
    if let Some(mut record) = ledger.run(progress.id)? {
        record.state = RunState::Cancelled;
        record.finished_at = Some(now);
        record.summary = format!("{hung}; what was stored by then is not stored again");
        record.log.push(record.summary.clone());
        return ledger.finish_run(&record);
    }
    let outcome = serde_json::json!({ "error": format!("{hung}; what was in place stays") });
    let id = CommandId::from_bytes(*progress.id.as_bytes());
    ledger.finish_command(id, CommandState::Failed, &outcome.to_string(), now)
}

fn tell(shared: &Shared, ledger: Option<&mut Ledger>) {
    let progress = {
        let mut state = shared.state();
        std::mem::take(&mut state.changed).then(|| state.progress.clone())
    };
    let Some(progress) = progress else {
        notify(&[NotifyState::Watchdog]);
        return;
    };
    let status = describe(&progress);
    notify(&[NotifyState::Watchdog, NotifyState::Status(&status)]);
    if let Some(ledger) = ledger {
        let now = Instant::from_micros(jiff::Timestamp::now().as_microsecond());
        // Progress is lossy by design: the next beat tries again.
        if let Err(error) = ledger.set_progress(&progress, now) {
            tracing::debug!("{error}");
        }
    }
}

fn describe(progress: &Progress) -> String {
    let Progress {
        phase,
        entries,
        bytes,
        bytes_expected,
        ..
    } = progress;
    match bytes_expected.filter(|expected| *expected > ByteCount::ZERO) {
        Some(expected) => {
            let percent = u128::from(bytes.get()) * 100 / u128::from(expected.get());
            format!(
                "{phase}: {}% of {expected}, {entries} entries",
                percent.min(100)
            )
        }
        None => format!("{phase}: {bytes}, {entries} entries"),
    }
}

/// Tells systemd something; outside of systemd there is nobody to tell.
pub(crate) fn notify(state: &[NotifyState<'_>]) {
    sd_notify::notify(state).unwrap_or_default();
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::RunId;

    fn progress() -> Progress {
        Progress {
            id: RunId::from_bytes([1; 16]),
            schedule: "nightly".into(),
            work: "backup".into(),
            phase: "opening".into(),
            entries: 0,
            bytes: ByteCount::ZERO,
            bytes_expected: None,
            started_at: Instant::from_secs(0),
        }
    }

    #[test]
    fn the_log_that_leaves_the_server_names_no_file_and_keeps_the_cause() {
        let directory = tempfile::tempdir().unwrap();
        let monitor = JobMonitor::begin(progress(), &directory.path().join("ledger.db"));
        for (object, error) in [
            (
                "/acme.1001/files/home/acme/secret-plan.txt",
                "opening /home/acme/secret-plan.txt: permission denied",
            ),
            (
                "/home/acme/secret-plans",
                "listing /home/acme/secret-plans: permission denied",
            ),
            (
                "/acme.1001/databases/mariadb/acme_wp.sql",
                "dumping database acme_wp: mariadb-dump ended with exit status: 2: lost connection",
            ),
            (
                "/run/backstay/dump.sock",
                "listing databases through /run/backstay/dump.sock: ERROR 2002 (HY000): no server",
            ),
            (
                "ghost",
                "finding account ghost: no account of this name has sites or databases",
            ),
        ] {
            monitor.event(Event::Failed { object, error });
        }
        assert_eq!(
            monitor.take_log(),
            [
                "a file of acme.1001 was not backed up: permission denied",
                "a file or directory was not backed up: permission denied",
                "database acme_wp of acme.1001 was not backed up: \
                 mariadb-dump ended with exit status: 2: lost connection",
                "no database was backed up: ERROR 2002 (HY000): no server",
                "account ghost was not backed up: no account of this name has sites or databases",
            ]
        );
    }

    #[test]
    fn work_that_hangs_when_it_is_stopped_has_one_end() {
        let directory = tempfile::tempdir().unwrap();
        let mut ledger = Ledger::open(&directory.path().join("ledger.db")).unwrap();
        let start = ledger::RunStart {
            id: progress().id,
            schedule: "nightly".parse().unwrap(),
            scope: model::Scope::Web,
            trigger: model::Trigger::Timer,
            due_at: None,
            started_at: Instant::from_secs(5),
        };
        ledger.begin_run(&start).unwrap();
        let now = Instant::from_secs(100);
        for _ in 0..2 {
            record_cancelled(&progress(), &mut ledger, now).unwrap();
        }
        let record = ledger.run(start.id).unwrap().unwrap();
        assert_eq!(record.state, RunState::Cancelled);
        assert!(
            record.summary.contains("while opening"),
            "{}",
            record.summary
        );
        assert_eq!(ledger.outbox_len().unwrap(), 1);

        let command = ledger::Command {
            id: CommandId::from_bytes([7; 16]),
            schedule: start.schedule,
            kind: "restore".into(),
            body: "{}".into(),
            state: CommandState::Queued,
            accepted_at: now,
            expires_at: now.plus_secs(60),
            outcome: None,
        };
        ledger.accept_command(&command).unwrap();
        let mut restore = progress();
        restore.id = RunId::from_bytes(*command.id.as_bytes());
        record_cancelled(&restore, &mut ledger, now).unwrap();
        let ended = ledger.command(command.id).unwrap().unwrap();
        assert_eq!(ended.state, CommandState::Failed);
        assert!(ended.outcome.unwrap().contains("cancelled"));
    }

    #[test]
    fn status_is_one_line_for_people() {
        let mut told = progress();
        told.phase = "storing".into();
        told.entries = 7;
        told.bytes = ByteCount::new(512);
        assert_eq!(describe(&told), "storing: 512 B, 7 entries");
        told.bytes_expected = Some(ByteCount::new(1024));
        assert_eq!(describe(&told), "storing: 50% of 1.0 KiB, 7 entries");
    }
}
