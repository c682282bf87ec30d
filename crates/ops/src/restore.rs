//! Restoring a snapshot: over what is there, or into a directory.

use std::path::PathBuf;

use edge::{Monitor, TargetError, TreePath};
use model::{ByteCount, Failure, escape};
use repository::{RepositoryError, RestoreReport, Snapshot, View, chain};
use safefs::{Links, Owners, Policy, RestoreTarget, Users};
use sources::{LoadService, ServerTarget};
use thiserror::Error;

/// Where a restore goes.
#[derive(Debug, Clone)]
pub enum RestoreTo {
    /// Over what is there; what was there is kept.
    InPlace {
        /// Names staging and what is kept: `[a-z0-9-]`, unique.
        id: String,
        /// The socket of the load service.
        load_socket: PathBuf,
    },
    /// Into a directory that is empty or does not exist, or holds what a restore of the same left
    /// that was cut; dumps as files.
    Directory(PathBuf),
    /// The same for a directory that somebody else named: no link may be on the way to it.
    PlainDirectory(PathBuf),
    /// Into a directory, as root with all that gives rights, too: set-id bits, capabilities,
    /// devices. For trees that the restoring person backed up.
    CompleteDirectory(PathBuf),
}

/// Says why a restore could not begin, or broke off.
#[derive(Debug, Error)]
pub enum RestoreError {
    /// The snapshot cannot be read.
    #[error(transparent)]
    Repository(#[from] RepositoryError),
    /// The target cannot be used.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// The users of this server cannot be read.
    #[error("reading the users of this server")]
    Users(#[source] std::io::Error),
    /// Nothing of what was asked for may be restored here.
    #[error("nothing of the snapshot can be restored in place: {0}")]
    Nothing(String),
}

/// What a restore did.
#[derive(Debug, Default)]
pub struct RestoreOutcome {
    /// Entries restored.
    pub entries: u64,
    /// Bytes of content restored.
    pub bytes: ByteCount,
    /// Files among them of which a restore that was cut had left all content.
    pub kept: u64,
    /// Bytes of content that it had left.
    pub kept_bytes: ByteCount,
    /// Entries that could not be restored.
    pub failed: u64,
    /// The first of them.
    pub failures: Vec<Failure>,
    /// What is in place now, one line each, with where the former state is kept.
    pub published: Vec<String>,
    /// True when it was stopped: trees stay as they were, a directory that was to be filled keeps what it has for a restore of
    /// the same.
    pub is_cancelled: bool,
}

/// Restores a snapshot, or of it what lies within `only`.
///
/// # Errors
///
/// `RestoreError` when it cannot begin; what fails alone is in the outcome.
pub fn restore(
    view: &View,
    snapshot: &Snapshot,
    only: Option<&TreePath>,
    to: &RestoreTo,
    monitor: &dyn Monitor,
) -> Result<RestoreOutcome, RestoreError> {
    let users = Users::load().map_err(RestoreError::Users)?;
    match to {
        RestoreTo::Directory(directory)
        | RestoreTo::PlainDirectory(directory)
        | RestoreTo::CompleteDirectory(directory) => {
            let privileged = rustix::process::geteuid().is_root();
            let policy = match to {
                _ if !privileged => Policy {
                    owners: Owners::Restorer,
                    ..Policy::CUSTOMER
                },
                RestoreTo::CompleteDirectory(_) => Policy::COMPLETE,
                _ => Policy::CUSTOMER,
            };
            let links = match to {
                RestoreTo::PlainDirectory(_) => Links::Refused,
                _ => Links::Followed,
            };
            let paths = [only.cloned().unwrap_or_default()];
            // A restore of the same that was cut is gone on with.
            let of = format!("{} of {}, {}", only_shown(only), snapshot.id, shown(policy));
            let open = RestoreTarget::into_directory_going_on;
            let mut target = open((directory, links), &of, policy, users)?;
            let report = view.restore(snapshot, &paths, &mut target, monitor)?;
            let mut published = vec![directory.display().to_string()];
            published.retain(|_| !report.is_cancelled);
            Ok(outcome(report, published, Vec::new()))
        }
        RestoreTo::InPlace { id, load_socket } => {
            let plan = InPlace::plan(view, snapshot, only, &users)?;
            let files = RestoreTarget::in_place(id, &plan.roots, Policy::CUSTOMER, users)?;
            let load = LoadService::new(load_socket.clone());
            let mut target = ServerTarget::new(files, load, id);
            let report = view.restore(snapshot, &plan.paths, &mut target, monitor);
            let published = published(&target);
            let report = report.or_else(|error| broken_off(error, &published))?;
            Ok(outcome(report, published, plan.refused))
        }
    }
}

/// Makes an outcome of a restore that broke off after something was put in place: databases are
/// loaded one by one, and where their former content is must be told.
fn broken_off(
    error: RepositoryError,
    published: &[String],
) -> Result<RestoreReport, RepositoryError> {
    if published.is_empty() {
        return Err(error);
    }
    Ok(RestoreReport {
        failed: 1,
        failures: vec![Failure {
            object: "everything else".to_owned(),
            error: chain(&error),
            class: model::ErrorClass::RetryLater,
        }],
        ..RestoreReport::default()
    })
}

/// Names what is restored, for whoever finds it cut.
fn only_shown(only: Option<&TreePath>) -> String {
    only.map_or("everything".to_owned(), ToString::to_string)
}

fn shown(policy: Policy) -> &'static str {
    match (policy.owners, policy.set_id_bits) {
        (Owners::Restorer, _) => "without owners",
        (Owners::Recorded, true) => "complete",
        (Owners::Recorded, false) => "without what gives rights",
    }
}

/// What goes where when a snapshot is restored in place.
#[derive(Debug, Default)]
struct InPlace {
    /// Trees: path in the snapshot and on the server.
    roots: Vec<(TreePath, TreePath)>,
    /// Everything to restore, trees and directories of dumps.
    paths: Vec<TreePath>,
    /// Accounts that are not what they were.
    refused: Vec<Failure>,
}

impl InPlace {
    fn plan(
        view: &View,
        snapshot: &Snapshot,
        only: Option<&TreePath>,
        users: &Users,
    ) -> Result<Self, RestoreError> {
        let mut plan = Self::default();
        let wanted = |path: &TreePath| only.is_none_or(|only| path.is_within(only));
        let roots = snapshot.body.roots();
        for account in view.list(snapshot, &TreePath::root())? {
            if let Err(why) = check_account(&account.path, users) {
                plan.refused.push(Failure {
                    object: account.path.to_string(),
                    error: why,
                    class: model::ErrorClass::Never,
                });
                continue;
            }
            let own = roots.iter().filter(|root| root.is_within(&account.path));
            for root in own.filter(|root| wanted(root)) {
                plan.roots.push((root.clone(), root.skip(2)));
                plan.paths.push(root.clone());
            }
            let dumps = account.path.child(b"databases");
            if let Some(dumps) = dumps.ok().filter(|dumps| wanted(dumps))
                && view.entry(snapshot, &dumps)?.is_some()
            {
                plan.paths.push(dumps);
            }
        }
        if plan.paths.is_empty() {
            let why = plan
                .refused
                .first()
                .map_or("it holds no tree and no database", |failure| {
                    failure.error.as_str()
                });
            return Err(RestoreError::Nothing(why.to_owned()));
        }
        Ok(plan)
    }
}

/// An account is named by user and uid. A user that has another uid now, or none, is someone else:
/// the snapshot's files are not theirs.
fn check_account(path: &TreePath, users: &Users) -> Result<(), String> {
    let Some(name) = path.name() else {
        return Ok(());
    };
    if name == b"server" {
        return Ok(());
    }
    let dot = name
        .iter()
        .rposition(|byte| *byte == b'.')
        .unwrap_or(name.len());
    let (user, uid) = name.split_at(dot);
    let uid = std::str::from_utf8(uid.get(1..).unwrap_or_default()).ok();
    let uid = uid.and_then(|uid| uid.parse::<u32>().ok());
    let found = users
        .records()
        .iter()
        .find(|record| record.name == user)
        .map(|record| record.uid);
    match (uid, found) {
        (Some(then), Some(now)) if then == now => Ok(()),
        (_, Some(now)) => Err(format!(
            "the user {} has uid {now} now: restore into a directory instead",
            escape(user)
        )),
        (_, None) => Err(format!(
            "there is no user {} on this server: make it, or restore into a directory instead",
            escape(user)
        )),
    }
}

fn published(target: &ServerTarget) -> Vec<String> {
    let trees = target
        .files()
        .published()
        .iter()
        .map(|tree| match &tree.undo {
            Some(undo) => format!("{} (former tree: {undo})", tree.destination),
            None => tree.destination.to_string(),
        });
    let databases = target.loaded().into_iter().map(|loaded| match loaded.undo {
        Some(undo) => format!(
            "database {} (former content: {})",
            escape(&loaded.database),
            undo.display()
        ),
        None => format!("database {}", escape(&loaded.database)),
    });
    trees.chain(databases).collect()
}

fn outcome(report: RestoreReport, published: Vec<String>, refused: Vec<Failure>) -> RestoreOutcome {
    let mut failures = refused;
    let refused = u64::try_from(failures.len()).unwrap_or(u64::MAX);
    failures.extend(report.failures);
    RestoreOutcome {
        entries: report.entries,
        bytes: report.bytes,
        kept: report.kept,
        kept_bytes: report.kept_bytes,
        failed: report.failed.saturating_add(refused),
        failures,
        published,
        is_cancelled: report.is_cancelled,
    }
}

/// Puts an error and its causes on one line.
#[must_use]
pub fn explain(error: &(dyn std::error::Error + 'static)) -> String {
    chain(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn users() -> Users {
        Users::parse(b"acme:x:1001:1001::/home/acme:/bin/sh\n", b"acme:x:1001:\n")
    }

    fn path(text: &str) -> TreePath {
        TreePath::parse(text.as_bytes()).unwrap()
    }

    #[test]
    fn what_was_loaded_before_a_restore_broke_off_is_told() {
        assert!(broken_off(RepositoryError::Cancelled, &[]).is_err());
        let loaded = ["database shop (former content: /undo/shop.sql)".to_owned()];
        let report = broken_off(RepositoryError::Cancelled, &loaded).unwrap();
        let told = outcome(report, loaded.to_vec(), Vec::new());
        assert_eq!((told.failed, told.published), (1, loaded.to_vec()));
        assert_eq!(told.failures[0].error, "the work was cancelled");
    }

    #[test]
    fn files_go_back_only_to_the_account_they_came_from() {
        assert_eq!(check_account(&path("acme.1001"), &users()), Ok(()));
        assert_eq!(check_account(&path("server"), &users()), Ok(()));
        let reused = check_account(&path("acme.1007"), &users()).unwrap_err();
        assert!(reused.contains("has uid 1001 now"), "{reused}");
        let gone = check_account(&path("globex.1002"), &users()).unwrap_err();
        assert!(gone.contains("no user globex"), "{gone}");
    }
}
