//! More threads that look at directories shortly before the walk comes to them.
//!
//! Looking at a file takes a system call, and a wait for the disk where the system does not have it
//! in memory. The walk goes through its tree in one order; which directories come next is known, so
//! others can look at them meanwhile. What they find is given in the same order, and is the same
//! but for the moment at which it was looked at.

use std::sync::{Arc, Condvar, Mutex, PoisonError, TryLockError};
use std::thread::JoinHandle;

use edge::{SourceError, TreePath};

use super::listing::{Listing, Subdirectory, Tree};
use crate::content::failed;
use crate::directory::{Directory, lock};

/// So many directories of each level are offered at a time.
pub(super) const OFFERS: usize = 8;
/// Names that are looked at in one directory; what is left is for the walk.
const NAMES_AHEAD: usize = 512;
/// Items and names that wait for the walk, at most so many and those of the directories in work: a
/// directory of a million names lets the others wait.
const ITEMS_MAX: usize = 4096;
/// On one core, too, two: mostly they wait for the disk.
const THREADS_MIN: usize = 2;
const THREADS_MAX: usize = 4;

/// A directory that the walk will come to.
pub(super) struct Visit {
    tree: Arc<Tree>,
    parent: Arc<Directory>,
    below: Subdirectory,
    path: TreePath,
    /// Locked while a scout is there.
    state: Mutex<State>,
}

enum State {
    Ahead,
    Seen(Result<Listing, SourceError>),
    Taken,
}

impl Visit {
    pub(super) fn new(
        tree: &Arc<Tree>,
        parent: &Arc<Directory>,
        below: Subdirectory,
        path: TreePath,
    ) -> Self {
        Self {
            tree: Arc::clone(tree),
            parent: Arc::clone(parent),
            below,
            path,
            state: Mutex::new(State::Ahead),
        }
    }

    fn enter(&self) -> Result<Listing, SourceError> {
        let directory = self.parent.child(&self.below.name, self.below.identity);
        let directory =
            directory.map_err(|error| failed("entering", &self.tree.object(&self.path), error))?;
        Ok(Listing::of(&self.tree, directory, self.path.clone()))
    }

    fn is_taken(&self) -> bool {
        let state = self.state.try_lock();
        state.is_ok_and(|state| matches!(*state, State::Taken))
    }
}

/// The threads of one walk. They begin with the first offer.
#[derive(Default)]
pub(super) struct Scouts {
    board: Arc<Board>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

#[derive(Default)]
struct Board {
    notes: Mutex<Notes>,
    changed: Condvar,
}

#[derive(Default)]
struct Notes {
    /// What is needed first is last.
    offers: Vec<Arc<Visit>>,
    /// Items and names that wait for the walk.
    items: usize,
    is_over: bool,
}

impl Scouts {
    /// Offers directories, the one that is needed first at the beginning.
    pub(super) fn offer(&self, visits: &[Arc<Visit>]) {
        if visits.is_empty() {
            return;
        }
        if !self.begin() {
            return;
        }
        let mut notes = lock(&self.board.notes);
        while notes.offers.last().is_some_and(|visit| visit.is_taken()) {
            notes.offers.pop();
        }
        notes.offers.extend(visits.iter().rev().cloned());
        drop(notes);
        self.board.changed.notify_one();
    }

    /// Enters a directory, or gives what a scout found there.
    pub(super) fn take(&self, visit: &Visit) -> Result<Listing, SourceError> {
        let state = std::mem::replace(&mut *lock(&visit.state), State::Taken);
        let State::Seen(seen) = state else {
            return visit.enter();
        };
        let items = seen.as_ref().map_or(0, Listing::waiting);
        let mut notes = lock(&self.board.notes);
        let was_full = notes.items >= ITEMS_MAX;
        notes.items -= items;
        if was_full {
            self.board.changed.notify_all();
        }
        seen
    }

    /// Ends the threads; what they found stays.
    pub(super) fn end(&self) {
        lock(&self.board.notes).is_over = true;
        self.board.changed.notify_all();
        for thread in std::mem::take(&mut *lock(&self.threads)) {
            // One that panicked left its directory to the walk.
            drop(thread.join());
        }
    }

    /// Begins the threads if need be; false when there are none.
    fn begin(&self) -> bool {
        let mut threads = lock(&self.threads);
        if !threads.is_empty() || lock(&self.board.notes).is_over {
            return !threads.is_empty();
        }
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        for _ in 0..cores.clamp(THREADS_MIN, THREADS_MAX) {
            let board = Arc::clone(&self.board);
            let thread = std::thread::Builder::new().name("scout".to_owned());
            // The walk goes on without them.
            threads.extend(thread.spawn(move || board.scout()));
        }
        !threads.is_empty()
    }
}

impl Drop for Scouts {
    fn drop(&mut self) {
        self.end();
    }
}

impl Board {
    fn scout(&self) {
        while let Some(visit) = self.next() {
            let mut state = match visit.state.try_lock() {
                Ok(state) => state,
                Err(TryLockError::Poisoned(_) | TryLockError::WouldBlock) => continue,
            };
            if !matches!(*state, State::Ahead) {
                continue;
            }
            let mut seen = visit.enter();
            if let Ok(listing) = &mut seen {
                lock(&self.notes).items += listing.look_ahead(&visit.tree, NAMES_AHEAD);
            }
            *state = State::Seen(seen);
        }
    }

    fn next(&self) -> Option<Arc<Visit>> {
        let mut notes = lock(&self.notes);
        loop {
            if notes.is_over {
                return None;
            }
            if notes.items < ITEMS_MAX
                && let Some(visit) = notes.offers.pop()
            {
                return Some(visit);
            }
            let waiting = self.changed.wait(notes);
            notes = waiting.unwrap_or_else(PoisonError::into_inner);
        }
    }
}
