//! Runs: begun before the work, finished in one transaction with their outbox row.

use model::{Instant, RunCounts, RunId, RunRecord, RunState, ScheduleName, Scope, Trigger};
use rusqlite::{OptionalExtension as _, Row, Transaction, TransactionBehavior, params};

use crate::{Ledger, LedgerError};

/// The most log lines kept of one run; of a longer log the middle is left out.
pub const RUN_LOG_LINES_MAX: usize = 500;

/// What is known when a run begins.
#[derive(Debug, Clone)]
pub struct RunStart {
    /// The run's id, from systemd's invocation id.
    pub id: RunId,
    /// Which schedule.
    pub schedule: ScheduleName,
    /// What it backs up.
    pub scope: Scope,
    /// What started it.
    pub trigger: Trigger,
    /// The occurrence that it answers.
    pub due_at: Option<Instant>,
    /// Now.
    pub started_at: Instant,
}

impl RunStart {
    /// Gives the record as it is while the run goes on.
    #[must_use]
    pub fn record(&self) -> RunRecord {
        RunRecord {
            id: self.id,
            schedule: self.schedule.clone(),
            scope: self.scope,
            trigger: self.trigger,
            due_at: self.due_at,
            started_at: self.started_at,
            finished_at: None,
            state: RunState::Running,
            summary: "running".to_owned(),
            counts: RunCounts::default(),
            copies: Vec::new(),
            log: Vec::new(),
        }
    }
}

/// Which runs to list.
#[derive(Debug, Clone, Default)]
pub struct RunFilter {
    /// Only this schedule.
    pub schedule: Option<ScheduleName>,
    /// Only runs in this state.
    pub state: Option<RunState>,
    /// At most this many, newest first; 0 means 100.
    pub limit: u32,
}

impl Ledger {
    /// Begins a run: from here on the run ends in exactly one record, whatever happens.
    ///
    /// # Errors
    ///
    /// `Statement` when it cannot be written; the work must not begin then.
    pub fn begin_run(&mut self, start: &RunStart) -> Result<(), LedgerError> {
        self.write("beginning a run", |transaction| {
            insert(transaction, &start.record())
        })
    }

    /// Begins a run and writes the records of what was due before it, as one: either the account
    /// is settled up to the run's start and the run is there, or neither.
    ///
    /// # Errors
    ///
    /// `Statement` when it cannot be written; the work must not begin then.
    pub fn begin_run_settling(
        &mut self,
        start: &RunStart,
        settled: &[RunRecord],
    ) -> Result<(), LedgerError> {
        self.write("beginning a run", |transaction| {
            insert(transaction, &start.record())?;
            add(transaction, &start.schedule, settled, start.started_at)
        })?;
        if !settled.is_empty() {
            self.ring();
        }
        Ok(())
    }

    /// Finishes a run: the record is final and queued for the controller in one transaction. A run
    /// that is already final keeps its first result.
    ///
    /// # Errors
    ///
    /// `Statement` when it cannot be written, `Absent` when the run was never begun: say "finished"
    /// to nobody then.
    pub fn finish_run(&mut self, record: &RunRecord) -> Result<(), LedgerError> {
        let mut record = record.clone();
        bound_log(&mut record.log);
        let is_known = self.write("finishing a run", |transaction| {
            let changed = transaction.execute(
                "UPDATE run SET state = ?2, finished_at = ?3, record = ?4
                 WHERE id = ?1 AND finished_at IS NULL",
                params![
                    record.id.as_bytes(),
                    state_word(record.state),
                    record.finished_at.unwrap_or(record.started_at).micros(),
                    json(&record)
                ],
            )?;
            if changed == 1 {
                queue(transaction, record.id)?;
            }
            transaction.execute(
                "DELETE FROM progress WHERE run_id = ?1",
                [record.id.as_bytes()],
            )?;
            transaction
                .prepare_cached("SELECT 1 FROM run WHERE id = ?1")?
                .exists([record.id.as_bytes()])
        })?;
        if !is_known {
            return Err(LedgerError::Absent {
                what: "run",
                id: record.id.to_string(),
            });
        }
        self.ring();
        Ok(())
    }

    /// Writes records of occurrences that never ran (missed, skipped), queued for the controller.
    ///
    /// # Errors
    ///
    /// `Statement` when they cannot be written; none of them is then.
    pub fn add_finished(
        &mut self,
        schedule: &ScheduleName,
        records: &[RunRecord],
        accounted_until: Instant,
    ) -> Result<(), LedgerError> {
        self.write("recording occurrences", |transaction| {
            add(transaction, schedule, records, accounted_until)
        })?;
        if !records.is_empty() {
            self.ring();
        }
        Ok(())
    }

    /// Gives a run by id.
    ///
    /// # Errors
    ///
    /// `Statement` or `Record` when it cannot be read.
    pub fn run(&self, id: RunId) -> Result<Option<RunRecord>, LedgerError> {
        let text: Option<String> = self
            .connection
            .query_row(
                "SELECT record FROM run WHERE id = ?1",
                [id.as_bytes()],
                |row| row.get(0),
            )
            .optional()
            .map_err(LedgerError::statement("reading a run"))?;
        text.map(|text| parse(&text)).transpose()
    }

    /// Lists runs, newest first.
    ///
    /// # Errors
    ///
    /// `Statement` or `Record` when they cannot be read.
    pub fn runs(&self, filter: &RunFilter) -> Result<Vec<RunRecord>, LedgerError> {
        let limit = if filter.limit == 0 { 100 } else { filter.limit };
        let schedule = filter.schedule.as_ref().map(ScheduleName::as_str);
        let state = filter.state.map(state_word);
        self.records(
            "SELECT record FROM run
             WHERE (?1 IS NULL OR schedule = ?1) AND (?2 IS NULL OR state = ?2)
             ORDER BY started_at DESC, id LIMIT ?3",
            params![schedule, state, limit],
        )
    }

    /// Lists runs of `schedule` that touch the time from `from` to `until`. Rows of occurrences that
    /// never ran are not among them.
    ///
    /// # Errors
    ///
    /// `Statement` or `Record` when they cannot be read.
    pub fn runs_between(
        &self,
        schedule: &ScheduleName,
        from: Instant,
        until: Instant,
    ) -> Result<Vec<RunRecord>, LedgerError> {
        self.records(
            "SELECT record FROM run WHERE schedule = ?1 AND started_at <= ?3
             AND (finished_at IS NULL OR finished_at >= ?2)
             AND state NOT IN ('missed', 'skipped') ORDER BY started_at LIMIT 10000",
            params![schedule.as_str(), from.micros(), until.micros()],
        )
    }

    /// Lists runs without an end, of one schedule or of all, oldest first.
    ///
    /// # Errors
    ///
    /// `Statement` or `Record` when they cannot be read.
    pub fn open_runs(
        &self,
        schedule: Option<&ScheduleName>,
    ) -> Result<Vec<RunRecord>, LedgerError> {
        self.records(
            "SELECT record FROM run WHERE finished_at IS NULL AND (?1 IS NULL OR schedule = ?1)
             ORDER BY started_at LIMIT 1000",
            params![schedule.map(ScheduleName::as_str)],
        )
    }

    fn records(
        &self,
        sql: &str,
        parameters: impl rusqlite::Params,
    ) -> Result<Vec<RunRecord>, LedgerError> {
        let failed = LedgerError::statement("listing runs");
        let texts = self
            .connection
            .prepare_cached(sql)
            .and_then(|mut statement| {
                let rows =
                    statement.query_map(parameters, |row: &Row<'_>| row.get::<_, String>(0))?;
                rows.collect::<Result<Vec<_>, _>>()
            });
        texts
            .map_err(failed)?
            .iter()
            .map(|text| parse(text))
            .collect()
    }

    pub(crate) fn write<T>(
        &mut self,
        operation: &'static str,
        change: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T>,
    ) -> Result<T, LedgerError> {
        let attempt = || {
            let transaction = self
                .connection
                .transaction_with_behavior(TransactionBehavior::Immediate)?;
            let value = change(&transaction)?;
            transaction.commit()?;
            Ok(value)
        };
        attempt().map_err(LedgerError::statement(operation))
    }
}

/// Writes records of ended occurrences. One that is there already was told before and stays.
fn add(
    transaction: &Transaction<'_>,
    schedule: &ScheduleName,
    records: &[RunRecord],
    accounted_until: Instant,
) -> rusqlite::Result<()> {
    for record in records {
        let is_known = transaction
            .prepare_cached("SELECT 1 FROM run WHERE id = ?1")?
            .exists([record.id.as_bytes()])?;
        if !is_known {
            insert(transaction, record)?;
            queue(transaction, record.id)?;
        }
    }
    transaction
        .execute(
            "UPDATE schedule SET accounted_until = max(accounted_until, ?2) WHERE name = ?1",
            params![schedule.as_str(), accounted_until.micros()],
        )
        .map(drop)
}

fn insert(transaction: &Transaction<'_>, record: &RunRecord) -> rusqlite::Result<()> {
    transaction
        .execute(
            "INSERT INTO run (id, schedule, state, started_at, finished_at, boot_id, record)
             VALUES (?1, ?2, ?3, ?4, ?5, '', ?6)",
            params![
                record.id.as_bytes(),
                record.schedule.as_str(),
                state_word(record.state),
                record.started_at.micros(),
                record.finished_at.map(Instant::micros),
                json(record)
            ],
        )
        .map(drop)
}

fn queue(transaction: &Transaction<'_>, id: RunId) -> rusqlite::Result<()> {
    transaction
        .execute(
            "INSERT INTO outbox (run_id) VALUES (?1) ON CONFLICT DO NOTHING",
            [id.as_bytes()],
        )
        .map(drop)
}

fn bound_log(log: &mut Vec<String>) {
    if log.len() > RUN_LOG_LINES_MAX {
        let keep = RUN_LOG_LINES_MAX / 2;
        let left_out = log.len() - 2 * keep + 1;
        log.splice(
            keep..log.len() - keep + 1,
            [format!("… {left_out} lines left out …")],
        );
    }
}

fn state_word(state: RunState) -> &'static str {
    match state {
        RunState::Running => "running",
        RunState::Ok => "ok",
        RunState::Partial => "partial",
        RunState::Failed => "failed",
        RunState::Missed => "missed",
        RunState::Skipped => "skipped",
        RunState::Cancelled => "cancelled",
    }
}

fn json(record: &RunRecord) -> String {
    // A record is a tree of texts and numbers: it cannot fail to become JSON.
    serde_json::to_string(record).unwrap_or_default()
}

pub(crate) fn parse(text: &str) -> Result<RunRecord, LedgerError> {
    serde_json::from_str(text).map_err(|source| {
        let id = text.chars().take(60).collect();
        LedgerError::Record { id, source }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Fixture, finished, start};

    #[test]
    fn a_finished_run_is_queued_once_and_keeps_its_first_result() {
        let mut fixture = Fixture::new();
        let ledger = &mut fixture.ledger;
        ledger.begin_run(&start(1, 100)).unwrap();
        assert!(ledger.outbox_batch(10).unwrap().is_empty());
        let mut record = start(1, 100).record();
        record.state = RunState::Ok;
        record.finished_at = Some(Instant::from_secs(160));
        ledger.finish_run(&record).unwrap();
        record.state = RunState::Failed;
        ledger.finish_run(&record).unwrap();
        assert_eq!(ledger.run(record.id).unwrap().unwrap().state, RunState::Ok);
        assert_eq!(ledger.outbox_batch(10).unwrap().len(), 1);
        let stranger = start(2, 100).record();
        let error = ledger.finish_run(&stranger).unwrap_err();
        assert!(matches!(error, LedgerError::Absent { .. }), "{error}");
    }

    #[test]
    fn a_run_begins_with_what_was_due_before_it_or_not_at_all() {
        let mut fixture = Fixture::new();
        let ledger = &mut fixture.ledger;
        let begun = start(1, 300);
        let at = Instant::from_secs;
        let until = |ledger: &Ledger| ledger.accounted_until(&begun.schedule, "hourly").unwrap();
        ledger
            .track_schedule(&begun.schedule, "hourly", at(100))
            .unwrap();
        let missed = [finished(2, 200)];
        ledger.begin_run_settling(&begun, &missed).unwrap();
        assert_eq!(until(ledger), Some(at(300)));
        assert_eq!(ledger.outbox_len().unwrap(), 1);
        // The same id again: nothing of it is written.
        let again = RunStart {
            started_at: at(900),
            ..begun.clone()
        };
        let error = ledger.begin_run_settling(&again, &[finished(3, 800)]);
        assert!(error.is_err());
        assert_eq!(until(ledger), Some(at(300)));
        assert_eq!(ledger.runs(&RunFilter::default()).unwrap().len(), 2);
        // A record that was told already is not told again, and keeps nothing from beginning.
        let next = start(4, 900);
        ledger.begin_run_settling(&next, &missed).unwrap();
        assert_eq!(ledger.outbox_len().unwrap(), 1);
        assert_eq!(ledger.open_runs(Some(&next.schedule)).unwrap().len(), 2);
    }

    #[test]
    fn a_long_log_keeps_both_ends() {
        let mut log: Vec<String> = (0..2000).map(|n| n.to_string()).collect();
        bound_log(&mut log);
        assert_eq!(log.len(), RUN_LOG_LINES_MAX);
        assert_eq!(log.first().unwrap(), "0");
        assert_eq!(log.last().unwrap(), "1999");
        assert!(log[250].contains("1501 lines left out"), "{}", log[250]);
    }
}
