//! One directory of a walk: its names, and the entries behind them.

use std::collections::VecDeque;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use edge::{EntryKind, Opener, SourceItem, TreePath, XAttr};
use rustix::fs::{FileType, RawDir, SeekFrom, readlinkat, seek};
use rustix::io::Errno;

use super::{Root, STAGE_PREFIX};
use crate::content::{Naming, Place, failed};
use crate::directory::Directory;
use crate::status::{self, Identity, Status};
use crate::users::Users;

/// Most bytes of names in one directory; a longer one is reported and left out.
const NAMES_BYTES_MAX: usize = 1 << 32;

/// What all directories of one root share.
pub(super) struct Tree {
    pub(super) root: Root,
    naming: Arc<Naming>,
    pub(super) users: Arc<Users>,
}

/// A directory whose entries are being given.
pub(super) struct Listing {
    pub(super) directory: Arc<Directory>,
    pub(super) path: TreePath,
    names: Names,
    ready: VecDeque<SourceItem>,
    /// Those seen so far that are to be entered.
    pub(super) subdirectories: Vec<Subdirectory>,
}

pub(super) struct Subdirectory {
    pub(super) name: Vec<u8>,
    pub(super) identity: Identity,
}

impl Tree {
    pub(super) fn new(root: Root, users: Arc<Users>) -> Self {
        let naming = Arc::new(Naming {
            real: root.path.clone(),
            prefix: root.prefix.clone(),
        });
        Self {
            root,
            naming,
            users,
        }
    }

    /// Gives the real path of an entry, escaped.
    pub(super) fn object(&self, path: &TreePath) -> String {
        self.naming.object(path)
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
    pub(super) fn give(
        &self,
        directory: &Arc<Directory>,
        descriptor: &OwnedFd,
        (name, path, status): (&[u8], TreePath, Status),
        ready: &mut VecDeque<SourceItem>,
    ) {
        let kind = match kind_of(descriptor, name, &status) {
            Ok(Some(kind)) => kind,
            Ok(None) => return,
            Err(error) => {
                let error = failed("reading link", &self.object(&path), error.into());
                return ready.push_back(SourceItem::Failed(error));
            }
        };
        let opener = (kind == EntryKind::File).then(|| {
            let place = Place {
                directory: Arc::clone(directory),
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
                    ready.push_back(SourceItem::Failed(error));
                }
            }
        }
        ready.push_back(SourceItem::Entry(entry, opener));
    }
}

impl Listing {
    /// Reads the names of a directory, whose entries come next.
    pub(super) fn of(tree: &Tree, directory: Arc<Directory>, path: TreePath) -> Self {
        let mut ready = VecDeque::new();
        let names = directory
            .open()
            .and_then(|descriptor| Names::read(&descriptor));
        let names = names.unwrap_or_else(|error| {
            let error = failed("listing", &tree.object(&path), error);
            ready.push_back(SourceItem::Failed(error));
            Names::default()
        });
        Self {
            directory,
            path,
            names,
            ready,
            subdirectories: Vec::new(),
        }
    }

    /// Gives the next item of the directory, or `None` when there are no more.
    pub(super) fn next(&mut self, tree: &Tree) -> Option<SourceItem> {
        loop {
            if let Some(item) = self.ready.pop_front() {
                return Some(item);
            }
            if !self.look(tree) {
                return None;
            }
        }
    }

    /// Looks at the next so many names, before their entries are asked for; says how much
    /// waits now.
    pub(super) fn look_ahead(&mut self, tree: &Tree, names: usize) -> usize {
        for _ in 0..names {
            if !self.look(tree) {
                break;
            }
        }
        self.waiting()
    }

    /// Tells how many items and names wait.
    pub(super) fn waiting(&self) -> usize {
        self.ready.len() + self.names.spans.len()
    }

    /// Looks at the next name; false when there are no more.
    fn look(&mut self, tree: &Tree) -> bool {
        let Some(name) = self.names.next_name() else {
            return false;
        };
        let Ok(path) = self.path.child(name) else {
            return true;
        };
        let seen = self.directory.open().and_then(|descriptor| {
            let status = status::of_name(&descriptor, name)?;
            Ok((descriptor, status))
        });
        let (descriptor, status) = match seen {
            Ok(seen) => seen,
            Err(error) => {
                let error = failed("looking at", &tree.object(&path), error);
                self.ready.push_back(SourceItem::Failed(error));
                return true;
            }
        };
        let is_directory = status.file_type() == FileType::Directory;
        if tree.is_excluded(&path, name, is_directory) {
            return true;
        }
        let identity = status.identity();
        let same_mount = identity.same_mount(self.directory.identity());
        let seen = (name, path, status);
        tree.give(&self.directory, &descriptor, seen, &mut self.ready);
        if is_directory && same_mount {
            let name = name.to_vec();
            self.subdirectories.push(Subdirectory { name, identity });
        }
        true
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

    fn next_name(&mut self) -> Option<&[u8]> {
        let (start, end) = self.spans.next()?;
        self.bytes.get(start..end)
    }
}

impl Iterator for Names {
    type Item = Vec<u8>;

    fn next(&mut self) -> Option<Vec<u8>> {
        self.next_name().map(<[u8]>::to_vec)
    }
}
