//! The root keys of objects: which key of a keyring seals what (`docs/format.md`, "Sealed
//! objects").

use crate::derive::{Key, derive, derive_pair};
use crate::keyring::Keyring;
use crate::object::{COMMITMENT_BYTES, HEADER_BYTES, ObjectError, ObjectKind, SUITE_DECISION};
use crate::rights::Right;
use crate::seal_key::{root_for_reader, root_for_writer};

/// In the epoch field of objects that were sealed by someone who may not read them.
pub(crate) const SEALED_EPOCH: u32 = 1 << 31;

/// Where the root key of an object comes from.
pub(crate) enum Origin<'a> {
    /// It is begun with these random bytes.
    New(&'a [u8; 32]),
    /// It is stored with this salt.
    Stored(&'a [u8; 32]),
}

/// Gives the root key of an object.
pub(crate) fn root_key(
    keyring: &Keyring,
    (kind, suite, epoch): (ObjectKind, u8, u32),
    origin: &Origin<'_>,
) -> Result<Key, ObjectError> {
    let control = || {
        if keyring.rights().has(Right::Delete) {
            Ok(&keyring.control)
        } else {
            Err(ObjectError::Right(Right::Delete))
        }
    };
    if suite == SUITE_DECISION {
        return Ok(derive("decision key", keyring.id.as_ref()));
    }
    match kind {
        ObjectKind::IndexSegment => Ok(derive("index key", keyring.id.as_ref())),
        ObjectKind::Condemned => Ok(derive("condemn key", control()?.as_ref())),
        ObjectKind::Pin => Ok(derive("pin key", control()?.as_ref())),
        ObjectKind::Session => Ok(derive("session key", keyring.id.as_ref())),
        ObjectKind::Revoked => Ok(derive("revoke key", control()?.as_ref())),
        ObjectKind::DataPack | ObjectKind::MetadataPack | ObjectKind::Snapshot => {
            epoch_root(keyring, (kind, epoch), origin)
        }
    }
}

fn epoch_root(
    keyring: &Keyring,
    (kind, epoch): (ObjectKind, u32),
    origin: &Origin<'_>,
) -> Result<Key, ObjectError> {
    let number = epoch & !SEALED_EPOCH;
    let may_read = keyring.rights().has(Right::Read);
    let key = || keyring.epoch_key(number).ok_or(ObjectError::Epoch(number));
    match (origin, epoch & SEALED_EPOCH != 0) {
        (Origin::New(random), _) if !may_read => {
            root_for_writer(random, key()?, &keyring.id).ok_or(ObjectError::Header)
        }
        _ if !may_read => Err(ObjectError::Right(Right::Read)),
        (Origin::New(salt) | Origin::Stored(salt), true) => {
            root_for_reader(salt, key()?, &keyring.id).ok_or(ObjectError::Header)
        }
        (_, false) if kind == ObjectKind::Snapshot => Ok(derive("snapshot key", key()?.as_ref())),
        (_, false) => Ok(key()?.clone()),
    }
}

/// Gives the code that tells who may delete that one of them made a decision; `None` for others.
pub(crate) fn decision_code(
    keyring: &Keyring,
    header: &[u8; HEADER_BYTES],
    text: &[u8],
) -> Option<[u8; 32]> {
    let key = derive("decision code", keyring.control.as_ref());
    let mut hasher = blake3::Hasher::new_keyed(&key);
    hasher.update(header).update(text);
    let code = *hasher.finalize().as_bytes();
    keyring.rights().has(Right::Delete).then_some(code)
}

/// Gives the key of the trailer and its commitment, for objects whose writer may not read.
pub(crate) fn trailer_key(
    keyring: &Keyring,
    epoch: u32,
    [fixed, salt]: &[&[u8]; 2],
) -> Option<Box<(Key, [u8; COMMITMENT_BYTES])>> {
    let root = derive("trailer key", keyring.id.as_ref());
    let pair = || Box::new(derive_pair("sealed trailer", &[root.as_ref(), fixed, salt]));
    (epoch & SEALED_EPOCH != 0).then(pair)
}
