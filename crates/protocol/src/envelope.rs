//! The signed envelope: exact bytes, their meaning, and a signature over both.
//!
//! After DSSE: the signature covers a length-prefixed encoding of payload type and payload, so a
//! signature for one kind of document can never serve for another, and nothing inside the payload
//! is parsed before it was verified.

use data_encoding::BASE64;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{DOCUMENT_BYTES_MAX, KeyHash, PublicKey, SignatureBytes, SigningKey, fields};

/// What the signed bytes mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum PayloadType {
    /// A set of schedules for one agent.
    #[serde(rename = "backstay.generation.1")]
    Generation,
    /// One order to one agent.
    #[serde(rename = "backstay.command.1")]
    Command,
    /// What an agent keeps of its joining.
    #[serde(rename = "backstay.join-record.1")]
    JoinRecord,
}

impl PayloadType {
    const fn text(self) -> &'static str {
        match self {
            Self::Generation => "backstay.generation.1",
            Self::Command => "backstay.command.1",
            Self::JoinRecord => "backstay.join-record.1",
        }
    }
}

/// Says why an envelope is not accepted.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum EnvelopeError {
    /// Too long to be read.
    #[error("the document has {0} bytes; at most {DOCUMENT_BYTES_MAX} are read")]
    TooLong(usize),
    /// Not the shape of an envelope.
    #[error("the document is not a signed envelope: {0}")]
    Malformed(String),
    /// Another kind of document.
    #[error("the document is a {found:?}, not a {wanted:?}")]
    WrongType {
        /// What the caller asked for.
        wanted: PayloadType,
        /// What it is.
        found: PayloadType,
    },
    /// Signed by another key.
    #[error("the document is signed by key {found}, not by the controller's key {wanted}")]
    WrongKey {
        /// The key that the caller trusts.
        wanted: KeyHash,
        /// The key that the envelope names.
        found: KeyHash,
    },
    /// The signature does not belong to these bytes.
    #[error("the signature does not match the document")]
    BadSignature,
    /// Verified, but the payload cannot be read.
    #[error("the signed document cannot be read: {0}")]
    BadPayload(String),
}

/// A signed document. Its JSON is what is stored and sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Envelope {
    payload_type: PayloadType,
    #[serde(with = "base64_bytes")]
    payload: Vec<u8>,
    key: KeyHash,
    signature: SignatureBytes,
}

impl Envelope {
    /// Signs a payload.
    #[must_use]
    pub fn seal(payload_type: PayloadType, payload: Vec<u8>, key: &SigningKey) -> Self {
        let signature = key.sign(&message(payload_type, &payload));
        Self {
            payload_type,
            payload,
            key: key.public().hash(),
            signature,
        }
    }

    /// Reads the text form; nothing is verified yet.
    ///
    /// # Errors
    ///
    /// `TooLong` or `Malformed`; the same bytes will never be accepted.
    pub fn parse(text: &[u8]) -> Result<Self, EnvelopeError> {
        if text.len() > DOCUMENT_BYTES_MAX {
            return Err(EnvelopeError::TooLong(text.len()));
        }
        serde_json::from_slice(text).map_err(|e| EnvelopeError::Malformed(e.to_string()))
    }

    /// Gives the text form.
    #[must_use]
    pub fn to_text(&self) -> String {
        // Plain strings and an enum of unit variants always serialize.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Gives the signed bytes when they are of the wanted type and signed by `key`.
    ///
    /// # Errors
    ///
    /// `WrongType`, `WrongKey`, `BadSignature` or `TooLong`; the document is not to be used.
    pub fn open(&self, wanted: PayloadType, key: &PublicKey) -> Result<&[u8], EnvelopeError> {
        if self.payload.len() > DOCUMENT_BYTES_MAX {
            return Err(EnvelopeError::TooLong(self.payload.len()));
        }
        if self.payload_type != wanted {
            return Err(EnvelopeError::WrongType {
                wanted,
                found: self.payload_type,
            });
        }
        if self.key != key.hash() {
            return Err(EnvelopeError::WrongKey {
                wanted: key.hash(),
                found: self.key,
            });
        }
        if !key.verifies(&message(self.payload_type, &self.payload), &self.signature) {
            return Err(EnvelopeError::BadSignature);
        }
        Ok(&self.payload)
    }

    /// Opens the envelope and reads its JSON payload.
    pub(crate) fn read<T: for<'de> Deserialize<'de>>(
        &self,
        wanted: PayloadType,
        key: &PublicKey,
    ) -> Result<T, EnvelopeError> {
        serde_json::from_slice(self.open(wanted, key)?)
            .map_err(|e| EnvelopeError::BadPayload(e.to_string()))
    }
}

fn message(payload_type: PayloadType, payload: &[u8]) -> Vec<u8> {
    fields(
        "backstay envelope 1",
        &[payload_type.text().as_bytes(), payload],
    )
}

mod base64_bytes {
    use super::BASE64;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&BASE64.encode(bytes))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<u8>, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        BASE64.decode(text.as_bytes()).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn key() -> SigningKey {
        SigningKey::from_seed(&[1; 32])
    }

    #[test]
    fn the_wire_form_stays() {
        let envelope = Envelope::seal(PayloadType::Command, b"{}".to_vec(), &key());
        insta::assert_snapshot!(envelope.to_text());
    }

    #[test]
    fn a_signature_serves_one_meaning_only() {
        let envelope = Envelope::seal(PayloadType::Command, b"{}".to_vec(), &key());
        let mut renamed = envelope.clone();
        renamed.payload_type = PayloadType::Generation;
        assert!(matches!(
            envelope.open(PayloadType::Generation, &key().public()),
            Err(EnvelopeError::WrongType { .. })
        ));
        assert_eq!(
            renamed.open(PayloadType::Generation, &key().public()),
            Err(EnvelopeError::BadSignature)
        );
    }

    #[test]
    fn another_key_is_named_in_the_refusal() {
        let envelope = Envelope::seal(PayloadType::Command, b"{}".to_vec(), &key());
        let other = SigningKey::from_seed(&[2; 32]).public();
        assert!(matches!(
            envelope.open(PayloadType::Command, &other),
            Err(EnvelopeError::WrongKey { .. })
        ));
    }

    #[test]
    fn endless_documents_are_not_read() {
        let long = vec![b' '; DOCUMENT_BYTES_MAX + 1];
        assert_eq!(
            Envelope::parse(&long),
            Err(EnvelopeError::TooLong(DOCUMENT_BYTES_MAX + 1))
        );
    }

    proptest! {
        #[test]
        fn sealed_bytes_come_back(payload: Vec<u8>) {
            let envelope = Envelope::seal(PayloadType::Generation, payload.clone(), &key());
            let read = Envelope::parse(envelope.to_text().as_bytes()).unwrap();
            prop_assert_eq!(read.open(PayloadType::Generation, &key().public()).unwrap(), &payload[..]);
        }

        #[test]
        fn any_changed_byte_is_refused(payload: Vec<u8>, at: prop::sample::Index, with in 1..=255u8) {
            let text = Envelope::seal(PayloadType::Generation, payload, &key()).to_text();
            let mut bytes = text.into_bytes();
            let at = at.index(bytes.len());
            bytes[at] ^= with;
            let opened = Envelope::parse(&bytes)
                .and_then(|e| e.open(PayloadType::Generation, &key().public()).map(<[u8]>::to_vec));
            prop_assert!(opened.is_err());
        }
    }
}
