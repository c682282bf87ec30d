//! Everything that one run backs up, as one source.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use edge::{
    Entry, EntryKind, FileTime, Opener, Owner, PathError, Source, SourceError, SourceItem, TreePath,
};
use model::{ErrorClass, Scope, escape};
use safefs::{Excludes, Merged, Root, Users, Walker};
use settings::{Accounts, HostingLayout};

use crate::accounts::{Account, Discovery, read};
use crate::layout::LayoutError;
use crate::mariadb::DumpService;
use crate::name::encode_name;

/// Where MariaDB keeps its databases unless told otherwise.
const DATA: &str = "/var/lib/mysql";

/// What of a server one run takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selection {
    /// Site trees, databases or both.
    pub scope: Scope,
    /// Accounts by user name or by id, `server` among them; all, and the server, by default.
    pub accounts: Accounts,
    /// Patterns below each site tree that are left out.
    pub excludes: Vec<String>,
    /// The socket of `backstay-dump`, usually `/run/backstay/dump.sock`.
    pub dump_socket: PathBuf,
    /// The time of dumps.
    pub taken_at: FileTime,
}

/// The source of one run.
pub struct RunSource {
    accounts: Vec<Account>,
    errors: std::vec::IntoIter<SourceError>,
    notes: Vec<String>,
    entries: Merged<'static>,
}

impl RunSource {
    /// Finds what is to be backed up. Files and dumps are opened when they are asked for.
    ///
    /// # Errors
    ///
    /// `LayoutError` when layout or selection cannot be used. What of the server cannot be read
    /// comes as [`SourceItem::Failed`].
    pub fn open(
        layout: &HostingLayout,
        selection: &Selection,
        users: Users,
    ) -> Result<Self, LayoutError> {
        let excludes = Arc::new(read(&selection.excludes)?);
        let mut errors = Vec::new();
        let mut notes = Vec::new();
        let has_databases = match (&layout.mariadb_socket, selection.scope) {
            (None, _) | (_, Scope::Web) => false,
            // Whoever asks for databases alone, or names a socket, has a server.
            (Some(_), Scope::Db) => true,
            (Some(socket), Scope::Full) => {
                let usual = HostingLayout::default().mariadb_socket;
                let has_server = Some(socket) != usual.as_ref() || is_installed(socket, DATA);
                if !has_server {
                    notes.push(format!(
                        "no databases: there is no MariaDB server here ({} does not exist)",
                        escape(socket.as_os_str().as_encoded_bytes())
                    ));
                }
                has_server
            }
        };
        let dumps = has_databases.then(|| DumpService::new(selection.dump_socket.clone()));
        let listed = dumps
            .as_ref()
            .map_or_else(|| Ok(Vec::new()), DumpService::list);
        let databases = listed.unwrap_or_else(|error| {
            errors.push(error);
            Vec::new()
        });
        let mut discovery = Discovery::find(layout, &users, databases)?;
        if selection.scope.has_web() {
            errors.append(&mut discovery.errors);
        } else {
            discovery
                .accounts
                .iter_mut()
                .for_each(|account| account.sites.clear());
        }
        let accounts = selected(discovery.accounts, selection, &mut errors);
        let users = Arc::new(users);
        let mut sources: Vec<Box<dyn Source>> = Vec::new();
        match site_roots(&accounts, &excludes) {
            Ok(roots) => sources.push(Box::new(Walker::new(roots, &users))),
            Err(error) => errors.push(unnameable(error)),
        }
        if let Some(service) = dumps {
            match DumpSource::new(service, &accounts, (selection.taken_at, &users)) {
                Ok(dumps) => sources.push(Box::new(dumps)),
                Err(error) => errors.push(unnameable(error)),
            }
        }
        Ok(Self {
            accounts,
            errors: errors.into_iter(),
            notes,
            entries: Merged::new(sources),
        })
    }

    /// Gives what a reader of the run's log should know; nothing of it is a failure.
    #[must_use]
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// True when there is nothing to back up, and no failure that says why.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let is_bare = |account: &Account| account.sites.is_empty() && account.databases.is_empty();
        self.errors.as_slice().is_empty() && self.accounts.iter().all(is_bare)
    }

    /// Gives the accounts that this run takes, with their sites and databases.
    #[must_use]
    pub fn accounts(&self) -> &[Account] {
        &self.accounts
    }
}

impl Source for RunSource {
    fn next(&mut self) -> Result<Option<SourceItem>, SourceError> {
        match self.errors.next() {
            Some(error) => Ok(Some(SourceItem::Failed(error))),
            None => self.entries.next(),
        }
    }
}

/// Tells whether a database server is installed, though it may be stopped: then its socket is gone,
/// but not the directory of the socket, which systemd makes at each boot, nor that of its data.
/// What cannot be looked at counts as there.
fn is_installed(socket: &Path, data: &str) -> bool {
    let is_there = |path: &Path| path.try_exists().unwrap_or(true);
    socket.parent().is_none_or(is_there) || is_there(Path::new(data))
}

/// Keeps the accounts that were asked for; one that is not there is an error of its own.
fn selected(
    accounts: Vec<Account>,
    selection: &Selection,
    errors: &mut Vec<SourceError>,
) -> Vec<Account> {
    let Accounts::Only(wanted) = &selection.accounts else {
        return accounts;
    };
    for name in wanted {
        if !accounts
            .iter()
            .any(|account| account.is_called(name.as_bytes()))
        {
            errors.push(SourceError {
                operation: "finding account",
                object: escape(name.as_bytes()),
                class: ErrorClass::Never,
                source: "no account of this name has sites or databases".into(),
            });
        }
    }
    let is_wanted =
        |account: &Account| wanted.iter().any(|name| account.is_called(name.as_bytes()));
    accounts.into_iter().filter(is_wanted).collect()
}

fn site_roots(accounts: &[Account], excludes: &Arc<Excludes>) -> Result<Vec<Root>, PathError> {
    let mut roots = Vec::new();
    for account in accounts {
        for site in &account.sites {
            let files = TreePath::new([&account.id[..], b"files"])?;
            roots.push(Root {
                prefix: files.join(&site.path),
                path: site.path.clone(),
                excludes: Arc::clone(excludes),
            });
        }
    }
    Ok(roots)
}

fn unnameable(error: PathError) -> SourceError {
    SourceError {
        operation: "naming",
        object: "an account in the snapshot".to_owned(),
        class: ErrorClass::Never,
        source: Box::new(error),
    }
}

/// The dumps of all databases, with the directories above them.
struct DumpSource {
    service: DumpService,
    entries: std::collections::btree_map::IntoIter<TreePath, Option<Vec<u8>>>,
    taken_at: FileTime,
    owner: Arc<Owner>,
}

impl DumpSource {
    fn new(
        service: DumpService,
        accounts: &[Account],
        (taken_at, users): (FileTime, &Users),
    ) -> Result<Self, PathError> {
        let mut entries = BTreeMap::new();
        for account in accounts
            .iter()
            .filter(|account| !account.databases.is_empty())
        {
            let mut path = TreePath::root();
            for part in [account.id.as_slice(), b"databases", b"mariadb"] {
                path = path.child(part)?;
                entries.insert(path.clone(), None);
            }
            for database in &account.databases {
                let file = format!("{}.sql", encode_name(&database.name));
                let dump = path.child(file.as_bytes())?;
                entries.insert(dump, Some(database.name.clone()));
            }
        }
        Ok(Self {
            service,
            entries: entries.into_iter(),
            taken_at,
            owner: users.owner(0, 0),
        })
    }

    fn entry(&self, path: TreePath, kind: EntryKind) -> Entry {
        // Directories stay what they were, so that they cost nothing in the next snapshot.
        let modified = match kind {
            EntryKind::Stream => self.taken_at,
            _ => FileTime::default(),
        };
        Entry {
            path,
            mode: if kind == EntryKind::Stream {
                0o600
            } else {
                0o755
            },
            kind,
            owner: self.owner.clone(),
            modified,
            changed: FileTime::default(),
            size_bytes: 0,
            inode: 0,
            device: 0,
            link_count: 1,
            xattrs: Vec::new(),
        }
    }
}

impl Source for DumpSource {
    fn next(&mut self) -> Result<Option<SourceItem>, SourceError> {
        let Some((path, database)) = self.entries.next() else {
            return Ok(None);
        };
        let Some(database) = database else {
            let entry = self.entry(path, EntryKind::Directory);
            return Ok(Some(SourceItem::Entry(entry, None)));
        };
        let entry = self.entry(path, EntryKind::Stream);
        let (service, listed) = (self.service.clone(), entry.clone());
        let opener: Opener = Box::new(move || Ok((listed.clone(), service.open(&database)?)));
        Ok(Some(SourceItem::Entry(entry, Some(opener))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_server_without_a_trace_of_mariadb_has_none() {
        let top = tempfile::tempdir().unwrap();
        let data = top.path().join("lib/mysql");
        let socket = top.path().join("run/mysqld/mysqld.sock");
        let found = || is_installed(&socket, data.to_str().unwrap());
        assert!(!found());
        std::fs::create_dir_all(&data).unwrap();
        assert!(found(), "stopped, and its directory below /run was removed");
        std::fs::remove_dir(&data).unwrap();
        std::fs::create_dir_all(socket.parent().unwrap()).unwrap();
        assert!(found(), "stopped");
    }
}
