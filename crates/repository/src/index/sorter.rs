//! Sorting more records than memory should hold: sorted runs in scratch files, merged at the end.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io;
use std::sync::Arc;

use edge::Scratch;

use super::record::Record;
use super::table::{FileTable, MemoryTable, Rows, Table, TableWriter};

/// Takes records in any order and gives them back sorted.
#[derive(Debug)]
pub(super) struct Sorter {
    pending: Vec<Record>,
    runs: Vec<Table>,
    /// So many records may be in memory when there is scratch room.
    in_memory_max: usize,
    scratch: Option<Arc<dyn Scratch>>,
    of_several: Several,
}

/// What becomes of several records of one chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Several {
    /// The one of the lowest pack stays.
    First,
    /// All stay: who writes on behalf of others must not choose among places.
    All,
}

impl Sorter {
    pub(super) fn new(
        scratch: Option<Arc<dyn Scratch>>,
        in_memory_max: usize,
        of_several: Several,
    ) -> Self {
        Self {
            pending: Vec::new(),
            runs: Vec::new(),
            in_memory_max,
            scratch,
            of_several,
        }
    }

    pub(super) fn push(&mut self, record: Record) -> io::Result<()> {
        self.pending.push(record);
        if self.pending.len() >= self.in_memory_max
            && let Some(scratch) = self.scratch.clone()
        {
            let run = self.spill(&*scratch)?;
            self.runs.push(Table::File(run));
        }
        Ok(())
    }

    /// Takes all records of a table.
    pub(super) fn push_table(&mut self, table: Table) -> io::Result<()> {
        match table {
            Table::Memory(table) if self.pending.is_empty() && self.runs.is_empty() => {
                self.pending = table.records;
                Ok(())
            }
            Table::Memory(table) => table
                .records
                .into_iter()
                .try_for_each(|record| self.push(record)),
            Table::File(_) => {
                self.runs.push(table);
                Ok(())
            }
        }
    }

    /// Gives all records sorted.
    pub(super) fn finish(mut self) -> io::Result<Table> {
        let scratch = self.scratch.clone();
        match scratch {
            Some(scratch) if !self.runs.is_empty() => {
                if !self.pending.is_empty() {
                    let run = self.spill(&*scratch)?;
                    self.runs.push(Table::File(run));
                }
                self.pending = Vec::new();
                if self.runs.len() == 1 {
                    return Ok(self.runs.pop().unwrap_or_default());
                }
                merge(&*scratch, &self.runs, self.of_several).map(Table::File)
            }
            _ => {
                sort(&mut self.pending, self.of_several);
                self.pending.shrink_to_fit();
                Ok(Table::Memory(MemoryTable::new(self.pending)))
            }
        }
    }

    fn spill(&mut self, scratch: &dyn Scratch) -> io::Result<FileTable> {
        sort(&mut self.pending, self.of_several);
        let mut writer = TableWriter::new(scratch, self.pending.len())?;
        self.pending
            .iter()
            .try_for_each(|record| writer.push(*record))?;
        self.pending.clear();
        writer.finish()
    }
}

fn sort(records: &mut Vec<Record>, of_several: Several) {
    records.sort_unstable();
    records.dedup_by(|next, last| is_spare(*last, *next, of_several));
}

fn is_spare(last: Record, next: Record, of_several: Several) -> bool {
    match of_several {
        Several::First => last.prefix == next.prefix,
        Several::All => last == next,
    }
}

/// Merges sorted tables into one.
pub(super) fn merge(
    scratch: &dyn Scratch,
    tables: &[Table],
    of_several: Several,
) -> io::Result<FileTable> {
    let most = tables.iter().map(Table::len).sum();
    let mut writer = TableWriter::new(scratch, most)?;
    let mut rows: Vec<Rows<'_>> = tables.iter().map(Table::rows).collect();
    let mut heads = BinaryHeap::with_capacity(rows.len());
    for (number, rows) in rows.iter_mut().enumerate() {
        if let Some(record) = rows.next().transpose()? {
            heads.push(Reverse((record, number)));
        }
    }
    let mut last = None;
    while let Some(Reverse((record, number))) = heads.pop() {
        if last.is_none_or(|last| !is_spare(last, record, of_several)) {
            writer.push(record)?;
            last = Some(record);
        }
        if let Some(rows) = rows.get_mut(number)
            && let Some(next) = rows.next().transpose()?
        {
            heads.push(Reverse((next, number)));
        }
    }
    writer.finish()
}
