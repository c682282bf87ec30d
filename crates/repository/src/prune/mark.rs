//! What snapshots need: one bit for each chunk of the index, set by walking every page once.

use edge::{Monitor, StoreFault};
use sealing::{ChunkId, ChunkKind};

use crate::condemned::PackName;
use crate::content::{Bytes, ChunkRef, decode_list};
use crate::domain::Domain;
use crate::error::{ReadError, RepositoryError};
use crate::index::{Index, PackInfo};
use crate::reader::ChunkReader;
use crate::snapshot::Snapshot;
use crate::tree::TreeWalk;

/// One bit for each record of an index.
#[derive(Debug, Clone, Default)]
pub(super) struct Bits(Vec<u64>);

impl Bits {
    pub(crate) fn new(length: usize) -> Self {
        Self(vec![0; length.div_ceil(64)])
    }

    pub(super) fn get(&self, at: usize) -> bool {
        self.0
            .get(at / 64)
            .is_some_and(|word| word >> (at % 64) & 1 == 1)
    }

    /// Sets a bit; gives what it was.
    pub(super) fn set(&mut self, at: usize, is_set: bool) -> bool {
        let Some(word) = self.0.get_mut(at / 64) else {
            return false;
        };
        let was = *word >> (at % 64) & 1 == 1;
        *word = *word & !(1 << (at % 64)) | u64::from(is_set) << (at % 64);
        was
    }

    /// Follows a record to its new, lower number.
    pub(super) fn follow(&mut self, from: usize, to: usize) {
        let is_set = self.get(from);
        self.set(to, is_set);
    }
}

/// Marks what snapshots reach, one snapshot after another.
pub(crate) struct Marker<'a> {
    index: &'a Index,
    bits: Bits,
    reader: ChunkReader<'a>,
}

impl<'a> Marker<'a> {
    pub(crate) fn new(domain: &'a Domain, index: &'a Index) -> Self {
        Self {
            index,
            bits: Bits::new(index.len()),
            reader: ChunkReader::new(domain, index),
        }
    }

    pub(super) fn into_bits(self) -> Bits {
        self.bits
    }

    pub(super) const fn bits(&self) -> &Bits {
        &self.bits
    }

    /// Marks all that a snapshot reaches. A page that is marked was walked before.
    pub(crate) fn snapshot(
        &mut self,
        snapshot: &Snapshot,
        monitor: &dyn Monitor,
    ) -> Result<(), RepositoryError> {
        let mut walk = TreeWalk::new(snapshot.root, Vec::new());
        let (index, bits) = (self.index, &mut self.bits);
        loop {
            if monitor.is_cancelled() {
                return Err(RepositoryError::Cancelled);
            }
            let mut lost = None;
            let node = walk.next_visiting(&mut self.reader, &mut |page| {
                mark(index, bits, page).unwrap_or_else(|error| {
                    lost = Some(error);
                    false
                })
            });
            if let Some(error) = lost {
                return Err(error.into());
            }
            let Some(node) = node.map_err(|lost| *lost.error)? else {
                return Ok(());
            };
            if let Some(content) = &node.content
                && let Bytes::Chunks { depth, list } = &content.bytes
            {
                mark_list(index, bits, &mut self.reader, (*depth, list))?;
            }
        }
    }
}

/// True when a snapshot can be read whole from packs that are fit for it.
pub(crate) fn holds_all(
    domain: &Domain,
    index: &Index,
    snapshot: &Snapshot,
    is_fit: &dyn Fn(&PackName) -> bool,
) -> Result<bool, RepositoryError> {
    let mut marker = Marker::new(domain, index);
    match marker.snapshot(snapshot, &edge::Silent) {
        Ok(()) => {}
        Err(RepositoryError::Read(ReadError::Store(error)))
            if error.fault != StoreFault::NotFound =>
        {
            return Err(error.into());
        }
        Err(RepositoryError::Read(_)) => return Ok(false),
        Err(error) => return Err(error),
    }
    let usage = Usage::of(index, marker.bits())?;
    let mut packs = (0_usize..).zip(index.packs());
    Ok(packs.all(|(ordinal, pack)| usage.chunks(ordinal) == 0 || is_fit(&(pack.hash, pack.kind))))
}

/// Marks a chunk; true when it was not marked before.
fn mark(index: &Index, bits: &mut Bits, id: &ChunkId) -> Result<bool, ReadError> {
    let position = index
        .position(id)
        .ok_or(ReadError::Unknown { chunk: *id })?;
    Ok(!bits.set(position, true))
}

/// Marks a list and, level by level, the lists that it names.
fn mark_list(
    index: &Index,
    bits: &mut Bits,
    reader: &mut ChunkReader<'_>,
    (depth, list): (u8, &[ChunkRef]),
) -> Result<(), ReadError> {
    let mut level = list.to_vec();
    for below in (0..=depth).rev() {
        let mut bytes = Vec::new();
        for chunk in &level {
            mark(index, bits, &chunk.id)?;
            if below > 0 {
                bytes.extend(reader.read(ChunkKind::List, &chunk.id)?);
            }
        }
        let Some(first) = level.first().map(|chunk| chunk.id) else {
            return Ok(());
        };
        if below > 0 {
            level = decode_list(&bytes).map_err(|source| ReadError::Format {
                chunk: first,
                source,
            })?;
        }
    }
    Ok(())
}

/// How much of each pack is needed.
#[derive(Debug)]
pub(super) struct Usage {
    /// For each pack: needed chunks, and the stored bytes of what nobody needs.
    packs: Vec<(u32, u64)>,
}

impl Usage {
    pub(super) fn of(index: &Index, bits: &Bits) -> Result<Self, RepositoryError> {
        let mut first = Vec::with_capacity(index.packs().len());
        let mut frames = 0;
        for pack in index.packs() {
            first.push(frames);
            frames += pack.frames.len();
        }
        let mut plain = vec![0_u32; frames];
        let mut packs = vec![(0_u32, 0_u64); index.packs().len()];
        index.each_record(&mut |at, record| {
            if !bits.get(at) {
                return Ok(());
            }
            let ordinal = usize::try_from(record.pack).unwrap_or(usize::MAX);
            if let Some((chunks, _)) = packs.get_mut(ordinal) {
                *chunks += 1;
            }
            let frame = first
                .get(ordinal)
                .map(|at| at + usize::from(record.frame()));
            if let Some(live) = frame.and_then(|frame| plain.get_mut(frame)) {
                *live += record.length();
            }
            Ok(())
        })?;
        for ((pack, from), (chunks, waste)) in index.packs().iter().zip(&first).zip(&mut packs) {
            *waste = if *chunks == 0 {
                pack.size
            } else {
                waste_of(pack, plain.get(*from..).unwrap_or_default())
            };
        }
        Ok(Self { packs })
    }

    /// Gives how many needed chunks a pack has.
    pub(super) fn chunks(&self, ordinal: usize) -> u32 {
        self.packs.get(ordinal).map_or(0, |(chunks, _)| *chunks)
    }

    /// Gives the stored bytes of a pack that nobody needs.
    pub(super) fn waste(&self, ordinal: usize) -> u64 {
        self.packs.get(ordinal).map_or(0, |(_, waste)| *waste)
    }
}

/// Of a frame that is partly needed, the rest counts by its share of the plaintext.
fn waste_of(pack: &PackInfo, live: &[u32]) -> u64 {
    let frames = pack.frames.iter().zip(live);
    let dead = frames.map(|(frame, live)| {
        let dead = u64::from(frame.plain.saturating_sub(*live));
        (u64::from(frame.stored) * dead).checked_div(frame.plain.into())
    });
    dead.map(Option::unwrap_or_default).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_keep_apart_and_follow() {
        let mut bits = Bits::new(130);
        assert!(!bits.set(64, true));
        assert!(bits.set(64, true));
        assert!(bits.get(64) && !bits.get(63) && !bits.get(65));
        bits.follow(64, 3);
        bits.follow(65, 64);
        assert!(bits.get(3) && !bits.get(64));
        assert!(!bits.get(1000), "what is not there is not needed");
    }
}
