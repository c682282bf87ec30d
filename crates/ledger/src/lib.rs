//! The durable memory of the agent: runs, occurrences, outbox, commands; one SQLite file.
//!
//! Several processes use it at once: the daemon, jobs, `backstayctl`. It is in WAL mode with
//! `synchronous=FULL`, because an acknowledged row must survive a power cut. It knows nothing of
//! systemd, the network or repositories. Rules: `docs/ARCHITECTURE.md`, "The ledger".

mod claim;
mod commands;
mod occurrences;
mod outbox;
mod progress;
mod runs;
mod schema;
#[cfg(test)]
mod testing;
mod witness;

pub use claim::{Claim, Ended, RUN_CUT, cut_off};
pub use commands::{Command, CommandState};
pub use occurrences::{Account, Due, Surplus, settle};
pub use outbox::OutboxRow;
pub use progress::Progress;
pub use runs::{RUN_LOG_LINES_MAX, RunFilter, RunStart};
pub use schema::Ledger;
pub use witness::{Absence, Boot, Witness};

use thiserror::Error;

/// Says which operation on the ledger failed.
#[derive(Debug, Error)]
pub enum LedgerError {
    /// The file or its directory cannot be used.
    #[error("opening the ledger {path}")]
    Open {
        /// Which file.
        path: String,
        /// The cause.
        #[source]
        source: rusqlite::Error,
    },
    /// The file may not be written, or cannot be: the disk is read-only, or its directory is gone.
    #[error("the ledger {path} cannot be written")]
    Unwritable {
        /// Which file.
        path: String,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// The file was written by a newer Backstay.
    #[error("the ledger {path} has version {found}, this program knows {known}: upgrade it")]
    Newer {
        /// Which file.
        path: String,
        /// The version found.
        found: i64,
        /// The newest version known.
        known: i64,
    },
    /// A statement failed: disk full, damaged file, no right.
    #[error("{operation} in the ledger")]
    Statement {
        /// What was being done.
        operation: &'static str,
        /// The cause.
        #[source]
        source: rusqlite::Error,
    },
    /// A stored record does not read back.
    #[error("reading record {id} of the ledger")]
    Record {
        /// Which record.
        id: String,
        /// The cause.
        #[source]
        source: serde_json::Error,
    },
    /// The row that a change refers to is not there.
    #[error("{what} {id} is not in the ledger")]
    Absent {
        /// What was looked for.
        what: &'static str,
        /// Its id.
        id: String,
    },
}

impl LedgerError {
    fn statement(operation: &'static str) -> impl FnOnce(rusqlite::Error) -> Self {
        move |source| Self::Statement { operation, source }
    }
}
