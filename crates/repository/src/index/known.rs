//! A set of chunk ids that only grows: what a run has stored or is storing. What memory should not
//! hold lies in sorted scratch files, eight of one size being merged into one of the next.

use std::collections::HashSet;
use std::io;
use std::sync::Arc;

use edge::Scratch;

use super::record::{Prefix, Record};
use super::sorter::{Several, merge};
use super::table::{FileTable, Table, TableWriter};

/// Ids in memory: about 11 MiB of a hash set.
const IN_MEMORY_MAX: usize = 400_000;
/// Files of one size before they are merged.
const FAN_IN: usize = 8;

/// A growing set of ids.
#[derive(Debug)]
pub(crate) struct KnownIds {
    recent: HashSet<Prefix>,
    recent_max: usize,
    /// The scratch files of each size.
    tiers: Vec<Vec<Table>>,
    scratch: Option<Arc<dyn Scratch>>,
}

impl KnownIds {
    pub(crate) fn new(scratch: Option<Arc<dyn Scratch>>) -> Self {
        Self {
            recent: HashSet::new(),
            recent_max: IN_MEMORY_MAX,
            tiers: Vec::new(),
            scratch,
        }
    }

    pub(crate) fn contains(&self, prefix: &Prefix) -> io::Result<bool> {
        if self.recent.contains(prefix) {
            return Ok(true);
        }
        for table in self.tiers.iter().flatten() {
            if let Table::File(table) = table
                && table.may_contain(prefix)
                && table.find(prefix)?.is_some()
            {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Adds an id; true when it is new.
    pub(crate) fn insert(&mut self, prefix: Prefix) -> io::Result<bool> {
        if self.contains(&prefix)? {
            return Ok(false);
        }
        self.recent.insert(prefix);
        if self.recent.len() >= self.recent_max
            && let Some(scratch) = self.scratch.clone()
        {
            self.spill(&*scratch)?;
        }
        Ok(true)
    }

    fn spill(&mut self, scratch: &dyn Scratch) -> io::Result<()> {
        let mut sorted: Vec<_> = self.recent.drain().collect();
        sorted.sort_unstable();
        let mut writer = TableWriter::new(scratch, sorted.len())?;
        for prefix in sorted {
            writer.push(Record::new(prefix, 0, 0, (0, 0)))?;
        }
        let mut grown: FileTable = writer.finish()?;
        for tier in &mut self.tiers {
            tier.push(Table::File(grown));
            if tier.len() < FAN_IN {
                return Ok(());
            }
            grown = merge(scratch, tier, Several::First)?;
            tier.clear();
        }
        self.tiers.push(vec![Table::File(grown)]);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{MemoryScratch, prefix};
    use super::*;

    #[test]
    fn ids_are_new_once_however_many_there_are() {
        let scratch = Arc::new(MemoryScratch);
        let mut known = KnownIds {
            recent_max: 50,
            ..KnownIds::new(Some(scratch))
        };
        for number in 0..5_000 {
            assert!(known.insert(prefix(number)).unwrap(), "{number}");
            assert!(!known.insert(prefix(number / 2)).unwrap());
        }
        assert!((0..5_000).all(|number| known.contains(&prefix(number)).unwrap()));
        assert!(!known.contains(&prefix(5_000)).unwrap());
        // 100 spills are 1 of 64, 4 of 8 and 4 of 1.
        let files: Vec<_> = known.tiers.iter().map(Vec::len).collect();
        assert_eq!(files, [4, 4, 1]);
    }
}
