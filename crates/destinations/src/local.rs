//! A directory of this server: the simplest destination, also used for the local cache.
//!
//! Objects are files below one root. They are written to a temporary name in the same directory,
//! synced, renamed, and the directory is synced, so that an object is absent or whole after a
//! power cut. Nobody but Backstay writes below the root, so paths are used by name here.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::ops::Range;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use edge::{ByteRange, ObjectInfo, ObjectName, ObjectStore, StoreError, StoreFault};

/// Temporary files begin with this; it cannot begin an object name's last component by our naming,
/// and a listing leaves such files out.
const TEMPORARY: &str = ".tmp-";
/// Nothing is written for so long: a temporary file that is older was left behind by a cut.
const TEMPORARY_SECS_MAX: u64 = 24 * 60 * 60;

/// Objects of this size are packs of content, which is seldom read again. What is shorter stays in the page cache.
const LARGE_BYTES_MIN: u64 = 8 << 20;
/// Shorter pieces of them are read through it, too.
const PIECE_BYTES_MIN: u64 = 1 << 20;

/// Objects in a directory.
#[derive(Debug)]
pub struct LocalStore {
    root: PathBuf,
    gate: Option<Arc<dyn Gate>>,
}

/// A file-system call that a local store is about to make.
#[derive(Debug, Clone, Copy)]
pub enum FileCall<'a> {
    /// Making a directory.
    MakeDirectory(&'a Path),
    /// Creating a file.
    Create(&'a Path),
    /// Writing all bytes of a file that was created.
    Write(&'a Path, &'a [u8]),
    /// Making the bytes of a file durable.
    Sync(&'a Path),
    /// Giving a file its final name.
    Rename(&'a Path, &'a Path),
    /// Making names in a directory durable.
    SyncDirectory(&'a Path),
    /// Deleting a file.
    Remove(&'a Path),
    /// Looking at a file or directory, or reading it.
    Look(&'a Path),
}

/// Stands before each file-system call of a local store, so that a test can end the world there.
pub trait Gate: std::fmt::Debug + Send + Sync {
    /// Lets a call through.
    ///
    /// # Errors
    ///
    /// What the call is to fail with instead.
    fn pass(&self, call: FileCall<'_>) -> io::Result<()>;
}

impl LocalStore {
    /// Uses an existing directory. It is not made here: an absent directory is more likely a disk
    /// that is not mounted than a wish to write to the root file system.
    ///
    /// # Errors
    ///
    /// `StoreError` when the directory is absent (`NotFound`), may not be read (`Denied`), or is
    /// not a directory.
    pub fn open(root: &Path) -> Result<Self, StoreError> {
        let store = Self {
            root: root.to_owned(),
            gate: None,
        };
        match fs::metadata(root) {
            Ok(found) if found.is_dir() => Ok(store),
            Ok(_) => Err(store.error(
                "opening",
                "the directory",
                &io::ErrorKind::NotADirectory.into(),
            )),
            Err(error) => Err(store.error("opening", "the directory", &error)),
        }
    }

    /// Puts a gate before each file-system call.
    #[must_use]
    pub fn with_gate(self, gate: Arc<dyn Gate>) -> Self {
        Self {
            gate: Some(gate),
            ..self
        }
    }

    fn pass(&self, call: FileCall<'_>) -> io::Result<()> {
        self.gate.as_ref().map_or(Ok(()), |gate| gate.pass(call))
    }

    fn path(&self, name: &ObjectName) -> PathBuf {
        self.root.join(name.as_str())
    }

    fn error(&self, operation: &'static str, object: &str, error: &io::Error) -> StoreError {
        let fault = match error.kind() {
            io::ErrorKind::NotFound => StoreFault::NotFound,
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                StoreFault::Denied
            }
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => StoreFault::Full,
            io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData => StoreFault::Malformed,
            _ => StoreFault::Other,
        };
        StoreError {
            operation,
            object: object.to_owned(),
            store: self.describe(),
            fault,
            source: io::Error::new(error.kind(), error.to_string()).into(),
        }
    }

    fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let directory = path.parent().unwrap_or(&self.root);
        self.make_directories(directory)?;
        let mut random = [0; 8];
        getrandom::fill(&mut random).map_err(|error| io::Error::other(error.to_string()))?;
        let temporary = directory.join(format!("{TEMPORARY}{:016x}", u64::from_ne_bytes(random)));
        let written = self.write_new(&temporary, bytes).and_then(|()| {
            self.pass(FileCall::Rename(&temporary, path))?;
            fs::rename(&temporary, path)
        });
        if written.is_err() {
            // The cause is reported; a temporary file that stays behind is swept by a later listing.
            self.remove(&temporary).unwrap_or_default();
        }
        written.and_then(|()| self.sync_directory(directory))
    }

    fn write_new(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        self.pass(FileCall::Create(path))?;
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)?;
        self.pass(FileCall::Write(path, bytes))?;
        let file = reach(file, bytes.len() as u64);
        file.write_all_at(bytes, 0)?;
        self.pass(FileCall::Sync(path))?;
        file.file().sync_data()
    }

    fn sync_directory(&self, path: &Path) -> io::Result<()> {
        self.pass(FileCall::SyncDirectory(path))?;
        File::open(path)?.sync_all()
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.pass(FileCall::Remove(path))?;
        fs::remove_file(path)
    }

    fn look(&self, path: &Path) -> io::Result<fs::Metadata> {
        self.pass(FileCall::Look(path))?;
        fs::metadata(path)
    }

    fn open_file(&self, path: &Path) -> io::Result<File> {
        self.pass(FileCall::Look(path))?;
        File::open(path)
    }

    /// Makes the directories below the root, each made durable in its parent.
    fn make_directories(&self, directory: &Path) -> io::Result<()> {
        if directory.is_dir() || directory == self.root {
            return Ok(());
        }
        let parent = directory.parent().unwrap_or(&self.root);
        self.make_directories(parent)?;
        self.pass(FileCall::MakeDirectory(directory))?;
        match DirBuilder::new().mode(0o700).create(directory) {
            Ok(()) => self.sync_directory(parent),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Removes a temporary file that nobody writes any more. Whoever may only read leaves it.
    fn sweep(&self, entry: &fs::DirEntry) {
        let modified = entry.metadata().and_then(|found| found.modified()).ok();
        let age = modified.and_then(|at| at.elapsed().ok());
        if age.is_some_and(|age| age.as_secs() > TEMPORARY_SECS_MAX) {
            self.remove(&entry.path()).unwrap_or_default();
        }
    }

    fn walk(
        &self,
        directory: &Path,
        name: &str,
        each: &mut dyn FnMut(ObjectInfo),
    ) -> io::Result<()> {
        self.pass(FileCall::Look(directory))?;
        let entries = match fs::read_dir(directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            entries => entries?,
        };
        for entry in entries {
            let entry = entry?;
            let Some(part) = entry.file_name().to_str().map(str::to_owned) else {
                continue;
            };
            let below = if name.is_empty() {
                part.clone()
            } else {
                format!("{name}/{part}")
            };
            let kind = entry.file_type()?;
            if kind.is_dir() {
                self.walk(&entry.path(), &below, each)?;
            } else if kind.is_file() && part.starts_with(TEMPORARY) {
                self.sweep(&entry);
            } else if kind.is_file()
                && let Ok(name) = ObjectName::new(below)
            {
                match entry.metadata() {
                    Ok(found) => each(ObjectInfo {
                        name,
                        size_bytes: found.len(),
                    }),
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(())
    }
}

impl ObjectStore for LocalStore {
    fn describe(&self) -> String {
        self.root.display().to_string()
    }

    fn put(&self, name: &ObjectName, bytes: &[u8]) -> Result<(), StoreError> {
        // A disk that went away leaves an empty mount point or none: never make the root.
        self.look(&self.root)
            .and_then(|_| self.write(&self.path(name), bytes))
            .map_err(|error| self.error("writing", name.as_str(), &error))
    }

    fn get(&self, name: &ObjectName, bytes_max: u64) -> Result<Vec<u8>, StoreError> {
        let mut bytes = Vec::new();
        self.get_into(name, bytes_max, &mut bytes)?;
        Ok(bytes)
    }

    fn get_into(
        &self,
        name: &ObjectName,
        bytes_max: u64,
        buffer: &mut Vec<u8>,
    ) -> Result<(), StoreError> {
        let mut read = || {
            let file = self.open_file(&self.path(name))?;
            let size = file.metadata()?.len();
            if size > bytes_max {
                let text = format!("{size} bytes, expected at most {bytes_max}");
                return Err(io::Error::new(io::ErrorKind::InvalidData, text));
            }
            read_exactly((file, size), 0..size, buffer)
        };
        read().map_err(|error| self.error("reading", name.as_str(), &error))
    }

    fn get_range(&self, name: &ObjectName, range: ByteRange) -> Result<Vec<u8>, StoreError> {
        let mut bytes = Vec::new();
        self.get_range_into(name, range, &mut bytes)?;
        Ok(bytes)
    }

    fn get_range_into(
        &self,
        name: &ObjectName,
        range: ByteRange,
        buffer: &mut Vec<u8>,
    ) -> Result<(), StoreError> {
        let mut read = || {
            let file = self.open_file(&self.path(name))?;
            let size = file.metadata()?.len();
            let (offset, length) = match range {
                ByteRange::At { offset, length } => (offset, length),
                ByteRange::Suffix { length } => (size.saturating_sub(length), length),
            };
            if offset >= size && size > 0 || length == 0 {
                let text = format!("range at {offset} is outside of {size} bytes");
                return Err(io::Error::new(io::ErrorKind::InvalidData, text));
            }
            let end = offset + length.min(size - offset);
            read_exactly((file, size), offset..end, buffer)
        };
        read().map_err(|error| self.error("reading", name.as_str(), &error))
    }

    fn size(&self, name: &ObjectName) -> Result<Option<u64>, StoreError> {
        match self.look(&self.path(name)) {
            Ok(found) => Ok(Some(found.len())),
            // An absent object is an answer only while the root itself is there.
            Err(error) if error.kind() == io::ErrorKind::NotFound && self.root.is_dir() => Ok(None),
            Err(error) => Err(self.error("looking at", name.as_str(), &error)),
        }
    }

    fn list(&self, prefix: &str, each: &mut dyn FnMut(ObjectInfo)) -> Result<(), StoreError> {
        let below = prefix.trim_end_matches('/');
        let shown = if below.is_empty() { "objects" } else { below };
        self.look(&self.root)
            .and_then(|_| self.walk(&self.root.join(below), below, each))
            .map_err(|error| self.error("listing", shown, &error))
    }

    fn delete(&self, name: &ObjectName) -> Result<(), StoreError> {
        let path = self.path(name);
        match self.remove(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && self.root.is_dir() => Ok(()),
            removed => removed
                .and_then(|()| self.sync_directory(path.parent().unwrap_or(&self.root)))
                .map_err(|error| self.error("deleting", name.as_str(), &error)),
        }
    }
}

/// Large objects go past the page cache.
fn reach(file: File, size: u64) -> direct::File<File> {
    if size < LARGE_BYTES_MIN {
        direct::File::ordinary(file)
    } else {
        direct::File::past_cache(file)
    }
}

/// Reads a piece of an object, given with its size, in place of what a buffer holds.
fn read_exactly(
    (file, size): (File, u64),
    piece: Range<u64>,
    buffer: &mut Vec<u8>,
) -> io::Result<()> {
    let length = piece.end - piece.start;
    let file = if length < PIECE_BYTES_MIN {
        direct::File::ordinary(file)
    } else {
        reach(file, size)
    };
    file.read_at(piece, buffer)?;
    if buffer.len() as u64 != length {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> ObjectName {
        ObjectName::new(text).unwrap()
    }

    #[test]
    fn a_vanished_root_is_an_error_and_is_not_made_again() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().join("disk");
        fs::create_dir(&root).unwrap();
        let store = LocalStore::open(&root).unwrap();
        fs::remove_dir(&root).unwrap();
        assert_eq!(
            store.put(&name("a/b"), b"x").unwrap_err().fault,
            StoreFault::NotFound
        );
        assert!(store.size(&name("a/b")).is_err());
        assert!(store.list("", &mut |_| {}).is_err());
        assert!(!root.exists());
        assert_eq!(
            LocalStore::open(&root).unwrap_err().fault,
            StoreFault::NotFound
        );
    }

    #[test]
    fn what_a_crash_left_half_is_not_listed_and_goes_after_a_day() {
        let directory = tempfile::tempdir().unwrap();
        let store = LocalStore::open(directory.path()).unwrap();
        store.put(&name("d/a"), b"whole").unwrap();
        let (old, young) = ("d/.tmp-00", "d/.tmp-01");
        for left in [old, young] {
            fs::write(directory.path().join(left), b"half").unwrap();
        }
        let long_ago = std::time::SystemTime::now() - std::time::Duration::from_secs(90_000);
        let file = File::options().write(true).open(directory.path().join(old));
        file.unwrap().set_modified(long_ago).unwrap();
        let mut names = Vec::new();
        store
            .list("d/", &mut |found| names.push(found.name.to_string()))
            .unwrap();
        assert_eq!(names, ["d/a"]);
        assert!(!directory.path().join(old).exists());
        assert!(directory.path().join(young).exists(), "it may be under way");
    }
}
