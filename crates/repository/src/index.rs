//! The index of a domain as an operation holds it: which chunk is where. A million records are held
//! in memory, more than that in a scratch file where there is one.

mod divide;
mod filter;
mod followed;
mod known;
mod ranged;
mod record;
mod sorter;
mod stored;
mod table;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::io;
use std::sync::{Arc, OnceLock};

use edge::Scratch;
use sealing::{ChunkId, ObjectKind};

use crate::error::{ReadError, RepositoryError};
use crate::layout::ObjectHash;
use crate::pack::Codec;

pub(crate) use followed::Followed;
pub(crate) use known::KnownIds;
pub(crate) use ranged::RangedIndex;
pub(crate) use record::{PREFIX_BYTES, Prefix, RECORD_BYTES, Record, prefix_of, records_of};
use sorter::{Several, Sorter};
use table::{Table, TableWriter};

/// Records that are held in memory though there is scratch room: 32 MiB.
const IN_MEMORY_MAX: usize = 1 << 20;

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

/// A segment that an index was read from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SegmentInfo {
    pub(crate) hash: ObjectHash,
    pub(crate) records: usize,
    /// Its directory is of use as long as large siblings are there.
    leads: bool,
}

impl SegmentInfo {
    /// True for a segment that writers merge with others when they become many.
    pub(crate) const fn is_small(&self) -> bool {
        self.records < stored::SMALL_RECORDS && !self.leads
    }
}

/// Says where a chunk is.
pub(crate) trait Locate: Sync {
    /// Finds a chunk; `None` when no segment names it.
    fn find(&self, id: &ChunkId) -> Result<Option<Record>, ReadError>;

    /// Gives a pack that a found record names.
    fn pack(&self, ordinal: u32) -> Option<&PackInfo>;

    /// Gives what is known of all that is not in a pack that is gone by now; nothing where the
    /// index is not to change under whoever uses it.
    fn without(&self, _pack: &ObjectHash) -> Option<Arc<Index>> {
        None
    }
}

/// Packs that an index names and that nobody should rely on: condemned ones, and lost ones.
pub(crate) type Doomed = BTreeSet<ObjectHash>;

/// Which chunk is where in one repository.
#[derive(Debug)]
pub(crate) struct Index {
    packs: Vec<PackInfo>,
    ordinals: BTreeMap<ObjectHash, u32>,
    doomed: Doomed,
    doomed_ordinals: BTreeSet<u32>,
    /// Records in doomed packs, which are not found until [`Index::take_back`].
    left_out: Vec<Record>,
    table: Table,
    /// Records that cannot be found before [`Index::sort`].
    added: Sorter,
    has_added: bool,
    in_memory_max: usize,
    scratch: Option<Arc<dyn Scratch>>,
    of_several: Several,
    /// The first failure to read the scratch file. What was asked then was answered as if the
    /// index did not know, which is safe for who asks, but not true.
    failure: OnceLock<io::Error>,
    /// The segments that this index was read from.
    pub(crate) segments: Vec<SegmentInfo>,
    /// The first segment that could not be used: what only it named is missing here.
    pub(crate) damaged: Option<RepositoryError>,
    /// That was a part of a divided index: any pack may hold more than is known of it.
    lacks_part: bool,
}

impl Default for Index {
    fn default() -> Self {
        Self::new(None)
    }
}

impl Index {
    /// Makes an empty index that may grow into scratch files.
    pub(crate) fn new(scratch: Option<Arc<dyn Scratch>>) -> Self {
        Self::with_limit(scratch, IN_MEMORY_MAX)
    }

    fn with_limit(scratch: Option<Arc<dyn Scratch>>, in_memory_max: usize) -> Self {
        Self {
            packs: Vec::new(),
            ordinals: BTreeMap::new(),
            doomed: Doomed::default(),
            doomed_ordinals: BTreeSet::new(),
            left_out: Vec::new(),
            table: Table::default(),
            added: Sorter::new(scratch.clone(), in_memory_max, Several::First),
            has_added: false,
            in_memory_max,
            scratch,
            of_several: Several::First,
            failure: OnceLock::new(),
            segments: Vec::new(),
            damaged: None,
            lacks_part: false,
        }
    }

    /// Makes an empty index that keeps all places of a chunk, to be written on behalf of others.
    pub(crate) fn of_all_places(scratch: Option<Arc<dyn Scratch>>) -> Self {
        let mut index = Self::new(scratch);
        index.of_several = Several::All;
        index.added = Sorter::new(index.scratch.clone(), index.in_memory_max, Several::All);
        index
    }

    /// Leaves out what will be added of doomed packs.
    pub(crate) fn leaving_out(self, doomed: Doomed) -> Self {
        Self { doomed, ..self }
    }

    /// Makes what only doomed packs hold findable, too: a last resort. Gives all these places.
    pub(crate) fn take_back(&mut self) -> Result<Vec<Record>, RepositoryError> {
        let mut left_out = std::mem::take(&mut self.left_out);
        left_out.retain(|record| self.is_only_there(record));
        for record in &left_out {
            self.has_added = true;
            let added = self.added.push(*record);
            added.map_err(RepositoryError::Scratch)?;
        }
        self.sort()?;
        Ok(left_out)
    }

    /// Gives the number of the record of the chunk that another record is of.
    pub(crate) fn position_of(&self, record: &Record) -> Option<usize> {
        self.locate_as(record).map(|(position, _)| position)
    }

    /// Gives the record of the chunk that another record is of, with its number.
    pub(crate) fn locate_as(&self, record: &Record) -> Option<(usize, Record)> {
        self.answer(self.table.find(&record.prefix))
    }

    fn is_only_there(&self, record: &Record) -> bool {
        self.answer(self.table.find(&record.prefix)).is_none()
    }

    /// Gives the chunks that only doomed packs hold; `None` when there are more than `count_max`, or
    /// when it cannot be told.
    pub(crate) fn only_in_doomed(&self, count_max: usize) -> Option<HashSet<Prefix>> {
        let left_out = self.left_out.iter();
        let only = left_out.filter(|record| self.is_only_there(record));
        let only: HashSet<_> = only
            .map(|record| record.prefix)
            .take(count_max + 1)
            .collect();
        (only.len() <= count_max && self.failure.get().is_none()).then_some(only)
    }

    /// True when nobody should rely on a pack.
    pub(crate) fn is_doomed(&self, pack: &ObjectHash) -> bool {
        self.doomed.contains(pack)
    }

    /// Adds packs; gives the ordinals that they have here.
    pub(crate) fn add_packs(&mut self, packs: impl IntoIterator<Item = PackInfo>) -> Vec<u32> {
        let mut translated = Vec::new();
        for pack in packs {
            let next = u32::try_from(self.packs.len()).unwrap_or(u32::MAX);
            let ordinal = *self.ordinals.entry(pack.hash).or_insert(next);
            if ordinal == next {
                if self.doomed.contains(&pack.hash) {
                    self.doomed_ordinals.insert(ordinal);
                }
                self.packs.push(pack);
            }
            translated.push(ordinal);
        }
        translated
    }

    /// Adds a record whose ordinal counts within `translated`. One of no pack is left out.
    pub(crate) fn add_record(
        &mut self,
        translated: &[u32],
        record: Record,
    ) -> Result<(), RepositoryError> {
        let known = usize::try_from(record.pack)
            .ok()
            .and_then(|pack| translated.get(pack));
        let Some(pack) = known.copied() else {
            return Ok(());
        };
        if self.doomed_ordinals.contains(&pack) {
            self.left_out.push(Record { pack, ..record });
            return Ok(());
        }
        self.has_added = true;
        self.added
            .push(Record { pack, ..record })
            .map_err(RepositoryError::Scratch)
    }

    /// Adds packs and their records; the ordinals in the records count within `packs`.
    pub(crate) fn add(
        &mut self,
        packs: Vec<PackInfo>,
        records: impl IntoIterator<Item = Record>,
    ) -> Result<(), RepositoryError> {
        let translated = self.add_packs(packs);
        records
            .into_iter()
            .try_for_each(|record| self.add_record(&translated, record))
    }

    /// Adds all of another index but the records that are not wanted: also what that leaves out and
    /// only doomed packs hold, for a snapshot may need it until it is moved.
    pub(crate) fn add_from(
        &mut self,
        other: &Self,
        is_wanted: &dyn Fn(&Record) -> bool,
    ) -> Result<(), RepositoryError> {
        let translated = self.add_packs(other.packs.iter().cloned());
        other.each_record(&mut |_, record| {
            if is_wanted(&record) {
                self.add_record(&translated, record)?;
            }
            Ok(())
        })?;
        let left_out = other.left_out.iter().copied();
        left_out
            .filter(|record| is_wanted(record) && other.is_only_there(record))
            .try_for_each(|record| self.add_record(&translated, record))
    }

    /// Makes added records findable. Of several records of a chunk the one of the lowest pack stays.
    pub(crate) fn sort(&mut self) -> Result<(), RepositoryError> {
        if !self.has_added {
            return Ok(());
        }
        let next = Sorter::new(self.scratch.clone(), self.in_memory_max, self.of_several);
        let mut sorter = std::mem::replace(&mut self.added, next);
        self.has_added = false;
        let sorted = sorter
            .push_table(std::mem::take(&mut self.table))
            .and_then(|()| sorter.finish());
        self.table = sorted.map_err(RepositoryError::Scratch)?;
        Ok(())
    }

    pub(crate) fn find(&self, id: &ChunkId) -> Option<Record> {
        self.locate(id).map(|(_, record)| record)
    }

    /// Gives the number of a chunk's record: a dense number for bitmaps.
    pub(crate) fn position(&self, id: &ChunkId) -> Option<usize> {
        self.locate(id).map(|(position, _)| position)
    }

    pub(crate) fn contains(&self, id: &ChunkId) -> bool {
        self.locate(id).is_some()
    }

    /// Gives a record with its number.
    pub(crate) fn locate(&self, id: &ChunkId) -> Option<(usize, Record)> {
        self.answer(self.table.find(&prefix_of(id)))
    }

    fn answer<T>(&self, result: io::Result<Option<T>>) -> Option<T> {
        result.unwrap_or_else(|error| {
            self.failure.get_or_init(|| error);
            None
        })
    }

    /// Gives the number of records.
    pub(crate) const fn len(&self) -> usize {
        self.table.len()
    }

    /// Gives each record with its number, in order.
    ///
    /// # Errors
    ///
    /// What `each` returns, and `Scratch`, also for an earlier question that was not answered.
    pub(crate) fn each_record(
        &self,
        each: &mut dyn FnMut(usize, Record) -> Result<(), RepositoryError>,
    ) -> Result<(), RepositoryError> {
        self.verify()?;
        for (number, record) in self.table.rows().enumerate() {
            each(number, record.map_err(RepositoryError::Scratch)?)?;
        }
        Ok(())
    }

    /// Fails when a question was answered wrongly, because the scratch file could not be read.
    pub(crate) fn verify(&self) -> Result<(), RepositoryError> {
        self.failure.get().map_or(Ok(()), |error| {
            let again = io::Error::new(error.kind(), error.to_string());
            Err(RepositoryError::Scratch(again))
        })
    }

    pub(crate) fn pack(&self, ordinal: u32) -> Option<&PackInfo> {
        self.packs.get(usize::try_from(ordinal).ok()?)
    }

    pub(crate) fn packs(&self) -> &[PackInfo] {
        &self.packs
    }

    pub(crate) fn has_pack(&self, hash: &ObjectHash) -> bool {
        self.ordinals.contains_key(hash)
    }

    /// True for a pack of which all is known.
    pub(crate) fn has_all_of(&self, hash: &ObjectHash) -> bool {
        self.has_pack(hash) && !self.lacks_part
    }

    /// Takes packs out; `moved` hears of each record that stays its number before and now.
    pub(crate) fn remove_packs(
        &mut self,
        gone: &dyn Fn(&PackInfo) -> bool,
        moved: &mut dyn FnMut(usize, usize),
    ) -> Result<(), RepositoryError> {
        let mut translated = Vec::with_capacity(self.packs.len());
        let mut kept = 0_u32;
        self.packs.retain(|pack| {
            let stays = !gone(pack);
            translated.push(stays.then_some(kept));
            kept += u32::from(stays);
            stays
        });
        self.ordinals = (0_u32..)
            .zip(&self.packs)
            .map(|(ordinal, pack)| (pack.hash, ordinal))
            .collect();
        let of_packs = |ordinal: u32| *translated.get(usize::try_from(ordinal).ok()?)?;
        self.left_out.retain_mut(|record| {
            let ordinal = of_packs(record.pack);
            record.pack = ordinal.unwrap_or(record.pack);
            ordinal.is_some()
        });
        let doomed = self.doomed_ordinals.iter();
        self.doomed_ordinals = doomed.filter_map(|ordinal| of_packs(*ordinal)).collect();
        let mut to = 0;
        let mut still = |from: usize, record: Record| {
            let pack = usize::try_from(record.pack).ok()?;
            let pack = (*translated.get(pack)?)?;
            moved(from, to);
            to += 1;
            Some(Record { pack, ..record })
        };
        let kept = match std::mem::take(&mut self.table) {
            Table::Memory(mut table) => {
                let mut from = 0;
                table.records.retain_mut(|record| {
                    let stays = still(from, *record);
                    from += 1;
                    *record = stays.unwrap_or(*record);
                    stays.is_some()
                });
                Ok(Table::Memory(table::MemoryTable::new(table.records)))
            }
            file @ Table::File(_) => rewrite(self.scratch.as_deref(), &file, &mut still),
        };
        self.table = kept.map_err(RepositoryError::Scratch)?;
        Ok(())
    }

    /// Gives the packs among some, for [`Index::remove_packs`].
    pub(crate) fn among(gone: &[(ObjectHash, ObjectKind)]) -> impl Fn(&PackInfo) -> bool + use<> {
        let gone: BTreeSet<_> = gone.iter().map(|(hash, _)| *hash).collect();
        move |pack| gone.contains(&pack.hash)
    }
}

impl Locate for Index {
    fn find(&self, id: &ChunkId) -> Result<Option<Record>, ReadError> {
        Ok(self.find(id))
    }

    fn pack(&self, ordinal: u32) -> Option<&PackInfo> {
        self.pack(ordinal)
    }
}

/// Copies a table without the records of which `still` makes none.
fn rewrite(
    scratch: Option<&dyn Scratch>,
    table: &Table,
    still: &mut dyn FnMut(usize, Record) -> Option<Record>,
) -> io::Result<Table> {
    // Only with scratch room did the table become a file.
    let scratch = scratch.ok_or(io::ErrorKind::Unsupported)?;
    let mut writer = TableWriter::new(scratch, table.len())?;
    for (number, record) in table.rows().enumerate() {
        if let Some(record) = still(number, record?) {
            writer.push(record)?;
        }
    }
    writer.finish().map(Table::File)
}

#[cfg(test)]
mod tests;
