//! The keyring: all keys of one domain, as a slot holds them.

use std::fmt;

use model::DomainId;
use thiserror::Error;
use zeroize::Zeroizing;

use crate::derive::{Key, derive, expand};
use crate::naming::{ChunkNamer, TreeHasher};
use crate::object::ObjectKind;
use crate::schedule_key::ScheduleKey;

const KEYRING_VERSION: u8 = 1;
const RIGHTS_ALL: u8 = 7;
const LABEL_BYTES_MAX: usize = 255;
const EPOCH_COUNT_MAX: usize = 1024;

/// The keys of one domain.
#[derive(Clone)]
pub struct Keyring {
    domain: DomainId,
    label: String,
    id: Key,
    chunker: Key,
    tree: Key,
    control: Key,
    /// Ascending by number, at least one.
    epochs: Vec<(u32, Key)>,
}

/// Says why an opened slot does not hold a keyring.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum KeyringError {
    /// A newer program wrote it.
    #[error("the keyring has version {0}, this program knows version {KEYRING_VERSION}")]
    Version(u8),
    /// It lacks a right that this program cannot do without.
    #[error("the keyring lacks rights: this program needs add, read and delete")]
    Rights,
    /// It does not follow the format.
    #[error("the keyring does not follow the format")]
    Shape,
}

impl Keyring {
    /// Gives the first keyring of the domain that `key` begins. The label is for people and is
    /// cut to 255 bytes.
    #[must_use]
    pub fn first(key: &ScheduleKey, label: &str) -> Self {
        let mut label = label.to_owned();
        while label.len() > LABEL_BYTES_MAX {
            label.pop();
        }
        Self {
            domain: key.domain_id(),
            label,
            id: key.derive("id key"),
            chunker: key.derive("chunker key"),
            tree: key.derive("tree key"),
            control: key.derive("control key"),
            epochs: vec![(0, key.derive("data key"))],
        }
    }

    /// Adds an epoch with 32 unpredictable bytes as its data key. New packs use it.
    ///
    /// # Errors
    ///
    /// `KeyringError::Shape` when the keyring is full.
    pub fn add_epoch(&mut self, random: [u8; 32]) -> Result<u32, KeyringError> {
        let next = self.epoch().checked_add(1).ok_or(KeyringError::Shape)?;
        if self.epochs.len() >= EPOCH_COUNT_MAX {
            return Err(KeyringError::Shape);
        }
        self.epochs.push((next, Zeroizing::new(random)));
        Ok(next)
    }

    /// Gives the domain.
    #[must_use]
    pub const fn domain(&self) -> DomainId {
        self.domain
    }

    /// Gives the label, for people.
    #[must_use]
    pub fn label(&self) -> &str {
        &self.label
    }

    /// Gives what names chunks.
    #[must_use]
    pub fn namer(&self) -> ChunkNamer {
        ChunkNamer::new(&self.id)
    }

    /// Gives what ends tree pages.
    #[must_use]
    pub fn tree_hasher(&self) -> TreeHasher {
        TreeHasher::new(&self.tree)
    }

    /// Gives the gear table of the chunker.
    #[must_use]
    pub fn gear_table(&self) -> Box<[u64; 256]> {
        let mut bytes = Zeroizing::new([0; 2048]);
        expand("gear table", self.chunker.as_ref(), bytes.as_mut());
        let mut table = Box::new([0; 256]);
        for (entry, word) in table.iter_mut().zip(bytes.as_chunks::<8>().0) {
            *entry = u64::from_le_bytes(*word);
        }
        table
    }

    /// True when both name, cut and seal alike, so that stored objects of one serve the other.
    #[must_use]
    pub fn is_same_domain(&self, other: &Self) -> bool {
        self.domain == other.domain
            && self.id == other.id
            && self.chunker == other.chunker
            && self.tree == other.tree
            && self.control == other.control
            && self.epochs == other.epochs
    }

    pub(crate) fn epoch(&self) -> u32 {
        self.epochs.last().map_or(0, |(number, _)| *number)
    }

    /// Gives the root key of an object, or `None` for an unknown epoch.
    pub(crate) fn root_key(&self, kind: ObjectKind, epoch: u32) -> Option<Key> {
        let data_key = || {
            self.epochs
                .iter()
                .find(|(number, _)| *number == epoch)
                .map(|(_, key)| key)
        };
        match kind {
            ObjectKind::DataPack | ObjectKind::MetadataPack => data_key().cloned(),
            ObjectKind::Snapshot => Some(derive("snapshot key", data_key()?.as_ref())),
            ObjectKind::IndexSegment => Some(derive("index key", self.id.as_ref())),
            ObjectKind::Condemned => Some(derive("condemn key", self.control.as_ref())),
            ObjectKind::Pin => Some(derive("pin key", self.control.as_ref())),
        }
    }

    pub(crate) fn encode(&self) -> Zeroizing<Vec<u8>> {
        let mut out = Zeroizing::new(Vec::with_capacity(512 + 36 * self.epochs.len()));
        out.extend_from_slice(&[KEYRING_VERSION, RIGHTS_ALL]);
        out.extend_from_slice(self.domain.as_bytes());
        put_varint(&mut out, self.label.len());
        out.extend_from_slice(self.label.as_bytes());
        for key in [&self.id, &self.chunker, &self.tree, &self.control] {
            out.extend_from_slice(key.as_ref());
        }
        put_varint(&mut out, self.epochs.len());
        for (number, key) in &self.epochs {
            out.extend_from_slice(&number.to_le_bytes());
            out.extend_from_slice(key.as_ref());
        }
        out
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, KeyringError> {
        let ([version, rights], mut rest) = bytes.split_first_chunk().ok_or(KeyringError::Shape)?;
        if *version != KEYRING_VERSION {
            return Err(KeyringError::Version(*version));
        }
        if *rights != RIGHTS_ALL {
            return Err(KeyringError::Rights);
        }
        let domain = DomainId::from_bytes(take(&mut rest)?);
        let label_bytes = take_varint(&mut rest, LABEL_BYTES_MAX)?;
        let (label, after) = rest
            .split_at_checked(label_bytes)
            .ok_or(KeyringError::Shape)?;
        let label = str::from_utf8(label).map_err(|_| KeyringError::Shape)?;
        rest = after;
        let mut keyring = Self {
            domain,
            label: label.to_owned(),
            id: Zeroizing::new(take(&mut rest)?),
            chunker: Zeroizing::new(take(&mut rest)?),
            tree: Zeroizing::new(take(&mut rest)?),
            control: Zeroizing::new(take(&mut rest)?),
            epochs: Vec::new(),
        };
        for _ in 0..take_varint(&mut rest, EPOCH_COUNT_MAX)? {
            let number = u32::from_le_bytes(take(&mut rest)?);
            keyring
                .epochs
                .push((number, Zeroizing::new(take(&mut rest)?)));
        }
        let ascending = keyring.epochs.is_sorted_by(|(a, _), (b, _)| a < b);
        if keyring.epochs.is_empty() || !ascending || !rest.is_empty() {
            return Err(KeyringError::Shape);
        }
        Ok(keyring)
    }
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keyring({}, {:?})", self.domain, self.label)
    }
}

fn take<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], KeyringError> {
    let (head, tail) = rest.split_first_chunk().ok_or(KeyringError::Shape)?;
    *rest = tail;
    Ok(*head)
}

/// Numbers in a keyring stay below 2^14: one or two bytes.
fn put_varint(out: &mut Vec<u8>, number: usize) {
    let low = u8::try_from(number & 0x7f).unwrap_or(0);
    match u8::try_from(number >> 7) {
        Ok(high) if high > 0 => out.extend_from_slice(&[low | 0x80, high]),
        _ => out.push(low),
    }
}

fn take_varint(rest: &mut &[u8], max: usize) -> Result<usize, KeyringError> {
    let [low] = take(rest)?;
    let mut number = usize::from(low & 0x7f);
    if low & 0x80 != 0 {
        let [high] = take(rest)?;
        if high == 0 || high & 0x80 != 0 {
            return Err(KeyringError::Shape);
        }
        number |= usize::from(high) << 7;
    }
    if number > max {
        return Err(KeyringError::Shape);
    }
    Ok(number)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn keyrings_read_back_with_all_epochs() {
        let mut keyring = Keyring::first(&ScheduleKey::from_bytes([3; 32]), "web1 nightly");
        for number in 1..200 {
            assert_eq!(keyring.add_epoch([7; 32]).unwrap(), number);
        }
        let read = Keyring::decode(&keyring.encode()).unwrap();
        assert!(read.is_same_domain(&keyring));
        assert_eq!(read.label(), "web1 nightly");
        assert_eq!(read.epoch(), 199);
        assert!(read.root_key(ObjectKind::Snapshot, 500).is_none());
    }

    #[test]
    fn a_newer_keyring_says_so() {
        let keyring = Keyring::first(&ScheduleKey::from_bytes([3; 32]), "");
        let mut bytes = keyring.encode().to_vec();
        bytes[0] = 2;
        assert_eq!(
            Keyring::decode(&bytes).unwrap_err(),
            KeyringError::Version(2)
        );
        bytes[0] = 1;
        bytes[1] = 1;
        assert_eq!(Keyring::decode(&bytes).unwrap_err(), KeyringError::Rights);
    }

    #[test]
    fn the_gear_table_is_frozen() {
        let table = Keyring::first(&ScheduleKey::from_bytes([3; 32]), "").gear_table();
        insta::assert_snapshot!(format!("{:016x} {:016x}", table[0], table[255]), @"2f8e66f3e58f36d8 d3f314a9482f91c0");
    }

    proptest! {
        #[test]
        fn foreign_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            prop_assert!(Keyring::decode(&bytes).is_err());
            let mut like = vec![1, 7];
            like.extend(bytes);
            if let Ok(keyring) = Keyring::decode(&like) {
                prop_assert_eq!(&*keyring.encode(), &like);
            }
        }
    }
}
