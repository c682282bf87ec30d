//! Operations: what people asked servers to do, and how that stands.

use model::{CommandId, Instant, RunId, RunRecord, RunState};
use protocol::{CommandReport, CommandState, Envelope};
use rusqlite::{Connection, OptionalExtension as _, Row, params};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::problem::Problem;

/// How an operation stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum OperationState {
    /// Signed and waiting for the agent.
    Requested,
    /// The agent has it.
    Accepted,
    /// The agent works on it.
    Running,
    /// Done.
    Done,
    /// Tried and failed, or refused by the agent.
    Failed,
    /// The agent did not begin in time.
    Expired,
}

impl OperationState {
    const fn word(self) -> &'static str {
        match self {
            Self::Requested => "requested",
            Self::Accepted => "accepted",
            Self::Running => "running",
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Expired => "expired",
        }
    }

    fn parse(word: &str) -> Self {
        match word {
            "requested" => Self::Requested,
            "accepted" => Self::Accepted,
            "running" => Self::Running,
            "done" => Self::Done,
            "expired" => Self::Expired,
            _ => Self::Failed,
        }
    }
}

/// One operation.
#[derive(Debug, Clone)]
pub(crate) struct Operation {
    pub(crate) id: CommandId,
    pub(crate) server_id: String,
    pub(crate) kind: String,
    pub(crate) schedule: Option<String>,
    pub(crate) state: OperationState,
    pub(crate) detail: Option<String>,
    pub(crate) run: Option<RunId>,
    pub(crate) created_at: Instant,
    pub(crate) updated_at: Instant,
    pub(crate) expires_at: Instant,
}

const COLUMNS: &str = "id, server_id, kind, schedule, state, detail, run_id, created_at, \
                       updated_at, expires_at";

fn read(row: &Row<'_>) -> rusqlite::Result<Operation> {
    let id: [u8; 16] = row.get(0)?;
    let state: String = row.get(4)?;
    let run: Option<[u8; 16]> = row.get(6)?;
    let instant = |column| row.get(column).map(Instant::from_micros);
    let mut operation = Operation {
        id: CommandId::from_bytes(id),
        server_id: row.get(1)?,
        kind: row.get(2)?,
        schedule: row.get(3)?,
        state: OperationState::parse(&state),
        detail: row.get(5)?,
        run: run.map(RunId::from_bytes),
        created_at: instant(7)?,
        updated_at: instant(8)?,
        expires_at: instant(9)?,
    };
    // Nobody needs to be awake for an operation to expire.
    if operation.state == OperationState::Requested && operation.expires_at < crate::now() {
        operation.state = OperationState::Expired;
        operation.detail = Some("the agent did not ask for it in time".into());
        operation.updated_at = operation.expires_at;
    }
    Ok(operation)
}

/// Keeps a new operation with its signed command.
pub(crate) fn add_operation(
    connection: &Connection,
    operation: &Operation,
    envelope: &Envelope,
    created_by: &str,
) -> Result<(), Problem> {
    connection.execute(
        "INSERT INTO operation (id, server_id, kind, schedule, state, envelope, created_by,
                                created_at, updated_at, expires_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?8, ?9)",
        params![
            operation.id.as_bytes(),
            operation.server_id,
            operation.kind,
            operation.schedule,
            operation.state.word(),
            envelope.to_text(),
            created_by,
            operation.created_at.micros(),
            operation.expires_at.micros()
        ],
    )?;
    Ok(())
}

/// Gives one operation.
pub(crate) fn operation(connection: &Connection, id: CommandId) -> Result<Operation, Problem> {
    connection
        .query_row(
            &format!("SELECT {COLUMNS} FROM operation WHERE id = ?1"),
            [id.as_bytes()],
            read,
        )
        .optional()?
        .ok_or_else(|| Problem::not_found("operation"))
}

/// Gives every operation that is not over, newest first.
pub(crate) fn active_operations(connection: &Connection) -> Result<Vec<Operation>, Problem> {
    let found = connection
        .prepare_cached(&format!(
            "SELECT {COLUMNS} FROM operation
             WHERE state IN ('requested', 'accepted', 'running')
             ORDER BY created_at DESC LIMIT 1000"
        ))?
        .query_map([], read)?
        .collect::<Result<Vec<_>, _>>()?;
    Ok(found
        .into_iter()
        .filter(|operation| operation.state != OperationState::Expired)
        .collect())
}

/// Gives the signed commands that an agent has not answered yet, oldest first.
pub(crate) fn pending_envelopes(
    connection: &Connection,
    server_id: &str,
    now: Instant,
) -> Result<Vec<Envelope>, Problem> {
    connection
        .prepare_cached(
            "SELECT envelope FROM operation
             WHERE server_id = ?1 AND state = 'requested' AND expires_at > ?2
             ORDER BY created_at LIMIT 50",
        )?
        .query_map(params![server_id, now.micros()], |row| {
            row.get::<_, String>(0)
        })?
        .map(|text| Ok(serde_json::from_str(&text?)?))
        .collect()
}

/// Takes over what an agent says about one of its commands; `None` when nothing changed.
pub(crate) fn apply_command_report(
    connection: &Connection,
    server_id: &str,
    report: &CommandReport,
    now: Instant,
) -> Result<Option<CommandId>, Problem> {
    let state = match report.state {
        CommandState::Accepted => OperationState::Accepted,
        CommandState::Running => OperationState::Running,
        CommandState::Done => OperationState::Done,
        CommandState::Failed | CommandState::Refused => OperationState::Failed,
        CommandState::Expired => OperationState::Expired,
    };
    // An end is final; and a report that was held up must not turn running into accepted.
    let changed = connection.execute(
        "UPDATE operation SET state = ?3, detail = ?4, run_id = coalesce(?5, run_id),
                              updated_at = ?6
         WHERE id = ?1 AND server_id = ?2
           AND (state = 'requested' OR (state = 'accepted' AND ?3 <> 'accepted')
                OR (state = 'running' AND ?3 IN ('done', 'failed', 'expired')))",
        params![
            report.id.as_bytes(),
            server_id,
            state.word(),
            report.detail,
            report.run.map(|run| run.as_bytes().to_vec()),
            now.micros()
        ],
    )?;
    if let Some(run) = report.run {
        finish_from_history(connection, server_id, run, now)?;
    }
    Ok((changed > 0).then_some(report.id))
}

/// The record of a run may come before the report that names it.
fn finish_from_history(
    connection: &Connection,
    server_id: &str,
    run: RunId,
    now: Instant,
) -> Result<(), Problem> {
    let record: Option<String> = connection
        .query_row(
            "SELECT record FROM run WHERE server_id = ?1 AND id = ?2",
            params![server_id, run.as_bytes()],
            |row| row.get(0),
        )
        .optional()?;
    if let Some(record) = record {
        finish_operation_of_run(connection, server_id, &serde_json::from_str(&record)?, now)?;
    }
    Ok(())
}

/// Ends the operations that wait for a run: those that name it, and those that asked for a run of
/// its schedule before it ended, because a request joins a run that is under way.
pub(crate) fn finish_operation_of_run(
    connection: &Connection,
    server_id: &str,
    record: &RunRecord,
    now: Instant,
) -> Result<Vec<CommandId>, Problem> {
    let state = match record.state {
        RunState::Ok | RunState::Partial => OperationState::Done,
        // Nothing ran: the run that was asked for is still to come.
        RunState::Missed | RunState::Skipped => return Ok(Vec::new()),
        _ => OperationState::Failed,
    };
    let ids = connection
        .prepare_cached(
            "UPDATE operation SET state = ?3, detail = ?4, updated_at = ?5, run_id = ?1
             WHERE server_id = ?2 AND state IN ('requested', 'accepted', 'running')
               AND (run_id = ?1
                    OR (run_id IS NULL AND kind = 'run_now' AND schedule = ?6 AND created_at < ?7))
             RETURNING id",
        )?
        .query_map(
            params![
                record.id.as_bytes(),
                server_id,
                state.word(),
                record.summary,
                now.micros(),
                record.schedule.as_str(),
                record.finished_at.unwrap_or(record.started_at).micros()
            ],
            |row| row.get::<_, [u8; 16]>(0),
        )?
        .collect::<Result<Vec<_>, _>>()?;
    Ok(ids.into_iter().map(CommandId::from_bytes).collect())
}
