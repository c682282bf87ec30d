//! The end of a run: verify packs, then publish index segment and snapshot at each replica.

use std::collections::BTreeSet;

use edge::{ByteRange, Entropy, Monitor, StoreError};
use model::ByteCount;
use sealing::ObjectKind;

use super::ReplicaReport;
use super::copy::{Copy, trim_caches};
use super::pipeline::NewPack;
use crate::domain::NameMismatch;
use crate::error::RepositoryError;
use crate::index::{Index, SMALL_RECORDS, SegmentInfo};
use crate::layout::ObjectHash;
use crate::snapshot::{SNAPSHOT_BYTES_MAX, id_of};

/// A writer that would leave more small segments than this merges them.
const SMALL_SEGMENT_COUNT_MAX: usize = 8;

/// What is to be published.
pub(super) struct Publication<'a> {
    pub(super) packs: &'a [NewPack],
    /// None when the run was cut short: then only the index is written.
    pub(super) snapshot: Option<&'a (ObjectHash, Vec<u8>)>,
    pub(super) entropy: &'a dyn Entropy,
    pub(super) monitor: &'a dyn Monitor,
}

impl Publication<'_> {
    /// Publishes at all live replicas at once.
    pub(super) fn publish(&self, mut copies: Vec<Copy>) -> Vec<ReplicaReport> {
        let segments: Vec<_> = std::thread::scope(|scope| {
            let handles: Vec<_> = copies
                .iter()
                .map(|copy| scope.spawn(|| self.publish_at(copy)))
                .collect();
            handles
                .into_iter()
                .map(|handle| handle.join().ok().flatten())
                .collect()
        });
        let mut kept: BTreeSet<_> = self.packs.iter().map(|pack| pack.info.hash).collect();
        for (copy, published) in copies.iter_mut().zip(segments) {
            let Some(published) = published else { continue };
            let is_there = |segment: &SegmentInfo| !published.replaced.contains(&segment.hash);
            copy.index.segments.retain(is_there);
            kept.extend(published.written);
        }
        trim_caches(&copies, &kept);
        copies
            .into_iter()
            .map(|copy| ReplicaReport {
                snapshot: self
                    .snapshot
                    .filter(|_| copy.is_live())
                    .map(|(hash, _)| id_of(hash)),
                stored_bytes: ByteCount::new(copy.stored_bytes()),
                error: copy.take_error(),
                name: copy.name,
            })
            .collect()
    }

    fn publish_at(&self, copy: &Copy) -> Option<Published> {
        if !copy.is_live() {
            return None;
        }
        match self.try_publish_at(copy) {
            Ok(published) => Some(published),
            Err(error) => {
                copy.fail(error, self.monitor);
                None
            }
        }
    }

    /// Writes the index of what is new; with it what is small when that became many, and all when
    /// some of it is wrong.
    fn publish_index(&self, copy: &Copy, new: Index) -> Result<Published, RepositoryError> {
        let old = &copy.index;
        let has_bad = !copy.bad_chunks().is_empty();
        let is_small = |segment: &&SegmentInfo| segment.records < SMALL_RECORDS;
        let small = || old.segments.iter().filter(is_small);
        let mut replaced = Vec::new();
        let mut index = Index::new(copy.domain.scratch().cloned());
        if has_bad || small().count() == old.segments.len() {
            if has_bad || old.segments.len() + 1 > SMALL_SEGMENT_COUNT_MAX {
                // New places first: readers must not find the old place of what was stored again.
                index.add_from(&new, &|_| true)?;
                let bad = copy.bad_chunks();
                index.add_from(old, &|record| !bad.contains(&record.prefix))?;
                replaced = old.segment_hashes();
            }
        } else if small().count() + 1 > SMALL_SEGMENT_COUNT_MAX {
            index.add_from(&new, &|_| true)?;
            replaced = small().map(|segment| segment.hash).collect();
            copy.domain.read_segments(&replaced, &mut index)?;
        }
        if replaced.is_empty() && !has_bad {
            index = new;
        }
        index.sort()?;
        if replaced.is_empty() && index.packs().is_empty() {
            return Ok(Published::default());
        }
        let written = copy.put_index(&index, &replaced, self.entropy)?;
        Ok(Published {
            written: written.iter().map(|segment| segment.hash).collect(),
            replaced,
        })
    }

    fn try_publish_at(&self, copy: &Copy) -> Result<Published, RepositoryError> {
        let packs = || {
            let here = |pack: &&NewPack| pack.replicas & copy.bit != 0;
            self.packs.iter().filter(here)
        };
        for pack in packs() {
            verify_pack(copy, pack)?;
        }
        let mut new = Index::new(copy.domain.scratch().cloned());
        for pack in packs() {
            new.add(vec![pack.info.clone()], pack.records.iter().copied())?;
        }
        new.sort()?;
        let published = self.publish_index(copy, new)?;
        if let Some((hash, bytes)) = self.snapshot {
            let kind = ObjectKind::Snapshot;
            copy.put(kind, hash, bytes)?;
            let name = copy.domain.name(kind, hash);
            if copy.domain.store().get(&name, SNAPSHOT_BYTES_MAX)? != *bytes {
                return Err(copy.domain.damaged(kind, hash, NameMismatch));
            }
            copy.domain.keep_in_cache(kind, hash, bytes);
        }
        Ok(published)
    }
}

/// How the segments of a replica changed.
#[derive(Default)]
struct Published {
    written: Vec<ObjectHash>,
    replaced: Vec<ObjectHash>,
}

/// Makes sure that a pack is there in its whole length and ends as it was sealed.
fn verify_pack(copy: &Copy, pack: &NewPack) -> Result<(), RepositoryError> {
    let is_there = || -> Result<bool, StoreError> {
        let name = copy.domain.name(pack.info.kind, &pack.info.hash);
        if copy.domain.store().size(&name)? != Some(pack.info.size) {
            return Ok(false);
        }
        let length = pack.tail_bytes;
        let tail = copy
            .domain
            .store()
            .get_range(&name, ByteRange::Suffix { length })?;
        Ok(ObjectHash::of(&tail) == pack.tail_hash)
    };
    if is_there()? {
        Ok(())
    } else {
        let error = std::io::Error::other("what was read back is not what was written");
        Err(copy.domain.damaged(pack.info.kind, &pack.info.hash, error))
    }
}
