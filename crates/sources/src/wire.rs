//! What crosses the dump and load sockets.
//!
//! A request is one line of JSON, at most [`LINE_BYTES_MAX`] long. Data follow in frames,
//! `length (4, big-endian) | bytes (length, 1 to 262144)`, closed by
//! `0 (4) | length (4, big-endian) | JSON of [`End`]`. A connection that breaks before the end
//! is therefore never taken for a complete stream.

use std::io::{self, BufRead, Read, Write};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// Longest request, reply or end, in bytes.
pub(crate) const LINE_BYTES_MAX: usize = 64 * 1024;

/// Longest data frame, in bytes.
pub(crate) const FRAME_BYTES_MAX: usize = 256 * 1024;

/// What a client of the dump socket wants.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum DumpRequest {
    /// One line per database: encoded name, character set, collation, divided by tabs.
    List {},
    /// One database as SQL text.
    Dump {
        /// Encoded name.
        database: String,
    },
}

/// What a client of the load socket wants.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum LoadRequest {
    /// Replace one database by the dump that follows in frames.
    Load {
        /// Encoded name.
        database: String,
        /// Names the undo file: `[a-z0-9-]`.
        undo: String,
    },
}

/// How the producer of a stream ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct End {
    /// How many data bytes were sent.
    pub(crate) bytes: u64,
    /// What went wrong, with the end of standard error; `None` when all is well.
    pub(crate) error: Option<String>,
    /// True when the same request may work at once.
    pub(crate) retry: bool,
}

/// The answer to a load.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct LoadReply {
    /// Where the previous content is kept, when there was any.
    pub(crate) undo: Option<String>,
    /// What went wrong and what was kept; `None` when the database is loaded.
    pub(crate) error: Option<String>,
}

/// Writes one line of JSON.
pub(crate) fn write_line(out: &mut impl Write, value: &impl Serialize) -> io::Result<()> {
    let mut line = serde_json::to_vec(value)?;
    line.push(b'\n');
    out.write_all(&line)?;
    out.flush()
}

/// Reads one line of JSON.
pub(crate) fn read_line<T: DeserializeOwned>(input: &mut impl BufRead) -> io::Result<T> {
    let mut line = Vec::new();
    let limit = u64::try_from(LINE_BYTES_MAX).unwrap_or(u64::MAX);
    input.by_ref().take(limit).read_until(b'\n', &mut line)?;
    if line.last() != Some(&b'\n') {
        return Err(io::Error::new(
            io::ErrorKind::UnexpectedEof,
            "the connection ended before a whole line came",
        ));
    }
    Ok(serde_json::from_slice(&line)?)
}

/// Writes data, cut into frames.
pub(crate) fn write_data(out: &mut impl Write, data: &[u8]) -> io::Result<()> {
    for frame in data.chunks(FRAME_BYTES_MAX) {
        out.write_all(&length_of(frame)?)?;
        out.write_all(frame)?;
    }
    Ok(())
}

/// Closes a stream.
pub(crate) fn write_end(out: &mut impl Write, end: &End) -> io::Result<()> {
    let text = serde_json::to_vec(end)?;
    out.write_all(&[0; 4])?;
    out.write_all(&length_of(&text)?)?;
    out.write_all(&text)?;
    out.flush()
}

fn length_of(bytes: &[u8]) -> io::Result<[u8; 4]> {
    let length = u32::try_from(bytes.len()).map_err(io::Error::other)?;
    Ok(length.to_be_bytes())
}

/// Reads the data of one stream.
pub(crate) struct FrameReader<R> {
    input: R,
    frame_left: usize,
    bytes: u64,
    end: Option<End>,
}

impl<R: Read> FrameReader<R> {
    pub(crate) const fn new(input: R) -> Self {
        Self {
            input,
            frame_left: 0,
            bytes: 0,
            end: None,
        }
    }

    /// Gives the end, once it was read; its byte count is that of the data.
    pub(crate) const fn end(&self) -> Option<&End> {
        self.end.as_ref()
    }

    fn read_length(&mut self) -> io::Result<usize> {
        let mut length = [0; 4];
        self.input.read_exact(&mut length)?;
        usize::try_from(u32::from_be_bytes(length)).map_err(io::Error::other)
    }

    fn read_end(&mut self) -> io::Result<()> {
        let length = self.read_length()?;
        if length > LINE_BYTES_MAX {
            return Err(invalid("the end of the stream is too long"));
        }
        let mut text = vec![0; length];
        self.input.read_exact(&mut text)?;
        let end: End = serde_json::from_slice(&text)?;
        if end.error.is_none() && end.bytes != self.bytes {
            return Err(invalid("the stream has another length than its end says"));
        }
        self.end = Some(end);
        Ok(())
    }
}

impl<R: Read> Read for FrameReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.end.is_some() || buffer.is_empty() {
            return Ok(0);
        }
        if self.frame_left == 0 {
            self.frame_left = self.read_length()?;
            if self.frame_left > FRAME_BYTES_MAX {
                return Err(invalid("a frame is longer than 256 KiB"));
            }
            if self.frame_left == 0 {
                self.read_end()?;
                return Ok(0);
            }
        }
        let length = self.frame_left.min(buffer.len());
        let part = buffer.get_mut(..length).unwrap_or_default();
        let count = self.input.read(part)?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.frame_left -= count;
        self.bytes += u64::try_from(count).unwrap_or(0);
        Ok(count)
    }
}

fn invalid(why: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end(bytes: u64) -> End {
        End {
            bytes,
            error: None,
            retry: false,
        }
    }

    fn stream(data: &[u8], end: &End) -> Vec<u8> {
        let mut wire = Vec::new();
        write_data(&mut wire, data).unwrap();
        write_end(&mut wire, end).unwrap();
        wire
    }

    #[test]
    fn data_comes_back_whole() {
        let data: Vec<u8> = (0..600_000_u32).map(|n| n.to_le_bytes()[0]).collect();
        let wire = stream(&data, &end(600_000));
        let mut reader = FrameReader::new(wire.as_slice());
        let mut back = Vec::new();
        reader.read_to_end(&mut back).unwrap();
        assert_eq!(back, data);
        assert_eq!(reader.end(), Some(&end(600_000)));
    }

    #[test]
    fn a_stream_cut_anywhere_has_no_end() {
        let wire = stream(b"some data", &end(9));
        for length in 0..wire.len() {
            let mut reader = FrameReader::new(&wire[..length]);
            let mut back = Vec::new();
            assert!(reader.read_to_end(&mut back).is_err(), "cut at {length}");
            assert_eq!(reader.end(), None);
        }
    }

    #[test]
    fn lengths_are_bounded_and_checked() {
        let mut huge = FrameReader::new(&[0xff; 64][..]);
        assert!(huge.read(&mut [0; 10]).is_err());
        let wire = stream(b"123", &end(4));
        let mut reader = FrameReader::new(wire.as_slice());
        assert!(reader.read_to_end(&mut Vec::new()).is_err());
        let long = vec![b'x'; LINE_BYTES_MAX + 1];
        assert!(read_line::<End>(&mut long.as_slice()).is_err());
    }
}
