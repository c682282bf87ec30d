//! One file that is being restored.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use direct::{File, Pieces};
use edge::{Entry, EntryKind, FileSink, TargetError};
use rustix::fs::{AtFlags, FallocateFlags, fallocate, ftruncate, unlinkat};
use rustix::io::Errno;

use super::failed;
use super::metadata::Metadata;
use super::write_out::WriteOut;
use crate::directory::Directory;

/// Files of at least this size get their blocks when they are begun, and go past the page cache.
const LARGE_BYTES_MIN: u64 = 8 * 1024 * 1024;

/// Writes one file; removes it again when it is dropped unfinished.
pub(super) struct Sink {
    file: Pieces<OwnedFd>,
    place: (Arc<Directory>, Vec<u8>),
    entry: Entry,
    metadata: Arc<Metadata>,
    write_out: Arc<WriteOut>,
    /// Where the last byte written so far ends.
    end: AtomicU64,
    is_finished: bool,
}

impl Sink {
    /// `end` is where the file ends now, if that is known.
    pub(super) fn new(
        (file, end): (OwnedFd, u64),
        place: (Arc<Directory>, Vec<u8>),
        entry: Entry,
        (metadata, write_out): (Arc<Metadata>, Arc<WriteOut>),
    ) -> Self {
        let file = if entry.size_bytes < LARGE_BYTES_MIN {
            File::ordinary(file)
        } else {
            File::past_cache(file)
        };
        Self {
            file: Pieces::new(file),
            place,
            entry,
            metadata,
            write_out,
            end: AtomicU64::new(end),
            is_finished: false,
        }
    }

    /// Reserves the blocks of a long file, whose parts come in any order: it lies in one piece
    /// then, and a disk that is too small says so at once.
    pub(super) fn make_room(&self, bytes: u64) -> io::Result<()> {
        if bytes < LARGE_BYTES_MIN {
            return Ok(());
        }
        match fallocate(self.file.file(), FallocateFlags::empty(), 0, bytes) {
            Err(error @ (Errno::NOSPC | Errno::DQUOT | Errno::FBIG)) => Err(error.into()),
            // Not every file system can.
            Ok(()) | Err(_) => Ok(()),
        }
    }

    fn complete(&self) -> io::Result<()> {
        self.file.finish()?;
        let end = self.end.load(Ordering::Relaxed);
        if self.entry.kind == EntryKind::File && end != self.entry.size_bytes {
            ftruncate(self.file.file(), self.entry.size_bytes)?;
        }
        self.metadata
            .apply_to_descriptor(self.file.file(), &self.entry)
    }
}

impl FileSink for Sink {
    fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<(), TargetError> {
        self.file
            .write_all_at(bytes, offset)
            .map_err(|error| failed("writing", &self.entry.path, error))?;
        let end = offset.saturating_add(bytes.len() as u64);
        self.end.fetch_max(end, Ordering::Relaxed);
        Ok(())
    }

    fn finish(mut self: Box<Self>) -> Result<(), TargetError> {
        self.complete()
            .map_err(|error| failed("finishing", &self.entry.path, error))?;
        self.is_finished = true;
        // What went past the cache is on the disk.
        let waiting = self.end.load(Ordering::Relaxed);
        let waiting = Some(waiting).filter(|bytes| *bytes < LARGE_BYTES_MIN);
        self.write_out.count(self.file.file(), waiting.unwrap_or(0));
        Ok(())
    }

    fn leave(mut self: Box<Self>) {
        // Whoever goes on compares all of it; a staging that nobody goes on with is removed as a whole.
        self.is_finished = true;
        // What is not there is restored once more.
        self.file.finish().unwrap_or_default();
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        if !self.is_finished {
            let (directory, name) = &self.place;
            // When this fails the caller has the first error already, and it names the file.
            if let Ok(directory) = directory.open() {
                unlinkat(directory, &**name, AtFlags::empty()).ok();
            }
        }
    }
}
