//! Looking at what lies beside the data: the trash, pins, condemned packs.

use edge::{ObjectName, StoreError};
use sealing::{ObjectError, ObjectKind, open_single};

use crate::condemned::{CONDEMNED_BYTES_MAX, CondemnedText};
use crate::domain::{Domain, NameMismatch};
use crate::error::{RepositoryError, chain, is_loss};
use crate::layout::{self, ObjectHash};

use crate::snapshot::{SNAPSHOT_BYTES_MAX, Snapshot};
use crate::trash::{PIN_BYTES_MAX, Pin};

/// Tells of each object that is not what its name says, and what is wrong with it.
pub(super) fn look_beside(
    domain: &Domain,
    each: &mut dyn FnMut(&ObjectName, String),
) -> Result<(), RepositoryError> {
    let mut names = Vec::new();
    let prefix = layout::prefix(domain.id(), ObjectKind::Condemned);
    domain
        .store()
        .list(&prefix, &mut |info| names.push(info.name))?;
    for name in names {
        let own = |kind| layout::parse(domain.id(), kind, &name);
        let looked = if let Some((_, hash)) = layout::parse_trash(domain.id(), &name) {
            read(domain, &name, (&hash, SNAPSHOT_BYTES_MAX))?
                .and_then(|stored| trashed(domain, hash, &stored))
        } else if let Some(hash) = own(ObjectKind::Condemned) {
            read(domain, &name, (&hash, CONDEMNED_BYTES_MAX))?
                .and_then(|stored| json::<CondemnedText>(domain, ObjectKind::Condemned, &stored))
        } else if let Some(hash) = own(ObjectKind::Pin) {
            read(domain, &name, (&hash, PIN_BYTES_MAX))?
                .and_then(|stored| json::<Pin>(domain, ObjectKind::Pin, &stored))
        } else {
            Ok(())
        };
        if let Err(error) = looked {
            each(&name, error);
        }
    }
    Ok(())
}

/// Reads an object; the inner error says what is wrong with it.
fn read(
    domain: &Domain,
    name: &ObjectName,
    (hash, bytes_max): (&ObjectHash, u64),
) -> Result<Result<Vec<u8>, String>, StoreError> {
    match domain.store().get(name, bytes_max) {
        Ok(stored) if ObjectHash::of(&stored) == *hash => Ok(Ok(stored)),
        Ok(_) => Ok(Err(NameMismatch.to_string())),
        Err(error) if is_loss(&error) => Ok(Err(chain(&error))),
        Err(error) => Err(error),
    }
}

fn trashed(domain: &Domain, hash: ObjectHash, stored: &[u8]) -> Result<(), String> {
    match opened(domain, ObjectKind::Snapshot, stored)? {
        None => Ok(()),
        Some(plaintext) => Snapshot::decode(hash, &plaintext, false)
            .map(drop)
            .map_err(|error| chain(&error)),
    }
}

fn json<T: serde::de::DeserializeOwned>(
    domain: &Domain,
    kind: ObjectKind,
    stored: &[u8],
) -> Result<(), String> {
    match opened(domain, kind, stored)? {
        None => Ok(()),
        Some(plaintext) => serde_json::from_slice::<T>(&plaintext)
            .map(drop)
            .map_err(|error| chain(&error)),
    }
}

/// Opens an object, or gives nothing when the key has no right to: then its hash is all there is.
fn opened(domain: &Domain, kind: ObjectKind, stored: &[u8]) -> Result<Option<Vec<u8>>, String> {
    match open_single(domain.keyring(), kind, stored) {
        Ok(plaintext) => Ok(Some(plaintext)),
        Err(ObjectError::Right(_)) => Ok(None),
        Err(error) => Err(chain(&error)),
    }
}
