//! What changed since a snapshot: its tree is walked beside the files as they are now, by kind,
//! size, times, mode and owner; no content is read.

use std::cmp::Ordering;
use std::ops::ControlFlow;

use edge::{Entry, EntryKind, Monitor, Source, SourceError, SourceItem, TreePath};

use super::{Aspect, Change, metadata_aspects};
use crate::error::{RepositoryError, chain};
use crate::reader::ChunkReader;
use crate::snapshot::Snapshot;
use crate::tree::TreeWalk;
use crate::view::View;

/// Failures that are told one by one.
const FAILURE_COUNT_MAX: usize = 1000;

/// What of a live tree could not be compared.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LiveReport {
    /// Number of objects that could not be looked at.
    pub failed: u64,
    /// The first of them, with what is wrong, causes outermost first.
    pub failures: Vec<String>,
}

impl LiveReport {
    fn failed(&mut self, error: &SourceError) {
        self.failed += 1;
        if self.failures.len() < FAILURE_COUNT_MAX {
            self.failures.push(chain(error));
        }
    }
}

impl View {
    /// Tells `each` in what a live tree differs from a snapshot, in the order of paths, until it
    /// breaks off. Only entries within one of the `parts` of the snapshot are compared.
    ///
    /// # Errors
    ///
    /// `Read` when a page cannot be read, `Cancelled`. What the source cannot read is in the
    /// report.
    pub fn diff_live(
        &self,
        (snapshot, parts): (&Snapshot, &[TreePath]),
        source: &mut dyn Source,
        monitor: &dyn Monitor,
        each: &mut dyn FnMut(Change) -> ControlFlow<()>,
    ) -> Result<LiveReport, RepositoryError> {
        let mut former = Former {
            reader: ChunkReader::new(&self.domain, self.locate()),
            walk: TreeWalk::new(snapshot.root, Vec::new()),
            parts,
        };
        let mut report = LiveReport::default();
        let mut before = former.next()?;
        let mut after = next_live(source, parts, &mut report);
        loop {
            if monitor.is_cancelled() {
                return Err(RepositoryError::Cancelled);
            }
            let order = match (&before, &after) {
                (None, None) => return Ok(report),
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some(before), Some(after)) => before.path.cmp(&after.path),
            };
            let was = if order.is_le() {
                std::mem::replace(&mut before, former.next()?)
            } else {
                None
            };
            let is = if order.is_ge() {
                std::mem::replace(&mut after, next_live(source, parts, &mut report))
            } else {
                None
            };
            if let Some(change) = change(was, is)
                && each(change).is_break()
            {
                return Ok(report);
            }
        }
    }
}

struct Former<'a> {
    reader: ChunkReader<'a>,
    walk: TreeWalk,
    parts: &'a [TreePath],
}

impl Former<'_> {
    fn next(&mut self) -> Result<Option<Entry>, RepositoryError> {
        loop {
            let node = self.walk.next(&mut self.reader);
            let Some(node) = node.map_err(|lost| *lost.error)? else {
                return Ok(None);
            };
            if is_within_any(&node.entry.path, self.parts) {
                return Ok(Some(node.entry));
            }
        }
    }
}

fn is_within_any(path: &TreePath, parts: &[TreePath]) -> bool {
    parts.iter().any(|part| path.is_within(part))
}

/// Gives the next entry of a live tree. One that ends with an error has ended.
fn next_live(
    source: &mut dyn Source,
    parts: &[TreePath],
    report: &mut LiveReport,
) -> Option<Entry> {
    loop {
        match source.next() {
            Ok(None) => return None,
            Ok(Some(SourceItem::Entry(entry, _))) => {
                if is_within_any(&entry.path, parts) {
                    return Some(entry);
                }
            }
            Ok(Some(SourceItem::Failed(error))) => report.failed(&error),
            Err(error) => {
                report.failed(&error);
                return None;
            }
        }
    }
}

fn change(before: Option<Entry>, after: Option<Entry>) -> Option<Change> {
    match (before, after) {
        (None, None) => None,
        (None, Some(entry)) => Some(Change::Added(entry)),
        (Some(entry), None) => Some(Change::Removed(entry)),
        (Some(before), Some(after)) => {
            let aspects = live_aspects(&before, &after);
            (!aspects.is_empty()).then_some(Change::Changed {
                before,
                after,
                aspects,
            })
        }
    }
}

fn live_aspects(before: &Entry, after: &Entry) -> Vec<Aspect> {
    let mut found = Vec::new();
    metadata_aspects(before, after, &mut found);
    match (&before.kind, &after.kind) {
        (EntryKind::Stream, EntryKind::Stream) => {
            // A stream is new each time; only its end would tell whether it says the same.
            found.retain(|aspect| *aspect != Aspect::Modified);
        }
        (EntryKind::File, EntryKind::File) => {
            let is_same = before.size_bytes == after.size_bytes;
            if !is_same || before.modified != after.modified {
                found.push(Aspect::Content);
            } else if found.is_empty()
                && before.inode == after.inode
                && before.changed != after.changed
            {
                found.push(Aspect::Inode);
            }
        }
        // The walk has all there is to know of others.
        (EntryKind::File | EntryKind::Stream, _) | (_, EntryKind::File | EntryKind::Stream) => {}
        _ if before.xattrs != after.xattrs => found.push(Aspect::Attributes),
        _ => {}
    }
    found.sort_unstable();
    found
}
