//! How far running work is: lossy, overwritten, deleted when the run ends.

use model::{ByteCount, Instant, RunId};
use rusqlite::params;
use serde::{Deserialize, Serialize};

use crate::{Ledger, LedgerError};

/// How far one run or restore is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// The run, or the command for a restore.
    pub id: RunId,
    /// Which schedule it belongs to.
    pub schedule: String,
    /// `backup` or `restore`.
    pub work: String,
    /// The phase in one word: `storing`, `verifying`, `restoring`.
    pub phase: String,
    /// Entries done.
    pub entries: u64,
    /// Bytes done.
    pub bytes: ByteCount,
    /// Bytes expected, when known.
    pub bytes_expected: Option<ByteCount>,
    /// When it began.
    pub started_at: Instant,
}

impl Ledger {
    /// Overwrites the progress of one run.
    ///
    /// # Errors
    ///
    /// `Statement` when it cannot be written; callers may ignore it, the work goes on.
    pub fn set_progress(&mut self, progress: &Progress, now: Instant) -> Result<(), LedgerError> {
        let body = serde_json::to_string(progress).unwrap_or_default();
        self.write("keeping progress", |transaction| {
            transaction
                .execute(
                    "INSERT INTO progress (run_id, body, at) VALUES (?1, ?2, ?3)
                     ON CONFLICT (run_id) DO UPDATE SET body = excluded.body, at = excluded.at",
                    params![progress.id.as_bytes(), body, now.micros()],
                )
                .map(drop)
        })?;
        self.ring();
        Ok(())
    }

    /// Removes the progress of ended work.
    ///
    /// # Errors
    ///
    /// `Statement` when it cannot be written.
    pub fn clear_progress(&mut self, id: RunId) -> Result<(), LedgerError> {
        self.write("clearing progress", |transaction| {
            transaction
                .execute("DELETE FROM progress WHERE run_id = ?1", [id.as_bytes()])
                .map(drop)
        })
    }

    /// Lists the progress of everything that runs. What a dead job left is not shown once its run or
    /// command has an end.
    ///
    /// # Errors
    ///
    /// `Statement` when it cannot be read; rows that do not parse are left out.
    pub fn progress(&self) -> Result<Vec<Progress>, LedgerError> {
        let texts = self
            .connection
            .prepare_cached(
                "SELECT body FROM progress
                 WHERE run_id IN (SELECT id FROM run WHERE finished_at IS NULL)
                 OR run_id IN (SELECT id FROM command WHERE state = 'running')
                 ORDER BY at LIMIT 1000",
            )
            .and_then(|mut statement| {
                let rows = statement.query_map([], |row| row.get::<_, String>(0))?;
                rows.collect::<Result<Vec<_>, _>>()
            })
            .map_err(LedgerError::statement("reading progress"))?;
        Ok(texts
            .iter()
            .filter_map(|text| serde_json::from_str(text).ok())
            .collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Fixture, start};
    use model::RunState;

    #[test]
    fn progress_of_ended_work_is_not_shown() {
        let mut fixture = Fixture::new();
        let ledger = &mut fixture.ledger;
        let mut record = start(1, 100).record();
        let progress = Progress {
            id: record.id,
            schedule: record.schedule.to_string(),
            work: "backup".into(),
            phase: "storing".into(),
            entries: 1,
            bytes: ByteCount::ZERO,
            bytes_expected: None,
            started_at: record.started_at,
        };
        ledger.begin_run(&start(1, 100)).unwrap();
        ledger.set_progress(&progress, record.started_at).unwrap();
        assert_eq!(ledger.progress().unwrap(), std::slice::from_ref(&progress));
        record.state = RunState::Failed;
        record.finished_at = Some(Instant::from_secs(200));
        ledger.finish_run(&record).unwrap();
        // A last beat of the dying job.
        ledger.set_progress(&progress, record.started_at).unwrap();
        assert!(ledger.progress().unwrap().is_empty());
    }
}
