//! Where a restore to the server itself goes: trees to the file system, dumps to the database.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use edge::{Entry, EntryKind, Extent, FileSink, Target, TargetError, TreePath};
use safefs::RestoreTarget;

use crate::load::{LoadConnection, LoadService, Loaded};
use crate::name::database_of_path;

/// A target that loads dumps into their databases and leaves the rest to [`RestoreTarget`].
pub struct ServerTarget {
    files: RestoreTarget,
    load: LoadService,
    id: String,
    loaded: Arc<Mutex<Vec<Loaded>>>,
}

impl ServerTarget {
    /// Joins both; `id` names what is kept of databases that are replaced: `[a-z0-9-]`, unique.
    #[must_use]
    pub fn new(files: RestoreTarget, load: LoadService, id: &str) -> Self {
        Self {
            files,
            load,
            id: id.to_owned(),
            loaded: Arc::default(),
        }
    }

    /// Gives the part for files, which knows what it published.
    #[must_use]
    pub const fn files(&self) -> &RestoreTarget {
        &self.files
    }

    /// Gives the databases that were loaded.
    #[must_use]
    pub fn loaded(&self) -> Vec<Loaded> {
        lock(&self.loaded).clone()
    }
}

impl Target for ServerTarget {
    fn create(&self, entry: &Entry) -> Result<(), TargetError> {
        let holds_dumps = entry.path.components().nth(1) == Some(b"databases");
        if holds_dumps && entry.kind == EntryKind::Directory {
            return Ok(());
        }
        self.files.create(entry)
    }

    fn takes_in_order(&self, entry: &Entry) -> bool {
        database_of_path(&entry.path).is_some() || self.files.takes_in_order(entry)
    }

    fn open(
        &self,
        entry: &Entry,
        extents: Option<&[Extent]>,
    ) -> Result<Box<dyn FileSink>, TargetError> {
        match database_of_path(&entry.path) {
            Some(database) => Ok(Box::new(LoadSink {
                connection: Mutex::new(self.load.open(&database, &self.id)?),
                loaded: Arc::clone(&self.loaded),
            })),
            None => self.files.open(entry, extents),
        }
    }

    fn link(&self, entry: &Entry, first: &TreePath) -> Result<(), TargetError> {
        self.files.link(entry, first)
    }

    fn finish(&mut self) -> Vec<TargetError> {
        self.files.finish()
    }
}

struct LoadSink {
    connection: Mutex<LoadConnection>,
    loaded: Arc<Mutex<Vec<Loaded>>>,
}

impl FileSink for LoadSink {
    fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<(), TargetError> {
        lock(&self.connection).write_at(offset, bytes)
    }

    fn finish(self: Box<Self>) -> Result<(), TargetError> {
        let connection = self
            .connection
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner);
        let loaded = connection.complete()?;
        lock(&self.loaded).push(loaded);
        Ok(())
    }
}

/// What these guard is whole also after a panic.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
