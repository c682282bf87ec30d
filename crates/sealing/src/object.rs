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
use crate::rights::Right;
use crate::root::{Origin, SEALED_EPOCH, decision_code, root_key, trailer_key};
use crate::seal_key::own_public;

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
const SUITE_SEALED_PARTS: u8 = 3;
const SUITE_SEALED_SINGLE: u8 = 4;
/// As 2, but everybody who has a key of the domain can read it; who made it is told by a code.
pub(crate) const SUITE_DECISION: u8 = 5;
pub(crate) const COMMITMENT_BYTES: usize = 32;

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
    /// A writer that is at work.
    Session = 7,
    /// A session that is waited for no more.
    Revoked = 8,
}

impl ObjectKind {
    const fn suite(self, epoch: u32) -> u8 {
        let is_of_parts = matches!(
            self,
            Self::DataPack | Self::MetadataPack | Self::IndexSegment
        );
        if matches!(self, Self::Condemned) {
            return SUITE_DECISION;
        }
        match (is_of_parts, epoch & SEALED_EPOCH != 0) {
            (true, false) => SUITE_PARTS,
            (false, false) => SUITE_SINGLE,
            (true, true) => SUITE_SEALED_PARTS,
            (false, true) => SUITE_SEALED_SINGLE,
        }
    }

    /// True when a stored object of this kind may have a suite. Decisions were once sealed as other
    /// small objects are.
    const fn takes(self, suite: u8, epoch: u32) -> bool {
        suite == self.suite(epoch) || (matches!(self, Self::Condemned) && suite == SUITE_SINGLE)
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
    /// It is sealed in a way that this program does not know.
    #[error(
        "the object is sealed by suite {0}, which this program does not know: a newer one wrote it"
    )]
    Suite(u8),
    /// The keyring does not allow it.
    #[error("the key has no right to {0}")]
    Right(Right),
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
    /// None for who may not read it and did not write it.
    key: Option<Key>,
    /// Key and commitment of the trailer, where it has its own.
    trailer: Option<Box<(Key, [u8; COMMITMENT_BYTES])>>,
}

impl ObjectCipher {
    /// Begins a new object. The salt is 32 unpredictable bytes, used for no other content; of who
    /// may not read, they are a secret of the object, and the salt that is stored is another one.
    ///
    /// # Errors
    ///
    /// `ObjectError::Right` when the keyring does not allow it.
    pub fn create(
        keyring: &Keyring,
        kind: ObjectKind,
        salt: &[u8; 32],
    ) -> Result<Self, ObjectError> {
        if !kind.has_epoch() {
            return Self::recall(keyring, kind, 0, salt);
        }
        if keyring.rights().has(Right::Read) {
            return Self::recall(keyring, kind, keyring.epoch(), salt);
        }
        let epoch = keyring.epoch() | SEALED_EPOCH;
        Self::new(keyring, (kind, epoch), &Origin::New(salt))
    }

    /// Takes up an object of which epoch and salt are known, without reading its header.
    ///
    /// # Errors
    ///
    /// `ObjectError::Epoch` when the keyring lacks the epoch, or `ObjectError::Right`.
    pub fn recall(
        keyring: &Keyring,
        kind: ObjectKind,
        epoch: u32,
        salt: &[u8; 32],
    ) -> Result<Self, ObjectError> {
        Self::new(keyring, (kind, epoch), &Origin::Stored(salt))
    }

    fn new(
        keyring: &Keyring,
        (kind, epoch): (ObjectKind, u32),
        origin: &Origin<'_>,
    ) -> Result<Self, ObjectError> {
        let mut header = Vec::with_capacity(HEADER_BYTES);
        header.extend_from_slice(&MAGIC);
        header.extend_from_slice(&VERSION.to_le_bytes());
        header.extend_from_slice(&[kind.suite(epoch), kind as u8]);
        header.extend_from_slice(&epoch.to_le_bytes());
        header.extend_from_slice(keyring.domain().as_bytes());
        let root = root_key(keyring, (kind, kind.suite(epoch), epoch), origin)?;
        let salt = match origin {
            Origin::New(random) => own_public(random),
            Origin::Stored(salt) => **salt,
        };
        let (key, commitment) = derive_pair("object seal", &[root.as_ref(), &header, &salt]);
        let trailer = trailer_key(keyring, epoch, &[&header, &salt]);
        header.extend_from_slice(&salt);
        header.extend_from_slice(&commitment);
        let header = header.try_into().map_err(|_| ObjectError::Header)?;
        Ok(Self {
            header,
            key: Some(key),
            trailer,
        })
    }

    /// Takes up a stored object by its header. Who may not read gets no more than the trailer of
    /// a pack that was sealed without the right to read.
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
        let own = kind.takes(fields.suite, fields.epoch)
            && fields.kind == kind as u8
            && fields.domain == keyring.domain();
        if !own {
            return Err(ObjectError::Header);
        }
        let trailer = trailer_key(keyring, fields.epoch, &[fields.fixed, fields.salt]);
        let origin = Origin::Stored(fields.salt);
        let root = match root_key(keyring, (kind, fields.suite, fields.epoch), &origin) {
            Err(ObjectError::Right(_)) if trailer.is_some() => {
                return Ok(Self {
                    header: *header,
                    key: None,
                    trailer,
                });
            }
            other => other?,
        };
        let (key, commitment) =
            derive_pair("object seal", &[root.as_ref(), fields.fixed, fields.salt]);
        if !bool::from(commitment.ct_eq(fields.commitment)) {
            return Err(ObjectError::Commitment);
        }
        Ok(Self {
            header: *header,
            key: Some(key),
            trailer,
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

    /// Seals part `number` in place; it grows by [`PART_OVERHEAD_BYTES`], a trailer with a key of
    /// its own by its commitment, too.
    ///
    /// # Errors
    ///
    /// `ObjectError::Damaged` when the part is longer than the cipher allows (256 GiB), or
    /// `ObjectError::Right`.
    pub fn seal_part(&self, number: u32, part: &mut Vec<u8>) -> Result<(), ObjectError> {
        let (key, commitment) = self.part_key(number)?;
        ChaCha20Poly1305::new((&**key).into())
            .encrypt_in_place(&part_nonce(number), &self.header, part)
            .map_err(|_| ObjectError::Damaged)?;
        part.splice(..0, commitment.iter().copied());
        Ok(())
    }

    /// Opens part `number` in place; it shrinks by what [`Self::seal_part`] added.
    ///
    /// # Errors
    ///
    /// As [`Self::open_part_within`].
    pub fn open_part(&self, number: u32, part: &mut Vec<u8>) -> Result<(), ObjectError> {
        let plain = self.open_part_within(number, part)?.len();
        let before = part.len() - PART_OVERHEAD_BYTES - plain;
        part.drain(..before);
        part.truncate(plain);
        Ok(())
    }

    /// Opens part `number` where it lies among others; gives its plaintext.
    ///
    /// # Errors
    ///
    /// `ObjectError::Damaged`: a bit of it, or its number, is not what was sealed.
    /// `ObjectError::Right` when the keyring may not read it, `ObjectError::Commitment`.
    pub fn open_part_within<'p>(
        &self,
        number: u32,
        part: &'p mut [u8],
    ) -> Result<&'p mut [u8], ObjectError> {
        let (key, commitment) = self.part_key(number)?;
        let (stored, sealed) = part
            .split_at_mut_checked(commitment.len())
            .ok_or(ObjectError::Damaged)?;
        if !bool::from(stored.ct_eq(commitment)) {
            return Err(ObjectError::Commitment);
        }
        let (plain, tag) = sealed
            .split_last_chunk_mut::<PART_OVERHEAD_BYTES>()
            .ok_or(ObjectError::Damaged)?;
        ChaCha20Poly1305::new((&**key).into())
            .decrypt_inout_detached(
                &part_nonce(number),
                &self.header,
                plain.into(),
                (&*tag).into(),
            )
            .map_err(|_| ObjectError::Damaged)?;
        Ok(plain)
    }

    const fn is_decision(&self) -> bool {
        // Behind magic and version.
        self.header[10] == SUITE_DECISION
    }

    fn part_key(&self, number: u32) -> Result<(&Key, &[u8]), ObjectError> {
        match &self.trailer {
            Some(own) if number == TRAILER_PART => Ok((&own.0, &own.1)),
            _ => Ok((self.key()?, &[])),
        }
    }

    fn key(&self) -> Result<&Key, ObjectError> {
        self.key.as_ref().ok_or(ObjectError::Right(Right::Read))
    }

    /// Fills `out` with bytes that look like sealed ones.
    pub fn fill(&self, out: &mut [u8]) {
        if let Some(key) = &self.key {
            expand("filler", key.as_ref(), out);
        }
    }
}

/// Gives the number of the epoch that sealed a stored object, and whether its writer could read
/// it.
///
/// # Errors
///
/// `ObjectError` when it does not begin as a sealed object does.
pub fn sealed_by(stored: &[u8]) -> Result<(u32, bool), ObjectError> {
    let header = stored.first_chunk().ok_or(ObjectError::TooShort)?;
    let epoch = Fields::parse(header)?.epoch;
    Ok((epoch & !SEALED_EPOCH, epoch & SEALED_EPOCH == 0))
}

/// Gives the number of the epoch in what [`ObjectCipher::origin`] gave.
#[must_use]
pub const fn epoch_number(epoch: u32) -> u32 {
    epoch & !SEALED_EPOCH
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
    let (_, salt) = object.origin()?;
    if object.is_decision() {
        let code = decision_code(keyring, &object.header, plaintext);
        sealed.extend_from_slice(&code.ok_or(ObjectError::Right(Right::Delete))?);
    }
    XChaCha20Poly1305::new((&**object.key()?).into())
        .encrypt_in_place(&single_nonce(&salt), &object.header, &mut sealed)
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
    XChaCha20Poly1305::new((&**object.key()?).into())
        .decrypt_in_place(
            &single_nonce(Fields::parse(header)?.salt),
            header,
            &mut plaintext,
        )
        .map_err(|_| ObjectError::Damaged)?;
    if object.is_decision() {
        let (text, code) = plaintext.split_last_chunk().ok_or(ObjectError::TooShort)?;
        let (text, code): (&[u8], &[u8; 32]) = (text, code);
        // Who may not delete takes it as it is: what it leads to is no more than caution.
        if decision_code(keyring, header, text).is_some_and(|own| !bool::from(own.ct_eq(code))) {
            return Err(ObjectError::Damaged);
        }
        plaintext.truncate(text.len());
    }
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
        if !(SUITE_PARTS..=SUITE_DECISION).contains(&suite) {
            return Err(ObjectError::Suite(suite));
        }
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
mod tests;
