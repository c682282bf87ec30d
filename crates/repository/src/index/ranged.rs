//! The index as a reader uses it that wants few chunks of many: what is short of it whole, of other
//! segments the trailer, or what a directory says of them, and of their blocks those that are
//! asked for. Whoever asks for many gets the whole segment.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use edge::{ByteRange, ObjectStore};
use sealing::{ChunkId, ObjectCipher, ObjectKind};

use super::stored::{Listed, Opened};
use super::{Doomed, Index, Locate, PackInfo, Record, prefix_of};
use crate::domain::Domain;
use crate::error::{ReadError, RepositoryError, is_loss};
use crate::layout::ObjectHash;
use crate::segment::{BlockPlace, Directory, SegmentError, Sibling, may_begin_before};

/// Segments that are shorter than this together are read whole: that is quicker than asking twice.
const WHOLE_BYTES: u64 = 1024 * 1024;
/// Of others those are read whole that together are no longer than this, and each a small part of
/// all.
const SMALL_BYTES: u64 = 2 * 1024 * 1024;
const SMALL_PART: u64 = 16;
/// Segments that are opened at a time.
const OPENED_AT_ONCE: usize = 8;
/// Opened blocks of records that are kept for each segment: 1 MiB.
const BLOCKS_KEPT: usize = 16;
/// Once so many blocks were fetched, and a part of all, the rest is fetched in one piece.
const BLOCKS_MANY: usize = 24;
const PART_MANY: usize = 8;

/// Finds chunks by reading parts of segments.
pub(crate) struct RangedIndex {
    domain: Domain,
    /// Those that are here whole come first, then members of families.
    segments: Vec<Segment>,
    /// What directories name.
    families: Vec<Family>,
    /// The number of packs of all of them.
    packs: usize,
    /// What came in their place when a part of one could not be read, if anything did.
    instead: OnceLock<Option<Index>>,
}

/// Segments that divide the ids among them.
struct Family {
    /// The number of the segment that names their packs, if one does.
    lender: Option<usize>,
    /// Their numbers, in the order of their ids.
    members: Range<usize>,
}

struct Segment {
    hash: ObjectHash,
    cipher: ObjectCipher,
    /// All of it, if it was read in one piece.
    bytes: Option<Vec<u8>>,
    /// The ordinal here of its first pack.
    base: usize,
    /// None when another one names them.
    packs: Vec<OnceLock<PackInfo>>,
    pack_count: usize,
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
        let total = listed.iter().map(|(_, size)| size).sum::<u64>();
        if total <= whole_bytes {
            return Ok(None);
        }
        let mut left: BTreeMap<_, _> = listed.iter().copied().collect();
        let small = take_small(&mut left, total);
        // Reading the whole index knows what to do about damage, or fails with the cause.
        let Some(mut opened) = open_all(domain, &small, true) else {
            return Ok(None);
        };
        let replaced = |opened: &[Opened]| -> BTreeSet<_> {
            let replaced = opened.iter().flat_map(|one| &one.fences.replaced);
            replaced.copied().collect()
        };
        let gone = replaced(&opened);
        left.retain(|hash, _| !gone.contains(hash));
        opened.retain(|one| !gone.contains(&one.hash));
        let directories: Vec<_> = opened
            .iter_mut()
            .map(|one| one.fences.directory.take())
            .collect();
        let named = directories.iter().flatten().flat_map(|one| &one.siblings);
        let named: BTreeSet<_> = named.map(|one| one.hash).collect();
        let there: BTreeSet<_> = left.keys().copied().collect();
        let others: Vec<_> = there.difference(&named).copied().collect();
        let Some(others) = open_all(domain, &others, false) else {
            return Ok(None);
        };
        let gone = replaced(&others);
        if opened.iter().any(|one| gone.contains(&one.hash)) {
            return Ok(None);
        }
        let is_there = |one: &Sibling| there.contains(&one.hash) && !gone.contains(&one.hash);
        let mut segments: Vec<_> = opened.into_iter().map(Segment::of).collect();
        let mut families = Vec::new();
        for (number, directory) in directories.into_iter().enumerate() {
            let directory = directory.unwrap_or_default();
            let first = segments.len();
            for sibling in directory.siblings.iter().filter(|one| is_there(one)) {
                let Some(member) = Segment::named(domain, &directory, sibling) else {
                    return Ok(None);
                };
                segments.push(member);
            }
            families.push(Family {
                lender: (directory.lent > 0).then_some(number),
                members: first..segments.len(),
            });
        }
        let others = others.into_iter().filter(|one| !gone.contains(&one.hash));
        segments.extend(others.map(Segment::of));
        let mut packs = 0;
        for segment in &mut segments {
            segment.base = packs;
            packs += segment.packs.len();
        }
        Ok(Some(Self {
            segments,
            families,
            packs,
            domain: domain.clone(),
            instead: OnceLock::new(),
        }))
    }

    fn find_in_parts(&self, id: &ChunkId) -> Result<Option<Record>, ReadError> {
        let all = |range: Range<usize>| self.segments.get(range).unwrap_or_default();
        let members = self.families.iter().map(|family| family.members.end);
        let here = all(0..self.families.len());
        let others = members.max().unwrap_or(0);
        for segment in here {
            if let Some(record) = segment.find(&self.domain, id)? {
                return segment.in_all(&self.domain, record).map(Some);
            }
        }
        for family in &self.families {
            let members = all(family.members.clone());
            if let Some((member, record)) = find_in_family(members, &self.domain, id)? {
                let lender = family.lender.and_then(|number| self.segments.get(number));
                let owner = lender.unwrap_or(member);
                return owner.in_all(&self.domain, record).map(Some);
            }
        }
        for segment in all(others..self.segments.len()) {
            if let Some(record) = segment.find(&self.domain, id)? {
                return segment.in_all(&self.domain, record).map(Some);
            }
        }
        Ok(None)
    }

    /// Finds a record in the whole index, which is read when a part of it cannot be: a segment may
    /// have been replaced, or be damaged.
    fn find_instead(
        &self,
        id: &ChunkId,
        error: Option<ReadError>,
    ) -> Result<Option<Record>, ReadError> {
        let instead = self.instead.get_or_init(|| {
            self.domain
                .load_index_asking_packs(&Doomed::new(), None)
                .ok()
        });
        let found = instead.as_ref().and_then(|index| index.find(id));
        match (found, error) {
            (None, Some(error)) => Err(error),
            (None, None) => Ok(None),
            (Some(record), _) => {
                let local = usize::try_from(record.pack).unwrap_or(usize::MAX);
                Ok(shifted(record, self.packs, local))
            }
        }
    }
}

/// Takes out of a listing what is short enough to be read whole.
fn take_small(left: &mut BTreeMap<ObjectHash, u64>, total: u64) -> Vec<ObjectHash> {
    let mut by_size: Vec<_> = left.iter().map(|(hash, size)| (*size, *hash)).collect();
    by_size.sort_unstable();
    let mut sum = 0;
    let small = by_size.into_iter().take_while(|(size, _)| {
        sum += size;
        sum <= SMALL_BYTES && *size <= total / SMALL_PART
    });
    let small: Vec<_> = small.map(|(_, hash)| hash).collect();
    left.retain(|hash, _| !small.contains(hash));
    small
}

/// Opens segments, some at a time; `None` when one does not open.
fn open_all(domain: &Domain, hashes: &[ObjectHash], in_one_piece: bool) -> Option<Vec<Opened>> {
    let mut all = Vec::new();
    for some in hashes.chunks(OPENED_AT_ONCE) {
        let opened: Option<Vec<_>> = std::thread::scope(|scope| {
            let open = |hash| scope.spawn(move || domain.open_segment(hash, in_one_piece));
            let threads: Vec<_> = some.iter().map(open).collect();
            let opened = threads.into_iter().map(|thread| thread.join().ok()?.ok());
            opened.collect()
        });
        all.extend(opened?);
    }
    Some(all)
}

fn shifted(record: Record, base: usize, local: usize) -> Option<Record> {
    let pack = u32::try_from(base.checked_add(local)?).ok()?;
    Some(record.in_pack(pack))
}

/// Finds a record in one of those that divide the ids. Its ordinal counts within that.
fn find_in_family<'s>(
    members: &'s [Segment],
    domain: &Domain,
    id: &ChunkId,
) -> Result<Option<(&'s Segment, Record)>, ReadError> {
    let prefix = prefix_of(id);
    let begins = |member: &Segment| {
        let first = member.record_blocks.first();
        first.is_some_and(|first| first.first <= prefix)
    };
    let after = members.partition_point(begins);
    for member in members.iter().take(after).rev() {
        if let Some(record) = member.find(domain, id)? {
            return Ok(Some((member, record)));
        }
        let first = member.record_blocks.first();
        if !first.is_some_and(|first| may_begin_before(first, &prefix)) {
            break;
        }
    }
    Ok(None)
}

impl Segment {
    fn of(opened: Opened) -> Self {
        let blocks = opened.fences.places();
        Self::new(opened.hash, opened.cipher, blocks, opened.whole)
    }

    fn new(
        hash: ObjectHash,
        cipher: ObjectCipher,
        (pack_blocks, record_blocks): (Vec<BlockPlace>, Vec<BlockPlace>),
        bytes: Option<Vec<u8>>,
    ) -> Self {
        let pack_count = pack_blocks.iter().map(|block| block.rows).sum();
        Self {
            hash,
            cipher,
            bytes,
            base: 0,
            packs: (0..pack_count).map(|_| OnceLock::new()).collect(),
            pack_count,
            pack_blocks,
            record_blocks,
            recent: Mutex::default(),
            fetched: AtomicUsize::new(0),
            whole: OnceLock::new(),
        }
    }

    /// Makes a segment of what a directory says.
    fn named(domain: &Domain, directory: &Directory, sibling: &Sibling) -> Option<Self> {
        let kind = ObjectKind::IndexSegment;
        let cipher = ObjectCipher::recall(domain.keyring(), kind, 0, &sibling.salt).ok()?;
        let blocks = directory.places_of(sibling);
        let mut segment = Self::new(sibling.hash, cipher, blocks, None);
        if directory.lent > 0 {
            segment.packs.clear();
        }
        Some(segment)
    }

    /// Finds a record. Its ordinal counts within this segment.
    fn find(&self, domain: &Domain, id: &ChunkId) -> Result<Option<Record>, ReadError> {
        if let Some(whole) = self.whole(domain)? {
            return Ok(whole.find(id));
        }
        let prefix = prefix_of(id);
        let after = self
            .record_blocks
            .partition_point(|block| block.first <= prefix);
        for number in (0..after).rev() {
            let records = self.records(domain, number)?;
            if let Ok(at) = records.binary_search_by(|record| record.prefix.cmp(&prefix)) {
                return Ok(records.get(at).copied());
            }
            let block = self.record_blocks.get(number);
            if !block.is_some_and(|block| may_begin_before(block, &prefix)) {
                break;
            }
        }
        Ok(None)
    }

    /// Makes sure that the pack of a record is known, and gives it the ordinal that it has in all.
    fn in_all(&self, domain: &Domain, record: Record) -> Result<Record, ReadError> {
        let local = usize::try_from(record.pack).unwrap_or(usize::MAX);
        self.ensure_pack(domain, local)?;
        // A segment that names no such pack is not as it was written.
        let known = self.packs.get(local).and(shifted(record, self.base, local));
        known.ok_or_else(|| self.wrong(domain, "it names no such pack".into()))
    }

    fn wrong(
        &self,
        domain: &Domain,
        source: Box<dyn std::error::Error + Send + Sync>,
    ) -> ReadError {
        ReadError::Segment {
            segment: domain.name(ObjectKind::IndexSegment, &self.hash),
            source,
        }
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
            block.open_records(&self.cipher, sealed)
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
                    block.open_packs(&self.cipher, sealed)
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
        let open = |sealed| open(sealed).map_err(|error| self.wrong(domain, Box::new(error)));
        if let Some(bytes) = &self.bytes {
            let start = usize::try_from(block.offset).unwrap_or(usize::MAX);
            let length = usize::try_from(block.sealed).unwrap_or(usize::MAX);
            let sealed = bytes.get(start..start.saturating_add(length));
            return open(sealed.unwrap_or_default().to_vec());
        }
        let name = domain.name(ObjectKind::IndexSegment, &self.hash);
        let range = ByteRange::At {
            offset: block.offset,
            length: block.sealed,
        };
        let from = |store: &Arc<dyn ObjectStore>| open(store.get_range(&name, range)?);
        let cached = domain.cache().and_then(|cache| from(cache).ok());
        cached.map_or_else(|| from(domain.store()), Ok)
    }

    /// Gives the whole segment once enough of it was asked for.
    fn whole(&self, domain: &Domain) -> Result<Option<&Index>, ReadError> {
        if self.whole.get().is_some() {
            return Ok(self.whole.get());
        }
        if self.bytes.is_some() {
            // Its blocks cost nothing but to open them.
            return Ok(None);
        }
        let many = BLOCKS_MANY.max(self.record_blocks.len() / PART_MANY);
        if self.fetched.load(Ordering::Relaxed) < many {
            return Ok(None);
        }
        let mut index = Index::new(domain.scratch().cloned());
        let read = domain
            .read_segments(&[self.hash], &mut index)
            .and_then(|()| index.sort());
        read.map_err(|error| match error {
            RepositoryError::Store(error) => ReadError::Store(error),
            error => self.wrong(domain, Box::new(error)),
        })?;
        // Else its ordinals would count otherwise than those that were given out.
        if index.packs().len() != self.pack_count {
            return Err(self.wrong(domain, "it names other packs than it should".into()));
        }
        self.keep(0, index.packs().to_vec());
        Ok(Some(self.whole.get_or_init(|| index)))
    }
}

impl Locate for RangedIndex {
    fn find(&self, id: &ChunkId) -> Result<Option<Record>, ReadError> {
        if self.instead.get().is_some_and(Option::is_some) {
            return self.find_instead(id, None);
        }
        match self.find_in_parts(id) {
            Err(ReadError::Store(error)) if !is_loss(&error) => Err(ReadError::Store(error)),
            Err(error) => self.find_instead(id, Some(error)),
            Ok(found) => Ok(found),
        }
    }

    fn pack(&self, ordinal: u32) -> Option<&PackInfo> {
        let ordinal = usize::try_from(ordinal).ok()?;
        if let Some(local) = ordinal.checked_sub(self.packs) {
            let instead = self.instead.get()?.as_ref()?;
            return instead.pack(u32::try_from(local).ok()?);
        }
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
mod tests;
