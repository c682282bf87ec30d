//! Generations: the numbered, signed set of TOML for one agent, and the rules for accepting one.

use std::fmt;

use data_encoding::BASE64URL_NOPAD;
use model::{AgentId, Instant};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{Envelope, EnvelopeError, PROTOCOL_VERSION, PayloadType, PublicKey, SigningKey};

/// The BLAKE3 hash of the signed bytes of a generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct GenerationHash([u8; 32]);

impl fmt::Display for GenerationHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&BASE64URL_NOPAD.encode(&self.0))
    }
}

impl TryFrom<String> for GenerationHash {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        crate::key::decode(&text)
            .map(Self)
            .ok_or("a generation hash is 43 characters of base64url")
    }
}

impl From<GenerationHash> for String {
    fn from(hash: GenerationHash) -> Self {
        hash.to_string()
    }
}

/// Everything that the controller wants one agent to do, until the next generation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Generation {
    /// The protocol version that the writer speaks.
    pub protocol: u32,
    /// The only agent that may apply it.
    pub agent: AgentId,
    /// Grows by at least one with each generation of this agent; the first is 1.
    pub number: u64,
    /// When it was made, by the controller's clock; for people only, never for order.
    pub issued_at: Instant,
    /// The hash of the generation before it; none for the first.
    pub previous: Option<GenerationHash>,
    /// The TOML text, as `crates/settings` reads it.
    pub toml: String,
}

/// Says why a generation is refused. What was applied before stays in force.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Refusal {
    /// Not signed by the controller that this agent joined, or not a generation.
    #[error(transparent)]
    Envelope(#[from] EnvelopeError),
    /// Written by a controller that speaks a newer protocol.
    #[error("the generation needs protocol {0}; this agent speaks {PROTOCOL_VERSION}")]
    Protocol(u32),
    /// For another agent.
    #[error("the generation is for agent {found}, this is agent {wanted}")]
    WrongAgent {
        /// This agent.
        wanted: AgentId,
        /// The agent that it names.
        found: AgentId,
    },
    /// Older than what is applied.
    #[error("generation {found} is older than generation {applied}, which is applied")]
    Older {
        /// The number that is applied.
        applied: u64,
        /// The number that came.
        found: u64,
    },
    /// The number that is applied, with another content.
    #[error("generation {0} came again with another content")]
    Forked(u64),
}

impl Refusal {
    /// Gives the word for reports: frozen, for programs.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Envelope(EnvelopeError::TooLong(_)) => "too_long",
            Self::Envelope(EnvelopeError::Malformed(_) | EnvelopeError::BadPayload(_)) => {
                "malformed"
            }
            Self::Envelope(EnvelopeError::WrongType { .. }) => "wrong_type",
            Self::Envelope(EnvelopeError::WrongKey { .. }) => "wrong_key",
            Self::Envelope(EnvelopeError::BadSignature) => "wrong_signature",
            Self::Protocol(_) => "newer_protocol",
            Self::WrongAgent { .. } => "other_agent",
            Self::Older { .. } => "older",
            Self::Forked(_) => "forked",
        }
    }
}

impl Generation {
    /// Signs the generation.
    #[must_use]
    pub fn seal(&self, key: &SigningKey) -> Envelope {
        // Strings and numbers always serialize.
        let payload = serde_json::to_vec(self).unwrap_or_default();
        Envelope::seal(PayloadType::Generation, payload, key)
    }

    /// Verifies an envelope and gives the generation with its hash, in the order of
    /// `docs/protocol.md`: signature, shape, protocol, agent, number.
    ///
    /// `applied` is what the agent has: number and hash. The same generation again is accepted.
    ///
    /// # Errors
    ///
    /// `Refusal`; the same envelope will never be accepted.
    pub fn accept(
        envelope: &Envelope,
        controller: &PublicKey,
        agent: AgentId,
        applied: Option<(u64, GenerationHash)>,
    ) -> Result<(Self, GenerationHash), Refusal> {
        let hash = Self::hash(envelope.open(PayloadType::Generation, controller)?);
        let generation: Self = envelope.read(PayloadType::Generation, controller)?;
        if generation.protocol > PROTOCOL_VERSION {
            return Err(Refusal::Protocol(generation.protocol));
        }
        if generation.agent != agent {
            return Err(Refusal::WrongAgent {
                wanted: agent,
                found: generation.agent,
            });
        }
        match applied {
            Some((applied, _)) if generation.number < applied => Err(Refusal::Older {
                applied,
                found: generation.number,
            }),
            Some((applied, known)) if generation.number == applied && known != hash => {
                Err(Refusal::Forked(applied))
            }
            _ => Ok((generation, hash)),
        }
    }

    /// Gives the hash of signed bytes.
    #[must_use]
    pub fn hash(payload: &[u8]) -> GenerationHash {
        GenerationHash(*blake3::hash(payload).as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn controller() -> SigningKey {
        SigningKey::from_seed(&[1; 32])
    }

    fn agent() -> AgentId {
        SigningKey::from_seed(&[2; 32]).public().agent_id()
    }

    fn generation(number: u64) -> Generation {
        Generation {
            protocol: PROTOCOL_VERSION,
            agent: agent(),
            number,
            issued_at: Instant::from_secs(1_700_000_000),
            previous: None,
            toml: "[schedule.nightly]\nscope = \"full\"\n".into(),
        }
    }

    fn accept(
        sealed: &Envelope,
        applied: Option<(u64, GenerationHash)>,
    ) -> Result<(Generation, GenerationHash), Refusal> {
        Generation::accept(sealed, &controller().public(), agent(), applied)
    }

    #[test]
    fn the_wire_form_stays() {
        let sealed = generation(1).seal(&controller());
        let payload = sealed
            .open(PayloadType::Generation, &controller().public())
            .unwrap();
        insta::assert_snapshot!(String::from_utf8_lossy(payload));
    }

    #[test]
    fn newer_and_repeated_generations_are_accepted() {
        let (read, hash) = accept(&generation(2).seal(&controller()), None).unwrap();
        assert_eq!(read, generation(2));
        assert!(accept(&generation(2).seal(&controller()), Some((2, hash))).is_ok());
        assert!(accept(&generation(3).seal(&controller()), Some((2, hash))).is_ok());
    }

    #[test]
    fn what_is_wrong_with_a_generation_is_said() {
        let (_, hash) = accept(&generation(2).seal(&controller()), None).unwrap();
        let foreign = SigningKey::from_seed(&[9; 32]);
        let mut other_agent = generation(3);
        other_agent.agent = foreign.public().agent_id();
        let mut newer = generation(3);
        newer.protocol = 2;
        let mut forked = generation(2);
        forked.toml.push('#');
        let said = [
            generation(1).seal(&controller()),
            forked.seal(&controller()),
            other_agent.seal(&controller()),
            newer.seal(&controller()),
            generation(3).seal(&foreign),
        ]
        .map(|sealed| {
            let refusal = accept(&sealed, Some((2, hash))).unwrap_err();
            format!("{}: {refusal}", refusal.code())
        });
        insta::assert_snapshot!(said.join("\n"));
    }
}
