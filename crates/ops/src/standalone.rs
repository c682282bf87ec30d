//! The verbs for whoever has a place and a key, and nothing else: no schedule, no agent, no
//! controller. Whole trees go into a snapshot under their absolute path.

use std::fs::{File, TryLockError};
use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use destinations::{LocalScratch, LocalStore};
use edge::{Clock, Entropy, Monitor, PathError, TreePath};
use model::{ByteCount, DestinationName, Exit, Failure, SnapshotId};
use repository::{
    BackupCounts, BackupOptions, Change, Domain, LiveReport, Replica, RepositoryError, Snapshot,
    Tuning, Unlock, View, back_up,
};
use safefs::{Excludes, PatternError, Root, Users, Walker};
use thiserror::Error;

use crate::browse::OpenError;
use crate::place::{StorePlace, open_place};

/// Below it is a directory for each domain of a local repository (`docs/format.md`, "Names").
const SLOTS: &str = "k";

/// What of a machine goes into one snapshot.
pub struct TreeBackup<'a> {
    /// The files and directories, with everything below them on their file system.
    pub paths: &'a [PathBuf],
    /// Patterns below each of them that are left out.
    pub excludes: &'a [String],
    /// The machine's name, for the snapshot.
    pub host: &'a str,
    /// How hard to compress, and what the backup may use.
    pub tuning: Tuning,
    /// Tells the time.
    pub clock: &'a dyn Clock,
    /// Gives salts.
    pub entropy: &'a dyn Entropy,
    /// Hears of the work and may stop it.
    pub monitor: &'a dyn Monitor,
}

/// What a backup of trees left.
#[derive(Debug)]
pub struct TreeSnapshot {
    /// The snapshot, stored and read back.
    pub id: SnapshotId,
    /// Counts.
    pub counts: BackupCounts,
    /// Bytes stored by this backup.
    pub stored_bytes: ByteCount,
    /// The first objects that failed; `counts.failed` has all.
    pub failures: Vec<Failure>,
    /// The first files whose content changed though nothing says so; `counts.silent_changes` has
    /// all.
    pub silent_changes: Vec<String>,
}

/// Says why trees were not backed up. Nothing was changed that an earlier snapshot needs.
#[derive(Debug, Error)]
pub enum TreeBackupError {
    /// A path cannot be part of a snapshot.
    #[error("cannot back up {path}: give it without '..'", path = path.display())]
    Path {
        /// As it was given.
        path: PathBuf,
        /// The cause.
        #[source]
        source: PathError,
    },
    /// A path is not there.
    #[error("looking at {path}", path = path.display())]
    Absent {
        /// As it was given.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// A pattern cannot be used.
    #[error(transparent)]
    Pattern(#[from] PatternError),
    /// The users of this machine cannot be read.
    #[error("reading the users of this machine")]
    Users(#[source] io::Error),
    /// The repository takes no snapshot.
    #[error(transparent)]
    Repository(#[from] RepositoryError),
}

impl TreeBackupError {
    /// Gives the exit code of a program that ends because of it.
    #[must_use]
    pub fn exit(&self) -> Exit {
        match self {
            Self::Path { .. } | Self::Pattern(_) => Exit::Usage,
            Self::Absent { .. } | Self::Users(_) => Exit::Failed,
            Self::Repository(error) => error.exit(),
        }
    }
}

/// Begins a domain, and the repository where there is none; false when the key or password opens
/// one already. The last directory of a local place is made.
///
/// # Errors
///
/// `OpenError` when the place cannot be written.
pub fn create_domain(
    place: &StorePlace,
    unlock: &Unlock<'_>,
    entropy: &dyn Entropy,
    label: &str,
) -> Result<(Domain, bool), OpenError> {
    if let StorePlace::Local(path) = place {
        make_directory(path).map_err(|source| OpenError::Directory {
            path: path.clone(),
            source,
        })?;
    }
    Ok(Domain::begin(open_place(place)?, unlock, entropy, label)?)
}

/// Gives the domain a cache in a directory of this machine, which is made.
///
/// # Errors
///
/// When the directory cannot be made or read.
pub fn with_cache_at(domain: Domain, directory: &Path) -> Result<Domain, OpenError> {
    let own = directory.join(domain.id().to_string());
    std::fs::create_dir_all(&own).map_err(|source| OpenError::Directory {
        path: own.clone(),
        source,
    })?;
    let store = LocalStore::open(&own).map_err(crate::place::PlaceError::Store)?;
    Ok(domain
        .with_cache(Arc::new(store))
        .with_scratch(Arc::new(LocalScratch::new(&own))))
}

fn make_directory(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    match std::fs::DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        made => made,
    }
}

/// The right to write to a domain by hand: a lock in a local repository, until it is dropped or
/// the process ends. At a bucket the caller sees to it that nobody else writes.
#[derive(Debug)]
pub struct WriteLock {
    _directory: Option<File>,
}

/// Says why the right to write was not given.
#[derive(Debug, Error)]
pub enum LockError {
    /// Somebody else has it.
    #[error("another process writes to these backups")]
    Busy,
    /// It cannot be asked for.
    #[error("locking {path}", path = path.display())]
    Unable {
        /// What was to be locked.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
}

impl WriteLock {
    /// Takes the right at once.
    ///
    /// # Errors
    ///
    /// `Busy`, or `Unable` when the file system gives no locks.
    pub fn take(place: &StorePlace, domain: &Domain) -> Result<Self, LockError> {
        let StorePlace::Local(root) = place else {
            return Ok(Self { _directory: None });
        };
        let own = root.join(SLOTS).join(domain.id().to_string());
        // A key that opens another key's domain has no directory of that name: lock all.
        let path = if own.is_dir() { own } else { root.clone() };
        let unable = |source| LockError::Unable {
            path: path.clone(),
            source,
        };
        let directory = File::open(&path).map_err(unable)?;
        match directory.try_lock() {
            Ok(()) => Ok(Self {
                _directory: Some(directory),
            }),
            Err(TryLockError::WouldBlock) => Err(LockError::Busy),
            Err(TryLockError::Error(error)) => Err(unable(error)),
        }
    }
}

/// Backs up trees into a domain. What cannot be read is in the result; the rest is stored.
///
/// # Errors
///
/// `TreeBackupError` when there is no snapshot: a path is not there, or the place fails.
pub fn back_up_trees(
    domain: Domain,
    trees: &TreeBackup<'_>,
) -> Result<TreeSnapshot, TreeBackupError> {
    let roots = roots(trees.paths, trees.excludes)?;
    let users = Arc::new(Users::load().map_err(TreeBackupError::Users)?);
    let label = domain.label().to_owned();
    let prefixes: Vec<_> = roots.iter().map(|root| root.prefix.clone()).collect();
    let options = BackupOptions {
        schedule: &label,
        host: trees.host,
        run: None,
        // Such a snapshot is restored into a directory; these are what goes back in place.
        roots: &[],
        paths: &prefixes,
        compare_by: &prefixes,
        tuning: trees.tuning,
        clock: trees.clock,
        entropy: trees.entropy,
        monitor: trees.monitor,
    };
    let replica = Replica {
        name: place_name(),
        domain,
    };
    let report = back_up(vec![replica], &options, &mut Walker::new(roots, &users));
    let Some(replica) = report.replicas.into_iter().next() else {
        return Err(RepositoryError::Cancelled.into());
    };
    match (replica.snapshot, replica.error) {
        (Some(id), _) => Ok(TreeSnapshot {
            id,
            counts: report.counts,
            stored_bytes: replica.stored_bytes,
            failures: report.failures,
            silent_changes: report.silent_changes,
        }),
        (None, Some(error)) => Err(error.into()),
        (None, None) => Err(RepositoryError::Cancelled.into()),
    }
}

/// Which trees of this machine to compare with a snapshot.
pub struct LiveTrees<'a> {
    /// The files and directories, with everything below them on their file system.
    pub paths: &'a [PathBuf],
    /// Patterns below each of them that are left out.
    pub excludes: &'a [String],
    /// Where the snapshot keeps them: below it are their absolute paths.
    pub kept_below: &'a TreePath,
}

/// Tells `each` in what trees of this machine differ from a snapshot, until it breaks off.
///
/// # Errors
///
/// `TreeBackupError` when a path is not there, or the snapshot cannot be read.
pub fn diff_trees(
    (view, snapshot): (&View, &Snapshot),
    trees: &LiveTrees<'_>,
    monitor: &dyn Monitor,
    each: &mut dyn FnMut(Change) -> ControlFlow<()>,
) -> Result<LiveReport, TreeBackupError> {
    let mut roots = roots(trees.paths, trees.excludes)?;
    for root in &mut roots {
        root.prefix = trees.kept_below.join(&root.path);
    }
    let parts: Vec<_> = roots.iter().map(|root| root.prefix.clone()).collect();
    let users = Arc::new(Users::load().map_err(TreeBackupError::Users)?);
    let mut walker = Walker::new(roots, &users);
    Ok(view.diff_live((snapshot, &parts), &mut walker, monitor, each)?)
}

#[expect(clippy::expect_used, reason = "a constant that is a name")]
fn place_name() -> DestinationName {
    DestinationName::new("repository").expect("a constant name")
}

/// Makes every path absolute; one that lies within another is part of it.
fn roots(paths: &[PathBuf], excludes: &[String]) -> Result<Vec<Root>, TreeBackupError> {
    let excludes = Arc::new(Excludes::new(excludes)?);
    let mut wanted = Vec::new();
    for path in paths {
        let absent = |source| TreeBackupError::Absent {
            path: path.clone(),
            source,
        };
        let absolute = std::path::absolute(path).map_err(absent)?;
        let tree = TreePath::parse(absolute.as_os_str().as_encoded_bytes()).map_err(|source| {
            TreeBackupError::Path {
                path: path.clone(),
                source,
            }
        })?;
        std::fs::symlink_metadata(&absolute).map_err(absent)?;
        wanted.push(tree);
    }
    wanted.sort();
    wanted.dedup();
    let is_outermost = |path: &&TreePath| {
        let holds = |other: &TreePath| other != *path && path.is_within(other);
        !wanted.iter().any(holds)
    };
    let root = |path: &TreePath| Root {
        path: path.clone(),
        prefix: path.clone(),
        excludes: Arc::clone(&excludes),
    };
    Ok(wanted.iter().filter(is_outermost).map(root).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use edge::Silent;
    use repository::ScheduleKey;
    use testkit::{CountingEntropy, FixedClock};

    fn paths(of: &[&str]) -> Vec<String> {
        let given: Vec<PathBuf> = of.iter().map(PathBuf::from).collect();
        let roots = roots(&given, &[]).unwrap();
        roots.iter().map(|root| root.path.to_string()).collect()
    }

    #[test]
    fn a_path_inside_of_another_is_walked_once() {
        assert_eq!(
            paths(&["/usr/bin", "/usr", "/etc", "/usr/"]),
            ["/etc", "/usr"]
        );
    }

    #[test]
    fn paths_that_are_not_there_or_climb_are_refused() {
        let absent = [PathBuf::from("/nothing/here")];
        assert!(matches!(
            roots(&absent, &[]),
            Err(TreeBackupError::Absent { .. })
        ));
        let climbing = [PathBuf::from("/usr/../etc")];
        let error = roots(&climbing, &[]).err().unwrap();
        assert_eq!(error.exit(), Exit::Usage);
    }

    #[test]
    fn one_process_at_a_time_writes_to_a_domain() {
        let directory = tempfile::tempdir().unwrap();
        let place = StorePlace::Local(directory.path().join("repository"));
        let entropy = CountingEntropy::default();
        let make = |byte| {
            let key = ScheduleKey::from_bytes([byte; 32]);
            create_domain(&place, &Unlock::Key(&key), &entropy, "web1").unwrap()
        };
        let (domain, is_new) = make(1);
        assert!(is_new);
        assert!(!make(1).1, "it is there already");
        let held = WriteLock::take(&place, &domain).unwrap();
        assert!(matches!(
            WriteLock::take(&place, &domain),
            Err(LockError::Busy)
        ));
        let other = WriteLock::take(&place, &make(2).0).unwrap();
        drop((held, other));
        assert!(WriteLock::take(&place, &domain).is_ok());
    }

    #[test]
    fn trees_keep_their_absolute_path() {
        let directory = tempfile::tempdir().unwrap();
        let tree = directory.path().join("tree");
        std::fs::create_dir(&tree).unwrap();
        std::fs::write(tree.join("kept"), "content").unwrap();
        std::fs::write(tree.join("left.out"), "content").unwrap();
        let place = StorePlace::Local(directory.path().join("repository"));
        let entropy = CountingEntropy::default();
        let key = ScheduleKey::from_bytes([1; 32]);
        let (domain, _) = create_domain(&place, &Unlock::Key(&key), &entropy, "web1").unwrap();
        let trees = TreeBackup {
            paths: std::slice::from_ref(&tree),
            excludes: &["*.out".to_owned()],
            host: "web1",
            tuning: Tuning::default(),
            clock: &FixedClock::at_secs(1_700_000_000),
            entropy: &entropy,
            monitor: &Silent,
        };
        let made = back_up_trees(domain.clone(), &trees).unwrap();
        assert_eq!(made.counts.failed, 0);
        let snapshot = domain.snapshot(made.id).unwrap();
        let view = repository::View::open(domain).unwrap();
        let path = TreePath::parse(tree.as_os_str().as_encoded_bytes()).unwrap();
        let listed = view.list(&snapshot, &path).unwrap();
        let names: Vec<_> = listed.iter().map(|entry| entry.path.clone()).collect();
        assert_eq!(names, [path.child(b"kept").unwrap()]);
    }

    #[test]
    fn mail_that_was_read_is_not_read_again() {
        let top = tempfile::tempdir().unwrap();
        let mail = top.path().join("Maildir");
        for name in ["cur", "new", "tmp"] {
            std::fs::create_dir_all(mail.join(name)).unwrap();
        }
        let long_ago = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_600_000_000);
        for name in ["new/1.host", "cur/2.host:2,"] {
            let path = mail.join(name);
            std::fs::write(&path, name.repeat(1000)).unwrap();
            let file = File::options().write(true).open(&path).unwrap();
            file.set_modified(long_ago).unwrap();
        }
        let place = StorePlace::Local(top.path().join("repository"));
        let entropy = CountingEntropy::default();
        let key = ScheduleKey::from_bytes([1; 32]);
        let (domain, _) = create_domain(&place, &Unlock::Key(&key), &entropy, "web1").unwrap();
        let back_up = || {
            let trees = TreeBackup {
                paths: std::slice::from_ref(&mail),
                excludes: &[],
                host: "web1",
                tuning: Tuning::default(),
                clock: &FixedClock::at_secs(1_700_000_000),
                entropy: &entropy,
                monitor: &Silent,
            };
            back_up_trees(domain.clone(), &trees).unwrap().counts
        };
        assert_eq!(back_up().unchanged, 0);
        std::fs::rename(mail.join("new/1.host"), mail.join("cur/1.host:2,S")).unwrap();
        std::fs::rename(mail.join("cur/2.host:2,"), mail.join("cur/2.host:2,RS")).unwrap();
        let counts = back_up();
        assert_eq!((counts.unchanged, counts.read_bytes.get()), (2, 0));
    }
}
