//! What crosses a process boundary, versioned: no server, no client, no I/O.
//!
//! The rules are in `docs/protocol.md`. Everything that is signed is signed as exact bytes, with
//! its meaning (the payload type) inside the signature, and is parsed only after it was verified.

mod command;
pub mod control;
mod envelope;
mod generation;
mod join;
mod key;
mod request;
mod wire;

pub use command::{Command, CommandKind, RestoreTarget};
pub use envelope::{Envelope, EnvelopeError, PayloadType};
pub use generation::{Generation, GenerationHash, Refusal};
pub use join::{
    CertificateHash, Host, JoinAnswer, JoinCode, JoinCodeError, JoinError, JoinKey, JoinRecord,
    JoinRequest, Nonce,
};
pub use key::{KeyHash, PublicKey, SignatureBytes, SigningKey};
pub use request::{RequestProof, RequestProofError, SignedParts};
pub use wire::{
    Batch, CommandReport, CommandState, DestinationReport, DriftReport, GenerationReport, Origin,
    Problem, Progress, ProgressReport, Report, ResultsAnswer, Row, ScheduleReport, SnapshotReport,
    Watch,
};

/// The version of everything in this crate. Both sides say theirs; a controller serves older agents.
pub const PROTOCOL_VERSION: u32 = 1;

/// The longest generation or command envelope that is read, in bytes.
pub const DOCUMENT_BYTES_MAX: usize = 1 << 20;

/// The most run records in one batch.
pub const BATCH_ROWS_MAX: usize = 500;

/// The longest batch of run records, in bytes of JSON.
pub const BATCH_BYTES_MAX: usize = 256 << 10;

/// The longest report of an agent, in bytes of JSON.
pub const REPORT_BYTES_MAX: usize = 4 << 20;

/// The longest time that a controller holds a watch request, in seconds.
pub const WATCH_SECS_MAX: u32 = 240;

/// Appends a field with its length in front, so that no two lists of fields have the same bytes.
///
/// Shape: `length (8, little-endian) | field`.
fn push_field(out: &mut Vec<u8>, field: &[u8]) {
    // A slice is never longer than 2^63 bytes.
    let length = u64::try_from(field.len()).unwrap_or(u64::MAX);
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(field);
}

/// Lays out a purpose and its fields for hashing or signing.
fn fields(purpose: &str, parts: &[&[u8]]) -> Vec<u8> {
    let mut out = Vec::new();
    push_field(&mut out, purpose.as_bytes());
    for part in parts {
        push_field(&mut out, part);
    }
    out
}
