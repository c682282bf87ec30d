//! The index in memory: which chunk is where. 32 bytes for each chunk, sorted.

use std::collections::{BTreeMap, BTreeSet};

use sealing::{ChunkId, ObjectKind};

use crate::error::RepositoryError;
use crate::layout::ObjectHash;
use crate::pack::{Codec, FrameEntry};

/// Bytes of a chunk id that a record keeps.
pub(crate) const PREFIX_BYTES: usize = 20;

/// The first bytes of a chunk id.
pub(crate) type Prefix = [u8; PREFIX_BYTES];

/// Ids are evenly spread, so two bytes divide any index into small parts.
const FENCE_COUNT: usize = 1 << 16;

fn fence_of(prefix: &Prefix) -> usize {
    let [high, low, ..] = *prefix;
    usize::from(high) << 8 | usize::from(low)
}

pub(crate) fn prefix_of(id: &ChunkId) -> Prefix {
    id.as_bytes().first_chunk().copied().unwrap_or_default()
}

/// The lengths of one frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FrameShape {
    pub(crate) stored: u32,
    pub(crate) plain: u32,
    pub(crate) codec: Codec,
}

/// What the index knows of a pack.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PackInfo {
    pub(crate) hash: ObjectHash,
    pub(crate) kind: ObjectKind,
    pub(crate) epoch: u32,
    pub(crate) salt: [u8; 32],
    pub(crate) size: u64,
    pub(crate) frames: Vec<FrameShape>,
}

impl PackInfo {
    /// Gives the stored bytes before a frame, header included.
    pub(crate) fn frame_offset(&self, frame: u16) -> u64 {
        let before = self.frames.iter().take(usize::from(frame));
        sealing::HEADER_BYTES as u64 + before.map(|shape| u64::from(shape.stored)).sum::<u64>()
    }
}

/// Where one chunk is: pack ordinal, and frame, offset and length in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Record {
    pub(crate) prefix: Prefix,
    pub(crate) pack: u32,
    place: u64,
}

impl Record {
    /// Offset and length are below 2^24: a frame has at most 8 MiB.
    pub(crate) fn new(prefix: Prefix, pack: u32, frame: u16, range: (u32, u32)) -> Self {
        let (offset, length) = range;
        let place = u64::from(frame) << 48 | u64::from(offset) << 24 | u64::from(length);
        Self {
            prefix,
            pack,
            place,
        }
    }

    pub(crate) const fn frame(self) -> u16 {
        (self.place >> 48) as u16
    }

    pub(crate) const fn offset(self) -> u32 {
        (self.place >> 24 & 0xff_ffff) as u32
    }

    pub(crate) const fn length(self) -> u32 {
        (self.place & 0xff_ffff) as u32
    }
}

/// Gives the records of a pack with ordinal `pack`.
pub(crate) fn records_of(pack: u32, frames: &[FrameEntry]) -> Vec<Record> {
    let mut records = Vec::new();
    for (number, frame) in (0_u16..).zip(frames) {
        let mut offset = 0;
        for chunk in &frame.chunks {
            let range = (offset, chunk.length);
            records.push(Record::new(prefix_of(&chunk.id), pack, number, range));
            offset += chunk.length;
        }
    }
    records
}

/// Which chunk is where in one repository.
#[derive(Debug, Default)]
pub(crate) struct Index {
    packs: Vec<PackInfo>,
    ordinals: BTreeMap<ObjectHash, u32>,
    /// Sorted and without repetition once [`Index::sort`] was called.
    records: Vec<Record>,
    /// Where the records begin whose ids begin with two given bytes, and where the last end.
    fences: Vec<u32>,
    /// The segments that this index was read from.
    pub(crate) segments: Vec<ObjectHash>,
    /// The first segment that could not be used: what only it named is missing here.
    pub(crate) damaged: Option<RepositoryError>,
}

impl Index {
    /// Adds packs and their records; the ordinals in the records count within `packs`.
    pub(crate) fn add(&mut self, packs: Vec<PackInfo>, records: Vec<Record>) {
        let mut translated = Vec::with_capacity(packs.len());
        for pack in packs {
            let next = u32::try_from(self.packs.len()).unwrap_or(u32::MAX);
            let ordinal = *self.ordinals.entry(pack.hash).or_insert(next);
            if ordinal == next {
                self.packs.push(pack);
            }
            translated.push(ordinal);
        }
        self.records
            .extend(records.into_iter().filter_map(|record| {
                let pack = *translated.get(usize::try_from(record.pack).ok()?)?;
                Some(Record { pack, ..record })
            }));
    }

    /// Makes added records findable. Of several records of a chunk the one of the lowest pack stays.
    pub(crate) fn sort(&mut self) {
        self.records.sort_unstable();
        self.records.dedup_by_key(|record| record.prefix);
        self.records.shrink_to_fit();
        self.find_fences();
    }

    fn find_fences(&mut self) {
        self.fences.clear();
        self.fences.reserve_exact(FENCE_COUNT + 1);
        let mut at = 0;
        for fence in 0..=FENCE_COUNT {
            let rest = self.records.get(at..).unwrap_or_default();
            at += rest
                .iter()
                .take_while(|record| fence_of(&record.prefix) < fence)
                .count();
            self.fences.push(u32::try_from(at).unwrap_or(u32::MAX));
        }
    }

    pub(crate) fn find(&self, id: &ChunkId) -> Option<Record> {
        self.position(id)
            .and_then(|at| self.records.get(at))
            .copied()
    }

    /// Gives the number of a chunk's record: a dense number for bitmaps.
    pub(crate) fn position(&self, id: &ChunkId) -> Option<usize> {
        let prefix = prefix_of(id);
        let fence = fence_of(&prefix);
        let from = usize::try_from(*self.fences.get(fence)?).ok()?;
        let to = usize::try_from(*self.fences.get(fence + 1)?).ok()?;
        let found = self
            .records
            .get(from..to)?
            .binary_search_by(|record| record.prefix.cmp(&prefix));
        found.ok().map(|at| from + at)
    }

    pub(crate) fn contains(&self, id: &ChunkId) -> bool {
        self.position(id).is_some()
    }

    pub(crate) fn pack(&self, ordinal: u32) -> Option<&PackInfo> {
        self.packs.get(usize::try_from(ordinal).ok()?)
    }

    pub(crate) fn packs(&self) -> &[PackInfo] {
        &self.packs
    }

    pub(crate) fn records(&self) -> &[Record] {
        &self.records
    }

    pub(crate) fn has_pack(&self, hash: &ObjectHash) -> bool {
        self.ordinals.contains_key(hash)
    }

    /// Takes packs out in place; `moved` hears of each record that stays its number before and now.
    pub(crate) fn remove_packs(
        &mut self,
        gone: &[(ObjectHash, ObjectKind)],
        moved: &mut dyn FnMut(usize, usize),
    ) {
        let gone: BTreeSet<_> = gone.iter().map(|(hash, _)| *hash).collect();
        let mut translated = Vec::with_capacity(self.packs.len());
        let mut kept = 0_u32;
        for pack in &self.packs {
            let stays = !gone.contains(&pack.hash);
            translated.push(stays.then_some(kept));
            kept += u32::from(stays);
        }
        self.packs.retain(|pack| !gone.contains(&pack.hash));
        self.ordinals = (0_u32..)
            .zip(&self.packs)
            .map(|(ordinal, pack)| (pack.hash, ordinal))
            .collect();
        let (mut from, mut to) = (0, 0);
        self.records.retain_mut(|record| {
            let ordinal = usize::try_from(record.pack)
                .ok()
                .and_then(|pack| translated.get(pack).copied().flatten());
            if let Some(ordinal) = ordinal {
                record.pack = ordinal;
                moved(from, to);
                to += 1;
            }
            from += 1;
            ordinal.is_some()
        });
        self.find_fences();
    }

    /// Gives packs and records without some packs, for a segment that replaces all.
    pub(crate) fn without(&self, gone: &dyn Fn(&PackInfo) -> bool) -> (Vec<PackInfo>, Vec<Record>) {
        let mut kept = Vec::new();
        let mut translated = Vec::with_capacity(self.packs.len());
        for pack in &self.packs {
            if gone(pack) {
                translated.push(None);
            } else {
                translated.push(u32::try_from(kept.len()).ok());
                kept.push(pack.clone());
            }
        }
        let records = self.records.iter().filter_map(|record| {
            let pack = (*translated.get(usize::try_from(record.pack).ok()?)?)?;
            Some(Record { pack, ..*record })
        });
        (kept, records.collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pack(byte: u8) -> PackInfo {
        PackInfo {
            hash: ObjectHash::from_bytes([byte; 32]),
            kind: ObjectKind::DataPack,
            epoch: 0,
            salt: [0; 32],
            size: 1,
            frames: Vec::new(),
        }
    }

    #[test]
    fn a_record_takes_32_bytes_and_gives_back_its_fields() {
        assert_eq!(size_of::<Record>(), 32);
        let record = Record::new([1; 20], 7, 65_534, (0x80_0000, 0x7f_ffff));
        assert_eq!(
            (record.frame(), record.offset(), record.length()),
            (65_534, 0x80_0000, 0x7f_ffff)
        );
    }

    #[test]
    fn chunks_are_found_across_segments_and_without_gone_packs() {
        let id = |byte: u8| ChunkId::from_bytes([byte; 32]);
        let record = |byte: u8, pack| Record::new([byte; 20], pack, 0, (0, 1));
        let mut index = Index::default();
        index.add(vec![pack(1), pack(2)], vec![record(10, 0), record(11, 1)]);
        index.add(vec![pack(3), pack(2)], vec![record(10, 0), record(12, 1)]);
        index.sort();
        assert_eq!(index.find(&id(10)).unwrap().pack, 0);
        assert_eq!(index.find(&id(12)).unwrap().pack, 1);
        assert!(!index.contains(&id(13)));
        let (packs, records) = index.without(&|p| p.hash == pack(1).hash);
        assert_eq!(packs, [pack(2), pack(3)]);
        assert_eq!(records, [record(11, 0), record(12, 0)]);
        let mut moves = Vec::new();
        let gone = [(pack(1).hash, ObjectKind::DataPack)];
        index.remove_packs(&gone, &mut |from, to| moves.push((from, to)));
        assert_eq!(index.packs(), packs);
        assert_eq!(index.records(), records);
        assert_eq!(moves, [(1, 0), (2, 1)]);
        assert!(index.contains(&id(12)) && !index.contains(&id(10)));
        assert!(!index.has_pack(&pack(1).hash));
    }
}
