//! What the API answers: one type for each shape, as the OpenAPI document shows it.

use model::{Copy, CopyState, RunCounts, RunRecord};
use protocol::Progress;
use serde::Serialize;
use utoipa::ToSchema;

use crate::live::Live;
use crate::schedule::{Accounts, Compression, Keep, ScopeWord};
use crate::store::{Operation, OperationState, RunRow, Server, SnapshotItem};

/// A page of a list.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Page<T> {
    /// The items of this page.
    pub(crate) items: Vec<T>,
    /// Gives the next page; null at the end.
    pub(crate) next_cursor: Option<String>,
}

/// A server by id and name.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(crate) struct ServerRef {
    pub(crate) id: String,
    pub(crate) name: String,
}

/// Which generation was saved here, fetched by the agent, and is in force there.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct GenerationState {
    pub(crate) saved: u64,
    pub(crate) delivered: u64,
    pub(crate) applied: u64,
    /// Why the newest is not in force, when the agent refused it.
    pub(crate) error: Option<String>,
}

/// One difference between what was applied and what systemd has.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct DriftItem {
    pub(crate) unit: String,
    pub(crate) kind: String,
    pub(crate) detail: String,
    #[schema(format = DateTime)]
    pub(crate) noticed_at: String,
}

/// One destination that a server knows.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct DestinationItem {
    pub(crate) name: String,
    pub(crate) kind: String,
    /// Where, for people.
    pub(crate) place: String,
}

/// A server of the fleet.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ServerItem {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) agent_id: String,
    /// The agent's key as people compare it; `backstayctl status` shows the same.
    pub(crate) fingerprint: String,
    pub(crate) online: bool,
    #[schema(format = DateTime)]
    pub(crate) last_seen_at: Option<String>,
    pub(crate) version: String,
    pub(crate) os: String,
    pub(crate) generation: GenerationState,
    pub(crate) drift: Vec<DriftItem>,
    pub(crate) destinations: Vec<DestinationItem>,
    pub(crate) accounts: Vec<String>,
    pub(crate) schedule_count: u64,
}

impl ServerItem {
    /// Shows a server; `held` is how many schedules the controller holds for it.
    pub(crate) fn new(server: Server, live: &Live, held: usize) -> Self {
        let (online, heard) = live.status(&server.id, crate::now());
        let reported = server.reported;
        let local = reported
            .schedules
            .iter()
            .filter(|schedule| schedule.origin == protocol::Origin::Server)
            .count();
        Self {
            id: server.id,
            name: server.name.into(),
            agent_id: server.agent.to_string(),
            fingerprint: server.key.fingerprint(),
            online,
            last_seen_at: heard.or(server.last_seen_at).map(|at| at.to_string()),
            version: reported.host.version,
            os: reported.host.os,
            generation: GenerationState {
                saved: server.generation_saved,
                delivered: server.generation_delivered,
                applied: reported.generation.applied.unwrap_or(0),
                error: reported.generation.error,
            },
            drift: reported
                .drift
                .into_iter()
                .map(|drift| DriftItem {
                    unit: drift.unit,
                    kind: drift.kind,
                    detail: drift.detail,
                    noticed_at: drift.noticed_at.to_string(),
                })
                .collect(),
            destinations: reported
                .destinations
                .into_iter()
                .map(|destination| DestinationItem {
                    name: destination.name.into(),
                    kind: destination.kind,
                    place: destination.place,
                })
                .collect(),
            accounts: reported.accounts,
            schedule_count: u64::try_from(held.saturating_add(local)).unwrap_or(u64::MAX),
        }
    }
}

/// The newest run of a schedule.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct LastRun {
    pub(crate) id: String,
    pub(crate) state: RunStateWord,
    #[schema(format = DateTime)]
    pub(crate) started_at: String,
    #[schema(format = DateTime)]
    pub(crate) finished_at: Option<String>,
    pub(crate) summary: String,
}

impl From<&RunRecord> for LastRun {
    fn from(record: &RunRecord) -> Self {
        Self {
            id: record.id.to_string(),
            state: record.state.into(),
            started_at: record.started_at.to_string(),
            finished_at: record.finished_at.map(|at| at.to_string()),
            summary: record.summary.clone(),
        }
    }
}

/// Who wrote a schedule.
#[derive(Debug, Clone, std::marker::Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum OriginWord {
    /// The controller: it can be changed here.
    Controller,
    /// People, in files on the server: it can be read here.
    Server,
}

/// A schedule of a server.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ScheduleItem {
    pub(crate) name: String,
    pub(crate) enabled: bool,
    pub(crate) origin: OriginWord,
    pub(crate) scope: ScopeWord,
    pub(crate) accounts: Accounts,
    pub(crate) when: String,
    pub(crate) destinations: Vec<String>,
    pub(crate) keep: Keep,
    pub(crate) compression: Option<Compression>,
    pub(crate) exclude: Vec<String>,
    /// The text that the server gets or has.
    pub(crate) toml: String,
    /// When its timer elapses next, as the server last said.
    #[schema(format = DateTime)]
    pub(crate) next_run_at: Option<String>,
    pub(crate) last_run: Option<LastRun>,
}

macro_rules! words {
    ($(#[$doc:meta])* $name:ident from $source:path { $($word:ident),+ }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, std::marker::Copy, PartialEq, Eq, Serialize, serde::Deserialize, ToSchema)]
        #[serde(rename_all = "snake_case")]
        pub(crate) enum $name { $($word),+ }

        impl From<$source> for $name {
            fn from(source: $source) -> Self {
                match source { $(<$source>::$word => Self::$word),+ }
            }
        }

        impl From<$name> for $source {
            fn from(word: $name) -> Self {
                match word { $($name::$word => Self::$word),+ }
            }
        }
    };
}

words!(
    /// How a run stands or ended.
    RunStateWord from model::RunState { Running, Ok, Partial, Failed, Missed, Skipped, Cancelled }
);
words!(
    /// What started a run.
    TriggerWord from model::Trigger { Timer, CatchUp, Request }
);

impl From<model::Scope> for ScopeWord {
    fn from(scope: model::Scope) -> Self {
        match scope {
            model::Scope::Full => Self::Full,
            model::Scope::Web => Self::Web,
            model::Scope::Db => Self::Db,
        }
    }
}

/// Whether a destination holds the snapshot of a run.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum CopyWord {
    /// Stored and read back.
    Stored,
    /// Not there.
    Failed,
}

/// The result of a run at one destination.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct CopyItem {
    pub(crate) destination: String,
    pub(crate) state: CopyWord,
    pub(crate) snapshot: Option<String>,
    /// Bytes newly stored there.
    pub(crate) stored_bytes: u64,
    pub(crate) error: Option<String>,
}

impl From<Copy> for CopyItem {
    fn from(copy: Copy) -> Self {
        Self {
            destination: copy.destination.into(),
            state: match copy.state {
                CopyState::Stored => CopyWord::Stored,
                CopyState::Failed => CopyWord::Failed,
            },
            snapshot: copy.snapshot.map(|id| id.to_string()),
            stored_bytes: copy.stored_bytes.get(),
            error: copy.error,
        }
    }
}

/// What a run counted.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct CountsItem {
    /// Entries in the snapshot.
    pub(crate) entries: u64,
    /// Entries taken over from the snapshot before.
    pub(crate) unchanged: u64,
    /// Databases dumped.
    pub(crate) databases: u64,
    /// Objects that could not be backed up.
    pub(crate) failed: u64,
    /// Bytes of all content.
    pub(crate) total_bytes: u64,
    /// Bytes read in this run.
    pub(crate) read_bytes: u64,
}

impl From<RunCounts> for CountsItem {
    fn from(counts: RunCounts) -> Self {
        Self {
            entries: counts.entries,
            unchanged: counts.unchanged,
            databases: counts.databases,
            failed: counts.failed,
            total_bytes: counts.total_bytes.get(),
            read_bytes: counts.read_bytes.get(),
        }
    }
}

/// One row of history.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct RunItem {
    pub(crate) id: String,
    pub(crate) server: ServerRef,
    pub(crate) schedule: String,
    pub(crate) scope: ScopeWord,
    pub(crate) trigger: TriggerWord,
    /// The occurrence that it answers.
    #[schema(format = DateTime)]
    pub(crate) due_at: Option<String>,
    #[schema(format = DateTime)]
    pub(crate) started_at: String,
    #[schema(format = DateTime)]
    pub(crate) finished_at: Option<String>,
    pub(crate) state: RunStateWord,
    pub(crate) summary: String,
    pub(crate) counts: CountsItem,
    pub(crate) copies: Vec<CopyItem>,
}

/// One run with its log.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct RunDetail {
    #[serde(flatten)]
    pub(crate) run: RunItem,
    /// Oldest line first.
    pub(crate) log: Vec<String>,
}

impl From<RunRow> for RunDetail {
    fn from(row: RunRow) -> Self {
        let record = row.record;
        Self {
            run: RunItem {
                id: record.id.to_string(),
                server: ServerRef {
                    id: row.server_id,
                    name: row.server_name,
                },
                schedule: record.schedule.into(),
                scope: record.scope.into(),
                trigger: record.trigger.into(),
                due_at: record.due_at.map(|at| at.to_string()),
                started_at: record.started_at.to_string(),
                finished_at: record.finished_at.map(|at| at.to_string()),
                state: record.state.into(),
                summary: record.summary,
                counts: record.counts.into(),
                copies: record.copies.into_iter().map(CopyItem::from).collect(),
            },
            log: record.log,
        }
    }
}

/// Something under way.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct TaskItem {
    /// The run's id, or the operation's.
    pub(crate) id: String,
    /// `run`, `restore`, `list` or `cancel`.
    pub(crate) kind: String,
    pub(crate) server: ServerRef,
    pub(crate) schedule: Option<String>,
    /// What it does now: one word; `requested` or `accepted` while the agent has not begun.
    pub(crate) phase: String,
    pub(crate) entries: u64,
    pub(crate) bytes: u64,
    pub(crate) bytes_expected: Option<u64>,
    #[schema(format = DateTime)]
    pub(crate) started_at: String,
}

/// Shows what a server says about something that runs there.
pub(crate) fn task_of(server_id: &str, server_name: &str, task: &Progress) -> TaskItem {
    TaskItem {
        id: task.id.clone(),
        kind: task.kind.clone(),
        server: ServerRef {
            id: server_id.to_owned(),
            name: server_name.to_owned(),
        },
        schedule: Some(task.schedule.as_str().to_owned()),
        phase: task.phase.clone(),
        entries: task.entries,
        bytes: task.bytes,
        bytes_expected: task.bytes_expected,
        started_at: task.started_at.to_string(),
    }
}

/// A snapshot, as the server last listed it.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct SnapshotView {
    pub(crate) id: String,
    #[schema(format = DateTime)]
    pub(crate) taken_at: String,
    /// Where it is.
    pub(crate) destinations: Vec<String>,
    pub(crate) total_bytes: u64,
    /// `complete` or `partial`.
    pub(crate) status: String,
    #[schema(format = DateTime)]
    pub(crate) refreshed_at: String,
}

impl From<SnapshotItem> for SnapshotView {
    fn from(item: SnapshotItem) -> Self {
        Self {
            id: item.report.id.to_string(),
            taken_at: item.report.taken_at.to_string(),
            destinations: item
                .report
                .destinations
                .into_iter()
                .map(String::from)
                .collect(),
            total_bytes: item.report.total_bytes,
            status: item.report.status,
            refreshed_at: item.refreshed_at.to_string(),
        }
    }
}

/// The snapshots of one schedule.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct SnapshotList {
    /// Newest first.
    pub(crate) items: Vec<SnapshotView>,
    /// When the server listed them; null when it never did.
    #[schema(format = DateTime)]
    pub(crate) refreshed_at: Option<String>,
}

/// Something that a server was asked to do.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct OperationView {
    pub(crate) id: String,
    /// `run_now`, `list_snapshots` or `restore`.
    pub(crate) kind: String,
    pub(crate) server_id: String,
    pub(crate) schedule: Option<String>,
    pub(crate) state: OperationState,
    /// The sentence for people, once there is one.
    pub(crate) detail: Option<String>,
    /// The run that it started.
    pub(crate) run_id: Option<String>,
    #[schema(format = DateTime)]
    pub(crate) created_at: String,
    #[schema(format = DateTime)]
    pub(crate) updated_at: String,
    /// The agent must have begun by then.
    #[schema(format = DateTime)]
    pub(crate) expires_at: String,
}

impl From<Operation> for OperationView {
    fn from(operation: Operation) -> Self {
        Self {
            id: operation.id.to_string(),
            kind: operation.kind,
            server_id: operation.server_id,
            schedule: operation.schedule,
            state: operation.state,
            detail: operation.detail,
            run_id: operation.run.map(|run| run.to_string()),
            created_at: operation.created_at.to_string(),
            updated_at: operation.updated_at.to_string(),
            expires_at: operation.expires_at.to_string(),
        }
    }
}

/// The operation that a request began.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Begun {
    pub(crate) operation: OperationView,
}
