//! The restore's side of a load.

use std::io::{self, BufReader};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use edge::TargetError;
use model::escape;

use crate::name::encode_name;
use crate::wire::{self, End, LoadReply, LoadRequest};

/// How long the other side may take to load what it received.
const LOAD_TIME_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// How long it may take to accept more of the dump.
const SILENCE_MAX: Duration = Duration::from_secs(60 * 60);

/// The load socket of this server.
#[derive(Debug, Clone)]
pub struct LoadService {
    socket: PathBuf,
}

/// One database that was loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loaded {
    /// Its name.
    pub database: Vec<u8>,
    /// The file that keeps what it held before, when it existed.
    pub undo: Option<PathBuf>,
}

/// One load under way. Dropped before [`LoadConnection::complete`] it changes nothing.
#[derive(Debug)]
pub struct LoadConnection {
    stream: UnixStream,
    database: Vec<u8>,
    position: u64,
}

impl LoadService {
    /// Takes the path of the socket, usually `/run/backstay/load.sock`.
    #[must_use]
    pub const fn new(socket: PathBuf) -> Self {
        Self { socket }
    }

    /// Begins to replace one database; `undo` names what is kept: `[a-z0-9-]`, unique.
    ///
    /// # Errors
    ///
    /// `TargetError`: the load socket cannot be reached.
    pub fn open(&self, database: &[u8], undo: &str) -> Result<LoadConnection, TargetError> {
        let request = LoadRequest::Load {
            database: encode_name(database),
            undo: undo.to_owned(),
        };
        let connect = || -> io::Result<UnixStream> {
            let mut stream = UnixStream::connect(&self.socket)?;
            stream.set_read_timeout(Some(LOAD_TIME_MAX))?;
            stream.set_write_timeout(Some(SILENCE_MAX))?;
            wire::write_line(&mut stream, &request)?;
            Ok(stream)
        };
        Ok(LoadConnection {
            stream: connect().map_err(|error| failed(database, error))?,
            database: database.to_vec(),
            position: 0,
        })
    }
}

impl LoadConnection {
    /// Sends the next bytes of the dump.
    ///
    /// # Errors
    ///
    /// `TargetError`: bytes are missing, or the other side went away. Nothing was changed.
    pub fn write_at(&mut self, offset: u64, bytes: &[u8]) -> Result<(), TargetError> {
        if offset != self.position {
            let error = io::Error::other("its bytes came out of order");
            return Err(failed(&self.database, error));
        }
        wire::write_data(&mut self.stream, bytes).map_err(|error| failed(&self.database, error))?;
        self.position += u64::try_from(bytes.len()).unwrap_or(0);
        Ok(())
    }

    /// Ends the dump and waits until it is loaded.
    ///
    /// # Errors
    ///
    /// `TargetError` says what failed and what the database holds now.
    pub fn complete(mut self) -> Result<Loaded, TargetError> {
        let end = End {
            bytes: self.position,
            error: None,
            retry: false,
        };
        let mut exchange = || -> io::Result<LoadReply> {
            wire::write_end(&mut self.stream, &end)?;
            wire::read_line(&mut BufReader::new(&self.stream))
        };
        let reply = exchange().map_err(|error| failed(&self.database, error))?;
        match reply.error {
            Some(error) => Err(failed(&self.database, io::Error::other(error))),
            None => Ok(Loaded {
                database: self.database,
                undo: reply.undo.map(PathBuf::from),
            }),
        }
    }
}

fn failed(database: &[u8], error: io::Error) -> TargetError {
    TargetError {
        operation: "loading database",
        object: escape(database),
        source: Box::new(error),
    }
}
