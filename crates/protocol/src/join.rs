//! Joining: the one-line code, and the handshake in which both sides prove that they know it.
//!
//! The token in the code never crosses the wire. Each side shows an HMAC over everything that was
//! said; a machine in the middle, even one with a trusted certificate, can make neither. The
//! answer is a join record signed by the controller whose key hash is in the code.

use std::fmt;

use data_encoding::{BASE32_NOPAD, BASE64URL_NOPAD};
use hmac::{Hmac, KeyInit, Mac};
use model::{AgentId, Instant, ServerName};
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use thiserror::Error;

use crate::{
    Envelope, EnvelopeError, KeyHash, PROTOCOL_VERSION, PayloadType, PublicKey, SigningKey, fields,
};

const PREFIX: &str = "bsj1-";
const HOST_BYTES_MAX: usize = 255;
const CHECK_BYTES: usize = 4;

/// Says why a text is not a join code.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum JoinCodeError {
    /// Another kind of text.
    #[error("a join code starts with \"{PREFIX}\"")]
    Prefix,
    /// Characters are wrong or missing.
    #[error("the join code is damaged: copy the whole line again")]
    Damaged,
}

/// What the operator carries from the dashboard to the server: good once, for an hour.
///
/// Shape: `bsj1-` and base32 of `token (16) | controller key hash (16) | host:port | check (4)`.
#[derive(Clone, PartialEq, Eq)]
pub struct JoinCode {
    token: [u8; 16],
    controller: KeyHash,
    host: String,
}

impl JoinCode {
    /// Makes a code from a fresh random token.
    ///
    /// `host` is `name:port` as agents reach the controller.
    ///
    /// # Errors
    ///
    /// `Damaged` when the host is empty, longer than 255 bytes or not plain text.
    pub fn new(token: [u8; 16], controller: KeyHash, host: String) -> Result<Self, JoinCodeError> {
        let plain = |b: u8| b.is_ascii_alphanumeric() || b".-:[]_".contains(&b);
        if host.is_empty() || host.len() > HOST_BYTES_MAX || !host.bytes().all(plain) {
            return Err(JoinCodeError::Damaged);
        }
        Ok(Self {
            token,
            controller,
            host,
        })
    }

    /// Reads the text form; spaces around it and capitals do not matter.
    ///
    /// # Errors
    ///
    /// `JoinCodeError`; the person must copy the code again.
    pub fn parse(text: &str) -> Result<Self, JoinCodeError> {
        let text = text.trim().to_ascii_lowercase();
        let body = text.strip_prefix(PREFIX).ok_or(JoinCodeError::Prefix)?;
        if body.len() > 2 * (HOST_BYTES_MAX + 36) {
            return Err(JoinCodeError::Damaged);
        }
        let bytes = BASE32_NOPAD
            .decode(body.to_ascii_uppercase().as_bytes())
            .map_err(|_| JoinCodeError::Damaged)?;
        let (content, check) = bytes
            .split_last_chunk::<CHECK_BYTES>()
            .ok_or(JoinCodeError::Damaged)?;
        if check_of(content) != *check {
            return Err(JoinCodeError::Damaged);
        }
        let (token, rest) = content.split_first_chunk().ok_or(JoinCodeError::Damaged)?;
        let (hash, host) = rest.split_first_chunk().ok_or(JoinCodeError::Damaged)?;
        let host = std::str::from_utf8(host).map_err(|_| JoinCodeError::Damaged)?;
        Self::new(*token, KeyHash::from_bytes(*hash), host.to_owned())
    }

    /// Gives the text form. It holds the token: show it to the operator only.
    #[must_use]
    pub fn reveal(&self) -> String {
        let mut bytes = Vec::with_capacity(36 + self.host.len());
        bytes.extend_from_slice(&self.token);
        bytes.extend_from_slice(self.controller.as_bytes());
        bytes.extend_from_slice(self.host.as_bytes());
        let check = check_of(&bytes);
        bytes.extend_from_slice(&check);
        format!(
            "{PREFIX}{}",
            BASE32_NOPAD.encode(&bytes).to_ascii_lowercase()
        )
    }

    /// Gives `name:port` of the controller.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Gives the hash of the controller's key: the only controller to join.
    #[must_use]
    pub const fn controller(&self) -> KeyHash {
        self.controller
    }

    /// Gives what both sides prove to know.
    #[must_use]
    pub fn key(&self) -> JoinKey {
        JoinKey {
            id: short(&blake3::derive_key(
                "backstay 2026-11 join code id",
                &self.token,
            )),
            secret: blake3::derive_key("backstay 2026-11 join proof key", &self.token),
        }
    }
}

impl fmt::Debug for JoinCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "JoinCode(… for {} at {})", self.controller, self.host)
    }
}

fn check_of(content: &[u8]) -> [u8; CHECK_BYTES] {
    let hash = blake3::derive_key("backstay 2026-11 join code check", content);
    let mut out = [0; CHECK_BYTES];
    for (to, from) in out.iter_mut().zip(hash) {
        *to = from;
    }
    out
}

fn short(hash: &[u8; 32]) -> [u8; 16] {
    let mut out = [0; 16];
    for (to, from) in out.iter_mut().zip(hash) {
        *to = *from;
    }
    out
}

/// What is left of a token on the controller: a name to find it by, and the key of the proofs. The
/// code cannot be made from it again.
#[derive(Clone, PartialEq, Eq)]
pub struct JoinKey {
    id: [u8; 16],
    secret: [u8; 32],
}

impl JoinKey {
    /// Takes the stored halves.
    #[must_use]
    pub const fn from_parts(id: [u8; 16], secret: [u8; 32]) -> Self {
        Self { id, secret }
    }

    /// Gives the name of the code.
    #[must_use]
    pub const fn id(&self) -> &[u8; 16] {
        &self.id
    }

    /// Gives the secret half, for the one place that stores it.
    #[must_use]
    pub const fn secret(&self) -> &[u8; 32] {
        &self.secret
    }

    fn mac(&self, message: &[u8]) -> Option<Hmac<Sha256>> {
        // HMAC takes a key of any length.
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.secret).ok()?;
        mac.update(message);
        Some(mac)
    }

    fn prove(&self, message: &[u8]) -> Proof {
        let mut out = [0; 32];
        if let Some(mac) = self.mac(message) {
            for (to, from) in out.iter_mut().zip(mac.finalize().into_bytes()) {
                *to = from;
            }
        }
        Proof(out)
    }

    fn verifies(&self, message: &[u8], proof: &Proof) -> bool {
        self.mac(message)
            .is_some_and(|mac| mac.verify_slice(&proof.0).is_ok())
    }
}

impl fmt::Debug for JoinKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "JoinKey({})", BASE64URL_NOPAD.encode(&self.id))
    }
}

/// An HMAC-SHA-256 value; base64url text outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
struct Proof([u8; 32]);

impl TryFrom<String> for Proof {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        crate::key::decode(&text)
            .map(Self)
            .ok_or("a proof is 43 characters of base64url")
    }
}

impl From<Proof> for String {
    fn from(proof: Proof) -> Self {
        BASE64URL_NOPAD.encode(&proof.0)
    }
}

/// Random bytes that make a transcript unique; base64url text outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Nonce([u8; 16]);

impl Nonce {
    /// Takes random bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }
}

impl TryFrom<String> for Nonce {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        crate::key::decode(&text)
            .map(Self)
            .ok_or("a nonce is 22 characters of base64url")
    }
}

impl From<Nonce> for String {
    fn from(nonce: Nonce) -> Self {
        BASE64URL_NOPAD.encode(&nonce.0)
    }
}

/// What a server says about itself.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Host {
    /// Its host name.
    pub hostname: String,
    /// Its operating system, as `PRETTY_NAME` of os-release.
    pub os: String,
    /// The version of the agent.
    pub version: String,
}

/// Says why the other side of a join is not believed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum JoinError {
    /// The other side speaks a newer protocol.
    #[error("the other side speaks protocol {0}; this side speaks {PROTOCOL_VERSION}")]
    Protocol(u32),
    /// The other side does not know the token.
    #[error("the other side does not know the join code")]
    Proof,
    /// Not the key of the code.
    #[error("the controller has another key than the one in the join code")]
    WrongController,
    /// Not the key of the agent that signed.
    #[error("the agent does not hold the key that it shows")]
    WrongAgent,
    /// The record is not signed well.
    #[error(transparent)]
    Record(#[from] EnvelopeError),
    /// The connection ends at another certificate than the controller's.
    #[error("the connection is intercepted: it shows another certificate than the controller has")]
    Intercepted,
}

/// The agent's half of the handshake: `POST /agent/v1/join`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinRequest {
    /// The protocol version of the agent.
    pub protocol: u32,
    #[serde(with = "code_id")]
    code: [u8; 16],
    /// The key of the agent.
    pub key: PublicKey,
    nonce: Nonce,
    /// What the server says about itself.
    pub host: Host,
    proof: Proof,
    possession: crate::SignatureBytes,
}

impl JoinRequest {
    /// Makes the request of an agent that holds `code` and `key`.
    #[must_use]
    pub fn new(code: &JoinCode, key: &SigningKey, nonce: Nonce, host: Host) -> Self {
        let join_key = code.key();
        let public = key.public();
        let said = transcript(&join_key, &code.controller(), &public, nonce, &host);
        Self {
            protocol: PROTOCOL_VERSION,
            code: *join_key.id(),
            key: public,
            nonce,
            proof: join_key.prove(&fields("backstay join request 1", &[&said])),
            possession: key.sign(&fields("backstay join possession 1", &[&said])),
            host,
        }
    }

    /// Gives the name of the code, for the controller to find its key.
    #[must_use]
    pub const fn code_id(&self) -> &[u8; 16] {
        &self.code
    }

    /// Checks that the agent knows the token and holds its key.
    ///
    /// # Errors
    ///
    /// `Protocol`, `Proof` or `WrongAgent`; the code stays unused.
    pub fn verify(&self, join_key: &JoinKey, controller: KeyHash) -> Result<(), JoinError> {
        if self.protocol > PROTOCOL_VERSION {
            return Err(JoinError::Protocol(self.protocol));
        }
        let said = transcript(join_key, &controller, &self.key, self.nonce, &self.host);
        if !join_key.verifies(&fields("backstay join request 1", &[&said]), &self.proof) {
            return Err(JoinError::Proof);
        }
        let possession = fields("backstay join possession 1", &[&said]);
        if !self.key.verifies(&possession, &self.possession) {
            return Err(JoinError::WrongAgent);
        }
        Ok(())
    }
}

fn transcript(
    join_key: &JoinKey,
    controller: &KeyHash,
    agent: &PublicKey,
    nonce: Nonce,
    host: &Host,
) -> Vec<u8> {
    fields(
        "backstay join transcript 1",
        &[
            &join_key.id,
            controller.as_bytes(),
            agent.as_bytes(),
            &nonce.0,
            host.hostname.as_bytes(),
            host.os.as_bytes(),
            host.version.as_bytes(),
        ],
    )
}

/// The controller's half of the handshake.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinAnswer {
    /// The key of the controller.
    pub key: PublicKey,
    /// The signed join record, which the agent keeps.
    pub record: Envelope,
    proof: Proof,
}

impl JoinAnswer {
    /// Makes the answer to a verified request.
    #[must_use]
    pub fn new(
        request: &JoinRequest,
        join_key: &JoinKey,
        controller: &SigningKey,
        record: &JoinRecord,
    ) -> Self {
        let key = controller.public();
        let record = Envelope::seal(
            PayloadType::JoinRecord,
            // Strings and numbers always serialize.
            serde_json::to_vec(record).unwrap_or_default(),
            controller,
        );
        Self {
            proof: join_key.prove(&answer_message(request, &key, &record)),
            key,
            record,
        }
    }

    /// Checks that the controller is the one of the code, knows the token, answers this request,
    /// and that the connection ends at the certificate that it owns.
    ///
    /// # Errors
    ///
    /// `JoinError`; nothing is to be kept.
    pub fn verify(
        &self,
        request: &JoinRequest,
        code: &JoinCode,
        seen_certificate: &CertificateHash,
    ) -> Result<JoinRecord, JoinError> {
        if self.key.hash() != code.controller() {
            return Err(JoinError::WrongController);
        }
        let message = answer_message(request, &self.key, &self.record);
        if !code.key().verifies(&message, &self.proof) {
            return Err(JoinError::Proof);
        }
        let record = JoinRecord::verify(&self.record, &self.key)?;
        if record.agent != request.key.agent_id() {
            return Err(JoinError::WrongAgent);
        }
        if record.certificate != *seen_certificate {
            return Err(JoinError::Intercepted);
        }
        Ok(record)
    }
}

fn answer_message(request: &JoinRequest, key: &PublicKey, record: &Envelope) -> Vec<u8> {
    fields(
        "backstay join answer 1",
        &[
            &String::from(request.proof).into_bytes(),
            key.as_bytes(),
            record.to_text().as_bytes(),
        ],
    )
}

/// The SHA-256 of a certificate in DER; hexadecimal text outside.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct CertificateHash([u8; 32]);

impl CertificateHash {
    /// Hashes a certificate.
    #[must_use]
    pub fn of(der: &[u8]) -> Self {
        use sha2::Digest;
        let mut out = [0; 32];
        for (to, from) in out.iter_mut().zip(Sha256::digest(der)) {
            *to = from;
        }
        Self(out)
    }
}

impl fmt::Display for CertificateHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&data_encoding::HEXLOWER.encode(&self.0))
    }
}

impl fmt::Debug for CertificateHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CertificateHash({self})")
    }
}

impl TryFrom<String> for CertificateHash {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        if text.len() != 64 {
            return Err("a certificate hash is 64 hexadecimal digits");
        }
        data_encoding::HEXLOWER
            .decode(text.as_bytes())
            .ok()
            .and_then(|bytes| bytes.try_into().ok())
            .map(Self)
            .ok_or("a certificate hash is 64 hexadecimal digits")
    }
}

impl From<CertificateHash> for String {
    fn from(hash: CertificateHash) -> Self {
        hash.to_string()
    }
}

/// What an agent keeps of its joining: who the controller is and how to reach it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinRecord {
    /// The protocol version of the controller.
    pub protocol: u32,
    /// The agent that joined.
    pub agent: AgentId,
    /// The name of the server in the fleet.
    pub server_name: ServerName,
    /// The key that signs generations and commands.
    pub controller: PublicKey,
    /// `name:port` of the controller.
    pub host: String,
    /// The one certificate that a connection may show.
    pub certificate: CertificateHash,
    /// When, by the controller's clock.
    pub joined_at: Instant,
}

impl JoinRecord {
    /// Verifies a stored or received record.
    ///
    /// # Errors
    ///
    /// `EnvelopeError`; the record is not to be used.
    pub fn verify(envelope: &Envelope, controller: &PublicKey) -> Result<Self, EnvelopeError> {
        let record: Self = envelope.read(PayloadType::JoinRecord, controller)?;
        if record.controller != *controller {
            return Err(EnvelopeError::BadSignature);
        }
        Ok(record)
    }
}

mod code_id {
    use data_encoding::BASE64URL_NOPAD;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(id: &[u8; 16], to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&BASE64URL_NOPAD.encode(id))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<[u8; 16], D::Error> {
        let text = String::deserialize(from)?;
        crate::key::decode(&text).ok_or_else(|| D::Error::custom("a code id is 16 bytes"))
    }
}

#[cfg(test)]
mod tests;
