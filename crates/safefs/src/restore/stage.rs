//! The private directory in which one root is built, and its publication by rename.

use std::ffi::OsStr;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use edge::{TargetError, TreePath};
use rustix::fs::{
    AtFlags, FileType, FlockOperation, Mode, OFlags, RenameFlags, fchmod, flock, fremovexattr,
    mkdirat, openat, renameat_with, syncfs, unlinkat,
};
use rustix::io::Errno;
use rustix::process::geteuid;

use super::remove::remove_tree;
use super::{Published, failed_at};
use crate::directory::{CAREFUL, Directory, Pool};
use crate::status;
use crate::walk::{Names, STAGE_PREFIX};

/// The name of the built tree in its staging directory.
const TREE: &[u8] = b"tree";

/// Says what is restored, so that only the same goes on with it.
const OF: &[u8] = b"of";
/// There from when the tree begins to move to its place.
const PUBLISHING: &[u8] = b"publishing";
const OF_BYTES_MAX: usize = 64 * 1024;

/// How many undo trees of one restore may lie in one directory.
const UNDO_COUNT_MAX: usize = 10_000;

/// One restored root under construction.
pub(super) struct Stage {
    snapshot: TreePath,
    destination: TreePath,
    /// The directory that holds the staging directory.
    home: Arc<Directory>,
    stage_name: Vec<u8>,
    stage: Arc<Directory>,
    purpose: Purpose,
    /// By this all is made durable. It is open from the beginning, so that it hears of each failure to write since.
    durable: Arc<OwnedFd>,
    /// Held while this is under way, so that nobody else goes on with it.
    _lock: Option<OwnedFd>,
    is_removed: bool,
}

enum Purpose {
    /// The tree takes the place of `name`; what was there is kept under `undo_name`.
    Replace { name: Vec<u8>, undo_name: String },
    /// What the tree holds moves into the home directory.
    Fill,
}

impl Stage {
    /// Makes staging beside a destination that is to be replaced.
    pub(super) fn beside(
        (stage_id, undo_id): (&str, &str),
        snapshot: &TreePath,
        destination: &TreePath,
        pool: &Arc<Pool>,
    ) -> Result<Self, TargetError> {
        let fail = |error| failed_at("staging beside", destination.to_string().as_bytes(), error);
        let Some((parent, name)) = destination.parent().zip(destination.name()) else {
            return Err(fail(io::Error::other(
                "the root directory is never replaced",
            )));
        };
        let home = Directory::absolute(&parent, pool).map_err(fail)?;
        let purpose = Purpose::Replace {
            name: name.to_vec(),
            undo_name: format!(".backstay-undo-{undo_id}"),
        };
        let stage_name = format!("{STAGE_PREFIX}{stage_id}").into_bytes();
        let durable = home.open().map_err(fail)?;
        let stage = make_private(&home, &stage_name).map_err(fail)?;
        Ok(Self {
            snapshot: snapshot.clone(),
            destination: destination.clone(),
            home,
            stage_name,
            stage,
            purpose,
            durable,
            _lock: None,
            is_removed: false,
        })
    }

    /// Makes staging inside a directory that is to be filled, or finds it there; gives also the
    /// tree's directory, and whether it is one that was found.
    pub(super) fn inside(
        (directory, links): (&Path, Links),
        base: &TreePath,
        of: Option<&str>,
    ) -> Result<(Self, Arc<Directory>, bool), TargetError> {
        let fail = |error| failed_at("staging in", directory.as_os_str().as_bytes(), error);
        let real = make_or_find(directory, links).map_err(fail)?;
        let path = TreePath::parse(real.as_os_str().as_bytes())
            .map_err(|error| fail(io::Error::other(error)))?;
        let home = Directory::absolute(&path, &Arc::new(Pool::default())).map_err(fail)?;
        let durable = home.open().map_err(fail)?;
        let stage_name = format!("{STAGE_PREFIX}to").into_bytes();
        let inner = Inner::find_or_make(&home, &stage_name, of).map_err(fail)?;
        let stage = Self {
            snapshot: base.clone(),
            destination: path,
            home,
            stage_name,
            stage: inner.stage,
            purpose: Purpose::Fill,
            durable,
            _lock: Some(inner.lock),
            is_removed: false,
        };
        Ok((stage, inner.tree, inner.is_found))
    }

    /// True for snapshot directories that this stage has no use for.
    pub(super) fn is_above(&self, path: &TreePath) -> bool {
        let is_root = self.snapshot == *path;
        self.snapshot.is_within(path) && (!is_root || matches!(self.purpose, Purpose::Fill))
    }

    /// The place of the restored root itself, when `path` is that.
    pub(super) fn root_place(&self, path: &TreePath) -> Option<(Arc<Directory>, Vec<u8>)> {
        let is_root = self.snapshot == *path && matches!(self.purpose, Purpose::Replace { .. });
        is_root.then(|| (Arc::clone(&self.stage), TREE.to_vec()))
    }

    /// Puts what was built where it belongs.
    pub(super) fn publish(&mut self) -> Result<Published, TargetError> {
        let result = match &self.purpose {
            Purpose::Replace { name, undo_name } => self.replace(name, undo_name),
            Purpose::Fill => self.fill().map(|()| None),
        };
        let undo = result.map_err(|error| failed_at("publishing", &self.shown(), error))?;
        let beside = |name: String| {
            let parent = self.destination.parent().unwrap_or_default();
            parent.child(name.as_bytes()).ok()
        };
        Ok(Published {
            destination: self.destination.clone(),
            undo: undo.and_then(beside),
        })
    }

    /// Removes the staging directory and what is left in it.
    pub(super) fn remove(&mut self) -> Result<(), TargetError> {
        if self.is_removed {
            return Ok(());
        }
        self.is_removed = true;
        remove_tree(&self.home, &self.stage_name)
            .map_err(|error| failed_at("removing staging of", &self.shown(), error))
    }

    /// True when entries were restored of something that has a name.
    fn holds_something(&self) -> bool {
        let holds = || -> io::Result<bool> {
            if status::of_name(&*self.stage.open()?, OF).is_err() {
                return Ok(false);
            }
            let tree = self.stage.own_child(TREE)?.open()?;
            Ok(Names::read(&tree)?.next().is_some())
        };
        holds().unwrap_or(false)
    }

    fn shown(&self) -> Vec<u8> {
        let mut shown = Vec::new();
        for component in self.destination.components() {
            shown.push(b'/');
            shown.extend_from_slice(component);
        }
        shown
    }

    /// Exchanges tree and destination; gives the name under which the previous tree is kept.
    fn replace(&self, name: &[u8], undo_name: &str) -> io::Result<Option<String>> {
        let (stage, home) = (self.stage.open()?, self.home.open()?);
        syncfs(&self.durable)?;
        match status::of_name(&home, name) {
            Err(Errno::NOENT) => {
                self.move_out(TREE, name)?;
                syncfs(&self.durable)?;
                return Ok(None);
            }
            found => drop(found?),
        }
        let exchanged = renameat_with(&stage, TREE, &home, name, RenameFlags::EXCHANGE);
        let undo = match exchanged {
            Ok(()) => self.keep(&stage, TREE, undo_name)?,
            // The file system cannot exchange: a moment without either, then the new one.
            Err(Errno::INVAL) => {
                let undo = self.keep(&home, name, undo_name)?;
                if let Err(error) = self.move_out(TREE, name) {
                    renameat_with(&home, &*undo, &home, name, RenameFlags::NOREPLACE)?;
                    return Err(error);
                }
                undo
            }
            Err(error) => return Err(error.into()),
        };
        syncfs(&self.durable)?;
        Ok(Some(undo))
    }

    /// Keeps a previous tree under the first free undo name.
    fn keep(
        &self,
        from: &std::os::fd::OwnedFd,
        name: &[u8],
        undo_name: &str,
    ) -> io::Result<String> {
        let home = self.home.open()?;
        for number in 1..=UNDO_COUNT_MAX {
            let undo = match number {
                1 => undo_name.to_owned(),
                number => format!("{undo_name}-{number}"),
            };
            match renameat_with(from, name, &home, &*undo, RenameFlags::NOREPLACE) {
                Err(Errno::EXIST) => {}
                Err(error) => return Err(error.into()),
                Ok(()) => return Ok(undo),
            }
        }
        Err(io::Error::other("too many undo trees lie beside it"))
    }

    fn fill(&self) -> io::Result<()> {
        let tree = self.stage.own_child(TREE)?;
        let held = tree.open()?;
        syncfs(&self.durable)?;
        write_own(&self.stage, PUBLISHING, b"")?;
        for name in Names::read(&held)? {
            move_between(&tree, &name, &self.home, &name)?;
        }
        Ok(syncfs(&self.durable)?)
    }

    fn move_out(&self, from: &[u8], to: &[u8]) -> io::Result<()> {
        move_between(&self.stage, from, &self.home, to)
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        // What lies in a directory that is to be filled can be gone on with.
        if matches!(self.purpose, Purpose::Fill) && !self.is_removed && self.holds_something() {
            return;
        }
        // Whoever drops an unfinished restore reports why; a left-over staging is named like one.
        self.remove().ok();
    }
}

/// The inside of the staging in a directory that is to be filled.
struct Inner {
    stage: Arc<Directory>,
    tree: Arc<Directory>,
    lock: OwnedFd,
    is_found: bool,
}

impl Inner {
    fn find_or_make(home: &Arc<Directory>, name: &[u8], of: Option<&str>) -> io::Result<Self> {
        if let Some(of) = of
            && let Some(found) = Self::find(home, name, of)?
        {
            return Ok(found);
        }
        if let Some(name) = Names::read(&*home.open()?)?.next() {
            return Err(not_empty(&name));
        }
        let stage = make_private(home, name)?;
        let lock = lock_alone(&stage)?;
        if let Some(of) = of {
            write_own(&stage, OF, of.as_bytes())?;
        }
        mkdirat(stage.open()?, TREE, Mode::RWXU)?;
        Ok(Self {
            tree: stage.own_child(TREE)?,
            stage,
            lock,
            is_found: false,
        })
    }

    /// Finds what a restore of the same left that was cut. One that had not begun is removed.
    fn find(home: &Arc<Directory>, name: &[u8], of: &str) -> io::Result<Option<Self>> {
        let held = home.open()?;
        let seen = match status::of_name(&held, name) {
            Err(Errno::NOENT) => return Ok(None),
            seen => seen?,
        };
        let is_own = seen.file_type() == FileType::Directory
            && seen.uid() == geteuid().as_raw()
            && seen.mode() == Mode::RWXU;
        if !is_own {
            return Err(not_empty(name));
        }
        let stage = home.own_child(name)?;
        let lock = lock_alone(&stage)?;
        let inside = stage.open()?;
        if let Err(Errno::NOENT) = status::of_name(&inside, TREE) {
            remove_tree(home, name)?;
            return Ok(None);
        }
        if read_own(&stage, OF)?.as_deref() != Some(of.as_bytes()) {
            return Err(io::Error::other(format!(
                "a restore of something else into it was cut; to give that up, remove {} in it",
                model::escape(name)
            )));
        }
        let tree = stage.own_child(TREE)?;
        let was_publishing = status::of_name(&inside, PUBLISHING).is_ok();
        for other in Names::read(&held)?.filter(|other| other != name) {
            if !was_publishing {
                return Err(not_empty(&other));
            }
            // It is where it was before it was put in place.
            move_between(home, &other, &tree, &other)?;
        }
        if was_publishing {
            unlinkat(&inside, PUBLISHING, AtFlags::empty())?;
        }
        Ok(Some(Self {
            stage,
            tree,
            lock,
            is_found: true,
        }))
    }
}

fn not_empty(name: &[u8]) -> io::Error {
    let shown = model::escape(name);
    io::Error::other(format!("it is not empty: it holds {shown}"))
}

/// Keeps others from the same staging until the descriptor is closed.
fn lock_alone(stage: &Arc<Directory>) -> io::Result<OwnedFd> {
    let flags = CAREFUL | OFlags::DIRECTORY | OFlags::RDONLY;
    let own = openat(stage.open()?, ".", flags, Mode::empty())?;
    match flock(&own, FlockOperation::NonBlockingLockExclusive) {
        Err(Errno::WOULDBLOCK) => Err(io::Error::other("another restore into it is under way")),
        locked => Ok(locked.map(|()| own)?),
    }
}

/// Writes a small file into the staging directory, durably.
fn write_own(stage: &Arc<Directory>, name: &[u8], bytes: &[u8]) -> io::Result<()> {
    let flags = CAREFUL | OFlags::CREATE | OFlags::TRUNC | OFlags::WRONLY;
    let file = openat(stage.open()?, name, flags, Mode::RUSR | Mode::WUSR)?;
    let mut file = std::fs::File::from(file);
    file.write_all(bytes)?;
    file.sync_all()
}

fn read_own(stage: &Arc<Directory>, name: &[u8]) -> io::Result<Option<Vec<u8>>> {
    let file = match openat(stage.open()?, name, CAREFUL | OFlags::RDONLY, Mode::empty()) {
        Err(Errno::NOENT) => return Ok(None),
        file => std::fs::File::from(file?),
    };
    let mut bytes = Vec::new();
    file.take(OF_BYTES_MAX as u64).read_to_end(&mut bytes)?;
    Ok(Some(bytes))
}

/// Moves to a free name. Moving a directory needs the right to write to it, so an own directory
/// that is read-only is made writable for the moment.
fn move_between(
    from: &Arc<Directory>,
    from_name: &[u8],
    to: &Arc<Directory>,
    to_name: &[u8],
) -> io::Result<()> {
    let (source, destination) = (from.open()?, to.open()?);
    let rename = || {
        renameat_with(
            &source,
            from_name,
            &destination,
            to_name,
            RenameFlags::NOREPLACE,
        )
    };
    match rename() {
        Err(Errno::ACCESS) => {
            let seen = status::of_name(&source, from_name)?;
            if seen.file_type() != FileType::Directory {
                return Err(Errno::ACCESS.into());
            }
            let directory = from.own_child(from_name)?.open()?;
            fchmod(&directory, Mode::RWXU)?;
            let renamed = rename();
            fchmod(&directory, seen.mode())?;
            Ok(renamed?)
        }
        renamed => Ok(renamed?),
    }
}

fn make_private(home: &Arc<Directory>, name: &[u8]) -> io::Result<Arc<Directory>> {
    let held = home.open()?;
    mkdirat(&held, name, Mode::RWXU)?;
    let entered = home.own_child(name).and_then(|stage| {
        keep_private(&*stage.open()?)?;
        Ok(stage)
    });
    if entered.is_err() {
        unlinkat(&held, name, AtFlags::REMOVEDIR).ok();
    }
    entered
}

/// Takes away what a default ACL above gives to a directory and to everything below it.
pub(super) fn keep_private(descriptor: &OwnedFd) -> io::Result<()> {
    for acl in ["system.posix_acl_default", "system.posix_acl_access"] {
        match fremovexattr(descriptor, acl) {
            Ok(()) | Err(Errno::NODATA | Errno::OPNOTSUPP) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(fchmod(descriptor, Mode::RWXU)?)
}

/// Whether the way to a directory may lead over links.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Links {
    /// It may: who named it knows where it is.
    Followed,
    /// It may not: the directory must be where its name says.
    Refused,
}

impl Links {
    /// Gives the real place of a path. It is opened without following links later, so that a link
    /// that is put there in between makes it fail.
    fn resolve(self, path: &Path) -> io::Result<PathBuf> {
        let real = path.canonicalize()?;
        if self == Self::Refused && real != path {
            return Err(io::Error::other(format!(
                "a link on the way leads to {}",
                real.display()
            )));
        }
        Ok(real)
    }
}

/// Resolves a directory that a person named, making it when it does not exist.
fn make_or_find(directory: &Path, links: Links) -> io::Result<PathBuf> {
    match links.resolve(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        found => return found,
    }
    let name = directory
        .file_name()
        .ok_or_else(|| io::Error::other("it has no name"))?;
    let parent = match directory.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new(OsStr::new(".")),
    };
    let parent = links.resolve(parent)?;
    let path = TreePath::parse(parent.as_os_str().as_bytes()).map_err(io::Error::other)?;
    let held = Directory::absolute(&path, &Arc::new(Pool::default()))?.open()?;
    mkdirat(held, name.as_bytes(), Mode::RWXU)?;
    Ok(parent.join(name))
}
