//! The privileged side of a dump: runs as the user for dumps, serves one connection, knows two
//! words. What it sends is checked by exit status and end mark, and says so in its end.

use std::io::{self, BufReader, Read, Write};

use model::escape;

use super::{Database, MariaDb, Running, ServeError, Trouble};
use crate::name::{decode_name, encode_name};
use crate::wire::{self, DumpRequest, End, FRAME_BYTES_MAX};

/// How the last line of a complete dump begins.
const DUMP_END: &[u8] = b"-- Dump completed";

/// How much of a stream's end is looked at for that line, in bytes.
const TAIL_BYTES: usize = 256;

/// Serves one connection of the dump socket, which admits by its mode alone.
///
/// # Errors
///
/// `ServeError` when the client cannot be talked to, or what it asked for failed; it was told.
pub fn serve_dump(
    server: &MariaDb,
    input: impl Read,
    output: &mut impl Write,
) -> Result<(), ServeError> {
    let request = wire::read_line(&mut BufReader::new(input)).map_err(ServeError::Peer)?;
    let mut counting = Counting { output, bytes: 0 };
    let result = match request {
        DumpRequest::List {} => list(server, &mut counting),
        DumpRequest::Dump { database } => dump(server, &database, &mut counting),
    };
    let end = End {
        bytes: counting.bytes,
        retry: result.as_ref().is_err_and(|trouble| trouble.retry),
        error: result.err().map(|trouble| trouble.text),
    };
    wire::write_end(output, &end).map_err(ServeError::Peer)?;
    end.error
        .map_or(Ok(()), |text| Err(ServeError::Failed(text)))
}

fn list(server: &MariaDb, output: &mut impl Write) -> Result<(), Trouble> {
    for database in server.databases()? {
        let name = encode_name(&database.name);
        let line = format!("{name}\t{}\t{}\n", database.charset, database.collation);
        output.write_all(line.as_bytes()).map_err(|e| sending(&e))?;
    }
    Ok(())
}

fn dump(server: &MariaDb, encoded: &str, output: &mut impl Write) -> Result<(), Trouble> {
    let missing = |text: String| Trouble { text, retry: false };
    let name = decode_name(encoded).ok_or_else(|| missing(format!("{encoded:?} is not a name")))?;
    let database = server
        .database(&name)?
        .ok_or_else(|| missing(format!("there is no database {}", escape(&name))))?;
    dump_to(server, &database, output)
}

fn sending(error: &io::Error) -> Trouble {
    Trouble::of("sending the dump", error)
}

/// Gives the first line of our dumps: what SQL text of one database does not say.
fn header(database: &Database) -> String {
    let name = encode_name(&database.name);
    let (charset, collation) = (&database.charset, &database.collation);
    format!("-- Backstay: database {name} character set {charset} collation {collation}\n")
}

/// Dumps one database and checks that the dump is complete.
///
/// Rows come in the order of the clustered index, which is stable for `InnoDB`;
/// `--order-by-primary` would sort other engines' tables on the server's disk for that.
///
/// `mariadb-dump` 10.11 cannot dump events of a database whose name holds a quote or a backslash; such
/// a dump fails and says so.
pub(crate) fn dump_to(
    server: &MariaDb,
    database: &Database,
    output: &mut impl Write,
) -> Result<(), Trouble> {
    let mut command = server.command(["mariadb-dump", "mysqldump"], "--no-defaults");
    command
        .args(["--single-transaction", "--quick", "--no-tablespaces"])
        .args(["--routines", "--triggers", "--events"])
        .args(["--hex-blob", "--skip-dump-date", "--max-allowed-packet=1G"])
        .arg("--")
        .arg(std::ffi::OsStr::new(
            std::str::from_utf8(&database.name).map_err(|_| Trouble {
                text: "the name of the database is not UTF-8".to_owned(),
                retry: false,
            })?,
        ));
    let mut child =
        Running::start(command).map_err(|error| Trouble::of("running mariadb-dump", &error))?;
    let mut stdout = child.output();
    let header = header(database);
    output
        .write_all(header.as_bytes())
        .map_err(|e| sending(&e))?;
    let mut buffer = vec![0; FRAME_BYTES_MAX];
    let mut tail = Tail::default();
    loop {
        let count = stdout
            .read(&mut buffer)
            .map_err(|error| Trouble::of("reading from mariadb-dump", &error))?;
        let data = buffer.get(..count).unwrap_or_default();
        if data.is_empty() {
            break;
        }
        tail.push(data);
        output.write_all(data).map_err(|e| sending(&e))?;
    }
    child.end()?;
    if !tail.is_complete() {
        return Err(Trouble {
            text: "mariadb-dump ended without the line that ends a dump".to_owned(),
            retry: true,
        });
    }
    Ok(())
}

/// The last bytes of a stream.
#[derive(Debug, Default)]
pub(crate) struct Tail(Vec<u8>);

impl Tail {
    pub(crate) fn push(&mut self, data: &[u8]) {
        let from = data.len().saturating_sub(TAIL_BYTES);
        self.0
            .extend_from_slice(data.get(from..).unwrap_or_default());
        let excess = self.0.len().saturating_sub(TAIL_BYTES);
        drop(self.0.drain(..excess));
    }

    /// True when the last line is the one that ends a dump.
    pub(crate) fn is_complete(&self) -> bool {
        let text = self.0.trim_ascii_end();
        let last = text.rsplit(|b| *b == b'\n').next().unwrap_or_default();
        last.starts_with(DUMP_END)
    }
}

/// Writes data as frames and counts them.
struct Counting<'a, W> {
    output: &'a mut W,
    bytes: u64,
}

impl<W: Write> Write for Counting<'_, W> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        wire::write_data(self.output, data)?;
        self.bytes += u64::try_from(data.len()).unwrap_or(0);
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.output.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_whole_last_line_ends_a_dump() {
        for (parts, expected) in [
            (vec!["...", "\n-- Dump comp", "leted\n"], true),
            (vec!["-- Dump completed on 2026-01-01\n\n"], true),
            (vec!["-- Dump completed\n", "INSERT"], false),
            (vec!["INSERT '-- Dump completed"], false),
            (vec![], false),
        ] {
            let mut tail = Tail::default();
            for part in &parts {
                tail.push(part.as_bytes());
            }
            assert_eq!(tail.is_complete(), expected, "{parts:?}");
        }
        let mut tail = Tail::default();
        tail.push(&vec![b'x'; 100_000]);
        tail.push(b"\n-- Dump completed\n");
        assert!(tail.is_complete());
    }
}
