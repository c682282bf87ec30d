//! The tables, and opening the file.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::Duration;

use rusqlite::Connection;

use super::StoreError;

/// The version in `PRAGMA user_version`; raised with each change of the tables.
const VERSION: i64 = 1;

/// How long a statement waits for `backstay-controller setup-token` beside the server.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);

/// Instants are microseconds since the epoch; ids are raw bytes; bodies are JSON.
const TABLES: &str = "
CREATE TABLE meta (
    key   TEXT PRIMARY KEY,
    value ANY NOT NULL
) STRICT;
CREATE TABLE user (
    id         TEXT PRIMARY KEY,
    name       TEXT NOT NULL UNIQUE,
    role       TEXT NOT NULL,
    salt       BLOB NOT NULL,
    hash       BLOB NOT NULL,
    created_at INTEGER NOT NULL
) STRICT;
CREATE TABLE session (
    hash       BLOB PRIMARY KEY,           -- of the cookie
    user_id    TEXT NOT NULL REFERENCES user ON DELETE CASCADE,
    created_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL
) STRICT;
CREATE TABLE join_code (
    id          BLOB PRIMARY KEY,
    secret      BLOB NOT NULL,             -- key of the proofs; good for an hour
    server_name TEXT NOT NULL,
    expires_at  INTEGER NOT NULL,
    used_by     BLOB                       -- public key of the agent
) STRICT;
CREATE TABLE server (
    id                   TEXT PRIMARY KEY,
    name                 TEXT NOT NULL UNIQUE,
    agent                BLOB NOT NULL UNIQUE,
    public_key           BLOB NOT NULL,
    joined_at            INTEGER NOT NULL,
    boot                 INTEGER NOT NULL DEFAULT 0,
    last_seen_at         INTEGER,
    generation_saved     INTEGER NOT NULL DEFAULT 0,
    generation_delivered INTEGER NOT NULL DEFAULT 0,
    reported             TEXT NOT NULL     -- Reported as JSON
) STRICT;
CREATE TABLE schedule (
    server_id TEXT NOT NULL REFERENCES server ON DELETE CASCADE,
    name      TEXT NOT NULL,
    revision  INTEGER NOT NULL,
    body      TEXT NOT NULL,
    PRIMARY KEY (server_id, name)
) STRICT;
CREATE TABLE generation (
    server_id TEXT NOT NULL REFERENCES server ON DELETE CASCADE,
    number    INTEGER NOT NULL,
    hash      TEXT NOT NULL,
    envelope  TEXT NOT NULL,
    PRIMARY KEY (server_id, number)
) STRICT;
CREATE TABLE stream (
    server_id TEXT NOT NULL REFERENCES server ON DELETE CASCADE,
    stream    TEXT NOT NULL,
    last_seq  INTEGER NOT NULL,
    PRIMARY KEY (server_id, stream)
) STRICT;
CREATE TABLE run (
    id         BLOB NOT NULL,
    server_id  TEXT NOT NULL REFERENCES server ON DELETE CASCADE,
    schedule   TEXT NOT NULL,
    state      TEXT NOT NULL,
    started_at INTEGER NOT NULL,
    record     TEXT NOT NULL,              -- RunRecord as JSON
    PRIMARY KEY (server_id, id)
) STRICT;
CREATE INDEX run_by_start ON run (started_at, id);
CREATE INDEX run_by_schedule ON run (server_id, schedule, started_at, id);
CREATE TABLE snapshot (
    server_id TEXT NOT NULL REFERENCES server ON DELETE CASCADE,
    schedule  TEXT NOT NULL,
    id        BLOB NOT NULL,
    taken_at  INTEGER NOT NULL,
    body      TEXT NOT NULL,               -- SnapshotReport as JSON
    PRIMARY KEY (server_id, schedule, id)
) STRICT;
CREATE TABLE listing (
    server_id    TEXT NOT NULL REFERENCES server ON DELETE CASCADE,
    schedule     TEXT NOT NULL,
    refreshed_at INTEGER NOT NULL,
    PRIMARY KEY (server_id, schedule)
) STRICT;
CREATE TABLE operation (
    id          BLOB PRIMARY KEY,          -- the command's id
    server_id   TEXT NOT NULL REFERENCES server ON DELETE CASCADE,
    kind        TEXT NOT NULL,
    schedule    TEXT,
    state       TEXT NOT NULL,
    detail      TEXT,
    run_id      BLOB,
    envelope    TEXT NOT NULL,
    created_by  TEXT NOT NULL,
    created_at  INTEGER NOT NULL,
    updated_at  INTEGER NOT NULL,
    expires_at  INTEGER NOT NULL
) STRICT;
CREATE INDEX operation_by_server ON operation (server_id, state);
CREATE INDEX operation_by_run ON operation (run_id) WHERE run_id IS NOT NULL;
";

/// Opens the file and brings its tables up to date.
pub(super) fn open(path: &Path) -> Result<Connection, StoreError> {
    let wrong = |source| StoreError::Open {
        path: path.to_owned(),
        source,
    };
    // SQLite would make the file with the umask's mode; the journal files take over this mode.
    OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(path)
        .map_err(|error| wrong(rusqlite::Error::ToSqlConversionFailure(Box::new(error))))?;
    let mut connection = Connection::open(path).map_err(wrong)?;
    prepare(&mut connection).map_err(wrong)?;
    let found: i64 = connection
        .query_row("PRAGMA user_version", [], |row| row.get(0))
        .map_err(wrong)?;
    if found > VERSION {
        return Err(StoreError::Newer {
            path: path.to_owned(),
            found,
        });
    }
    Ok(connection)
}

fn prepare(connection: &mut Connection) -> rusqlite::Result<()> {
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.pragma_update(None, "journal_mode", "wal")?;
    connection.pragma_update(None, "synchronous", "full")?;
    connection.pragma_update(None, "foreign_keys", true)?;
    // KiB, negative by SQLite's convention: small, the kernel caches the rest.
    connection.pragma_update(None, "cache_size", -2048)?;
    let transaction =
        connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
    let found: i64 = transaction.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    if found == 0 {
        transaction.execute_batch(TABLES)?;
        transaction.pragma_update(None, "user_version", VERSION)?;
    }
    transaction.commit()
}
