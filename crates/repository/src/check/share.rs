//! Checking a share of the data at a time, what was checked longest ago first.

use std::collections::{BTreeMap, BTreeSet};

use edge::{Clock, ObjectName, ObjectStore};
use model::Instant;

use crate::index::PackInfo;
use crate::layout::ObjectHash;

/// The longest record: of a million packs.
const RECORD_BYTES_MAX: u64 = 40 << 20;
const ROW_BYTES: usize = 40;

/// How much data to check, and what knows when each part was checked last.
#[derive(Clone, Copy)]
pub struct CheckShare<'a> {
    /// Percent of all stored bytes, 1–100.
    pub percent: u8,
    /// No pack is begun after this.
    pub until: Option<Instant>,
    /// Where the record of checks is kept, which may be lost at any time. Without it nothing is
    /// known of earlier checks.
    pub record: Option<&'a dyn ObjectStore>,
    /// Tells the time.
    pub clock: &'a dyn Clock,
}

/// When packs were checked: seconds since 1970.
pub(super) struct Record(BTreeMap<ObjectHash, i64>);

fn name() -> Option<ObjectName> {
    ObjectName::new("checked-packs").ok()
}

impl Record {
    /// Reads the record; one that is lost or damaged is empty.
    pub(super) fn read(share: &CheckShare<'_>) -> Self {
        let stored = share
            .record
            .zip(name())
            .and_then(|(store, name)| store.get(&name, RECORD_BYTES_MAX).ok())
            .unwrap_or_default();
        let row = |row: &[u8; ROW_BYTES]| {
            let (hash, secs) = row.split_first_chunk()?;
            let secs = i64::from_le_bytes(*secs.first_chunk()?);
            Some((ObjectHash::from_bytes(*hash), secs))
        };
        Self(stored.as_chunks().0.iter().filter_map(row).collect())
    }

    /// Chooses the packs whose last check is the longest ago, until they make up the share.
    pub(super) fn choose(&self, packs: &[PackInfo], percent: u8) -> BTreeSet<usize> {
        let all: u64 = packs.iter().map(|pack| pack.size).sum();
        let wanted = u128::from(all) * u128::from(percent.min(100)) / 100;
        let mut order: Vec<_> = packs.iter().enumerate().collect();
        // Of those that nothing is known of any may be first: the hash decides.
        order.sort_by_key(|(_, pack)| (self.checked_at(pack), pack.hash));
        let mut chosen = BTreeSet::new();
        let mut bytes = 0_u128;
        for (ordinal, pack) in order {
            if bytes >= wanted && !chosen.is_empty() {
                break;
            }
            bytes += u128::from(pack.size);
            chosen.insert(ordinal);
        }
        chosen
    }

    fn checked_at(&self, pack: &PackInfo) -> i64 {
        self.0.get(&pack.hash).copied().unwrap_or(i64::MIN)
    }

    pub(super) fn note(&mut self, pack: &PackInfo, now: Instant) {
        self.0.insert(pack.hash, now.secs());
    }

    /// Writes the record of the packs that there are. That this fails costs only the order.
    pub(super) fn write(mut self, share: &CheckShare<'_>, packs: &[PackInfo]) {
        let there: BTreeSet<_> = packs.iter().map(|pack| pack.hash).collect();
        self.0.retain(|hash, _| there.contains(hash));
        let mut bytes = Vec::with_capacity(self.0.len() * ROW_BYTES);
        for (hash, secs) in &self.0 {
            bytes.extend_from_slice(hash.as_bytes());
            bytes.extend_from_slice(&secs.to_le_bytes());
        }
        if let Some((store, name)) = share.record.zip(name()) {
            drop(store.delete(&name));
            drop(store.put(&name, &bytes));
        }
    }
}
