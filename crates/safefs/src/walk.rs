//! The walk over trees of customers, as an [`edge::Source`].

mod listing;
mod scout;

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use edge::{Entry, EntryKind, FileTime, Source, SourceError, SourceItem, TreePath};
use rustix::fs::FileType;

use crate::content::failed;
use crate::directory::{Directory, Pool};
use crate::exclude::Excludes;
use crate::merge::Merged;
use crate::status;
use crate::users::Users;
pub(crate) use listing::Names;
use listing::{Listing, Subdirectory, Tree};
use scout::{OFFERS, Scouts, Visit};

/// Names that an unfinished restore of ours uses for its private staging.
pub(crate) const STAGE_PREFIX: &str = ".backstay-stage-";

/// One tree to walk.
#[derive(Debug, Clone)]
pub struct Root {
    /// The absolute path on the server, of a directory or of a single file. None of its
    /// components may be a symbolic link.
    pub path: TreePath,
    /// Where it goes in the snapshot. Where the ends of both paths agree, the parents in the
    /// snapshot get the metadata of the real ones.
    pub prefix: TreePath,
    /// What is left out, matched below the root.
    pub excludes: Arc<Excludes>,
}

/// A walk over any number of trees.
pub struct Walker {
    entries: Merged<'static>,
    scouts: Arc<Scouts>,
}

impl Walker {
    /// Prepares the walk. Nothing is opened before it is asked for.
    #[must_use]
    pub fn new(roots: Vec<Root>, users: &Arc<Users>) -> Self {
        // One pool for all: the roots of one directory are all entered before the first is walked.
        let pool = Arc::new(Pool::default());
        let scouts = Arc::new(Scouts::default());
        let walk = |root| {
            let tree = Arc::new(Tree::new(root, Arc::clone(users)));
            let walk = RootWalk::new(tree, Arc::clone(&pool), Arc::clone(&scouts));
            Box::new(walk) as Box<dyn Source>
        };
        Self {
            entries: Merged::new(roots.into_iter().map(walk).collect()),
            scouts,
        }
    }

    /// Looks at nothing before it is asked for, with no thread of its own.
    #[must_use]
    pub fn alone(self) -> Self {
        self.scouts.end();
        self
    }
}

impl Source for Walker {
    fn next(&mut self) -> Result<Option<SourceItem>, SourceError> {
        let next = self.entries.next();
        if let Ok(None) = next {
            self.scouts.end();
        }
        next
    }
}

/// The walk over one tree.
struct RootWalk {
    tree: Arc<Tree>,
    pool: Arc<Pool>,
    scouts: Arc<Scouts>,
    /// How many components of the prefix were given, 0 at the start.
    given: usize,
    listing: Option<Listing>,
    stack: Vec<Frame>,
    ready: VecDeque<SourceItem>,
}

/// A directory whose entries were given; what is left to enter.
struct Frame {
    directory: Arc<Directory>,
    path: TreePath,
    /// The next ones, which scouts may look at.
    offered: VecDeque<Arc<Visit>>,
    left: std::vec::IntoIter<Subdirectory>,
}

impl Frame {
    fn of(listing: Listing) -> Self {
        Self {
            directory: listing.directory,
            path: listing.path,
            offered: VecDeque::new(),
            left: listing.subdirectories.into_iter(),
        }
    }

    /// Gives the directory to enter next, and offers some that follow.
    fn next(&mut self, tree: &Arc<Tree>, scouts: &Scouts) -> Option<Arc<Visit>> {
        let next = match self.offered.pop_front() {
            Some(next) => next,
            None => self.next_left(tree)?,
        };
        let room = OFFERS.saturating_sub(self.offered.len());
        let fresh: Vec<_> = (0..room).map_while(|_| self.next_left(tree)).collect();
        scouts.offer(&fresh);
        self.offered.extend(fresh);
        Some(next)
    }

    fn next_left(&mut self, tree: &Arc<Tree>) -> Option<Arc<Visit>> {
        self.left.by_ref().find_map(|below| {
            let path = self.path.child(&below.name).ok()?;
            Some(Arc::new(Visit::new(tree, &self.directory, below, path)))
        })
    }
}

impl RootWalk {
    fn new(tree: Arc<Tree>, pool: Arc<Pool>, scouts: Arc<Scouts>) -> Self {
        Self {
            tree,
            pool,
            scouts,
            given: 0,
            listing: None,
            stack: Vec::new(),
            ready: VecDeque::new(),
        }
    }

    /// Gives the next parent of the root, or the root itself, which then is entered.
    fn descend_prefix(&mut self) {
        self.given += 1;
        let prefix = &self.tree.root.prefix;
        let missing = prefix.depth().saturating_sub(self.given);
        if missing == 0 {
            return self.give_root();
        }
        let Ok(path) = TreePath::new(prefix.components().take(self.given)) else {
            return;
        };
        let entry = self
            .real_parent(missing)
            .and_then(|real| self.parent_entry(&path, &real))
            .unwrap_or_else(|| synthetic(path, &self.tree.users));
        self.ready.push_back(SourceItem::Entry(entry, None));
    }

    /// The real directory `missing` levels above the root, when the prefix has its path, too.
    fn real_parent(&self, missing: usize) -> Option<TreePath> {
        let (real, prefix) = (
            self.tree.root.path.components(),
            self.tree.root.prefix.components(),
        );
        let alike = real.clone().rev().zip(prefix.rev());
        let alike = alike.take_while(|(a, b)| a == b).count();
        if alike <= missing {
            return None;
        }
        let left = real.clone().count().checked_sub(missing)?;
        TreePath::new(real.take(left)).ok()
    }

    fn parent_entry(&self, path: &TreePath, real: &TreePath) -> Option<Entry> {
        let directory = Directory::absolute(real, &self.pool).ok()?;
        let descriptor = directory.open().ok()?;
        let status = status::of_descriptor(&descriptor).ok()?;
        let mut entry = status.entry(path.clone(), EntryKind::Directory, &self.tree.users);
        entry.xattrs = status::xattrs_of_descriptor(&descriptor).ok()?;
        Some(entry)
    }

    fn give_root(&mut self) {
        let path = self.tree.root.path.clone();
        let given = match path.parent().zip(path.name()) {
            Some((parent, name)) => self.give_named_root(&parent, name),
            None => Directory::absolute(&path, &self.pool).map(Some),
        };
        match given {
            Ok(Some(directory)) => self.enter_root(directory),
            Ok(None) => {}
            Err(error) => {
                let error = failed("opening", &path.to_string(), error);
                self.ready.push_back(SourceItem::Failed(error));
            }
        }
    }

    /// Gives the entry of a root that is not a directory, or the directory to enter.
    fn give_named_root(
        &mut self,
        parent: &TreePath,
        name: &[u8],
    ) -> io::Result<Option<Arc<Directory>>> {
        let parent = Directory::absolute(parent, &self.pool)?;
        let descriptor = parent.open()?;
        let status = status::of_name(&descriptor, name)?;
        if status.file_type() == FileType::Directory {
            return Directory::absolute(&self.tree.root.path, &self.pool).map(Some);
        }
        let prefix = self.tree.root.prefix.clone();
        let seen = (name, prefix, status);
        self.tree.give(&parent, &descriptor, seen, &mut self.ready);
        Ok(None)
    }

    fn enter_root(&mut self, directory: Arc<Directory>) {
        let prefix = self.tree.root.prefix.clone();
        let object = self.tree.object(&prefix);
        let described = directory.open().and_then(|descriptor| {
            let status = status::of_descriptor(&descriptor)?;
            let mut entry = status.entry(prefix.clone(), EntryKind::Directory, &self.tree.users);
            entry.xattrs = status::xattrs_of_descriptor(&descriptor)?;
            Ok(entry)
        });
        match described {
            Ok(entry) if prefix.name().is_some() => {
                self.ready.push_back(SourceItem::Entry(entry, None));
            }
            Ok(_) => {}
            Err(error) => {
                let error = failed("opening", &object, error);
                self.ready.push_back(SourceItem::Failed(error));
            }
        }
        self.listing = Some(Listing::of(&self.tree, directory, prefix));
    }

    /// Enters the next subdirectory, or leaves a directory; false at the end of the walk.
    fn go_on(&mut self) -> bool {
        let Some(frame) = self.stack.last_mut() else {
            return false;
        };
        let Some(visit) = frame.next(&self.tree, &self.scouts) else {
            drop(self.stack.pop());
            return true;
        };
        match self.scouts.take(&visit) {
            Ok(listing) => self.listing = Some(listing),
            Err(error) => self.ready.push_back(SourceItem::Failed(error)),
        }
        true
    }
}

impl Source for RootWalk {
    fn next(&mut self) -> Result<Option<SourceItem>, SourceError> {
        loop {
            if let Some(item) = self.ready.pop_front() {
                return Ok(Some(item));
            }
            if self.given < self.tree.root.prefix.depth().max(1) {
                self.descend_prefix();
            } else if let Some(mut listing) = self.listing.take() {
                match listing.next(&self.tree) {
                    Some(item) => {
                        self.listing = Some(listing);
                        return Ok(Some(item));
                    }
                    None => self.stack.push(Frame::of(listing)),
                }
            } else if !self.go_on() {
                return Ok(None);
            }
        }
    }
}

/// A directory that only the snapshot has.
pub(crate) fn synthetic(path: TreePath, users: &Users) -> Entry {
    Entry {
        path,
        kind: EntryKind::Directory,
        mode: 0o755,
        owner: users.owner(0, 0),
        modified: FileTime::default(),
        changed: FileTime::default(),
        size_bytes: 0,
        inode: 0,
        device: 0,
        link_count: 1,
        xattrs: Vec::new(),
    }
}
