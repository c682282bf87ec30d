//! The repository engine: stores snapshots of trees in object stores, gives them back, checks them
//! and lets them go. The format is written in `docs/format.md`.
//!
//! The engine is synchronous, works on its own threads, and reaches the world only through
//! `edge`: it opens no file, asks for no time of day and reads no environment.

mod backup;
mod browse;
mod check;
mod checkpoint;
mod chunker;
mod condemned;
mod container;
mod content;
mod domain;
mod error;
#[cfg(any(test, feature = "foreign"))]
pub mod foreign;
mod forget;
mod gate;
mod heal;
mod in_order;
mod index;
mod layout;
mod pack;
mod prune;
mod reader;
mod refusal;
mod reseal;
mod restore;
mod retention;
mod segment;
mod session;
mod slots;
mod snapshot;
mod statistics;
mod stream;
mod throttle;
mod trash;
mod tree;
mod tuning;
#[cfg(test)]
mod vectors;
mod view;
mod wire;
mod wreck;

pub use backup::{
    BackupCounts, BackupOptions, BackupReport, REPLICA_COUNT_MAX, Replica, ReplicaReport, back_up,
};
pub use browse::{Aspect, Change, Hit, LiveReport, PathTime, Pattern, Size, Version};
pub use check::{
    AffectedFile, CheckDepth, CheckReport, CheckShare, Damage, NameReport, check_names,
};
pub use domain::{Domain, SnapshotList, VERSION as FORMAT_VERSION};
pub use error::{ReadError, RepositoryError, chain};
pub use heal::HealReport;
pub use prune::{Freed, PruneOptions, PruneReport, Repack};
pub use refusal::Refusal;
pub use reseal::ResealReport;
pub use restore::RestoreReport;
pub use retention::{Candidate, Keep, KeptBy, RetentionPlan, plan_retention};
pub use sealing::{KeyTextError, Right, Rights, ScheduleKey, SlotLock, SlotName};
pub use slots::{SlotRow, Unlock};
pub use snapshot::{Snapshot, SnapshotBody, SnapshotFailure, SnapshotStatus};
pub use statistics::{Amount, PartStatistics, SnapshotStatistics, Statistics};
pub use stream::{ContentStream, EachEntry, StreamError, StreamReport};
pub use trash::{Pin, TrashList, Trashed};
pub use tuning::{Checkpoints, Compression, RunLimits, Tuning};
pub use view::View;
pub use wire::FormatError;
pub use wreck::Wreck;
