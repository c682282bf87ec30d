//! How much there is: what snapshots hold, how much of it is stored once for all, what only one
//! snapshot, one account or one path holds.
//!
//! Two numbers are kept for each chunk of the index, 8 bytes, whatever the number of entries. A page
//! that many snapshots share is read twice at most.

mod marks;

use edge::{Event, Monitor, Phase, TreePath};
use model::{ByteCount, Instant, SnapshotId};
use sealing::ObjectKind;

use crate::browse::Size;
use crate::error::{ReadError, RepositoryError};
use crate::index::{Index, Record};
use crate::reader::ChunkReader;
use crate::snapshot::Snapshot;
use crate::tree::{Head, TreeWalk};
use crate::view::View;
use marks::{Marks, Part};

/// Some of what is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Amount {
    /// Chunks.
    pub chunks: u64,
    /// Bytes of content in them, before compression. Content up to 256 bytes lies in pages.
    pub data_bytes: ByteCount,
    /// Bytes of pages and chunk lists in them, before compression.
    pub metadata_bytes: ByteCount,
    /// What they take of the packs: their share of their frames as stored.
    pub stored_bytes: ByteCount,
}

impl Amount {
    pub(super) fn add(&mut self, index: &Index, record: &Record) {
        let Some(pack) = index.pack(record.pack) else {
            return;
        };
        let length = u64::from(record.length());
        self.chunks += 1;
        if pack.kind == ObjectKind::DataPack {
            self.data_bytes += ByteCount::new(length);
        } else {
            self.metadata_bytes += ByteCount::new(length);
        }
        if let Some(frame) = pack.frames.get(usize::from(record.frame())) {
            let share = u64::from(frame.stored) * length / u64::from(frame.plain.max(1));
            self.stored_bytes += ByteCount::new(share);
        }
    }
}

/// How much one snapshot holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotStatistics {
    /// Which one.
    pub id: SnapshotId,
    /// When its walk began.
    pub taken_at: Instant,
    /// Entries and bytes of content in it.
    pub size: Size,
    /// What no older snapshot holds: by this much the repository grew.
    pub added: Amount,
    /// What no other snapshot holds, in the trash neither: by this much forgetting it alone lets the repository shrink,
    /// as whole packs become free of needed chunks.
    pub unique: Amount,
}

/// How much lies below one name, over all snapshots.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartStatistics {
    /// The name; empty for the path itself, where it is a file.
    pub name: Vec<u8>,
    /// Entries and bytes of content in the newest snapshot.
    pub newest: Size,
    /// Content that is found nowhere else.
    pub unique: Amount,
}

/// How much there is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Statistics {
    /// Oldest first.
    pub snapshots: Vec<SnapshotStatistics>,
    /// Bytes of content of all snapshots together, as if each were alone.
    pub logical_bytes: ByteCount,
    /// What snapshots need, each chunk once.
    pub needed: Amount,
    /// What only snapshots in the trash hold.
    pub trashed: Amount,
    /// What no snapshot needs any more.
    pub unneeded: Amount,
    /// All stored objects together.
    pub stored_bytes: ByteCount,
    /// By the first name below the path that was asked for, sorted; accounts below the root.
    pub parts: Vec<PartStatistics>,
    /// Content at or below that path, in several parts and nowhere else.
    pub shared: Amount,
    /// Content at or below that path that is found elsewhere, too, and content elsewhere.
    pub elsewhere: Amount,
}

impl View {
    /// Measures the domain, and what lies below a path in all snapshots.
    ///
    /// # Errors
    ///
    /// Whatever keeps a snapshot or a page from being read, `Cancelled`.
    pub fn statistics(
        &self,
        below: &TreePath,
        monitor: &dyn Monitor,
    ) -> Result<Statistics, RepositoryError> {
        monitor.event(Event::Phase(Phase::Planning));
        let list = self.domain.snapshots()?;
        if let Some(damage) = list.unreadable.into_iter().next() {
            return Err(damage);
        }
        let index = self.index()?;
        let mut reader = ChunkReader::new(&self.domain, index);
        let mut marks = Marks::new(index);
        let mut entries = 0;
        for (number, snapshot) in (1_u32..).zip(&list.snapshots) {
            marks.begin(number);
            mark(
                snapshot,
                below,
                (&mut reader, &mut marks),
                monitor,
                &mut entries,
            )?;
        }
        marks.begin_trash();
        for trashed in self.domain.trash_list()?.trashed {
            let pair = (&mut reader, &mut marks);
            mark(&trashed.snapshot, below, pair, monitor, &mut entries)?;
        }
        let mut statistics = Statistics {
            stored_bytes: self.stored_bytes()?,
            ..Statistics::default()
        };
        marks.count(&list.snapshots, &mut statistics)?;
        if let Some(newest) = list.snapshots.last() {
            for part in &mut statistics.parts {
                let path = below.child(&part.name).unwrap_or_else(|_| below.clone());
                part.newest = self.size_with(&mut reader, newest, &path)?;
            }
        }
        Ok(statistics)
    }

    fn stored_bytes(&self) -> Result<ByteCount, RepositoryError> {
        let mut sum = ByteCount::ZERO;
        for kind in [
            ObjectKind::DataPack,
            ObjectKind::MetadataPack,
            ObjectKind::IndexSegment,
            ObjectKind::Snapshot,
        ] {
            for (_, size) in self.domain.list(kind)? {
                sum += ByteCount::new(size);
            }
        }
        Ok(sum)
    }
}

/// Marks what a snapshot reaches.
fn mark(
    snapshot: &Snapshot,
    below: &TreePath,
    (reader, marks): (&mut ChunkReader<'_>, &mut Marks<'_>),
    monitor: &dyn Monitor,
    entries: &mut u64,
) -> Result<(), RepositoryError> {
    let depth = below.depth();
    let mut walk = TreeWalk::new(snapshot.root, Vec::new());
    while let Some(head) = walk.next_head() {
        match head {
            Head::Page(page) => {
                if monitor.is_cancelled() {
                    return Err(RepositoryError::Cancelled);
                }
                if marks.page(&page.id)? {
                    walk.open(page, reader).map_err(|lost| *lost.error)?;
                }
            }
            Head::Entry(node) => {
                *entries += 1;
                if (*entries).is_multiple_of(1024) {
                    monitor.event(Event::Progress {
                        entries: *entries,
                        bytes: ByteCount::ZERO,
                        bytes_expected: None,
                    });
                }
                if let Some(content) = &node.content {
                    let path = &node.entry.path;
                    let part = if path.is_within(below) {
                        let name = path.components().nth(depth).unwrap_or_default();
                        marks.part(name)
                    } else {
                        Part::ELSEWHERE
                    };
                    marks.content(&content.bytes, part, reader)?;
                }
            }
        }
    }
    Ok(())
}

/// The error for a chunk that the index does not name.
fn unknown(chunk: sealing::ChunkId) -> ReadError {
    ReadError::Unknown { chunk }
}
