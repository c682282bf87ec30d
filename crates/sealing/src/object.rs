//! Sealed objects: header, key commitment, numbered parts, single small objects
//! (`docs/format.md`, "Sealed objects").

use std::fmt;

use chacha20poly1305::aead::AeadInOut;
use chacha20poly1305::{ChaCha20Poly1305, KeyInit, Nonce, XChaCha20Poly1305, XNonce};
use model::DomainId;
use subtle::ConstantTimeEq;
use thiserror::Error;

use crate::derive::{Key, derive_pair, expand};
use crate::keyring::Keyring;

/// Bytes of the header of every sealed object.
pub const HEADER_BYTES: usize = 96;
/// Bytes by which a sealed part is longer than its plaintext.
pub const PART_OVERHEAD_BYTES: usize = 16;
/// The number of the trailer of an object of parts.
pub const TRAILER_PART: u32 = u32::MAX;

const MAGIC: [u8; 8] = *b"BSTYOBJ1";
const VERSION: u16 = 1;
const SUITE_PARTS: u8 = 1;
const SUITE_SINGLE: u8 = 2;

/// What a sealed object is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum ObjectKind {
    /// Frames of content.
    DataPack = 1,
    /// Frames of pages and chunk lists.
    MetadataPack = 2,
    /// Where chunks are.
    IndexSegment = 3,
    /// A snapshot.
    Snapshot = 4,
    /// Packs about to be deleted.
    Condemned = 5,
    /// A snapshot that must stay.
    Pin = 6,
}

impl ObjectKind {
    const fn suite(self) -> u8 {
        match self {
            Self::DataPack | Self::MetadataPack | Self::IndexSegment => SUITE_PARTS,
            Self::Snapshot | Self::Condemned | Self::Pin => SUITE_SINGLE,
        }
    }

    const fn has_epoch(self) -> bool {
        matches!(self, Self::DataPack | Self::MetadataPack | Self::Snapshot)
    }
}

/// Says why an object does not open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum ObjectError {
    /// It is shorter than its own header.
    #[error("the object is too short")]
    TooShort,
    /// It does not begin as a sealed object of this kind and domain does.
    #[error("the object's header is damaged or belongs to another kind or domain")]
    Header,
    /// A newer program wrote it.
    #[error("the object has format version {0}, this program knows version {VERSION}")]
    Version(u16),
    /// The keyring lacks the epoch that sealed it.
    #[error("the object was sealed in epoch {0}, which this key does not hold")]
    Epoch(u32),
    /// The commitment is that of another key, or damaged.
    #[error("the object was sealed with another key, or its header is damaged")]
    Commitment,
    /// Sealed bytes are damaged.
    #[error("sealed bytes are damaged")]
    Damaged,
}

/// Seals and opens the parts of one object.
pub struct ObjectCipher {
    header: [u8; HEADER_BYTES],
    key: Key,
}

impl ObjectCipher {
    /// Begins a new object. The salt is 32 unpredictable bytes, used for no other content.
    ///
    /// # Errors
    ///
    /// `ObjectError::Epoch` when the keyring holds no data key.
    pub fn create(
        keyring: &Keyring,
        kind: ObjectKind,
        salt: &[u8; 32],
    ) -> Result<Self, ObjectError> {
        let epoch = if kind.has_epoch() { keyring.epoch() } else { 0 };
        Self::recall(keyring, kind, epoch, salt)
    }

    /// Takes up an object of which epoch and salt are known, without reading its header.
    ///
    /// # Errors
    ///
    /// `ObjectError::Epoch` when the keyring lacks the epoch.
    pub fn recall(
        keyring: &Keyring,
        kind: ObjectKind,
        epoch: u32,
        salt: &[u8; 32],
    ) -> Result<Self, ObjectError> {
        let mut header = Vec::with_capacity(HEADER_BYTES);
        header.extend_from_slice(&MAGIC);
        header.extend_from_slice(&VERSION.to_le_bytes());
        header.extend_from_slice(&[kind.suite(), kind as u8]);
        header.extend_from_slice(&epoch.to_le_bytes());
        header.extend_from_slice(keyring.domain().as_bytes());
        let root = keyring
            .root_key(kind, epoch)
            .ok_or(ObjectError::Epoch(epoch))?;
        let (key, commitment) = derive_pair("object seal", &[root.as_ref(), &header, salt]);
        header.extend_from_slice(salt);
        header.extend_from_slice(&commitment);
        let header = header.try_into().map_err(|_| ObjectError::Header)?;
        Ok(Self { header, key })
    }

    /// Takes up a stored object by its header.
    ///
    /// # Errors
    ///
    /// `ObjectError`: the header is damaged, foreign or newer, or the key is another one.
    pub fn open(
        keyring: &Keyring,
        kind: ObjectKind,
        header: &[u8; HEADER_BYTES],
    ) -> Result<Self, ObjectError> {
        let fields = Fields::parse(header)?;
        let own = fields.suite == kind.suite()
            && fields.kind == kind as u8
            && fields.domain == keyring.domain();
        if !own {
            return Err(ObjectError::Header);
        }
        let root = keyring
            .root_key(kind, fields.epoch)
            .ok_or(ObjectError::Epoch(fields.epoch))?;
        let (key, commitment) =
            derive_pair("object seal", &[root.as_ref(), fields.fixed, fields.salt]);
        if !bool::from(commitment.ct_eq(fields.commitment)) {
            return Err(ObjectError::Commitment);
        }
        Ok(Self {
            header: *header,
            key,
        })
    }

    /// Gives the header as it is stored.
    #[must_use]
    pub const fn header(&self) -> &[u8; HEADER_BYTES] {
        &self.header
    }

    /// Gives the epoch and salt, which with the keyring are all that [`Self::recall`] needs.
    ///
    /// # Errors
    ///
    /// None that can happen: the header was made or parsed here.
    pub fn origin(&self) -> Result<(u32, [u8; 32]), ObjectError> {
        Fields::parse(&self.header).map(|fields| (fields.epoch, *fields.salt))
    }

    /// Seals part `number` in place; it grows by [`PART_OVERHEAD_BYTES`].
    ///
    /// # Errors
    ///
    /// `ObjectError::Damaged` when the part is longer than the cipher allows (256 GiB).
    pub fn seal_part(&self, number: u32, part: &mut Vec<u8>) -> Result<(), ObjectError> {
        ChaCha20Poly1305::new((&*self.key).into())
            .encrypt_in_place(&part_nonce(number), &self.header, part)
            .map_err(|_| ObjectError::Damaged)
    }

    /// Opens part `number` in place; it shrinks by [`PART_OVERHEAD_BYTES`].
    ///
    /// # Errors
    ///
    /// `ObjectError::Damaged`: a bit of it, or its number, is not what was sealed.
    pub fn open_part(&self, number: u32, part: &mut Vec<u8>) -> Result<(), ObjectError> {
        ChaCha20Poly1305::new((&*self.key).into())
            .decrypt_in_place(&part_nonce(number), &self.header, part)
            .map_err(|_| ObjectError::Damaged)
    }

    /// Fills `out` with bytes that look like sealed ones.
    pub fn fill(&self, out: &mut [u8]) {
        expand("filler", self.key.as_ref(), out);
    }
}

impl fmt::Debug for ObjectCipher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ObjectCipher(…)")
    }
}

/// Seals one small object whole. The salt is 32 unpredictable bytes, used for nothing else.
///
/// # Errors
///
/// As [`ObjectCipher::create`].
pub fn seal_single(
    keyring: &Keyring,
    kind: ObjectKind,
    salt: &[u8; 32],
    plaintext: &[u8],
) -> Result<Vec<u8>, ObjectError> {
    let object = ObjectCipher::create(keyring, kind, salt)?;
    let mut sealed = plaintext.to_vec();
    XChaCha20Poly1305::new((&*object.key).into())
        .encrypt_in_place(&single_nonce(salt), &object.header, &mut sealed)
        .map_err(|_| ObjectError::Damaged)?;
    let mut out = object.header.to_vec();
    out.append(&mut sealed);
    Ok(out)
}

/// Opens one small object.
///
/// # Errors
///
/// As [`ObjectCipher::open`], and `ObjectError::Damaged`.
pub fn open_single(
    keyring: &Keyring,
    kind: ObjectKind,
    stored: &[u8],
) -> Result<Vec<u8>, ObjectError> {
    let (header, sealed) = stored.split_first_chunk().ok_or(ObjectError::TooShort)?;
    let object = ObjectCipher::open(keyring, kind, header)?;
    let mut plaintext = sealed.to_vec();
    XChaCha20Poly1305::new((&*object.key).into())
        .decrypt_in_place(
            &single_nonce(Fields::parse(header)?.salt),
            header,
            &mut plaintext,
        )
        .map_err(|_| ObjectError::Damaged)?;
    Ok(plaintext)
}

fn part_nonce(number: u32) -> Nonce {
    let [a, b, c, d] = number.to_le_bytes();
    Nonce::from([a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0])
}

fn single_nonce(salt: &[u8; 32]) -> XNonce {
    let mut nonce = [0; 24];
    nonce.iter_mut().zip(salt).for_each(|(n, s)| *n = *s);
    XNonce::from(nonce)
}

/// The fields of a header.
struct Fields<'a> {
    fixed: &'a [u8],
    suite: u8,
    kind: u8,
    epoch: u32,
    domain: DomainId,
    salt: &'a [u8; 32],
    commitment: &'a [u8; 32],
}

impl<'a> Fields<'a> {
    fn parse(header: &'a [u8; HEADER_BYTES]) -> Result<Self, ObjectError> {
        fn take<'a, const N: usize>(rest: &mut &'a [u8]) -> Result<&'a [u8; N], ObjectError> {
            let (head, tail) = rest.split_first_chunk().ok_or(ObjectError::TooShort)?;
            *rest = tail;
            Ok(head)
        }
        let (fixed, _) = header.split_at(32);
        let mut rest: &[u8] = header;
        if *take::<8>(&mut rest)? != MAGIC {
            return Err(ObjectError::Header);
        }
        let version = u16::from_le_bytes(*take(&mut rest)?);
        if version != VERSION {
            return Err(ObjectError::Version(version));
        }
        let [suite, kind] = *take(&mut rest)?;
        Ok(Self {
            fixed,
            suite,
            kind,
            epoch: u32::from_le_bytes(*take(&mut rest)?),
            domain: DomainId::from_bytes(*take(&mut rest)?),
            salt: take(&mut rest)?,
            commitment: take(&mut rest)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schedule_key::ScheduleKey;

    fn keyring(byte: u8) -> Keyring {
        Keyring::first(&ScheduleKey::from_bytes([byte; 32]), "test")
    }

    #[test]
    fn every_changed_byte_of_a_single_object_is_noticed() {
        let keyring = keyring(1);
        let sealed = seal_single(&keyring, ObjectKind::Snapshot, &[5; 32], b"hello").unwrap();
        assert_eq!(
            open_single(&keyring, ObjectKind::Snapshot, &sealed).unwrap(),
            b"hello"
        );
        for at in 0..sealed.len() {
            let mut damaged = sealed.clone();
            damaged[at] ^= 1;
            assert!(
                open_single(&keyring, ObjectKind::Snapshot, &damaged).is_err(),
                "{at}"
            );
        }
        for length in 0..sealed.len() {
            let cut = &sealed[..length];
            assert!(open_single(&keyring, ObjectKind::Snapshot, cut).is_err());
        }
        assert!(open_single(&keyring, ObjectKind::Condemned, &sealed).is_err());
    }

    #[test]
    fn parts_open_only_in_their_place() {
        let keyring = keyring(1);
        let object = ObjectCipher::create(&keyring, ObjectKind::DataPack, &[6; 32]).unwrap();
        let mut part = b"frame".to_vec();
        object.seal_part(3, &mut part).unwrap();
        assert_eq!(part.len(), 5 + PART_OVERHEAD_BYTES);
        let again = ObjectCipher::open(&keyring, ObjectKind::DataPack, object.header()).unwrap();
        assert_eq!(
            again.open_part(4, &mut part.clone()),
            Err(ObjectError::Damaged)
        );
        again.open_part(3, &mut part).unwrap();
        assert_eq!(part, b"frame");
    }

    #[test]
    fn another_key_is_told_from_damage() {
        let mut other = keyring(1);
        other.add_epoch([9; 32]).unwrap();
        let sealed = seal_single(&other, ObjectKind::Snapshot, &[5; 32], b"x").unwrap();
        assert_eq!(
            open_single(&keyring(1), ObjectKind::Snapshot, &sealed),
            Err(ObjectError::Epoch(1))
        );
        let mut third = keyring(1);
        third.add_epoch([8; 32]).unwrap();
        assert_eq!(
            open_single(&third, ObjectKind::Snapshot, &sealed),
            Err(ObjectError::Commitment)
        );
        assert_eq!(
            open_single(&keyring(2), ObjectKind::Snapshot, &sealed),
            Err(ObjectError::Header)
        );
    }
}
