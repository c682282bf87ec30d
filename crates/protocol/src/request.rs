//! Signed requests of agents: one `Authorization` header over everything that the request says.
//!
//! Replay is stopped by counters, not by clocks: each start of an agent takes a boot number higher
//! than any before, and counts its requests from 1.

use model::AgentId;
use thiserror::Error;

use crate::{KeyHash, PublicKey, SignatureBytes, SigningKey, fields};

const SCHEME: &str = "Backstay1";
const HEADER_BYTES_MAX: usize = 256;

/// What a signature covers beside the proof's own fields.
#[derive(Debug, Clone, Copy)]
pub struct SignedParts<'a> {
    /// The method, in capitals.
    pub method: &'a str,
    /// Path and query, exactly as sent.
    pub path_and_query: &'a str,
    /// The body; empty when there is none.
    pub body: &'a [u8],
    /// The controller that is meant.
    pub controller: KeyHash,
}

/// Says why a request is not taken for the agent's.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum RequestProofError {
    /// No or a foreign header.
    #[error("the request carries no {SCHEME} authorization")]
    Missing,
    /// The header cannot be read.
    #[error("the authorization header cannot be read")]
    Malformed,
    /// Another key, or other bytes.
    #[error("the signature does not match the request")]
    BadSignature,
}

/// The header: who asks, and that it is this request.
///
/// Shape: `Backstay1 agent boot counter time signature`, separated by one space each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestProof {
    /// Who asks.
    pub agent: AgentId,
    /// Which start of the agent.
    pub boot: u64,
    /// Which request of that start.
    pub counter: u64,
    /// The agent's clock, in seconds since 1970; to show a wrong clock, never for order.
    pub time: i64,
    signature: SignatureBytes,
}

impl RequestProof {
    /// Signs a request.
    #[must_use]
    pub fn sign(
        key: &SigningKey,
        parts: &SignedParts<'_>,
        boot: u64,
        counter: u64,
        time: i64,
    ) -> Self {
        let agent = key.public().agent_id();
        let signature = key.sign(&message(parts, agent, boot, counter, time));
        Self {
            agent,
            boot,
            counter,
            time,
            signature,
        }
    }

    /// Gives the value of the `Authorization` header.
    #[must_use]
    pub fn header(&self) -> String {
        format!(
            "{SCHEME} {} {} {} {} {}",
            self.agent, self.boot, self.counter, self.time, self.signature
        )
    }

    /// Reads the value of the header; nothing is verified yet.
    ///
    /// # Errors
    ///
    /// `Missing` or `Malformed`.
    pub fn parse(header: &str) -> Result<Self, RequestProofError> {
        if header.len() > HEADER_BYTES_MAX {
            return Err(RequestProofError::Malformed);
        }
        let mut words = header.split(' ');
        if words.next() != Some(SCHEME) {
            return Err(RequestProofError::Missing);
        }
        let mut next = || words.next().ok_or(RequestProofError::Malformed);
        let wrong = |_| RequestProofError::Malformed;
        let proof = Self {
            agent: next()?.parse().map_err(|_| RequestProofError::Malformed)?,
            boot: next()?.parse().map_err(wrong)?,
            counter: next()?.parse().map_err(wrong)?,
            time: next()?.parse().map_err(wrong)?,
            signature: SignatureBytes::try_from(next()?.to_owned())
                .map_err(|_| RequestProofError::Malformed)?,
        };
        match words.next() {
            None => Ok(proof),
            Some(_) => Err(RequestProofError::Malformed),
        }
    }

    /// Checks that the owner of `key` signed exactly this request.
    ///
    /// # Errors
    ///
    /// `BadSignature`; the request is to be refused.
    pub fn verify(
        &self,
        key: &PublicKey,
        parts: &SignedParts<'_>,
    ) -> Result<(), RequestProofError> {
        let message = message(parts, self.agent, self.boot, self.counter, self.time);
        if key.agent_id() == self.agent && key.verifies(&message, &self.signature) {
            Ok(())
        } else {
            Err(RequestProofError::BadSignature)
        }
    }
}

fn message(parts: &SignedParts<'_>, agent: AgentId, boot: u64, counter: u64, time: i64) -> Vec<u8> {
    fields(
        "backstay request 1",
        &[
            parts.method.as_bytes(),
            parts.path_and_query.as_bytes(),
            blake3::hash(parts.body).as_bytes(),
            parts.controller.as_bytes(),
            agent.as_bytes(),
            &boot.to_le_bytes(),
            &counter.to_le_bytes(),
            &time.to_le_bytes(),
        ],
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn key() -> SigningKey {
        SigningKey::from_seed(&[2; 32])
    }

    fn parts(body: &[u8]) -> SignedParts<'_> {
        SignedParts {
            method: "POST",
            path_and_query: "/agent/v1/results?x=1",
            body,
            controller: SigningKey::from_seed(&[1; 32]).public().hash(),
        }
    }

    #[test]
    fn the_wire_form_stays() {
        let proof = RequestProof::sign(&key(), &parts(b"{}"), 7, 3, 1_700_000_000);
        insta::assert_snapshot!(proof.header());
    }

    #[test]
    fn every_part_of_a_request_is_covered() {
        let proof = RequestProof::sign(&key(), &parts(b"{}"), 7, 3, 1_700_000_000);
        let public = key().public();
        assert_eq!(proof.verify(&public, &parts(b"{}")), Ok(()));
        let other_controller = key().public().hash();
        let changed = [
            SignedParts {
                method: "GET",
                ..parts(b"{}")
            },
            SignedParts {
                path_and_query: "/agent/v1/results?x=2",
                ..parts(b"{}")
            },
            parts(b"{} "),
            SignedParts {
                controller: other_controller,
                ..parts(b"{}")
            },
        ];
        for parts in &changed {
            assert!(proof.verify(&public, parts).is_err(), "{parts:?}");
        }
        for proof in [
            RequestProof {
                boot: 8,
                ..proof.clone()
            },
            RequestProof {
                counter: 4,
                ..proof.clone()
            },
            RequestProof {
                time: 0,
                ..proof.clone()
            },
            RequestProof {
                agent: AgentId::from_bytes([0; 16]),
                ..proof.clone()
            },
        ] {
            assert!(proof.verify(&public, &parts(b"{}")).is_err());
        }
        assert!(
            proof
                .verify(&SigningKey::from_seed(&[3; 32]).public(), &parts(b"{}"))
                .is_err()
        );
    }

    #[test]
    fn foreign_headers_are_refused() {
        assert_eq!(
            RequestProof::parse("Bearer x"),
            Err(RequestProofError::Missing)
        );
        let good = RequestProof::sign(&key(), &parts(b""), 1, 1, 1).header();
        for bad in ["Backstay1", &format!("{good} x"), &good.replace(' ', "  ")] {
            assert_eq!(
                RequestProof::parse(bad),
                Err(RequestProofError::Malformed),
                "{bad}"
            );
        }
    }

    proptest! {
        #[test]
        fn headers_read_back(boot: u64, counter: u64, time: i64, body: Vec<u8>) {
            let proof = RequestProof::sign(&key(), &parts(&body), boot, counter, time);
            let read = RequestProof::parse(&proof.header()).unwrap();
            prop_assert_eq!(&read, &proof);
            prop_assert!(read.verify(&key().public(), &parts(&body)).is_ok());
        }

        #[test]
        fn no_text_breaks_the_reader(text: String) {
            let _read = RequestProof::parse(&format!("Backstay1 {text}"));
        }
    }
}
