//! Looking into repositories: which snapshots there are, what is in them.

use std::path::Path;

use edge::{Entry, TreePath};
use model::{ByteCount, DestinationName, Instant, RunId, SnapshotId};
use repository::{Domain, ScheduleKey, Snapshot, SnapshotStatus, Unlock, View, chain};
use serde::{Deserialize, Serialize};

use crate::backup::{RunDestination, with_cache};
use crate::place::{StorePlace, open_place, scratch};

/// One snapshot at one destination.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotRow {
    /// Its id.
    pub id: SnapshotId,
    /// Where it is.
    pub destination: DestinationName,
    /// When its walk began.
    pub taken_at: Instant,
    /// The run that made it.
    pub run: Option<RunId>,
    /// True when nothing is missing from it.
    pub is_complete: bool,
    /// Number of entries.
    pub entries: u64,
    /// Bytes of content.
    pub bytes: ByteCount,
}

/// Lists the snapshots of a schedule at one destination, oldest first. No repository yet is no
/// snapshot.
///
/// # Errors
///
/// One line for people: the place cannot be reached, the key does not fit, objects are damaged.
pub fn snapshots_at(
    destination: &RunDestination,
    key: &ScheduleKey,
    cache: &Path,
) -> Result<Vec<SnapshotRow>, String> {
    let place = destination.place.as_ref().map_err(|error| chain(error))?;
    let store = open_place(place).map_err(|error| chain(&error))?;
    let domain = match Domain::open(store, key) {
        Err(repository::RepositoryError::NoRepository { .. }) => return Ok(Vec::new()),
        domain => domain.map_err(|error| chain(&error))?,
    };
    let domain = with_cache(domain, cache, &destination.name);
    let list = domain.snapshots().map_err(|error| chain(&error))?;
    if let Some(error) = list.unreadable.first() {
        return Err(chain(error));
    }
    Ok(list
        .snapshots
        .iter()
        .map(|snapshot| row(&destination.name, snapshot))
        .collect())
}

fn row(destination: &DestinationName, snapshot: &Snapshot) -> SnapshotRow {
    SnapshotRow {
        id: snapshot.id,
        destination: destination.clone(),
        taken_at: snapshot.body.started_at,
        run: snapshot.body.run,
        is_complete: snapshot.body.status == SnapshotStatus::Complete,
        entries: snapshot.body.entries,
        bytes: snapshot.body.bytes,
    }
}

/// Opens one snapshot at a destination for reading.
///
/// # Errors
///
/// One line for people.
pub fn open_snapshot(
    destination: &RunDestination,
    key: &ScheduleKey,
    id: SnapshotId,
) -> Result<(View, Snapshot), String> {
    let place = destination.place.as_ref().map_err(|error| chain(error))?;
    let domain = open_domain(place, key).map_err(|error| chain(&error))?;
    let snapshot = domain.snapshot(id).map_err(|error| chain(&error))?;
    let view = View::open(domain).map_err(|error| chain(&error))?;
    Ok((view, snapshot))
}

/// Says why a domain cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The place cannot be opened.
    #[error(transparent)]
    Place(#[from] crate::place::PlaceError),
    /// The repository cannot be opened.
    #[error(transparent)]
    Repository(#[from] repository::RepositoryError),
    /// The directory for a new one cannot be made.
    #[error("making the directory {path}", path = path.display())]
    Directory {
        /// Which one.
        path: std::path::PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
}

impl OpenError {
    /// Gives the exit code of a program that ends because of it.
    #[must_use]
    pub fn exit(&self) -> model::Exit {
        match self {
            Self::Repository(error) => error.exit(),
            Self::Place(crate::place::PlaceError::Store(error)) => match error.fault {
                edge::StoreFault::NotFound => model::Exit::NoRepository,
                edge::StoreFault::Unreachable => model::Exit::Unreachable,
                _ => model::Exit::Failed,
            },
            Self::Place(_) => model::Exit::Usage,
            Self::Directory { .. } => model::Exit::Failed,
        }
    }
}

/// Opens the domain of a key at a place, with no agent and no controller anywhere.
///
/// # Errors
///
/// `OpenError`; [`OpenError::exit`] gives the exit code.
pub fn open_domain(place: &StorePlace, key: &ScheduleKey) -> Result<Domain, OpenError> {
    Ok(Domain::open(open_place(place)?, key)?.with_scratch(scratch()))
}

/// Opens the domain of a key or password at a place, with no agent and no controller anywhere.
///
/// # Errors
///
/// As [`open_domain`].
pub fn open_domain_with(place: &StorePlace, unlock: &Unlock<'_>) -> Result<Domain, OpenError> {
    Ok(Domain::open_with(open_place(place)?, unlock)?)
}

/// Lists one directory of a snapshot, in order.
///
/// # Errors
///
/// `RepositoryError` when a page cannot be read.
pub fn list(
    view: &View,
    snapshot: &Snapshot,
    directory: &TreePath,
) -> Result<Vec<Entry>, repository::RepositoryError> {
    view.list(snapshot, directory)
}
