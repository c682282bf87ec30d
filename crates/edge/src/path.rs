//! Paths inside a snapshot, kept as the bytes whose order is the order of entries.

use std::cmp::Ordering;
use std::fmt;

use model::escape;
use thiserror::Error;

/// A path inside a snapshot: components of raw bytes below the root; the root has none.
///
/// The order of paths is the order of entries in a snapshot (`docs/format.md`, "Tree order"):
/// first by directory, component by component, then by name. All entries of one directory are
/// therefore neighbours, and a directory's own entries come before those of its subdirectories.
///
/// It is one string of bytes, the key of the format: each component of the directory and a NUL,
/// a NUL, the name. Comparing keys compares paths.
#[derive(Clone, PartialEq, Eq, Hash, Default, PartialOrd, Ord)]
pub struct TreePath(Vec<u8>);

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
    pub fn new<P: AsRef<[u8]>>(components: impl IntoIterator<Item = P>) -> Result<Self, PathError> {
        let mut below = Vec::new();
        let mut name = 0;
        for component in components {
            let component = component.as_ref();
            check_component(component)?;
            name = below.len();
            below.extend_from_slice(component);
            below.push(0);
        }
        if below.pop().is_some() {
            below.insert(name, 0);
        }
        Ok(Self(below))
    }

    /// Reads components divided by `/`; leading, trailing and doubled slashes are ignored.
    ///
    /// # Errors
    ///
    /// As [`TreePath::new`].
    pub fn parse(bytes: &[u8]) -> Result<Self, PathError> {
        Self::new(bytes.split(|b| *b == b'/').filter(|part| !part.is_empty()))
    }

    /// Reads a key back, or `None` when it is not one. The root has the empty key.
    #[must_use]
    pub fn from_key(key: &[u8]) -> Option<Self> {
        if key.is_empty() {
            return Some(Self::root());
        }
        let path = Self(key.to_vec());
        let (directory, name) = path.split()?;
        // Between two components there is one NUL, and behind the last of a directory another.
        let whole = directory.strip_suffix(&[0]);
        let good = |part| check_component(part).is_ok();
        let directory_fits = match whole {
            Some(parts) => parts.split(|b| *b == 0).all(good),
            None => directory.is_empty(),
        };
        (directory_fits && good(name)).then_some(path)
    }

    /// Gives the key: the bytes whose order is the order of paths.
    #[must_use]
    pub fn key(&self) -> &[u8] {
        &self.0
    }

    /// Gives what the keys of everything below this directory begin with.
    #[must_use]
    pub fn key_below(&self) -> Vec<u8> {
        let Some((directory, name)) = self.split() else {
            return Vec::new();
        };
        let mut key = Vec::with_capacity(self.0.len() + 1);
        key.extend_from_slice(directory);
        key.extend_from_slice(name);
        key.push(0);
        key
    }

    /// Gives the path of `name` in this directory.
    ///
    /// # Errors
    ///
    /// As [`TreePath::new`].
    pub fn child(&self, name: &[u8]) -> Result<Self, PathError> {
        check_component(name)?;
        let mut key = Vec::with_capacity(self.0.len() + name.len() + 2);
        if let Some((directory, own)) = self.split() {
            key.extend_from_slice(directory);
            key.extend_from_slice(own);
            key.push(0);
        }
        key.push(0);
        key.extend_from_slice(name);
        Ok(Self(key))
    }

    /// Gives the path of `below` seen from this directory.
    #[must_use]
    pub fn join(&self, below: &Self) -> Self {
        if below.0.is_empty() {
            return self.clone();
        }
        let mut key = self.key_below();
        key.extend_from_slice(&below.0);
        Self(key)
    }

    /// Gives the components from the root down.
    pub fn components(&self) -> impl DoubleEndedIterator<Item = &[u8]> + Clone {
        let (directory, name) = self.split().unwrap_or_default();
        let parts = directory.split(|b| *b == 0).chain([name]);
        parts.filter(|part| !part.is_empty())
    }

    /// Gives the components as a slice can be matched.
    #[must_use]
    pub fn parts(&self) -> Vec<&[u8]> {
        self.components().collect()
    }

    /// Counts the components.
    #[must_use]
    pub fn depth(&self) -> usize {
        self.components().count()
    }

    /// Gives what is left below the first `count` components.
    #[must_use]
    pub fn skip(&self, count: usize) -> Self {
        let mut rest = self.0.as_slice();
        for _ in 0..count {
            let end = rest.iter().position(|b| *b == 0);
            match end.filter(|end| *end > 0) {
                Some(end) => rest = rest.get(end + 1..).unwrap_or_default(),
                None => return Self::root(),
            }
        }
        Self(rest.to_vec())
    }

    /// Gives the directory that this is in, or `None` for the root.
    #[must_use]
    pub fn parent(&self) -> Option<Self> {
        let (directory, _) = self.split()?;
        let Some(whole) = directory.strip_suffix(&[0]) else {
            return Some(Self::root());
        };
        let name = whole.iter().rposition(|b| *b == 0).map_or(0, |nul| nul + 1);
        let mut key = whole.to_vec();
        key.insert(name, 0);
        Some(Self(key))
    }

    /// Gives the last component, or `None` for the root.
    #[must_use]
    pub fn name(&self) -> Option<&[u8]> {
        self.split().map(|(_, name)| name)
    }

    /// Gives the directory, as [`TreePath::key_below`] of it, and the name; `None` for the root.
    #[must_use]
    pub fn split(&self) -> Option<(&[u8], &[u8])> {
        let nul = self.0.iter().rposition(|b| *b == 0)?;
        Some((self.0.get(..nul)?, self.0.get(nul + 1..)?))
    }

    /// True when this is `other` or lies below it.
    #[must_use]
    pub fn is_within(&self, other: &Self) -> bool {
        let Some((directory, name)) = other.split() else {
            return true;
        };
        let below = self.0.strip_prefix(directory);
        let below = below.and_then(|rest| rest.strip_prefix(name));
        below.is_some_and(|rest| rest.first() == Some(&0)) || self == other
    }
}

fn check_component(part: &[u8]) -> Result<(), PathError> {
    let foreign = part.iter().any(|b| matches!(b, 0 | b'/'));
    if part.is_empty() || part == b"." || part == b".." || foreign {
        return Err(PathError(escape(part)));
    }
    Ok(())
}

impl fmt::Display for TreePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("/");
        }
        self.components()
            .try_for_each(|part| write!(f, "/{}", escape(part)))
    }
}

impl fmt::Debug for TreePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TreePath({self})")
    }
}

/// Compares by component alone, as a file manager would: a directory's entries follow it.
#[must_use]
pub fn compare_by_component(a: &TreePath, b: &TreePath) -> Ordering {
    a.components().cmp(b.components())
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
    }

    #[test]
    fn parts_of_a_path_fit_together() {
        let root = TreePath::root();
        for text in ["a", "a/b", "ab/c/d", "x/y/z/long name"] {
            let whole = path(text);
            let parent = whole.parent().unwrap();
            assert_eq!(parent.child(whole.name().unwrap()).unwrap(), whole);
            assert_eq!(TreePath::new(whole.components()).unwrap(), whole);
            assert_eq!(whole.depth(), text.split('/').count());
            assert_eq!(whole.split().unwrap().0, parent.key_below());
            assert_eq!(TreePath::from_key(whole.key()), Some(whole.clone()));
            assert!(whole.is_within(&parent) && whole.is_within(&whole) && whole.is_within(&root));
            assert!(!parent.is_within(&whole));
            assert!(whole.key().starts_with(&parent.key_below()));
            for count in 0..=whole.depth() {
                let above = TreePath::new(whole.components().take(count)).unwrap();
                assert_eq!(above.join(&whole.skip(count)), whole);
            }
        }
        assert!(!path("ab").is_within(&path("a")));
        assert!(!path("a/bc").is_within(&path("a/b")));
        assert_eq!((root.parent(), root.name(), root.depth()), (None, None, 0));
        assert_eq!(root.skip(1), root);
        assert_eq!(TreePath::from_key(b""), Some(root));
    }

    #[test]
    fn foreign_keys_are_refused() {
        for key in [
            &b"a"[..],
            b"\0",
            b"a\0",
            b"a\0b",
            b"a\0\0",
            b"\0\0a",
            b"a\0\0\0b",
            b"\0a/b",
            b"..\0\0a",
            b"\0..",
            b"a\0\0b\0c",
        ] {
            assert_eq!(TreePath::from_key(key), None, "{key:?}");
        }
    }
}
