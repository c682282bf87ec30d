//! One replica during a run: its index, and whether it still takes part.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use edge::{ByteRange, Clock, Entropy, Event, Monitor, ObjectName, StoreError};
use model::{DestinationName, Instant, SessionId};
use sealing::{ChunkId, ObjectKind, Right};

use super::held::Held;
use super::indexer::Indexed;
use super::local::LocalState;
use super::{BackupOptions, REPLICA_COUNT_MAX, Replica};
use crate::checkpoint::Checkpoint;
use crate::container::{TAIL_BYTES_FIRST, Tail, open_tail};
use crate::domain::Domain;
use crate::error::{RepositoryError, chain, is_loss};
use crate::index::{Doomed, Index, PackInfo, Prefix, Record, SegmentInfo, prefix_of, records_of};
use crate::layout::ObjectHash;
use crate::pack::{FrameEntry, decode_trailer};
use crate::session::{About, Present, Session, Task};

/// Packs that a listing lacks and that are asked for one by one.
const ASKED_FOR_MAX: usize = 10_000;

/// One replica of the run.
pub(super) struct Copy {
    pub(super) name: DestinationName,
    pub(super) domain: Domain,
    pub(super) index: Index,
    /// What stands for the last snapshot where that cannot be read.
    pub(super) local: Option<LocalState>,
    /// Says that this run relies on what is there. None until it looks.
    session: Option<Session>,
    /// When another run of this schedule began that is at work, too, and gave its last sign.
    pub(super) twin: Option<(Instant, Instant)>,
    /// Its bit in a set of replicas.
    pub(super) bit: u32,
    /// Chunks that the index names but that cannot be read: they are stored again.
    bad: Mutex<HashSet<Prefix>>,
    /// Chunks that a check found damaged and that still are. Unlike the others they stay in the
    /// index until they are stored again: their pack may be healed from another place.
    noted: HashSet<Prefix>,
    has_bad: AtomicBool,
    /// A snapshot that need not be looked for chunk by chunk.
    held: Option<Held>,
    /// Packs that have another length than they should. What is whole in them stays readable.
    pub(super) cut: BTreeSet<ObjectHash>,
    is_dead: AtomicBool,
    error: Mutex<Option<RepositoryError>>,
    stored_bytes: AtomicU64,
    pub(super) indexed: Mutex<Indexed>,
    /// Checkpoints of cut runs, until one is continued.
    found_checkpoints: Mutex<Vec<Checkpoint>>,
    /// The names of all of them, and of this run's last one.
    checkpoints: Mutex<Vec<ObjectName>>,
    own_checkpoint: Mutex<Option<ObjectName>>,
}

impl Copy {
    pub(super) fn is_live(&self) -> bool {
        !self.is_dead.load(Ordering::Acquire)
    }

    /// Takes the replica out of the run. The first reason counts.
    pub(super) fn fail(&self, error: RepositoryError, monitor: &dyn Monitor) {
        if self.is_dead.swap(true, Ordering::AcqRel) {
            return;
        }
        monitor.event(Event::DestinationLost {
            destination: &self.name,
            error: &chain(&error),
        });
        *self.error.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
    }

    pub(super) fn take_error(&self) -> Option<RepositoryError> {
        self.error
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    }

    pub(super) fn stored_bytes(&self) -> u64 {
        self.stored_bytes.load(Ordering::Acquire)
    }

    pub(super) fn contains(&self, id: &ChunkId) -> bool {
        self.index.contains(id)
            && !self.is_noted(id)
            && !(self.has_bad.load(Ordering::Acquire) && self.bad_chunks().contains(&prefix_of(id)))
    }

    /// Gives what is known of a snapshot as a whole: that everything it needs is here, but perhaps
    /// these chunks.
    pub(super) fn holds_all_but(&self, snapshot: &ObjectHash) -> Option<&HashSet<Prefix>> {
        let held = self.held.as_ref()?;
        (held.snapshot == *snapshot && self.is_sound()).then_some(&held.exceptions)
    }

    /// True while all that the index names can be read, as far as this run knows.
    pub(super) fn is_sound(&self) -> bool {
        self.is_live() && self.noted.is_empty() && !self.has_bad.load(Ordering::Acquire)
    }

    /// True for a chunk that a check found damaged.
    fn is_noted(&self, id: &ChunkId) -> bool {
        !self.noted.is_empty() && self.noted.contains(&prefix_of(id))
    }

    /// True when this run stored again what a check found damaged.
    pub(super) fn restores_noted(&self, new: &Index) -> Result<bool, RepositoryError> {
        let mut restores = false;
        if !self.noted.is_empty() {
            new.each_record(&mut |_, record| {
                restores |= self.noted.contains(&record.prefix);
                Ok(())
            })?;
        }
        Ok(restores)
    }

    pub(super) fn has_noted(&self) -> bool {
        !self.noted.is_empty()
    }

    /// Looks at the packs that a check found damaged. A note is deleted once nothing is lost with
    /// its pack any more.
    fn look_at_damage(&mut self) -> Result<(), RepositoryError> {
        for (note, hash) in self.domain.noted_damage()? {
            let ordinal = self.index.packs().iter().position(|pack| pack.hash == hash);
            let mut lost = Vec::new();
            if let Some(ordinal) = ordinal
                && let Some(pack) = self.index.packs().get(ordinal)
            {
                let mut own = Vec::new();
                self.index.each_record(&mut |_, record| {
                    own.extend((usize::try_from(record.pack) == Ok(ordinal)).then_some(record));
                    Ok(())
                })?;
                lost = crate::check::lost_of(&self.domain, pack, &own)?;
            }
            if lost.is_empty() {
                self.domain.store().delete(&note)?;
            }
            self.noted.extend(lost);
        }
        Ok(())
    }

    /// Notes that a chunk, and so its frame, cannot be read here: this run stores again what it
    /// needs of it.
    pub(super) fn mark_bad(&self, id: &ChunkId) {
        let Some(lost) = self.index.find(id) else {
            return;
        };
        let mut bad = self.bad_chunks();
        let found = self.index.each_record(&mut |_, record| {
            if (record.pack, record.frame()) == (lost.pack, lost.frame()) {
                bad.insert(record.prefix);
            }
            Ok(())
        });
        if found.is_err() {
            bad.insert(lost.prefix);
        }
        drop(bad);
        self.has_bad.store(true, Ordering::Release);
    }

    pub(super) fn bad_chunks(&self) -> MutexGuard<'_, HashSet<Prefix>> {
        self.bad.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells other writers from time to time that the run is still at work.
    pub(super) fn beat(&self, options: &BackupOptions<'_>) {
        if let Some(session) = &self.session {
            session.beat(options.clock, options.entropy);
        }
    }

    /// Begins the session; gives the packs that this run may not rely on.
    fn begin_session(
        &mut self,
        options: &BackupOptions<'_>,
        id: SessionId,
    ) -> Result<BTreeSet<ObjectHash>, RepositoryError> {
        let about = About {
            id,
            task: Task::Backup,
            schedule: options.schedule,
            host: options.host,
            clock: options.clock,
            entropy: options.entropy,
        };
        let session = Session::begin(&self.domain, &about)?;
        let packs = session.condemned().iter().flat_map(|one| &one.packs);
        let packs = packs.map(|(hash, _)| *hash).collect();
        let now = options.clock.now();
        let twin = |other: &Present| {
            other
                .twin_of(options.schedule, options.host, now)
                .map(|body| (body.started_at, body.at))
        };
        self.twin = session.beside().iter().find_map(twin);
        self.session = Some(session);
        Ok(packs)
    }

    /// Makes sure, after a snapshot was stored, that whoever deletes packs knows of it.
    pub(super) fn confirm(&self, snapshot: &ObjectHash) -> Result<(), RepositoryError> {
        let session = self.session.as_ref();
        session.map_or(Ok(()), |session| session.confirm(snapshot))
    }

    /// Stores an object here.
    pub(super) fn put(
        &self,
        kind: ObjectKind,
        hash: &ObjectHash,
        bytes: &[u8],
    ) -> Result<(), StoreError> {
        self.domain
            .store()
            .put(&self.domain.name(kind, hash), bytes)?;
        self.stored_bytes
            .fetch_add(bytes.len() as u64, Ordering::AcqRel);
        Ok(())
    }

    /// Stores an index here, then deletes the segments that it replaces.
    pub(super) fn put_index(
        &self,
        index: &Index,
        replaced: &[ObjectHash],
        (clock, entropy): (&dyn Clock, &dyn Entropy),
    ) -> Result<Vec<SegmentInfo>, RepositoryError> {
        self.ensure_stored(index, clock)?;
        let written = self.domain.write_index(index, replaced, entropy)?;
        self.stored_bytes.fetch_add(written.bytes, Ordering::AcqRel);
        let kind = ObjectKind::IndexSegment;
        let may_delete = self.domain.rights().has(Right::Delete);
        for hash in replaced.iter().filter(|_| may_delete) {
            self.domain.store().delete(&self.domain.name(kind, hash))?;
        }
        Ok(written.segments)
    }

    /// Makes sure, after this run was given up, that an index that it writes names no pack that was
    /// deleted since.
    fn ensure_stored(&self, index: &Index, clock: &dyn Clock) -> Result<(), RepositoryError> {
        let is_waited_for = |session: &Session| session.is_still_waited_for(clock);
        if self.session.as_ref().map_or(Ok(true), is_waited_for)? {
            return Ok(());
        }
        let condemned = self.domain.condemned_packs()?;
        let is_going = |pack: &PackInfo| condemned.contains(&pack.hash);
        if index.packs().iter().any(is_going)
            || !lost_packs(&self.domain, index, &list_packs(&self.domain)?)?.is_empty()
        {
            let place = self.domain.place();
            return Err(RepositoryError::GivenUp { place });
        }
        Ok(())
    }

    /// Stores a checkpoint in the place of this run's last one.
    pub(super) fn put_checkpoint(&self, name: ObjectName, bytes: &[u8]) -> Result<(), StoreError> {
        self.domain.store().put(&name, bytes)?;
        self.stored_bytes
            .fetch_add(bytes.len() as u64, Ordering::AcqRel);
        let before = lock(&self.own_checkpoint).replace(name.clone());
        match before.filter(|before| *before != name) {
            Some(before) => self.domain.store().delete(&before),
            None => Ok(()),
        }
    }

    pub(super) fn take_found_checkpoints(&self) -> Vec<Checkpoint> {
        std::mem::take(&mut *lock(&self.found_checkpoints))
    }

    /// Deletes all checkpoints, once there is a snapshot. One that stays is deleted by the next run.
    pub(super) fn delete_checkpoints(&self) {
        let found = std::mem::take(&mut *lock(&self.checkpoints));
        let own = lock(&self.own_checkpoint).take();
        for name in found.into_iter().chain(own) {
            drop(self.domain.store().delete(&name));
        }
    }

    /// Reads the index, corrects it by what is really stored, and takes up packs that a cut run
    /// left behind.
    fn load(
        &mut self,
        options: &BackupOptions<'_>,
        session: SessionId,
    ) -> Result<(), RepositoryError> {
        let condemned = self.begin_session(options, session)?;
        let (names, found) = self.domain.checkpoints()?;
        *lock(&self.checkpoints) = names;
        *lock(&self.found_checkpoints) = found;
        let mut doomed: Doomed = condemned.clone();
        self.index = self.domain.load_index_without(&doomed)?;
        let stored = list_packs(&self.domain)?;
        let size = |pack: &PackInfo| stored.get(&(pack.hash, pack.kind)).copied();
        let lost = lost_packs(&self.domain, &self.index, &stored)?;
        if !lost.is_empty() {
            // Of a chunk in a lost pack and another one, the index must know the other.
            doomed.extend(&lost);
            self.index = self.domain.load_index_without(&doomed)?;
        }
        let given = (options.clock, options.entropy);
        let must_rewrite = self.index.damaged.is_some() || !lost.is_empty();
        let mut adopted = Index::new(self.domain.scratch().cloned());
        for ((hash, kind), size) in &stored {
            if !self.index.has_all_of(hash)
                && !condemned.contains(hash)
                && let Some((info, records)) = read_pack(&self.domain, *kind, *hash, *size)?
            {
                adopted.add(vec![info], records)?;
            }
        }
        adopted.sort()?;
        if must_rewrite {
            let is_lost = |pack: &PackInfo| lost.contains(&pack.hash);
            self.index.remove_packs(&is_lost, &mut |_, _| {})?;
            self.index.add_from(&adopted, &|_| true)?;
            self.index.sort()?;
            let mut all = self.domain.load_all_places()?;
            all.remove_packs(&is_lost, &mut |_, _| {})?;
            all.add_from(&adopted, &|_| true)?;
            all.sort()?;
            let replaced = all.segment_hashes();
            self.index.segments = self.put_index(&all, &replaced, given)?;
            self.index.damaged = None;
        } else if !adopted.packs().is_empty() {
            let mut segments = self.put_index(&adopted, &[], given)?;
            self.index.add_from(&adopted, &|_| true)?;
            self.index.sort()?;
            self.index.segments.append(&mut segments);
        }
        let is_cut = |pack: &&PackInfo| size(pack).is_some_and(|size| size != pack.size);
        let cut = self.index.packs().iter().filter(is_cut);
        self.cut = cut.map(|pack| pack.hash).collect();
        self.mark_cut()?;
        self.look_at_damage()?;
        self.held = Held::read(&self.domain, &self.index);
        Ok(())
    }

    /// What is in packs of the wrong length is stored again as far as this run needs it.
    fn mark_cut(&self) -> Result<(), RepositoryError> {
        if self.cut.is_empty() {
            return Ok(());
        }
        let mut bad = self.bad_chunks();
        self.index.each_record(&mut |_, record| {
            let pack = self.index.pack(record.pack);
            if pack.is_some_and(|pack| self.cut.contains(&pack.hash)) {
                bad.insert(record.prefix);
            }
            Ok(())
        })?;
        drop(bad);
        self.has_bad.store(true, Ordering::Release);
        Ok(())
    }

    /// Takes packs of the wrong length out of an index that finds nothing in them any more.
    pub(super) fn drop_cut(&self, index: &mut Index) -> Result<(), RepositoryError> {
        if self.cut.is_empty() {
            return Ok(());
        }
        let mut needed = BTreeSet::new();
        index.each_record(&mut |_, record| {
            needed.extend(index.pack(record.pack).map(|pack| pack.hash));
            Ok(())
        })?;
        let is_over =
            |pack: &PackInfo| self.cut.contains(&pack.hash) && !needed.contains(&pack.hash);
        index.remove_packs(&is_over, &mut |_, _| {})
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Opens all replicas; one that cannot be used is dead from the start.
pub(super) fn open_all(
    replicas: Vec<Replica>,
    options: &BackupOptions<'_>,
    session: SessionId,
) -> Vec<Copy> {
    let mut copies: Vec<Copy> = Vec::new();
    for (number, replica) in replicas.into_iter().enumerate() {
        let domain = match options.tuning.limits.download_per_sec {
            Some(rate) => replica.domain.with_slow_reads(rate),
            None => replica.domain,
        };
        let mut copy = Copy {
            name: replica.name,
            domain,
            index: Index::default(),
            local: None,
            session: None,
            twin: None,
            bit: u32::try_from(number)
                .ok()
                .and_then(|n| 1_u32.checked_shl(n))
                .unwrap_or(0),
            bad: Mutex::default(),
            noted: HashSet::new(),
            has_bad: AtomicBool::new(false),
            held: None,
            cut: BTreeSet::new(),
            is_dead: AtomicBool::new(false),
            error: Mutex::new(None),
            stored_bytes: AtomicU64::new(0),
            indexed: Mutex::default(),
            found_checkpoints: Mutex::default(),
            checkpoints: Mutex::default(),
            own_checkpoint: Mutex::default(),
        };
        let first = copies.first().map_or(&copy, |first| first);
        let is_copy = first.domain.keyring().is_same_domain(copy.domain.keyring());
        let place = copy.domain.place();
        let result = if !copy.domain.rights().has(Right::Add) {
            let right = Right::Add;
            Err(RepositoryError::NoRight { right, place })
        } else if is_copy && number < REPLICA_COUNT_MAX {
            copy.local = LocalState::open(&copy.domain, options.entropy);
            copy.load(options, session)
        } else if first.domain.id() == copy.domain.id() {
            Err(RepositoryError::OtherCopy { place })
        } else {
            Err(RepositoryError::WrongKey { place })
        };
        if let Err(error) = result {
            copy.fail(error, options.monitor);
        }
        copies.push(copy);
    }
    copies
}

/// Lists all packs with their sizes.
pub(crate) fn list_packs(
    domain: &Domain,
) -> Result<BTreeMap<(ObjectHash, ObjectKind), u64>, StoreError> {
    let mut stored = BTreeMap::new();
    for kind in [ObjectKind::DataPack, ObjectKind::MetadataPack] {
        let listed = domain.list(kind)?;
        stored.extend(listed.into_iter().map(|(hash, size)| ((hash, kind), size)));
    }
    Ok(stored)
}

/// What the end of a pack says.
pub(crate) struct PackTrailer {
    origin: (u32, [u8; 32]),
    pub(crate) frames: Vec<FrameEntry>,
}

/// Reads what a pack says of itself, or `None` when it is damaged.
pub(crate) fn read_pack(
    domain: &Domain,
    kind: ObjectKind,
    hash: ObjectHash,
    size: u64,
) -> Result<Option<(PackInfo, Vec<Record>)>, StoreError> {
    let trailer = read_trailer(domain, kind, &hash)?;
    Ok(trailer.map(|trailer| {
        let records = records_of(0, &trailer.frames);
        (trailer.info(kind, hash, size), records)
    }))
}

impl PackTrailer {
    /// Gives what an index knows of the pack.
    pub(crate) fn info(&self, kind: ObjectKind, hash: ObjectHash, size: u64) -> PackInfo {
        let (epoch, salt) = self.origin;
        PackInfo {
            hash,
            kind,
            epoch,
            salt,
            size,
            frames: self.frames.iter().map(|frame| frame.shape).collect(),
        }
    }
}

/// Reads the trailer of a pack, or `None` when it is damaged.
pub(crate) fn read_trailer(
    domain: &Domain,
    kind: ObjectKind,
    hash: &ObjectHash,
) -> Result<Option<PackTrailer>, StoreError> {
    let name = domain.name(kind, hash);
    let mut length = TAIL_BYTES_FIRST;
    for _ in 0..2 {
        let end = match domain
            .store()
            .get_range(&name, ByteRange::Suffix { length })
        {
            Err(error) if is_loss(&error) => return Ok(None),
            end => end?,
        };
        match open_tail(domain.keyring(), kind, &end) {
            Ok(Tail::Longer(needed)) if needed > length => length = needed,
            Ok(Tail::Trailer { cipher, trailer }) => {
                let (Ok(origin), Ok(frames)) = (cipher.origin(), decode_trailer(&trailer)) else {
                    return Ok(None);
                };
                return Ok(Some(PackTrailer { origin, frames }));
            }
            Ok(Tail::Longer(_)) | Err(_) => return Ok(None),
        }
    }
    Ok(None)
}

/// Gives the packs that an index names and that are gone. A listing may be late: where it lacks
/// one, the place is asked for the pack itself, unless so many lack that something else is wrong.
pub(crate) fn lost_packs(
    domain: &Domain,
    index: &Index,
    stored: &BTreeMap<(ObjectHash, ObjectKind), u64>,
) -> Result<BTreeSet<ObjectHash>, StoreError> {
    let mut lost = BTreeSet::new();
    let is_missing = |pack: &&PackInfo| !stored.contains_key(&(pack.hash, pack.kind));
    for (number, pack) in index.packs().iter().filter(is_missing).enumerate() {
        let name = domain.name(pack.kind, &pack.hash);
        if number >= ASKED_FOR_MAX || domain.store().size(&name)?.is_none() {
            lost.insert(pack.hash);
        }
    }
    Ok(lost)
}

/// Removes from the caches what no replica has any more.
pub(super) fn trim_caches(copies: &[Copy], new: &BTreeSet<ObjectHash>) {
    for copy in copies.iter().filter(|copy| copy.is_live()) {
        copy.domain.trim_cache(ObjectKind::MetadataPack, &|hash| {
            new.contains(hash) || copies.iter().any(|copy| copy.index.has_pack(hash))
        });
        copy.domain.trim_cache(ObjectKind::IndexSegment, &|hash| {
            let is_it = |segment: &SegmentInfo| segment.hash == *hash;
            new.contains(hash)
                || copies
                    .iter()
                    .any(|copy| copy.index.segments.iter().any(is_it))
        });
    }
}
