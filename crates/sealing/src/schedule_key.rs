//! The schedule key: what people keep, and its text form.

use std::fmt;

use data_encoding::{BASE32_NOPAD_NOCASE, HEXLOWER};
use model::{DomainId, Secret};
use thiserror::Error;
use zeroize::Zeroizing;

use crate::derive::{Key, derive};

const PREFIX: &str = "bsk1-";
const CHECKSUM_BYTES: usize = 3;
const GROUP_DIGITS: usize = 8;
const DIGITS: usize = 7 * GROUP_DIGITS;
const TEXT_BYTES_MAX: usize = 256;

/// The key that opens one domain.
#[derive(Clone, PartialEq, Eq)]
pub struct ScheduleKey(Key);

/// The name of the slot that a schedule key opens; the same in every domain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SlotName([u8; 16]);

impl SlotName {
    /// Takes 16 unpredictable bytes, for a slot that no schedule key opens.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// Reads 32 lower-case hexadecimal digits.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let bytes = HEXLOWER.decode(text.as_bytes()).ok()?;
        bytes.try_into().ok().map(Self)
    }

    /// Gives the raw bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Display for SlotName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

/// Says why a text is not a schedule key. Never shows the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum KeyTextError {
    /// It does not begin with the prefix.
    #[error("a schedule key begins with {PREFIX:?}")]
    Prefix,
    /// It holds other characters.
    #[error("a schedule key has seven groups of eight letters a-z and digits 2-7")]
    Shape,
    /// A part is missing, or something was added.
    #[error(
        "a schedule key has {DIGITS} letters and digits behind {PREFIX:?}, and this one has {0}"
    )]
    Length(usize),
    /// A character is wrong.
    #[error("the checksum of the schedule key does not match: a character is wrong")]
    Checksum,
}

impl ScheduleKey {
    /// Takes 32 unpredictable bytes.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// Gives the key that everybody knows, for backups that are not encrypted.
    #[must_use]
    pub fn published() -> Self {
        Self(derive("published key", &[]))
    }

    /// True for [`Self::published`].
    #[must_use]
    pub fn is_published(&self) -> bool {
        *self == Self::published()
    }

    /// Gives the raw bytes, to be stored where secrets are.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Gives the text form, for people to keep.
    #[must_use]
    pub fn to_text(&self) -> Secret {
        let mut bytes = Zeroizing::new(self.0.to_vec());
        bytes.extend_from_slice(&self.checksum());
        let digits = Zeroizing::new(BASE32_NOPAD_NOCASE.encode(&bytes).to_ascii_lowercase());
        let mut text = String::with_capacity(TEXT_BYTES_MAX);
        text.push_str("bsk1");
        for (at, digit) in digits.chars().enumerate() {
            if at % GROUP_DIGITS == 0 {
                text.push('-');
            }
            text.push(digit);
        }
        Secret::new(text)
    }

    /// Reads the text form; case, white space and dashes between groups do not matter.
    ///
    /// # Errors
    ///
    /// `KeyTextError` says what is wrong with it; ask for it again.
    pub fn parse(text: &str) -> Result<Self, KeyTextError> {
        let text = text.trim();
        if text.len() > TEXT_BYTES_MAX {
            return Err(KeyTextError::Shape);
        }
        let prefix = text.get(..PREFIX.len()).ok_or(KeyTextError::Prefix)?;
        if !prefix.eq_ignore_ascii_case(PREFIX) {
            return Err(KeyTextError::Prefix);
        }
        let digits: Zeroizing<String> = Zeroizing::new(
            text.chars()
                .skip(PREFIX.len())
                .filter(|c| *c != '-' && !c.is_whitespace())
                .collect(),
        );
        let count = digits.chars().count();
        if count != DIGITS {
            return Err(KeyTextError::Length(count));
        }
        let bytes = BASE32_NOPAD_NOCASE
            .decode(digits.as_bytes())
            .map(Zeroizing::new)
            .map_err(|_| KeyTextError::Shape)?;
        let (key, checksum) = bytes.split_first_chunk::<32>().ok_or(KeyTextError::Shape)?;
        if checksum.len() != CHECKSUM_BYTES {
            return Err(KeyTextError::Shape);
        }
        let key = Self::from_bytes(*key);
        if key.checksum() != checksum {
            return Err(KeyTextError::Checksum);
        }
        Ok(key)
    }

    /// Gives the id of the domain that this key begins.
    #[must_use]
    pub fn domain_id(&self) -> DomainId {
        DomainId::from_bytes(first_half(&self.derive("domain id")))
    }

    /// Gives the name of the slot that this key opens.
    #[must_use]
    pub fn slot_name(&self) -> SlotName {
        SlotName(first_half(&self.derive("slot name")))
    }

    /// Gives the data key of the epoch that this key begins under a number.
    pub(crate) fn epoch_key(&self, number: u32) -> Key {
        let mut material = Zeroizing::new(self.0.to_vec());
        material.extend_from_slice(&number.to_le_bytes());
        derive("epoch data key", &material)
    }

    pub(crate) fn derive(&self, purpose: &str) -> Key {
        derive(purpose, self.0.as_ref())
    }

    fn checksum(&self) -> [u8; CHECKSUM_BYTES] {
        let [a, b, c, ..] = *self.derive("schedule key checksum");
        [a, b, c]
    }
}

fn first_half(key: &Key) -> [u8; 16] {
    let mut half = [0; 16];
    half.iter_mut().zip(key.iter()).for_each(|(h, k)| *h = *k);
    half
}

impl fmt::Debug for ScheduleKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ScheduleKey(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_text_reads_back_and_tolerates_how_people_type() {
        let key = ScheduleKey::from_bytes([7; 32]);
        let text = key.to_text();
        assert_eq!(text.reveal().len(), 4 + 7 * 9);
        assert!(ScheduleKey::parse(text.reveal()).unwrap() == key);
        let typed = format!(
            " BSK1-{}
",
            text.reveal()[5..].to_uppercase().replace('-', " ")
        );
        assert!(ScheduleKey::parse(&typed).unwrap() == key);
    }

    #[test]
    fn the_published_key_is_frozen() {
        let key = ScheduleKey::published();
        assert!(key.is_published() && !ScheduleKey::from_bytes([7; 32]).is_published());
        insta::assert_snapshot!(key.to_text().reveal(), @"bsk1-py7y4pl4-hlcaqrsa-mtjigmer-lxgifh2w-52vazj6l-i57bqukw-gvbg6qml");
        assert_eq!(
            SlotName::parse(&key.slot_name().to_string()),
            Some(key.slot_name())
        );
    }

    #[test]
    fn a_mistyped_key_is_noticed() {
        let text = ScheduleKey::from_bytes([9; 32]).to_text();
        let mut digits: Vec<char> = text.reveal().chars().collect();
        digits[10] = if digits[10] == 'a' { 'q' } else { 'a' };
        let wrong: String = digits.into_iter().collect();
        assert_eq!(ScheduleKey::parse(&wrong), Err(KeyTextError::Checksum));
        let cut = text.reveal().get(..40).unwrap();
        assert_eq!(ScheduleKey::parse(cut), Err(KeyTextError::Length(32)));
        for bad in ["", "bsk1-", "bsk2-aaaa", "bsk1-0", "\u{e4}\u{e4}\u{e4}"] {
            assert!(ScheduleKey::parse(bad).is_err(), "{bad}");
        }
        assert!(!format!("{:?}", ScheduleKey::from_bytes([9; 32])).contains('9'));
    }
}
