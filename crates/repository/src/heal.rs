//! Healing what a check found damaged: from another place's copy of the domain, or at the next
//! backup from the source (`docs/format.md`, "Damage").

use std::io;

use edge::{Event, Monitor, ObjectName, Phase, StoreFault};
use model::ByteCount;
use sealing::ObjectKind;

use crate::check::{CheckReport, PACK_BYTES_MAX};
use crate::domain::{Domain, NameMismatch};
use crate::error::{RepositoryError, chain};
use crate::layout::{self, ObjectHash};

/// The kinds of objects that copies of a domain have under the same names.
const KINDS: [ObjectKind; 4] = [
    ObjectKind::DataPack,
    ObjectKind::MetadataPack,
    ObjectKind::IndexSegment,
    ObjectKind::Snapshot,
];

/// What was healed from another place.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct HealReport {
    /// Objects that are whole again.
    pub healed: u64,
    /// Bytes that were stored.
    pub stored_bytes: ByteCount,
    /// What could not be had there, and why.
    pub failed: Vec<(String, String)>,
}

impl Domain {
    /// Fetches what a check named as damaged from another copy of this domain, verifies it by its
    /// name, and stores it again. A check names at most a thousand objects; what is beyond needs
    /// another check.
    ///
    /// # Errors
    ///
    /// `WrongKey` when the other place holds another domain, `Store` when this place takes nothing
    /// any more, `Cancelled`.
    pub fn heal_from(
        &self,
        other: &Self,
        report: &CheckReport,
        monitor: &dyn Monitor,
    ) -> Result<HealReport, RepositoryError> {
        if !self.keyring().is_same_domain(other.keyring()) {
            return Err(RepositoryError::WrongKey {
                place: other.place(),
            });
        }
        monitor.event(Event::Phase(Phase::Storing));
        let mut healed = HealReport::default();
        for damage in &report.damage {
            if monitor.is_cancelled() {
                return Err(RepositoryError::Cancelled);
            }
            let Some((name, hash)) = self.parse_damaged(&damage.object) else {
                let error = "it has no name that other places know it by".to_owned();
                healed.failed.push((damage.object.clone(), error));
                continue;
            };
            match other.good_bytes(&name, &hash) {
                Ok(bytes) => {
                    self.put_again(&name, &hash, &bytes)?;
                    healed.healed += 1;
                    healed.stored_bytes += ByteCount::new(bytes.len() as u64);
                }
                Err(error) => {
                    let error = format!("{}: {}", other.place(), chain(&error));
                    healed.failed.push((damage.object.clone(), error));
                }
            }
        }
        Ok(healed)
    }

    /// Notes packs that a check found damaged: the next backup looks at them, and stores again
    /// what of them it meets in the source. Gives how many were noted.
    ///
    /// # Errors
    ///
    /// `Store`.
    pub fn note_damage(&self, report: &CheckReport) -> Result<u64, RepositoryError> {
        let mut noted = 0;
        for damage in &report.damage {
            let Some((name, hash)) = self.parse_damaged(&damage.object) else {
                continue;
            };
            let is_pack = [ObjectKind::DataPack, ObjectKind::MetadataPack]
                .into_iter()
                .any(|kind| layout::parse(self.id(), kind, &name).is_some());
            if is_pack {
                let note = layout::damaged(self.id(), &hash);
                self.store().put(&note, name.as_str().as_bytes())?;
                noted += 1;
            }
        }
        Ok(noted)
    }

    /// Gives the notes on damaged packs.
    pub(crate) fn noted_damage(&self) -> Result<Vec<(ObjectName, ObjectHash)>, RepositoryError> {
        let mut noted = Vec::new();
        let prefix = layout::beside_prefix(self.id());
        self.store().list(&prefix, &mut |info| {
            let hash = layout::parse_damaged(self.id(), &info.name);
            noted.extend(hash.map(|hash| (info.name, hash)));
        })?;
        Ok(noted)
    }

    fn parse_damaged(&self, object: &str) -> Option<(ObjectName, ObjectHash)> {
        let name = ObjectName::new(object).ok()?;
        let hash = KINDS
            .into_iter()
            .find_map(|kind| layout::parse(self.id(), kind, &name))?;
        Some((name, hash))
    }

    /// Reads an object from the place itself, and verifies its name.
    fn good_bytes(&self, name: &ObjectName, hash: &ObjectHash) -> Result<Vec<u8>, RepositoryError> {
        let bytes = self.store().get(name, PACK_BYTES_MAX)?;
        if ObjectHash::of(&bytes) == *hash {
            return Ok(bytes);
        }
        Err(RepositoryError::Damaged {
            object: name.clone(),
            place: self.place(),
            source: Box::new(NameMismatch),
        })
    }

    /// Puts an object in the place of a damaged or missing one, and reads it back.
    fn put_again(
        &self,
        name: &ObjectName,
        hash: &ObjectHash,
        bytes: &[u8],
    ) -> Result<(), RepositoryError> {
        // A store may keep what is there already: objects never change.
        match self.store().delete(name) {
            Err(error) if error.fault != StoreFault::NotFound => return Err(error.into()),
            _ => {}
        }
        self.store().put(name, bytes)?;
        self.good_bytes(name, hash).map(drop).map_err(|_| {
            let error = io::Error::other("what was read back is not what was written");
            RepositoryError::Damaged {
                object: name.clone(),
                place: self.place(),
                source: Box::new(error),
            }
        })
    }
}
