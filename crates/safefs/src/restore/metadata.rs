//! Owner, attributes, mode and times of restored entries, in the order in which they hold:
//! a change of owner clears set-id bits and capabilities, and an ACL changes the mode.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Mutex;

use edge::{Entry, EntryKind, FileTime, TargetError, XAttr};
use rustix::fs::{
    AtFlags, Gid, Mode, Timespec, Timestamps, UTIME_OMIT, Uid, XattrFlags, chmodat, chownat,
    fchmod, fchown, fsetxattr, futimens, lsetxattr, utimensat,
};
use rustix::io::Errno;

use super::{Owners, Policy};
use crate::directory::lock;
use crate::status::path_of_name;
use crate::users::Users;

const SET_ID_BITS: u32 = 0o6000;

/// Applies metadata by one policy, and counts what the kernel refused so that it is told once.
pub(super) struct Metadata {
    policy: Policy,
    users: Users,
    tally: Mutex<Tally>,
}

#[derive(Default)]
struct Tally {
    owners: Option<Refusal>,
    xattrs: Option<Refusal>,
    withheld_count: u64,
}

struct Refusal {
    first: String,
    error: Errno,
    count: u64,
}

impl Metadata {
    pub(super) fn new(policy: Policy, users: Users) -> Self {
        Self {
            policy,
            users,
            tally: Mutex::default(),
        }
    }

    pub(super) const fn policy(&self) -> Policy {
        self.policy
    }

    pub(super) fn withheld_count(&self) -> u64 {
        lock(&self.tally).withheld_count
    }

    /// Gives one error for all refused owners and one for all refused attributes.
    pub(super) fn refusals(&self) -> Vec<TargetError> {
        let mut tally = lock(&self.tally);
        let owners = tally.owners.take();
        let xattrs = tally.xattrs.take();
        let owners = owners.map(|refusal| refusal.into_error("setting the owner of"));
        let xattrs = xattrs.map(|refusal| refusal.into_error("setting attributes of"));
        owners.into_iter().chain(xattrs).collect()
    }

    /// Completes an open file or directory.
    pub(super) fn apply_to_descriptor(&self, file: &OwnedFd, entry: &Entry) -> io::Result<()> {
        let owned = self.own(entry, |uid, gid| fchown(file, Some(uid), Some(gid)))?;
        self.set_xattrs(entry, |xattr| {
            fsetxattr(file, &*xattr.name, &xattr.value, XattrFlags::empty())
        })?;
        fchmod(file, self.mode(entry, owned))?;
        Ok(futimens(file, &times(entry.modified))?)
    }

    /// Completes what cannot be opened: links, pipes, devices, in a directory of our own.
    pub(super) fn apply_to_name(
        &self,
        directory: &OwnedFd,
        name: &[u8],
        entry: &Entry,
    ) -> io::Result<()> {
        let nofollow = AtFlags::SYMLINK_NOFOLLOW;
        let owned = self.own(entry, |uid, gid| {
            chownat(directory, name, Some(uid), Some(gid), nofollow)
        })?;
        let path = path_of_name(directory, name);
        self.set_xattrs(entry, |xattr| {
            lsetxattr(&*path, &*xattr.name, &xattr.value, XattrFlags::empty())
        })?;
        if !matches!(entry.kind, EntryKind::Symlink { .. }) {
            // Nobody else can enter the staging directory, so the name is what was made under it.
            let mode = self.mode(entry, owned);
            chmodat(directory, name, mode, AtFlags::empty())?;
        }
        Ok(utimensat(
            directory,
            name,
            &times(entry.modified),
            nofollow,
        )?)
    }

    /// Sets the owner; true when the entry belongs to whom it should.
    fn own(&self, entry: &Entry, set: impl Fn(Uid, Gid) -> Result<(), Errno>) -> io::Result<bool> {
        if self.policy.owners == Owners::Restorer {
            return Ok(true);
        }
        let (uid, gid) = self.users.ids(&entry.owner);
        match set(Uid::from_raw(uid), Gid::from_raw(gid)) {
            Ok(()) => Ok(true),
            Err(error @ (Errno::PERM | Errno::INVAL)) => {
                Refusal::count(&mut lock(&self.tally).owners, entry, error);
                Ok(false)
            }
            Err(error) => Err(error.into()),
        }
    }

    fn set_xattrs(
        &self,
        entry: &Entry,
        set: impl Fn(&XAttr) -> Result<(), Errno>,
    ) -> io::Result<()> {
        for xattr in &entry.xattrs {
            let privileged =
                xattr.name.starts_with(b"security.") || xattr.name.starts_with(b"trusted.");
            if privileged && !self.policy.privileged_xattrs {
                lock(&self.tally).withheld_count += 1;
                continue;
            }
            match set(xattr) {
                Ok(()) => {}
                Err(error @ (Errno::PERM | Errno::OPNOTSUPP | Errno::INVAL)) => {
                    Refusal::count(&mut lock(&self.tally).xattrs, entry, error);
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Gives the mode; set-id bits only by policy and never for a stranger's file.
    fn mode(&self, entry: &Entry, owned: bool) -> Mode {
        let is_directory = entry.kind == EntryKind::Directory;
        let keep = owned && (is_directory || self.policy.set_id_bits);
        if keep || entry.mode & SET_ID_BITS == 0 {
            return Mode::from_raw_mode(entry.mode);
        }
        lock(&self.tally).withheld_count += 1;
        Mode::from_raw_mode(entry.mode & !SET_ID_BITS)
    }
}

impl Refusal {
    fn count(refusal: &mut Option<Self>, entry: &Entry, error: Errno) {
        let refusal = refusal.get_or_insert_with(|| Self {
            first: entry.path.to_string(),
            error,
            count: 0,
        });
        refusal.count += 1;
    }

    fn into_error(self, operation: &'static str) -> TargetError {
        let object = match self.count {
            1 => self.first,
            count => format!("{count} entries, {} the first of them", self.first),
        };
        TargetError {
            operation,
            object,
            source: Box::new(io::Error::from(self.error)),
        }
    }
}

fn times(modified: FileTime) -> Timestamps {
    Timestamps {
        last_access: Timespec {
            tv_sec: 0,
            tv_nsec: UTIME_OMIT,
        },
        last_modification: Timespec {
            tv_sec: modified.secs,
            tv_nsec: i64::from(modified.nanos),
        },
    }
}
