//! Entries that did not change: taken over from the previous snapshot, page by page where all of
//! a page stays.

use std::rc::Rc;

use edge::{Entry, EntryKind};

use super::super::parent::{Former, Parent};
use super::{Session, Stopped, Storing};
use crate::content::{Bytes, ChunkRef, Content, Node};
use crate::index::prefix_of;
use crate::layout::ObjectHash;
use crate::tree::Leaf;

/// The first entries of a page of the previous snapshot, all unchanged so far.
pub(super) struct Run {
    leaf: Rc<Leaf>,
    count: usize,
}

impl Session<'_, '_> {
    /// True when an entry may follow the ones before it.
    pub(super) fn accepts(&self, entry: &Entry) -> bool {
        match &self.run {
            None => self.tree.accepts(entry),
            Some(run) => {
                let last = run.leaf.nodes.get(run.count.saturating_sub(1));
                last.is_some_and(|last| last.entry.path < entry.path)
            }
        }
    }

    /// Gives the entry as the previous snapshot has it, when it did not change and every live
    /// replica still holds its content.
    pub(super) fn former(&mut self, entry: &Entry) -> Option<Former> {
        let storing = &self.storing;
        self.parents.iter_mut().find_map(|parent| {
            let former = parent.unchanged(entry)?;
            let content = former.node()?.content.as_ref();
            storing.holds(parent, content)?;
            Some(former)
        })
    }

    /// Gives a message that was renamed, when every live replica still holds its content.
    pub(super) fn renamed_mail(&mut self, entry: &Entry) -> Option<Node> {
        let storing = &self.storing;
        let node = self.parents.iter_mut().find_map(|parent| {
            let node = parent.renamed_mail(entry)?;
            storing.holds(parent, node.content.as_ref())?;
            Some(node)
        })?;
        self.walked.counts.unchanged += 1;
        Some(node)
    }

    /// Takes an unchanged entry over.
    pub(super) fn keep(&mut self, former: &Former, now: &Entry) -> Result<(), Stopped> {
        let Some(node) = former.node() else {
            return Ok(());
        };
        self.count(node);
        if now.kind == EntryKind::File {
            self.walked.counts.unchanged += 1;
        }
        let was = &node.entry;
        let is_same = was.device == now.device && was.link_count == now.link_count;
        let follows = match &self.run {
            Some(run) => Rc::ptr_eq(&run.leaf, &former.leaf) && run.count == former.at,
            None => former.at == 0 && !former.leaf.is_last && self.tree.is_at_border(),
        };
        if !is_same || !follows {
            self.end_run()?;
            return self.push(renewed(node, now));
        }
        let count = former.at + 1;
        let is_whole = count == former.leaf.nodes.len();
        self.run = Some(Run {
            leaf: Rc::clone(&former.leaf),
            count,
        });
        if is_whole && self.storing.all_hold_chunk(&former.leaf.id) {
            self.run = None;
            let storing = &mut self.storing;
            return self
                .tree
                .push_leaf(&former.leaf, &mut |page| storing.page(&page));
        }
        if is_whole {
            return self.end_run();
        }
        Ok(())
    }

    /// Adds the entries of a page that does not stay whole.
    pub(super) fn end_run(&mut self) -> Result<(), Stopped> {
        let Some(run) = self.run.take() else {
            return Ok(());
        };
        for node in run.leaf.nodes.iter().take(run.count) {
            self.push(node.clone())?;
        }
        Ok(())
    }

    pub(super) fn push(&mut self, node: Node) -> Result<(), Stopped> {
        let storing = &mut self.storing;
        self.tree.push(node, &mut |page| storing.page(&page))
    }
}

impl Storing<'_, '_> {
    /// Says whether every live replica holds the content of an entry of a previous snapshot.
    fn holds(&self, parent: &mut Parent<'_>, content: Option<&Content>) -> Option<()> {
        let Some(Bytes::Chunks { depth, list }) = content.map(|content| &content.bytes) else {
            return Some(());
        };
        let snapshot = *parent.snapshot_hash();
        let is_long = *depth > 0;
        if self.each_holds(&snapshot, list, is_long) {
            return Some(());
        }
        let is_held =
            self.all_hold(list) && (!is_long || self.all_hold(&parent.chunk_list(content?)?));
        is_held.then_some(())
    }

    /// True when each live replica is known to hold a snapshot as a whole, and so these chunks.
    /// What more a long list leads to is only known where nothing is missing at all.
    fn each_holds(&self, snapshot: &ObjectHash, list: &[ChunkRef], is_long: bool) -> bool {
        let mut live = self.copies.iter().filter(|copy| copy.is_live());
        live.all(|copy| {
            copy.holds_all_but(snapshot).is_some_and(|missing| {
                let is_there = |chunk: &ChunkRef| !missing.contains(&prefix_of(&chunk.id));
                missing.is_empty() || (!is_long && list.iter().all(is_there))
            })
        })
    }
}

/// Gives a node with what may differ though nothing changed: devices are numbered anew at each
/// boot, and links of the inode come and go.
pub(super) fn renewed(node: &Node, now: &Entry) -> Node {
    let mut node = node.clone();
    node.entry.device = now.device;
    node.entry.link_count = now.link_count;
    node
}
