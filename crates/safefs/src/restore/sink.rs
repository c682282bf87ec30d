//! One file that is being restored.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use edge::{Entry, EntryKind, FileSink, TargetError};
use rustix::fs::{AtFlags, ftruncate, unlinkat};
use rustix::io::{Errno, pwrite};

use super::failed;
use super::metadata::Metadata;
use crate::directory::Directory;

/// Writes one file; removes it again when it is dropped unfinished.
pub(super) struct Sink {
    file: OwnedFd,
    place: (Arc<Directory>, Vec<u8>),
    entry: Entry,
    metadata: Arc<Metadata>,
    /// Where the last byte written so far ends.
    end: u64,
    is_finished: bool,
}

impl Sink {
    pub(super) const fn new(
        file: OwnedFd,
        place: (Arc<Directory>, Vec<u8>),
        entry: Entry,
        metadata: Arc<Metadata>,
    ) -> Self {
        Self {
            file,
            place,
            entry,
            metadata,
            end: 0,
            is_finished: false,
        }
    }

    fn complete(&self) -> io::Result<()> {
        if self.entry.kind == EntryKind::File && self.end != self.entry.size_bytes {
            ftruncate(&self.file, self.entry.size_bytes)?;
        }
        self.metadata.apply_to_descriptor(&self.file, &self.entry)
    }
}

impl FileSink for Sink {
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> Result<(), TargetError> {
        let mut rest = bytes;
        let mut position = offset;
        while !rest.is_empty() {
            let written = match pwrite(&self.file, rest, position) {
                Err(Errno::INTR) => continue,
                Ok(0) => Err(io::Error::from(io::ErrorKind::WriteZero)),
                written => written.map_err(io::Error::from),
            };
            let written = written.map_err(|error| failed("writing", &self.entry.path, error))?;
            rest = rest.get(written..).unwrap_or_default();
            position = position.saturating_add(u64::try_from(written).unwrap_or(0));
        }
        self.end = self.end.max(position);
        Ok(())
    }

    fn finish(mut self: Box<Self>) -> Result<(), TargetError> {
        self.complete()
            .map_err(|error| failed("finishing", &self.entry.path, error))?;
        self.is_finished = true;
        Ok(())
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
