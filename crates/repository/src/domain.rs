//! A domain at one place: opening it, reading its objects, its snapshots and its index.

use std::fmt;
use std::sync::Arc;

use edge::{Entropy, ObjectName, ObjectStore, Scratch, StoreError, StoreFault};
use model::{ByteCount, DomainId, SnapshotId};
use sealing::{
    Keyring, ObjectKind, SLOT_BYTES_MAX, ScheduleKey, SlotError, open_single, open_slot_with_key,
    seal_slot_for_key,
};
use serde::{Deserialize, Serialize};

use crate::error::RepositoryError;
use crate::layout::{self, CONFIG_BYTES_MAX, ObjectHash};
use crate::snapshot::{SNAPSHOT_BYTES_MAX, Snapshot};
use crate::throttle::SlowReads;

const FORMAT: &str = "backstay-repository";
const VERSION: u64 = 1;

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
    /// `NoRepository`, `WrongKey`, `Version`, `Damaged` when its slot is, or `Store`.
    pub fn open(store: Arc<dyn ObjectStore>, key: &ScheduleKey) -> Result<Self, RepositoryError> {
        check_config(&*store)?;
        let name = find_slot(&*store, key)?.ok_or_else(|| RepositoryError::WrongKey {
            place: store.describe(),
        })?;
        let slot = store.get(&name, SLOT_BYTES_MAX as u64)?;
        let keyring = open_slot_with_key(&slot, key).map_err(|error| match error {
            SlotError::WrongKey => RepositoryError::WrongKey {
                place: store.describe(),
            },
            error => damaged(&*store, name, error),
        })?;
        Ok(Self {
            store,
            cache: None,
            scratch: None,
            keyring,
        })
    }

    /// Opens the domain of a schedule key, and begins it, and the repository, where there is none
    /// yet. The label is for people who look at the slots.
    ///
    /// # Errors
    ///
    /// As [`Domain::open`], without `NoRepository` and `WrongKey`.
    pub fn create(
        store: Arc<dyn ObjectStore>,
        key: &ScheduleKey,
        entropy: &dyn Entropy,
        label: &str,
    ) -> Result<Self, RepositoryError> {
        match Self::open(store.clone(), key) {
            Err(RepositoryError::NoRepository { .. }) => {
                let config = Config {
                    format: FORMAT.to_owned(),
                    version: VERSION,
                };
                let text = serde_json::to_vec(&config)
                    .map_err(|error| damaged(&*store, layout::config(), error))?;
                store.put(&layout::config(), &text)?;
            }
            Err(RepositoryError::WrongKey { .. }) => {}
            other => return other,
        }
        let keyring = Keyring::first(key, label);
        let domain = Self {
            store,
            cache: None,
            scratch: None,
            keyring,
        };
        domain.add_key(key, entropy)?;
        Ok(domain)
    }

    /// Lets another schedule key open this domain too.
    ///
    /// # Errors
    ///
    /// `Store` when the slot cannot be written.
    pub fn add_key(&self, key: &ScheduleKey, entropy: &dyn Entropy) -> Result<(), RepositoryError> {
        let mut nonce = [0; 24];
        entropy.fill(&mut nonce);
        let name = layout::slot(self.id(), key.slot_name());
        let slot = seal_slot_for_key(&self.keyring, key, &nonce)
            .map_err(|error| damaged(&*self.store, name.clone(), error))?;
        Ok(self.store.put(&name, &slot)?)
    }

    /// Takes the right to open this domain from a schedule key. What it opened and copied before
    /// stays readable to it.
    ///
    /// # Errors
    ///
    /// `Store` when the slot cannot be deleted.
    pub fn remove_key(&self, key: &ScheduleKey) -> Result<(), RepositoryError> {
        Ok(self
            .store
            .delete(&layout::slot(self.id(), key.slot_name()))?)
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
        let mut list = SnapshotList::default();
        for (hash, _) in self.list(ObjectKind::Snapshot)? {
            match self.read_snapshot(hash) {
                Ok(snapshot) => list.snapshots.push(snapshot),
                // Forgotten since it was listed.
                Err(RepositoryError::Store(error)) if error.fault == StoreFault::NotFound => {}
                Err(error) => list.unreadable.push(error),
            }
        }
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
        let found = self
            .list(ObjectKind::Snapshot)?
            .into_iter()
            .find(|(hash, _)| crate::snapshot::id_of(hash) == id);
        let (hash, _) = found.ok_or_else(|| RepositoryError::NoSnapshot {
            id,
            place: self.place(),
        })?;
        self.read_snapshot(hash)
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
        let wrong = |error: Box<dyn std::error::Error + Send + Sync>| RepositoryError::Damaged {
            object: name.clone(),
            place: self.place(),
            source: error,
        };
        if ObjectHash::of(stored) != hash {
            return Err(wrong(Box::new(NameMismatch)));
        }
        let plaintext = open_single(&self.keyring, ObjectKind::Snapshot, stored)
            .map_err(|error| wrong(Box::new(error)))?;
        Snapshot::decode(hash, &plaintext).map_err(|error| wrong(Box::new(error)))
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
        if let Some(cache) = &self.cache {
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

    pub(crate) fn damaged(
        &self,
        kind: ObjectKind,
        hash: &ObjectHash,
        source: impl std::error::Error + Send + Sync + 'static,
    ) -> RepositoryError {
        damaged(&*self.store, self.name(kind, hash), source)
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

fn damaged(
    store: &dyn ObjectStore,
    object: ObjectName,
    source: impl std::error::Error + Send + Sync + 'static,
) -> RepositoryError {
    RepositoryError::Damaged {
        object,
        place: store.describe(),
        source: Box::new(source),
    }
}

fn check_config(store: &dyn ObjectStore) -> Result<(), RepositoryError> {
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
    if config.format == FORMAT && config.version == VERSION {
        Ok(())
    } else {
        Err(RepositoryError::Version {
            place: store.describe(),
            version: config.version,
        })
    }
}

/// Finds the slot of a key: in the domain that it began, or else in any.
fn find_slot(
    store: &dyn ObjectStore,
    key: &ScheduleKey,
) -> Result<Option<ObjectName>, RepositoryError> {
    let own = layout::slot(key.domain_id(), key.slot_name());
    if store.size(&own)?.is_some() {
        return Ok(Some(own));
    }
    let ending = format!("/{}", key.slot_name());
    let mut found = None;
    store.list("k/", &mut |info| {
        if info.name.as_str().ends_with(&ending) {
            found = Some(info.name);
        }
    })?;
    Ok(found)
}
