//! Which accounts a server has and what is theirs, found anew at each run: a site made today is
//! in tonight's backup.

use std::collections::BTreeMap;

use std::os::unix::ffi::OsStrExt;

use edge::{SourceError, TreePath, compare_by_component};
use safefs::{Excludes, FoundDirectory, Mount, UserRecord, Users, find_directories};
use settings::HostingLayout;

use crate::layout::{HOME, LayoutError, USER};
use crate::mariadb::Database;

/// The top directory of a snapshot for what belongs to no account.
pub(crate) const SERVER: &[u8] = b"server";

/// One site tree.
#[derive(Debug, Clone, PartialEq)]
pub struct SiteRoot {
    /// Its absolute path.
    pub path: TreePath,
    /// Unknown for a path that was named outright.
    mount: Option<Mount>,
}

/// One account, or the server itself.
#[derive(Debug, Clone, PartialEq)]
pub struct Account {
    /// Its directory in a snapshot: `<user>.<uid>`, or `server`.
    pub id: Vec<u8>,
    /// The user's name; empty for the server.
    pub user: Vec<u8>,
    /// Its site trees, sorted by path; none lies within another on the same mount.
    pub sites: Vec<SiteRoot>,
    /// Its databases, sorted by name.
    pub databases: Vec<Database>,
}

impl Account {
    fn new(id: Vec<u8>, user: &[u8]) -> Self {
        Self {
            id,
            user: user.to_vec(),
            sites: Vec::new(),
            databases: Vec::new(),
        }
    }

    /// True when `name` means this account: its user name or its id.
    #[must_use]
    pub fn is_called(&self, name: &[u8]) -> bool {
        self.id == name || (!self.user.is_empty() && self.user == name)
    }
}

/// What a server holds at one moment.
#[derive(Debug, Default)]
pub struct Discovery {
    /// Accounts that have something, by id, and `server`.
    pub accounts: Vec<Account>,
    /// What could not be looked at.
    pub errors: Vec<SourceError>,
}

impl Discovery {
    /// Looks for accounts and site trees, and says whose each of the databases is.
    ///
    /// # Errors
    ///
    /// `LayoutError` when a pattern of the layout cannot be used; what of the server cannot be
    /// read is in `errors`.
    pub fn find(
        layout: &HostingLayout,
        users: &Users,
        databases: Vec<Database>,
    ) -> Result<Self, LayoutError> {
        let mut search = Search::new(layout, users);
        for pattern in &layout.sites {
            search.add_pattern(pattern, layout, users)?;
        }
        for path in &layout.server_paths {
            search.add_server_path(path.as_os_str().as_bytes())?;
        }
        search.add_databases(layout, databases)?;
        Ok(search.finish())
    }
}

struct Search {
    /// By uid; the server has none.
    accounts: BTreeMap<Option<u32>, Account>,
    errors: Vec<SourceError>,
}

impl Search {
    fn new(layout: &HostingLayout, users: &Users) -> Self {
        let mut accounts = BTreeMap::new();
        accounts.insert(None, Account::new(SERVER.to_vec(), b""));
        for record in records(layout, users) {
            let mut id = record.name.clone();
            id.extend_from_slice(format!(".{}", record.uid).as_bytes());
            // Of two names for one uid the first counts, as for the system itself.
            accounts
                .entry(Some(record.uid))
                .or_insert_with(|| Account::new(id, &record.name));
        }
        Self {
            accounts,
            errors: Vec::new(),
        }
    }

    /// Looks for the sites of every account; a pattern that names none goes by their owners.
    fn add_pattern(
        &mut self,
        pattern: &str,
        layout: &HostingLayout,
        users: &Users,
    ) -> Result<(), LayoutError> {
        if !pattern.contains(HOME) && !pattern.contains(USER) {
            for found in self.search(pattern.as_bytes())? {
                let owner = Some(found.uid).filter(|uid| self.accounts.contains_key(&Some(*uid)));
                self.add_site(owner, found);
            }
            return Ok(());
        }
        for record in records(layout, users) {
            let depth = record.home.split(|b| *b == b'/').filter(|p| !p.is_empty());
            // A home such as `/` or `/srv` is a place holder, not a tree of the account.
            let has_home = depth.count() >= 2 && record.home.starts_with(b"/");
            if !has_home && pattern.contains(HOME) {
                continue;
            }
            let filled = fill(pattern.as_bytes(), HOME, &literal(&record.home));
            let filled = fill(&filled, USER, &literal(&record.name));
            for found in self.search(&filled)? {
                self.add_site(Some(record.uid), found);
            }
        }
        Ok(())
    }

    fn add_server_path(&mut self, path: &[u8]) -> Result<(), LayoutError> {
        let parsed = TreePath::parse(path)
            .ok()
            .filter(|_| path.starts_with(b"/"));
        let path = parsed.ok_or_else(|| LayoutError::Relative(model::escape(path)))?;
        if let Some(server) = self.accounts.get_mut(&None) {
            server.sites.push(SiteRoot { path, mount: None });
        }
        Ok(())
    }

    fn search(&mut self, pattern: &[u8]) -> Result<Vec<FoundDirectory>, LayoutError> {
        if !pattern.starts_with(b"/") {
            return Err(LayoutError::Relative(model::escape(pattern)));
        }
        let found = find_directories(pattern).map_err(LayoutError::of(pattern))?;
        self.errors.extend(found.errors);
        Ok(found.directories)
    }

    fn add_site(&mut self, owner: Option<u32>, found: FoundDirectory) {
        if let Some(account) = self.accounts.get_mut(&owner) {
            account.sites.push(SiteRoot {
                path: found.path,
                mount: Some(found.mount),
            });
        }
    }

    fn add_databases(
        &mut self,
        layout: &HostingLayout,
        databases: Vec<Database>,
    ) -> Result<(), LayoutError> {
        let left_out = read(&layout.exclude_databases)?;
        let mut patterns = Vec::new();
        for (uid, account) in self.accounts.iter().filter(|(uid, _)| uid.is_some()) {
            let name = literal(&account.user);
            let filled = layout.databases.iter();
            let filled: Vec<_> = filled.map(|p| fill(p.as_bytes(), USER, &name)).collect();
            patterns.push((account.user.len(), *uid, read(&filled)?));
        }
        for database in databases {
            let name = [database.name.as_slice()];
            if left_out.matches(&name, false) {
                continue;
            }
            let owner = patterns
                .iter()
                .filter(|(_, _, patterns)| patterns.matches(&name, false))
                .max_by_key(|(length, _, _)| *length)
                .and_then(|(_, uid, _)| *uid);
            if owner.is_none() && !layout.unowned_databases {
                continue;
            }
            if let Some(account) = self.accounts.get_mut(&owner) {
                account.databases.push(database);
            }
        }
        Ok(())
    }

    fn finish(mut self) -> Discovery {
        let mut accounts: Vec<Account> = self
            .accounts
            .into_values()
            .map(without_nested_sites)
            .filter(|account| !account.sites.is_empty() || !account.databases.is_empty())
            .collect();
        accounts.sort_by(|a, b| a.id.cmp(&b.id));
        self.errors.sort_by(|a, b| a.object.cmp(&b.object));
        self.errors.dedup_by(|a, b| a.object == b.object);
        Discovery {
            accounts,
            errors: self.errors,
        }
    }
}

/// Gives the users that are accounts.
fn records<'a>(
    layout: &'a HostingLayout,
    users: &'a Users,
) -> impl Iterator<Item = &'a UserRecord> {
    users.records().iter().filter(|record| {
        let excluded = layout
            .exclude_users
            .iter()
            .any(|name| name.as_bytes() == record.name);
        (layout.uid_min..=layout.uid_max).contains(&record.uid) && !excluded
    })
}

pub(crate) fn read<P: AsRef<[u8]>>(patterns: &[P]) -> Result<Excludes, LayoutError> {
    for pattern in patterns {
        Excludes::new(&[pattern]).map_err(LayoutError::of(pattern.as_ref()))?;
    }
    Excludes::new(patterns).map_err(LayoutError::of(b""))
}

/// Puts a text in place of a word.
fn fill(pattern: &[u8], word: &str, text: &[u8]) -> Vec<u8> {
    let word = word.as_bytes();
    let mut filled = Vec::with_capacity(pattern.len());
    let mut rest = pattern;
    while let Some((byte, after)) = rest.split_first() {
        if let Some(behind) = rest.strip_prefix(word) {
            filled.extend_from_slice(text);
            rest = behind;
        } else {
            filled.push(*byte);
            rest = after;
        }
    }
    filled
}

/// Makes a pattern that matches just this text.
fn literal(text: &[u8]) -> Vec<u8> {
    let mut pattern = Vec::with_capacity(text.len());
    for byte in text {
        if matches!(byte, b'*' | b'?' | b'[' | b'\\') {
            pattern.push(b'\\');
        }
        pattern.push(*byte);
    }
    pattern
}

/// Leaves out trees that the walk of another one reaches anyway.
fn without_nested_sites(mut account: Account) -> Account {
    let mut sites = std::mem::take(&mut account.sites);
    sites.sort_by(|a, b| compare_by_component(&a.path, &b.path));
    for site in sites {
        let nested = account.sites.iter().any(|outer| {
            site.path.is_within(&outer.path) && site.mount == outer.mount && site.mount.is_some()
        });
        if !nested {
            account.sites.push(site);
        }
    }
    account.sites.sort_by(|a, b| a.path.cmp(&b.path));
    account.databases.sort_by(|a, b| a.name.cmp(&b.name));
    account
}
