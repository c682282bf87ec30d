//! Which snapshots and which parts of the tree reach each chunk: one of them, or several.

use std::collections::BTreeMap;

use sealing::{ChunkId, ChunkKind};

use super::{Amount, PartStatistics, SnapshotStatistics, Statistics, unknown};
use crate::browse::Size;
use crate::content::{Bytes, decode_list};
use crate::error::{ReadError, RepositoryError};
use crate::index::Index;
use crate::reader::ChunkReader;
use crate::snapshot::Snapshot;

/// Several snapshots reach the chunk.
const SEVERAL: u32 = u32::MAX;
/// Only snapshots in the trash reach the chunk.
const TRASHED: u32 = u32::MAX - 1;
/// Names that are told apart; the content of further ones counts as shared.
const PART_COUNT_MAX: usize = 65_536;

/// The part of the tree that a chunk was found in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Part(u32);

impl Part {
    /// No part yet.
    const NONE: Self = Self(0);
    /// Several parts.
    const SHARED: Self = Self(u32::MAX - 1);
    /// Not below the path, or not only.
    pub(super) const ELSEWHERE: Self = Self(u32::MAX);

    const fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::NONE, part) | (part, Self::NONE) => part,
            (Self::ELSEWHERE, _) | (_, Self::ELSEWHERE) => Self::ELSEWHERE,
            (Self(one), Self(two)) if one == two => self,
            _ => Self::SHARED,
        }
    }
}

/// What is known of one chunk.
#[derive(Debug, Clone, Copy)]
struct Mark {
    /// The number of the only snapshot that reaches it, from 1; 0 for none.
    snapshot: u32,
    part: Part,
}

pub(super) struct Marks<'a> {
    index: &'a Index,
    /// One for each record of the index.
    marks: Vec<Mark>,
    /// The number of the snapshot that is walked.
    snapshot: u32,
    added: Vec<Amount>,
    parts: BTreeMap<Vec<u8>, Part>,
}

impl<'a> Marks<'a> {
    pub(super) fn new(index: &'a Index) -> Self {
        let mark = Mark {
            snapshot: 0,
            part: Part::NONE,
        };
        Self {
            index,
            marks: vec![mark; index.len()],
            snapshot: 0,
            added: Vec::new(),
            parts: BTreeMap::new(),
        }
    }

    /// Begins the next snapshot; oldest first, numbers from 1 up.
    pub(super) fn begin(&mut self, snapshot: u32) {
        self.snapshot = snapshot;
        self.added.push(Amount::default());
    }

    /// Begins the snapshots in the trash, which come last and count for no part.
    pub(super) fn begin_trash(&mut self) {
        self.begin(TRASHED);
    }

    /// Gives the part of a name.
    pub(super) fn part(&mut self, name: &[u8]) -> Part {
        if self.snapshot == TRASHED {
            return Part::NONE;
        }
        if let Some(part) = self.parts.get(name) {
            return *part;
        }
        let next = self.parts.len();
        if next >= PART_COUNT_MAX {
            return Part::SHARED;
        }
        let part = u32::try_from(next + 1).map_or(Part::SHARED, Part);
        self.parts.insert(name.to_vec(), part);
        part
    }

    /// Marks a page; true when what it holds is to be marked, too.
    pub(super) fn page(&mut self, id: &ChunkId) -> Result<bool, ReadError> {
        self.mark(id, Part::NONE)
    }

    /// Marks a chunk. False when that changes nothing: then all below it is marked alike.
    fn mark(&mut self, id: &ChunkId, part: Part) -> Result<bool, ReadError> {
        let (position, record) = self.index.locate(id).ok_or_else(|| unknown(*id))?;
        let mark = self.marks.get_mut(position).ok_or_else(|| unknown(*id))?;
        let (was_snapshot, was_part) = (mark.snapshot, mark.part);
        if self.snapshot != TRASHED {
            mark.part = mark.part.and(part);
        }
        if mark.snapshot == 0 {
            mark.snapshot = self.snapshot;
            if let Some(added) = self.added.last_mut() {
                added.add(self.index, &record);
            }
        } else if mark.snapshot != self.snapshot {
            mark.snapshot = SEVERAL;
        }
        Ok(mark.snapshot != was_snapshot || mark.part != was_part)
    }

    /// Marks content and, level by level, the lists of its chunks.
    pub(super) fn content(
        &mut self,
        bytes: &Bytes,
        part: Part,
        reader: &mut ChunkReader<'_>,
    ) -> Result<(), ReadError> {
        let Bytes::Chunks { depth, list } = bytes else {
            return Ok(());
        };
        let mut level = list.clone();
        for below in (0..=*depth).rev() {
            let mut is_news = false;
            for chunk in &level {
                is_news |= self.mark(&chunk.id, part)?;
            }
            let Some(first) = level.first().map(|chunk| chunk.id) else {
                return Ok(());
            };
            if below == 0 || !is_news {
                return Ok(());
            }
            let mut joined = Vec::new();
            for chunk in &level {
                joined.extend(reader.read(ChunkKind::List, &chunk.id)?);
            }
            level = decode_list(&joined).map_err(|source| ReadError::Format {
                chunk: first,
                source,
            })?;
        }
        Ok(())
    }

    /// Counts everything that was marked.
    pub(super) fn count(
        self,
        snapshots: &[Snapshot],
        into: &mut Statistics,
    ) -> Result<(), RepositoryError> {
        let index = self.index;
        let mut unique = vec![Amount::default(); snapshots.len()];
        let mut parts = vec![Amount::default(); self.parts.len()];
        index.each_record(&mut |number, record| {
            let Some(mark) = self.marks.get(number) else {
                return Ok(());
            };
            if mark.snapshot == 0 {
                into.unneeded.add(index, &record);
                return Ok(());
            }
            if mark.snapshot == TRASHED {
                into.trashed.add(index, &record);
                return Ok(());
            }
            into.needed.add(index, &record);
            if let Some(amount) = slot(&mut unique, mark.snapshot) {
                amount.add(index, &record);
            }
            match mark.part {
                Part::NONE => {}
                Part::SHARED => into.shared.add(index, &record),
                Part::ELSEWHERE => into.elsewhere.add(index, &record),
                Part(number) => {
                    if let Some(amount) = slot(&mut parts, number) {
                        amount.add(index, &record);
                    }
                }
            }
            Ok(())
        })?;
        for ((snapshot, added), unique) in snapshots.iter().zip(self.added).zip(unique) {
            let body = &snapshot.body;
            into.logical_bytes += body.bytes;
            into.snapshots.push(SnapshotStatistics {
                id: snapshot.id,
                taken_at: body.started_at,
                size: Size {
                    entries: body.entries,
                    bytes: body.bytes,
                },
                added,
                unique,
            });
        }
        for (name, Part(number)) in self.parts {
            into.parts.push(PartStatistics {
                name,
                newest: Size::default(),
                unique: slot(&mut parts, number).copied().unwrap_or_default(),
            });
        }
        Ok(())
    }
}

/// Gives what is counted under a number from 1 up.
fn slot(amounts: &mut [Amount], number: u32) -> Option<&mut Amount> {
    let at = usize::try_from(number).ok()?.checked_sub(1)?;
    amounts.get_mut(at)
}
