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

    /// Lists the progress of everything that runs.
    ///
    /// # Errors
    ///
    /// `Statement` when it cannot be read; rows that do not parse are left out.
    pub fn progress(&self) -> Result<Vec<Progress>, LedgerError> {
        let texts = self
            .connection
            .prepare_cached("SELECT body FROM progress ORDER BY at LIMIT 1000")
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
