//! `repo`: everything that can be done with a place and a key alone, with neither an agent nor a
//! controller.

mod backup;
mod diff;
mod dump;
mod find;
mod info;
mod init;
mod key;
mod retain;
mod stats;
mod trash;
mod verify;
mod versions;
mod wreck;

use clap::{Args, Subcommand};
use edge::{Clock, Entropy, TreePath};
use model::{Exit, Failure, Instant};
use ops::{Domain, RestoreTo, Snapshot, StorePlace, View, WriteLock};

use crate::browse;
use crate::problem::Problem;
use crate::reach::{Reached, RepoArguments, open_problem_by_hand, repository_problem};
use crate::restore;
use crate::screen::{Screen, Tone, plain, toned};

/// How many failures are shown one by one.
const FAILURES_SHOWN_MAX: usize = 20;

/// What to do with a repository.
#[derive(Debug, Subcommand)]
pub enum RepoVerb {
    /// Begin a repository, and make its key when the key file does not exist
    ///
    /// Without --key-file a password opens it, which is asked for. Whoever loses the key or password
    /// loses the backups.
    Init(init::InitArguments),
    /// Show what a repository is: its format, keys and rights, and whether it is encrypted
    Info(info::InfoArguments),
    /// Show, add, take away and replace keys and passwords
    #[command(subcommand)]
    Key(key::RepoKeyVerb),
    /// Back up files and directories
    Backup(backup::BackupArguments),
    /// Show which snapshots there are
    Snapshots(SnapshotsArguments),
    /// Show what is in a snapshot
    Ls(LsArguments),
    /// Search names, in all snapshots or in one
    Find(find::FindArguments),
    /// Show in what two snapshots differ, or a snapshot and the files as they are now
    Diff(diff::DiffArguments),
    /// Show how one file or directory changed from snapshot to snapshot
    Versions(versions::VersionsArguments),
    /// Restore a snapshot or a part of it into a directory
    Restore(RestoreArguments),
    /// Write one file to standard output, or a directory as an archive
    Dump(dump::DumpArguments),
    /// Let snapshots go, by name or by rules
    Forget(retain::ForgetArguments),
    /// Bring snapshots back that were let go, or show which can be
    Undelete(trash::UndeleteArguments),
    /// Keep a snapshot whatever the rules say, or show which are kept so
    Pin(trash::PinArguments),
    /// Let the rules decide on a snapshot again
    Unpin(trash::UnpinArguments),
    /// Delete what no snapshot needs any more
    Prune(retain::PruneArguments),
    /// Read everything back and say what is damaged
    Verify(verify::VerifyArguments),
    /// Show how much is stored, and what only one snapshot, account or path holds
    Stats(stats::StatsArguments),
}

/// Whose snapshots.
#[derive(Debug, Args)]
pub struct SnapshotsArguments {
    #[command(flatten)]
    repo: RepoArguments,
}

/// What to list.
#[derive(Debug, Args)]
pub struct LsArguments {
    /// "latest", a snapshot's id, or the beginning of it
    #[arg(default_value = "latest")]
    snapshot: String,
    /// Which directory of it, or which file
    path: Option<std::ffi::OsString>,
    /// List everything below the path
    #[arg(long, short)]
    recursive: bool,
    #[command(flatten)]
    repo: RepoArguments,
}

/// What to restore.
///
/// As root everything comes back as it was: owners, set-user-id and set-group-id bits, file
/// capabilities and devices too. Other users get what they may make.
#[derive(Debug, Args)]
pub struct RestoreArguments {
    /// "latest", a snapshot's id, or the beginning of it
    #[arg(default_value = "latest")]
    snapshot: String,
    /// Restore into this directory, which is empty or does not exist, or holds what a restore of the
    /// same left that was cut: what is there is compared by content, and only the rest is fetched
    #[arg(long, value_name = "DIR")]
    to: std::path::PathBuf,
    /// Restore only what lies within this path of the snapshot
    #[arg(long, value_name = "PATH")]
    path: Option<std::ffi::OsString>,
    #[command(flatten)]
    repo: RepoArguments,
}

/// Does what was asked with a repository.
///
/// # Errors
///
/// When it cannot be opened or done.
pub fn repo(verb: &RepoVerb, screen: &mut Screen) -> Result<Exit, Problem> {
    match verb {
        RepoVerb::Init(arguments) => init::init(arguments, screen),
        RepoVerb::Info(arguments) => info::info(arguments, screen),
        RepoVerb::Key(verb) => key::key(verb, screen),
        RepoVerb::Backup(arguments) => backup::backup(arguments, screen),
        RepoVerb::Snapshots(arguments) => {
            let reached = Reached {
                destination: None,
                domain: Ok(arguments.repo.open()?),
            };
            browse::show_reached(vec![reached], screen)
        }
        RepoVerb::Ls(arguments) => ls(arguments, screen),
        RepoVerb::Find(arguments) => find::find(arguments, screen),
        RepoVerb::Diff(arguments) => diff::diff(arguments, screen),
        RepoVerb::Versions(arguments) => versions::versions(arguments, screen),
        RepoVerb::Restore(arguments) => {
            let path = arguments.path.as_ref();
            let path = path.map(|path| browse::tree_path(path.as_encoded_bytes()));
            let to = RestoreTo::CompleteDirectory(arguments.to.clone());
            let part = (arguments.snapshot.as_str(), path.transpose()?);
            restore::into_directory(arguments.repo.open()?, &part, &to, screen)
        }
        RepoVerb::Dump(arguments) => dump::dump(arguments, screen),
        RepoVerb::Forget(arguments) => retain::forget(arguments, screen),
        RepoVerb::Undelete(arguments) => trash::undelete(arguments, screen),
        RepoVerb::Pin(arguments) => trash::pin(arguments, screen),
        RepoVerb::Unpin(arguments) => trash::unpin(arguments, screen),
        RepoVerb::Prune(arguments) => retain::prune(arguments, screen),
        RepoVerb::Verify(arguments) => verify::verify(arguments, screen),
        RepoVerb::Stats(arguments) => stats::stats(arguments, screen),
    }
}

fn ls(arguments: &LsArguments, screen: &mut Screen) -> Result<Exit, Problem> {
    let path = arguments.path.as_ref();
    let path = path.map_or(&b""[..], |path| path.as_encoded_bytes());
    let path = browse::tree_path(path)?;
    let reached = Reached {
        destination: None,
        domain: Ok(arguments.repo.open()?),
    };
    let opened = browse::open(vec![reached], &arguments.snapshot)?;
    browse::show_directory(&opened, &path, arguments.recursive, screen)
}

/// Opens a repository for looking into it.
fn open_for_reading(repo: &RepoArguments) -> Result<View, Problem> {
    View::open(repo.open()?).map_err(|error| repository_problem("cannot load the index", &error))
}

/// Lists the snapshots, oldest first. One that cannot be read is told beside the answer, which
/// then is partial.
fn all_snapshots(view: &View, screen: &Screen) -> Result<(Vec<Snapshot>, Exit), Problem> {
    let list = view.domain().snapshots();
    let list = list.map_err(|error| repository_problem("cannot list the snapshots", &error))?;
    for error in &list.unreadable {
        screen.complain(&repository_problem("cannot read a snapshot", error));
    }
    let exit = if list.unreadable.is_empty() {
        Exit::Done
    } else {
        Exit::Partial
    };
    Ok((list.snapshots, exit))
}

/// Reads a path inside of a snapshot; none is the root.
fn path_argument(path: Option<&std::ffi::OsString>) -> Result<TreePath, Problem> {
    let bytes = path.map_or(&b""[..], |path| path.as_encoded_bytes());
    browse::tree_path(bytes)
}

/// Opens a repository for writing: no other process may do so meanwhile.
fn open_for_writing(repo: &RepoArguments) -> Result<(Domain, WriteLock), Problem> {
    let place = repo.place()?;
    let opener = repo.opener()?;
    let domain = ops::open_domain_with(&place, &opener.unlock()).map_err(|error| {
        let problem = open_problem_by_hand(&error);
        match error.exit() {
            Exit::NoRepository => problem.hint("backstayctl repo init"),
            _ => problem,
        }
    })?;
    let lock = lock(&place, &domain)?;
    Ok((domain, lock))
}

fn lock(place: &StorePlace, domain: &Domain) -> Result<WriteLock, Problem> {
    WriteLock::take(place, domain).map_err(|error| {
        let exit = match error {
            ops::LockError::Busy => Exit::Busy,
            ops::LockError::Unable { .. } => Exit::Failed,
        };
        Problem::new(exit, "cannot write to the backups; nothing was changed").because(&error)
    })
}

fn show_failures(failures: &[Failure], screen: &mut Screen) -> Result<(), Problem> {
    for failure in failures.iter().take(FAILURES_SHOWN_MAX) {
        let text = format!("{}: {}", failure.object, failure.error);
        screen.line(&[
            toned("failed    ", Tone::Bad),
            plain(model::escape(text.as_bytes())),
        ])?;
    }
    if let Some(more @ 1..) = failures.len().checked_sub(FAILURES_SHOWN_MAX) {
        screen.line(&[plain(format!("… and {more} more"))])?;
    }
    Ok(())
}

/// The machine's clock.
#[derive(Debug, Clone, Copy)]
struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Instant {
        crate::time::now()
    }
}

/// The kernel's random numbers.
#[derive(Debug, Clone, Copy)]
struct SystemEntropy;

impl Entropy for SystemEntropy {
    #[expect(
        clippy::panic,
        reason = "what is sealed without entropy would be worse than no backup"
    )]
    fn fill(&self, bytes: &mut [u8]) {
        if let Err(error) = getrandom::fill(bytes) {
            panic!("the kernel gives no random numbers: {error}");
        }
    }
}

/// Gives the machine's name.
fn host_name() -> String {
    let name = rustix::system::uname();
    name.nodename().to_string_lossy().into_owned()
}
