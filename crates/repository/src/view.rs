//! A domain with its index: browsing snapshots.

use edge::{Entry, TreePath};
use sealing::Right;

use crate::backup::{list_packs, read_pack};
use crate::content::Node;
use crate::domain::Domain;
use crate::error::RepositoryError;
use crate::index::Index;
use crate::reader::ChunkReader;
use crate::snapshot::Snapshot;
use crate::tree::{TreeWalk, children};

/// A domain at one place with its index loaded, for reading.
#[derive(Debug)]
pub struct View {
    pub(crate) domain: Domain,
    pub(crate) index: Index,
}

impl View {
    /// Loads the index of a domain. Where index segments are damaged, the packs themselves are
    /// asked.
    ///
    /// # Errors
    ///
    /// `NoRight`, `Damaged` or `Store`.
    pub fn open(domain: Domain) -> Result<Self, RepositoryError> {
        domain.require(Right::Read)?;
        let mut index = domain.load_index()?;
        if index.damaged.is_some() {
            for ((hash, kind), size) in list_packs(&domain)? {
                if !index.has_pack(&hash)
                    && let Some((pack, records)) = read_pack(&domain, kind, hash, size)?
                {
                    index.add(vec![pack], records)?;
                }
            }
            index.sort()?;
        }
        Ok(Self { domain, index })
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
        let mut reader = ChunkReader::new(&self.domain, &self.index);
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
        let mut reader = ChunkReader::new(&self.domain, &self.index);
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
