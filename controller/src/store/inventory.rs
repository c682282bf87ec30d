//! Snapshots, as agents last listed them.

use model::{Instant, ScheduleName};
use protocol::SnapshotReport;
use rusqlite::{Connection, OptionalExtension as _, params};

use crate::problem::Problem;

/// A snapshot with when its listing was refreshed.
#[derive(Debug, Clone)]
pub(crate) struct SnapshotItem {
    pub(crate) report: SnapshotReport,
    pub(crate) refreshed_at: Instant,
}

/// Replaces the listing of one schedule.
pub(crate) fn replace_snapshots(
    connection: &Connection,
    server_id: &str,
    schedule: &ScheduleName,
    snapshots: &[SnapshotReport],
    now: Instant,
) -> Result<(), Problem> {
    connection.execute(
        "DELETE FROM snapshot WHERE server_id = ?1 AND schedule = ?2",
        [server_id, schedule.as_str()],
    )?;
    let mut insert = connection.prepare_cached(
        "INSERT INTO snapshot (server_id, schedule, id, taken_at, body)
         VALUES (?1, ?2, ?3, ?4, ?5)
         ON CONFLICT (server_id, schedule, id) DO UPDATE SET body = excluded.body",
    )?;
    for snapshot in snapshots {
        insert.execute(params![
            server_id,
            schedule.as_str(),
            snapshot.id.as_bytes(),
            snapshot.taken_at.micros(),
            serde_json::to_string(snapshot)?
        ])?;
    }
    connection.execute(
        "INSERT INTO listing (server_id, schedule, refreshed_at) VALUES (?1, ?2, ?3)
         ON CONFLICT (server_id, schedule) DO UPDATE SET refreshed_at = excluded.refreshed_at",
        params![server_id, schedule.as_str(), now.micros()],
    )?;
    Ok(())
}

/// Gives the listing of one schedule, newest first, and when it was refreshed.
pub(crate) fn snapshots(
    connection: &Connection,
    server_id: &str,
    schedule: &str,
) -> Result<(Vec<SnapshotItem>, Option<Instant>), Problem> {
    let refreshed_at: Option<i64> = connection
        .query_row(
            "SELECT refreshed_at FROM listing WHERE server_id = ?1 AND schedule = ?2",
            [server_id, schedule],
            |row| row.get(0),
        )
        .optional()?;
    let Some(refreshed_at) = refreshed_at.map(Instant::from_micros) else {
        return Ok((Vec::new(), None));
    };
    let texts = connection
        .prepare_cached(
            "SELECT body FROM snapshot WHERE server_id = ?1 AND schedule = ?2
             ORDER BY taken_at DESC, id",
        )?
        .query_map([server_id, schedule], |row| row.get::<_, String>(0))?
        .collect::<Result<Vec<_>, _>>()?;
    let items = texts
        .iter()
        .map(|text| {
            Ok(SnapshotItem {
                report: serde_json::from_str(text)?,
                refreshed_at,
            })
        })
        .collect::<Result<Vec<_>, Problem>>()?;
    Ok((items, Some(refreshed_at)))
}
