//! The unprivileged side of a dump: asks the dump socket, has no right on any database.

use std::io::{self, Read};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use edge::{Content, ContentEnd, Extent, SourceError};
use model::{ErrorClass, escape};

use super::Database;
use crate::name::{decode_name, encode_name};
use crate::wire::{self, DumpRequest, FrameReader};

/// How long the dump may say nothing: a table can be locked for long by an ALTER.
const SILENCE_MAX: Duration = Duration::from_secs(60 * 60);

/// How long a list of databases may be, in bytes.
const LIST_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// The dump socket of this server.
#[derive(Debug, Clone)]
pub struct DumpService {
    socket: PathBuf,
}

impl DumpService {
    /// Takes the path of the socket, usually `/run/backstay/dump.sock`.
    #[must_use]
    pub const fn new(socket: PathBuf) -> Self {
        Self { socket }
    }

    /// Lists the databases of the server, but its own, sorted by name.
    ///
    /// # Errors
    ///
    /// `SourceError`: the dump socket or the database server cannot be reached.
    pub fn list(&self) -> Result<Vec<Database>, SourceError> {
        let fail = |error: io::Error| self.failed(error);
        let stream = self.request(&DumpRequest::List {}).map_err(fail)?;
        let mut reader = FrameReader::new(stream);
        let mut text = String::new();
        { &mut reader }
            .take(LIST_BYTES_MAX)
            .read_to_string(&mut text)
            .map_err(fail)?;
        match reader.end() {
            None => Err(fail(io::Error::other("the list is too long"))),
            Some(end) => match &end.error {
                Some(error) => Err(fail(io::Error::other(error.clone()))),
                None => text
                    .lines()
                    .map(|line| listed(line).ok_or_else(|| fail(malformed(line))))
                    .collect(),
            },
        }
    }

    /// Begins the dump of one database.
    ///
    /// # Errors
    ///
    /// `SourceError`: the dump socket cannot be reached. All else is said by the content.
    pub fn open(&self, name: &[u8]) -> Result<Box<dyn Content>, SourceError> {
        let database = encode_name(name);
        let stream = self
            .request(&DumpRequest::Dump { database })
            .map_err(|error| dump_failed(name, ErrorClass::RetryLater, error))?;
        Ok(Box::new(DumpContent {
            reader: FrameReader::new(stream),
            name: name.to_vec(),
        }))
    }

    fn request(&self, request: &DumpRequest) -> io::Result<UnixStream> {
        let mut stream = UnixStream::connect(&self.socket)?;
        stream.set_read_timeout(Some(SILENCE_MAX))?;
        stream.set_write_timeout(Some(SILENCE_MAX))?;
        wire::write_line(&mut stream, request)?;
        Ok(stream)
    }

    fn failed(&self, error: io::Error) -> SourceError {
        let socket = self.socket.as_os_str().as_encoded_bytes();
        SourceError {
            operation: "listing databases through",
            object: escape(socket),
            class: ErrorClass::RetryLater,
            source: Box::new(error),
        }
    }
}

fn malformed(line: &str) -> io::Error {
    io::Error::other(format!("the list holds {line:?}"))
}

fn listed(line: &str) -> Option<Database> {
    let mut fields = line.split('\t');
    Some(Database {
        name: decode_name(fields.next()?)?,
        charset: fields.next()?.to_owned(),
        collation: fields.next()?.to_owned(),
    })
}

fn dump_failed(name: &[u8], class: ErrorClass, error: io::Error) -> SourceError {
    SourceError {
        operation: "dumping database",
        object: escape(name),
        class,
        source: Box::new(error),
    }
}

struct DumpContent {
    reader: FrameReader<UnixStream>,
    name: Vec<u8>,
}

impl Content for DumpContent {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.reader.read(buffer)
    }

    fn extents(&self) -> Option<Vec<Extent>> {
        None
    }

    fn finish(self: Box<Self>) -> Result<ContentEnd, SourceError> {
        match self.reader.end() {
            None => Err(dump_failed(
                &self.name,
                ErrorClass::RetryNow,
                io::Error::other("the stream was not read to its end"),
            )),
            Some(end) => match &end.error {
                None => Ok(ContentEnd::Steady),
                Some(error) => {
                    let class = if end.retry {
                        ErrorClass::RetryNow
                    } else {
                        ErrorClass::Never
                    };
                    let error = io::Error::other(error.clone());
                    Err(dump_failed(&self.name, class, error))
                }
            },
        }
    }
}
