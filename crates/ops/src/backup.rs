//! Backing up one schedule: one walk over the server, one copy per destination, one verdict.

use std::path::Path;
use std::sync::Arc;

use destinations::{LocalScratch, LocalStore};
use edge::{Clock, Entropy, Event, FileTime, Monitor, TreePath};
use model::{
    ByteCount, Copy, CopyState, DestinationName, Failure, RunCounts, RunId, RunState, ScheduleName,
};
use repository::{
    BackupOptions, BackupReport, Domain, Replica, RepositoryError, RunLimits, ScheduleKey, Tuning,
    back_up, chain,
};
use safefs::Users;
use settings::{Compression, HostingLayout, Limits, Schedule};
use sources::{RunSource, Selection};

use crate::forget::{Forgotten, forget_old, is_full, make_room};
use crate::lock::DomainLock;
use crate::place::{PlaceError, StorePlace, open_place};

/// What of a job's memory is not for content under way: the program, indexes, dumps.
const MEMORY_BESIDE: ByteCount = ByteCount::new(40 << 20);
/// More content under way gains nothing.
const MEMORY_MAX: ByteCount = ByteCount::new(64 << 20);

/// One destination of a run.
#[derive(Debug)]
pub struct RunDestination {
    /// Which one.
    pub name: DestinationName,
    /// False lets the run be ok without it.
    pub required: bool,
    /// Where it is, or why that cannot be said.
    pub place: Result<StorePlace, PlaceError>,
}

/// What a run is told.
pub struct BackupPlan<'a> {
    /// The schedule.
    pub schedule: &'a Schedule,
    /// What it may use, with what the agent says where the schedule says nothing.
    pub limits: Limits,
    /// Where accounts are.
    pub layout: &'a HostingLayout,
    /// The server's name, for the snapshot.
    pub host: &'a str,
    /// The run.
    pub run: RunId,
    /// Opens the schedule's domain.
    pub key: &'a ScheduleKey,
    /// Where to.
    pub destinations: Vec<RunDestination>,
    /// What repositories' indexes say; may be deleted at any time.
    pub cache: &'a Path,
    /// The socket of the dump service.
    pub dump_socket: &'a Path,
    /// Tells the time.
    pub clock: &'a dyn Clock,
    /// Gives salts.
    pub entropy: &'a dyn Entropy,
    /// Hears of the work and may stop it.
    pub monitor: &'a dyn Monitor,
}

/// How a run ended.
#[derive(Debug)]
pub struct BackupOutcome {
    /// The verdict.
    pub state: RunState,
    /// One sentence for people.
    pub summary: String,
    /// Counts.
    pub counts: RunCounts,
    /// One result per destination, in the order of the schedule.
    pub copies: Vec<Copy>,
    /// The first objects that failed, by name; `counts.failed` has all.
    pub failures: Vec<Failure>,
    /// What retention did, one line per destination where it did something.
    pub forgotten: Vec<Forgotten>,
}

/// Backs up one schedule to all its destinations. What fails is in the outcome.
#[must_use]
pub fn back_up_schedule(plan: BackupPlan<'_>) -> BackupOutcome {
    let lock = match DomainLock::take(plan.cache, &plan.schedule.name) {
        Ok(lock) => lock,
        Err(error) => return nothing_done(&plan, &format!("locking the domain: {error}")),
    };
    let (replicas, mut copies) = open_replicas(&plan);
    if replicas.is_empty() {
        let mut outcome = nothing_done(&plan, "no destination can be used");
        outcome.copies = copies;
        return outcome;
    }
    let source = open_source(&plan);
    let mut source = match source {
        Ok(source) => source,
        Err(error) => return nothing_done(&plan, &error),
    };
    for note in source.notes() {
        plan.monitor.event(Event::Note(note));
    }
    if source.is_empty() {
        // A snapshot of nothing would count as a good one, and push out those that hold something.
        let why = "no account has a site tree or a database; is a file system not mounted, or \
                   [hosting] of agent.toml not right?";
        return nothing_done(&plan, why);
    }
    let roots = roots(&source);
    let options = BackupOptions {
        schedule: plan.schedule.name.as_str(),
        host: plan.host,
        run: Some(plan.run),
        roots: &roots,
        paths: &[],
        compare_by: &roots,
        tuning: tuning(plan.schedule, plan.limits),
        clock: plan.clock,
        entropy: plan.entropy,
        monitor: plan.monitor,
    };
    let report = back_up(replicas, &options, &mut source);
    tell_silent_changes(&plan, &report);
    let full: Vec<_> = report
        .replicas
        .iter()
        .filter(|replica| replica.error.as_ref().is_some_and(is_full))
        .map(|replica| replica.name.clone())
        .collect();
    copies.extend(report.replicas.iter().map(|replica| Copy {
        destination: replica.name.clone(),
        state: if replica.snapshot.is_some() {
            CopyState::Stored
        } else {
            CopyState::Failed
        },
        snapshot: replica.snapshot,
        stored_bytes: replica.stored_bytes,
        error: replica.error.as_ref().map(|error| chain(error)),
    }));
    let order = |copy: &Copy| {
        plan.destinations
            .iter()
            .position(|wanted| wanted.name == copy.destination)
    };
    copies.sort_by_key(order);
    let mut outcome = judge(&plan, report, copies);
    if matches!(outcome.state, RunState::Ok | RunState::Partial) {
        outcome.forgotten = forget_old(&plan, &outcome.copies, &lock);
    }
    outcome.forgotten.extend(make_room(&plan, &full, &lock));
    outcome
}

fn tell_silent_changes(plan: &BackupPlan<'_>, report: &BackupReport) {
    let count = report.counts.silent_changes;
    if count > 0 {
        plan.monitor.event(Event::Note(&format!(
            "{count} files have other content than before, though nothing says that they changed; \
             they are stored as they are now, earlier snapshots have them as they were"
        )));
    }
}

/// Gives how a run of a schedule works. The limits are the schedule's, and the agent's where it has
/// none.
fn tuning(schedule: &Schedule, limits: Limits) -> Tuning {
    let compression = match schedule.compression {
        Compression::Level(level) => repository::Compression::Level(level),
        Compression::Auto => repository::Compression::Auto,
    };
    let under_way = |job: ByteCount| {
        let left = job.get().saturating_sub(MEMORY_BESIDE.get());
        ByteCount::new(left.min(MEMORY_MAX.get()))
    };
    Tuning {
        compression,
        limits: RunLimits {
            upload_per_sec: limits.upload_per_sec,
            download_per_sec: None,
            cpu_percent: limits.cpu_percent,
            memory: limits.memory.map(under_way),
        },
        reread_percent: schedule.reread_percent,
        ..Tuning::default()
    }
}

fn open_source(plan: &BackupPlan<'_>) -> Result<RunSource, String> {
    let users = Users::load().map_err(|error| format!("reading the users: {error}"))?;
    let now = plan.clock.now();
    let micros = now.micros() - now.secs() * 1_000_000;
    let selection = Selection {
        scope: plan.schedule.scope,
        accounts: plan.schedule.accounts.clone(),
        excludes: plan.schedule.exclude.clone(),
        dump_socket: plan.dump_socket.to_owned(),
        taken_at: FileTime {
            secs: now.secs(),
            nanos: u32::try_from(micros * 1000).unwrap_or_default(),
        },
    };
    RunSource::open(plan.layout, &selection, users).map_err(|error| chain(&error))
}

/// Gives the trees of all accounts as paths in the snapshot.
fn roots(source: &RunSource) -> Vec<TreePath> {
    let mut roots = Vec::new();
    for account in source.accounts() {
        for site in &account.sites {
            let files = TreePath::new([&account.id[..], b"files"]);
            roots.extend(files.map(|files| files.join(&site.path)));
        }
    }
    roots
}

fn open_replicas(plan: &BackupPlan<'_>) -> (Vec<Replica>, Vec<Copy>) {
    let mut replicas = Vec::new();
    let mut failed = Vec::new();
    for destination in &plan.destinations {
        match open_replica(plan, destination) {
            Ok(domain) => replicas.push(Replica {
                name: destination.name.clone(),
                domain,
            }),
            Err(error) => {
                plan.monitor.event(Event::DestinationLost {
                    destination: &destination.name,
                    error: &error,
                });
                failed.push(Copy {
                    destination: destination.name.clone(),
                    state: CopyState::Failed,
                    snapshot: None,
                    stored_bytes: ByteCount::ZERO,
                    error: Some(error),
                });
            }
        }
    }
    (replicas, failed)
}

pub(crate) fn open_replica(
    plan: &BackupPlan<'_>,
    destination: &RunDestination,
) -> Result<Domain, String> {
    let place = destination.place.as_ref().map_err(|error| chain(error))?;
    let store = open_place(place).map_err(|error| chain(&error))?;
    let label = plan.schedule.name.as_str();
    let domain = match Domain::open(Arc::clone(&store), plan.key) {
        Err(RepositoryError::NoRepository { .. }) => {
            Domain::create(store, plan.key, plan.entropy, label)
        }
        Err(RepositoryError::WrongKey { .. }) => {
            plan.monitor.event(Event::Note(&format!(
                "{}: the key of this schedule opens nothing there yet; snapshots that another key \
                 opens are left as they are, and this run begins anew",
                destination.name
            )));
            Domain::create(store, plan.key, plan.entropy, label)
        }
        other => other,
    };
    let domain = domain.map_err(|error| chain(&error))?;
    Ok(with_cache(domain, plan.cache, &destination.name))
}

/// Gives the domain a cache of its own below `cache`, and room for scratch files there; without
/// them it only reads more and takes more memory.
pub(crate) fn with_cache(domain: Domain, cache: &Path, name: &DestinationName) -> Domain {
    let directory = cache.join(domain.id().to_string()).join(name.as_str());
    let made = std::fs::create_dir_all(&directory).is_ok();
    match LocalStore::open(&directory) {
        Ok(store) if made => domain
            .with_cache(Arc::new(store))
            .with_scratch(Arc::new(LocalScratch::new(&directory))),
        _ => domain,
    }
}

fn nothing_done(plan: &BackupPlan<'_>, why: &str) -> BackupOutcome {
    let copies = plan.destinations.iter().map(|destination| Copy {
        destination: destination.name.clone(),
        state: CopyState::Failed,
        snapshot: None,
        stored_bytes: ByteCount::ZERO,
        error: Some(why.to_owned()),
    });
    BackupOutcome {
        state: RunState::Failed,
        summary: format!("nothing was backed up: {why}; earlier snapshots are untouched"),
        counts: RunCounts::default(),
        copies: copies.collect(),
        failures: Vec::new(),
        forgotten: Vec::new(),
    }
}

fn judge(plan: &BackupPlan<'_>, report: BackupReport, copies: Vec<Copy>) -> BackupOutcome {
    let counts = RunCounts {
        entries: report.counts.entries,
        unchanged: report.counts.unchanged,
        databases: report.counts.streams,
        failed: report.counts.failed,
        total_bytes: report.counts.total_bytes,
        read_bytes: report.counts.read_bytes,
    };
    let required = |copy: &Copy| {
        plan.destinations
            .iter()
            .any(|wanted| wanted.name == copy.destination && wanted.required)
    };
    let stored = |copy: &&Copy| copy.state == CopyState::Stored;
    let stored_count = copies.iter().filter(stored).count();
    let complete = copies
        .iter()
        .filter(|copy| required(copy))
        .all(|copy| stored(&copy));
    let state = if report.is_cancelled {
        RunState::Cancelled
    } else if stored_count == 0 {
        RunState::Failed
    } else if complete && counts.failed == 0 {
        RunState::Ok
    } else {
        RunState::Partial
    };
    let summary = summarise(state, &counts, &copies, stored_count);
    BackupOutcome {
        state,
        summary,
        counts,
        copies,
        failures: report.failures,
        forgotten: Vec::new(),
    }
}

fn summarise(state: RunState, counts: &RunCounts, copies: &[Copy], stored: usize) -> String {
    let news = copies
        .iter()
        .fold(ByteCount::ZERO, |sum, copy| sum + copy.stored_bytes);
    let total = copies.len();
    let copy_word = if total == 1 { "copy" } else { "copies" };
    match state {
        RunState::Cancelled => {
            format!("cancelled; {news} that was stored by then is not stored again")
        }
        RunState::Failed => {
            let why = copies
                .iter()
                .find_map(|copy| copy.error.as_deref())
                .unwrap_or("see the log");
            format!("no destination holds a snapshot: {why}; earlier snapshots are untouched")
        }
        _ => {
            let mut text = format!(
                "{} entries, {}; {news} stored; {stored} of {total} {copy_word}",
                counts.entries, counts.total_bytes
            );
            if counts.failed > 0 {
                let object_word = if counts.failed == 1 {
                    "object"
                } else {
                    "objects"
                };
                text = format!("{text}; {} {object_word} failed", counts.failed);
            }
            text
        }
    }
}

/// Names a schedule's lock and cache.
pub(crate) fn lock_name(schedule: &ScheduleName) -> String {
    format!("{schedule}.lock")
}
