//! Opening the file, and its tables.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant as Moment};

use rusqlite::{Connection, OpenFlags, TransactionBehavior};

use crate::LedgerError;

/// The version in `PRAGMA user_version`; raised with each change of the tables.
const VERSION: i64 = 1;

/// How long a statement waits for another process before it gives up.
const BUSY_TIMEOUT: Duration = Duration::from_secs(20);

const TABLES: &str = "
CREATE TABLE run (
    id          BLOB PRIMARY KEY,           -- 16 bytes
    schedule    TEXT NOT NULL,
    state       TEXT NOT NULL,              -- RunState as in JSON
    started_at  INTEGER NOT NULL,           -- microseconds since the epoch
    finished_at INTEGER,
    boot_id     TEXT NOT NULL,              -- empty
    record      TEXT NOT NULL               -- RunRecord as JSON
) STRICT;
CREATE INDEX run_by_schedule ON run (schedule, started_at);
CREATE INDEX run_by_start ON run (started_at);
CREATE TABLE outbox (
    seq             INTEGER PRIMARY KEY AUTOINCREMENT,
    run_id          BLOB NOT NULL UNIQUE,
    acknowledged_at INTEGER
) STRICT;
CREATE TABLE progress (
    run_id BLOB PRIMARY KEY,
    body   TEXT NOT NULL,
    at     INTEGER NOT NULL
) STRICT;
CREATE TABLE command (
    id          BLOB PRIMARY KEY,
    schedule    TEXT NOT NULL,
    kind        TEXT NOT NULL,
    body        TEXT NOT NULL,              -- JSON
    state       TEXT NOT NULL,
    accepted_at INTEGER NOT NULL,
    expires_at  INTEGER NOT NULL,
    finished_at INTEGER,
    outcome     TEXT,                       -- JSON
    reported    INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE TABLE schedule (
    name            TEXT PRIMARY KEY,
    calendar        TEXT NOT NULL,
    accounted_until INTEGER NOT NULL        -- every occurrence up to here has its record
) STRICT;
CREATE TABLE note (
    key   TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT;
";

/// An open ledger. Methods are in the modules of what they are about.
#[derive(Debug)]
pub struct Ledger {
    pub(crate) connection: Connection,
    /// The directory of the file.
    home: PathBuf,
    is_writable: bool,
}

impl Ledger {
    /// Opens the ledger, and makes it when the file is new.
    ///
    /// # Errors
    ///
    /// `Unwritable` when directory or file do not let us write, `Open` when the file cannot be used,
    /// `Newer` when a later version wrote it.
    pub fn open(path: &Path) -> Result<Self, LedgerError> {
        share(path);
        // SQLite opens what it may only read, and fails later without the system's reason.
        let writable = std::fs::OpenOptions::new().append(true).open(path);
        writable.map_err(|source| LedgerError::Unwritable {
            path: show(path),
            source,
        })?;
        share(&path.with_file_name("wake"));
        let connection = open_patiently(path)?;
        Ok(Self {
            connection,
            home: path.parent().unwrap_or(Path::new("/")).to_owned(),
            is_writable: true,
        })
    }

    /// Opens an existing ledger without the right to write, as `backstayctl status` does.
    ///
    /// # Errors
    ///
    /// As [`Ledger::open`]; also `Open` when there is no ledger.
    pub fn open_read_only(path: &Path) -> Result<Self, LedgerError> {
        let connection = match read_only(path, path) {
            // SQLite makes side files to read, which it cannot on a file system that takes nothing.
            // Without a log beside it nobody changes the file, so it can be read as it is.
            Err(LedgerError::Open { source, .. })
                if source.sqlite_error_code() == Some(rusqlite::ErrorCode::CannotOpen)
                    && !side_file(path, "-wal").exists() =>
            {
                read_only(path, Path::new(&as_it_is(path)))?
            }
            opened => opened?,
        };
        Ok(Self {
            connection,
            home: path.parent().unwrap_or(Path::new("/")).to_owned(),
            is_writable: false,
        })
    }

    /// Touches the file `wake` beside the ledger, which the daemon watches: something is to deliver.
    /// A failure only delays the delivery, so it is not reported.
    pub(crate) fn ring(&self) {
        if self.is_writable {
            std::fs::write(self.beside("wake"), b"1").unwrap_or_default();
        }
    }

    /// Names a file beside the ledger.
    pub(crate) fn beside(&self, name: &str) -> PathBuf {
        self.home.join(name)
    }

    /// Gives a small value kept under `key`.
    ///
    /// # Errors
    ///
    /// `Statement` when the file cannot be read.
    pub fn note(&self, key: &str) -> Result<Option<String>, LedgerError> {
        use rusqlite::OptionalExtension as _;
        self.connection
            .query_row("SELECT value FROM note WHERE key = ?1", [key], |row| {
                row.get(0)
            })
            .optional()
            .map_err(LedgerError::statement("reading a note"))
    }

    /// Keeps a small value under `key`.
    ///
    /// # Errors
    ///
    /// `Statement` when the file cannot be written; the old value stays.
    pub fn set_note(&self, key: &str, value: &str) -> Result<(), LedgerError> {
        self.connection
            .execute(
                "INSERT INTO note (key, value) VALUES (?1, ?2)
                 ON CONFLICT (key) DO UPDATE SET value = excluded.value",
                [key, value],
            )
            .map(drop)
            .map_err(LedgerError::statement("keeping a note"))
    }
}

/// How long opening is tried while another process is just making the file or its side files: for a
/// moment they have its user's mode, not the group's. A try that waited for another process's change
/// may have taken longer; there is no second one then.
const OPEN_TIME_MAX: Duration = Duration::from_secs(3);

/// The pause between two tries.
const OPEN_PAUSE: Duration = Duration::from_millis(50);

fn open_patiently(path: &Path) -> Result<Connection, LedgerError> {
    let began = Moment::now();
    loop {
        let opened = Connection::open(path)
            .map_err(|source| LedgerError::Open {
                path: show(path),
                source,
            })
            .and_then(|mut connection| prepare(&mut connection, path).map(|()| connection));
        match opened {
            Err(error) if began.elapsed() < OPEN_TIME_MAX && may_pass(&error) => {
                std::thread::sleep(OPEN_PAUSE);
            }
            opened => return opened,
        }
    }
}

/// Opens and tries a file for reading; `name` is how SQLite is to be told of it.
fn read_only(path: &Path, name: &Path) -> Result<Connection, LedgerError> {
    let at = |source| LedgerError::Open {
        path: show(path),
        source,
    };
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY
        | OpenFlags::SQLITE_OPEN_NO_MUTEX
        | OpenFlags::SQLITE_OPEN_URI;
    let connection = Connection::open_with_flags(name, flags).map_err(at)?;
    connection.busy_timeout(BUSY_TIMEOUT).map_err(at)?;
    check_version(&connection, path)?;
    Ok(connection)
}

/// Names a file for SQLite as one that nobody changes. Source: <https://sqlite.org/uri.html>.
fn as_it_is(path: &Path) -> String {
    let text = show(path).replace('%', "%25");
    let text = text.replace('?', "%3f").replace('#', "%23");
    format!("file:{text}?immutable=1")
}

fn side_file(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    name.into()
}

fn may_pass(error: &LedgerError) -> bool {
    use rusqlite::ErrorCode;
    let LedgerError::Open { source, .. } = error else {
        return false;
    };
    matches!(
        source.sqlite_error_code(),
        Some(ErrorCode::ReadOnly | ErrorCode::CannotOpen | ErrorCode::DatabaseBusy)
    )
}

/// Makes a new file that the group may write: daemon and jobs are different users. SQLite gives
/// its side files the same mode. What fails here is told by the opening itself.
pub(crate) fn share(path: &Path) {
    use std::os::unix::fs::PermissionsExt as _;
    if std::fs::File::create_new(path).is_ok() {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660)).unwrap_or_default();
    }
}

fn prepare(connection: &mut Connection, path: &Path) -> Result<(), LedgerError> {
    let at = |source| LedgerError::Open {
        path: show(path),
        source,
    };
    connection.busy_timeout(BUSY_TIMEOUT).map_err(at)?;
    connection
        .pragma_update(None, "journal_mode", "WAL")
        .map_err(at)?;
    connection
        .pragma_update(None, "synchronous", "FULL")
        .map_err(at)?;
    connection
        .pragma_update(None, "cache_size", -1024)
        .map_err(at)?;
    check_version(connection, path)?;
    // Also where nothing is to be made: whoever opens the side files in the moment in which another
    // process makes them may get them for reading only, and would learn it at the first change.
    let transaction = connection
        .transaction_with_behavior(TransactionBehavior::Immediate)
        .map_err(at)?;
    // Another process may have made the tables while this one waited.
    let found: i64 = transaction
        .query_row("PRAGMA user_version", [], |row| row.get(0))
        .map_err(at)?;
    if found == 0 {
        transaction.execute_batch(TABLES).map_err(at)?;
        transaction
            .pragma_update(None, "user_version", VERSION)
            .map_err(at)?;
    }
    transaction.commit().map_err(at)
}

fn check_version(connection: &Connection, path: &Path) -> Result<(), LedgerError> {
    let found: i64 = connection
        .query_row("PRAGMA user_version", [], |row| row.get(0))
        .map_err(|source| LedgerError::Open {
            path: show(path),
            source,
        })?;
    if found > VERSION {
        return Err(LedgerError::Newer {
            path: show(path),
            found,
            known: VERSION,
        });
    }
    Ok(())
}

fn show(path: &Path) -> String {
    path.display().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ledger_of_a_newer_version_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ledger.db");
        drop(Ledger::open(&path).unwrap());
        let raw = Connection::open(&path).unwrap();
        raw.pragma_update(None, "user_version", 99).unwrap();
        let message = Ledger::open(&path).unwrap_err().to_string();
        assert!(message.contains("version 99"), "{message}");
    }

    #[test]
    fn daemon_and_jobs_share_a_new_ledger() {
        use std::os::unix::fs::PermissionsExt as _;
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ledger.db");
        let ledger = Ledger::open(&path).unwrap();
        ledger.set_note("a", "b").unwrap();
        for name in ["ledger.db", "ledger.db-wal", "ledger.db-shm", "wake"] {
            let found = std::fs::metadata(directory.path().join(name)).unwrap();
            assert_eq!(found.permissions().mode() & 0o777, 0o660, "{name}");
        }
    }

    #[test]
    fn many_may_open_a_new_ledger_at_once() {
        for _ in 0..50 {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("ledger.db");
            std::thread::scope(|scope| {
                let writers: Vec<_> = (0..3)
                    .map(|_| scope.spawn(|| Ledger::open(&path)?.set_note("a", "b")))
                    .collect();
                scope.spawn(|| {
                    for _ in 0..20 {
                        // There may be no ledger yet; looking must not disturb its making.
                        drop(Ledger::open_read_only(&path));
                    }
                });
                for writer in writers {
                    writer.join().unwrap().unwrap();
                }
            });
        }
    }

    #[test]
    fn a_ledger_that_cannot_be_written_says_the_system_s_reason() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("gone/ledger.db");
        let Err(LedgerError::Unwritable { source, .. }) = Ledger::open(&path) else {
            panic!("opened");
        };
        assert_eq!(source.kind(), std::io::ErrorKind::NotFound);
    }

    #[test]
    fn a_ledger_at_rest_reads_as_it_is() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("100% ours?#.db");
        Ledger::open(&path).unwrap().set_note("a", "b").unwrap();
        assert!(!side_file(&path, "-wal").exists());
        let connection = read_only(&path, Path::new(&as_it_is(&path))).unwrap();
        let value: String = connection
            .query_row("SELECT value FROM note", [], |row| row.get(0))
            .unwrap();
        assert_eq!(value, "b");
        assert!(!side_file(&path, "-shm").exists());
    }

    #[test]
    fn notes_survive_reopening() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ledger.db");
        Ledger::open(&path)
            .unwrap()
            .set_note("generation", "7")
            .unwrap();
        let reader = Ledger::open_read_only(&path).unwrap();
        assert_eq!(reader.note("generation").unwrap().as_deref(), Some("7"));
        assert!(reader.set_note("generation", "8").is_err());
    }
}
