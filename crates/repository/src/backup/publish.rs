//! The end of a run: verify packs, then publish index segment and snapshot at each replica.

use std::collections::BTreeSet;

use edge::{ByteRange, Clock, Entropy, Monitor, StoreError, StoreFault};
use model::ByteCount;
use sealing::{ObjectKind, Right};

use super::ReplicaReport;
use super::copy::{Copy, trim_caches};
use super::held::Held;
use super::pipeline::NewPack;
use crate::domain::NameMismatch;
use crate::error::RepositoryError;
use crate::index::{Index, SegmentInfo};
use crate::layout::ObjectHash;
use crate::snapshot::{SNAPSHOT_BYTES_MAX, id_of};

/// A writer that would leave more small segments than this merges them.
const SMALL_SEGMENT_COUNT_MAX: usize = 8;

/// What is to be published.
pub(super) struct Publication<'a> {
    pub(super) packs: &'a [NewPack],
    /// None when the run was cut short: then only the index is written.
    pub(super) snapshot: Option<&'a (ObjectHash, Vec<u8>)>,
    pub(super) clock: &'a dyn Clock,
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
            let is_there = |hash: &ObjectHash| !published.replaced.contains(hash);
            copy.index
                .segments
                .retain(|segment| is_there(&segment.hash));
            let written = published.packs.iter().chain(&published.segments);
            kept.extend(written.copied().filter(is_there));
            self.note_held(copy, &published);
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

    /// Notes for the next run that the index finds all of the snapshot: each chunk of it was found
    /// in the index, or stored.
    fn note_held(&self, copy: &Copy, published: &Published) {
        let (Some((snapshot, _)), true) = (self.snapshot, copy.is_sound()) else {
            return;
        };
        let before = copy.index.segments.iter().map(|segment| &segment.hash);
        let segments = before.chain(&published.segments).copied();
        let is_there = |hash: &ObjectHash| !published.replaced.contains(hash);
        Held::note(&copy.domain, snapshot, &segments.filter(is_there).collect());
    }

    /// Writes the index of what is new, with what the run wrote of it on its way: that is in the
    /// order in which it came, so that who looks up one chunk would have to ask each of those
    /// segments. What is small comes with it when that became many, and all when some of it is
    /// wrong.
    fn publish_index(&self, copy: &Copy, new: Index) -> Result<Published, RepositoryError> {
        let old = &copy.index;
        let indexed = copy.take_indexed();
        let has_bad = !copy.bad_chunks().is_empty() || copy.restores_noted(&new)?;
        let all = || old.segments.iter().chain(&indexed.segments);
        let small = || all().filter(|segment| segment.is_small());
        // Who may not delete would leave all of them, and one more.
        let may_merge = copy.domain.rights().has(Right::Delete);
        let are_many = may_merge && small().count() + 1 > SMALL_SEGMENT_COUNT_MAX;
        let is_in_parts =
            indexed.segments.len() > 1 || !indexed.segments.is_empty() && !new.packs().is_empty();
        let takes_all = has_bad || small().count() == all().count();
        let mut index = new;
        let mut replaced = Vec::new();
        if has_bad || are_many || may_merge && is_in_parts {
            let names = |segments: &mut dyn Iterator<Item = &SegmentInfo>| -> Vec<_> {
                segments.map(|segment| segment.hash).collect()
            };
            // New places first: readers must not find the old place of what was stored again.
            replaced = match (has_bad || are_many, takes_all) {
                (true, true) => names(&mut all()),
                (true, false) => names(&mut small()),
                (false, _) => names(&mut indexed.segments.iter()),
            };
            // All places stay, which others may rely on, but in packs of the wrong length. What is bad
            // and was not stored again stays, too: the next reader may have more luck.
            let merged = Index::of_all_places(copy.domain.scratch().cloned());
            let mut merged = merged.leaving_out(copy.cut.clone());
            merged.add_from(&index, &|_| true)?;
            match copy.domain.read_segments(&replaced, &mut merged) {
                Ok(()) => {
                    merged.sort()?;
                    merged.take_back()?;
                    copy.drop_cut(&mut merged)?;
                    index = merged;
                }
                // Another writer merges them.
                Err(RepositoryError::Store(error)) if error.fault == StoreFault::NotFound => {
                    replaced.clear();
                }
                Err(error) => return Err(error),
            }
        }
        let mut segments: Vec<_> = indexed.segments.iter().map(|own| own.hash).collect();
        if !replaced.is_empty() || !index.packs().is_empty() {
            let written = copy.put_index(&index, &replaced, (self.clock, self.entropy))?;
            segments.extend(written.iter().map(|segment| segment.hash));
        }
        Ok(Published {
            packs: indexed.packs,
            segments,
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
            copy.confirm(hash)?;
            copy.domain.keep_in_cache(kind, hash, bytes);
            copy.delete_checkpoints();
        }
        Ok(published)
    }
}

/// How the index of a replica changed.
struct Published {
    /// Packs that came into the index before the end.
    packs: Vec<ObjectHash>,
    segments: Vec<ObjectHash>,
    replaced: Vec<ObjectHash>,
}

/// Makes sure that a pack is there in its whole length and ends as it was sealed.
pub(super) fn verify_pack(copy: &Copy, pack: &NewPack) -> Result<(), RepositoryError> {
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
