//! The walk over trees of customers, as an [`edge::Source`].

use std::collections::VecDeque;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use edge::{Entry, EntryKind, FileTime, Opener, Source, SourceError, SourceItem, TreePath, XAttr};
use rustix::fs::{FileType, RawDir, SeekFrom, readlinkat, seek};
use rustix::io::Errno;

use crate::content::{Naming, Place, failed};
use crate::directory::{Directory, Pool};
use crate::exclude::Excludes;
use crate::merge::Merged;
use crate::status::{self, Identity, Status};
use crate::users::Users;

/// Names that an unfinished restore of ours uses for its private staging.
pub(crate) const STAGE_PREFIX: &str = ".backstay-stage-";

/// Most bytes of names in one directory; a longer one is reported and left out.
const NAMES_BYTES_MAX: usize = 1 << 32;

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
pub struct Walker(Merged<'static>);

impl Walker {
    /// Prepares the walk. Nothing is opened before it is asked for.
    #[must_use]
    pub fn new(roots: Vec<Root>, users: &Arc<Users>) -> Self {
        // One pool for all: the roots of one directory are all entered before the first is walked.
        let pool = Arc::new(Pool::default());
        let walk = |root| {
            let walk = RootWalk::new(root, Arc::clone(users), Arc::clone(&pool));
            Box::new(walk) as Box<dyn Source>
        };
        Self(Merged::new(roots.into_iter().map(walk).collect()))
    }
}

impl Source for Walker {
    fn next(&mut self) -> Result<Option<SourceItem>, SourceError> {
        self.0.next()
    }
}

/// The walk over one tree.
struct RootWalk {
    root: Root,
    naming: Arc<Naming>,
    users: Arc<Users>,
    pool: Arc<Pool>,
    /// How many components of the prefix were given, 0 at the start.
    given: usize,
    listing: Option<Listing>,
    stack: Vec<Frame>,
    ready: VecDeque<SourceItem>,
}

/// A directory whose entries are being given.
struct Listing {
    directory: Arc<Directory>,
    path: TreePath,
    names: Names,
    subdirectories: Vec<Subdirectory>,
}

/// A directory whose entries were given; what is left to enter.
struct Frame {
    directory: Arc<Directory>,
    path: TreePath,
    left: std::vec::IntoIter<Subdirectory>,
}

struct Subdirectory {
    name: Vec<u8>,
    identity: Identity,
}

impl RootWalk {
    fn new(root: Root, users: Arc<Users>, pool: Arc<Pool>) -> Self {
        let naming = Arc::new(Naming {
            real: root.path.clone(),
            prefix: root.prefix.clone(),
        });
        Self {
            root,
            naming,
            users,
            pool,
            given: 0,
            listing: None,
            stack: Vec::new(),
            ready: VecDeque::new(),
        }
    }

    /// Gives the next parent of the root, or the root itself, which then is entered.
    fn descend_prefix(&mut self) {
        self.given += 1;
        let prefix = &self.root.prefix;
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
            .unwrap_or_else(|| synthetic(path, &self.users));
        self.ready.push_back(SourceItem::Entry(entry, None));
    }

    /// The real directory `missing` levels above the root, when the prefix has its path, too.
    fn real_parent(&self, missing: usize) -> Option<TreePath> {
        let (real, prefix) = (self.root.path.components(), self.root.prefix.components());
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
        let mut entry = status.entry(path.clone(), EntryKind::Directory, &self.users);
        entry.xattrs = status::xattrs_of_descriptor(&descriptor).ok()?;
        Some(entry)
    }

    fn give_root(&mut self) {
        let path = self.root.path.clone();
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
            return Directory::absolute(&self.root.path, &self.pool).map(Some);
        }
        let prefix = self.root.prefix.clone();
        self.give(&parent, &descriptor, (name, prefix, status));
        Ok(None)
    }

    fn enter_root(&mut self, directory: Arc<Directory>) {
        let prefix = self.root.prefix.clone();
        let object = self.object(&prefix);
        let described = directory.open().and_then(|descriptor| {
            let status = status::of_descriptor(&descriptor)?;
            let mut entry = status.entry(prefix.clone(), EntryKind::Directory, &self.users);
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
        self.list(directory, prefix);
    }

    /// Reads the names of a directory, whose entries come next.
    fn list(&mut self, directory: Arc<Directory>, path: TreePath) {
        let names = directory
            .open()
            .and_then(|descriptor| Names::read(&descriptor));
        let names = names.unwrap_or_else(|error| {
            let error = failed("listing", &self.object(&path), error);
            self.ready.push_back(SourceItem::Failed(error));
            Names::default()
        });
        self.listing = Some(Listing {
            directory,
            path,
            names,
            subdirectories: Vec::new(),
        });
    }

    /// Gives the next entry of the directory being listed; false when there are no more.
    fn list_next(&mut self, listing: &mut Listing) -> bool {
        let Some(name) = listing.names.next() else {
            return false;
        };
        let Ok(path) = listing.path.child(&name) else {
            return true;
        };
        let seen = listing.directory.open().and_then(|descriptor| {
            let status = status::of_name(&descriptor, &name)?;
            Ok((descriptor, status))
        });
        let (descriptor, status) = match seen {
            Ok(seen) => seen,
            Err(error) => {
                let error = failed("looking at", &self.object(&path), error);
                self.ready.push_back(SourceItem::Failed(error));
                return true;
            }
        };
        let is_directory = status.file_type() == FileType::Directory;
        if self.is_excluded(&path, &name, is_directory) {
            return true;
        }
        let identity = status.identity();
        let same_mount = identity.same_mount(listing.directory.identity());
        self.give(&listing.directory, &descriptor, (&name, path, status));
        if is_directory && same_mount {
            listing.subdirectories.push(Subdirectory { name, identity });
        }
        true
    }

    fn is_excluded(&self, path: &TreePath, name: &[u8], is_directory: bool) -> bool {
        if name.starts_with(STAGE_PREFIX.as_bytes()) {
            return true;
        }
        if self.root.excludes.is_empty() {
            return false;
        }
        let below: Vec<&[u8]> = path.components().skip(self.root.prefix.depth()).collect();
        self.root.excludes.matches(&below, is_directory)
    }

    /// Gives one entry that was seen in a held directory.
    fn give(
        &mut self,
        directory: &Arc<Directory>,
        descriptor: &OwnedFd,
        (name, path, status): (&[u8], TreePath, Status),
    ) {
        let kind = match kind_of(descriptor, name, &status) {
            Ok(Some(kind)) => kind,
            Ok(None) => return,
            Err(error) => {
                let error = failed("reading link", &self.object(&path), error.into());
                return self.ready.push_back(SourceItem::Failed(error));
            }
        };
        let opener = (kind == EntryKind::File).then(|| {
            let place = Place {
                directory: Arc::clone(directory),
                name: name.to_vec(),
                path: path.clone(),
                naming: Arc::clone(&self.naming),
                users: Arc::clone(&self.users),
            };
            Box::new(move || place.open()) as Opener
        });
        let mut entry = status.entry(path, kind, &self.users);
        // Those of a file come with its content.
        if opener.is_none() {
            match attributes(descriptor, name) {
                Ok(xattrs) => entry.xattrs = xattrs,
                Err(error) => {
                    let error = failed("reading attributes of", &self.object(&entry.path), error);
                    self.ready.push_back(SourceItem::Failed(error));
                }
            }
        }
        self.ready.push_back(SourceItem::Entry(entry, opener));
    }

    /// Enters the next subdirectory, or leaves a directory; false at the end of the walk.
    fn go_on(&mut self) -> bool {
        let Some(frame) = self.stack.last_mut() else {
            return false;
        };
        let Some(subdirectory) = frame.left.next() else {
            drop(self.stack.pop());
            return true;
        };
        let Ok(path) = frame.path.child(&subdirectory.name) else {
            return true;
        };
        match frame
            .directory
            .child(&subdirectory.name, subdirectory.identity)
        {
            Ok(directory) => self.list(directory, path),
            Err(error) => {
                let error = failed("entering", &self.object(&path), error);
                self.ready.push_back(SourceItem::Failed(error));
            }
        }
        true
    }

    fn object(&self, path: &TreePath) -> String {
        self.naming.object(path)
    }
}

impl Source for RootWalk {
    fn next(&mut self) -> Result<Option<SourceItem>, SourceError> {
        loop {
            if let Some(item) = self.ready.pop_front() {
                return Ok(Some(item));
            }
            if self.given < self.root.prefix.depth().max(1) {
                self.descend_prefix();
            } else if let Some(mut listing) = self.listing.take() {
                if self.list_next(&mut listing) {
                    self.listing = Some(listing);
                } else {
                    self.stack.push(Frame {
                        directory: listing.directory,
                        path: listing.path,
                        left: listing.subdirectories.into_iter(),
                    });
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

fn attributes(directory: &OwnedFd, name: &[u8]) -> io::Result<Vec<XAttr>> {
    match status::xattrs_of_name(directory, name) {
        // Gone since it was seen: its opener, or the entering of it, says so.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        read => read,
    }
}

/// Says what kind of entry it is; `None` for sockets and what Linux may invent.
fn kind_of(directory: impl AsFd, name: &[u8], status: &Status) -> Result<Option<EntryKind>, Errno> {
    let device = status.device_number();
    Ok(Some(match status.file_type() {
        FileType::Directory => EntryKind::Directory,
        FileType::RegularFile => EntryKind::File,
        FileType::Symlink => EntryKind::Symlink {
            target: readlinkat(directory, name, Vec::new())?.into_bytes(),
        },
        FileType::Fifo => EntryKind::Fifo,
        FileType::CharacterDevice => EntryKind::CharDevice { device },
        FileType::BlockDevice => EntryKind::BlockDevice { device },
        FileType::Socket | FileType::Unknown => return Ok(None),
    }))
}

/// The sorted names of one directory, packed one behind the other.
#[derive(Default)]
pub(crate) struct Names {
    bytes: Vec<u8>,
    spans: std::vec::IntoIter<(usize, usize)>,
}

impl Names {
    /// Reads the names from the start.
    pub(crate) fn read(descriptor: &OwnedFd) -> io::Result<Self> {
        seek(descriptor, SeekFrom::Start(0))?;
        let mut buffer = vec![MaybeUninit::uninit(); 32 * 1024];
        let mut entries = RawDir::new(descriptor, &mut buffer);
        let mut bytes: Vec<u8> = Vec::new();
        let mut spans = Vec::new();
        while let Some(entry) = entries.next() {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if matches!(name, b"." | b"..") {
                continue;
            }
            if bytes.len() > NAMES_BYTES_MAX {
                return Err(io::Error::other("its names are longer than 4 GiB"));
            }
            spans.push((bytes.len(), bytes.len() + name.len()));
            bytes.extend_from_slice(name);
        }
        spans.sort_unstable_by(|a: &(usize, usize), b| {
            bytes.get(a.0..a.1).cmp(&bytes.get(b.0..b.1))
        });
        Ok(Self {
            spans: spans.into_iter(),
            bytes,
        })
    }
}

impl Iterator for Names {
    type Item = Vec<u8>;

    fn next(&mut self) -> Option<Vec<u8>> {
        let (start, end) = self.spans.next()?;
        self.bytes.get(start..end).map(<[u8]>::to_vec)
    }
}
