//! What the kernel says of one inode, and how that becomes an entry.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use edge::{Entry, EntryKind, FileTime, TreePath, XAttr};
use rustix::fs::{AtFlags, FileType, Mode, Statx, StatxFlags, StatxTimestamp, statx};
use rustix::io::Errno;

use crate::users::Users;

/// Longest list of attribute names and longest value that Linux hands out, in bytes.
const XATTR_BYTES_MAX: usize = 64 * 1024;

/// Which inode it is, on which mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Identity {
    device: (u32, u32),
    inode: u64,
    mount: u64,
}

impl Identity {
    /// True when both are on one mount of one file system.
    pub(crate) fn same_mount(self, other: Self) -> bool {
        self.mount == other.mount && self.device == other.device
    }
}

/// The answer of one `statx`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Status(Statx);

impl Status {
    /// Gives device, inode and mount.
    pub(crate) const fn identity(&self) -> Identity {
        Identity {
            device: (self.0.stx_dev_major, self.0.stx_dev_minor),
            inode: self.0.stx_ino,
            mount: self.0.stx_mnt_id,
        }
    }

    /// Gives the type of the inode.
    pub(crate) fn file_type(&self) -> FileType {
        FileType::from_raw_mode(u32::from(self.0.stx_mode))
    }

    /// Gives the numeric id of the owner.
    pub(crate) const fn uid(&self) -> u32 {
        self.0.stx_uid
    }

    /// Gives the number of names.
    pub(crate) const fn link_count(&self) -> u32 {
        self.0.stx_nlink
    }

    /// Gives the permission bits.
    pub(crate) fn mode(&self) -> Mode {
        Mode::from_raw_mode(u32::from(self.0.stx_mode) & 0o7777)
    }

    /// Gives the length in bytes.
    pub(crate) const fn size(&self) -> u64 {
        self.0.stx_size
    }

    /// True when fewer blocks are in use than the length needs.
    pub(crate) const fn may_have_holes(&self) -> bool {
        self.0.stx_blocks.saturating_mul(512) < self.0.stx_size
    }

    /// True when neither length nor a time moved since `earlier`.
    pub(crate) fn is_as(&self, earlier: &Self) -> bool {
        self.0.stx_size == earlier.0.stx_size
            && time(self.0.stx_mtime) == time(earlier.0.stx_mtime)
            && time(self.0.stx_ctime) == time(earlier.0.stx_ctime)
    }

    /// Makes an entry of it; a symbolic link's target and the attributes come from the caller.
    pub(crate) fn entry(&self, path: TreePath, kind: EntryKind, users: &Users) -> Entry {
        let status = &self.0;
        let size_bytes = if kind == EntryKind::File {
            status.stx_size
        } else {
            0
        };
        Entry {
            path,
            kind,
            mode: u32::from(status.stx_mode) & 0o7777,
            owner: users.owner(status.stx_uid, status.stx_gid),
            modified: time(status.stx_mtime),
            changed: time(status.stx_ctime),
            size_bytes,
            inode: status.stx_ino,
            device: rustix::fs::makedev(status.stx_dev_major, status.stx_dev_minor),
            link_count: u64::from(status.stx_nlink),
            xattrs: Vec::new(),
        }
    }

    /// Gives major and minor number of a device inode.
    pub(crate) const fn device_number(&self) -> (u32, u32) {
        (self.0.stx_rdev_major, self.0.stx_rdev_minor)
    }
}

const fn time(stamp: StatxTimestamp) -> FileTime {
    FileTime {
        secs: stamp.tv_sec,
        nanos: stamp.tv_nsec,
    }
}

const WANTED: StatxFlags = StatxFlags::BASIC_STATS.union(StatxFlags::MNT_ID);

/// Asks for `name` in a held directory, without following it or mounting anything.
pub(crate) fn of_name(directory: impl AsFd, name: &[u8]) -> Result<Status, Errno> {
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
    statx(directory, name, flags, WANTED).map(Status)
}

/// Asks for an open file.
pub(crate) fn of_descriptor(descriptor: impl AsFd) -> Result<Status, Errno> {
    statx(descriptor, "", AtFlags::EMPTY_PATH, WANTED).map(Status)
}

/// Reads all attributes of an open file, sorted by name.
pub(crate) fn xattrs_of_descriptor(descriptor: impl AsFd) -> io::Result<Vec<XAttr>> {
    let descriptor = descriptor.as_fd();
    collect(
        |list| rustix::fs::flistxattr(descriptor, list),
        |name, value| rustix::fs::fgetxattr(descriptor, name, value),
    )
}

/// Reads all attributes of `name` in a held directory, without following or opening it.
pub(crate) fn xattrs_of_name(directory: impl AsFd, name: &[u8]) -> io::Result<Vec<XAttr>> {
    let path = path_of_name(directory, name);
    collect(
        |list| rustix::fs::llistxattr(path.as_slice(), list),
        |attribute, value| rustix::fs::lgetxattr(path.as_slice(), attribute, value),
    )
}

/// A path through the held descriptor itself, for calls that have no `at` form. Only the last
/// component is looked up, and the callers use forms that do not follow it.
pub(crate) fn path_of_name(directory: impl AsFd, name: &[u8]) -> Vec<u8> {
    let mut path = format!("/proc/self/fd/{}/", directory.as_fd().as_raw_fd()).into_bytes();
    path.extend_from_slice(name);
    path
}

fn collect(
    list: impl Fn(&mut [u8]) -> Result<usize, Errno>,
    get: impl Fn(&[u8], &mut [u8]) -> Result<usize, Errno>,
) -> io::Result<Vec<XAttr>> {
    let names = match filled(&list) {
        Ok(names) if names.is_empty() => return Ok(Vec::new()),
        Ok(names) => names,
        Err(Errno::OPNOTSUPP) => return Ok(Vec::new()),
        Err(error) => return Err(error.into()),
    };
    let mut found = Vec::new();
    for name in names.split(|b| *b == 0).filter(|name| !name.is_empty()) {
        match filled(&|value: &mut [u8]| get(name, value)) {
            Ok(value) => found.push(XAttr {
                name: name.to_vec(),
                value,
            }),
            // Removed meanwhile.
            Err(Errno::NODATA) => {}
            Err(error) => return Err(error.into()),
        }
    }
    found.sort();
    Ok(found)
}

fn filled(read: &impl Fn(&mut [u8]) -> Result<usize, Errno>) -> Result<Vec<u8>, Errno> {
    let mut small = [0; 512];
    match read(&mut small) {
        Ok(length) => return Ok(small.get(..length).unwrap_or_default().to_vec()),
        Err(Errno::RANGE) => {}
        Err(error) => return Err(error),
    }
    let mut large = vec![0; XATTR_BYTES_MAX];
    let length = read(&mut large)?;
    large.truncate(length);
    Ok(large)
}
