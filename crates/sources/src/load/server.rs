//! The privileged side of a load: serves one connection.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use model::escape;
use rustix::fs::{MemfdFlags, Mode, fchmod, memfd_create};

use crate::mariadb::{Database, MariaDb, Running, ServeError, Tail, Trouble, dump_to, quoted};
use crate::name::decode_name;
use crate::wire::{self, FrameReader, LINE_BYTES_MAX, LoadReply, LoadRequest};

/// Longest part of a database name in the name of an undo file, in bytes.
const UNDO_NAME_BYTES_MAX: usize = 150;

/// Longest id of a restore, in bytes.
const UNDO_ID_BYTES_MAX: usize = 64;

/// Rights on one database for the account that runs the SQL of a dump.
const LOAD_RIGHTS: &str = "ALL PRIVILEGES";

/// How loads are served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadServer {
    /// The database server, as its administrator.
    pub server: MariaDb,
    /// A directory that only this process's user can enter.
    pub undo_directory: PathBuf,
}

impl Default for LoadServer {
    fn default() -> Self {
        Self {
            server: MariaDb::for_load(),
            undo_directory: PathBuf::from("/var/lib/backstay/undo"),
        }
    }
}

/// Serves one connection of the load socket, which admits by its mode alone.
///
/// # Errors
///
/// `ServeError` when the client cannot be talked to, or the load failed; the client was told.
pub fn serve_load(
    service: &LoadServer,
    input: impl Read,
    output: &mut impl Write,
) -> Result<(), ServeError> {
    let mut input = BufReader::new(input);
    let LoadRequest::Load { database, undo } =
        wire::read_line(&mut input).map_err(ServeError::Peer)?;
    let mut frames = FrameReader::new(input);
    let received = service.receive(&database, &undo, &mut frames);
    if received.is_err() {
        // The client reads the answer only after it has sent everything.
        io::copy(&mut frames, &mut io::sink()).map_err(ServeError::Peer)?;
    }
    let result = received.and_then(|dump| service.load(&dump));
    let reply = match &result {
        Ok(undo) => LoadReply {
            undo: undo
                .as_ref()
                .map(|path| path.to_string_lossy().into_owned()),
            error: None,
        },
        Err(error) => LoadReply {
            undo: None,
            error: Some(error.text.clone()),
        },
    };
    wire::write_line(output, &reply).map_err(ServeError::Peer)?;
    reply
        .error
        .map_or(Ok(()), |text| Err(ServeError::Failed(text)))
}

/// A complete dump in a private file.
struct Dump {
    database: Database,
    file: File,
    undo: PathBuf,
}

impl LoadServer {
    /// Receives the whole stream into a file without a name, and checks it.
    fn receive(
        &self,
        encoded: &str,
        undo: &str,
        frames: &mut FrameReader<impl Read>,
    ) -> Result<Dump, Trouble> {
        let name = decode_name(encoded)
            .filter(|name| !name.is_empty())
            .ok_or_else(|| trouble(format!("{encoded:?} is not a name")))?;
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        if undo.is_empty() || undo.len() > UNDO_ID_BYTES_MAX || !undo.bytes().all(plain) {
            return Err(trouble(format!("{undo:?} cannot name what is kept")));
        }
        let storing = |error: io::Error| Trouble::of("storing the dump for its check", &error);
        let short = encoded.get(..UNDO_NAME_BYTES_MAX).unwrap_or(encoded);
        let incoming = self
            .undo_directory
            .join(format!(".incoming-{undo}-{short}"));
        let mut file = private_file(&incoming).map_err(storing)?;
        fs::remove_file(&incoming).map_err(storing)?;
        let mut tail = Tail::default();
        let mut buffer = vec![0; 128 * 1024];
        loop {
            let count = frames
                .read(&mut buffer)
                .map_err(|error| Trouble::of("receiving the dump; nothing was changed", &error))?;
            let data = buffer.get(..count).unwrap_or_default();
            if data.is_empty() {
                break;
            }
            tail.push(data);
            file.write_all(data).map_err(storing)?;
        }
        if !tail.is_complete() {
            return Err(trouble(
                "the dump does not end as a dump does; nothing was changed".to_owned(),
            ));
        }
        let (charset, collation) = read_header(&mut file).map_err(storing)?.ok_or_else(|| {
            trouble("the dump does not begin as ours do; nothing was changed".to_owned())
        })?;
        Ok(Dump {
            database: Database {
                name,
                charset,
                collation,
            },
            file,
            undo: self.undo_directory.join(format!("{short}.{undo}.sql")),
        })
    }

    /// Replaces the database; gives the file that keeps what it held.
    fn load(&self, dump: &Dump) -> Result<Option<PathBuf>, Trouble> {
        let present = self.server.database(&dump.database.name)?;
        let kept = present
            .as_ref()
            .map(|present| self.keep(present, &dump.undo));
        let kept = kept.transpose()?;
        let Err(error) = self.replace(&dump.database, &dump.file) else {
            return Ok(kept.map(|_| dump.undo.clone()));
        };
        let after = match (&present, &kept) {
            (Some(present), Some(file)) => match self.replace(present, file) {
                Ok(()) => "what the database held before was put back".to_owned(),
                Err(second) => format!(
                    "putting back what it held before failed, too ({}); that is kept in {}",
                    second.text,
                    dump.undo.display()
                ),
            },
            _ => "the database did not exist before and is incomplete now".to_owned(),
        };
        Err(trouble(format!("{}; {after}", error.text)))
    }

    /// Dumps what a database holds to its undo file.
    fn keep(&self, present: &Database, undo: &Path) -> Result<File, Trouble> {
        let storing = |error: io::Error| {
            Trouble::of(
                "keeping what the database holds; nothing was changed",
                &error,
            )
        };
        let mut file = private_file(undo).map_err(storing)?;
        let kept = dump_to(&self.server, present, &mut file)
            .and_then(|()| file.sync_all().map_err(storing));
        if let Err(error) = kept {
            fs::remove_file(undo).map_err(storing)?;
            return Err(trouble(format!(
                "keeping what the database holds: {}; nothing was changed",
                error.text
            )));
        }
        Ok(file)
    }

    /// Drops, creates and fills a database.
    fn replace(&self, database: &Database, dump: &File) -> Result<(), Trouble> {
        let name = String::from_utf8(quoted(&database.name))
            .map_err(|_| trouble("the name of the database is not UTF-8".to_owned()))?;
        let account = LoadAccount::create(&self.server, &database.name)?;
        let made = self.server.ask(&format!(
            "DROP DATABASE IF EXISTS {name}; CREATE DATABASE {name} CHARACTER SET {} COLLATE {}",
            database.charset, database.collation
        ));
        let filled = made.and_then(|_| self.fill(&account, &database.name, dump));
        let removed = account.remove(&self.server);
        filled.and(removed)
    }

    fn fill(&self, account: &LoadAccount, name: &[u8], dump: &File) -> Result<(), Trouble> {
        let running = |error: io::Error| Trouble::of("running the mariadb client", &error);
        let mut dump = dump.try_clone().map_err(running)?;
        dump.seek(SeekFrom::Start(0)).map_err(running)?;
        let server = MariaDb {
            user: account.name.clone(),
            ..self.server.clone()
        };
        let defaults = format!(
            "--defaults-file=/proc/self/fd/{}",
            account.secret.as_raw_fd()
        );
        let mut command = server.command(["mariadb", "mysql"], &defaults);
        command.args([
            "--binary-mode",
            "--local-infile=0",
            "--max-allowed-packet=1G",
        ]);
        if self.has_sandbox()? {
            command.arg("--sandbox");
        }
        let mut database = std::ffi::OsString::from("--database=");
        database.push(String::from_utf8_lossy(name).as_ref());
        command.arg(database).stdin(Stdio::from(dump));
        let mut child = Running::start(command).map_err(running)?;
        let mut said = child
            .output()
            .take(u64::try_from(LINE_BYTES_MAX).unwrap_or(0));
        io::copy(&mut said, &mut io::sink()).map_err(running)?;
        drop(said);
        child.end()
    }

    /// True when the client can forbid a dump to reach the shell (CVE-2024-21096).
    fn has_sandbox(&self) -> Result<bool, Trouble> {
        let running = |error: io::Error| Trouble::of("running the mariadb client", &error);
        let mut command = self.server.command(["mariadb", "mysql"], "--no-defaults");
        command.arg("--help");
        let mut child = Running::start(command).map_err(running)?;
        let mut help = String::new();
        let mut output = child.output().take(1024 * 1024);
        output.read_to_string(&mut help).map_err(running)?;
        drop(output);
        child.end()?;
        Ok(help.contains("--sandbox"))
    }
}

/// An account for one load: all rights on one database, definers of others may be kept.
struct LoadAccount {
    name: String,
    /// An options file without a name that holds the password.
    secret: OwnedFd,
}

impl LoadAccount {
    fn create(server: &MariaDb, database: &[u8]) -> Result<Self, Trouble> {
        let making = |error: io::Error| Trouble::of("making an account for the load", &error);
        let mut random = [0; 40];
        File::open("/dev/urandom")
            .and_then(|mut source| source.read_exact(&mut random))
            .map_err(making)?;
        let hex: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
        let (id, key) = hex.split_at(16);
        // Letters of both cases, a digit and a sign satisfy what password checks ask for.
        let password = format!("Aa1!{key}");
        let name = format!("backstay-load-{id}");
        let options = format!("[client]\npassword=\"{password}\"\n");
        // Inherited by the client program, so it is not closed on exec.
        let secret = memfd_create("options", MemfdFlags::empty()).map_err(|e| making(e.into()))?;
        fchmod(&secret, Mode::RUSR).map_err(|error| making(error.into()))?;
        rustix::io::write(&secret, options.as_bytes()).map_err(|error| making(error.into()))?;
        let account = Self { name, secret };
        account.admit(server, database, &password)?;
        Ok(account)
    }

    fn admit(&self, server: &MariaDb, database: &[u8], password: &str) -> Result<(), Trouble> {
        let user = format!("`{}`@`localhost`", self.name);
        let pattern = String::from_utf8(quoted(&grant_pattern(database)))
            .map_err(|_| trouble("the name of the database is not UTF-8".to_owned()))?;
        let logs = server.ask("SELECT @@log_bin")?.trim() == "1";
        // Routines may be created while a binary log is written only with this right.
        let binlog = if logs { ", BINLOG ADMIN" } else { "" };
        let script = format!(
            "SET SESSION sql_log_bin = 0;\n\
             CREATE USER {user} IDENTIFIED BY '{password}';\n\
             GRANT SET USER{binlog} ON *.* TO {user};\n\
             GRANT {LOAD_RIGHTS} ON {pattern}.* TO {user};\n"
        );
        server.tell(&script)
    }

    fn remove(self, server: &MariaDb) -> Result<(), Trouble> {
        let user = format!("`{}`@`localhost`", self.name);
        server.tell(&format!(
            "SET SESSION sql_log_bin = 0;\nDROP USER IF EXISTS {user};\n"
        ))
    }
}

/// Escapes what a grant on a database takes for a wildcard.
fn grant_pattern(database: &[u8]) -> Vec<u8> {
    let mut pattern = Vec::with_capacity(database.len());
    for byte in database {
        if matches!(byte, b'_' | b'%' | b'\\') {
            pattern.push(b'\\');
        }
        pattern.push(*byte);
    }
    pattern
}

/// Reads character set and collation from the first line of one of our dumps.
fn read_header(file: &mut File) -> io::Result<Option<(String, String)>> {
    file.seek(SeekFrom::Start(0))?;
    let mut line = String::new();
    let limit = u64::try_from(LINE_BYTES_MAX).unwrap_or(0);
    let mut reader = BufReader::new(file.take(limit));
    if reader.read_line(&mut line).is_err() {
        return Ok(None);
    }
    let words: Vec<&str> = line.split_ascii_whitespace().collect();
    let [
        "--",
        "Backstay:",
        "database",
        _,
        "character",
        "set",
        charset,
        "collation",
        collation,
    ] = words.as_slice()
    else {
        return Ok(None);
    };
    let plain = |text: &str| text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    let usable = plain(charset) && plain(collation);
    Ok(usable.then(|| ((*charset).to_owned(), (*collation).to_owned())))
}

fn private_file(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .map_err(|error| {
            let shown = escape(path.as_os_str().as_encoded_bytes());
            io::Error::new(error.kind(), format!("creating {shown}: {error}"))
        })
}

const fn trouble(text: String) -> Trouble {
    Trouble { text, retry: false }
}
