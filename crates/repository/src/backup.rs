//! Backing up: one walk over a source becomes one snapshot in every replica of a domain.
//!
//! What is new is read, cut, compressed and sealed once and goes to the replicas that lack it.
//! A replica that fails is left behind; the others go on. Order at each: packs, index, snapshot.

mod ahead;
mod copy;
mod indexer;
mod local;
mod parent;
mod pipeline;
mod publish;
mod session;
#[cfg(test)]
mod tests;

use edge::{Clock, Entropy, Event, Monitor, Phase, Source, TreePath};
use model::{ByteCount, DestinationName, Failure, RunId, SnapshotId};
use sealing::{ObjectKind, seal_single};

use crate::domain::Domain;
use crate::error::RepositoryError;
use crate::layout::ObjectHash;
use crate::snapshot::NewSnapshot;
use crate::tuning::Tuning;
use ahead::Ahead;
use copy::Copy;
pub(crate) use copy::{list_packs, read_pack, read_trailer};
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
    /// One for each replica, in the order given.
    pub replicas: Vec<ReplicaReport>,
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
    let mut copies = copy::open_all(replicas, options);
    let parent = Parent::find(&copies, options.compare_by);
    let parent_id = parent.as_ref().map(Parent::snapshot_id);

    options.monitor.event(Event::Phase(Phase::Storing));
    let (walked, packs) = store(&copies, options, parent, source);
    let finished_at = options.clock.now();

    options.monitor.event(Event::Phase(Phase::Publishing));
    let Walked {
        root,
        counts,
        failures,
        accounts,
        is_cancelled,
        pages,
    } = walked;
    let snapshot = root.map(|root| NewSnapshot {
        schedule: options.schedule.to_owned(),
        host: options.host.to_owned(),
        run: options.run,
        started_at,
        finished_at,
        parent: parent_id,
        root,
        failed: counts.failed,
        failures: session::for_snapshot(&failures),
        accounts,
        roots: options.roots.to_vec(),
    });
    let plaintext = snapshot.and_then(|snapshot| snapshot.encode().ok());
    let seal = |plaintext: &Vec<u8>| seal_snapshot(&copies, options.entropy, plaintext);
    let sealed = plaintext.as_ref().and_then(seal);
    let local = copies.iter_mut().find_map(|copy| copy.local.take());
    let replicas = Publication {
        packs: &packs,
        snapshot: sealed.as_ref(),
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
        replicas,
        is_cancelled,
    }
}

/// Reads the source and stores what is new.
fn store(
    copies: &[Copy],
    options: &BackupOptions<'_>,
    parent: Option<Parent<'_>>,
    source: &mut dyn Source,
) -> (Walked, Vec<pipeline::NewPack>) {
    std::thread::scope(|scope| {
        let Some(first) = copies.first() else {
            return (Walked::default(), Vec::new());
        };
        let pipeline = Pipeline::start(scope, copies, options);
        let mut session = Session::new(copies, first.domain.keyring(), *options, pipeline, parent);
        session.walk(Ahead::start(scope, source));
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
