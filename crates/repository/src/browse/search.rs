//! Searching names in snapshots. Pages that several snapshots share are read once, and the entries
//! of a page without a match are not decoded.

use std::collections::HashSet;
use std::ops::ControlFlow;

use edge::{Entry, Event, Monitor, TreePath};
use model::ByteCount;

use super::Pattern;

use crate::content::{Bytes, Node};
use crate::error::RepositoryError;
use crate::index::{KnownIds, prefix_of};
use crate::reader::ChunkReader;
use crate::snapshot::Snapshot;
use crate::tree::{Head, TreeWalk};
use crate::view::View;

/// Hits that are remembered so that none is told twice: 32 MiB.
const TOLD_COUNT_MAX: usize = 1 << 20;

/// One entry whose name matches.
#[derive(Debug, Clone, Copy)]
pub struct Hit<'a> {
    /// The first of the searched snapshots that holds it.
    pub snapshot: &'a Snapshot,
    /// The entry.
    pub entry: &'a Entry,
}

impl View {
    /// Searches names at and below a path in snapshots, and tells `each` what was found, until it breaks
    /// off. An entry that is the same in several snapshots is told with the first one only: give
    /// the newest first. Those of one snapshot come in the order of paths.
    ///
    /// # Errors
    ///
    /// `Read` when a page cannot be read, `Cancelled`.
    pub fn search(
        &self,
        snapshots: &[&Snapshot],
        (below, pattern): (&TreePath, &Pattern),
        monitor: &dyn Monitor,
        each: &mut dyn FnMut(Hit<'_>) -> ControlFlow<()>,
    ) -> Result<(), RepositoryError> {
        let mut search = Search {
            reader: ChunkReader::new(&self.domain, self.locate()),
            pattern,
            monitor,
            seen: KnownIds::new(self.domain.scratch().cloned()),
            pages: 0,
            told: (snapshots.len() > 1).then(HashSet::new),
        };
        for snapshot in snapshots {
            let walk = TreeWalk::new(snapshot.root, below.key_below());
            let mut tell = |entry: &Entry| each(Hit { snapshot, entry });
            if search.one(walk, &mut tell)?.is_break() {
                return Ok(());
            }
        }
        Ok(())
    }
}

struct Search<'a> {
    reader: ChunkReader<'a>,
    pattern: &'a Pattern,
    monitor: &'a dyn Monitor,
    /// Pages that were searched, by their ids.
    seen: KnownIds,
    pages: u64,
    /// What was told, where something could be told again.
    told: Option<HashSet<[u8; 16]>>,
}

impl Search<'_> {
    fn one(
        &mut self,
        mut walk: TreeWalk,
        tell: &mut dyn FnMut(&Entry) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, RepositoryError> {
        let pattern = self.pattern;
        while let Some(head) = walk.next_head() {
            if self.monitor.is_cancelled() {
                return Err(RepositoryError::Cancelled);
            }
            match head {
                Head::Page(child) => {
                    let is_new = self.seen.insert(prefix_of(&child.id));
                    if !is_new.map_err(RepositoryError::Scratch)? {
                        continue;
                    }
                    self.pages += 1;
                    self.monitor.event(Event::Progress {
                        entries: self.pages,
                        bytes: ByteCount::ZERO,
                        bytes_expected: None,
                    });
                    let mut wanted = |key: &[u8]| pattern.matches_key(key);
                    walk.open_for(child, &mut self.reader, &mut wanted)
                        .map_err(|lost| *lost.error)?;
                }
                Head::Entry(node) => {
                    if pattern.matches_key(node.entry.path.key())
                        && self.is_news(&node)
                        && tell(&node.entry).is_break()
                    {
                        return Ok(ControlFlow::Break(()));
                    }
                }
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// True when no like entry was told before, as far as is remembered.
    fn is_news(&mut self, node: &Node) -> bool {
        let Some(told) = &mut self.told else {
            return true;
        };
        let mark = mark_of(node);
        if told.len() >= TOLD_COUNT_MAX {
            return !told.contains(&mark);
        }
        told.insert(mark)
    }
}

/// Gives a short mark of all that a person would tell two versions of an entry apart by.
fn mark_of(node: &Node) -> [u8; 16] {
    let entry = &node.entry;
    let mut hasher = blake3::Hasher::new();
    hasher.update(entry.path.key());
    hasher.update(&entry.size_bytes.to_le_bytes());
    hasher.update(&entry.modified.secs.to_le_bytes());
    hasher.update(&entry.modified.nanos.to_le_bytes());
    hasher.update(format!("{:?}", entry.kind).as_bytes());
    match node.content.as_ref().map(|content| &content.bytes) {
        Some(Bytes::Inline(bytes)) => {
            hasher.update(bytes);
        }
        Some(Bytes::Chunks { list, .. }) => {
            for chunk in list {
                hasher.update(chunk.id.as_bytes());
            }
        }
        Some(Bytes::Nothing) | None => {}
    }
    let hash = hasher.finalize();
    hash.as_bytes().first_chunk().copied().unwrap_or_default()
}
