//! What a run is, and what it leaves in ledger, outbox and history.

use serde::{Deserialize, Serialize};

use crate::{ByteCount, DestinationName, ErrorClass, Instant, RunId, ScheduleName, SnapshotId};

/// What a schedule backs up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// Everything that the server knows how to back up.
    Full,
    /// Site trees.
    Web,
    /// Databases.
    Db,
}

impl Scope {
    /// Every scope, in the order of the documentation.
    pub const ALL: [Self; 3] = [Self::Full, Self::Web, Self::Db];

    /// True when site trees are part of the scope.
    #[must_use]
    pub const fn has_web(self) -> bool {
        matches!(self, Self::Full | Self::Web)
    }

    /// True when databases are part of the scope.
    #[must_use]
    pub const fn has_databases(self) -> bool {
        matches!(self, Self::Full | Self::Db)
    }
}

/// What started a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Trigger {
    /// The systemd timer, at a due occurrence.
    Timer,
    /// The systemd timer, once for occurrences that passed while the server was off.
    CatchUp,
    /// A person, from the dashboard or `backstayctl run`.
    Request,
}

/// How a run stands. Every due occurrence of a schedule ends in exactly one run record, also when
/// nothing ran: then the record says missed or skipped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunState {
    /// Under way.
    Running,
    /// Every required destination holds a complete snapshot.
    Ok,
    /// A snapshot exists, but an object or a destination is missing from it.
    Partial,
    /// No snapshot was stored.
    Failed,
    /// The server was off, or the timer was not armed, when the occurrence passed.
    Missed,
    /// The occurrence came while an earlier run was going.
    Skipped,
    /// A person ended the run.
    Cancelled,
}

impl RunState {
    /// True when nothing more will happen.
    #[must_use]
    pub const fn is_final(self) -> bool {
        !matches!(self, Self::Running)
    }
}

/// How one destination fared in one run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CopyState {
    /// The snapshot is stored and was read back.
    Stored,
    /// The destination holds no snapshot of this run.
    Failed,
}

/// The result of one run at one destination.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Copy {
    /// Which destination.
    pub destination: DestinationName,
    /// Whether it holds the snapshot.
    pub state: CopyState,
    /// The snapshot, when stored.
    pub snapshot: Option<SnapshotId>,
    /// Bytes newly stored there by this run, after deduplication, compression and sealing.
    pub stored_bytes: ByteCount,
    /// Why it failed, when it did: one line per cause, outermost first.
    pub error: Option<String>,
}

/// One object that a run could not back up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// Which object, escaped by [`crate::escape`]. Stays on the server: not sent to the controller.
    pub object: String,
    /// What went wrong, causes outermost first.
    pub error: String,
    /// Whether trying again may help.
    pub class: ErrorClass,
}

/// What a run counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct RunCounts {
    /// Files, links, directories and other entries in the snapshot.
    pub entries: u64,
    /// Entries whose content was taken over from the previous snapshot.
    pub unchanged: u64,
    /// Databases dumped.
    pub databases: u64,
    /// Objects that could not be backed up.
    pub failed: u64,
    /// Bytes of all content in the snapshot.
    pub total_bytes: ByteCount,
    /// Bytes read from the source in this run.
    pub read_bytes: ByteCount,
}

/// One row of history: what crosses from ledger to outbox to controller, exactly once per id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunRecord {
    /// Which run; unique for ever.
    pub id: RunId,
    /// Which schedule.
    pub schedule: ScheduleName,
    /// What it backs up.
    pub scope: Scope,
    /// What started it.
    pub trigger: Trigger,
    /// The occurrence it answers, when a timer started it or it was missed or skipped.
    pub due_at: Option<Instant>,
    /// When it began; for a missed or skipped occurrence, when that was noticed.
    pub started_at: Instant,
    /// When it ended.
    pub finished_at: Option<Instant>,
    /// How it ended.
    pub state: RunState,
    /// One sentence for people: what was done or why not.
    pub summary: String,
    /// Counts.
    pub counts: RunCounts,
    /// One result per destination.
    pub copies: Vec<Copy>,
    /// The log of the run, oldest line first; bounded by the ledger. It leaves the server, so it
    /// names schedules, accounts and databases, never files.
    pub log: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_run_has_every_part() {
        assert!(Scope::Full.has_web() && Scope::Full.has_databases());
        assert!(!Scope::Web.has_databases() && !Scope::Db.has_web());
    }
}
