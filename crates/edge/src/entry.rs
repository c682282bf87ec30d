//! One entry of a tree: what a source yields, a snapshot records and a target creates.

use std::cmp::Ordering;

use model::escape;
use thiserror::Error;

/// A path inside a snapshot: components of raw bytes below the root; the root has none.
///
/// The order of paths is the order of entries in a snapshot (`docs/format.md`, "Tree order"):
/// first by directory, component by component, then by name. All entries of one directory are
/// therefore neighbours, and a directory's own entries come before those of its subdirectories.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct TreePath(Vec<Vec<u8>>);

/// Says why a component cannot be part of a path.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("path component {0:?} is empty, '.', '..', or holds '/' or NUL")]
pub struct PathError(String);

impl TreePath {
    /// The root of a snapshot.
    #[must_use]
    pub const fn root() -> Self {
        Self(Vec::new())
    }

    /// Takes components from the root down.
    ///
    /// # Errors
    ///
    /// `PathError` when a component is empty, `.`, `..`, or holds `/` or NUL.
    pub fn new(components: Vec<Vec<u8>>) -> Result<Self, PathError> {
        components
            .iter()
            .try_for_each(|part| check_component(part))?;
        Ok(Self(components))
    }

    /// Reads components divided by `/`; leading, trailing and doubled slashes are ignored.
    ///
    /// # Errors
    ///
    /// As [`TreePath::new`].
    pub fn parse(bytes: &[u8]) -> Result<Self, PathError> {
        Self::new(
            bytes
                .split(|b| *b == b'/')
                .filter(|p| !p.is_empty())
                .map(<[u8]>::to_vec)
                .collect(),
        )
    }

    /// Gives the path of `name` in this directory.
    ///
    /// # Errors
    ///
    /// As [`TreePath::new`].
    pub fn child(&self, name: &[u8]) -> Result<Self, PathError> {
        check_component(name)?;
        let mut components = self.0.clone();
        components.push(name.to_vec());
        Ok(Self(components))
    }

    /// Gives the components from the root down.
    #[must_use]
    pub fn components(&self) -> &[Vec<u8>] {
        &self.0
    }

    /// Gives directory and name, or `None` for the root.
    #[must_use]
    pub fn split(&self) -> Option<(&[Vec<u8>], &[u8])> {
        self.0
            .split_last()
            .map(|(name, directory)| (directory, name.as_slice()))
    }

    /// True when this is `other` or lies below it.
    #[must_use]
    pub fn is_within(&self, other: &Self) -> bool {
        self.0.starts_with(&other.0)
    }
}

fn check_component(part: &[u8]) -> Result<(), PathError> {
    let foreign = part.iter().any(|b| matches!(b, 0 | b'/'));
    if part.is_empty() || part == b"." || part == b".." || foreign {
        return Err(PathError(escape(part)));
    }
    Ok(())
}

impl Ord for TreePath {
    fn cmp(&self, other: &Self) -> Ordering {
        // The root has no directory and comes before everything.
        self.split().cmp(&other.split())
    }
}

impl PartialOrd for TreePath {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl std::fmt::Display for TreePath {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.0.is_empty() {
            return f.write_str("/");
        }
        self.0
            .iter()
            .try_for_each(|part| write!(f, "/{}", escape(part)))
    }
}

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
    /// Who owns it.
    pub owner: Owner,
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
    /// Extended attributes, sorted by name.
    pub xattrs: Vec<XAttr>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> TreePath {
        TreePath::parse(text.as_bytes()).unwrap()
    }

    #[test]
    fn a_directory_comes_whole_before_its_subdirectories() {
        let mut paths: Vec<_> = ["b/x", "a/z/k", "a.txt", "a", "a/y", "b", "a/z", "", "a!/q"]
            .map(path)
            .into();
        paths.sort();
        let shown: Vec<_> = paths.iter().map(ToString::to_string).collect();
        assert_eq!(
            shown,
            [
                "/", "/a", "/a.txt", "/b", "/a/y", "/a/z", "/a/z/k", "/a!/q", "/b/x"
            ]
        );
    }

    #[test]
    fn components_never_climb() {
        for bad in [&b"."[..], b"..", b"", b"a/b", b"a\0"] {
            assert!(TreePath::root().child(bad).is_err());
        }
        assert!(path("a/b").is_within(&path("a")));
        assert!(!path("ab").is_within(&path("a")));
    }
}
