//! The nouns of Backstay: ids, sizes, instants, scopes, results, exit codes.
//!
//! No I/O happens here and nothing is imported from the project. Words follow
//! `docs/ARCHITECTURE.md`, "Words".

mod bytes;
mod exit;
mod id;
mod instant;
mod name;
mod run;
mod secret;

pub use bytes::ByteCount;
pub use exit::{ErrorClass, Exit};
pub use id::{AgentId, CommandId, DomainId, IdError, RunId, SessionId, SnapshotId};
pub use instant::Instant;
pub use name::{DestinationName, NameError, ScheduleName, ServerName, escape};
pub use run::{Copy, CopyState, Failure, RunCounts, RunRecord, RunState, Scope, Trigger};
pub use secret::Secret;
