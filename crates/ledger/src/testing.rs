//! Fixtures for this crate's tests.

use model::{Instant, RunCounts, RunId, RunRecord, RunState, ScheduleName, Scope, Trigger};
use tempfile::TempDir;

use crate::{Ledger, RunStart};

pub(crate) struct Fixture {
    pub(crate) ledger: Ledger,
    _directory: TempDir,
}

impl Fixture {
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let ledger = Ledger::open(&directory.path().join("ledger.db")).unwrap();
        Self {
            ledger,
            _directory: directory,
        }
    }

    pub(crate) fn add(&mut self, record: &RunRecord) {
        let at = record.started_at;
        self.ledger
            .add_finished(&record.schedule, std::slice::from_ref(record), at)
            .unwrap();
    }
}

pub(crate) fn start(number: u8, secs: i64) -> RunStart {
    RunStart {
        id: RunId::from_bytes([number; 16]),
        schedule: ScheduleName::new("nightly").unwrap(),
        scope: Scope::Full,
        trigger: Trigger::Timer,
        due_at: None,
        started_at: Instant::from_secs(secs),
    }
}

pub(crate) fn finished(number: u8, secs: i64) -> RunRecord {
    RunRecord {
        id: RunId::from_bytes([number; 16]),
        schedule: ScheduleName::new("nightly").unwrap(),
        scope: Scope::Full,
        trigger: Trigger::Timer,
        due_at: None,
        started_at: Instant::from_secs(secs),
        finished_at: Some(Instant::from_secs(secs + 1)),
        state: RunState::Ok,
        summary: "done".into(),
        counts: RunCounts::default(),
        copies: Vec::new(),
        log: Vec::new(),
    }
}
