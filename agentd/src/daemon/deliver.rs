//! Results and progress to the controller: results exactly once, progress when it can.

use std::time::Duration;

use protocol::{BATCH_ROWS_MAX, Batch, Progress, ProgressReport, ResultsAnswer};

use super::backoff::Backoff;
use super::{DaemonError, Shared, facts, now};

/// The least time between two tellings: a job may touch the wake file often.
const GAP: Duration = Duration::from_secs(1);

pub(super) async fn run(shared: &Shared) -> Result<(), DaemonError> {
    let mut backoff = Backoff::default();
    let mut told: Option<ProgressReport> = None;
    loop {
        shared.tell.notified().await;
        loop {
            match tell(shared, &mut told).await {
                Ok(()) => {
                    backoff.succeeded();
                    break;
                }
                Err(DaemonError::Call(error)) => {
                    tracing::debug!("{}", crate::log::chain(&error));
                    tokio::select! {
                        () = tokio::time::sleep(backoff.failed(error.after(), shared.retry_max())) => {}
                        () = shared.reached.notified() => {}
                    }
                }
                Err(error) => return Err(error),
            }
        }
        // What happens meanwhile is told together.
        tokio::time::sleep(GAP).await;
    }
}

async fn tell(shared: &Shared, told: &mut Option<ProgressReport>) -> Result<(), DaemonError> {
    deliver(shared).await?;
    facts::tell_commands(shared).await?;
    let report = progress(shared)?;
    let is_quiet = report.tasks.is_empty() && told.as_ref().is_none_or(|t| t.tasks.is_empty());
    if !is_quiet && told.as_ref() != Some(&report) {
        let body = serde_json::to_vec(&report).map_err(|e| DaemonError::Answer(e.to_string()))?;
        shared
            .call("POST", "/agent/v1/progress", Some(body))
            .await?;
        if told.as_ref().map(|t| t.tasks.len()) != Some(report.tasks.len()) {
            // A job began or ended: its timer has another next elapse.
            shared.look.notify_one();
        }
        *told = Some(report);
    }
    Ok(())
}

/// Sends what waits in the outbox until nothing does.
pub(super) async fn deliver(shared: &Shared) -> Result<(), DaemonError> {
    loop {
        // A number that no controller has asks for the one it has.
        let after = shared.delivered.get().unwrap_or(-1);
        let limit = u32::try_from(BATCH_ROWS_MAX).unwrap_or(u32::MAX);
        let rows = shared.ledger.borrow().outbox_batch(limit)?;
        if rows.is_empty() && after >= 0 {
            return Ok(());
        }
        let rows = rows.into_iter().map(|row| (row.seq, row.record));
        let batch = if after < 0 {
            Batch::fill(shared.stream.clone(), after, [])
        } else {
            Batch::fill(shared.stream.clone(), after, rows)
        };
        let last = batch.rows.last().map(|row| row.seq);
        let body = serde_json::to_vec(&batch).map_err(|e| DaemonError::Answer(e.to_string()))?;
        let answer = shared.call("POST", "/agent/v1/results", Some(body)).await?;
        let answer: ResultsAnswer =
            serde_json::from_slice(&answer).map_err(|e| DaemonError::Answer(e.to_string()))?;
        settle(shared, last, answer.acknowledged)?;
    }
}

/// Takes over up to where the controller has everything.
fn settle(shared: &Shared, sent: Option<i64>, acknowledged: i64) -> Result<(), DaemonError> {
    let mut ledger = shared.ledger.borrow_mut();
    if sent != Some(acknowledged) {
        // It was restored from a backup, or this is the first word between the two.
        let again = ledger.rewind_outbox(acknowledged)?;
        if again > 0 {
            tracing::info!(acknowledged, again, "the controller asks for results again");
        }
    }
    ledger.acknowledge(acknowledged, now())?;
    shared.delivered.set(Some(acknowledged));
    Ok(())
}

fn progress(shared: &Shared) -> Result<ProgressReport, DaemonError> {
    let tasks = shared.ledger.borrow().progress()?;
    let tasks = tasks.into_iter().filter_map(|task| {
        Some(Progress {
            id: task.id.to_string(),
            kind: match task.work.as_str() {
                "backup" => "run".to_owned(),
                other => other.to_owned(),
            },
            schedule: task.schedule.parse().ok()?,
            phase: task.phase,
            entries: task.entries,
            bytes: task.bytes.get(),
            bytes_expected: task.bytes_expected.map(model::ByteCount::get),
            started_at: task.started_at,
        })
    });
    Ok(ProgressReport {
        tasks: tasks.collect(),
    })
}
