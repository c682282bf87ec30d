//! The bytes of one regular file, read through a descriptor that is known to be that file.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use edge::{Content, ContentEnd, Entry, EntryKind, Extent, SourceError, TreePath};
use model::{ErrorClass, escape};
use rustix::fs::{FileType, OFlags, SeekFrom, seek};
use rustix::io::{Errno, pread};

use crate::directory::{Directory, open_without_trace};
use crate::status::{self, Status};
use crate::users::Users;

/// Most data extents of one file; what lies behind the last counts as data up to the end.
const EXTENTS_MAX: usize = 65_536;

/// How often a file that is replaced between being seen and being opened is looked at.
const OPEN_TRIES: usize = 3;

/// How the entries of one root are called in messages: by their real paths.
#[derive(Debug)]
pub(crate) struct Naming {
    pub(crate) real: TreePath,
    pub(crate) prefix: TreePath,
}

impl Naming {
    /// Gives the real path of an entry, escaped.
    pub(crate) fn object(&self, path: &TreePath) -> String {
        let below = path.components().skip(self.prefix.depth());
        let mut text = String::new();
        for component in self.real.components().chain(below) {
            text.push('/');
            text.push_str(&escape(component));
        }
        text
    }
}

/// Where one file is: enough to open it, also later and on another thread.
#[derive(Clone)]
pub(crate) struct Place {
    pub(crate) directory: Arc<Directory>,
    pub(crate) path: TreePath,
    pub(crate) naming: Arc<Naming>,
    pub(crate) users: Arc<Users>,
}

impl Place {
    /// Opens the file as it is now. The entry tells what was opened.
    pub(crate) fn open(&self) -> Result<(Entry, Box<dyn Content>), SourceError> {
        let (descriptor, status) = self.open_checked()?;
        let mut entry = status.entry(self.path.clone(), EntryKind::File, &self.users);
        entry.xattrs = status::xattrs_of_descriptor(&descriptor)
            .map_err(|error| failed("reading attributes of", &self.object(), error))?;
        let extents = if status.may_have_holes() {
            data_extents(&descriptor, status.size())
                .map_err(|error| failed("finding holes of", &self.object(), error.into()))?
        } else {
            None
        };
        let content = FileContent {
            descriptor,
            opened: status,
            ranges: Ranges::new(extents.as_deref(), status.size()),
            extents,
            is_short: false,
            naming: Arc::clone(&self.naming),
            path: self.path.clone(),
        };
        Ok((entry, Box::new(content)))
    }

    fn object(&self) -> String {
        self.naming.object(&self.path)
    }

    /// The name in its directory: a root may be called otherwise in the snapshot.
    fn name(&self) -> &[u8] {
        let path = match self.path == self.naming.prefix {
            true => &self.naming.real,
            false => &self.path,
        };
        path.name().unwrap_or_default()
    }

    fn open_checked(&self) -> Result<(OwnedFd, Status), SourceError> {
        let fail = |error: io::Error| failed("opening", &self.object(), error);
        let directory = self.directory.open().map_err(fail)?;
        let name = self.name();
        for _ in 0..OPEN_TRIES {
            let seen = status::of_name(&directory, name).map_err(|e| fail(e.into()))?;
            if seen.file_type() != FileType::RegularFile {
                return Err(changed("opening", &self.object(), "it is no longer a file"));
            }
            if !seen.identity().same_mount(self.directory.identity()) {
                return Err(changed(
                    "opening",
                    &self.object(),
                    "something is mounted on it",
                ));
            }
            let descriptor = match open_without_trace(&directory, name, OFlags::empty()) {
                // A link took its place; look again.
                Err(Errno::LOOP) => continue,
                opened => opened.map_err(|e| fail(e.into()))?,
            };
            let opened = status::of_descriptor(&descriptor).map_err(|e| fail(e.into()))?;
            if opened.identity() == seen.identity() && opened.file_type() == seen.file_type() {
                return Ok((descriptor, opened));
            }
        }
        Err(changed(
            "opening",
            &self.object(),
            "it is replaced all the time",
        ))
    }
}

/// Makes the error of one object; what is gone may be looked for again.
pub(crate) fn failed(operation: &'static str, object: &str, error: io::Error) -> SourceError {
    let class = match Errno::from_io_error(&error) {
        Some(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::STALE | Errno::INTR) | None => {
            ErrorClass::RetryNow
        }
        Some(Errno::MFILE | Errno::NFILE | Errno::NOMEM | Errno::IO) => ErrorClass::RetryLater,
        Some(_) => ErrorClass::Never,
    };
    SourceError {
        operation,
        object: object.to_owned(),
        class,
        source: Box::new(error),
    }
}

/// Makes the error of an object that turned into something else.
pub(crate) fn changed(operation: &'static str, object: &str, why: &'static str) -> SourceError {
    SourceError {
        operation,
        object: object.to_owned(),
        class: ErrorClass::RetryNow,
        source: why.into(),
    }
}

/// Finds what is not a hole; `None` when nothing is.
fn data_extents(descriptor: &OwnedFd, size: u64) -> Result<Option<Vec<Extent>>, Errno> {
    let mut extents = Vec::new();
    let mut position = 0;
    while position < size {
        let start = match seek(descriptor, SeekFrom::Data(position)) {
            Ok(start) => start.min(size),
            // No data behind this position.
            Err(Errno::NXIO) => break,
            // The file system knows no holes.
            Err(Errno::INVAL | Errno::OPNOTSUPP) => return Ok(None),
            Err(error) => return Err(error),
        };
        let end = if extents.len() + 1 < EXTENTS_MAX {
            seek(descriptor, SeekFrom::Hole(start)).map_or(size, |end| end.min(size))
        } else {
            size
        };
        if end <= start {
            break;
        }
        extents.push(Extent {
            offset: start,
            length: end - start,
        });
        position = end;
    }
    let whole = matches!(extents.as_slice(), [one] if one.offset == 0 && one.length == size);
    Ok((!whole).then_some(extents))
}

/// The ranges still to be read.
struct Ranges {
    left: std::vec::IntoIter<Extent>,
    position: u64,
    remaining: u64,
}

impl Ranges {
    fn new(extents: Option<&[Extent]>, size: u64) -> Self {
        let whole = Extent {
            offset: 0,
            length: size,
        };
        let list = extents.map_or_else(|| vec![whole], <[Extent]>::to_vec);
        Self {
            left: list.into_iter(),
            position: 0,
            remaining: 0,
        }
    }

    /// Gives position and length of what comes next, or `None` at the end.
    fn current(&mut self) -> Option<(u64, u64)> {
        while self.remaining == 0 {
            let extent = self.left.next()?;
            self.position = extent.offset;
            self.remaining = extent.length;
        }
        Some((self.position, self.remaining))
    }

    const fn advance(&mut self, length: u64) {
        self.position = self.position.saturating_add(length);
        self.remaining = self.remaining.saturating_sub(length);
    }
}

struct FileContent {
    descriptor: OwnedFd,
    opened: Status,
    extents: Option<Vec<Extent>>,
    ranges: Ranges,
    is_short: bool,
    naming: Arc<Naming>,
    path: TreePath,
}

impl Content for FileContent {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some((position, remaining)) = self.ranges.current() else {
            return Ok(0);
        };
        let length = usize::try_from(remaining).map_or(buffer.len(), |r| r.min(buffer.len()));
        let part = buffer.get_mut(..length).unwrap_or_default();
        if part.is_empty() {
            return Ok(0);
        }
        let count = loop {
            match pread(&self.descriptor, &mut *part, position) {
                Err(Errno::INTR) => {}
                result => break result?,
            }
        };
        self.is_short |= count == 0;
        self.ranges.advance(u64::try_from(count).unwrap_or(0));
        Ok(count)
    }

    fn extents(&self) -> Option<Vec<Extent>> {
        self.extents.clone()
    }

    fn finish(self: Box<Self>) -> Result<ContentEnd, SourceError> {
        let now = status::of_descriptor(&self.descriptor)
            .map_err(|error| failed("reading", &self.naming.object(&self.path), error.into()))?;
        if self.is_short || !now.is_as(&self.opened) {
            return Ok(ContentEnd::Changed);
        }
        Ok(ContentEnd::Steady)
    }
}
