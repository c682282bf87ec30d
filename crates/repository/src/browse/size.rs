//! How large a directory is: read from the sums that inner pages keep, without its entries.

use edge::TreePath;
use model::ByteCount;

use crate::error::RepositoryError;
use crate::reader::ChunkReader;
use crate::snapshot::Snapshot;
use crate::tree::{Head, TreeWalk};
use crate::view::{View, find};

/// How much is at and below a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Size {
    /// Entries, the path's own among them.
    pub entries: u64,
    /// Bytes of content.
    pub bytes: ByteCount,
}

impl Size {
    fn add(&mut self, entries: u64, bytes: u64) {
        self.entries = self.entries.saturating_add(entries);
        self.bytes += ByteCount::new(bytes);
    }
}

impl View {
    /// Measures what a snapshot holds at and below a path; only the pages at both ends of it are
    /// read.
    ///
    /// # Errors
    ///
    /// `Read` when a page cannot be read.
    pub fn size_of(&self, snapshot: &Snapshot, path: &TreePath) -> Result<Size, RepositoryError> {
        self.size_with(
            &mut ChunkReader::new(&self.domain, self.locate()),
            snapshot,
            path,
        )
    }

    pub(crate) fn size_with(
        &self,
        reader: &mut ChunkReader<'_>,
        snapshot: &Snapshot,
        path: &TreePath,
    ) -> Result<Size, RepositoryError> {
        let mut size = Size::default();
        if path.name().is_none() {
            size.add(snapshot.body.entries, snapshot.body.bytes.get());
            return Ok(size);
        }
        if let Some(node) = find(reader, snapshot, path)? {
            size.add(1, node.size_bytes());
        }
        let prefix = path.key_below();
        let mut walk = TreeWalk::new(snapshot.root, prefix.clone());
        while let Some(head) = walk.next_head() {
            match head {
                Head::Entry(node) => size.add(1, node.size_bytes()),
                Head::Page(page) => {
                    let ends_within = walk.next_key().is_some_and(|key| key.starts_with(&prefix));
                    if page.key.starts_with(&prefix) && ends_within {
                        size.add(page.entries, page.bytes);
                    } else {
                        let opened = walk.open(page, reader);
                        opened.map_err(|lost| *lost.error)?;
                    }
                }
            }
        }
        Ok(size)
    }
}
