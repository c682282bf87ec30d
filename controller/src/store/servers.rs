//! Servers, join codes, and what agents report.

use model::{AgentId, Instant, ServerName};
use protocol::{
    DestinationReport, DriftReport, GenerationReport, Host, JoinKey, PublicKey, Report,
    ScheduleReport,
};
use rusqlite::{Connection, OptionalExtension as _, Row, params};
use serde::{Deserialize, Serialize};

use crate::problem::Problem;

/// What a server last said about itself.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Reported {
    pub(crate) host: Host,
    pub(crate) generation: GenerationReport,
    pub(crate) drift: Vec<DriftReport>,
    pub(crate) schedules: Vec<ScheduleReport>,
    pub(crate) destinations: Vec<DestinationReport>,
    pub(crate) accounts: Vec<String>,
}

/// A server of the fleet.
#[derive(Debug, Clone)]
pub(crate) struct Server {
    pub(crate) id: String,
    pub(crate) name: ServerName,
    pub(crate) agent: AgentId,
    pub(crate) key: PublicKey,
    pub(crate) boot: u64,
    pub(crate) last_seen_at: Option<Instant>,
    pub(crate) generation_saved: u64,
    pub(crate) generation_delivered: u64,
    pub(crate) reported: Reported,
}

const COLUMNS: &str = "id, name, public_key, boot, last_seen_at, generation_saved, \
                       generation_delivered, reported";

fn read(row: &Row<'_>) -> rusqlite::Result<Result<Server, Problem>> {
    let id: String = row.get(0)?;
    let name: String = row.get(1)?;
    let key: [u8; 32] = row.get(2)?;
    let boot: i64 = row.get(3)?;
    let last_seen: Option<i64> = row.get(4)?;
    let (saved, delivered): (i64, i64) = (row.get(5)?, row.get(6)?);
    let reported: String = row.get(7)?;
    Ok((|| {
        let key = PublicKey::from_bytes(&key).ok_or_else(|| Problem::not_found("agent key"))?;
        Ok(Server {
            id,
            name: ServerName::new(name).map_err(|e| Problem::internal("reading a server", &e))?,
            agent: key.agent_id(),
            key,
            boot: boot.cast_unsigned(),
            last_seen_at: last_seen.map(Instant::from_micros),
            generation_saved: saved.cast_unsigned(),
            generation_delivered: delivered.cast_unsigned(),
            reported: serde_json::from_str(&reported)?,
        })
    })())
}

/// Gives a page of servers by name, behind `after`.
pub(crate) fn servers(
    connection: &Connection,
    after: &str,
    limit: u32,
) -> Result<Vec<Server>, Problem> {
    connection
        .prepare_cached(&format!(
            "SELECT {COLUMNS} FROM server WHERE name > ?1 ORDER BY name LIMIT ?2"
        ))?
        .query_map(params![after, limit], read)?
        .map(|row| row?)
        .collect()
}

/// Gives one server.
pub(crate) fn server(connection: &Connection, id: &str) -> Result<Server, Problem> {
    connection
        .prepare_cached(&format!("SELECT {COLUMNS} FROM server WHERE id = ?1"))?
        .query_row([id], read)
        .optional()?
        .ok_or_else(|| Problem::not_found("server"))?
}

/// Gives the server of an agent.
pub(crate) fn server_by_agent(
    connection: &Connection,
    agent: AgentId,
) -> Result<Option<Server>, Problem> {
    connection
        .prepare_cached(&format!("SELECT {COLUMNS} FROM server WHERE agent = ?1"))?
        .query_row([agent.as_bytes()], read)
        .optional()?
        .transpose()
}

/// Removes a server with everything known about it.
pub(crate) fn delete_server(connection: &Connection, id: &str) -> Result<(), Problem> {
    match connection.execute("DELETE FROM server WHERE id = ?1", [id])? {
        0 => Err(Problem::not_found("server")),
        _ => Ok(()),
    }
}

/// A stored join code.
#[derive(Debug, Clone)]
pub(crate) struct StoredCode {
    pub(crate) key: JoinKey,
    pub(crate) server_name: ServerName,
    pub(crate) expires_at: Instant,
    pub(crate) used_by: Option<Vec<u8>>,
}

/// Keeps a join code; codes that lapsed a day ago are forgotten.
pub(crate) fn add_join_code(
    connection: &Connection,
    key: &JoinKey,
    server_name: &ServerName,
    expires_at: Instant,
) -> Result<(), Problem> {
    let taken: bool = connection.query_row(
        "SELECT EXISTS (SELECT 1 FROM server WHERE name = ?1)",
        [server_name.as_str()],
        |row| row.get(0),
    )?;
    if taken {
        return Err(Problem::conflict(
            "name_taken",
            format!("there is already a server named {server_name}"),
        ));
    }
    let forgotten = expires_at.plus_secs(-25 * 3600).micros();
    connection.execute("DELETE FROM join_code WHERE expires_at < ?1", [forgotten])?;
    connection.execute(
        "INSERT INTO join_code (id, secret, server_name, expires_at) VALUES (?1, ?2, ?3, ?4)",
        params![
            key.id(),
            key.secret(),
            server_name.as_str(),
            expires_at.micros()
        ],
    )?;
    Ok(())
}

/// Finds a join code.
pub(crate) fn join_code(
    connection: &Connection,
    id: &[u8; 16],
) -> Result<Option<StoredCode>, Problem> {
    let row = connection
        .query_row(
            "SELECT secret, server_name, expires_at, used_by FROM join_code WHERE id = ?1",
            [id],
            |row| {
                let secret: [u8; 32] = row.get(0)?;
                let name: String = row.get(1)?;
                let expires_at: i64 = row.get(2)?;
                Ok((secret, name, expires_at, row.get(3)?))
            },
        )
        .optional()?;
    row.map(|(secret, name, expires_at, used_by)| {
        Ok(StoredCode {
            key: JoinKey::from_parts(*id, secret),
            server_name: ServerName::new(name)
                .map_err(|e| Problem::internal("reading a join code", &e))?,
            expires_at: Instant::from_micros(expires_at),
            used_by,
        })
    })
    .transpose()
}

/// Uses up a join code for a new server. The same agent may do so again with the same code, when
/// the answer was lost on its way.
pub(crate) fn redeem(
    connection: &Connection,
    code: &StoredCode,
    server_id: &str,
    agent: &PublicKey,
    host: &Host,
) -> Result<(), Problem> {
    if let Some(known) = server_by_agent(connection, agent.agent_id())? {
        if known.name == code.server_name {
            return Ok(());
        }
        return Err(Problem::conflict(
            "already_joined",
            format!("this agent is already in the fleet as {}", known.name),
        ));
    }
    let reported = Reported {
        host: host.clone(),
        ..Reported::default()
    };
    let now = crate::now().micros();
    let added = connection.execute(
        "INSERT INTO server (id, name, agent, public_key, joined_at, reported)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6) ON CONFLICT (name) DO NOTHING",
        params![
            server_id,
            code.server_name.as_str(),
            agent.agent_id().as_bytes(),
            agent.as_bytes(),
            now,
            serde_json::to_string(&reported)?
        ],
    )?;
    if added == 0 {
        return Err(Problem::conflict(
            "name_taken",
            format!("there is already a server named {}", code.server_name),
        ));
    }
    connection.execute(
        "UPDATE join_code SET used_by = ?2 WHERE id = ?1",
        params![code.key.id(), agent.as_bytes()],
    )?;
    Ok(())
}

/// Keeps the number of an agent's start, from which its request counters count.
pub(crate) fn set_boot(connection: &Connection, id: &str, boot: u64) -> Result<(), Problem> {
    connection.execute(
        "UPDATE server SET boot = ?2 WHERE id = ?1",
        params![id, boot.cast_signed()],
    )?;
    Ok(())
}

/// Keeps when an agent was last seen: when it goes, not at each poll.
pub(crate) fn set_last_seen(connection: &Connection, id: &str, at: Instant) -> Result<(), Problem> {
    connection.execute(
        "UPDATE server SET last_seen_at = ?2 WHERE id = ?1",
        params![id, at.micros()],
    )?;
    Ok(())
}

/// Keeps which generation an agent has fetched.
pub(crate) fn mark_delivered(
    connection: &Connection,
    id: &str,
    number: u64,
) -> Result<(), Problem> {
    connection.execute(
        "UPDATE server SET generation_delivered = ?2 WHERE id = ?1",
        params![id, number.cast_signed()],
    )?;
    Ok(())
}

/// Takes over the parts that a report holds; true when something changed.
pub(crate) fn save_report(
    connection: &Connection,
    server: &Server,
    report: Report,
) -> Result<bool, Problem> {
    let mut reported = server.reported.clone();
    let Report {
        host,
        generation,
        drift,
        schedules,
        destinations,
        accounts,
        ..
    } = report;
    reported.host = host.unwrap_or(reported.host);
    reported.generation = generation.unwrap_or(reported.generation);
    reported.drift = drift.unwrap_or(reported.drift);
    reported.schedules = schedules.unwrap_or(reported.schedules);
    reported.destinations = destinations.unwrap_or(reported.destinations);
    reported.accounts = accounts.unwrap_or(reported.accounts);
    if reported == server.reported {
        return Ok(false);
    }
    connection.execute(
        "UPDATE server SET reported = ?2 WHERE id = ?1",
        params![server.id, serde_json::to_string(&reported)?],
    )?;
    Ok(true)
}
