//! What the last run of this machine made sure of: that the index finds everything its snapshot
//! needs. While the same segments are there, the next run need not ask for each chunk again.
//!
//! It lies in the cache of the domain and names nothing but hashes. Without it, or when it does not
//! fit, the index is asked for each chunk.

use std::collections::{BTreeSet, HashSet};

use crate::domain::Domain;
use crate::index::{Index, Prefix};
use crate::layout::{self, ObjectHash};

/// A note is of at most this many bytes: it names a hash for each segment.
const NOTE_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// Chunks that the index must not be trusted to find.
const EXCEPTION_COUNT_MAX: usize = 1_000_000;

/// A snapshot of which the index finds everything but some chunks.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) snapshot: ObjectHash,
    /// What only condemned packs hold. The snapshot may be without any of it.
    pub(super) exceptions: HashSet<Prefix>,
}

impl Held {
    /// Reads what the last run noted, if the index still holds what it held then.
    pub(super) fn read(domain: &Domain, index: &Index) -> Option<Self> {
        let name = layout::held(domain.id(), &domain.place());
        let note = domain.cache()?.get(&name, NOTE_BYTES_MAX).ok()?;
        let text = String::from_utf8(note).ok()?;
        let mut lines = text.lines().map(ObjectHash::parse);
        let snapshot = lines.next()??;
        let segments = lines.collect::<Option<BTreeSet<_>>>()?;
        let there: BTreeSet<_> = index.segments.iter().map(|segment| segment.hash).collect();
        if segments.is_empty() || !segments.is_subset(&there) {
            return None;
        }
        let exceptions = index.only_in_doomed(EXCEPTION_COUNT_MAX)?;
        Some(Self {
            snapshot,
            exceptions,
        })
    }

    /// Notes that these segments name all that a snapshot needs. That this fails hurts nothing but
    /// speed.
    pub(super) fn note(domain: &Domain, snapshot: &ObjectHash, segments: &BTreeSet<ObjectHash>) {
        let Some(cache) = domain.cache() else { return };
        let mut text = String::new();
        for hash in std::iter::once(snapshot).chain(segments) {
            text.push_str(&hash.to_string());
            text.push('\n');
        }
        let name = layout::held(domain.id(), &domain.place());
        drop(cache.put(&name, text.as_bytes()));
    }
}
