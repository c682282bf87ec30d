//! History: run records, each exactly once.

use std::collections::HashMap;

use model::{Instant, RunId, RunRecord, RunState};
use protocol::Batch;
use rusqlite::{Connection, OptionalExtension as _, params};

use crate::problem::Problem;

/// A run with the server that it ran on.
#[derive(Debug, Clone)]
pub(crate) struct RunRow {
    pub(crate) server_id: String,
    pub(crate) server_name: String,
    pub(crate) record: RunRecord,
}

/// Which runs to list.
#[derive(Debug, Clone, Default)]
pub(crate) struct RunFilter {
    pub(crate) server: Option<String>,
    pub(crate) schedule: Option<String>,
    pub(crate) state: Option<RunState>,
}

/// Which page: everything older than `before`, at most `limit`.
#[derive(Debug, Clone)]
pub(crate) struct Page {
    pub(crate) before: Option<(Instant, RunId)>,
    pub(crate) limit: u32,
}

/// What a batch brought.
#[derive(Debug, Clone)]
pub(crate) struct Taken {
    pub(crate) acknowledged: i64,
    pub(crate) new: Vec<RunRecord>,
}

fn state_word(state: RunState) -> Result<String, Problem> {
    let word = serde_json::to_value(state)?;
    Ok(word.as_str().unwrap_or_default().to_owned())
}

/// Gives the last number that is stored of a stream, zero when none.
pub(crate) fn last_seq(
    connection: &Connection,
    server_id: &str,
    stream: &str,
) -> Result<i64, Problem> {
    let last: Option<i64> = connection
        .query_row(
            "SELECT last_seq FROM stream WHERE server_id = ?1 AND stream = ?2",
            [server_id, stream],
            |row| row.get(0),
        )
        .optional()?;
    Ok(last.unwrap_or(0))
}

/// Takes a batch when it continues where the stored rows end; otherwise says where that is.
///
/// Rows that are stored already change nothing, whatever brings them again.
pub(crate) fn take_batch(
    connection: &Connection,
    server_id: &str,
    batch: Batch,
) -> Result<Taken, Problem> {
    let stored = last_seq(connection, server_id, &batch.stream)?;
    let mut taken = Taken {
        acknowledged: stored,
        new: Vec::new(),
    };
    if batch.after != stored {
        return Ok(taken);
    }
    for row in batch.rows {
        if row.seq <= taken.acknowledged {
            return Err(Problem::invalid("/rows", "rows must have rising numbers"));
        }
        taken.acknowledged = row.seq;
        if insert(connection, server_id, &row.record)? {
            taken.new.push(row.record);
        }
    }
    connection.execute(
        "INSERT INTO stream (server_id, stream, last_seq) VALUES (?1, ?2, ?3)
         ON CONFLICT (server_id, stream) DO UPDATE SET last_seq = excluded.last_seq",
        params![server_id, batch.stream, taken.acknowledged],
    )?;
    Ok(taken)
}

fn insert(connection: &Connection, server_id: &str, record: &RunRecord) -> Result<bool, Problem> {
    let text = serde_json::to_string(record)?;
    let added = connection
        .prepare_cached(
            "INSERT INTO run (id, server_id, schedule, state, started_at, record)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6) ON CONFLICT (server_id, id) DO NOTHING",
        )?
        .execute(params![
            record.id.as_bytes(),
            server_id,
            record.schedule.as_str(),
            state_word(record.state)?,
            record.started_at.micros(),
            text
        ])?;
    if added == 0 {
        let known: String = connection.query_row(
            "SELECT record FROM run WHERE server_id = ?1 AND id = ?2",
            params![server_id, record.id.as_bytes()],
            |row| row.get(0),
        )?;
        if known != text {
            tracing::warn!(server_id, run = %record.id, "a run came again with another content; the first is kept");
        }
    }
    Ok(added > 0)
}

/// Gives a page of runs, newest first.
pub(crate) fn runs(
    connection: &Connection,
    filter: &RunFilter,
    page: &Page,
) -> Result<Vec<RunRow>, Problem> {
    let state = filter.state.map(state_word).transpose()?;
    let (before, id) = match page.before {
        Some((at, id)) => (at.micros(), id.as_bytes().to_vec()),
        None => (i64::MAX, Vec::new()),
    };
    connection
        .prepare_cached(
            "SELECT run.server_id, server.name, run.record FROM run
             JOIN server ON server.id = run.server_id
             WHERE (run.started_at, run.id) < (?1, ?2)
               AND (?3 IS NULL OR run.server_id = ?3)
               AND (?4 IS NULL OR run.schedule = ?4)
               AND (?5 IS NULL OR run.state = ?5)
             ORDER BY run.started_at DESC, run.id DESC LIMIT ?6",
        )?
        .query_map(
            params![
                before,
                id,
                filter.server,
                filter.schedule,
                state,
                page.limit
            ],
            read,
        )?
        .map(|row| row?)
        .collect()
}

fn read(row: &rusqlite::Row<'_>) -> rusqlite::Result<Result<RunRow, Problem>> {
    let (server_id, server_name): (String, String) = (row.get(0)?, row.get(1)?);
    let record: String = row.get(2)?;
    Ok(serde_json::from_str(&record)
        .map(|record| RunRow {
            server_id,
            server_name,
            record,
        })
        .map_err(Problem::from))
}

/// Gives one run.
pub(crate) fn run(connection: &Connection, id: RunId) -> Result<RunRow, Problem> {
    connection
        .query_row(
            "SELECT run.server_id, server.name, run.record FROM run
             JOIN server ON server.id = run.server_id WHERE run.id = ?1",
            [id.as_bytes()],
            read,
        )
        .optional()?
        .ok_or_else(|| Problem::not_found("run"))?
}

/// Gives the newest run of each schedule of a server.
pub(crate) fn last_runs(
    connection: &Connection,
    server_id: &str,
) -> Result<HashMap<String, RunRecord>, Problem> {
    let texts = connection
        .prepare_cached(
            "SELECT record, max(started_at) FROM run WHERE server_id = ?1 GROUP BY schedule",
        )?
        .query_map([server_id], |row| row.get::<_, String>(0))?
        .collect::<Result<Vec<_>, _>>()?;
    let mut newest = HashMap::new();
    for text in texts {
        let record: RunRecord = serde_json::from_str(&text)?;
        newest.insert(record.schedule.as_str().to_owned(), record);
    }
    Ok(newest)
}
