//! Forgetting snapshots, and deleting packs that no snapshot needs any more, in two phases
//! (`docs/format.md`, "Deletion").
//!
//! The caller makes sure that no run of the domain writes meanwhile. Readers may.

use std::collections::{BTreeSet, HashSet};

use edge::{Clock, Entropy, Event, Monitor, Phase, StoreFault};
use model::{ByteCount, Instant, SnapshotId};
use sealing::{ChunkKind, ObjectKind, open_single, seal_single};
use serde::{Deserialize, Serialize};

use crate::backup::write_segment;
use crate::content::{Bytes, ChunkRef, decode_list};
use crate::domain::Domain;
use crate::error::{ReadError, RepositoryError};
use crate::index::Index;
use crate::layout::ObjectHash;
use crate::reader::ChunkReader;
use crate::retention::{Candidate, Keep, plan_retention};
use crate::snapshot::{SnapshotStatus, id_of};
use crate::tree::TreeWalk;

/// The longest object of condemned packs.
const CONDEMNED_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// The most packs that one object names; the rest is condemned by the next run.
const CONDEMNED_COUNT_MAX: usize = 50_000;

/// What pruning needs from outside.
#[derive(Clone, Copy)]
pub struct PruneOptions<'a> {
    /// How long condemned packs stay, for readers that began before; usually a day. With 0 they go
    /// at once.
    pub grace_secs: u32,
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
    /// Packs that were condemned and are still there.
    pub condemned_packs: u64,
    /// Condemned packs that were deleted.
    pub deleted_packs: u64,
    /// Bytes that their deletion freed.
    pub freed_bytes: ByteCount,
}

#[derive(Serialize, Deserialize)]
struct Condemned {
    at: Instant,
    packs: Vec<String>,
}

impl Domain {
    /// Forgets the snapshots that the rules let go; gives which.
    ///
    /// # Errors
    ///
    /// `Store` when snapshots cannot be listed or deleted.
    pub fn apply_retention(
        &self,
        keep: &Keep,
        now: Instant,
    ) -> Result<Vec<SnapshotId>, RepositoryError> {
        let list = self.snapshots()?;
        let candidates: Vec<_> = list
            .snapshots
            .iter()
            .map(|snapshot| Candidate {
                id: snapshot.id,
                at: snapshot.body.started_at,
                is_complete: snapshot.body.status == SnapshotStatus::Complete,
                is_pinned: false,
            })
            .collect();
        let gone = plan_retention(&candidates, keep, now).gone;
        self.forget(&gone)?;
        Ok(gone)
    }

    /// Forgets snapshots. What only they hold is deleted by later runs of [`Domain::prune`].
    ///
    /// # Errors
    ///
    /// `Store` when they cannot be listed or deleted.
    pub fn forget(&self, ids: &[SnapshotId]) -> Result<(), RepositoryError> {
        let kind = ObjectKind::Snapshot;
        for (hash, _) in self.list(kind)? {
            if ids.contains(&id_of(&hash)) {
                self.store().delete(&self.name(kind, &hash))?;
                self.trim_cache(kind, &|kept| *kept != hash);
            }
        }
        Ok(())
    }

    /// Deletes packs that were condemned at least the grace ago, and condemns those that no
    /// snapshot needs.
    ///
    /// # Errors
    ///
    /// Whatever keeps a snapshot, a page or the index from being read: then nothing is condemned.
    pub fn prune(&self, options: &PruneOptions<'_>) -> Result<PruneReport, RepositoryError> {
        options.monitor.event(Event::Phase(Phase::Pruning));
        let index = self.load_index()?;
        if let Some(damage) = index.damaged {
            return Err(damage);
        }
        let mut report = PruneReport::default();
        // First of all every snapshot must be whole: then what no index names is not needed.
        let needed = self.needed_packs(&index, options.monitor)?;
        self.delete_condemned(&index, options, &mut report)?;
        let dead: Vec<_> = (0_u32..)
            .zip(index.packs())
            .filter(|(ordinal, _)| !needed.contains(ordinal))
            .map(|(_, pack)| (pack.hash, pack.kind))
            .take(CONDEMNED_COUNT_MAX)
            .collect();
        if !dead.is_empty() {
            self.condemn(&index, &dead, options)?;
            report.condemned_packs = dead.len() as u64;
            if options.grace_secs == 0 {
                // No reader is waited for.
                self.delete_condemned(&self.load_index()?, options, &mut report)?;
                report.condemned_packs = 0;
            }
        }
        Ok(report)
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

    /// Finds the ordinals of all packs that hold a chunk which a snapshot reaches.
    fn needed_packs(
        &self,
        index: &Index,
        monitor: &dyn Monitor,
    ) -> Result<HashSet<u32>, RepositoryError> {
        let list = self.snapshots()?;
        if let Some(damage) = list.unreadable.into_iter().next() {
            return Err(damage);
        }
        let mut marks = Marks {
            index,
            seen: vec![false; index.records().len()],
            packs: HashSet::new(),
        };
        let mut reader = ChunkReader::new(self, index);
        for snapshot in &list.snapshots {
            let mut walk = TreeWalk::new(snapshot.root, Vec::new());
            loop {
                if monitor.is_cancelled() {
                    return Err(RepositoryError::Cancelled);
                }
                let mut lost = None;
                let node = walk.next_visiting(&mut reader, &mut |page| match marks.mark(page) {
                    Ok(is_new) => is_new,
                    Err(error) => {
                        lost = Some(error);
                        false
                    }
                });
                if let Some(error) = lost {
                    return Err(error.into());
                }
                let Some(node) = node.map_err(|lost| *lost.error)? else {
                    break;
                };
                if let Some(content) = &node.content {
                    marks.content(&content.bytes, &mut reader)?;
                }
            }
        }
        Ok(marks.packs)
    }

    fn condemn(
        &self,
        index: &Index,
        dead: &[(ObjectHash, ObjectKind)],
        options: &PruneOptions<'_>,
    ) -> Result<(), RepositoryError> {
        let kind = ObjectKind::Condemned;
        let condemned = Condemned {
            at: options.clock.now(),
            packs: dead
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
        self.store().put(&name, &sealed)?;
        let gone: BTreeSet<_> = dead.iter().map(|(hash, _)| *hash).collect();
        let (packs, records) = index.without(&|pack| gone.contains(&pack.hash));
        write_segment(self, (&packs, &records), &index.segments, options.entropy)?;
        for hash in &index.segments {
            self.store()
                .delete(&self.name(ObjectKind::IndexSegment, hash))?;
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

/// Which chunks were reached, and in which packs.
struct Marks<'a> {
    index: &'a Index,
    seen: Vec<bool>,
    packs: HashSet<u32>,
}

impl Marks<'_> {
    /// Marks a chunk; true when it was not marked before.
    fn mark(&mut self, id: &sealing::ChunkId) -> Result<bool, ReadError> {
        let unknown = || ReadError::Unknown { chunk: *id };
        let position = self.index.position(id).ok_or_else(unknown)?;
        let record = self.index.records().get(position).ok_or_else(unknown)?;
        self.packs.insert(record.pack);
        let seen = self.seen.get_mut(position).ok_or_else(unknown)?;
        Ok(!std::mem::replace(seen, true))
    }

    fn content(&mut self, bytes: &Bytes, reader: &mut ChunkReader<'_>) -> Result<(), ReadError> {
        let Bytes::Chunks { depth, list } = bytes else {
            return Ok(());
        };
        self.list(*depth, list, reader)
    }

    /// Marks a list and, level by level, the lists that it names.
    fn list(
        &mut self,
        depth: u8,
        list: &[ChunkRef],
        reader: &mut ChunkReader<'_>,
    ) -> Result<(), ReadError> {
        let mut level = list.to_vec();
        for below in (0..=depth).rev() {
            let mut bytes = Vec::new();
            for chunk in &level {
                self.mark(&chunk.id)?;
                if below > 0 {
                    bytes.extend(reader.read(ChunkKind::List, &chunk.id)?);
                }
            }
            let Some(first) = level.first().map(|chunk| chunk.id) else {
                return Ok(());
            };
            if below > 0 {
                level = decode_list(&bytes).map_err(|source| ReadError::Format {
                    chunk: first,
                    source,
                })?;
            }
        }
        Ok(())
    }
}
