//! Builds a tree from entries in order; gives away each page as soon as it ends.
//!
//! Borders depend on keys, so the same entries give the same pages whatever came before, and a
//! changed entry changes one page and those above it.

use edge::{Entry, EntryKind};
use sealing::{ChunkId, TreeHasher};

use super::page::{Child, encode_inner, encode_leaf, shared_bytes};
use super::walk::Leaf;
use super::{
    KEY_BYTES_MAX, OWNER_BYTES_MAX, TARGET_BYTES_MAX, XATTR_BYTES_MAX, XATTR_COUNT_MAX,
    XATTR_NAME_BYTES_MAX, XATTR_VALUE_BYTES_MAX,
};
use crate::content::{Bytes, INLINE_BYTES_MAX, LIST_MAX, Node};

const PAGE_BYTES_MIN: usize = 8 * 1024;
const PAGE_BYTES_MAX: usize = 128 * 1024;
/// One key in 256 ends a page.
const BORDER: u64 = 1 << 56;
/// What the fixed columns of an entry take, roughly.
const ENTRY_BYTES: usize = 32;
const CHILD_BYTES: usize = 40;
/// What an entry shares with the one before costs its page nothing up to here.
const SHARED_BYTES_FREE: usize = 4096;
const CHUNK_BYTES: usize = 35;
const EXTENT_BYTES: usize = 8;

/// The root of a finished tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TreeRoot {
    pub(crate) id: ChunkId,
    pub(crate) entries: u64,
    pub(crate) bytes: u64,
}

/// Stores a page and gives its id.
pub(crate) type PageSink<'a, E> = dyn FnMut(Vec<u8>) -> Result<ChunkId, E> + 'a;

/// Builds one tree.
#[derive(Clone)]
pub(crate) struct TreeBuilder {
    hasher: TreeHasher,
    leaf: Vec<Node>,
    leaf_weight: usize,
    last_key: Vec<u8>,
    /// Unfinished inner pages, from the level above the leaves up.
    levels: Vec<Level>,
}

#[derive(Default, Clone)]
struct Level {
    children: Vec<Child>,
    weight: usize,
    has_given: bool,
}

impl TreeBuilder {
    pub(crate) const fn new(hasher: TreeHasher) -> Self {
        Self {
            hasher,
            leaf: Vec::new(),
            leaf_weight: 0,
            last_key: Vec::new(),
            levels: Vec::new(),
        }
    }

    /// True when an entry may follow the ones before it.
    pub(crate) fn accepts(&self, entry: &Entry) -> bool {
        entry.path.key() > self.last_key.as_slice()
    }

    /// Adds an entry that was checked by [`check_node`] and [`TreeBuilder::accepts`].
    pub(crate) fn push<E>(&mut self, node: Node, sink: &mut PageSink<'_, E>) -> Result<(), E> {
        let key = node.entry.path.key();
        let shared = if self.leaf.is_empty() {
            0
        } else {
            shared_bytes(&self.last_key, key)
        };
        let same_xattrs = self
            .leaf
            .last()
            .is_some_and(|last| last.entry.xattrs == node.entry.xattrs);
        self.leaf_weight += weight(&node, same_xattrs) + key_weight(key, shared);
        let is_border = self.is_border(0, key, self.leaf_weight);
        self.last_key.clear();
        self.last_key.extend_from_slice(key);
        self.leaf.push(node);
        if is_border {
            self.give_leaf(sink)?;
        }
        Ok(())
    }

    /// True when the next entry begins a page.
    pub(crate) const fn is_at_border(&self) -> bool {
        self.leaf.is_empty()
    }

    /// Adds a leaf that is stored already, of a tree with the same borders and not its last, where
    /// a page begins.
    pub(crate) fn push_leaf<E>(
        &mut self,
        leaf: &Leaf,
        sink: &mut PageSink<'_, E>,
    ) -> Result<(), E> {
        let key = |node: Option<&Node>| {
            node.map(|node| node.entry.path.key().to_vec())
                .unwrap_or_default()
        };
        self.last_key = key(leaf.nodes.last());
        let child = child(key(leaf.nodes.first()), leaf.id, &leaf.nodes);
        self.add_child(0, child, sink)
    }

    /// Ends the tree.
    pub(crate) fn finish<E>(mut self, sink: &mut PageSink<'_, E>) -> Result<TreeRoot, E> {
        if !self.leaf.is_empty() || self.levels.is_empty() {
            self.give_leaf(sink)?;
        }
        let mut at = 0;
        loop {
            let is_top = at + 1 == self.levels.len();
            let Some(level) = self.levels.get(at) else {
                // The leaves have a level above them since one was given.
                return sink(encode_leaf(&[])).map(|id| TreeRoot {
                    id,
                    entries: 0,
                    bytes: 0,
                });
            };
            if let ([only], false, true) = (level.children.as_slice(), level.has_given, is_top) {
                return Ok(TreeRoot {
                    id: only.id,
                    entries: only.entries,
                    bytes: only.bytes,
                });
            }
            if !level.children.is_empty() {
                self.give_inner(at, sink)?;
            }
            at += 1;
        }
    }

    fn is_border(&self, level: u8, key: &[u8], weight: usize) -> bool {
        weight >= PAGE_BYTES_MAX
            || (weight >= PAGE_BYTES_MIN && self.hasher.hash(level, key) < BORDER)
    }

    fn give_leaf<E>(&mut self, sink: &mut PageSink<'_, E>) -> Result<(), E> {
        let nodes = std::mem::take(&mut self.leaf);
        self.leaf_weight = 0;
        let key = nodes
            .first()
            .map(|node| node.entry.path.key().to_vec())
            .unwrap_or_default();
        let child = child(key, sink(encode_leaf(&nodes))?, &nodes);
        self.add_child(0, child, sink)
    }

    /// Adds a child to the page at `at`, counted from the level above the leaves.
    fn add_child<E>(
        &mut self,
        mut at: usize,
        mut child: Child,
        sink: &mut PageSink<'_, E>,
    ) -> Result<(), E> {
        loop {
            if self.levels.len() <= at {
                self.levels.push(Level::default());
            }
            let number = u8::try_from(at + 1).unwrap_or(u8::MAX);
            let Some(level) = self.levels.get_mut(at) else {
                return Ok(());
            };
            let before = level.children.last().map_or(&[][..], |last| &last.key);
            let shared = shared_bytes(before, &child.key);
            level.weight += CHILD_BYTES + key_weight(&child.key, shared);
            let weight = level.weight;
            let key = child.key.clone();
            level.children.push(child);
            if !self.is_border(number, &key, weight) {
                return Ok(());
            }
            let Some(page) = self.take_inner(at, sink)? else {
                return Ok(());
            };
            child = page;
            at += 1;
        }
    }

    fn give_inner<E>(&mut self, at: usize, sink: &mut PageSink<'_, E>) -> Result<(), E> {
        match self.take_inner(at, sink)? {
            Some(page) => self.add_child(at + 1, page, sink),
            None => Ok(()),
        }
    }

    fn take_inner<E>(&mut self, at: usize, sink: &mut PageSink<'_, E>) -> Result<Option<Child>, E> {
        let Some(level) = self.levels.get_mut(at) else {
            return Ok(None);
        };
        let children = std::mem::take(&mut level.children);
        level.weight = 0;
        level.has_given = true;
        let total =
            |each: fn(&Child) -> u64| children.iter().map(each).fold(0, u64::saturating_add);
        Ok(Some(Child {
            key: children
                .first()
                .map(|child| child.key.clone())
                .unwrap_or_default(),
            entries: total(|child| child.entries),
            bytes: total(|child| child.bytes),
            id: sink(encode_inner(&children))?,
        }))
    }
}

fn child(key: Vec<u8>, id: ChunkId, nodes: &[Node]) -> Child {
    let bytes = nodes.iter().map(Node::size_bytes);
    Child {
        key,
        id,
        entries: nodes.len() as u64,
        bytes: bytes.fold(0, u64::saturating_add),
    }
}

/// Measures a key. What it shares with the one before is free, but each reader has it in memory: so
/// long as no path of an ordinary system is.
fn key_weight(key: &[u8], shared: usize) -> usize {
    key.len() - shared + shared.saturating_sub(SHARED_BYTES_FREE)
}

/// Measures an entry; no more than an estimate of what it adds to its page.
fn weight(node: &Node, same_xattrs: bool) -> usize {
    let free = if same_xattrs { SHARED_BYTES_FREE } else { 0 };
    let xattrs = xattr_bytes(&node.entry).saturating_sub(free);
    let target = match &node.entry.kind {
        EntryKind::Symlink { target } => target.len(),
        _ => 0,
    };
    let content = node.content.as_ref().map_or(0, |content| {
        let bytes = match &content.bytes {
            Bytes::Nothing => 0,
            Bytes::Inline(bytes) => bytes.len(),
            Bytes::Chunks { list, .. } => list.len() * CHUNK_BYTES,
        };
        bytes + content.extents.as_ref().map_or(0, Vec::len) * EXTENT_BYTES
    });
    ENTRY_BYTES + xattrs + target + content
}

fn xattr_bytes(entry: &Entry) -> usize {
    let each = |xattr: &edge::XAttr| xattr.name.len() + xattr.value.len();
    entry.xattrs.iter().map(each).sum()
}

/// Says what of an entry the format cannot hold.
pub(crate) fn check_node(node: &Node) -> Result<(), &'static str> {
    let entry = &node.entry;
    if entry.path.name().is_none() {
        return Err("the root has no entry of its own");
    }
    if entry.path.key().len() > KEY_BYTES_MAX {
        return Err("its path is longer than 65,536 bytes");
    }
    let target_fits = match &entry.kind {
        EntryKind::Symlink { target } => target.len() <= TARGET_BYTES_MAX,
        _ => true,
    };
    let owner_fits = entry.owner.user.len().max(entry.owner.group.len()) <= OWNER_BYTES_MAX;
    if !target_fits || !owner_fits || entry.mode > 0o7777 {
        return Err("its link target, owner or mode is out of bounds");
    }
    if entry.modified.nanos.max(entry.changed.nanos) > 999_999_999 {
        return Err("its times are out of bounds");
    }
    let xattrs_fit = entry.xattrs.len() <= XATTR_COUNT_MAX
        && xattr_bytes(entry) <= XATTR_BYTES_MAX
        && entry.xattrs.iter().all(|xattr| {
            xattr.name.len() <= XATTR_NAME_BYTES_MAX && xattr.value.len() <= XATTR_VALUE_BYTES_MAX
        });
    if !xattrs_fit {
        return Err("its extended attributes are larger than 1 MiB or 64 KiB each");
    }
    let has_content = matches!(entry.kind, EntryKind::File | EntryKind::Stream);
    let fits = match node.content.as_ref().map(|content| &content.bytes) {
        None => !has_content,
        Some(Bytes::Nothing) => has_content,
        Some(Bytes::Inline(bytes)) => has_content && bytes.len() <= INLINE_BYTES_MAX,
        Some(Bytes::Chunks { list, .. }) => has_content && list.len() <= LIST_MAX,
    };
    if fits {
        Ok(())
    } else {
        Err("its kind and content do not match")
    }
}
