//! Reads and writes long pieces of open files past the page cache of the system.
//!
//! A backup writes what it seldom reads again. Kept by the system, it would push out what the sites on the server
//! read all the time, and cost a copy and fresh memory for every page.
//!
//! Direct transfers (`O_DIRECT` in open(2)) need memory and places in the file that begin, and end, where a block of
//! the disk does: what lies before and behind goes the ordinary way, and so does everything on a file system that
//! knows no direct transfers.

mod pieces;

use std::cell::RefCell;
use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};

use rustix::fs::{Mode, OFlags, fcntl_getfl, fstat, open};
use rustix::io::{Errno, pread, pwrite};

pub use pieces::Pieces;

/// What blocks of disks divide, and memory pages do not exceed.
const ALIGNED: usize = 4096;
/// So much is transferred at once.
const BUFFER_BYTES: usize = 1 << 20;
/// For less than this the ordinary way costs less than waiting for the disk.
const PIECE_BYTES_MIN: usize = 256 << 10;

thread_local! {
    /// Memory with room for an aligned buffer.
    static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// An open file, and the way past the page cache to it where there is one.
#[derive(Debug)]
pub struct File<F> {
    file: F,
    direct: Option<OwnedFd>,
}

impl<F: AsFd> File<F> {
    /// Uses only the ordinary way.
    pub const fn ordinary(file: F) -> Self {
        Self { file, direct: None }
    }

    /// Uses the way past the page cache for long pieces.
    pub fn past_cache(file: F) -> Self {
        let direct = open_again(&file);
        Self { file, direct }
    }

    /// Gives the file that was opened.
    pub const fn file(&self) -> &F {
        &self.file
    }

    /// Writes all bytes at an offset. Several threads may write to places of their own.
    ///
    /// # Errors
    ///
    /// What the system says; some of the bytes may be written then.
    pub fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let aligned = self.direct_part(offset, bytes.len());
        let (Some(direct), false) = (&self.direct, aligned.is_empty()) else {
            return write_all(&self.file, bytes, offset);
        };
        let (head, rest) = bytes.split_at(aligned.start);
        let (body, tail) = rest.split_at(aligned.len());
        write_all(&self.file, head, offset)?;
        let at = offset + head.len() as u64;
        let written = with_buffer(|buffer| write_direct(direct, (&[body], at), buffer))?;
        // A file system whose blocks are larger, or that took less than it was given.
        let left = body.get(written..).unwrap_or_default();
        write_all(&self.file, left, at + written as u64)?;
        write_all(&self.file, tail, at + body.len() as u64)
    }

    /// Reads a piece, in place of what a buffer holds. That holds less where the file ends before.
    ///
    /// # Errors
    ///
    /// What the system says, or that a piece is longer than memory can be.
    pub fn read_at(&self, piece: Range<u64>, bytes: &mut Vec<u8>) -> io::Result<()> {
        let length = usize::try_from(piece.end.saturating_sub(piece.start));
        let length = length.map_err(io::Error::other)?;
        bytes.clear();
        bytes.reserve_exact(length);
        if let Some(direct) = self.direct.as_ref().filter(|_| length >= PIECE_BYTES_MIN) {
            with_buffer(|buffer| read_direct(direct, &piece, buffer, bytes))?;
        }
        read_rest(&self.file, &piece, bytes)
    }

    /// Says which of so many bytes at an offset can go past the page cache.
    fn direct_part(&self, offset: u64, length: usize) -> Range<usize> {
        let within = usize::try_from(offset % ALIGNED as u64).unwrap_or(0);
        let start = (ALIGNED - within) % ALIGNED;
        let end = (within + length) / ALIGNED * ALIGNED;
        let part = start..end.saturating_sub(within);
        if self.direct.is_some() && part.len() >= PIECE_BYTES_MIN {
            part
        } else {
            0..0
        }
    }
}

/// Opens the same file a second time, which needs no name of it: a name might by now be that of another file.
fn open_again(file: impl AsFd) -> Option<OwnedFd> {
    let access = fcntl_getfl(&file).ok()? & OFlags::RWMODE;
    let itself = format!("/proc/self/fd/{}", file.as_fd().as_raw_fd());
    let flags = access | OFlags::DIRECT | OFlags::CLOEXEC;
    let again = open(itself, flags, Mode::empty()).ok()?;
    let (this, that) = (fstat(&file).ok()?, fstat(&again).ok()?);
    ((this.st_dev, this.st_ino) == (that.st_dev, that.st_ino)).then_some(again)
}

fn with_buffer<T>(work: impl FnOnce(&mut [u8]) -> T) -> T {
    BUFFER.with_borrow_mut(|memory| {
        memory.resize(BUFFER_BYTES + ALIGNED, 0);
        let begin = memory.as_ptr().align_offset(ALIGNED);
        let aligned = memory.get_mut(begin..begin.saturating_add(BUFFER_BYTES));
        work(aligned.unwrap_or_default())
    })
}

fn write_all(file: impl AsFd, bytes: &[u8], offset: u64) -> io::Result<()> {
    let mut written = 0;
    while let Some(left) = bytes.get(written..).filter(|left| !left.is_empty()) {
        match pwrite(&file, left, offset + written as u64) {
            Err(Errno::INTR) => {}
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            here => written += here?,
        }
    }
    Ok(())
}

/// Writes whole blocks, given in parts that follow each other; says how many bytes it could.
fn write_direct(
    file: &OwnedFd,
    (parts, offset): (&[&[u8]], u64),
    buffer: &mut [u8],
) -> io::Result<usize> {
    let whole: usize = parts.iter().map(|part| part.len()).sum();
    let mut written = 0;
    while written < whole {
        let length = (whole - written).min(buffer.len());
        let Some(aligned) = buffer.get_mut(..length) else {
            break;
        };
        gather(parts, written, aligned);
        match pwrite(file, aligned, offset + written as u64) {
            Err(Errno::INTR) => {}
            // Nothing taken: the ordinary way says why.
            Ok(0) | Err(Errno::INVAL) => break,
            here => written += here?,
        }
        if written % ALIGNED != 0 {
            break;
        }
    }
    Ok(written)
}

/// Fills a buffer with what follows after so many bytes of the parts.
fn gather(parts: &[&[u8]], skip: usize, buffer: &mut [u8]) {
    let mut room = buffer;
    for piece in after(parts, skip) {
        let length = piece.len().min(room.len());
        let (here, rest) = room.split_at_mut(length);
        here.copy_from_slice(piece.get(..length).unwrap_or_default());
        room = rest;
    }
}

/// Gives what follows after so many bytes of the parts.
fn after<'p>(parts: &[&'p [u8]], skip: usize) -> impl Iterator<Item = &'p [u8]> {
    parts.iter().scan(skip, |skip, part| {
        let passed = part.len().min(*skip);
        *skip -= passed;
        part.get(passed..)
    })
}

/// Reads whole blocks and keeps what is wanted of them, up to where it can.
fn read_direct(
    file: &OwnedFd,
    piece: &Range<u64>,
    buffer: &mut [u8],
    bytes: &mut Vec<u8>,
) -> io::Result<()> {
    let mut at = piece.start - piece.start % ALIGNED as u64;
    while at < piece.end {
        let left = usize::try_from(piece.end - at).unwrap_or(usize::MAX);
        let wanted = buffer
            .len()
            .min(left.saturating_add(ALIGNED - 1) / ALIGNED * ALIGNED);
        let read = match pread(file, buffer.get_mut(..wanted).unwrap_or_default(), at) {
            Err(Errno::INTR) => continue,
            Err(Errno::INVAL) => break,
            read => read?,
        };
        let before = usize::try_from(piece.start.saturating_sub(at)).unwrap_or(usize::MAX);
        let found = buffer.get(before..read.min(left));
        bytes.extend_from_slice(found.unwrap_or_default());
        if read < wanted {
            break;
        }
        at += read as u64;
    }
    Ok(())
}

/// Reads what is still missing of a piece.
fn read_rest(file: impl AsFd, piece: &Range<u64>, bytes: &mut Vec<u8>) -> io::Result<()> {
    let begun = bytes.len();
    let length = usize::try_from(piece.end.saturating_sub(piece.start));
    bytes.resize(length.map_err(io::Error::other)?, 0);
    let mut filled = begun;
    while let Some(room) = bytes.get_mut(filled..).filter(|room| !room.is_empty()) {
        match pread(&file, room, piece.start + filled as u64) {
            Err(Errno::INTR) => {}
            Ok(0) => break,
            read => filled += read?,
        }
    }
    bytes.truncate(filled);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_blocks_go_past_the_cache() {
        let null = std::fs::File::open("/dev/null").unwrap();
        let direct = Some(OwnedFd::from(null.try_clone().unwrap()));
        let file = File { file: null, direct };
        for offset in [0, 1, 4095, 4096, 123_457] {
            for length in [
                0,
                1,
                4096,
                PIECE_BYTES_MIN,
                PIECE_BYTES_MIN + 8191,
                3_000_000,
            ] {
                let part = file.direct_part(offset, length);
                if part.is_empty() {
                    assert!(length < PIECE_BYTES_MIN + 2 * ALIGNED);
                    continue;
                }
                assert!(part.end <= length && part.start < ALIGNED && length - part.end < ALIGNED);
                let at = usize::try_from(offset).unwrap() + part.start;
                assert_eq!((at % ALIGNED, part.len() % ALIGNED), (0, 0));
            }
        }
    }
}
