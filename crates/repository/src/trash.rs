//! What stays between keeping and deleting: snapshots in the trash, and pins
//! (`docs/format.md`, "Trash and pins").

use std::collections::BTreeSet;

use edge::{Clock, Entropy, StoreFault};
use model::{Instant, SnapshotId};
use sealing::{ObjectKind, Right, open_single, seal_single};
use serde::{Deserialize, Serialize};

use crate::domain::{Domain, NameMismatch};
use crate::error::RepositoryError;
use crate::layout::{self, ObjectHash};
use crate::session::{About, Session, Task, choose_id};
use crate::snapshot::{SNAPSHOT_BYTES_MAX, Snapshot, id_of};

/// The longest reason of a pin.
const REASON_BYTES_MAX: usize = 1000;
/// The longest object of a pin.
pub(crate) const PIN_BYTES_MAX: u64 = 16 * 1024;

/// A snapshot that was let go and can be had back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trashed {
    /// What it was.
    pub snapshot: Snapshot,
    /// When it was let go.
    pub at: Instant,
}

/// Why a snapshot must stay, whatever the rules say.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pin {
    /// Which snapshot.
    pub snapshot: SnapshotId,
    /// Since when.
    pub at: Instant,
    /// Why.
    pub reason: String,
    /// Until when; for ever without.
    #[serde(default)]
    pub until: Option<Instant>,
}

impl Pin {
    /// True until it expires.
    #[must_use]
    pub fn holds(&self, now: Instant) -> bool {
        self.until.is_none_or(|until| now < until)
    }
}

impl Domain {
    /// Lets snapshots go for now: they are listed no more, and [`Domain::undelete`] brings them
    /// back until pruning finds them older than the time that it is given.
    ///
    /// # Errors
    ///
    /// `Damaged` when one cannot be read, `Store` when one cannot be moved.
    pub fn discard(&self, ids: &[SnapshotId], now: Instant) -> Result<(), RepositoryError> {
        let kind = ObjectKind::Snapshot;
        self.require(Right::Delete)?;
        for hash in self.hashes_of(ids)? {
            let bytes = self.get(kind, &hash, SNAPSHOT_BYTES_MAX)?;
            let name = layout::trash(self.id(), now.secs(), &hash);
            self.store().put(&name, &bytes)?;
            self.store().delete(&self.name(kind, &hash))?;
            self.trim_cache(kind, &|kept| *kept != hash);
        }
        Ok(())
    }

    /// Gives what is in the trash, the oldest loss first.
    ///
    /// # Errors
    ///
    /// `Damaged` when one cannot be read, or `Store`.
    pub fn trash(&self) -> Result<Vec<Trashed>, RepositoryError> {
        let here: Vec<_> = self.list(ObjectKind::Snapshot)?;
        let mut trashed: Vec<Trashed> = Vec::new();
        for (secs, hash) in self.list_trash()? {
            // A cut left it in both places: it was not let go.
            if here.iter().any(|(other, _)| *other == hash) {
                continue;
            }
            match self.read_trashed(secs, &hash) {
                // One that is being sealed again is there twice.
                Ok(snapshot) if trashed.iter().any(|one| one.snapshot.id == snapshot.id) => {}
                Ok(snapshot) => trashed.push(Trashed {
                    snapshot,
                    at: Instant::from_secs(secs),
                }),
                // Brought back or deleted since it was listed.
                Err(RepositoryError::Store(error)) if error.fault == StoreFault::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(trashed)
    }

    /// Brings a snapshot back from the trash.
    ///
    /// # Errors
    ///
    /// `NoSnapshot` when it is not there, `Damaged` or `Store`; `GivenUp` when packs that it needs
    /// were deleted meanwhile: then it is gone.
    pub fn undelete(
        &self,
        id: SnapshotId,
        clock: &dyn Clock,
        entropy: &dyn Entropy,
    ) -> Result<(), RepositoryError> {
        let kind = ObjectKind::Snapshot;
        self.require(Right::Delete)?;
        let session = Session::begin(
            self,
            &About {
                id: choose_id(entropy),
                task: Task::Undelete,
                schedule: "",
                host: "",
                clock,
                entropy,
            },
        )?;
        let mut is_back = false;
        for (secs, hash) in self.list_trash()? {
            if id_of(&hash) != id && self.epoch() == 0 {
                continue;
            }
            let name = layout::trash(self.id(), secs, &hash);
            let bytes = self.store().get(&name, SNAPSHOT_BYTES_MAX)?;
            if self.open_snapshot(&name, hash, &bytes)?.id != id {
                continue;
            }
            self.store().put(&self.name(kind, &hash), &bytes)?;
            session.confirm(&hash)?;
            self.store().delete(&name)?;
            is_back = true;
        }
        if is_back {
            Ok(())
        } else {
            let place = self.place();
            Err(RepositoryError::NoSnapshot { id, place })
        }
    }

    /// Gives the snapshots that are in the trash for less than `trash_secs`.
    pub(crate) fn young_trash(
        &self,
        trash_secs: u32,
        now: Instant,
    ) -> Result<Vec<Snapshot>, RepositoryError> {
        let mut young = Vec::new();
        for (secs, hash) in self.list_trash()? {
            if !is_over(secs, trash_secs, now) {
                young.push(self.read_trashed(secs, &hash)?);
            }
        }
        Ok(young)
    }

    /// Deletes the other ones; gives how many.
    pub(crate) fn empty_trash(
        &self,
        trash_secs: u32,
        now: Instant,
    ) -> Result<u64, RepositoryError> {
        let mut count = 0;
        for (secs, hash) in self.list_trash()? {
            if is_over(secs, trash_secs, now) {
                self.store()
                    .delete(&layout::trash(self.id(), secs, &hash))?;
                count += 1;
            }
        }
        Ok(count)
    }

    /// Gives the names of all snapshots, there and in the trash.
    pub(crate) fn snapshot_hashes(&self) -> Result<BTreeSet<ObjectHash>, RepositoryError> {
        let listed = self.list(ObjectKind::Snapshot)?;
        let mut hashes: BTreeSet<_> = listed.into_iter().map(|(hash, _)| hash).collect();
        hashes.extend(self.list_trash()?.into_iter().map(|(_, hash)| hash));
        Ok(hashes)
    }

    pub(crate) fn list_trash(&self) -> Result<Vec<(i64, ObjectHash)>, RepositoryError> {
        let mut found = Vec::new();
        let prefix = layout::prefix(self.id(), ObjectKind::Condemned);
        self.store().list(&prefix, &mut |info| {
            found.extend(layout::parse_trash(self.id(), &info.name));
        })?;
        found.sort_unstable();
        Ok(found)
    }

    fn read_trashed(&self, secs: i64, hash: &ObjectHash) -> Result<Snapshot, RepositoryError> {
        let name = layout::trash(self.id(), secs, hash);
        let bytes = self.store().get(&name, SNAPSHOT_BYTES_MAX)?;
        self.open_snapshot(&name, *hash, &bytes)
    }

    /// Keeps a snapshot whatever the rules say.
    ///
    /// # Errors
    ///
    /// `NoSnapshot` when there is none, `NoRight`, or `Store`.
    pub fn pin(&self, mut pin: Pin, entropy: &dyn Entropy) -> Result<(), RepositoryError> {
        let kind = ObjectKind::Pin;
        self.require(Right::Delete)?;
        self.snapshot(pin.snapshot)?;
        while pin.reason.len() > REASON_BYTES_MAX {
            pin.reason.pop();
        }
        let plaintext = serde_json::to_vec(&pin)
            .map_err(|error| self.damaged(kind, &ObjectHash::of(b""), error))?;
        let mut salt = [0; 32];
        entropy.fill(&mut salt);
        let sealed = seal_single(self.keyring(), kind, &salt, &plaintext)
            .map_err(RepositoryError::Sealing)?;
        let name = self.name(kind, &ObjectHash::of(&sealed));
        Ok(self.store().put(&name, &sealed)?)
    }

    /// Takes all pins off a snapshot; gives how many there were.
    ///
    /// # Errors
    ///
    /// `Damaged` when a pin cannot be read, or `Store`.
    pub fn unpin(&self, id: SnapshotId) -> Result<u64, RepositoryError> {
        self.require(Right::Delete)?;
        let mut count = 0;
        for (hash, pin) in self.list_pins()? {
            if pin.snapshot == id {
                self.store().delete(&self.name(ObjectKind::Pin, &hash))?;
                count += 1;
            }
        }
        Ok(count)
    }

    /// Gives all pins, expired ones too, the oldest first.
    ///
    /// # Errors
    ///
    /// `Damaged` when a pin cannot be read, or `Store`.
    pub fn pins(&self) -> Result<Vec<Pin>, RepositoryError> {
        let mut pins: Vec<_> = self.list_pins()?.into_iter().map(|(_, pin)| pin).collect();
        pins.sort_by_key(|pin| (pin.at, pin.snapshot));
        Ok(pins)
    }

    fn list_pins(&self) -> Result<Vec<(ObjectHash, Pin)>, RepositoryError> {
        let kind = ObjectKind::Pin;
        let mut pins = Vec::new();
        for (hash, _) in self.list(kind)? {
            let stored = match self.store().get(&self.name(kind, &hash), PIN_BYTES_MAX) {
                // Taken off since it was listed.
                Err(error) if error.fault == StoreFault::NotFound => continue,
                other => other?,
            };
            if ObjectHash::of(&stored) != hash {
                return Err(self.damaged(kind, &hash, NameMismatch));
            }
            let plaintext = open_single(self.keyring(), kind, &stored)
                .map_err(|error| self.damaged(kind, &hash, error))?;
            let pin = serde_json::from_slice(&plaintext)
                .map_err(|error| self.damaged(kind, &hash, error))?;
            pins.push((hash, pin));
        }
        Ok(pins)
    }
}

/// What was let go in the future was so by a wrong clock: it stays.
fn is_over(secs: i64, trash_secs: u32, now: Instant) -> bool {
    secs.saturating_add(trash_secs.into()) <= now.secs()
}
