//! A directory held by descriptor, opened again component by component when it was let go.
//!
//! A walk may be 20,000 levels deep and an opener may be called long after its directory was
//! listed, so directories are remembered by how they were reached and what they were, and only
//! the [`DESCRIPTORS_MAX`] latest keep a descriptor. Opening one again starts at its nearest held
//! ancestor, follows no link and must find the same inode on the same mount.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use edge::TreePath;
use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::Errno;

use crate::status::{self, Identity};

/// How many directories of one walk or restore keep their descriptor.
pub(crate) const DESCRIPTORS_MAX: usize = 192;

/// Flags that every open has: close on exec, follow nothing, never wait, never own a terminal.
pub(crate) const CAREFUL: OFlags = OFlags::CLOEXEC
    .union(OFlags::NOFOLLOW)
    .union(OFlags::NONBLOCK)
    .union(OFlags::NOCTTY);

/// The directories that hold a descriptor, oldest first.
#[derive(Debug, Default)]
pub(crate) struct Pool(Mutex<VecDeque<Weak<Directory>>>);

impl Pool {
    fn hold(&self, directory: &Arc<Directory>, descriptor: Arc<OwnedFd>) {
        *lock(&directory.held) = Some(descriptor);
        let mut queue = lock(&self.0);
        queue.push_back(Arc::downgrade(directory));
        let oldest = if queue.len() > DESCRIPTORS_MAX {
            queue.pop_front()
        } else {
            None
        };
        drop(queue);
        if let Some(oldest) = oldest.and_then(|weak| weak.upgrade()) {
            drop(lock(&oldest.held).take());
        }
    }
}

/// One directory: how it was reached, what it was, and its descriptor while it is held.
#[derive(Debug)]
pub(crate) struct Directory {
    origin: Origin,
    identity: Identity,
    held: Mutex<Option<Arc<OwnedFd>>>,
    pool: Arc<Pool>,
}

#[derive(Debug)]
enum Origin {
    /// From `/` down.
    Absolute(TreePath),
    /// A name in another directory.
    Child(Arc<Directory>, Vec<u8>),
}

impl Directory {
    /// Opens an absolute path, one component at a time.
    pub(crate) fn absolute(path: &TreePath, pool: &Arc<Pool>) -> io::Result<Arc<Self>> {
        let descriptor = open_absolute(path)?;
        let identity = status::of_descriptor(&descriptor)?.identity();
        let origin = Origin::Absolute(path.clone());
        Ok(Self::held(origin, identity, descriptor, pool))
    }

    /// Opens the directory `name`, which must be what was seen there as `expected`.
    pub(crate) fn child(
        self: &Arc<Self>,
        name: &[u8],
        expected: Identity,
    ) -> io::Result<Arc<Self>> {
        let parent = self.open()?;
        let descriptor = open_child(&parent, name, expected)?;
        let origin = Origin::Child(Arc::clone(self), name.to_vec());
        Ok(Self::held(origin, expected, descriptor, &self.pool))
    }

    /// Opens the directory `name`, whatever it is; for trees that nobody else can enter.
    pub(crate) fn own_child(self: &Arc<Self>, name: &[u8]) -> io::Result<Arc<Self>> {
        let parent = self.open()?;
        let descriptor = open_directory(&parent, name)?;
        let identity = status::of_descriptor(&descriptor)?.identity();
        let origin = Origin::Child(Arc::clone(self), name.to_vec());
        Ok(Self::held(origin, identity, descriptor, &self.pool))
    }

    fn held(
        origin: Origin,
        identity: Identity,
        descriptor: OwnedFd,
        pool: &Arc<Pool>,
    ) -> Arc<Self> {
        let directory = Arc::new(Self {
            origin,
            identity,
            held: Mutex::new(None),
            pool: Arc::clone(pool),
        });
        pool.hold(&directory, Arc::new(descriptor));
        directory
    }

    /// What this directory was when it was first opened.
    pub(crate) const fn identity(&self) -> Identity {
        self.identity
    }

    /// Gives a descriptor, opening the path down from the nearest held ancestor when needed.
    pub(crate) fn open(self: &Arc<Self>) -> io::Result<Arc<OwnedFd>> {
        let mut missing: Vec<(Arc<Self>, Vec<u8>)> = Vec::new();
        let mut at = Arc::clone(self);
        let mut descriptor = loop {
            if let Some(held) = lock(&at.held).clone() {
                break held;
            }
            let parent = match &at.origin {
                Origin::Absolute(path) => {
                    let opened = open_absolute(path)?;
                    check(&opened, at.identity)?;
                    break at.hold(opened);
                }
                Origin::Child(parent, name) => {
                    missing.push((Arc::clone(&at), name.clone()));
                    Arc::clone(parent)
                }
            };
            at = parent;
        };
        while let Some((directory, name)) = missing.pop() {
            descriptor = directory.hold(open_child(&descriptor, &name, directory.identity)?);
        }
        Ok(descriptor)
    }

    fn hold(self: &Arc<Self>, descriptor: OwnedFd) -> Arc<OwnedFd> {
        let descriptor = Arc::new(descriptor);
        self.pool.hold(self, Arc::clone(&descriptor));
        descriptor
    }

    fn take_parent(&mut self) -> Option<Arc<Self>> {
        match std::mem::replace(&mut self.origin, Origin::Absolute(TreePath::root())) {
            Origin::Child(parent, _) => Some(parent),
            Origin::Absolute(_) => None,
        }
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        // A chain of parents is let go in a loop: recursion would overflow the stack on deep trees.
        let mut next = self.take_parent();
        while let Some(mut parent) = next.and_then(Arc::into_inner) {
            next = parent.take_parent();
        }
    }
}

/// Nothing panics while one of these locks is held, and what they guard is always whole.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn open_absolute(path: &TreePath) -> io::Result<OwnedFd> {
    let passing = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut parents = path.components();
    let Some(last) = parents.next_back() else {
        return Ok(openat(
            CWD,
            "/",
            CAREFUL | OFlags::DIRECTORY,
            Mode::empty(),
        )?);
    };
    let mut descriptor = openat(CWD, "/", passing, Mode::empty())?;
    for component in parents {
        descriptor = openat(&descriptor, component, passing, Mode::empty())?;
    }
    open_directory(&descriptor, last)
}

fn open_directory(parent: impl AsFd, name: &[u8]) -> io::Result<OwnedFd> {
    Ok(open_without_trace(parent, name, OFlags::DIRECTORY)?)
}

/// Opens for reading without changing the access time, where that is allowed.
pub(crate) fn open_without_trace(
    parent: impl AsFd,
    name: &[u8],
    flags: OFlags,
) -> Result<OwnedFd, Errno> {
    let flags = flags | CAREFUL | OFlags::RDONLY;
    match openat(parent.as_fd(), name, flags | OFlags::NOATIME, Mode::empty()) {
        Err(Errno::PERM) => openat(parent, name, flags, Mode::empty()),
        opened => opened,
    }
}

fn open_child(parent: impl AsFd, name: &[u8], expected: Identity) -> io::Result<OwnedFd> {
    let descriptor = open_directory(parent, name)?;
    check(&descriptor, expected)?;
    Ok(descriptor)
}

fn check(descriptor: &OwnedFd, expected: Identity) -> io::Result<()> {
    if status::of_descriptor(descriptor)?.identity() == expected {
        return Ok(());
    }
    Err(io::Error::other(
        "another directory was put in its place meanwhile",
    ))
}
