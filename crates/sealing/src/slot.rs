//! Slots: the keyring, sealed for a schedule key or a password (`docs/format.md`, "Slot").

use argon2::{Algorithm, Argon2, Params, Version};
use chacha20poly1305::aead::AeadInOut;
use chacha20poly1305::{KeyInit, XChaCha20Poly1305, XNonce};
use model::Secret;
use subtle::ConstantTimeEq;
use thiserror::Error;
use zeroize::Zeroizing;

use crate::derive::{Key, derive_pair};
use crate::keyring::{Keyring, KeyringError};
use crate::rights::Rights;
use crate::schedule_key::ScheduleKey;

/// The longest slot.
pub const SLOT_BYTES_MAX: usize = 64 * 1024;

const MAGIC: [u8; 8] = *b"BSTYSLOT";
const VERSION: u16 = 1;
const KIND_KEY: u8 = 1;
const KIND_PASSWORD: u8 = 2;
/// Bytes before the sealed keyring.
const HEAD_BYTES: usize = 96;

/// What a slot is opened with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SlotLock {
    /// A schedule key.
    Key,
    /// A password.
    Password,
}

/// What it costs to try one password.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PasswordCost {
    /// Memory in KiB, 19,456 to 1,048,576.
    pub memory_kib: u32,
    /// Passes over it, 1 to 16.
    pub passes: u32,
    /// Lanes, 1 to 4.
    pub lanes: u32,
}

impl PasswordCost {
    /// About 130 ms on a server of today.
    pub const USUAL: Self = Self {
        memory_kib: 64 * 1024,
        passes: 3,
        lanes: 1,
    };

    fn is_within_bounds(self) -> bool {
        (19_456..=1_048_576).contains(&self.memory_kib)
            && (1..=16).contains(&self.passes)
            && (1..=4).contains(&self.lanes)
    }
}

/// Says why a slot does not open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum SlotError {
    /// It is not a slot, or has parameters outside the bounds.
    #[error("the key slot is damaged")]
    Shape,
    /// It is opened by something that this program does not know.
    #[error("the key slot is of kind {0}, which this program does not know: a newer one wrote it")]
    Kind(u8),
    /// A newer program wrote it.
    #[error("the key slot has version {0}, this program knows version {VERSION}")]
    Version(u16),
    /// It is sealed for another key or password.
    #[error("the key slot is sealed for another key or password")]
    WrongKey,
    /// The sealed keyring is damaged.
    #[error("the keyring in the key slot is damaged")]
    Damaged,
    /// The keyring cannot be used.
    #[error(transparent)]
    Keyring(#[from] KeyringError),
}

/// Seals a keyring for a schedule key. The nonce is 24 unpredictable bytes.
///
/// # Errors
///
/// `SlotError::Shape` when the keyring is too large for a slot.
pub fn seal_slot_for_key(
    keyring: &Keyring,
    key: &ScheduleKey,
    nonce: &[u8; 24],
) -> Result<Vec<u8>, SlotError> {
    let head = head((KIND_KEY, keyring.rights()), &[0; 3], &[0; 16]);
    seal(keyring, head, &key.derive("slot key"), nonce)
}

/// Seals a keyring for a password. Salt and nonce are 16 and 24 unpredictable bytes.
///
/// # Errors
///
/// `SlotError::Shape` when the cost is outside its bounds or the keyring is too large.
pub fn seal_slot_for_password(
    keyring: &Keyring,
    password: &Secret,
    cost: PasswordCost,
    random: &([u8; 16], [u8; 24]),
) -> Result<Vec<u8>, SlotError> {
    let (salt, nonce) = random;
    let slot_key = stretch(password, cost, salt)?;
    let head = head(
        (KIND_PASSWORD, keyring.rights()),
        &[cost.memory_kib, cost.passes, cost.lanes],
        salt,
    );
    seal(keyring, head, &slot_key, nonce)
}

/// Tells what opens a slot, and what it allows; only opening it proves either.
///
/// # Errors
///
/// `SlotError::Shape` or `SlotError::Version`.
pub fn slot_lock(slot: &[u8]) -> Result<(SlotLock, Rights), SlotError> {
    Parsed::new(slot).map(|parsed| (parsed.lock, parsed.rights))
}

/// Opens a slot with a schedule key.
///
/// # Errors
///
/// `SlotError::WrongKey` when it is sealed for another key or a password; otherwise what is wrong.
pub fn open_slot_with_key(slot: &[u8], key: &ScheduleKey) -> Result<Keyring, SlotError> {
    let parsed = Parsed::new(slot)?;
    match parsed.lock {
        SlotLock::Key => parsed.open(&key.derive("slot key")),
        SlotLock::Password => Err(SlotError::WrongKey),
    }
}

/// Opens a slot with a password.
///
/// # Errors
///
/// As [`open_slot_with_key`].
pub fn open_slot_with_password(slot: &[u8], password: &Secret) -> Result<Keyring, SlotError> {
    let parsed = Parsed::new(slot)?;
    match parsed.lock {
        SlotLock::Password => parsed.open(&stretch(password, parsed.cost, parsed.salt)?),
        SlotLock::Key => Err(SlotError::WrongKey),
    }
}

fn stretch(password: &Secret, cost: PasswordCost, salt: &[u8; 16]) -> Result<Key, SlotError> {
    if !cost.is_within_bounds() {
        return Err(SlotError::Shape);
    }
    let params = Params::new(cost.memory_kib, cost.passes, cost.lanes, Some(32))
        .map_err(|_| SlotError::Shape)?;
    let mut key = Key::default();
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
        .hash_password_into(password.reveal().as_bytes(), salt, key.as_mut())
        .map_err(|_| SlotError::Shape)?;
    Ok(key)
}

fn head((kind, rights): (u8, Rights), cost: &[u32; 3], salt: &[u8; 16]) -> Vec<u8> {
    let told = if rights == Rights::ALL {
        0
    } else {
        rights.number()
    };
    let mut out = Vec::with_capacity(HEAD_BYTES);
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&VERSION.to_le_bytes());
    out.extend_from_slice(&[kind, told]);
    for number in cost {
        out.extend_from_slice(&number.to_le_bytes());
    }
    out.extend_from_slice(salt);
    out
}

fn seal(
    keyring: &Keyring,
    mut head: Vec<u8>,
    slot_key: &Key,
    nonce: &[u8; 24],
) -> Result<Vec<u8>, SlotError> {
    let (cipher_key, commitment) = derive_pair("slot seal", &[slot_key.as_ref()]);
    head.extend_from_slice(nonce);
    head.extend_from_slice(&commitment);
    let mut sealed = keyring.encode();
    XChaCha20Poly1305::new((&*cipher_key).into())
        .encrypt_in_place(&XNonce::from(*nonce), &head, &mut *sealed)
        .map_err(|_| SlotError::Shape)?;
    head.extend_from_slice(&sealed);
    if head.len() > SLOT_BYTES_MAX {
        return Err(SlotError::Shape);
    }
    Ok(head)
}

struct Parsed<'a> {
    head: &'a [u8],
    lock: SlotLock,
    rights: Rights,
    cost: PasswordCost,
    salt: &'a [u8; 16],
    nonce: &'a [u8; 24],
    commitment: &'a [u8; 32],
    sealed: &'a [u8],
}

impl<'a> Parsed<'a> {
    fn new(slot: &'a [u8]) -> Result<Self, SlotError> {
        fn take<'a, const N: usize>(rest: &mut &'a [u8]) -> Result<&'a [u8; N], SlotError> {
            let (head, tail) = rest.split_first_chunk().ok_or(SlotError::Shape)?;
            *rest = tail;
            Ok(head)
        }
        if slot.len() > SLOT_BYTES_MAX {
            return Err(SlotError::Shape);
        }
        let (head, _) = slot.split_at_checked(HEAD_BYTES).ok_or(SlotError::Shape)?;
        let mut rest = slot;
        if *take::<8>(&mut rest)? != MAGIC {
            return Err(SlotError::Shape);
        }
        let version = u16::from_le_bytes(*take(&mut rest)?);
        if version != VERSION {
            return Err(SlotError::Version(version));
        }
        let [kind, told] = *take(&mut rest)?;
        let lock = match kind {
            KIND_KEY => SlotLock::Key,
            KIND_PASSWORD => SlotLock::Password,
            kind => return Err(SlotError::Kind(kind)),
        };
        let told = if told == 0 {
            Rights::ALL.number()
        } else {
            told
        };
        let rights = Rights::from_number(told).ok_or(SlotError::Shape)?;
        let mut number = || take(&mut rest).map(|n| u32::from_le_bytes(*n));
        let cost = PasswordCost {
            memory_kib: number()?,
            passes: number()?,
            lanes: number()?,
        };
        Ok(Self {
            head,
            lock,
            rights,
            cost,
            salt: take(&mut rest)?,
            nonce: take(&mut rest)?,
            commitment: take(&mut rest)?,
            sealed: rest,
        })
    }

    fn open(&self, slot_key: &Key) -> Result<Keyring, SlotError> {
        let (cipher_key, commitment) = derive_pair("slot seal", &[slot_key.as_ref()]);
        if !bool::from(commitment.ct_eq(self.commitment)) {
            return Err(SlotError::WrongKey);
        }
        let mut keyring = Zeroizing::new(self.sealed.to_vec());
        XChaCha20Poly1305::new((&*cipher_key).into())
            .decrypt_in_place(&XNonce::from(*self.nonce), self.head, &mut *keyring)
            .map_err(|_| SlotError::Damaged)?;
        Ok(Keyring::decode(&keyring)?)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(byte: u8) -> ScheduleKey {
        ScheduleKey::from_bytes([byte; 32])
    }

    #[test]
    fn a_slot_opens_with_its_own_key_only() {
        let keyring = Keyring::first(&key(1), "web1");
        let slot = seal_slot_for_key(&keyring, &key(2), &[4; 24]).unwrap();
        assert!(
            open_slot_with_key(&slot, &key(2))
                .unwrap()
                .is_same_domain(&keyring)
        );
        assert_eq!(
            open_slot_with_key(&slot, &key(1)).unwrap_err(),
            SlotError::WrongKey
        );
        for at in 0..slot.len() {
            let mut damaged = slot.clone();
            damaged[at] ^= 0x80;
            assert!(open_slot_with_key(&damaged, &key(2)).is_err(), "{at}");
        }
    }

    #[test]
    fn a_password_opens_its_slot() {
        let keyring = Keyring::first(&key(1), "");
        let cost = PasswordCost {
            memory_kib: 19_456,
            passes: 1,
            lanes: 1,
        };
        let right = Secret::new("correct horse".into());
        let slot = seal_slot_for_password(&keyring, &right, cost, &([1; 16], [2; 24])).unwrap();
        assert_eq!(slot_lock(&slot), Ok((SlotLock::Password, Rights::ALL)));
        assert!(open_slot_with_password(&slot, &right).is_ok());
        let wrong = Secret::new("battery".into());
        assert_eq!(
            open_slot_with_password(&slot, &wrong).unwrap_err(),
            SlotError::WrongKey
        );
    }

    #[test]
    fn a_slot_cannot_demand_all_memory() {
        let keyring = Keyring::first(&key(1), "");
        let mut slot = seal_slot_for_key(&keyring, &key(1), &[4; 24]).unwrap();
        slot[10] = KIND_PASSWORD;
        slot[12..16].copy_from_slice(&u32::MAX.to_le_bytes());
        let password = Secret::new("x".into());
        assert_eq!(
            open_slot_with_password(&slot, &password).unwrap_err(),
            SlotError::Shape
        );
    }

    proptest! {
        #[test]
        fn foreign_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            prop_assert!(open_slot_with_key(&bytes, &key(1)).is_err());
            let mut like = b"BSTYSLOT\x01\0\x01\0".to_vec();
            like.extend(bytes);
            prop_assert!(open_slot_with_key(&like, &key(1)).is_err());
        }
    }
}
