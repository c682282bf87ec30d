//! The keyring: the keys of one domain that a slot holds, all of them or those of some rights.

use std::fmt;

use model::DomainId;
use thiserror::Error;
use zeroize::Zeroizing;

use crate::derive::{Key, derive, expand};
use crate::naming::{ChunkNamer, TreeHasher};
use crate::rights::{Right, Rights};
use crate::schedule_key::ScheduleKey;
use crate::seal_key::public_of;

const KEYRING_VERSION: u8 = 1;
const LABEL_BYTES_MAX: usize = 255;
const EPOCH_COUNT_MAX: usize = 1024;
/// Numbers of epochs stay below: the bit above them says which suite sealed an object.
const EPOCH_NUMBER_MAX: u32 = u32::MAX >> 1;

/// The keys of one domain.
#[derive(Clone)]
pub struct Keyring {
    domain: DomainId,
    rights: Rights,
    label: String,
    pub(crate) id: Key,
    /// Zero without the right to add, as the tree key.
    chunker: Key,
    tree: Key,
    /// Zero without the right to delete.
    pub(crate) control: Key,
    /// Ascending by number, at least one. Data keys, or without the right to read the public
    /// halves of the keys that objects are sealed to.
    epochs: Vec<(u32, Key)>,
}

/// Says why an opened slot does not hold a keyring.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum KeyringError {
    /// A newer program wrote it.
    #[error("the keyring has version {0}, this program knows version {KEYRING_VERSION}")]
    Version(u8),
    /// It holds rights that do not go together.
    #[error("the keyring holds rights that do not go together ({0})")]
    Rights(u8),
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
            rights: Rights::ALL,
            label,
            id: key.derive("id key"),
            chunker: key.derive("chunker key"),
            tree: key.derive("tree key"),
            control: key.derive("control key"),
            epochs: vec![(0, key.derive("data key"))],
        }
    }

    /// Adds the epoch that `key` begins. New objects use its data key.
    ///
    /// # Errors
    ///
    /// `KeyringError::Shape` when the keyring is full or may not read.
    pub fn add_epoch(&mut self, key: &ScheduleKey) -> Result<u32, KeyringError> {
        let next = self.epoch() + 1;
        let is_full = next > EPOCH_NUMBER_MAX || self.epochs.len() >= EPOCH_COUNT_MAX;
        if is_full || !self.rights.has(Right::Read) {
            return Err(KeyringError::Shape);
        }
        self.epochs.push((next, key.epoch_key(next)));
        Ok(next)
    }

    /// Gives the keyring that a slot of fewer rights holds.
    ///
    /// # Errors
    ///
    /// `KeyringError::Shape` when this one lacks some of them.
    pub fn with_rights(&self, rights: Rights) -> Result<Self, KeyringError> {
        if !self.rights.include(rights) {
            return Err(KeyringError::Shape);
        }
        let given = |right: Right, key: &Key| {
            if rights.has(right) {
                key.clone()
            } else {
                Key::default()
            }
        };
        let mut epochs = self.epochs.clone();
        if !rights.has(Right::Read) && self.rights.has(Right::Read) {
            // Only the newest is ever sealed to.
            epochs.drain(..epochs.len().saturating_sub(1));
            for (_, key) in &mut epochs {
                *key = public_of(key);
            }
        }
        Ok(Self {
            domain: self.domain,
            rights,
            label: self.label.clone(),
            id: self.id.clone(),
            chunker: given(Right::Add, &self.chunker),
            tree: given(Right::Add, &self.tree),
            control: given(Right::Delete, &self.control),
            epochs,
        })
    }

    /// Gives the keyring of another domain that names and cuts alike but seals with a data key of its
    /// own, for what stays on this machine.
    #[must_use]
    pub fn for_this_machine(&self, data_key: [u8; 32]) -> Self {
        let data_key = Key::new(data_key);
        let domain = derive("local domain id", self.domain.as_bytes());
        Self {
            domain: DomainId::from_bytes(domain.first_chunk().copied().unwrap_or_default()),
            rights: Rights::ALL,
            label: self.label.clone(),
            id: self.id.clone(),
            chunker: self.chunker.clone(),
            tree: self.tree.clone(),
            control: derive("local control key", data_key.as_ref()),
            epochs: vec![(0, data_key)],
        }
    }

    /// Gives what the keyring allows.
    #[must_use]
    pub const fn rights(&self) -> Rights {
        self.rights
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
            && self.rights == other.rights
            && self.id == other.id
            && self.chunker == other.chunker
            && self.tree == other.tree
            && self.control == other.control
            && self.epochs == other.epochs
    }

    /// Gives the number of the newest epoch.
    #[must_use]
    pub fn epoch(&self) -> u32 {
        self.epochs.last().map_or(0, |(number, _)| *number)
    }

    /// Gives the key of an epoch: a data key, or a public one without the right to read.
    pub(crate) fn epoch_key(&self, epoch: u32) -> Option<&Key> {
        let mut epochs = self.epochs.iter();
        epochs
            .find(|(number, _)| *number == epoch)
            .map(|(_, key)| key)
    }

    pub(crate) fn encode(&self) -> Zeroizing<Vec<u8>> {
        let mut out = Zeroizing::new(Vec::with_capacity(512 + 36 * self.epochs.len()));
        out.extend_from_slice(&[KEYRING_VERSION, self.rights.number()]);
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
        let rights = Rights::from_number(*rights).ok_or(KeyringError::Rights(*rights))?;
        let domain = DomainId::from_bytes(take(&mut rest)?);
        let label_bytes = take_varint(&mut rest, LABEL_BYTES_MAX)?;
        let (label, after) = rest
            .split_at_checked(label_bytes)
            .ok_or(KeyringError::Shape)?;
        let label = str::from_utf8(label).map_err(|_| KeyringError::Shape)?;
        rest = after;
        let mut keyring = Self {
            domain,
            rights,
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
        if keyring.epochs.is_empty()
            || !ascending
            || keyring.epoch() > EPOCH_NUMBER_MAX
            || !rest.is_empty()
        {
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
            let key = ScheduleKey::from_bytes([7; 32]);
            assert_eq!(keyring.add_epoch(&key).unwrap(), number);
        }
        let read = Keyring::decode(&keyring.encode()).unwrap();
        assert!(read.is_same_domain(&keyring));
        assert_eq!(read.label(), "web1 nightly");
        assert_eq!(read.epoch(), 199);
        assert!(read.epoch_key(199).is_some() && read.epoch_key(500).is_none());
        assert!(read.epoch_key(198) != read.epoch_key(199));
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
        bytes[1] = 5;
        assert_eq!(
            Keyring::decode(&bytes).unwrap_err(),
            KeyringError::Rights(5)
        );
    }

    #[test]
    fn fewer_rights_are_fewer_keys() {
        let mut full = Keyring::first(&ScheduleKey::from_bytes([3; 32]), "web1");
        full.add_epoch(&ScheduleKey::from_bytes([4; 32])).unwrap();
        let add = full.with_rights(Rights::ADD).unwrap();
        let add = Keyring::decode(&add.encode()).unwrap();
        assert_eq!((add.rights(), add.epoch()), (Rights::ADD, 1));
        assert_eq!(add.epochs.len(), 1);
        assert!(add.epoch_key(1) != full.epoch_key(1));
        assert_eq!(*add.control, [0; 32]);
        assert_eq!(add.gear_table(), full.gear_table());
        assert!(add.with_rights(Rights::ALL).is_err(), "none grow back");
        let bytes = add.encode();
        for key in full
            .epochs
            .iter()
            .map(|(_, key)| key)
            .chain([&full.control])
        {
            assert!(!bytes.windows(32).any(|window| window == key.as_slice()));
        }
        let read = full.with_rights(Rights::READ).unwrap();
        assert_eq!((read.epochs.len(), *read.tree), (2, [0; 32]));
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
