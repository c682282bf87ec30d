//! What cannot be read of what lies beside the data, and taking it away (`docs/format.md`,
//! "Damage of what is beside").

use edge::{ObjectName, StoreFault};
use sealing::{ObjectError, ObjectKind, Right};

use crate::domain::{Domain, NameMismatch};
use crate::error::RepositoryError;
use crate::layout::{self, ObjectHash};
use crate::snapshot::SNAPSHOT_BYTES_MAX;

/// A stored object that is damaged for good, and what is wrong with it.
#[derive(Debug)]
pub struct Wreck {
    /// Which object.
    pub object: ObjectName,
    /// What is wrong with it.
    pub error: RepositoryError,
}

#[derive(Debug, thiserror::Error)]
#[error("it is longer than one can be")]
pub(crate) struct TooLong;

impl RepositoryError {
    /// True when an object is damaged for good: neither may a newer program have written it, nor
    /// may another key open it, nor may its place read it another time.
    pub(crate) fn is_wreck(&self) -> bool {
        let Self::Damaged { source, .. } = self else {
            return false;
        };
        let is_not_sealed = matches!(
            source.downcast_ref(),
            Some(
                ObjectError::TooShort
                    | ObjectError::Header
                    | ObjectError::Commitment
                    | ObjectError::Damaged
            )
        );
        is_not_sealed || source.is::<NameMismatch>() || source.is::<TooLong>()
    }
}

impl Domain {
    /// Reads a short-lived object and verifies it by the hash in its name, if there is one; `None`
    /// when it is gone.
    pub(crate) fn read_beside(
        &self,
        name: &ObjectName,
        hash: Option<&ObjectHash>,
        bytes_max: u64,
    ) -> Result<Option<Vec<u8>>, RepositoryError> {
        match self.store().get(name, bytes_max) {
            Ok(stored) if hash.is_none_or(|hash| ObjectHash::of(&stored) == *hash) => {
                Ok(Some(stored))
            }
            Ok(_) => Err(self.damaged_or_refused(name, NameMismatch)),
            Err(error) if error.fault == StoreFault::NotFound => Ok(None),
            Err(error) if error.fault == StoreFault::Malformed => match self.store().size(name)? {
                Some(size) if size > bytes_max => Err(self.damaged_or_refused(name, TooLong)),
                _ => Err(error.into()),
            },
            Err(error) => Err(error.into()),
        }
    }

    /// Gives the snapshots, there and in the trash, that are damaged for good. While there is one
    /// nothing is pruned: what it held may still be had back from another place.
    ///
    /// # Errors
    ///
    /// `NoRight`, or `Store` when they cannot be listed or read.
    pub fn damaged_snapshots(&self) -> Result<Vec<Wreck>, RepositoryError> {
        self.require(Right::Read)?;
        let kind = ObjectKind::Snapshot;
        let here = self.list(kind)?.into_iter();
        let here = here.map(|(hash, _)| (self.name(kind, &hash), hash));
        let trash = self.list_trash()?.into_iter();
        let trash = trash.map(|(secs, hash)| (layout::trash(self.id(), secs, &hash), hash));
        let mut wrecks = Vec::new();
        for (name, hash) in here.chain(trash) {
            let read = self.read_beside(&name, Some(&hash), SNAPSHOT_BYTES_MAX);
            let opened = read.and_then(|stored| match stored {
                Some(stored) => self.open_snapshot(&name, hash, &stored).map(drop),
                None => Ok(()),
            });
            gather(&mut wrecks, name, opened)?;
        }
        Ok(wrecks)
    }

    /// Gives the pins that are damaged for good. While there is one no rule lets a snapshot go.
    ///
    /// # Errors
    ///
    /// `NoRight`, or `Store` when they cannot be listed or read.
    pub fn damaged_pins(&self) -> Result<Vec<Wreck>, RepositoryError> {
        self.require(Right::Delete)?;
        let kind = ObjectKind::Pin;
        let mut wrecks = Vec::new();
        for (hash, _) in self.list(kind)? {
            let read = self.read_pin(&hash).map(drop);
            gather(&mut wrecks, self.name(kind, &hash), read)?;
        }
        Ok(wrecks)
    }

    /// Deletes what is damaged for good. A person decided so: nothing but them can know what it was.
    ///
    /// # Errors
    ///
    /// `NoRight`, or `Store` when one cannot be deleted.
    pub fn delete_wrecks(&self, wrecks: &[Wreck]) -> Result<(), RepositoryError> {
        self.require(Right::Delete)?;
        for wreck in wrecks {
            self.store().delete(&wreck.object)?;
        }
        if !wrecks.is_empty() {
            self.trim_cache(ObjectKind::Snapshot, &|_| false);
        }
        Ok(())
    }
}

/// Keeps those that are damaged for good. What may only be newer is none of them.
fn gather(
    wrecks: &mut Vec<Wreck>,
    object: ObjectName,
    read: Result<(), RepositoryError>,
) -> Result<(), RepositoryError> {
    match read {
        Err(error) if error.is_wreck() => wrecks.push(Wreck { object, error }),
        Err(error @ RepositoryError::Store(_)) => return Err(error),
        _ => {}
    }
    Ok(())
}
