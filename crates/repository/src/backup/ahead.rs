//! The walk of the source, on a thread of its own and a little ahead of the work, and the threads that read short files
//! meanwhile.
//!
//! Looking at a file costs system calls, deciding what to do with it costs time of ours: both at
//! once take half as long.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, SyncSender, sync_channel};
use std::thread::Scope;

use edge::{Entry, EntryKind, FileTime, Source, SourceError, SourceItem};
use sealing::Keyring;

use super::parent::{Parent, mailbox_of};
use super::pipeline::Flow;
use super::short::{Job, Short, start_readers};

/// Items that travel together: each hand-over wakes a thread.
const ITEMS_MAX: usize = 256;
/// Files that are read together.
const FILES_MAX: usize = 64;
/// Portions under way beside those that are being read: openers hold on to their directory, so no more than a few.
const PORTIONS_WAITING: usize = 2;
/// The same with those that the walk fills and the work takes from.
#[cfg(test)]
pub(crate) const PORTIONS_BESIDE: usize = PORTIONS_WAITING + 2;

/// One thing of the source, and its content where that was read ahead.
pub(super) struct Item {
    pub(super) item: Result<SourceItem, SourceError>,
    pub(super) short: Option<Short>,
}

/// Items on their way.
enum Portion {
    Ready(Vec<Item>),
    /// Of some the content is being read.
    Reading(Receiver<Vec<Item>>),
}

/// Which files are sure to be read: those that changed after all snapshots that the run is compared with were begun.
pub(super) struct New {
    /// None where there are no such snapshots.
    since: Option<FileTime>,
    /// The work is behind the end of them: what comes now is in none.
    are_all: Arc<AtomicBool>,
}

impl New {
    pub(super) fn than(parents: &[Parent<'_>]) -> Self {
        Self {
            since: parents.iter().map(Parent::steady_before).max(),
            are_all: Arc::default(),
        }
    }

    /// Gives what to set when all that comes is new.
    pub(super) fn are_all(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.are_all)
    }

    fn has(&self, entry: &Entry) -> bool {
        self.since.is_none_or(|since| {
            // A message that was renamed is not read.
            (entry.changed >= since && mailbox_of(&entry.path).is_none())
                || self.are_all.load(Ordering::Relaxed)
        })
    }
}

/// The items of a source, in their order.
pub(super) struct Ahead {
    portions: Receiver<Portion>,
    portion: std::vec::IntoIter<Item>,
}

impl Ahead {
    /// Begins to walk. The walk ends when this is dropped, or at its own end.
    pub(super) fn start<'scope, 'env: 'scope>(
        scope: &'scope Scope<'scope, 'env>,
        source: &'env mut dyn Source,
        new: New,
        (flow, keyring): (&Arc<Flow>, &Keyring),
    ) -> Self {
        let (sender, portions) = sync_channel(flow.plan.readers + PORTIONS_WAITING);
        let walk = Walk {
            new,
            short_bytes: flow.plan.short_bytes as u64,
            portion_bytes: flow.plan.portion_bytes() as u64,
            jobs: start_readers(scope, flow, keyring),
            portions: sender,
        };
        scope.spawn(move || walk.run(source));
        Self {
            portions,
            portion: Vec::new().into_iter(),
        }
    }

    /// Gives the next item, or `None` at the end.
    pub(super) fn next(&mut self) -> Option<Item> {
        loop {
            if let Some(item) = self.portion.next() {
                return Some(item);
            }
            let portion = match self.portions.recv().ok()? {
                Portion::Ready(items) => items,
                // The walk would end as if all had been seen: what a reader lost is told by its panic.
                Portion::Reading(done) => done.recv().ok()?,
            };
            self.portion = portion.into_iter();
        }
    }
}

struct Walk {
    new: New,
    short_bytes: u64,
    portion_bytes: u64,
    jobs: Sender<Job>,
    portions: SyncSender<Portion>,
}

impl Walk {
    fn run(self, source: &mut dyn Source) {
        let mut is_over = false;
        while !is_over {
            let mut items = Vec::with_capacity(ITEMS_MAX);
            let (mut wanted, mut bytes) = (Vec::new(), 0);
            while !is_over
                && items.len() < ITEMS_MAX
                && wanted.len() < FILES_MAX
                && bytes < self.portion_bytes
            {
                let item = match source.next() {
                    Ok(Some(item)) => Ok(item),
                    Ok(None) => {
                        is_over = true;
                        break;
                    }
                    Err(error) => Err(error),
                };
                is_over = item.is_err();
                if let Some(size) = self.is_wanted(&item) {
                    wanted.push(items.len());
                    bytes += size;
                }
                items.push(Item { item, short: None });
            }
            if self.give(items, wanted).is_none() {
                return;
            }
        }
    }

    /// Gives the size of a file that is short and sure to be read.
    fn is_wanted(&self, item: &Result<SourceItem, SourceError>) -> Option<u64> {
        let Ok(SourceItem::Entry(entry, Some(_))) = item else {
            return None;
        };
        let is_wanted = entry.kind == EntryKind::File
            && entry.link_count == 1
            && entry.size_bytes <= self.short_bytes
            && self.new.has(entry);
        is_wanted.then_some(entry.size_bytes)
    }

    /// Hands items on; `None` when nobody takes them any more.
    fn give(&self, items: Vec<Item>, wanted: Vec<usize>) -> Option<()> {
        if wanted.is_empty() {
            return self.portions.send(Portion::Ready(items)).ok();
        }
        let (done, reading) = sync_channel(1);
        self.portions.send(Portion::Reading(reading)).ok()?;
        let job = Job {
            items,
            wanted,
            done,
        };
        self.jobs.send(job).ok()
    }
}
