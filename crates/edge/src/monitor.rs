//! What work tells while it goes on, and how it is asked to stop.

use model::{ByteCount, DestinationName};

use crate::path::TreePath;

/// What a run is busy with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Phase {
    /// Opening repositories and loading indexes.
    Opening,
    /// Reading the source, storing what is new.
    Storing,
    /// Writing indexes and snapshots.
    Publishing,
    /// Reading back what was stored.
    Verifying,
    /// Removing snapshots that retention lets go.
    Pruning,
    /// Planning a restore.
    Planning,
    /// Restoring entries.
    Restoring,
}

/// One piece of news.
#[derive(Debug, Clone, Copy)]
pub enum Event<'a> {
    /// A phase began.
    Phase(Phase),
    /// Work is about to look at this entry.
    Object(&'a TreePath),
    /// Totals so far in this phase.
    Progress {
        /// Entries done.
        entries: u64,
        /// Content bytes done, unchanged ones included.
        bytes: ByteCount,
        /// Content bytes expected, when known.
        bytes_expected: Option<ByteCount>,
    },
    /// One object failed; work goes on.
    Failed {
        /// Which object, escaped.
        object: &'a str,
        /// Why, causes outermost first.
        error: &'a str,
    },
    /// Something that a reader of the log should know; nothing failed. It names no file.
    Note(&'a str),
    /// One destination failed; work goes on with the others.
    DestinationLost {
        /// Which destination.
        destination: &'a DestinationName,
        /// Why, causes outermost first.
        error: &'a str,
    },
}

/// Receives news of the work and tells it whether to stop. Calls come often: return at once.
pub trait Monitor: Send + Sync {
    /// Receives one piece of news.
    fn event(&self, event: Event<'_>);

    /// True when the work should end at the next safe point.
    fn is_cancelled(&self) -> bool {
        false
    }

    /// True while the work should rest: what was read is stored, and nothing more is read but a few short files. Only
    /// a backup rests.
    fn is_paused(&self) -> bool {
        false
    }
}

/// A monitor that says nothing and never stops the work.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Monitor for Silent {
    fn event(&self, _: Event<'_>) {}
}
