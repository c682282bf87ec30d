//! MariaDB: its programs, their arguments, what one server holds.

mod client;
mod dump;

use std::io::{self, Read, Write as _};
use std::path::PathBuf;
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::thread::JoinHandle;

use thiserror::Error;

pub use client::DumpService;
pub use dump::serve_dump;
pub(crate) use dump::{Tail, dump_to};

/// How much of standard error is kept for a message, in bytes.
const STDERR_BYTES_MAX: usize = 4 * 1024;

/// Longest answer to one of our own questions, in bytes: 100,000 databases.
const ANSWER_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// Schemas that belong to the server itself.
const SYSTEM_SCHEMAS: [&[u8]; 5] = [
    b"information_schema",
    b"performance_schema",
    b"mysql",
    b"sys",
    // What a file system's own directory in the data directory looks like.
    b"#mysql50#lost+found",
];

/// How to reach one database server as one of its users, by socket login, without a password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MariaDb {
    /// The server's Unix socket.
    pub socket: PathBuf,
    /// The database user; the server must accept the process's user as this one.
    pub user: String,
    /// The directory with the client programs.
    pub programs: PathBuf,
}

/// One database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Database {
    /// Its name, raw bytes.
    pub name: Vec<u8>,
    /// Default character set.
    pub charset: String,
    /// Default collation.
    pub collation: String,
}

/// Says why a dump or load could not be served. The peer was told, if it could still be reached.
#[derive(Debug, Error)]
pub enum ServeError {
    /// Reading the request or answering it.
    #[error("talking to the client")]
    Peer(#[source] io::Error),
    /// The work itself.
    #[error("{0}")]
    Failed(String),
}

/// Why a question to the server, or a dump, failed.
#[derive(Debug)]
pub(crate) struct Trouble {
    pub(crate) text: String,
    pub(crate) retry: bool,
}

impl Trouble {
    pub(crate) fn of(doing: &str, error: &io::Error) -> Self {
        Self {
            text: format!("{doing}: {error}"),
            retry: false,
        }
    }
}

/// Gives the SQL statements that make the account for dumps, for `mariadb --user=root`.
///
/// The account logs in as the system user `backstay-dump` by socket and reads only: `SELECT` also
/// shows every database and, through `mysql.proc`, routines on MariaDB 10.11 and later; `SHOW
/// VIEW`, `TRIGGER` and `EVENT` show what their names say. Tables are read in one transaction and
/// table spaces are left out, so neither `LOCK TABLES` nor `PROCESS` is needed.
#[must_use]
pub const fn dump_account_sql() -> &'static [&'static str] {
    &[
        "CREATE USER IF NOT EXISTS `backstay-dump`@`localhost` IDENTIFIED VIA unix_socket",
        "GRANT SELECT, SHOW VIEW, TRIGGER, EVENT ON *.* TO `backstay-dump`@`localhost`",
    ]
}

impl MariaDb {
    /// The local server of a Debian system, as the user for dumps.
    #[must_use]
    pub fn for_dump() -> Self {
        Self::local("backstay-dump")
    }

    /// The local server of a Debian system, as its administrator.
    #[must_use]
    pub fn for_load() -> Self {
        Self::local("root")
    }

    fn local(user: &str) -> Self {
        Self {
            socket: PathBuf::from("/run/mysqld/mysqld.sock"),
            user: user.to_owned(),
            programs: PathBuf::from("/usr/bin"),
        }
    }

    /// Prepares one of the client programs, with nothing from files or environment.
    pub(crate) fn command(&self, names: [&str; 2], defaults: &str) -> Command {
        let [name, old_name] = names.map(|name| self.programs.join(name));
        let program = if name.exists() { name } else { old_name };
        let mut command = Command::new(program);
        let mut socket = std::ffi::OsString::from("--socket=");
        socket.push(&self.socket);
        command
            .env_clear()
            .env("LC_ALL", "C.UTF-8")
            .current_dir("/")
            // The first argument must be the one that says where defaults come from.
            .arg(defaults)
            .args(["--protocol=socket", "--default-character-set=utf8mb4"])
            .arg(socket)
            .arg(format!("--user={}", self.user))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// Runs statements and gives what they print: one line per row, tabs between values.
    pub(crate) fn ask(&self, sql: &str) -> Result<String, Trouble> {
        let fail = |error: &io::Error| Trouble::of("running the mariadb client", error);
        let mut command = self.command(["mariadb", "mysql"], "--no-defaults");
        command.args(["--batch", "--skip-column-names", "--raw"]);
        command.args(["--execute", sql]);
        let mut child = Running::start(command).map_err(|error| fail(&error))?;
        let mut answer = String::new();
        let read = child.output().take(ANSWER_BYTES_MAX);
        let read = { read }.read_to_string(&mut answer);
        child.end()?;
        read.map_err(|error| fail(&error))?;
        Ok(answer)
    }

    /// Runs a script that is given by standard input: nobody else on the server sees it.
    pub(crate) fn tell(&self, script: &str) -> Result<(), Trouble> {
        let fail = |error: &io::Error| Trouble::of("running the mariadb client", error);
        let mut command = self.command(["mariadb", "mysql"], "--no-defaults");
        command.arg("--batch").stdin(Stdio::piped());
        let mut child = Running::start(command).map_err(|error| fail(&error))?;
        let written = child.input(script.as_bytes());
        child.end()?;
        written.map_err(|error| fail(&error))
    }

    /// Lists databases, but those of the server itself, sorted by name.
    pub(crate) fn databases(&self) -> Result<Vec<Database>, Trouble> {
        let answer = self.ask(
            "SELECT HEX(SCHEMA_NAME), DEFAULT_CHARACTER_SET_NAME, DEFAULT_COLLATION_NAME \
             FROM information_schema.SCHEMATA",
        )?;
        let mut found = Vec::new();
        for line in answer.lines() {
            let database = database(line).ok_or_else(|| Trouble {
                text: format!("the server lists a database as {line:?}"),
                retry: false,
            })?;
            if !SYSTEM_SCHEMAS.contains(&database.name.as_slice()) {
                found.push(database);
            }
        }
        found.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(found)
    }

    /// Finds one database that is not the server's own.
    pub(crate) fn database(&self, name: &[u8]) -> Result<Option<Database>, Trouble> {
        let databases = self.databases()?;
        Ok(databases.into_iter().find(|found| found.name == name))
    }
}

fn database(line: &str) -> Option<Database> {
    let mut fields = line.split('\t');
    let name = unhex(fields.next()?)?;
    let charset = fields.next()?.to_owned();
    let collation = fields.next()?.to_owned();
    let plain = |text: &str| {
        !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
    };
    (plain(&charset) && plain(&collation)).then_some(Database {
        name,
        charset,
        collation,
    })
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let pairs = text.as_bytes().chunks(2);
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    pairs.map(byte).collect()
}

/// Quotes a name for SQL text.
pub(crate) fn quoted(name: &[u8]) -> Vec<u8> {
    let mut text = vec![b'`'];
    for byte in name {
        if *byte == b'`' {
            text.push(b'`');
        }
        text.push(*byte);
    }
    text.push(b'`');
    text
}

/// A client program at work. It is ended when this is dropped.
pub(crate) struct Running {
    child: Child,
    stderr: Option<JoinHandle<String>>,
    what: String,
}

impl Running {
    pub(crate) fn start(mut command: Command) -> io::Result<Self> {
        let what = command.get_program().to_string_lossy().into_owned();
        let mut child = command.spawn()?;
        let stderr = child.stderr.take();
        Ok(Self {
            child,
            stderr: stderr.map(|stderr| std::thread::spawn(|| last_words(stderr))),
            what,
        })
    }

    /// Gives it its whole standard input.
    fn input(&mut self, bytes: &[u8]) -> io::Result<()> {
        let stdin = self.child.stdin.take();
        stdin.map_or(Ok(()), |mut stdin| stdin.write_all(bytes))
    }

    /// What it prints.
    pub(crate) fn output(&mut self) -> impl Read + use<> {
        self.child.stdout.take().map_or_else(
            || Box::new(io::empty()) as Box<dyn Read>,
            |stdout| Box::new(stdout),
        )
    }

    /// Waits for its end; anything but success is an error that says what it said last.
    pub(crate) fn end(&mut self) -> Result<(), Trouble> {
        let waiting = |error: io::Error| Trouble::of("waiting for the client program", &error);
        let status = self.child.wait().map_err(waiting)?;
        let said = self.stderr.take().and_then(|thread| thread.join().ok());
        if status.success() {
            return Ok(());
        }
        Err(Trouble {
            text: self.complaint(status, said.unwrap_or_default().trim()),
            retry: true,
        })
    }

    fn complaint(&self, status: ExitStatus, said: &str) -> String {
        let what = &self.what;
        match said {
            "" => format!("{what} ended with {status}"),
            said => format!("{what} ended with {status}: {said}"),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // After a regular end both do nothing; else the peer is gone and nobody is left to tell.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Reads standard error to its end and keeps the last part, printable.
fn last_words(mut stderr: ChildStderr) -> String {
    let mut kept: Vec<u8> = Vec::new();
    let mut buffer = [0; 1024];
    while let Ok(count @ 1..) = stderr.read(&mut buffer) {
        kept.extend_from_slice(buffer.get(..count).unwrap_or_default());
        let excess = kept.len().saturating_sub(STDERR_BYTES_MAX);
        drop(kept.drain(..excess));
    }
    model::escape(kept.trim_ascii())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_quoted_whatever_they_hold() {
        assert_eq!(quoted(b"shop"), b"`shop`");
        assert_eq!(quoted(b"a`; DROP DATABASE b"), b"`a``; DROP DATABASE b`");
    }

    #[test]
    fn lines_of_the_catalogue_are_checked() {
        let line = "612062\tutf8mb4\tutf8mb4_general_ci";
        assert_eq!(database(line).unwrap().name, b"a b");
        for bad in ["", "zz\tutf8\tutf8", "61\tutf8", "61\tut'f8\tx"] {
            assert_eq!(database(bad), None, "{bad}");
        }
    }
}
