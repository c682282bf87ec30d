//! Backing up: one walk over a source becomes one snapshot in every replica of a domain.
//!
//! What is new is read, cut, compressed and sealed once and goes to the replicas that lack it.
//! A replica that fails is left behind; the others go on. Order at each: packs, index, snapshot.

mod ahead;
mod copy;
mod expected;
mod held;
mod indexer;
mod local;
mod naming;
mod parent;
mod pipeline;
mod publish;
mod reread;
mod session;
mod short;
#[cfg(test)]
mod tests;

use edge::{Clock, Entropy, Event, Monitor, Phase, Source, TreePath};
use model::{ByteCount, DestinationName, Failure, Instant, RunId, SnapshotId};
use sealing::{ObjectKind, seal_single};

use crate::domain::Domain;
use crate::error::RepositoryError;
use crate::layout::ObjectHash;
use crate::session::choose_id;
use crate::snapshot::NewSnapshot;
use crate::tuning::Tuning;
#[cfg(test)]
pub(crate) use ahead::PORTIONS_BESIDE;
use ahead::{Ahead, New};
use copy::Copy;
pub(crate) use copy::{list_packs, lost_packs, read_pack, read_trailer};
use naming::Naming;
use parent::Parent;
use pipeline::Pipeline;
use publish::Publication;
use session::{Session, Walked};

/// The most replicas of one run.
pub const REPLICA_COUNT_MAX: usize = 16;

/// One place that is to hold the snapshot.
#[derive(Debug)]
pub struct Replica {
    /// What the place is called.
    pub name: DestinationName,
    /// The domain there. All replicas of a run are copies of one domain.
    pub domain: Domain,
}

/// What a run is told.
#[derive(Clone, Copy)]
pub struct BackupOptions<'a> {
    /// The schedule that runs.
    pub schedule: &'a str,
    /// The server.
    pub host: &'a str,
    /// The run.
    pub run: Option<RunId>,
    /// The trees that the source walks and that may be restored in place, as paths in the snapshot.
    pub roots: &'a [TreePath],
    /// What a person asked to back up, as paths in the snapshot, when it was a person: snapshots of
    /// other paths, or of other hosts, are another series.
    pub paths: &'a [TreePath],
    /// The run is compared with the newest snapshot that holds one of these, or with the newest
    /// when none does.
    pub compare_by: &'a [TreePath],
    /// How hard to compress, and what the run may use.
    pub tuning: Tuning,
    /// Tells the time.
    pub clock: &'a dyn Clock,
    /// Gives salts.
    pub entropy: &'a dyn Entropy,
    /// Hears of the work and may stop it.
    pub monitor: &'a dyn Monitor,
}

/// What a run counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct BackupCounts {
    /// Entries in the snapshot.
    pub entries: u64,
    /// Entries whose content was taken over from the previous snapshot.
    pub unchanged: u64,
    /// Streams in the snapshot, such as database dumps.
    pub streams: u64,
    /// Objects that could not be backed up as they should.
    pub failed: u64,
    /// Bytes of all content in the snapshot.
    pub total_bytes: ByteCount,
    /// Bytes of content read from the source.
    pub read_bytes: ByteCount,
    /// Files that were read again and had other content, though nothing says that they changed.
    pub silent_changes: u64,
}

/// How one replica fared.
#[derive(Debug)]
pub struct ReplicaReport {
    /// Which one.
    pub name: DestinationName,
    /// The snapshot, stored and read back.
    pub snapshot: Option<SnapshotId>,
    /// Bytes stored there by this run.
    pub stored_bytes: ByteCount,
    /// Why there is no snapshot.
    pub error: Option<RepositoryError>,
}

/// What a run did.
#[derive(Debug)]
pub struct BackupReport {
    /// Counts.
    pub counts: BackupCounts,
    /// The first objects that failed; `counts.failed` has all.
    pub failures: Vec<Failure>,
    /// The first files whose content changed though nothing says so, escaped. They are stored as
    /// they are now.
    pub silent_changes: Vec<String>,
    /// One for each replica, in the order given.
    pub replicas: Vec<ReplicaReport>,
    /// What a person should look into although nothing failed.
    pub warnings: Vec<String>,
    /// True when the monitor stopped the run. What was stored by then is not stored again.
    pub is_cancelled: bool,
}

/// Backs up a source into all replicas. What fails is in the report.
pub fn back_up(
    replicas: Vec<Replica>,
    options: &BackupOptions<'_>,
    source: &mut dyn Source,
) -> BackupReport {
    options.monitor.event(Event::Phase(Phase::Opening));
    let started_at = options.clock.now();
    let session = choose_id(options.entropy);
    let mut copies = copy::open_all(replicas, options, session);
    let warnings = warn_of_twins(&copies, options);
    let parent = Parent::find(&copies, options.compare_by);
    let origin = Origin {
        started_at,
        parent: parent.as_ref().map(Parent::snapshot_id),
        reread_round: round_after(parent.as_ref(), options),
    };
    // What a cut run read is newer than the snapshot before it.
    let parents = Parent::find_checkpoint(&copies).into_iter().chain(parent);

    options.monitor.event(Event::Phase(Phase::Storing));
    let (walked, packs) = store(&copies, options, (origin, parents.collect()), source);
    let finished_at = options.clock.now();

    options.monitor.event(Event::Phase(Phase::Publishing));
    let Walked {
        root,
        counts,
        failures,
        accounts,
        silent_changes,
        is_cancelled,
        pages,
    } = walked;
    let snapshot = root.map(|root| NewSnapshot {
        schedule: options.schedule.to_owned(),
        host: options.host.to_owned(),
        run: options.run,
        session: Some(session),
        started_at,
        finished_at,
        is_cut: false,
        parent: origin.parent,
        root,
        failed: counts.failed,
        failures: session::for_snapshot(&failures),
        accounts,
        roots: options.roots.to_vec(),
        paths: options.paths.to_vec(),
        reread_round: origin.reread_round,
    });
    let plaintext = snapshot.and_then(|snapshot| snapshot.encode().ok());
    let seal = |plaintext: &Vec<u8>| seal_snapshot(&copies, options.entropy, plaintext);
    let sealed = plaintext.as_ref().and_then(seal);
    let local = copies.iter_mut().find_map(|copy| copy.local.take());
    let replicas = Publication {
        packs: &packs,
        snapshot: sealed.as_ref(),
        clock: options.clock,
        entropy: options.entropy,
        monitor: options.monitor,
    }
    .publish(copies);
    let published = replicas.iter().find_map(|replica| replica.snapshot);
    if let (Some(local), Some(pages), Some(plaintext), Some(id)) =
        (local, pages, plaintext, published)
    {
        local.keep(pages, (&plaintext, id), options.entropy);
    }
    BackupReport {
        counts,
        failures,
        silent_changes,
        replicas,
        warnings,
        is_cancelled,
    }
}

/// What a run begins with.
#[derive(Debug, Clone, Copy)]
struct Origin {
    started_at: Instant,
    /// The snapshot that unchanged entries are taken from.
    parent: Option<SnapshotId>,
    reread_round: u64,
}

/// Counts the runs that read a share of the unchanged files again.
fn round_after(parent: Option<&Parent<'_>>, options: &BackupOptions<'_>) -> u64 {
    let before = parent.map_or(0, Parent::reread_round);
    before + u64::from(options.tuning.reread_percent > 0)
}

/// Says where another run of this schedule, of a host of this name, is at work.
fn warn_of_twins(copies: &[Copy], options: &BackupOptions<'_>) -> Vec<String> {
    let twins = copies.iter().filter_map(|copy| {
        let (began, seen) = copy.twin?;
        Some(format!(
            "another run of {} on {} has been writing to {} since {began}, and gave its last sign at \
             {seen}: unless that run was cut just now, two machines back up as one; a copy of a \
             machine needs a name and keys of its own",
            options.schedule, options.host, copy.name
        ))
    });
    let warnings: Vec<_> = twins.collect();
    for warning in &warnings {
        options.monitor.event(Event::Note(warning));
    }
    warnings
}

/// Reads the source and stores what is new.
fn store(
    copies: &[Copy],
    options: &BackupOptions<'_>,
    (origin, parents): (Origin, Vec<Parent<'_>>),
    source: &mut dyn Source,
) -> (Walked, Vec<pipeline::NewPack>) {
    std::thread::scope(|scope| {
        let Some(first) = copies.first() else {
            return (Walked::default(), Vec::new());
        };
        let pipeline = Pipeline::start(scope, copies, options);
        let keyring = first.domain.keyring();
        let naming = Naming::start(scope, keyring.namer());
        let mut session = Session::new(copies, keyring, *options, (pipeline, naming));
        let new = New::than(&parents);
        let flow = session.begin(origin, parents, &new);
        session.walk(Ahead::start(scope, source, new, (&flow, keyring)));
        session.finish()
    })
}

fn seal_snapshot(
    copies: &[Copy],
    entropy: &dyn Entropy,
    plaintext: &[u8],
) -> Option<(ObjectHash, Vec<u8>)> {
    let first = copies.iter().find(|copy| copy.is_live())?;
    let mut salt = [0; 32];
    entropy.fill(&mut salt);
    let sealed = seal_single(
        first.domain.keyring(),
        ObjectKind::Snapshot,
        &salt,
        plaintext,
    );
    sealed.ok().map(|bytes| (ObjectHash::of(&bytes), bytes))
}
