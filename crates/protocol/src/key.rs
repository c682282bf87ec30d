//! Signing keys of agents and of the controller: Ed25519, verified strictly.

use std::fmt;

use data_encoding::BASE64URL_NOPAD;
use ed25519_dalek::{Signer, VerifyingKey};
use model::AgentId;
use serde::{Deserialize, Serialize};

/// A secret signing key. `Debug` shows its public half only; memory is wiped when dropped.
#[derive(Clone)]
pub struct SigningKey(ed25519_dalek::SigningKey);

impl SigningKey {
    /// Takes the 32 secret bytes (RFC 8032, 5.1.5), made by a random generator or read from a file.
    #[must_use]
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        Self(ed25519_dalek::SigningKey::from_bytes(seed))
    }

    /// Gives the secret bytes, for the one place that stores them.
    #[must_use]
    pub fn seed(&self) -> &[u8; 32] {
        self.0.as_bytes()
    }

    /// Gives the public half.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        PublicKey(self.0.verifying_key())
    }

    /// Signs exact bytes. Callers put the purpose in front of them.
    pub(crate) fn sign(&self, message: &[u8]) -> SignatureBytes {
        SignatureBytes(self.0.sign(message).to_bytes())
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({:?})", self.public())
    }
}

/// A public signing key; base64url text outside.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PublicKey(VerifyingKey);

impl PublicKey {
    /// Takes 32 bytes; `None` when they are not a point on the curve or one of small order.
    #[must_use]
    pub fn from_bytes(bytes: &[u8; 32]) -> Option<Self> {
        let key = VerifyingKey::from_bytes(bytes).ok()?;
        (!key.is_weak()).then_some(Self(key))
    }

    /// Gives the 32 bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        self.0.as_bytes()
    }

    /// Gives the hash that names this key.
    #[must_use]
    pub fn hash(&self) -> KeyHash {
        KeyHash(self.derive("backstay 2026-11 public key hash"))
    }

    /// Gives the id of the agent that owns this key: nobody else can claim it.
    #[must_use]
    pub fn agent_id(&self) -> AgentId {
        AgentId::from_bytes(self.derive("backstay 2026-11 agent id"))
    }

    /// Gives the fingerprint that people compare: the agent id in groups of four digits.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        let text = self.agent_id().to_string();
        let mut out = String::with_capacity(text.len() + 7);
        for (index, digit) in text.chars().enumerate() {
            if index > 0 && index % 4 == 0 {
                out.push('-');
            }
            out.push(digit);
        }
        out
    }

    /// True when `signature` was made over exactly `message` by this key (strict: no malleable
    /// form, no small-order point passes).
    pub(crate) fn verifies(&self, message: &[u8], signature: &SignatureBytes) -> bool {
        let signature = ed25519_dalek::Signature::from_bytes(&signature.0);
        self.0.verify_strict(message, &signature).is_ok()
    }

    fn derive(&self, context: &str) -> [u8; 16] {
        let full = blake3::derive_key(context, self.as_bytes());
        let mut out = [0; 16];
        for (to, from) in out.iter_mut().zip(full) {
            *to = from;
        }
        out
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&BASE64URL_NOPAD.encode(self.as_bytes()))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({self})")
    }
}

impl TryFrom<String> for PublicKey {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        decode(&text)
            .and_then(|bytes| Self::from_bytes(&bytes))
            .ok_or("a public key is 43 characters of base64url and a sound curve point")
    }
}

impl From<PublicKey> for String {
    fn from(key: PublicKey) -> Self {
        key.to_string()
    }
}

/// The hash of a public key: 128 bits, enough against a second key with the same hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct KeyHash([u8; 16]);

impl KeyHash {
    /// Takes the raw bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// Gives the raw bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Display for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&BASE64URL_NOPAD.encode(&self.0))
    }
}

impl TryFrom<String> for KeyHash {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        decode(&text)
            .map(Self)
            .ok_or("a key hash is 22 characters of base64url")
    }
}

impl From<KeyHash> for String {
    fn from(hash: KeyHash) -> Self {
        hash.to_string()
    }
}

/// The 64 bytes of a signature; base64url text outside.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SignatureBytes([u8; 64]);

impl fmt::Display for SignatureBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&BASE64URL_NOPAD.encode(&self.0))
    }
}

impl fmt::Debug for SignatureBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SignatureBytes({self})")
    }
}

impl TryFrom<String> for SignatureBytes {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        decode(&text)
            .map(Self)
            .ok_or("a signature is 86 characters of base64url")
    }
}

impl From<SignatureBytes> for String {
    fn from(signature: SignatureBytes) -> Self {
        signature.to_string()
    }
}

/// Reads exactly `N` bytes of base64url text.
pub(crate) fn decode<const N: usize>(text: &str) -> Option<[u8; N]> {
    // A longer text is refused before it is decoded.
    if text.len() > 2 * N + 4 {
        return None;
    }
    BASE64URL_NOPAD
        .decode(text.as_bytes())
        .ok()?
        .try_into()
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_id_is_the_hash_of_its_key() {
        let key = SigningKey::from_seed(&[7; 32]).public();
        insta::assert_snapshot!(key);
        insta::assert_snapshot!(key.agent_id());
        insta::assert_snapshot!(key.fingerprint());
        insta::assert_snapshot!(key.hash());
    }

    #[test]
    fn weak_and_foreign_points_are_not_keys() {
        // The identity point has small order: any message would verify under it.
        let mut identity = [0; 32];
        identity[0] = 1;
        assert!(PublicKey::from_bytes(&identity).is_none());
        assert!(PublicKey::try_from("AAAA".to_owned()).is_err());
    }

    #[test]
    fn debug_output_hides_the_secret() {
        let key = SigningKey::from_seed(&[7; 32]);
        assert!(!format!("{key:?}").contains(&BASE64URL_NOPAD.encode(key.seed())));
    }
}
