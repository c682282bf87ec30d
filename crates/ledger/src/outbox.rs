//! The outbox: run records on their way to the controller, in order, until acknowledged.

use model::{Instant, RunRecord};
use rusqlite::params;

use crate::runs::parse;
use crate::{Ledger, LedgerError};

/// One record to deliver.
#[derive(Debug, Clone, PartialEq)]
pub struct OutboxRow {
    /// Its number; numbers rise and are never used again.
    pub seq: i64,
    /// The record.
    pub record: RunRecord,
}

impl Ledger {
    /// Gives the oldest records that are not acknowledged, at most `limit`.
    ///
    /// # Errors
    ///
    /// `Statement` or `Record` when they cannot be read.
    pub fn outbox_batch(&self, limit: u32) -> Result<Vec<OutboxRow>, LedgerError> {
        let rows = self
            .connection
            .prepare_cached(
                "SELECT seq, record FROM outbox JOIN run ON run.id = outbox.run_id
                 WHERE acknowledged_at IS NULL ORDER BY seq LIMIT ?1",
            )
            .and_then(|mut statement| {
                let rows = statement.query_map([limit], |row| {
                    Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?))
                })?;
                rows.collect::<Result<Vec<_>, _>>()
            })
            .map_err(LedgerError::statement("reading the outbox"))?;
        rows.iter()
            .map(|(seq, text)| {
                Ok(OutboxRow {
                    seq: *seq,
                    record: parse(text)?,
                })
            })
            .collect()
    }

    /// Counts the records that are not acknowledged.
    ///
    /// # Errors
    ///
    /// `Statement` when the file cannot be read.
    pub fn outbox_len(&self) -> Result<u64, LedgerError> {
        self.connection
            .query_row(
                "SELECT count(*) FROM outbox JOIN run ON run.id = outbox.run_id
                 WHERE acknowledged_at IS NULL",
                [],
                |row| row.get::<_, i64>(0),
            )
            .map(|count| u64::try_from(count).unwrap_or(0))
            .map_err(LedgerError::statement("counting the outbox"))
    }

    /// Marks every record up to `seq` as acknowledged. They stay, so that a controller restored from
    /// an old backup can ask for them again.
    ///
    /// # Errors
    ///
    /// `Statement` when it cannot be written: the rows are then sent again, which is harmless.
    pub fn acknowledge(&mut self, seq: i64, now: Instant) -> Result<(), LedgerError> {
        self.write("acknowledging results", |transaction| {
            transaction
                .execute(
                    "UPDATE outbox SET acknowledged_at = ?2
                     WHERE seq <= ?1 AND acknowledged_at IS NULL",
                    params![seq, now.micros()],
                )
                .map(drop)
        })
    }

    /// Queues again every record behind `seq`: the controller says that it has none of them.
    ///
    /// # Errors
    ///
    /// `Statement` when it cannot be written.
    pub fn rewind_outbox(&mut self, seq: i64) -> Result<u64, LedgerError> {
        let changed = self.write("queueing results again", |transaction| {
            transaction.execute(
                "UPDATE outbox SET acknowledged_at = NULL
                 WHERE seq > ?1 AND acknowledged_at IS NOT NULL",
                [seq],
            )
        })?;
        Ok(u64::try_from(changed).unwrap_or(0))
    }

    /// Gives the highest number that the outbox ever used, 0 when none.
    ///
    /// # Errors
    ///
    /// `Statement` when the file cannot be read.
    pub fn outbox_last_seq(&self) -> Result<i64, LedgerError> {
        self.connection
            .query_row("SELECT coalesce(max(seq), 0) FROM outbox", [], |row| {
                row.get(0)
            })
            .map_err(LedgerError::statement("reading the outbox"))
    }

    /// Forgets runs that finished before `before` and that the controller has.
    ///
    /// # Errors
    ///
    /// `Statement` when it cannot be written; nothing is forgotten then.
    pub fn forget_runs(&mut self, before: Instant) -> Result<u64, LedgerError> {
        self.forget(
            "DELETE FROM run WHERE finished_at < ?1 AND id IN
             (SELECT run_id FROM outbox WHERE acknowledged_at IS NOT NULL)",
            before,
        )
    }

    /// Forgets runs that finished before `before`, although nobody was told of them: for a server
    /// that has no controller.
    ///
    /// # Errors
    ///
    /// As [`Ledger::forget_runs`].
    pub fn forget_untold_runs(&mut self, before: Instant) -> Result<u64, LedgerError> {
        self.forget("DELETE FROM run WHERE finished_at < ?1", before)
    }

    fn forget(&mut self, sql: &str, before: Instant) -> Result<u64, LedgerError> {
        let changed = self.write("forgetting old runs", |transaction| {
            let changed = transaction.execute(sql, [before.micros()])?;
            transaction.execute(
                "DELETE FROM progress WHERE run_id NOT IN
                 (SELECT id FROM run WHERE finished_at IS NULL)
                 AND run_id NOT IN (SELECT id FROM command WHERE state = 'running')",
                [],
            )?;
            transaction.execute(
                "DELETE FROM outbox WHERE run_id NOT IN (SELECT id FROM run)
                 AND seq < (SELECT max(seq) FROM outbox)",
                [],
            )?;
            Ok(changed)
        })?;
        Ok(u64::try_from(changed).unwrap_or(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Fixture, finished};

    #[test]
    fn records_are_delivered_in_order_and_again_when_asked() {
        let mut fixture = Fixture::new();
        for number in 1..=3 {
            fixture.add(&finished(number, i64::from(number) * 100));
        }
        let ledger = &mut fixture.ledger;
        let seqs = |ledger: &Ledger| -> Vec<i64> {
            ledger
                .outbox_batch(10)
                .unwrap()
                .iter()
                .map(|row| row.seq)
                .collect()
        };
        assert_eq!(seqs(ledger), [1, 2, 3]);
        ledger.acknowledge(2, Instant::from_secs(500)).unwrap();
        assert_eq!(seqs(ledger), [3]);
        assert_eq!(ledger.rewind_outbox(1).unwrap(), 1);
        assert_eq!(seqs(ledger), [2, 3]);
        assert_eq!(ledger.outbox_last_seq().unwrap(), 3);
    }

    #[test]
    fn only_acknowledged_runs_are_forgotten() {
        let mut fixture = Fixture::new();
        fixture.add(&finished(1, 100));
        fixture.add(&finished(2, 200));
        let ledger = &mut fixture.ledger;
        ledger.acknowledge(1, Instant::from_secs(300)).unwrap();
        assert_eq!(ledger.forget_runs(Instant::from_secs(1000)).unwrap(), 1);
        assert_eq!(ledger.outbox_len().unwrap(), 1);
        assert_eq!(ledger.outbox_batch(10).unwrap()[0].seq, 2);
        let later = Instant::from_secs(1000);
        assert_eq!(ledger.forget_untold_runs(later).unwrap(), 1);
        assert_eq!(ledger.outbox_len().unwrap(), 0);
        assert_eq!(ledger.outbox_last_seq().unwrap(), 2);
    }
}
