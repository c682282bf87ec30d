//! Slots: who may open a domain, with a schedule key or a password (`docs/format.md`, "Keys").
//!
//! A slot is stored, read back and opened before the one that it replaces is deleted, so that a
//! cut at any instant leaves a way in.

use std::collections::VecDeque;

use edge::{Entropy, ObjectName, ObjectStore, StoreError, StoreFault};
use model::{DomainId, Secret};
use sealing::{
    Keyring, PasswordCost, Right, Rights, SLOT_BYTES_MAX, ScheduleKey, SlotError, SlotLock,
    SlotName, open_slot_with_key, open_slot_with_password, seal_slot_for_key,
    seal_slot_for_password, slot_lock,
};

use crate::domain::{Domain, damaged};
use crate::error::RepositoryError;
use crate::layout;

/// The most slots that a password is tried at: each try costs time and memory.
const PASSWORD_TRIES_MAX: usize = 32;

/// What opens a domain.
#[derive(Debug, Clone, Copy)]
pub enum Unlock<'a> {
    /// A schedule key.
    Key(&'a ScheduleKey),
    /// A password.
    Password(&'a Secret),
}

/// One slot as everybody sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SlotRow {
    /// Its name.
    pub name: SlotName,
    /// What opens it and what it says that it allows; nothing when it cannot be understood.
    pub tells: Option<(SlotLock, Rights)>,
    /// True for the one that was opened.
    pub is_own: bool,
}

impl SlotRow {
    /// True for the slot of the key that everybody knows.
    #[must_use]
    pub fn is_published(&self) -> bool {
        self.name == ScheduleKey::published().slot_name()
    }
}

impl Domain {
    /// Lists the slots of the domain, by name.
    ///
    /// # Errors
    ///
    /// `Store` when they cannot be read.
    pub fn slots(&self) -> Result<Vec<SlotRow>, RepositoryError> {
        let mut rows = Vec::new();
        for (_, name, object) in list(&**self.store(), &format!("k/{}/", self.id()))? {
            let slot = match self.store().get(&object, SLOT_BYTES_MAX as u64) {
                // Taken away since it was listed.
                Err(error) if error.fault == StoreFault::NotFound => continue,
                Err(error) if error.fault == StoreFault::Malformed => Vec::new(),
                other => other?,
            };
            rows.push(SlotRow {
                name,
                tells: slot_lock(&slot).ok(),
                is_own: name == self.slot(),
            });
        }
        Ok(rows)
    }

    /// Lets something more open this domain, with all or some of the rights of the slot that was
    /// opened.
    ///
    /// # Errors
    ///
    /// `NoRight` when those do not include `rights`, `SlotTaken` when the key opens it already, or
    /// `Store`.
    pub fn add_slot(
        &self,
        unlock: &Unlock<'_>,
        rights: Rights,
        entropy: &dyn Entropy,
    ) -> Result<SlotName, RepositoryError> {
        for right in [Right::Add, Right::Read, Right::Delete] {
            if rights.has(right) {
                self.require(right)?;
            }
        }
        if let Unlock::Key(key) = unlock
            && find(&**self.store(), unlock).is_ok_and(|(name, _)| name == key.slot_name())
        {
            return Err(RepositoryError::SlotTaken {
                place: self.place(),
            });
        }
        let keyring = self.keyring().with_rights(rights);
        let keyring = keyring.map_err(|error| self.slot_problem(self.slot(), error.into()))?;
        self.store_slot(&keyring, unlock, entropy)
    }

    /// Takes a slot away. What it opened and somebody copied stays readable to them.
    ///
    /// # Errors
    ///
    /// `NoSlot`, `LastSlot`, `NoRight`, or `Store` when it cannot be deleted.
    pub fn remove_slot(&self, name: SlotName) -> Result<(), RepositoryError> {
        self.require(Right::Delete)?;
        let rows = self.slots()?;
        let (slot, place) = (name.to_string(), self.place());
        if !rows.iter().any(|row| row.name == name) {
            return Err(RepositoryError::NoSlot { slot, place });
        }
        let is_full = |row: &SlotRow| row.tells.is_some_and(|(_, rights)| rights == Rights::ALL);
        if !rows.iter().any(|row| row.name != name && is_full(row)) {
            return Err(RepositoryError::LastSlot { slot, place });
        }
        Ok(self.store().delete(&layout::slot(self.id(), name))?)
    }

    /// Puts a slot for something else in the place of the one that was opened; gives the domain as
    /// the new one opens it. What the old one opened and somebody copied stays readable to them.
    ///
    /// # Errors
    ///
    /// `SlotTaken`, `NoRight` without the right to delete, or `Store`.
    pub fn replace_slot(
        &self,
        unlock: &Unlock<'_>,
        entropy: &dyn Entropy,
    ) -> Result<Self, RepositoryError> {
        self.require(Right::Delete)?;
        let name = self.add_slot(unlock, self.rights(), entropy)?;
        self.store().delete(&layout::slot(self.id(), self.slot()))?;
        Ok(self.with_keyring(self.keyring().clone(), name))
    }

    /// Begins an epoch with a new key: what is stored from now on, the keys before do not open. All
    /// other slots are taken away. When this was cut, doing it again with the same key finishes it.
    ///
    /// # Errors
    ///
    /// `NoRight` without all rights, `SlotTaken` when the key is one that opens the domain now, or
    /// `Store`.
    pub fn begin_epoch(
        &self,
        key: &ScheduleKey,
        entropy: &dyn Entropy,
    ) -> Result<Self, RepositoryError> {
        for right in [Right::Add, Right::Read, Right::Delete] {
            self.require(right)?;
        }
        let unlock = Unlock::Key(key);
        let mut keyring = self.keyring().clone();
        let added = keyring.add_epoch(key);
        added.map_err(|error| self.slot_problem(key.slot_name(), error.into()))?;
        let name = match find(&**self.store(), &unlock) {
            Err(RepositoryError::WrongKey { .. }) => self.store_slot(&keyring, &unlock, entropy)?,
            Ok((name, there)) if there.is_same_domain(&keyring) => name,
            Ok(_) => {
                return Err(RepositoryError::SlotTaken {
                    place: self.place(),
                });
            }
            Err(error) => return Err(error),
        };
        for row in self.slots()?.iter().filter(|row| row.name != name) {
            self.store().delete(&layout::slot(self.id(), row.name))?;
        }
        Ok(self.with_keyring(keyring, name))
    }

    /// Stores a slot, reads it back and opens it.
    fn store_slot(
        &self,
        keyring: &Keyring,
        unlock: &Unlock<'_>,
        entropy: &dyn Entropy,
    ) -> Result<SlotName, RepositoryError> {
        let mut nonce = [0; 24];
        entropy.fill(&mut nonce);
        let (name, slot) = match unlock {
            Unlock::Key(key) => (key.slot_name(), seal_slot_for_key(keyring, key, &nonce)),
            Unlock::Password(password) => {
                let (mut name, mut salt) = ([0; 16], [0; 16]);
                entropy.fill(&mut name);
                entropy.fill(&mut salt);
                let random = (salt, nonce);
                let slot = seal_slot_for_password(keyring, password, PasswordCost::USUAL, &random);
                (SlotName::from_bytes(name), slot)
            }
        };
        let slot = slot.map_err(|error| self.slot_problem(name, error))?;
        let object = layout::slot(self.id(), name);
        self.store().put(&object, &slot)?;
        let stored = self.store().get(&object, SLOT_BYTES_MAX as u64)?;
        let opened = open(&stored, unlock).map_err(|error| self.slot_problem(name, error))?;
        if opened.is_same_domain(keyring) {
            Ok(name)
        } else {
            Err(self.slot_problem(name, SlotError::Damaged))
        }
    }

    fn slot_problem(&self, name: SlotName, error: SlotError) -> RepositoryError {
        damaged(&**self.store(), layout::slot(self.id(), name), error)
    }
}

/// Gives the keyring of a domain that is about to begin. Of a password it follows from a key that
/// nobody keeps.
pub(crate) fn first_keyring(unlock: &Unlock<'_>, entropy: &dyn Entropy, label: &str) -> Keyring {
    match unlock {
        Unlock::Key(key) => Keyring::first(key, label),
        Unlock::Password(_) => {
            let mut bytes = [0; 32];
            entropy.fill(&mut bytes);
            Keyring::first(&ScheduleKey::from_bytes(bytes), label)
        }
    }
}

/// Finds the slot that a key or password opens, in any domain of a repository.
pub(crate) fn find(
    store: &dyn ObjectStore,
    unlock: &Unlock<'_>,
) -> Result<(SlotName, Keyring), RepositoryError> {
    let mut wrong = match unlock {
        Unlock::Key(_) => RepositoryError::WrongKey {
            place: store.describe(),
        },
        Unlock::Password(_) => RepositoryError::WrongPassword {
            place: store.describe(),
        },
    };
    let mut tries = 0;
    let mut left = VecDeque::from(likely(store, unlock)?);
    let mut others = matches!(unlock, Unlock::Key(_));
    while let Some((domain, name, object)) = left.pop_front() {
        let slot = match store.get(&object, SLOT_BYTES_MAX as u64) {
            Err(error) if error.fault == StoreFault::NotFound => {
                // Where it should be it is not, or it was taken away since it was listed.
                if std::mem::take(&mut others) {
                    left = list(store, "k/")?.into();
                    left.retain(|(_, other, _)| *other == name);
                }
                continue;
            }
            other => other?,
        };
        let is_password = matches!(unlock, Unlock::Password(_));
        match slot_lock(&slot) {
            Ok((SlotLock::Key, _)) if is_password => continue,
            Ok(_) if is_password => tries += 1,
            _ => {}
        }
        if tries > PASSWORD_TRIES_MAX {
            break;
        }
        match open(&slot, unlock) {
            Ok(keyring) if keyring.domain() == domain => return Ok((name, keyring)),
            Ok(_) => return Err(damaged(store, object, OtherDomain)),
            Err(SlotError::WrongKey) if is_password => {}
            // A slot that has a key's name is that key's. Another slot may open.
            Err(error) => wrong = damaged(store, object, error),
        }
    }
    if let (RepositoryError::WrongKey { place }, Unlock::Key(key)) = (&wrong, unlock)
        && !list(store, &format!("k/{}/", key.domain_id()))?.is_empty()
    {
        let place = place.clone();
        return Err(RepositoryError::KeyGone { place });
    }
    Err(wrong)
}

/// Gives the slots that may open: of a key the one in the domain that it began, which mostly is
/// there, of a password all.
fn likely(
    store: &dyn ObjectStore,
    unlock: &Unlock<'_>,
) -> Result<Vec<(DomainId, SlotName, ObjectName)>, StoreError> {
    let Unlock::Key(key) = unlock else {
        return list(store, "k/");
    };
    let (domain, name) = (key.domain_id(), key.slot_name());
    Ok(vec![(domain, name, layout::slot(domain, name))])
}

fn list(
    store: &dyn ObjectStore,
    prefix: &str,
) -> Result<Vec<(DomainId, SlotName, ObjectName)>, StoreError> {
    let mut found = Vec::new();
    store.list(prefix, &mut |info| {
        let parsed = layout::parse_slot(&info.name);
        found.extend(parsed.map(|(domain, slot)| (domain, slot, info.name)));
    })?;
    found.sort();
    Ok(found)
}

fn open(slot: &[u8], unlock: &Unlock<'_>) -> Result<Keyring, SlotError> {
    match unlock {
        Unlock::Key(key) => open_slot_with_key(slot, key),
        Unlock::Password(password) => open_slot_with_password(slot, password),
    }
}

#[derive(Debug, thiserror::Error)]
#[error("it holds the keys of another domain")]
struct OtherDomain;
