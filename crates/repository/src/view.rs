//! A domain with its index: browsing snapshots.

use std::sync::OnceLock;

use edge::{Entry, TreePath};
use sealing::{ObjectKind, Right};

use crate::content::Node;
use crate::domain::Domain;
use crate::error::RepositoryError;
use crate::index::{Doomed, Followed, Index, Locate, RangedIndex};
use crate::reader::ChunkReader;
use crate::snapshot::Snapshot;
use crate::tree::{TreeWalk, children};

/// A domain at one place with its index, for reading.
#[derive(Debug)]
pub struct View {
    pub(crate) domain: Domain,
    /// Of a long index what was asked for.
    ranged: Option<Followed<RangedIndex>>,
    whole: OnceLock<Followed<Index>>,
}

impl View {
    /// Opens the index of a domain: reads it whole when it is short, and else of each segment the
    /// end.
    ///
    /// # Errors
    ///
    /// `NoRight`, `Damaged` or `Store`.
    pub fn open(domain: Domain) -> Result<Self, RepositoryError> {
        domain.require(Right::Read)?;
        let listed = domain.list(ObjectKind::IndexSegment)?;
        let ranged = RangedIndex::open(&domain, &listed)?;
        let ranged = ranged.map(|ranged| Followed::new(&domain, ranged));
        let view = Self {
            domain,
            ranged,
            whole: OnceLock::new(),
        };
        if view.ranged.is_none() {
            view.keep(
                view.domain
                    .load_index_asking_packs(&Doomed::new(), Some(listed))?,
            );
        }
        Ok(view)
    }

    /// Gives what finds chunks.
    pub(crate) fn locate(&self) -> &dyn Locate {
        match (self.whole.get(), &self.ranged) {
            (None, Some(ranged)) => ranged,
            // Without parts of segments the whole index was read at once.
            _ => self.keep(Index::default()),
        }
    }

    fn keep(&self, index: Index) -> &Followed<Index> {
        self.whole
            .get_or_init(|| Followed::new(&self.domain, index))
    }

    /// Gives the whole index. Where segments are damaged, the packs themselves are asked.
    pub(crate) fn index(&self) -> Result<&Index, RepositoryError> {
        match self.whole.get() {
            Some(index) => Ok(&index.index),
            None => Ok(&self
                .keep(self.domain.load_index_asking_packs(&Doomed::new(), None)?)
                .index),
        }
    }

    /// Gives the domain.
    #[must_use]
    pub const fn domain(&self) -> &Domain {
        &self.domain
    }

    /// Gives one entry, or `None` when the snapshot lacks it.
    ///
    /// # Errors
    ///
    /// `Read` when its page cannot be read.
    pub fn entry(
        &self,
        snapshot: &Snapshot,
        path: &TreePath,
    ) -> Result<Option<Entry>, RepositoryError> {
        let mut reader = ChunkReader::new(&self.domain, self.locate());
        let node = find(&mut reader, snapshot, path)?;
        Ok(node.map(|node| node.entry))
    }

    /// Gives the entries of one directory, in order; the root is `TreePath::root()`.
    ///
    /// # Errors
    ///
    /// `Read` when a page cannot be read.
    pub fn list(
        &self,
        snapshot: &Snapshot,
        directory: &TreePath,
    ) -> Result<Vec<Entry>, RepositoryError> {
        let mut entries = Vec::new();
        self.walk_prefix(snapshot, children(directory), &mut |entry| {
            entries.push(entry)
        })?;
        Ok(entries)
    }

    /// Gives all entries below a directory to `each`, in order.
    ///
    /// # Errors
    ///
    /// `Read` when a page cannot be read.
    pub fn walk(
        &self,
        snapshot: &Snapshot,
        directory: &TreePath,
        each: &mut dyn FnMut(Entry),
    ) -> Result<(), RepositoryError> {
        self.walk_prefix(snapshot, directory.key_below(), each)
    }

    fn walk_prefix(
        &self,
        snapshot: &Snapshot,
        prefix: Vec<u8>,
        each: &mut dyn FnMut(Entry),
    ) -> Result<(), RepositoryError> {
        let mut reader = ChunkReader::new(&self.domain, self.locate());
        let mut walk = TreeWalk::new(snapshot.root, prefix);
        while let Some(node) = walk.next(&mut reader).map_err(|lost| *lost.error)? {
            each(node.entry);
        }
        Ok(())
    }
}

/// Finds one entry with its content.
pub(crate) fn find(
    reader: &mut ChunkReader<'_>,
    snapshot: &Snapshot,
    path: &TreePath,
) -> Result<Option<Node>, RepositoryError> {
    // The entry itself is the first of those whose keys begin with its own.
    let mut walk = TreeWalk::new(snapshot.root, path.key().to_vec());
    let node = walk.next(reader).map_err(|lost| *lost.error)?;
    Ok(node.filter(|node| node.entry.path == *path))
}
