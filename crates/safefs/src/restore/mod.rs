//! Where restored trees go: a private staging directory, then one rename per restored root.
//!
//! The staging directory lies beside the destination (or inside it, when a directory is filled),
//! belongs to the restoring user and has mode 0700, so nobody can race what is built in it. All
//! of it is reached through held descriptors. Dropping the target without [`Target::finish`]
//! publishes nothing and removes the staging, unless a later restore of the same can go on with it
//! ([`RestoreTarget::into_directory_going_on`]).

mod left_over;
mod metadata;
mod remove;
mod sink;
mod stage;
mod write_out;

use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::{Arc, Mutex};

use edge::{Entry, EntryKind, Extent, FileSink, LeftOver, Target, TargetError, TreePath};
use model::escape;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, linkat, mkdirat, mknodat, openat, symlinkat};
use rustix::io::Errno;

use crate::directory::{CAREFUL, Directory, Pool, lock};
use crate::users::Users;

use metadata::Metadata;
use sink::Sink;
pub use stage::Links;
use stage::Stage;
use write_out::WriteOut;

/// Whose files the restored ones become.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owners {
    /// The recorded owner: by name where this server knows the name, else by number.
    Recorded,
    /// The restoring user.
    Restorer,
}

/// What a restore may create beside plain files, directories and links.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// Whose files they become.
    pub owners: Owners,
    /// Keep set-uid and set-gid bits of files; directories always keep theirs.
    pub set_id_bits: bool,
    /// Create character and block devices.
    pub devices: bool,
    /// Set `security.*` and `trusted.*` attributes, file capabilities among them.
    pub privileged_xattrs: bool,
}

impl Policy {
    /// For trees of customers: recorded owners, nothing that gives rights.
    pub const CUSTOMER: Self = Self {
        owners: Owners::Recorded,
        set_id_bits: false,
        devices: false,
        privileged_xattrs: false,
    };
    /// For rebuilding a server: everything as it was.
    pub const COMPLETE: Self = Self {
        owners: Owners::Recorded,
        set_id_bits: true,
        devices: true,
        privileged_xattrs: true,
    };
}

/// One restored root that is now in place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    /// Its absolute path.
    pub destination: TreePath,
    /// Where the previous tree was moved, when there was one.
    pub undo: Option<TreePath>,
}

/// Creates entries of a snapshot on this server.
pub struct RestoreTarget {
    stages: Vec<Stage>,
    /// By [`TreePath::key_below`].
    directories: Mutex<HashMap<Vec<u8>, Arc<Directory>>>,
    unfinished: Mutex<Vec<(Entry, Arc<Directory>)>>,
    metadata: Arc<Metadata>,
    write_out: Arc<WriteOut>,
    published: Vec<Published>,
    /// There may be something already: a restore of the same was cut.
    goes_on: bool,
}

impl RestoreTarget {
    /// Prepares to replace trees where they are.
    ///
    /// `roots` pairs a path in the snapshot with the absolute destination; directories above
    /// these roots are expected and ignored. `id` names staging and undo: `[a-z0-9-]`, unique.
    ///
    /// # Errors
    ///
    /// `TargetError` when a destination's parent cannot be opened or staging cannot be made.
    pub fn in_place(
        id: &str,
        roots: &[(TreePath, TreePath)],
        policy: Policy,
        users: Users,
    ) -> Result<Self, TargetError> {
        let mut target = Self::empty(policy, users);
        let pool = Arc::new(Pool::default());
        for (number, (snapshot, destination)) in roots.iter().enumerate() {
            let stage_id = format!("{id}-{number}");
            let stage = Stage::beside((&stage_id, id), snapshot, destination, &pool)?;
            target.stages.push(stage);
        }
        Ok(target)
    }

    /// Prepares to fill a directory that is empty or does not exist. What lies below `base` in
    /// the snapshot goes there; `base` itself and what is above it are ignored.
    ///
    /// # Errors
    ///
    /// `TargetError` when the directory is not empty, or cannot be made or opened.
    pub fn into_directory(
        directory: &Path,
        base: &TreePath,
        policy: Policy,
        users: Users,
    ) -> Result<Self, TargetError> {
        Self::fill((directory, Links::Followed), base, None, (policy, users))
    }

    /// As [`RestoreTarget::into_directory`] with everything in the snapshot, for a restore that can
    /// be cut and gone on with: `of` says what is restored. A directory that holds what was
    /// restored of the same until it was cut is taken, too.
    ///
    /// # Errors
    ///
    /// As there, and when the directory holds a part of something else, or another restore into it
    /// is under way.
    pub fn into_directory_going_on(
        directory: (&Path, Links),
        of: &str,
        policy: Policy,
        users: Users,
    ) -> Result<Self, TargetError> {
        Self::fill(directory, &TreePath::root(), Some(of), (policy, users))
    }

    /// As [`RestoreTarget::into_directory`], for a directory that a stranger names: no link may be
    /// on the way to it.
    ///
    /// # Errors
    ///
    /// As there, and when a link is on the way.
    pub fn into_plain_directory(
        directory: &Path,
        base: &TreePath,
        policy: Policy,
        users: Users,
    ) -> Result<Self, TargetError> {
        Self::fill((directory, Links::Refused), base, None, (policy, users))
    }

    fn fill(
        directory: (&Path, Links),
        base: &TreePath,
        of: Option<&str>,
        (policy, users): (Policy, Users),
    ) -> Result<Self, TargetError> {
        let mut target = Self::empty(policy, users);
        let (stage, tree, is_found) = Stage::inside(directory, base, of)?;
        target.goes_on = is_found;
        lock(&target.directories).insert(base.key_below(), tree);
        target.stages.push(stage);
        Ok(target)
    }

    fn empty(policy: Policy, users: Users) -> Self {
        Self {
            stages: Vec::new(),
            directories: Mutex::default(),
            unfinished: Mutex::default(),
            metadata: Arc::new(Metadata::new(policy, users)),
            write_out: Arc::default(),
            published: Vec::new(),
            goes_on: false,
        }
    }

    /// Gives the roots that [`Target::finish`] put in place.
    #[must_use]
    pub fn published(&self) -> &[Published] {
        &self.published
    }

    /// How many set-id bits and privileged attributes the policy withheld.
    #[must_use]
    pub fn withheld_count(&self) -> u64 {
        self.metadata.withheld_count()
    }

    /// True when the entry lies above a restored root, or is the base of a filled directory.
    fn is_above(&self, path: &TreePath) -> bool {
        self.stages.iter().any(|stage| stage.is_above(path))
    }

    /// Finds the directory and the name under which an entry is built.
    fn place(&self, path: &TreePath) -> Result<(Arc<Directory>, Vec<u8>), TargetError> {
        if let Some(place) = self.stages.iter().find_map(|stage| stage.root_place(path)) {
            return Ok(place);
        }
        let held = path.split().and_then(|(parent, name)| {
            let directory = lock(&self.directories).get(parent).map(Arc::clone)?;
            Some((directory, name.to_vec()))
        });
        held.ok_or_else(|| {
            let why = "its directory was not restored, or it is outside of what is restored";
            failed("placing", path, io::Error::other(why))
        })
    }

    fn make_directory(
        &self,
        entry: &Entry,
        parent: &Arc<Directory>,
        name: &[u8],
    ) -> io::Result<()> {
        let directory = match mkdirat(parent.open()?, name, Mode::RWXU) {
            Err(Errno::EXIST) if self.goes_on => left_over::directory(parent, name)?,
            made => made
                .map_err(io::Error::from)
                .and_then(|()| parent.own_child(name))?,
        };
        let key = entry.path.key_below();
        lock(&self.directories).insert(key, Arc::clone(&directory));
        lock(&self.unfinished).push((entry.clone(), directory));
        Ok(())
    }

    fn make_special(&self, entry: &Entry, parent: &Arc<Directory>, name: &[u8]) -> io::Result<()> {
        self.clear(parent, name)?;
        let descriptor = parent.open()?;
        let private = Mode::RUSR | Mode::WUSR;
        let (kind, (major, minor)) = match &entry.kind {
            EntryKind::Symlink { target } => {
                symlinkat(target.as_slice(), &descriptor, name)?;
                return self.metadata.apply_to_name(&descriptor, name, entry);
            }
            EntryKind::Fifo => (FileType::Fifo, (0, 0)),
            EntryKind::CharDevice { device } => (FileType::CharacterDevice, *device),
            EntryKind::BlockDevice { device } => (FileType::BlockDevice, *device),
            EntryKind::Directory | EntryKind::File | EntryKind::Stream => {
                return Err(io::Error::other("it has content"));
            }
        };
        if kind != FileType::Fifo && !self.metadata.policy().devices {
            return Err(io::Error::other("this restore creates no devices"));
        }
        let device = rustix::fs::makedev(major, minor);
        mknodat(&descriptor, name, kind, private, device)?;
        self.metadata.apply_to_name(&descriptor, name, entry)
    }

    /// Removes what a restore that was cut left under a name and what is made anew.
    fn clear(&self, parent: &Arc<Directory>, name: &[u8]) -> io::Result<()> {
        if self.goes_on {
            left_over::clear(parent, name)
        } else {
            Ok(())
        }
    }

    /// Opens the file of an entry; says where it ends.
    fn begin_file(
        &self,
        entry: &Entry,
        parent: &Arc<Directory>,
        name: &[u8],
    ) -> io::Result<(OwnedFd, u64)> {
        if self.goes_on
            && let Some(file) = left_over::file(parent, name, entry, OFlags::WRONLY)?
        {
            // It may be longer than it should be.
            return Ok((file, u64::MAX));
        }
        self.clear(parent, name)?;
        let flags = CAREFUL | OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY;
        let held = parent.open()?;
        Ok((openat(held, name, flags, Mode::RUSR | Mode::WUSR)?, 0))
    }

    fn finish_directories(&mut self) -> Vec<TargetError> {
        let mut errors = Vec::new();
        // Parents were made first, so the deepest are at the end.
        for (entry, directory) in lock(&self.unfinished).drain(..).rev() {
            let applied = directory
                .open()
                .and_then(|descriptor| self.metadata.apply_to_descriptor(&descriptor, &entry));
            if let Err(error) = applied {
                errors.push(failed("finishing directory", &entry.path, error));
            }
        }
        errors
    }
}

impl Target for RestoreTarget {
    fn create(&self, entry: &Entry) -> Result<(), TargetError> {
        if self.is_above(&entry.path) {
            return Ok(());
        }
        let (parent, name) = self.place(&entry.path)?;
        let made = if entry.kind == EntryKind::Directory {
            self.make_directory(entry, &parent, &name)
        } else {
            self.make_special(entry, &parent, &name)
        };
        made.map_err(|error| failed("creating", &entry.path, error))
    }

    fn takes_in_order(&self, _: &Entry) -> bool {
        false
    }

    fn goes_on(&self) -> bool {
        self.goes_on
    }

    fn left_over(&self, entry: &Entry) -> Option<Box<dyn LeftOver>> {
        let (parent, name) = self.place(&entry.path).ok()?;
        let file = left_over::file(&parent, &name, entry, OFlags::RDONLY).ok()??;
        Some(Box::new(left_over::LeftFile(file)))
    }

    fn open(
        &self,
        entry: &Entry,
        extents: Option<&[Extent]>,
    ) -> Result<Box<dyn FileSink>, TargetError> {
        let (parent, name) = self.place(&entry.path)?;
        let room_bytes = if extents.is_none() {
            entry.size_bytes
        } else {
            0
        };
        let file = self
            .begin_file(entry, &parent, &name)
            .map_err(|error| failed("creating", &entry.path, error))?;
        let shared = (Arc::clone(&self.metadata), Arc::clone(&self.write_out));
        let sink = Sink::new(file, (parent, name), entry.clone(), shared);
        sink.make_room(room_bytes)
            .map_err(|error| failed("creating", &entry.path, error))?;
        Ok(Box::new(sink))
    }

    fn link(&self, entry: &Entry, first: &TreePath) -> Result<(), TargetError> {
        let (from, from_name) = self.place(first)?;
        let (to, to_name) = self.place(&entry.path)?;
        let link = || -> io::Result<()> {
            self.clear(&to, &to_name)?;
            let (from, to) = (from.open()?, to.open()?);
            Ok(linkat(from, &*from_name, to, &*to_name, AtFlags::empty())?)
        };
        link().map_err(|error| failed("linking", &entry.path, error))
    }

    fn finish(&mut self) -> Vec<TargetError> {
        let mut errors = self.finish_directories();
        lock(&self.directories).clear();
        for mut stage in self.stages.drain(..) {
            match stage.publish() {
                Ok(published) => self.published.push(published),
                Err(error) => errors.push(error),
            }
            if let Err(error) = stage.remove() {
                errors.push(error);
            }
        }
        errors.extend(self.metadata.refusals());
        errors
    }
}

fn failed(operation: &'static str, path: &TreePath, error: io::Error) -> TargetError {
    TargetError {
        operation,
        object: path.to_string(),
        source: Box::new(error),
    }
}

fn failed_at(operation: &'static str, path: &[u8], error: io::Error) -> TargetError {
    TargetError {
        operation,
        object: escape(path),
        source: Box::new(error),
    }
}
