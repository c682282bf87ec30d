//! Where restored entries go: a directory, a database server, or a double.

use thiserror::Error;

use crate::entry::{Entry, EntryKind};
use crate::path::TreePath;
use crate::source::Extent;

/// Says what could not be restored.
#[derive(Debug, Error)]
#[error("{operation} {object}")]
pub struct TargetError {
    /// What was being done: `creating`, `writing`, `setting owner of`.
    pub operation: &'static str,
    /// Which object, escaped by [`model::escape`].
    pub object: String,
    /// The cause.
    #[source]
    pub source: Box<dyn std::error::Error + Send + Sync>,
}

/// Receives the bytes of one file or stream.
pub trait FileSink: Send + Sync {
    /// Writes `bytes` at `offset`; several threads do so at once. Where
    /// [`Target::takes_in_order`] says so, one call comes after the other without gaps.
    ///
    /// # Errors
    ///
    /// `TargetError` when they could not be written; the file is then incomplete.
    fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<(), TargetError>;

    /// Sets length, owner, mode, attributes and times, and makes the file visible.
    ///
    /// # Errors
    ///
    /// `TargetError` when the file could not be completed.
    fn finish(self: Box<Self>) -> Result<(), TargetError>;

    /// Ends the work on a file that is sound as far as it goes, for a restore that goes on later. Where
    /// nothing goes on, as when it is dropped without this, nothing of the file stays.
    fn leave(self: Box<Self>) {}
}

/// What a restore that was cut left of a file.
pub trait LeftOver: Send {
    /// Reads from `offset` on until the buffer is full or the file ends; gives how much that was.
    ///
    /// # Errors
    ///
    /// When it cannot be read; it is then restored anew.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> std::io::Result<usize>;
}

/// Creates entries. Parents come before children; directories get their times in `finish`.
/// Files are opened, written and finished by several threads at once.
pub trait Target: Send + Sync {
    /// Creates an entry without content: directory, symbolic link, special file.
    ///
    /// # Errors
    ///
    /// `TargetError`; the restore goes on without it and everything below it.
    fn create(&self, entry: &Entry) -> Result<(), TargetError>;

    /// True when the content of this entry must be written from its beginning to its end.
    fn takes_in_order(&self, entry: &Entry) -> bool {
        entry.kind == EntryKind::Stream
    }

    /// True when this goes on with a restore of the same that was cut.
    fn goes_on(&self) -> bool {
        false
    }

    /// Gives what is left of a file, to be compared; `None` when there is nothing. [`Target::open`]
    /// goes on with it.
    fn left_over(&self, _: &Entry) -> Option<Box<dyn LeftOver>> {
        None
    }

    /// Begins a file or stream of `entry.size_bytes`; `extents` are given when it has holes.
    ///
    /// # Errors
    ///
    /// `TargetError`; the restore goes on without it.
    fn open(
        &self,
        entry: &Entry,
        extents: Option<&[Extent]>,
    ) -> Result<Box<dyn FileSink>, TargetError>;

    /// Makes `entry` another name of the file that this target finished at `first`.
    ///
    /// # Errors
    ///
    /// `TargetError`; the restore goes on without it.
    fn link(&self, entry: &Entry, first: &TreePath) -> Result<(), TargetError>;

    /// Ends the restore: directories get owner, mode and times, deepest first. Gives what failed.
    fn finish(&mut self) -> Vec<TargetError>;
}
