//! One entry of a tree: what a source yields, a snapshot records and a target creates.

use std::sync::Arc;

use crate::path::TreePath;

/// A file system time: seconds since the epoch and nanoseconds within the second (0–999,999,999).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct FileTime {
    /// Seconds since 1970-01-01T00:00:00Z; negative before.
    pub secs: i64,
    /// Nanoseconds after that second.
    pub nanos: u32,
}

/// Who owns an entry: numbers, and names where the server knows them.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Owner {
    /// Numeric user id.
    pub uid: u32,
    /// Numeric group id.
    pub gid: u32,
    /// User name, empty when unknown.
    pub user: Vec<u8>,
    /// Group name, empty when unknown.
    pub group: Vec<u8>,
}

/// One extended attribute, POSIX ACLs and capabilities among them.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct XAttr {
    /// Full name, such as `user.comment`.
    pub name: Vec<u8>,
    /// Raw value.
    pub value: Vec<u8>,
}

/// What kind of thing an entry is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum EntryKind {
    /// A directory.
    Directory,
    /// A regular file.
    File,
    /// A stream without a file behind it, such as a database dump; size is known only at its end.
    Stream,
    /// A symbolic link.
    Symlink {
        /// Where it points; raw bytes, never resolved.
        target: Vec<u8>,
    },
    /// A named pipe.
    Fifo,
    /// A character device.
    CharDevice {
        /// Major and minor number.
        device: (u32, u32),
    },
    /// A block device.
    BlockDevice {
        /// Major and minor number.
        device: (u32, u32),
    },
}

/// Everything known of an entry but its content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Where it is in the snapshot.
    pub path: TreePath,
    /// What it is.
    pub kind: EntryKind,
    /// Permission bits, with set-uid, set-gid and sticky: 0–0o7777.
    pub mode: u32,
    /// Who owns it; shared, since neighbours mostly have one owner.
    pub owner: Arc<Owner>,
    /// When its content changed last.
    pub modified: FileTime,
    /// When its inode changed last; zero for streams.
    pub changed: FileTime,
    /// Content length in bytes; zero for what has none, and for streams until they end.
    pub size_bytes: u64,
    /// Inode number; zero for streams.
    pub inode: u64,
    /// Device number of the file system; only compared, to find hard links of one file.
    pub device: u64,
    /// Number of names of the inode; a file with more than one may be a hard link.
    pub link_count: u64,
    /// Extended attributes, sorted by name. The opener of a file gives them, the walk does not.
    pub xattrs: Vec<XAttr>,
}
