//! The verbs: back up, restore, list, check, forget. They compose settings, keys, sources,
//! destinations and the engine; they know neither systemd, nor a terminal, nor the controller.

mod archive;
mod backup;
mod browse;
mod credential;
mod forget;
mod lock;
mod password;
mod place;
mod restore;
mod standalone;

pub use archive::{ArchiveForm, write_archive, write_file};
pub use backup::{BackupOutcome, BackupPlan, RunDestination, back_up_schedule};
pub use browse::{
    OpenError, SnapshotRow, list, open_domain, open_domain_with, open_snapshot, snapshots_at,
};
pub use credential::{CredentialError, S3Credential};
pub use forget::{Forgotten, built_at};
pub use password::{Strength, WeakPassword, judge_password};
pub use place::{PlaceError, StorePlace, open_place};
pub use repository::{
    Amount, Aspect, BackupCounts, Candidate, Change, CheckDepth, CheckReport, CheckShare,
    Checkpoints, Compression, Damage, Domain, FORMAT_VERSION, Freed, HealReport, Hit, Keep, KeptBy,
    KeyTextError, LiveReport, NameReport, PartStatistics, PathTime, Pattern, Pin, PruneOptions,
    PruneReport, Refusal, Repack, RepositoryError, ResealReport, RetentionPlan, Right, Rights,
    RunLimits, ScheduleKey, Size, SlotLock, SlotName, SlotRow, Snapshot, SnapshotStatistics,
    SnapshotStatus, Statistics, StreamError, StreamReport, TrashList, Trashed, Tuning, Unlock,
    Version, View, Wreck, chain, check_names, plan_retention,
};
pub use restore::{RestoreError, RestoreOutcome, RestoreTo, explain, restore};
pub use sources::dump_account_sql;
pub use standalone::{
    LiveTrees, LockError, TreeBackup, TreeBackupError, TreeSnapshot, WriteLock, back_up_trees,
    create_domain, diff_trees, with_cache_at,
};
