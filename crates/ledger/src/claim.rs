//! Who works: each job holds a lock that the kernel gives back when its process ends, however it
//! ends. So a row of work that goes on is told from one that a dead process left open.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant as Moment};

use model::{Instant, RunRecord, RunState, ScheduleName};
use rusqlite::params;

use crate::schema::share;
use crate::{Ledger, LedgerError};

/// How long a job waits for whoever just looks whether the work is alive.
const LOOK_TIME_MAX: Duration = Duration::from_secs(10);

/// How often it tries meanwhile.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// The kind of a run; other kinds are those of commands.
const RUN: &str = "run";

/// What is said of a run whose process is gone.
pub const RUN_CUT: &str = "the server was shut down or the job was killed during the run";

/// What is said of a command whose process is gone.
const COMMAND_CUT: &str = "cut off: the server was shut down or the job was killed";

/// The mark of a living job, until it is dropped or its process ends.
#[derive(Debug)]
pub struct Claim {
    _file: File,
}

/// What of dead work was ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Ended {
    /// Runs that failed by it.
    pub runs: u64,
    /// Commands that failed by it.
    pub commands: u64,
}

impl Claim {
    /// Takes the lock of a job that begins, when nobody has it.
    fn take(directory: &Path, kind: &str, schedule: &ScheduleName) -> io::Result<Option<Self>> {
        use std::os::unix::fs::DirBuilderExt as _;
        // The group comes from the directory above: job, restore and daemon are different users of
        // it, and some may not set it themselves.
        match DirBuilder::new().mode(0o770).create(directory) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => share(&directory.join(name(kind, schedule))),
        }
        Self::of_known(directory, kind, schedule)
    }

    /// Takes the lock of a job that claimed its work once, when nobody has it. Without a claim
    /// nothing can be said: that is an error.
    fn of_known(directory: &Path, kind: &str, schedule: &ScheduleName) -> io::Result<Option<Self>> {
        let file = OpenOptions::new()
            .write(true)
            .open(directory.join(name(kind, schedule)))?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Self { _file: file })),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }
}

fn name(kind: &str, schedule: &ScheduleName) -> String {
    format!("{kind}-{schedule}")
}

impl Ledger {
    /// Marks the run of a schedule as alive. Hold the claim until the run has its end.
    ///
    /// # Errors
    ///
    /// The system's; work may go on without it, and then looks dead to others.
    pub fn claim_run(&self, schedule: &ScheduleName) -> io::Result<Claim> {
        self.claim(RUN, schedule)
    }

    /// Marks the work on commands of one kind as alive.
    ///
    /// # Errors
    ///
    /// As [`Ledger::claim_run`]; `WouldBlock` when another process does this work.
    pub fn claim(&self, kind: &str, schedule: &ScheduleName) -> io::Result<Claim> {
        let began = Moment::now();
        loop {
            if let Some(claim) = Claim::take(&self.claims(), kind, schedule)? {
                return Ok(claim);
            }
            if began.elapsed() > LOOK_TIME_MAX {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            std::thread::sleep(LOOK_AGAIN);
        }
    }

    fn claims(&self) -> PathBuf {
        self.beside("work")
    }

    /// Ends what dead processes left open: runs, and commands of `kinds`. Work that goes on holds
    /// its claim and is left alone.
    ///
    /// # Errors
    ///
    /// `Statement` or `Record`; what was ended until then stays so.
    pub fn end_dead_work(&mut self, kinds: &[&str], now: Instant) -> Result<Ended, LedgerError> {
        let mut ended = Ended::default();
        for record in self.open_runs(None)? {
            // Whoever cannot look must not judge.
            if let Ok(Some(_claim)) = Claim::of_known(&self.claims(), RUN, &record.schedule) {
                // Read anew under the claim: it may have ended meanwhile.
                let open = self.run(record.id)?.filter(|run| !run.state.is_final());
                if let Some(record) = open {
                    self.finish_run(&cut_off(record, RUN_CUT, now))?;
                    ended.runs += 1;
                }
            }
        }
        for (kind, schedule) in self.working_kinds()? {
            if !kinds.contains(&kind.as_str()) {
                continue;
            }
            if let Ok(Some(_claim)) = Claim::of_known(&self.claims(), &kind, &schedule) {
                let outcome = format!("{{\"error\":\"{COMMAND_CUT}\"}}");
                ended.commands +=
                    self.fail_running_commands(Some(&schedule), &[&kind], &outcome, now)?;
            }
        }
        Ok(ended)
    }

    /// Lists kind and schedule of commands that are under way.
    fn working_kinds(&self) -> Result<Vec<(String, ScheduleName)>, LedgerError> {
        let found: Result<Vec<(String, String)>, _> = self
            .connection
            .prepare_cached(
                "SELECT DISTINCT kind, schedule FROM command WHERE state = 'running' LIMIT 1000",
            )
            .and_then(|mut statement| {
                let rows = statement.query_map(params![], |row| Ok((row.get(0)?, row.get(1)?)))?;
                rows.collect()
            });
        let found = found.map_err(LedgerError::statement("listing commands"))?;
        let named = found
            .into_iter()
            .filter_map(|(kind, name)| Some((kind, ScheduleName::new(name).ok()?)));
        Ok(named.collect())
    }
}

/// Makes a record say that its run was cut.
#[must_use]
pub fn cut_off(mut record: RunRecord, why: &str, now: Instant) -> RunRecord {
    record.state = RunState::Failed;
    record.finished_at = Some(now);
    record.summary = format!("cut off: {why}; what was stored until then is not stored again");
    record.log.push(record.summary.clone());
    record
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Fixture, start};
    use crate::{Command, CommandState};
    use model::CommandId;

    #[test]
    fn a_dead_run_ends_as_failed_and_a_living_one_goes_on() {
        let mut fixture = Fixture::new();
        let ledger = &mut fixture.ledger;
        let now = Instant::from_secs(500);
        let claim = ledger.claim_run(&start(1, 100).schedule).unwrap();
        ledger.begin_run(&start(1, 100)).unwrap();
        assert_eq!(ledger.end_dead_work(&[], now).unwrap(), Ended::default());
        drop(claim);
        // Of a run that could not make its claim nothing is known.
        let mut other = start(2, 100);
        other.schedule = ScheduleName::new("unclaimed").unwrap();
        ledger.begin_run(&other).unwrap();
        assert_eq!(ledger.end_dead_work(&[], now).unwrap().runs, 1);
        let record = ledger.run(start(1, 100).id).unwrap().unwrap();
        assert_eq!(record.state, RunState::Failed);
        assert_eq!(record.finished_at, Some(now));
        assert_eq!(ledger.outbox_len().unwrap(), 1);
        assert_eq!(ledger.end_dead_work(&[], now).unwrap(), Ended::default());
    }

    #[test]
    fn a_command_of_a_dead_job_fails_and_is_reported() {
        let mut fixture = Fixture::new();
        let ledger = &mut fixture.ledger;
        let command = Command {
            id: CommandId::from_bytes([1; 16]),
            schedule: start(1, 0).schedule,
            kind: "restore".into(),
            body: "{}".into(),
            state: CommandState::Queued,
            accepted_at: Instant::from_secs(1),
            expires_at: Instant::from_secs(1000),
            outcome: None,
        };
        ledger.accept_command(&command).unwrap();
        let now = Instant::from_secs(10);
        let claim = ledger.claim("restore", &command.schedule).unwrap();
        ledger
            .take_command(&command.schedule, &["restore"], now)
            .unwrap();
        let kinds = ["restore"];
        assert_eq!(ledger.end_dead_work(&kinds, now).unwrap().commands, 0);
        drop(claim);
        assert_eq!(ledger.end_dead_work(&["other"], now).unwrap().commands, 0);
        assert_eq!(ledger.end_dead_work(&kinds, now).unwrap().commands, 1);
        let reported = ledger.unreported_commands().unwrap();
        assert!(reported[0].outcome.as_ref().unwrap().contains("cut off"));
    }
}
