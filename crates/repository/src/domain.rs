//! A domain at one place: opening it, reading its objects, its snapshots and its index.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use edge::{Entropy, ObjectName, ObjectStore, Scratch, StoreError, StoreFault};
use model::{ByteCount, DomainId, SnapshotId};
use sealing::{
    Keyring, KeyringError, ObjectError, ObjectKind, Right, Rights, ScheduleKey, SlotError,
    SlotName, open_single, sealed_by,
};
use serde::{Deserialize, Serialize};

use crate::error::RepositoryError;
use crate::in_order::{READERS, in_order};
use crate::layout::{self, CONFIG_BYTES_MAX, ObjectHash};
use crate::slots::{self, Unlock};
use crate::snapshot::{SNAPSHOT_BYTES_MAX, Snapshot, id_of};
use crate::throttle::SlowReads;

const FORMAT: &str = "backstay-repository";
/// The version of the format.
pub const VERSION: u64 = 1;

#[derive(Serialize, Deserialize)]
pub(crate) struct Config {
    format: String,
    version: u64,
}

/// One domain of the repository at one place.
#[derive(Clone)]
pub struct Domain {
    store: Arc<dyn ObjectStore>,
    cache: Option<Arc<dyn ObjectStore>>,
    scratch: Option<Arc<dyn Scratch>>,
    keyring: Keyring,
    slot: SlotName,
}

/// The snapshots of a domain at one place.
#[derive(Debug, Default)]
pub struct SnapshotList {
    /// Those that can be read, oldest first.
    pub snapshots: Vec<Snapshot>,
    /// What could not be read.
    pub unreadable: Vec<RepositoryError>,
}

impl Domain {
    /// Opens the domain of a schedule key.
    ///
    /// # Errors
    ///
    /// As [`Domain::open_with`].
    pub fn open(store: Arc<dyn ObjectStore>, key: &ScheduleKey) -> Result<Self, RepositoryError> {
        Self::open_with(store, &Unlock::Key(key))
    }

    /// Opens the domain of a schedule key or password.
    ///
    /// # Errors
    ///
    /// `NoRepository`, `WrongKey`, `KeyGone` when the key began a domain and was taken from it,
    /// `WrongPassword`, `Version`, `Newer`, `Damaged` when its slot is, or `Store`.
    pub fn open_with(
        store: Arc<dyn ObjectStore>,
        unlock: &Unlock<'_>,
    ) -> Result<Self, RepositoryError> {
        check_config(&*store)?;
        let (slot, keyring) = slots::find(&*store, unlock)?;
        Ok(Self {
            store,
            cache: None,
            scratch: None,
            keyring,
            slot,
        })
    }

    /// Opens the domain of a schedule key, and begins it, and the repository, where there is none
    /// yet. The label is for people who look at the slots.
    ///
    /// # Errors
    ///
    /// As [`Domain::begin`].
    pub fn create(
        store: Arc<dyn ObjectStore>,
        key: &ScheduleKey,
        entropy: &dyn Entropy,
        label: &str,
    ) -> Result<Self, RepositoryError> {
        Ok(Self::begin(store, &Unlock::Key(key), entropy, label)?.0)
    }

    /// Opens the domain of a schedule key or password, and begins it, and the repository, where
    /// there is none yet; then true.
    ///
    /// # Errors
    ///
    /// As [`Domain::open_with`], without `NoRepository`, `WrongKey` and `WrongPassword`.
    pub fn begin(
        store: Arc<dyn ObjectStore>,
        unlock: &Unlock<'_>,
        entropy: &dyn Entropy,
        label: &str,
    ) -> Result<(Self, bool), RepositoryError> {
        match Self::open_with(store.clone(), unlock) {
            Err(RepositoryError::NoRepository { .. }) => {
                let config = Config {
                    format: FORMAT.to_owned(),
                    version: VERSION,
                };
                let text = serde_json::to_vec(&config)
                    .map_err(|error| damaged(&*store, layout::config(), error))?;
                store.put(&layout::config(), &text)?;
            }
            Err(RepositoryError::WrongKey { .. } | RepositoryError::WrongPassword { .. }) => {}
            other => return other.map(|domain| (domain, false)),
        }
        let mut domain = Self {
            keyring: slots::first_keyring(unlock, entropy, label),
            slot: SlotName::from_bytes([0; 16]),
            store,
            cache: None,
            scratch: None,
        };
        domain.slot = domain.add_slot(unlock, Rights::ALL, entropy)?;
        Ok((domain, true))
    }

    /// Keeps copies of index segments, metadata and snapshots in a nearer store. Everything in it
    /// may be lost, old or damaged at any time.
    #[must_use]
    pub fn with_cache(self, cache: Arc<dyn ObjectStore>) -> Self {
        Self {
            cache: Some(cache),
            ..self
        }
    }

    /// Keeps what of a large index memory should not hold in scratch files. Without them it is all
    /// in memory: 32 bytes for each chunk.
    #[must_use]
    pub fn with_scratch(self, scratch: Arc<dyn Scratch>) -> Self {
        Self {
            scratch: Some(scratch),
            ..self
        }
    }

    /// Reads no more than so many bytes in a second from here on. What the cache holds is free.
    #[must_use]
    pub fn with_slow_reads(self, per_sec: ByteCount) -> Self {
        Self {
            store: Arc::new(SlowReads::new(self.store, per_sec)),
            ..self
        }
    }

    /// Gives the id of the domain.
    #[must_use]
    pub const fn id(&self) -> DomainId {
        self.keyring.domain()
    }

    /// Gives the label that the domain was begun with.
    #[must_use]
    pub fn label(&self) -> &str {
        self.keyring.label()
    }

    /// Gives what the slot that was opened allows.
    #[must_use]
    pub const fn rights(&self) -> Rights {
        self.keyring.rights()
    }

    /// Gives the number of the newest epoch that the slot knows.
    #[must_use]
    pub fn epoch(&self) -> u32 {
        self.keyring.epoch()
    }

    /// Gives the name of the slot that was opened.
    #[must_use]
    pub const fn slot(&self) -> SlotName {
        self.slot
    }

    /// Makes sure that the slot that was opened allows something.
    pub(crate) fn require(&self, right: Right) -> Result<(), RepositoryError> {
        if self.keyring.rights().has(right) {
            return Ok(());
        }
        let place = self.place();
        Err(RepositoryError::NoRight { right, place })
    }

    pub(crate) fn with_keyring(&self, keyring: Keyring, slot: SlotName) -> Self {
        Self {
            keyring,
            slot,
            ..self.clone()
        }
    }

    /// Gives the domain at another place, without a cache.
    pub(crate) fn at(self, store: Arc<dyn ObjectStore>) -> Self {
        Self {
            store,
            cache: None,
            ..self
        }
    }

    /// Names the place, for messages.
    #[must_use]
    pub fn place(&self) -> String {
        self.store.describe()
    }

    /// Reads all snapshots.
    ///
    /// # Errors
    ///
    /// `Store` when they cannot be listed; a snapshot that cannot be read is part of the list.
    pub fn snapshots(&self) -> Result<SnapshotList, RepositoryError> {
        self.require(Right::Read)?;
        let mut list = SnapshotList::default();
        let mut known = BTreeSet::new();
        let read = |(hash, _): &(ObjectHash, u64), (): &mut ()| self.read_snapshot(*hash);
        let listed = self.list(ObjectKind::Snapshot)?;
        in_order(&listed, READERS, &read, &mut |_, snapshot| {
            match snapshot {
                // One that is being sealed again is there twice.
                Ok(snapshot) if !known.insert(snapshot.id) => {}
                Ok(snapshot) => list.snapshots.push(snapshot),
                // Forgotten since it was listed.
                Err(RepositoryError::Store(error)) if error.fault == StoreFault::NotFound => {}
                Err(error) => list.unreadable.push(error),
            }
            Ok::<_, RepositoryError>(())
        })?;
        list.snapshots
            .sort_by_key(|snapshot| (snapshot.body.started_at, snapshot.id));
        Ok(list)
    }

    /// Reads one snapshot.
    ///
    /// # Errors
    ///
    /// `NoSnapshot`, `Damaged` or `Store`.
    pub fn snapshot(&self, id: SnapshotId) -> Result<Snapshot, RepositoryError> {
        self.require(Right::Read)?;
        let found = self.hashes_of(&[id])?;
        let hash = found.first().ok_or_else(|| RepositoryError::NoSnapshot {
            id,
            place: self.place(),
        })?;
        self.read_snapshot(*hash)
    }

    /// Gives the names of the stored objects of some snapshots.
    pub(crate) fn hashes_of(&self, ids: &[SnapshotId]) -> Result<Vec<ObjectHash>, RepositoryError> {
        let mut found = Vec::new();
        for (hash, _) in self.list(ObjectKind::Snapshot)? {
            // Only in a later epoch is a snapshot there under another name than its id says.
            let is_one = ids.contains(&id_of(&hash))
                || self.epoch() > 0
                    && self
                        .read_snapshot(hash)
                        .is_ok_and(|snapshot| ids.contains(&snapshot.id));
            if is_one {
                found.push(hash);
            }
        }
        Ok(found)
    }

    pub(crate) fn read_snapshot(&self, hash: ObjectHash) -> Result<Snapshot, RepositoryError> {
        let stored = self.get(ObjectKind::Snapshot, &hash, SNAPSHOT_BYTES_MAX)?;
        self.open_snapshot(&self.name(ObjectKind::Snapshot, &hash), hash, &stored)
    }

    /// Opens the bytes of a snapshot that were stored under a name, and verifies their hash.
    pub(crate) fn open_snapshot(
        &self,
        name: &ObjectName,
        hash: ObjectHash,
        stored: &[u8],
    ) -> Result<Snapshot, RepositoryError> {
        if ObjectHash::of(stored) != hash {
            return Err(damaged(&*self.store, name.clone(), NameMismatch));
        }
        let plaintext = open_single(&self.keyring, ObjectKind::Snapshot, stored)
            .map_err(|error| damaged(&*self.store, name.clone(), error))?;
        let is_by_reader = sealed_by(stored).is_ok_and(|(_, is_by_reader)| is_by_reader);
        Snapshot::decode(hash, &plaintext, is_by_reader)
            .map_err(|error| damaged(&*self.store, name.clone(), error))
    }

    /// Lists the objects of a kind with their sizes, sorted.
    pub(crate) fn list(&self, kind: ObjectKind) -> Result<Vec<(ObjectHash, u64)>, StoreError> {
        let mut found = Vec::new();
        self.store
            .list(&layout::prefix(self.id(), kind), &mut |info| {
                if let Some(hash) = layout::parse(self.id(), kind, &info.name) {
                    found.push((hash, info.size_bytes));
                }
            })?;
        found.sort_unstable();
        Ok(found)
    }

    /// Reads a content-named object whole, from the cache if it holds it, and verifies its name.
    pub(crate) fn get(
        &self,
        kind: ObjectKind,
        hash: &ObjectHash,
        bytes_max: u64,
    ) -> Result<Vec<u8>, RepositoryError> {
        let name = self.name(kind, hash);
        let cached = self
            .cache
            .as_ref()
            .and_then(|cache| cache.get(&name, bytes_max).ok());
        if let Some(bytes) = cached.filter(|bytes| ObjectHash::of(bytes) == *hash) {
            return Ok(bytes);
        }
        let bytes = self.store.get(&name, bytes_max)?;
        if ObjectHash::of(&bytes) != *hash {
            return Err(damaged(&*self.store, name, NameMismatch));
        }
        self.keep_in_cache(kind, hash, &bytes);
        Ok(bytes)
    }

    /// Puts a copy into the cache. That this fails hurts nothing but speed.
    pub(crate) fn keep_in_cache(&self, kind: ObjectKind, hash: &ObjectHash, bytes: &[u8]) {
        // What cannot be opened again is not worth its room.
        let is_of_use = kind == ObjectKind::IndexSegment || self.rights().has(Right::Read);
        if let Some(cache) = self.cache.as_ref().filter(|_| is_of_use) {
            drop(cache.put(&self.name(kind, hash), bytes));
        }
    }

    /// Removes copies from the cache that `is_kept` does not want any more.
    pub(crate) fn trim_cache(&self, kind: ObjectKind, is_kept: &dyn Fn(&ObjectHash) -> bool) {
        let Some(cache) = &self.cache else { return };
        let mut gone = Vec::new();
        let listed = cache.list(&layout::prefix(self.id(), kind), &mut |info| {
            if layout::parse(self.id(), kind, &info.name).is_none_or(|hash| !is_kept(&hash)) {
                gone.push(info.name);
            }
        });
        if listed.is_ok() {
            gone.iter().for_each(|name| drop(cache.delete(name)));
        }
    }

    pub(crate) fn name(&self, kind: ObjectKind, hash: &ObjectHash) -> ObjectName {
        layout::object(self.id(), kind, hash)
    }

    pub(crate) const fn store(&self) -> &Arc<dyn ObjectStore> {
        &self.store
    }

    pub(crate) const fn cache(&self) -> Option<&Arc<dyn ObjectStore>> {
        self.cache.as_ref()
    }

    pub(crate) const fn scratch(&self) -> Option<&Arc<dyn Scratch>> {
        self.scratch.as_ref()
    }

    pub(crate) const fn keyring(&self) -> &Keyring {
        &self.keyring
    }

    /// Says that an object is damaged, unless the key has no right to it.
    pub(crate) fn damaged_or_refused(
        &self,
        name: &ObjectName,
        source: impl std::error::Error + Send + Sync + 'static,
    ) -> RepositoryError {
        damaged_or_refused(&*self.store, name.clone(), source)
    }

    pub(crate) fn damaged(
        &self,
        kind: ObjectKind,
        hash: &ObjectHash,
        source: impl std::error::Error + Send + Sync + 'static,
    ) -> RepositoryError {
        damaged_or_refused(&*self.store, self.name(kind, hash), source)
    }
}

impl fmt::Debug for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Domain({} at {})", self.id(), self.place())
    }
}

#[derive(Debug, thiserror::Error)]
#[error("its bytes do not hash to its name")]
pub(crate) struct NameMismatch;

/// Says what is wrong with an object whose bytes are those that were stored: that it is damaged,
/// unless the cause says otherwise.
pub(crate) fn damaged(
    store: &dyn ObjectStore,
    object: ObjectName,
    source: impl std::error::Error + Send + Sync + 'static,
) -> RepositoryError {
    let cause: &(dyn std::error::Error + 'static) = &source;
    let is_newer = matches!(
        cause.downcast_ref(),
        Some(ObjectError::Version(_) | ObjectError::Suite(_))
    ) || matches!(
        cause.downcast_ref(),
        Some(
            SlotError::Version(_)
                | SlotError::Kind(_)
                | SlotError::Keyring(KeyringError::Version(_))
        )
    );
    if is_newer {
        return RepositoryError::Newer {
            object,
            place: store.describe(),
            source: Box::new(source),
        };
    }
    damaged_or_refused(store, object, source)
}

/// The same for bytes that nobody vouches for: damage may look like a newer form.
fn damaged_or_refused(
    store: &dyn ObjectStore,
    object: ObjectName,
    source: impl std::error::Error + Send + Sync + 'static,
) -> RepositoryError {
    let place = store.describe();
    let cause: &(dyn std::error::Error + 'static) = &source;
    if let Some(ObjectError::Right(right)) = cause.downcast_ref() {
        let right = *right;
        return RepositoryError::NoRight { right, place };
    }
    RepositoryError::Damaged {
        object,
        place,
        source: Box::new(source),
    }
}

/// Makes sure that the place holds a repository that this program knows.
pub(crate) fn check_config(store: &dyn ObjectStore) -> Result<(), RepositoryError> {
    let text = match store.get(&layout::config(), CONFIG_BYTES_MAX) {
        Err(error) if error.fault == StoreFault::NotFound => {
            return Err(RepositoryError::NoRepository {
                place: store.describe(),
            });
        }
        other => other?,
    };
    let config: Config =
        serde_json::from_slice(&text).map_err(|error| damaged(store, layout::config(), error))?;
    let place = store.describe();
    if config.format != FORMAT {
        return Err(RepositoryError::NoRepository { place });
    }
    if config.version != VERSION {
        let version = config.version;
        return Err(RepositoryError::Version { place, version });
    }
    Ok(())
}
