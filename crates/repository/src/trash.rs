//! What stays between keeping and deleting: snapshots in the trash, and pins
//! (`docs/format.md`, "Trash and pins").

use std::collections::BTreeSet;

use edge::{Clock, Entropy};
use model::{Instant, SnapshotId};
use sealing::{ObjectKind, Right, open_single, seal_single};
use serde::{Deserialize, Serialize};

use crate::domain::Domain;
use crate::error::RepositoryError;
use crate::in_order::{READERS, in_order};
use crate::layout::{self, ObjectHash};
use crate::session::{About, Session, Task, choose_id};
use crate::snapshot::{SNAPSHOT_BYTES_MAX, Snapshot, id_of};

/// The longest reason of a pin.
const REASON_BYTES_MAX: usize = 1000;
/// The longest object of a pin.
const PIN_BYTES_MAX: u64 = 16 * 1024;

/// A snapshot that was let go and can be had back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trashed {
    /// What it was.
    pub snapshot: Snapshot,
    /// When it was let go.
    pub at: Instant,
}

/// What is in the trash of a domain.
#[derive(Debug, Default)]
pub struct TrashList {
    /// What can be had back, the oldest loss first.
    pub trashed: Vec<Trashed>,
    /// What cannot be read.
    pub unreadable: Vec<RepositoryError>,
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
        let list = self.trash_list()?;
        match list.unreadable.into_iter().next() {
            Some(error) => Err(error),
            None => Ok(list.trashed),
        }
    }

    /// Gives what is in the trash as far as it can be read.
    ///
    /// # Errors
    ///
    /// `Store`; one that cannot be read is part of the list.
    pub fn trash_list(&self) -> Result<TrashList, RepositoryError> {
        let here: Vec<_> = self.list(ObjectKind::Snapshot)?;
        let mut list = TrashList::default();
        let trashed = &mut list.trashed;
        let mut wanted = self.list_trash()?;
        // A cut left it in both places: it was not let go.
        wanted.retain(|(_, hash)| here.iter().all(|(other, _)| other != hash));
        let read = |(secs, hash): &(i64, ObjectHash), (): &mut ()| self.read_trashed(*secs, hash);
        in_order(&wanted, READERS, &read, &mut |(secs, _), snapshot| {
            match snapshot {
                // One that is being sealed again is there twice.
                Ok(snapshot) if trashed.iter().any(|one| one.snapshot.id == snapshot.id) => {}
                Ok(snapshot) => trashed.push(Trashed {
                    snapshot,
                    at: Instant::from_secs(*secs),
                }),
                // Brought back or deleted since it was listed.
                Err(RepositoryError::NoSnapshot { .. }) => {}
                Err(error @ RepositoryError::Store(_)) => return Err(error),
                Err(error) => list.unreadable.push(error),
            }
            Ok(())
        })?;
        Ok(list)
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
            let bytes = match self.read_beside(&name, Some(&hash), SNAPSHOT_BYTES_MAX) {
                // That another one is damaged keeps this one from nothing.
                Err(error) if error.is_wreck() && id_of(&hash) != id => continue,
                other => other?,
            };
            let Some(bytes) = bytes else { continue };
            match self.open_snapshot(&name, hash, &bytes) {
                Ok(found) if found.id == id => {}
                Err(error) if id_of(&hash) == id => return Err(error),
                _ => continue,
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

    /// Reads a snapshot in the trash; `NoSnapshot` when it is gone.
    pub(crate) fn read_trashed(
        &self,
        secs: i64,
        hash: &ObjectHash,
    ) -> Result<Snapshot, RepositoryError> {
        let name = layout::trash(self.id(), secs, hash);
        let bytes = self.read_beside(&name, Some(hash), SNAPSHOT_BYTES_MAX)?;
        let bytes = bytes.ok_or_else(|| RepositoryError::NoSnapshot {
            id: id_of(hash),
            place: self.place(),
        })?;
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

    /// Takes all pins off a snapshot; gives how many there were. What pins are damaged for good is
    /// left to [`Domain::delete_wrecks`].
    ///
    /// # Errors
    ///
    /// `Damaged` when a newer program may have written a pin, or `Store`.
    pub fn unpin(&self, id: SnapshotId) -> Result<u64, RepositoryError> {
        self.require(Right::Delete)?;
        let mut count = 0;
        for (hash, _) in self.list(ObjectKind::Pin)? {
            let pin = match self.read_pin(&hash) {
                Err(error) if error.is_wreck() => continue,
                other => other?,
            };
            if pin.is_some_and(|pin| pin.snapshot == id) {
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
        let mut pins = Vec::new();
        for (hash, _) in self.list(ObjectKind::Pin)? {
            pins.extend(self.read_pin(&hash)?);
        }
        pins.sort_by_key(|pin| (pin.at, pin.snapshot));
        Ok(pins)
    }

    /// Reads a pin; `None` when it was taken off since it was listed.
    pub(crate) fn read_pin(&self, hash: &ObjectHash) -> Result<Option<Pin>, RepositoryError> {
        let kind = ObjectKind::Pin;
        let name = self.name(kind, hash);
        let Some(stored) = self.read_beside(&name, Some(hash), PIN_BYTES_MAX)? else {
            return Ok(None);
        };
        let plaintext = open_single(self.keyring(), kind, &stored)
            .map_err(|error| self.damaged(kind, hash, error))?;
        let pin =
            serde_json::from_slice(&plaintext).map_err(|error| self.damaged(kind, hash, error))?;
        Ok(Some(pin))
    }
}

/// What was let go in the future was so by a wrong clock: it stays.
fn is_over(secs: i64, trash_secs: u32, now: Instant) -> bool {
    secs.saturating_add(trash_secs.into()) <= now.secs()
}
