//! The previous snapshot, walked beside the source: what did not change is taken over from it.

mod mail;

use std::cmp::Ordering;
use std::rc::Rc;

use edge::{Entry, EntryKind, FileTime, TreePath};
use model::{Instant, SnapshotId};

use super::copy::Copy;
use super::expected::CHUNK_COUNT_MAX;
use crate::chunker::Class;
use crate::content::{Bytes, ChunkRef, Content, Node};
use crate::error::ReadError;
use crate::layout::ObjectHash;
use crate::reader::ChunkReader;
use crate::snapshot::Snapshot;
use crate::tree::{Leaf, TreeWalk};
use crate::view::find;
pub(super) use mail::mailbox_of;

/// A file that changed this shortly before the previous walk, or later, may have changed again
/// within the same tick of its clock: it is read again.
const RACY_SECS: i64 = 2;

/// Snapshots that are looked into for one that holds the same trees.
const LOOKED_AT_MAX: usize = 100;

/// The newest snapshot of any replica.
pub(super) struct Parent<'a> {
    /// Whose pages are walked; none where the machine's own stand for them.
    copy: Option<&'a Copy>,
    snapshot: Snapshot,
    reader: ChunkReader<'a>,
    walk: TreeWalk,
    leaf: Option<Rc<Leaf>>,
    /// The next node of the leaf.
    at: usize,
    is_at_end: bool,
    steady_before: FileTime,
    mailbox: mail::Mailbox,
}

/// A node of the previous snapshot: its page, and its place there.
#[derive(Debug, Clone)]
pub(super) struct Former {
    pub(super) leaf: Rc<Leaf>,
    pub(super) at: usize,
}

impl Former {
    pub(super) fn node(&self) -> Option<&Node> {
        self.leaf.nodes.get(self.at)
    }
}

impl<'a> Parent<'a> {
    /// Finds the newest snapshot of the live replicas that holds one of the trees, or else the
    /// newest. What cannot be read is not used: the files are read again.
    pub(super) fn find(copies: &'a [Copy], trees: &[TreePath]) -> Option<Self> {
        let live = copies.iter().filter(|copy| copy.is_live());
        let newest = live.filter_map(|copy| {
            if let Some(local) = &copy.local {
                return Some((copy, local.snapshot.clone()?));
            }
            let mut list = copy.domain.snapshots().ok()?.snapshots;
            let mut reader = ChunkReader::new(&copy.domain, &copy.index);
            let mut holds_one = |snapshot: &Snapshot| {
                let held =
                    |path: &TreePath| matches!(find(&mut reader, snapshot, path), Ok(Some(_)));
                trees.iter().any(held)
            };
            let recent = list.len().saturating_sub(LOOKED_AT_MAX);
            let at = (recent..list.len())
                .rev()
                .find(|at| list.get(*at).is_some_and(&mut holds_one));
            let at = at.or_else(|| list.len().checked_sub(1))?;
            Some((copy, list.swap_remove(at)))
        });
        let (copy, snapshot) = newest.max_by_key(|(_, snapshot)| snapshot.body.started_at)?;
        Some(Self::of(copy, snapshot))
    }

    /// Finds the checkpoint of the live replicas that holds most.
    pub(super) fn find_checkpoint(copies: &'a [Copy]) -> Option<Self> {
        let live = copies.iter().filter(|copy| copy.is_live());
        let found = live.flat_map(|copy| {
            let found = copy.take_found_checkpoints().into_iter();
            found.map(move |found| (copy, found.snapshot))
        });
        let (copy, snapshot) = found.max_by_key(|(_, snapshot)| snapshot.body.entries)?;
        Some(Self::of(copy, snapshot))
    }

    fn of(copy: &'a Copy, snapshot: Snapshot) -> Self {
        let (domain, index) = match &copy.local {
            Some(local) => (&local.domain, &local.index),
            None => (&copy.domain, &copy.index),
        };
        Self {
            copy: Some(copy).filter(|copy| copy.local.is_none()),
            reader: ChunkReader::new(domain, index),
            walk: TreeWalk::new(snapshot.root, Vec::new()),
            leaf: None,
            at: 0,
            is_at_end: false,
            steady_before: file_time(snapshot.body.started_at.plus_secs(-RACY_SECS)),
            mailbox: mail::Mailbox::default(),
            snapshot,
        }
    }

    /// Files that changed since then are read again.
    pub(super) const fn steady_before(&self) -> FileTime {
        self.steady_before
    }

    /// True when nothing of the snapshot is left.
    pub(super) const fn is_at_end(&self) -> bool {
        self.is_at_end
    }

    pub(super) const fn reread_round(&self) -> u64 {
        self.snapshot.body.reread_round
    }

    pub(super) const fn snapshot_id(&self) -> SnapshotId {
        self.snapshot.id
    }

    pub(super) const fn snapshot_hash(&self) -> &ObjectHash {
        &self.snapshot.hash
    }

    /// Gives the entry as it was, when it did not change since. Paths are asked for in order.
    pub(super) fn unchanged(&mut self, now: &Entry) -> Option<Former> {
        let former = self.seek(&now.path)?;
        let was = &former.node()?.entry;
        let is_same = match now.kind {
            EntryKind::File => {
                was.kind == EntryKind::File
                    && was.size_bytes == now.size_bytes
                    && was.modified == now.modified
                    && was.changed == now.changed
                    && was.inode == now.inode
                    && now.modified < self.steady_before
                    && now.changed < self.steady_before
            }
            EntryKind::Stream => false,
            // The walk has all there is to know of it.
            _ => was == now,
        };
        is_same.then_some(former)
    }

    /// Gives the chunks of what is now an entry, and how they were cut; `None` when there was nothing there, its
    /// lists cannot be read, or it had too many chunks.
    pub(super) fn chunks_before(&mut self, now: &Entry) -> Option<(Class, Vec<ChunkRef>)> {
        let former = self.seek(&now.path)?;
        let node = former.node()?;
        let content = node.content.as_ref()?;
        let count = content.class.chunk_count(node.entry.size_bytes);
        if count > CHUNK_COUNT_MAX as u64 {
            return None;
        }
        Some((content.class, self.chunk_list(content)?))
    }

    /// Gives all chunks of a content, or `None` when its lists cannot be read.
    pub(super) fn chunk_list(&mut self, content: &Content) -> Option<Vec<ChunkRef>> {
        match self.reader.chunk_list(content) {
            Ok(list) => Some(list),
            Err(ReadError::Store(_)) => None,
            Err(_) => {
                if let (Bytes::Chunks { list, .. }, Some(copy)) = (&content.bytes, self.copy) {
                    list.iter().for_each(|chunk| copy.mark_bad(&chunk.id));
                }
                None
            }
        }
    }

    fn seek(&mut self, path: &TreePath) -> Option<Former> {
        loop {
            if let Some(leaf) = &self.leaf {
                while let Some(node) = leaf.nodes.get(self.at) {
                    match node.entry.path.cmp(path) {
                        Ordering::Less => self.at += 1,
                        Ordering::Greater => return None,
                        Ordering::Equal => {
                            return Some(Former {
                                leaf: Rc::clone(leaf),
                                at: self.at,
                            });
                        }
                    }
                }
            }
            match self.walk.next_leaf(&mut self.reader) {
                Ok(leaf) => {
                    self.is_at_end = leaf.is_none();
                    self.leaf = Some(Rc::new(leaf?));
                    self.at = 0;
                }
                // What this page held is read again, and the page stored again.
                Err(lost) => {
                    if let (Some(copy), false) =
                        (self.copy, matches!(*lost.error, ReadError::Store(_)))
                    {
                        copy.mark_bad(&lost.page);
                    }
                }
            }
        }
    }
}

fn file_time(at: Instant) -> FileTime {
    let micros = at.micros().rem_euclid(1_000_000);
    FileTime {
        secs: at.secs(),
        nanos: u32::try_from(micros * 1000).unwrap_or(0),
    }
}
