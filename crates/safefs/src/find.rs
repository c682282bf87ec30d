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

/// Finds every directory under an absolute path whose names may hold `*`, `?` and `[a-z]`. What
/// does not exist is no error. Links are not followed: one that a wildcard matches does not
/// count, one that is named outright is an error, because something was expected there.
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
    let mut level = match Directory::absolute(&TreePath::root(), &pool) {
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
    let literal = part.literal();
    let is_named = literal.is_some();
    let names = literal.map_or_else(
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
            Ok(Entered::Directory(child, uid)) => next.push((child, below, uid)),
            Ok(Entered::Link) if is_named => {
                let error = std::io::Error::other("it is a symbolic link; give the real path");
                errors.push(failed("opening", &below.to_string(), error));
            }
            Ok(Entered::Link | Entered::Nothing) => {}
            Err(error) => errors.push(failed("opening", &below.to_string(), error)),
        }
    }
}

enum Entered {
    Directory(Arc<Directory>, u32),
    Link,
    Nothing,
}

fn enter(directory: &Arc<Directory>, name: &[u8]) -> std::io::Result<Entered> {
    let seen = match status::of_name(directory.open()?, name) {
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(Entered::Nothing),
        seen => seen?,
    };
    match seen.file_type() {
        FileType::Directory => {
            let child = directory.child(name, seen.identity())?;
            Ok(Entered::Directory(child, seen.uid()))
        }
        FileType::Symlink => Ok(Entered::Link),
        _ => Ok(Entered::Nothing),
    }
}
