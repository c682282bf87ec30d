//! What can go wrong with a repository.

use edge::{ObjectName, StoreError, StoreFault};
use model::{ErrorClass, Exit, SnapshotId};
use sealing::{ChunkId, ObjectError, Right};
use thiserror::Error;

use crate::wire::FormatError;

/// Says why a repository, a domain or a snapshot cannot be used.
#[derive(Debug, Error)]
pub enum RepositoryError {
    /// The place holds no repository.
    #[error("{place} holds no repository")]
    NoRepository {
        /// Where.
        place: String,
    },
    /// The key opens no domain there.
    #[error("the key opens nothing at {place}")]
    WrongKey {
        /// Where.
        place: String,
    },
    /// The password opens no domain there.
    #[error("the password opens nothing at {place}")]
    WrongPassword {
        /// Where.
        place: String,
    },
    /// The slot of the key was replaced or taken away.
    #[error(
        "the key was replaced or taken away at {place}: another key or password opens the backups \
         that it began"
    )]
    KeyGone {
        /// Where.
        place: String,
    },
    /// The slot that was opened does not allow it.
    #[error("the key that was given has no right to {right}, at {place}")]
    NoRight {
        /// What it may not.
        right: Right,
        /// Where.
        place: String,
    },
    /// A copy of a domain was opened with other rights than the first one, or has other epochs.
    #[error(
        "the key has other rights at {place} than at the first destination, or one of them lacks \
         a newer key"
    )]
    OtherCopy {
        /// Where.
        place: String,
    },
    /// There is no such slot.
    #[error("no key {slot} opens the backups at {place}")]
    NoSlot {
        /// Its name.
        slot: String,
        /// Where.
        place: String,
    },
    /// Without this slot nothing would open the domain with all rights.
    #[error(
        "key {slot} is the last one with all rights at {place}: without it nobody could read the backups"
    )]
    LastSlot {
        /// Its name.
        slot: String,
        /// Where.
        place: String,
    },
    /// The key opens a slot already.
    #[error("the key opens the backups at {place} already")]
    SlotTaken {
        /// Where.
        place: String,
    },
    /// A newer program wrote an object.
    #[error("{object} at {place} was written by a newer program")]
    Newer {
        /// Which object.
        object: ObjectName,
        /// Where.
        place: String,
        /// What is new about it.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A newer program made the repository.
    #[error("the repository at {place} has format version {version}, this program knows version 1")]
    Version {
        /// Where.
        place: String,
        /// Its version.
        version: u64,
    },
    /// There is no such snapshot.
    #[error("there is no snapshot {id} at {place}")]
    NoSnapshot {
        /// Which one.
        id: SnapshotId,
        /// Where.
        place: String,
    },
    /// A stored object is damaged.
    #[error("{object} at {place} is damaged")]
    Damaged {
        /// Which object.
        object: ObjectName,
        /// Where.
        place: String,
        /// What is wrong with it.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Stored content cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The place cannot be reached, is full or refuses.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Something could not be sealed.
    #[error("sealing an object")]
    Sealing(#[source] ObjectError),
    /// The index does not fit into memory, and its scratch file cannot be used.
    #[error("keeping the index in a scratch file on this machine")]
    Scratch(#[source] std::io::Error),
    /// A thread of the run ended early, for lack of memory.
    #[error("memory ran out while storing; what was stored is kept for the next run")]
    Exhausted,
    /// The work was silent for so long that it was given up, and packs that it relied on may be
    /// gone.
    #[error(
        "this gave no sign for so long that it was given up, and what it relied on at {place} may \
         be deleted by now; nothing of it counts, earlier snapshots are untouched, and the next run \
         does it again"
    )]
    GivenUp {
        /// Where.
        place: String,
    },
    /// The monitor asked to stop.
    #[error("the work was cancelled")]
    Cancelled,
}

/// True when an object is not there or not of the length that it has to have: then it is the
/// object that is damaged, and not the place that cannot be read.
pub(crate) const fn is_loss(error: &StoreError) -> bool {
    matches!(error.fault, StoreFault::NotFound | StoreFault::Malformed)
}

impl RepositoryError {
    /// Says what a caller should do about it.
    #[must_use]
    pub const fn class(&self) -> ErrorClass {
        match self {
            Self::Store(error) | Self::Read(ReadError::Store(error)) => error.class(),
            _ => ErrorClass::Never,
        }
    }

    /// Gives the exit code of a program that ends because of it.
    #[must_use]
    pub fn exit(&self) -> Exit {
        match self {
            Self::NoRepository { .. } => Exit::NoRepository,
            Self::WrongKey { .. }
            | Self::WrongPassword { .. }
            | Self::KeyGone { .. }
            | Self::NoRight { .. } => Exit::WrongKey,
            Self::Damaged { .. } => Exit::Damage,
            Self::Cancelled => Exit::Interrupted,
            Self::Store(error) => store_exit(error),
            Self::Read(error) => error.exit(),
            Self::Version { .. }
            | Self::Newer { .. }
            | Self::OtherCopy { .. }
            | Self::NoSlot { .. }
            | Self::LastSlot { .. }
            | Self::SlotTaken { .. }
            | Self::NoSnapshot { .. }
            | Self::Sealing(_)
            | Self::Scratch(_)
            | Self::Exhausted
            | Self::GivenUp { .. } => Exit::Failed,
        }
    }
}

fn store_exit(error: &StoreError) -> Exit {
    match error.class() {
        ErrorClass::RetryNow | ErrorClass::RetryLater => Exit::Unreachable,
        ErrorClass::Never => Exit::Failed,
    }
}

/// Says why stored content cannot be read.
#[derive(Debug, Error)]
pub enum ReadError {
    /// No index names the chunk.
    #[error("chunk {chunk} is in no index: its pack is lost")]
    Unknown {
        /// Which chunk.
        chunk: ChunkId,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A frame does not open.
    #[error("frame {frame} of {pack} is damaged")]
    Frame {
        /// In which pack.
        pack: ObjectName,
        /// Its number.
        frame: u16,
        /// What is wrong with it.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A part of an index segment does not open.
    #[error("{segment} is damaged")]
    Segment {
        /// Which segment.
        segment: ObjectName,
        /// What is wrong with it.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A chunk is not what its name says.
    #[error("chunk {chunk} in {pack} does not match its name")]
    Mismatch {
        /// Which chunk.
        chunk: ChunkId,
        /// In which pack.
        pack: ObjectName,
    },
    /// A page or list does not follow the format.
    #[error("chunk {chunk} cannot be understood")]
    Format {
        /// Which chunk.
        chunk: ChunkId,
        /// What is wrong with it.
        #[source]
        source: FormatError,
    },
}

impl ReadError {
    pub(crate) fn exit(&self) -> Exit {
        match self {
            // What an index names and is not there was lost.
            Self::Store(error) if error.fault != StoreFault::NotFound => store_exit(error),
            _ => Exit::Damage,
        }
    }
}

/// Shows an error with its causes on one line, outermost first.
#[must_use]
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
