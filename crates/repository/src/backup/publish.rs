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
use crate::index::Index;
use crate::layout::ObjectHash;
use crate::snapshot::{SNAPSHOT_BYTES_MAX, id_of};

/// A writer that finds this many segments merges them.
const SEGMENT_COUNT_MAX: usize = 8;

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
            if let Some(Published::Merged(hash)) = published {
                copy.index.segments.clear();
                kept.insert(hash);
            } else if let Some(Published::Added(hash)) = published {
                kept.insert(hash);
            }
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

    fn try_publish_at(&self, copy: &Copy) -> Result<Published, RepositoryError> {
        let packs = || {
            let here = |pack: &&NewPack| pack.replicas & copy.bit != 0;
            self.packs.iter().filter(here)
        };
        for pack in packs() {
            verify_pack(copy, pack)?;
        }
        let mut index = Index::default();
        for pack in packs() {
            index.add(vec![pack.info.clone()], pack.records.clone());
        }
        let mut published = Published::Nothing;
        let has_bad = !copy.bad_chunks().is_empty();
        if has_bad || copy.index.segments.len() + 1 > SEGMENT_COUNT_MAX {
            let (all_packs, mut all_records) = copy.index.without(&|_| false);
            // Where these chunks were stored again, readers must not find the old place.
            let bad = copy.bad_chunks();
            all_records.retain(|record| !bad.contains(&record.prefix));
            drop(bad);
            index.add(all_packs, all_records);
            index.sort();
            let content = (index.packs(), index.records());
            let hash = copy.put_segment(content, &copy.index.segments, self.entropy)?;
            published = Published::Merged(hash);
        } else if !index.packs().is_empty() {
            index.sort();
            let content = (index.packs(), index.records());
            published = Published::Added(copy.put_segment(content, &[], self.entropy)?);
        }
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

enum Published {
    Nothing,
    Added(ObjectHash),
    Merged(ObjectHash),
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
