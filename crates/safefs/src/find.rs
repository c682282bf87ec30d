//! Finds the directories that a configured path with wildcards stands for.

use std::sync::Arc;

use edge::{SourceError, TreePath};
use rustix::fs::FileType;
use rustix::io::Errno;

use crate::content::failed;
use crate::directory::{Directory, Pool};
use crate::exclude::{NamePattern, PatternError};
use crate::status::{self, Identity};
use crate::walk::Names;

/// The mount that a directory lies on; only compared.
#[derive(Debug, Clone, Copy)]
pub struct Mount(Identity);

impl PartialEq for Mount {
    fn eq(&self, other: &Self) -> bool {
        self.0.same_mount(other.0)
    }
}

/// One directory that a pattern stands for.
#[derive(Debug, Clone)]
pub struct FoundDirectory {
    /// Its absolute path.
    pub path: TreePath,
    /// Numeric id of its owner.
    pub uid: u32,
    /// The mount that it lies on.
    pub mount: Mount,
}

/// What was found, sorted by path, and what could not be looked at.
#[derive(Debug, Default)]
pub struct Found {
    /// The directories.
    pub directories: Vec<FoundDirectory>,
    /// Places that exist and could not be read.
    pub errors: Vec<SourceError>,
}

/// Finds every directory under an absolute path whose names may hold `*`, `?` and `[a-z]`. Links
/// are not followed and do not count; what does not exist is no error.
///
/// # Errors
///
/// `PatternError` when a component cannot be read as a pattern.
pub fn find_directories(pattern: &[u8]) -> Result<Found, PatternError> {
    let parts = pattern
        .split(|b| *b == b'/')
        .filter(|part| !part.is_empty())
        .map(NamePattern::new)
        .collect::<Result<Vec<_>, _>>()?;
    let mut found = Found::default();
    let pool = Arc::new(Pool::default());
    let mut level = match Directory::absolute(&[], &pool) {
        Ok(top) => vec![(top, TreePath::root(), 0)],
        Err(error) => {
            found.errors.push(failed("opening", "/", error));
            return Ok(found);
        }
    };
    for part in &parts {
        let mut next = Vec::new();
        for (directory, path, _) in &level {
            step(directory, path, part, (&mut next, &mut found.errors));
        }
        level = next;
    }
    let finished = level
        .into_iter()
        .map(|(directory, path, uid)| FoundDirectory {
            path,
            uid,
            mount: Mount(directory.identity()),
        });
    found.directories.extend(finished);
    found.directories.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(found)
}

type Level = Vec<(Arc<Directory>, TreePath, u32)>;

/// Adds the directories in one directory whose names match.
fn step(
    directory: &Arc<Directory>,
    path: &TreePath,
    part: &NamePattern,
    (next, errors): (&mut Level, &mut Vec<SourceError>),
) {
    let names = part.literal().map_or_else(
        || {
            Ok(Names::read(&*directory.open()?)?
                .filter(|n| part.matches(n))
                .collect())
        },
        |name| Ok(vec![name]),
    );
    let names: Vec<Vec<u8>> = match names {
        Ok(names) => names,
        Err(error) => return errors.push(failed("listing", &path.to_string(), error)),
    };
    for name in names {
        let Ok(below) = path.child(&name) else {
            continue;
        };
        match enter(directory, &name) {
            Ok(Some((child, uid))) => next.push((child, below, uid)),
            Ok(None) => {}
            Err(error) => errors.push(failed("opening", &below.to_string(), error)),
        }
    }
}

fn enter(
    directory: &Arc<Directory>,
    name: &[u8],
) -> std::io::Result<Option<(Arc<Directory>, u32)>> {
    let seen = match status::of_name(directory.open()?, name) {
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(None),
        seen => seen?,
    };
    if seen.file_type() != FileType::Directory {
        return Ok(None);
    }
    let child = directory.child(name, seen.identity())?;
    Ok(Some((child, seen.uid())))
}
