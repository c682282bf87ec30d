//! Deleting packs that no snapshot needs any more, in two phases, and moving what is needed out of
//! packs that are mostly not (`docs/format.md`, "Deletion").
//!
//! The caller makes sure that no run of the domain writes meanwhile. Readers may.

mod mark;
mod repack;

use std::collections::BTreeSet;

use edge::{Clock, Entropy, Event, Monitor, Phase, StoreFault};
use model::{ByteCount, Instant, SnapshotId};
use sealing::{ObjectKind, Right, open_single, seal_single};
use serde::{Deserialize, Serialize};

use crate::backup::list_packs;
use crate::domain::Domain;
use crate::error::RepositoryError;
use crate::index::Index;
use crate::layout::ObjectHash;
use crate::snapshot::Snapshot;
pub(crate) use mark::Marker;
use mark::Usage;
use repack::Moved;
pub use repack::Repack;

/// The longest object of condemned packs.
pub(crate) const CONDEMNED_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// The most packs that one object names; the rest is condemned by the next run.
const CONDEMNED_COUNT_MAX: usize = 50_000;

/// What pruning needs from outside.
#[derive(Clone, Copy)]
pub struct PruneOptions<'a> {
    /// How long condemned packs stay, for readers that began before; usually a day. With 0 they go
    /// at once.
    pub grace_secs: u32,
    /// How long discarded snapshots stay in the trash.
    pub trash_secs: u32,
    /// Also condemn packs that no index names. A run takes them up, so not before the next one.
    pub strays: bool,
    /// How much to move out of partly needed packs; nothing when there is no value.
    pub repack: Option<Repack>,
    /// Tells the time.
    pub clock: &'a dyn Clock,
    /// Gives salts.
    pub entropy: &'a dyn Entropy,
    /// Hears of the work and may stop it.
    pub monitor: &'a dyn Monitor,
}

/// What pruning did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PruneReport {
    /// Snapshots that were in the trash for long enough and can be had back no more.
    pub expired_snapshots: u64,
    /// Packs that were condemned and are still there.
    pub condemned_packs: u64,
    /// Condemned packs that were deleted.
    pub deleted_packs: u64,
    /// Bytes that their deletion freed.
    pub freed_bytes: ByteCount,
    /// Packs of which everything needed was moved elsewhere. They are among the condemned.
    pub emptied_packs: u64,
    /// Bytes stored anew by that.
    pub moved_bytes: ByteCount,
    /// Partly needed packs that cannot be read and therefore stay.
    pub unreadable_packs: u64,
    /// Moving ended before all was done, for its limits or for lack of space.
    pub is_cut_short: bool,
    /// Bytes that nobody needs in packs that are needed for others.
    pub waste_bytes: ByteCount,
}

/// What the loss of snapshots would free.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Freed {
    /// Packs that nothing would need any more.
    pub packs: u64,
    /// Their bytes.
    pub bytes: ByteCount,
    /// Bytes that nobody would need any more in packs that stay; repacking frees them. Of parts
    /// that are compressed together it is the share.
    pub partly_bytes: ByteCount,
}

#[derive(Serialize, Deserialize)]
pub(crate) struct Condemned {
    at: Instant,
    packs: Vec<String>,
}

impl Domain {
    /// Deletes packs that were condemned at least the grace ago, condemns those that no snapshot
    /// needs, and then, if asked, those whose needed chunks it moves into new ones.
    ///
    /// # Errors
    ///
    /// Whatever keeps a snapshot, a page or the index from being read: then nothing is condemned.
    /// What keeps a pack from being stored ends the moving; what was moved before counts.
    pub fn prune(&self, options: &PruneOptions<'_>) -> Result<PruneReport, RepositoryError> {
        self.require(Right::Delete)?;
        options.monitor.event(Event::Phase(Phase::Pruning));
        let mut index = self.load_index()?;
        if let Some(damage) = index.damaged {
            return Err(damage);
        }
        let mut report = PruneReport::default();
        // First of all every snapshot must be whole: then what no index names is not needed.
        let mut marker = Marker::new(self, &index);
        let now = options.clock.now();
        let in_trash = self.young_trash(options.trash_secs, now)?;
        for snapshot in self.needing()?.iter().chain(&in_trash) {
            marker.snapshot(snapshot, options.monitor)?;
        }
        self.mark_checkpoints(&mut marker, now, options.monitor)?;
        let mut bits = marker.into_bits();
        report.expired_snapshots = self.empty_trash(options.trash_secs, now)?;
        self.delete_condemned(&index, options, &mut report)?;
        let usage = Usage::of(&index, &bits)?;
        let dead: Vec<_> = (0_usize..)
            .zip(index.packs())
            .filter(|(ordinal, _)| usage.chunks(*ordinal) == 0)
            .map(|(_, pack)| (pack.hash, pack.kind))
            .take(CONDEMNED_COUNT_MAX)
            .collect();
        drop(usage);
        if !dead.is_empty() {
            self.condemn(&dead, options)?;
            index.remove_packs(&Index::among(&dead), &mut |from, to| bits.follow(from, to))?;
            self.replace_segments(&mut index, options)?;
            report.condemned_packs += dead.len() as u64;
            self.delete_at_once(&index, options, &mut report)?;
        }
        let usage = Usage::of(&index, &bits)?;
        let waste = (0..index.packs().len()).map(|ordinal| usage.waste(ordinal));
        report.waste_bytes = ByteCount::new(waste.sum());
        if let Some(limits) = options.repack {
            let moved = repack::repack(self, &index, (&bits, &usage), options, limits);
            drop((usage, bits));
            self.publish_moved(&mut index, moved, options, &mut report)?;
        }
        if options.strays {
            self.condemn_strays(&index, options, &mut report)?;
        }
        Ok(report)
    }

    /// Says what pruning could delete if these snapshots were gone for good, and could not before.
    /// What is in the trash counts as needed.
    ///
    /// # Errors
    ///
    /// Whatever keeps a snapshot, a page or the index from being read.
    pub fn freed_without(
        &self,
        gone: &[SnapshotId],
        monitor: &dyn Monitor,
    ) -> Result<Freed, RepositoryError> {
        let index = self.load_index()?;
        if let Some(damage) = index.damaged {
            return Err(damage);
        }
        let (going, kept): (Vec<_>, Vec<_>) = self
            .needing()?
            .into_iter()
            .partition(|snapshot| gone.contains(&snapshot.id));
        let mut marker = Marker::new(self, &index);
        let trash = self.trash()?.into_iter().map(|trashed| trashed.snapshot);
        for snapshot in kept.into_iter().chain(trash) {
            marker.snapshot(&snapshot, monitor)?;
        }
        let after = Usage::of(&index, marker.bits())?;
        for snapshot in &going {
            marker.snapshot(snapshot, monitor)?;
        }
        let before = Usage::of(&index, marker.bits())?;
        let mut freed = Freed::default();
        for ordinal in 0..index.packs().len() {
            let more = after.waste(ordinal).saturating_sub(before.waste(ordinal));
            if after.chunks(ordinal) > 0 {
                freed.partly_bytes += ByteCount::new(more);
            } else if before.chunks(ordinal) > 0 {
                freed.packs += 1;
                let pack = index.packs().get(ordinal);
                freed.bytes += ByteCount::new(pack.map_or(0, |pack| pack.size));
            }
        }
        Ok(freed)
    }

    /// Gives all snapshots whose content must stay.
    fn needing(&self) -> Result<Vec<Snapshot>, RepositoryError> {
        let list = self.snapshots()?;
        match list.unreadable.into_iter().next() {
            Some(damage) => Err(damage),
            None => Ok(list.snapshots),
        }
    }

    /// New packs come first, then the old ones are condemned, then the index changes: a cut
    /// between leaves old packs that are needed, or new ones that no index names.
    fn publish_moved(
        &self,
        index: &mut Index,
        moved: Moved,
        options: &PruneOptions<'_>,
        report: &mut PruneReport,
    ) -> Result<(), RepositoryError> {
        report.unreadable_packs = moved.unreadable;
        report.is_cut_short = moved.is_cut_short;
        let moved_bytes = ByteCount::new(moved.bytes());
        let error = moved.error.map_or(Ok(()), Err);
        if moved.emptied.is_empty() {
            // They hold nothing but second copies.
            for pack in &moved.packs {
                self.store().delete(&self.name(pack.kind, &pack.hash))?;
            }
            return error;
        }
        for emptied in moved.emptied.chunks(CONDEMNED_COUNT_MAX) {
            self.condemn(emptied, options)?;
        }
        index.remove_packs(&Index::among(&moved.emptied), &mut |_, _| {})?;
        index.add(moved.packs, moved.records)?;
        index.sort()?;
        self.replace_segments(index, options)?;
        report.emptied_packs = moved.emptied.len() as u64;
        report.condemned_packs += report.emptied_packs;
        report.moved_bytes = moved_bytes;
        report.waste_bytes = ByteCount::new(report.waste_bytes.get().saturating_sub(moved.waste));
        self.delete_at_once(index, options, report)?;
        error
    }

    /// Condemns packs that no index names and that no run took up. A run that is still at work
    /// elsewhere may have stored them, so they are never deleted at once.
    fn condemn_strays(
        &self,
        index: &Index,
        options: &PruneOptions<'_>,
        report: &mut PruneReport,
    ) -> Result<(), RepositoryError> {
        let condemned = condemned_packs(self)?;
        let strays: Vec<_> = list_packs(self)?
            .into_keys()
            .filter(|(hash, _)| !index.has_pack(hash) && !condemned.contains(hash))
            .take(CONDEMNED_COUNT_MAX)
            .collect();
        if !strays.is_empty() {
            self.condemn(&strays, options)?;
            report.condemned_packs += strays.len() as u64;
        }
        Ok(())
    }

    /// Stores which packs are about to be deleted.
    fn condemn(
        &self,
        packs: &[(ObjectHash, ObjectKind)],
        options: &PruneOptions<'_>,
    ) -> Result<(), RepositoryError> {
        let kind = ObjectKind::Condemned;
        let condemned = Condemned {
            at: options.clock.now(),
            packs: packs
                .iter()
                .map(|(hash, kind)| pack_text(*kind, hash))
                .collect(),
        };
        let plaintext = serde_json::to_vec(&condemned)
            .map_err(|error| self.damaged(kind, &ObjectHash::of(b""), error))?;
        let mut salt = [0; 32];
        options.entropy.fill(&mut salt);
        let sealed = seal_single(self.keyring(), kind, &salt, &plaintext)
            .map_err(RepositoryError::Sealing)?;
        let name = self.name(kind, &ObjectHash::of(&sealed));
        Ok(self.store().put(&name, &sealed)?)
    }

    /// Writes the index in place of all segments that it was read from.
    fn replace_segments(
        &self,
        index: &mut Index,
        options: &PruneOptions<'_>,
    ) -> Result<(), RepositoryError> {
        let replaced = index.segment_hashes();
        let written = self.write_index(index, &replaced, options.entropy)?;
        index.segments = written.segments;
        for hash in replaced {
            self.store()
                .delete(&self.name(ObjectKind::IndexSegment, &hash))?;
        }
        Ok(())
    }

    /// With no grace no reader is waited for.
    fn delete_at_once(
        &self,
        index: &Index,
        options: &PruneOptions<'_>,
        report: &mut PruneReport,
    ) -> Result<(), RepositoryError> {
        if options.grace_secs == 0 {
            self.delete_condemned(index, options, report)?;
            report.condemned_packs = 0;
        }
        Ok(())
    }

    fn delete_condemned(
        &self,
        index: &Index,
        options: &PruneOptions<'_>,
        report: &mut PruneReport,
    ) -> Result<(), RepositoryError> {
        let kind = ObjectKind::Condemned;
        for (hash, _) in self.list(kind)? {
            let condemned = self.read_condemned(&hash)?;
            let ends = condemned.at.plus_secs(options.grace_secs.into());
            if options.clock.now() < ends {
                continue;
            }
            for text in &condemned.packs {
                let Some((kind, pack)) = parse_pack(text) else {
                    continue;
                };
                // Named again since: a run that was cut before it wrote the smaller index.
                if index.has_pack(&pack) {
                    continue;
                }
                let name = self.name(kind, &pack);
                if let Some(size) = self.store().size(&name)? {
                    self.store().delete(&name)?;
                    report.deleted_packs += 1;
                    report.freed_bytes += ByteCount::new(size);
                }
            }
            self.store().delete(&self.name(kind, &hash))?;
        }
        Ok(())
    }

    fn read_condemned(&self, hash: &ObjectHash) -> Result<Condemned, RepositoryError> {
        let kind = ObjectKind::Condemned;
        let stored = self
            .store()
            .get(&self.name(kind, hash), CONDEMNED_BYTES_MAX)?;
        let plaintext = open_single(self.keyring(), kind, &stored)
            .map_err(|error| self.damaged(kind, hash, error))?;
        serde_json::from_slice(&plaintext).map_err(|error| self.damaged(kind, hash, error))
    }
}

/// Gives the packs that are condemned.
pub(crate) fn condemned_packs(domain: &Domain) -> Result<BTreeSet<ObjectHash>, RepositoryError> {
    let mut packs = BTreeSet::new();
    for (hash, _) in domain.list(ObjectKind::Condemned)? {
        match domain.read_condemned(&hash) {
            Ok(condemned) => {
                let parsed = condemned.packs.iter().filter_map(|text| parse_pack(text));
                packs.extend(parsed.map(|(_, hash)| hash));
            }
            // Deleted since it was listed.
            Err(RepositoryError::Store(error)) if error.fault == StoreFault::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(packs)
}

fn pack_text(kind: ObjectKind, hash: &ObjectHash) -> String {
    let letter = if kind == ObjectKind::DataPack {
        'p'
    } else {
        'm'
    };
    format!("{letter}/{hash}")
}

fn parse_pack(text: &str) -> Option<(ObjectKind, ObjectHash)> {
    let (letter, hash) = text.split_once('/')?;
    let kind = match letter {
        "p" => ObjectKind::DataPack,
        "m" => ObjectKind::MetadataPack,
        _ => return None,
    };
    Some((kind, ObjectHash::parse(hash)?))
}
