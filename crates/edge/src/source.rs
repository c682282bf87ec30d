//! Where entries come from: a tree of files, the dumps of a database server, or a double.

use std::io;

use model::ErrorClass;
use thiserror::Error;

use crate::entry::Entry;

/// Says what of a source could not be read.
#[derive(Debug, Error)]
#[error("{operation} {object}")]
pub struct SourceError {
    /// What was being done: `opening`, `reading`, `dumping database`.
    pub operation: &'static str,
    /// Which object, escaped by [`model::escape`].
    pub object: String,
    /// Whether trying again may help.
    pub class: ErrorClass,
    /// The cause.
    #[source]
    pub source: Box<dyn std::error::Error + Send + Sync>,
}

/// A part of a file that holds data; what lies between extents are holes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Extent {
    /// Position of the first byte in the file.
    pub offset: u64,
    /// Number of bytes, at least 1.
    pub length: u64,
}

/// How reading one content ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ContentEnd {
    /// What was read is what the entry says.
    Steady,
    /// The file changed while it was read; the reader may open it again.
    Changed,
}

/// The bytes of one entry, in order, data only: holes are left out.
pub trait Content: Send {
    /// Reads the next bytes into `buffer` and gives their number; 0 is the end.
    ///
    /// # Errors
    ///
    /// The cause, for the caller to report beside the entry.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize>;

    /// Gives the data extents in order, when the file has holes; `None` when it has none.
    fn extents(&self) -> Option<Vec<Extent>>;

    /// Ends reading: compares the file with what it was, or awaits the producer's exit status.
    ///
    /// # Errors
    ///
    /// `SourceError` when the content must not be used: the dump failed, its end is missing.
    fn finish(self: Box<Self>) -> Result<ContentEnd, SourceError>;
}

/// Opens the content of one entry. It may be called again after [`ContentEnd::Changed`].
pub type Opener = Box<dyn FnMut() -> Result<(Entry, Box<dyn Content>), SourceError> + Send>;

/// The next thing that a source has to say.
pub enum SourceItem {
    /// An entry, with a way to its content when it is a file or stream. The opener gives the entry
    /// as it was when opened, which is what the snapshot records; a file's extended attributes come
    /// with it only, since a file whose change time is as before still has those of before.
    Entry(Entry, Option<Opener>),
    /// Something that could not be read. The walk goes on.
    Failed(SourceError),
}

/// A walk over everything that one run backs up.
pub trait Source: Send {
    /// Gives the next item, entries in the order of their paths, or `None` at the end. The parent
    /// of every entry was given before it; the root is not given.
    ///
    /// # Errors
    ///
    /// `SourceError` only when nothing more can be read; what fails alone is a
    /// [`SourceItem::Failed`].
    fn next(&mut self) -> Result<Option<SourceItem>, SourceError>;
}
