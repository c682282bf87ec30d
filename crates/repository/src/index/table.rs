//! Records sorted by id, without repetition: in memory while they are few, else in a scratch file.

use std::io;

use edge::{Scratch, ScratchFile};

use super::filter::Filter;
use super::record::{Prefix, RECORD_BYTES, Record};

/// Records of a block of a scratch file, which is read to find one: 1 KiB.
const BLOCK_RECORDS: usize = 32;
const BLOCK_BYTES: usize = BLOCK_RECORDS * RECORD_BYTES;
/// Blocks that are written or read at once when records come in order.
const BLOCKS_AT_ONCE: usize = 64;
/// Ids are evenly spread, so two bytes divide any table into small parts.
const FENCE_COUNT: usize = 1 << 16;

/// Sorted records.
#[derive(Debug)]
pub(super) enum Table {
    Memory(MemoryTable),
    File(FileTable),
}

impl Default for Table {
    fn default() -> Self {
        Self::Memory(MemoryTable::default())
    }
}

impl Table {
    pub(super) const fn len(&self) -> usize {
        match self {
            Self::Memory(table) => table.records.len(),
            Self::File(table) => table.len,
        }
    }

    /// Finds a record and its number.
    pub(super) fn find(&self, prefix: &Prefix) -> io::Result<Option<(usize, Record)>> {
        match self {
            Self::Memory(table) => Ok(table.find(prefix)),
            Self::File(table) => table.find(prefix),
        }
    }

    /// Reads all records in order.
    pub(super) fn rows(&self) -> Rows<'_> {
        match self {
            Self::Memory(table) => Rows::Memory(table.records.iter()),
            Self::File(table) => Rows::File(FileRows::new(table)),
        }
    }
}

/// Records in memory.
#[derive(Debug, Default)]
pub(super) struct MemoryTable {
    pub(super) records: Vec<Record>,
    /// Where the records begin whose ids begin with two given bytes, and where the last end.
    fences: Vec<u32>,
}

impl MemoryTable {
    /// Takes sorted records.
    pub(super) fn new(records: Vec<Record>) -> Self {
        let mut table = Self {
            records,
            fences: Vec::with_capacity(FENCE_COUNT + 1),
        };
        let mut at = 0;
        for fence in 0..=FENCE_COUNT {
            let rest = table.records.get(at..).unwrap_or_default();
            at += rest
                .iter()
                .take_while(|record| fence_of(&record.prefix) < fence)
                .count();
            table.fences.push(u32::try_from(at).unwrap_or(u32::MAX));
        }
        table
    }

    fn find(&self, prefix: &Prefix) -> Option<(usize, Record)> {
        let fence = fence_of(prefix);
        let from = usize::try_from(*self.fences.get(fence)?).ok()?;
        let to = usize::try_from(*self.fences.get(fence + 1)?).ok()?;
        let part = self.records.get(from..to)?;
        let at = part
            .binary_search_by(|record| record.prefix.cmp(prefix))
            .ok()?;
        Some((from + at, *part.get(at)?))
    }
}

fn fence_of(prefix: &Prefix) -> usize {
    let [high, low, ..] = *prefix;
    usize::from(high) << 8 | usize::from(low)
}

/// Records in a scratch file. In memory are the beginnings of its blocks and a filter.
#[derive(Debug)]
pub(super) struct FileTable {
    file: Box<dyn ScratchFile>,
    len: usize,
    /// The first eight bytes of the first id of each block.
    fences: Vec<u64>,
    filter: Filter,
}

impl FileTable {
    /// False when there certainly is no such record.
    pub(super) fn may_contain(&self, prefix: &Prefix) -> bool {
        self.filter.may_contain(prefix)
    }

    pub(super) fn find(&self, prefix: &Prefix) -> io::Result<Option<(usize, Record)>> {
        if !self.filter.may_contain(prefix) {
            return Ok(None);
        }
        let head = head_of(prefix);
        // Ids that share eight bytes may lie on both sides of a border.
        let first = self.fences.partition_point(|fence| *fence < head);
        let to = self.fences.partition_point(|fence| *fence <= head);
        for block in first.saturating_sub(1)..to {
            if let Some((at, record)) = self.find_in(block, prefix)? {
                return Ok(Some((block * BLOCK_RECORDS + at, record)));
            }
        }
        Ok(None)
    }

    fn find_in(&self, block: usize, prefix: &Prefix) -> io::Result<Option<(usize, Record)>> {
        let mut bytes = [0; BLOCK_BYTES];
        let from = block * BLOCK_RECORDS;
        let length = self.len.saturating_sub(from).min(BLOCK_RECORDS) * RECORD_BYTES;
        let part = bytes.get_mut(..length).unwrap_or_default();
        self.file.read_at(from as u64 * RECORD_BYTES as u64, part)?;
        // Its rows begin with the id: they compare as they are.
        let (rows, _) = part.as_chunks::<RECORD_BYTES>();
        let found = rows.binary_search_by(|row| row.first_chunk().cmp(&Some(prefix)));
        let row = found.ok().and_then(|at| Some((at, rows.get(at)?)));
        Ok(row.map(|(at, row)| (at, Record::from_bytes(row))))
    }
}

fn head_of(prefix: &Prefix) -> u64 {
    let head = prefix.first_chunk().copied().unwrap_or_default();
    u64::from_be_bytes(head)
}

/// Writes sorted records into a scratch file.
pub(super) struct TableWriter {
    table: FileTable,
    buffer: Vec<u8>,
    written: u64,
}

impl TableWriter {
    /// Begins a table of at most so many records.
    pub(super) fn new(scratch: &dyn Scratch, records_max: usize) -> io::Result<Self> {
        Ok(Self {
            table: FileTable {
                file: scratch.create()?,
                len: 0,
                fences: Vec::with_capacity(records_max.div_ceil(BLOCK_RECORDS)),
                filter: Filter::new(records_max),
            },
            buffer: Vec::with_capacity(BLOCKS_AT_ONCE * BLOCK_BYTES),
            written: 0,
        })
    }

    /// Adds a record behind those added before.
    pub(super) fn push(&mut self, record: Record) -> io::Result<()> {
        if self.table.len.is_multiple_of(BLOCK_RECORDS) {
            self.table.fences.push(head_of(&record.prefix));
        }
        self.table.len += 1;
        self.table.filter.insert(&record.prefix);
        self.buffer.extend_from_slice(&record.to_bytes());
        if self.buffer.len() >= BLOCKS_AT_ONCE * BLOCK_BYTES {
            self.flush()?;
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.table.file.write_at(self.written, &self.buffer)?;
        self.written += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }

    pub(super) fn finish(mut self) -> io::Result<FileTable> {
        self.flush()?;
        Ok(self.table)
    }
}

/// The records of a table, in order.
pub(super) enum Rows<'a> {
    Memory(std::slice::Iter<'a, Record>),
    File(FileRows<'a>),
}

/// The records of a scratch file, in order.
pub(super) struct FileRows<'a> {
    table: &'a FileTable,
    /// The number of the next block.
    next: usize,
    records: std::vec::IntoIter<Record>,
}

impl<'a> FileRows<'a> {
    fn new(table: &'a FileTable) -> Self {
        Self {
            table,
            next: 0,
            records: Vec::new().into_iter(),
        }
    }

    fn next(&mut self) -> io::Result<Option<Record>> {
        if let Some(record) = self.records.next() {
            return Ok(Some(record));
        }
        let from = self.next * BLOCK_RECORDS;
        let count = self
            .table
            .len
            .saturating_sub(from)
            .min(BLOCKS_AT_ONCE * BLOCK_RECORDS);
        if count == 0 {
            return Ok(None);
        }
        let mut bytes = vec![0; count * RECORD_BYTES];
        let offset = from as u64 * RECORD_BYTES as u64;
        self.table.file.read_at(offset, &mut bytes)?;
        self.next += BLOCKS_AT_ONCE;
        let (rows, _) = bytes.as_chunks();
        let records: Vec<_> = rows.iter().map(Record::from_bytes).collect();
        self.records = records.into_iter();
        Ok(self.records.next())
    }
}

impl Iterator for Rows<'_> {
    type Item = io::Result<Record>;

    fn next(&mut self) -> Option<Self::Item> {
        match self {
            Self::Memory(records) => records.next().map(|record| Ok(*record)),
            Self::File(rows) => rows.next().transpose(),
        }
    }
}
