//! The index as a reader uses it that wants few chunks of many: of each segment the trailer, and
//! of its blocks those that are asked for. Whoever asks for many gets the whole segment.

use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use edge::{ByteRange, ObjectStore};
use sealing::{ChunkId, ObjectKind};

use super::stored::{Listed, Opened};
use super::{Index, Locate, PackInfo, Prefix, Record, prefix_of};
use crate::domain::Domain;
use crate::error::{ReadError, RepositoryError};
use crate::segment::{BlockPlace, SegmentError};

/// Segments that are shorter than this together are read whole: that is quicker than asking twice.
const WHOLE_BYTES: u64 = 1024 * 1024;
/// Opened blocks of records that are kept for each segment: 1 MiB.
const BLOCKS_KEPT: usize = 16;
/// Once so many blocks were fetched, and a part of all, the rest is fetched in one piece.
const BLOCKS_MANY: usize = 24;
const PART_MANY: usize = 8;

/// Finds chunks by reading parts of segments.
pub(crate) struct RangedIndex {
    domain: Domain,
    segments: Vec<Segment>,
}

struct Segment {
    opened: Opened,
    /// The ordinal here of its first pack.
    base: usize,
    packs: Vec<OnceLock<PackInfo>>,
    pack_blocks: Vec<BlockPlace>,
    record_blocks: Vec<BlockPlace>,
    recent: Mutex<VecDeque<(usize, Arc<Vec<Record>>)>>,
    fetched: AtomicUsize,
    /// All of it, once much of it was asked for.
    whole: OnceLock<Index>,
}

impl RangedIndex {
    /// Opens the segments of a domain, when together they are long. `None` when the index should
    /// be read whole, because it is short or damaged.
    pub(crate) fn open(domain: &Domain, listed: &Listed) -> Result<Option<Self>, RepositoryError> {
        Self::open_beyond(domain, listed, WHOLE_BYTES)
    }

    pub(crate) fn open_beyond(
        domain: &Domain,
        listed: &Listed,
        whole_bytes: u64,
    ) -> Result<Option<Self>, RepositoryError> {
        if listed.iter().map(|(_, size)| size).sum::<u64>() <= whole_bytes {
            return Ok(None);
        }
        let mut all = Vec::new();
        for (hash, _) in listed {
            match domain.open_segment(hash, false) {
                Ok(opened) => all.push(opened),
                // Reading the whole index knows what to do about it, or fails with the cause.
                Err(_) => return Ok(None),
            }
        }
        let replaced: Vec<_> = all
            .iter()
            .flat_map(|opened| opened.fences.replaced.iter().copied())
            .collect();
        all.retain(|opened| !replaced.contains(&opened.hash));
        let mut base = 0;
        let segments = all.into_iter().map(|opened| {
            let segment = Segment::new(opened, base);
            base += segment.packs.len();
            segment
        });
        Ok(Some(Self {
            segments: segments.collect(),
            domain: domain.clone(),
        }))
    }
}

impl Segment {
    fn new(opened: Opened, base: usize) -> Self {
        let (pack_blocks, record_blocks) = opened.fences.places();
        let packs = pack_blocks.iter().map(|block| block.rows).sum();
        Self {
            opened,
            base,
            packs: (0..packs).map(|_| OnceLock::new()).collect(),
            pack_blocks,
            record_blocks,
            recent: Mutex::default(),
            fetched: AtomicUsize::new(0),
            whole: OnceLock::new(),
        }
    }

    /// Finds a record, and makes sure that its pack is known. Its ordinal counts within all.
    fn find(&self, domain: &Domain, id: &ChunkId) -> Result<Option<Record>, ReadError> {
        let prefix = prefix_of(id);
        if let Some(whole) = self.whole(domain)? {
            return Ok(whole.find(id).and_then(|record| {
                let local = usize::try_from(record.pack).ok()?;
                self.in_all(record, local)
            }));
        }
        let Some(block) = self.block_of(&prefix) else {
            return Ok(None);
        };
        let records = self.records(domain, block)?;
        let Ok(at) = records.binary_search_by(|record| record.prefix.cmp(&prefix)) else {
            return Ok(None);
        };
        let Some(record) = records.get(at).copied() else {
            return Ok(None);
        };
        let local = usize::try_from(record.pack).unwrap_or(usize::MAX);
        self.ensure_pack(domain, local)?;
        Ok(self.in_all(record, local))
    }

    fn in_all(&self, record: Record, local: usize) -> Option<Record> {
        let pack = u32::try_from(self.base + local).ok()?;
        Some(Record { pack, ..record })
    }

    fn block_of(&self, prefix: &Prefix) -> Option<usize> {
        let after = self
            .record_blocks
            .partition_point(|block| block.first <= *prefix);
        after.checked_sub(1)
    }

    fn records(&self, domain: &Domain, number: usize) -> Result<Arc<Vec<Record>>, ReadError> {
        let recent = || self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = recent().iter().find(|(kept, _)| *kept == number).cloned();
        if let Some((_, records)) = kept {
            return Ok(records);
        }
        let Some(block) = self.record_blocks.get(number) else {
            return Ok(Arc::default());
        };
        self.fetched.fetch_add(1, Ordering::Relaxed);
        let records = self.fetch(domain, block, &|sealed| {
            block.open_records(&self.opened.cipher, sealed)
        })?;
        let records = Arc::new(records);
        let mut recent = recent();
        recent.truncate(BLOCKS_KEPT - 1);
        recent.push_front((number, Arc::clone(&records)));
        Ok(records)
    }

    fn ensure_pack(&self, domain: &Domain, local: usize) -> Result<(), ReadError> {
        if self
            .packs
            .get(local)
            .is_none_or(|pack| pack.get().is_some())
        {
            return Ok(());
        }
        let mut from = 0;
        for block in &self.pack_blocks {
            if (from..from + block.rows).contains(&local) {
                let packs = self.fetch(domain, block, &|sealed| {
                    block.open_packs(&self.opened.cipher, sealed)
                })?;
                self.keep(from, packs);
            }
            from += block.rows;
        }
        Ok(())
    }

    fn keep(&self, from: usize, packs: Vec<PackInfo>) {
        let slots = self.packs.get(from..).unwrap_or_default();
        for (slot, pack) in slots.iter().zip(packs) {
            slot.get_or_init(|| pack);
        }
    }

    /// Fetches and opens one block, from the cache if that holds it undamaged.
    fn fetch<T>(
        &self,
        domain: &Domain,
        block: &BlockPlace,
        open: &dyn Fn(Vec<u8>) -> Result<Vec<T>, SegmentError>,
    ) -> Result<Vec<T>, ReadError> {
        let name = domain.name(ObjectKind::IndexSegment, &self.opened.hash);
        let range = ByteRange::At {
            offset: block.offset,
            length: block.sealed,
        };
        let from = |store: &Arc<dyn ObjectStore>| {
            open(store.get_range(&name, range)?).map_err(|error| ReadError::Segment {
                segment: name.clone(),
                source: Box::new(error),
            })
        };
        let cached = domain.cache().and_then(|cache| from(cache).ok());
        cached.map_or_else(|| from(domain.store()), Ok)
    }

    /// Gives the whole segment once enough of it was asked for.
    fn whole(&self, domain: &Domain) -> Result<Option<&Index>, ReadError> {
        if self.whole.get().is_some() {
            return Ok(self.whole.get());
        }
        let many = BLOCKS_MANY.max(self.record_blocks.len() / PART_MANY);
        if self.fetched.load(Ordering::Relaxed) < many {
            return Ok(None);
        }
        let mut index = Index::new(domain.scratch().cloned());
        let wrong = |source| ReadError::Segment {
            segment: domain.name(ObjectKind::IndexSegment, &self.opened.hash),
            source,
        };
        let read = domain
            .read_segments(&[self.opened.hash], &mut index)
            .and_then(|()| index.sort());
        read.map_err(|error| match error {
            RepositoryError::Store(error) => ReadError::Store(error),
            error => wrong(Box::new(error)),
        })?;
        // Else its ordinals would count otherwise than those that were given out.
        if index.packs().len() != self.packs.len() {
            return Err(wrong("it names a pack twice".into()));
        }
        self.keep(0, index.packs().to_vec());
        Ok(Some(self.whole.get_or_init(|| index)))
    }
}

impl Locate for RangedIndex {
    fn find(&self, id: &ChunkId) -> Result<Option<Record>, ReadError> {
        for segment in &self.segments {
            if let Some(record) = segment.find(&self.domain, id)? {
                return Ok(Some(record));
            }
        }
        Ok(None)
    }

    fn pack(&self, ordinal: u32) -> Option<&PackInfo> {
        let ordinal = usize::try_from(ordinal).ok()?;
        let after = self
            .segments
            .partition_point(|segment| segment.base <= ordinal);
        let segment = self.segments.get(after.checked_sub(1)?)?;
        segment.packs.get(ordinal - segment.base)?.get()
    }
}

impl fmt::Debug for RangedIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RangedIndex({} segments)", self.segments.len())
    }
}

#[cfg(test)]
mod tests {
    use sealing::ScheduleKey;
    use testkit::{CountingEntropy, MemoryStore, RecordingStore};

    use super::super::tests::{id, pack, prefix};
    use super::*;

    const COUNT: u32 = 100_000;

    /// A domain whose index takes several segments, and where to count what is asked of it.
    fn large_domain() -> (Domain, Arc<RecordingStore>) {
        let store = Arc::new(RecordingStore::new(Arc::new(MemoryStore::default())));
        let key = ScheduleKey::from_bytes([1; 32]);
        let entropy = CountingEntropy::default();
        let domain = Domain::create(store.clone(), &key, &entropy, "").unwrap();
        let mut index = Index::default();
        let records =
            (0..COUNT).map(|number| Record::new(prefix(number), number % 200, 0, (number, 1)));
        index.add((0..200).map(pack).collect(), records).unwrap();
        index.sort().unwrap();
        let written = domain.write_divided(&index, &[], &entropy, 40_000).unwrap();
        let counts: Vec<_> = written.segments.iter().map(|s| s.records).collect();
        assert_eq!(counts, [40_000, 40_000, 20_000]);
        store.take_requests();
        (domain, store)
    }

    fn open(domain: &Domain, whole_bytes: u64) -> Option<RangedIndex> {
        let listed = domain.list(ObjectKind::IndexSegment).unwrap();
        RangedIndex::open_beyond(domain, &listed, whole_bytes).unwrap()
    }

    #[test]
    fn few_chunks_are_found_with_few_requests() {
        let (domain, store) = large_domain();
        let index = open(&domain, 0).unwrap();
        let opened = store.take_requests();
        assert_eq!((opened.lists, opened.ranges, opened.gets), (1, 3, 0));
        assert!(index.find(&id(7)).unwrap().is_some());
        assert!(index.find(&id(COUNT)).unwrap().is_none());
        // A block of records of each segment that may hold it, and a block of packs.
        let asked = store.take_requests();
        assert!(asked.ranges <= 7, "{asked:?}");
        assert!(asked.gets == 0 && asked.bytes_read < 500_000, "{asked:?}");
    }

    #[test]
    fn parts_of_segments_answer_as_all_of_them() {
        let (domain, store) = large_domain();
        let whole = domain.load_index().unwrap();
        store.take_requests();
        let index = open(&domain, 0).unwrap();
        for number in 0..COUNT + 1000 {
            let found = index.find(&id(number)).unwrap();
            let expected = whole.find(&id(number));
            let place = |record: Record| (record.frame(), record.offset(), record.length());
            assert_eq!(found.map(place), expected.map(place));
            let hash = found.map(|record| Locate::pack(&index, record.pack).unwrap().hash);
            let expected = expected.map(|record| whole.pack(record.pack).unwrap().hash);
            assert_eq!(hash, expected);
        }
        let asked = store.take_requests();
        // The third is so short that all its blocks are kept.
        assert_eq!(asked.gets, 2, "each long segment once");
        assert!(asked.ranges < 150, "{asked:?}");
    }

    #[test]
    fn a_short_index_and_a_damaged_one_are_read_whole() {
        let (domain, _) = large_domain();
        assert!(open(&domain, WHOLE_BYTES).is_some());
        assert!(open(&domain, 100_000_000).is_none());
        let (hash, _) = domain.list(ObjectKind::IndexSegment).unwrap()[0];
        let name = domain.name(ObjectKind::IndexSegment, &hash);
        domain.store().put(&name, b"no segment").unwrap();
        assert!(open(&domain, 0).is_none());
    }
}
