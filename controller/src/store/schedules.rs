//! Schedules that the controller holds, and the signed generations made of them.

use model::AgentId;
use protocol::{Envelope, Generation, GenerationHash, PROTOCOL_VERSION, PayloadType, SigningKey};
use rusqlite::{Connection, OptionalExtension as _, params};

use crate::problem::Problem;
use crate::schedule::ScheduleInput;

/// Older generations that are kept of each server.
const GENERATIONS_KEPT: u64 = 50;

/// A schedule with its revision, which is its `ETag`.
#[derive(Debug, Clone)]
pub(crate) struct Stored {
    pub(crate) input: ScheduleInput,
    pub(crate) revision: i64,
}

/// For whom a generation is made, and with which key.
#[derive(Debug, Clone)]
pub(crate) struct Issuer {
    pub(crate) server_id: String,
    pub(crate) agent: AgentId,
    pub(crate) key: SigningKey,
}

/// Gives the schedules of a server by name.
pub(crate) fn schedules(connection: &Connection, server_id: &str) -> Result<Vec<Stored>, Problem> {
    connection
        .prepare_cached("SELECT body, revision FROM schedule WHERE server_id = ?1 ORDER BY name")?
        .query_map([server_id], |row| {
            Ok((row.get::<_, String>(0)?, row.get(1)?))
        })?
        .map(|row| {
            let (body, revision) = row?;
            Ok(Stored {
                input: serde_json::from_str(&body)?,
                revision,
            })
        })
        .collect()
}

/// Gives one schedule.
pub(crate) fn schedule(
    connection: &Connection,
    server_id: &str,
    name: &str,
) -> Result<Option<Stored>, Problem> {
    let row: Option<(String, i64)> = connection
        .query_row(
            "SELECT body, revision FROM schedule WHERE server_id = ?1 AND name = ?2",
            [server_id, name],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )
        .optional()?;
    row.map(|(body, revision)| {
        Ok(Stored {
            input: serde_json::from_str(&body)?,
            revision,
        })
    })
    .transpose()
}

/// Adds a schedule and makes the generation with it.
pub(crate) fn insert_schedule(
    connection: &Connection,
    issuer: &Issuer,
    input: &ScheduleInput,
) -> Result<(), Problem> {
    let added = connection.execute(
        "INSERT INTO schedule (server_id, name, revision, body) VALUES (?1, ?2, 1, ?3)
         ON CONFLICT (server_id, name) DO NOTHING",
        params![
            issuer.server_id,
            input.name.as_str(),
            serde_json::to_string(input)?
        ],
    )?;
    if added == 0 {
        return Err(Problem::conflict(
            "name_taken",
            format!("this server already has a schedule named {}", input.name),
        ));
    }
    issue(connection, issuer)
}

/// Replaces a schedule whose revision is `revision` and makes the generation with it; `None` when
/// it has another revision by now.
pub(crate) fn update_schedule(
    connection: &Connection,
    issuer: &Issuer,
    input: &ScheduleInput,
    revision: i64,
) -> Result<Option<i64>, Problem> {
    let changed = connection.execute(
        "UPDATE schedule SET body = ?4, revision = revision + 1
         WHERE server_id = ?1 AND name = ?2 AND revision = ?3",
        params![
            issuer.server_id,
            input.name.as_str(),
            revision,
            serde_json::to_string(input)?
        ],
    )?;
    if changed == 0 {
        return Ok(None);
    }
    issue(connection, issuer)?;
    Ok(Some(revision + 1))
}

/// Removes a schedule whose revision is `revision` and makes the generation without it; false when
/// it has another revision by now.
pub(crate) fn delete_schedule(
    connection: &Connection,
    issuer: &Issuer,
    name: &str,
    revision: i64,
) -> Result<bool, Problem> {
    let removed = connection.execute(
        "DELETE FROM schedule WHERE server_id = ?1 AND name = ?2 AND revision = ?3",
        params![issuer.server_id, name, revision],
    )?;
    if removed > 0 {
        issue(connection, issuer)?;
    }
    Ok(removed > 0)
}

/// Gives the newest generation when its number is higher than `seen`.
pub(crate) fn newer_generation(
    connection: &Connection,
    server_id: &str,
    seen: u64,
) -> Result<Option<(u64, Envelope)>, Problem> {
    let row: Option<(i64, String)> = connection
        .prepare_cached(
            "SELECT number, envelope FROM generation
             WHERE server_id = ?1 AND number > ?2 ORDER BY number DESC LIMIT 1",
        )?
        .query_row(params![server_id, seen.cast_signed()], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })
        .optional()?;
    row.map(|(number, text)| Ok((number.cast_unsigned(), serde_json::from_str(&text)?)))
        .transpose()
}

/// Continues the numbers behind `seen`, which an agent has although this state does not know it:
/// the state was restored from an older backup. Makes a generation with the next number.
pub(crate) fn renumber(connection: &Connection, issuer: &Issuer, seen: u64) -> Result<(), Problem> {
    connection.execute(
        "UPDATE server SET generation_saved = ?2 WHERE id = ?1 AND generation_saved < ?2",
        params![issuer.server_id, seen.cast_signed()],
    )?;
    issue(connection, issuer)
}

fn issue(connection: &Connection, issuer: &Issuer) -> Result<(), Problem> {
    let (saved, previous): (i64, Option<String>) = connection
        .query_row(
            "SELECT generation_saved, (SELECT hash FROM generation WHERE server_id = server.id
                                       ORDER BY number DESC LIMIT 1)
             FROM server WHERE id = ?1",
            [&issuer.server_id],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )
        .optional()?
        .ok_or_else(|| Problem::not_found("server"))?;
    let number = saved.cast_unsigned() + 1;
    let mut texts = Vec::new();
    for stored in schedules(connection, &issuer.server_id)? {
        texts.push(stored.input.toml()?);
    }
    let generation = Generation {
        protocol: PROTOCOL_VERSION,
        agent: issuer.agent,
        number,
        issued_at: crate::now(),
        previous: previous.and_then(|hash| GenerationHash::try_from(hash).ok()),
        toml: texts.join("\n"),
    };
    let envelope = generation.seal(&issuer.key);
    let text = envelope.to_text();
    if text.len() > protocol::DOCUMENT_BYTES_MAX {
        return Err(Problem::invalid(
            "",
            "the schedules of this server are longer than a generation may be",
        ));
    }
    let payload = envelope
        .open(PayloadType::Generation, &issuer.key.public())
        .map_err(|error| Problem::internal("signing a generation", &error))?;
    keep(
        connection,
        &issuer.server_id,
        number,
        &Generation::hash(payload),
        &text,
    )
}

fn keep(
    connection: &Connection,
    server_id: &str,
    number: u64,
    hash: &GenerationHash,
    text: &str,
) -> Result<(), Problem> {
    connection.execute(
        "INSERT INTO generation (server_id, number, hash, envelope) VALUES (?1, ?2, ?3, ?4)",
        params![server_id, number.cast_signed(), hash.to_string(), text],
    )?;
    connection.execute(
        "UPDATE server SET generation_saved = ?2 WHERE id = ?1",
        params![server_id, number.cast_signed()],
    )?;
    connection.execute(
        "DELETE FROM generation WHERE server_id = ?1 AND number <= ?2",
        params![
            server_id,
            number.saturating_sub(GENERATIONS_KEPT).cast_signed()
        ],
    )?;
    Ok(())
}
