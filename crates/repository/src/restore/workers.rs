//! The threads that restore batches of files, while the tree is walked on.

use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::Scope;

use edge::Target;

use super::files::{Batch, Done};
use crate::domain::Domain;
use crate::index::Locate;
use crate::reader::ChunkReader;

/// Bounds of the number of threads. Two also on one core: one reads while the other writes.
const WORKERS: std::ops::RangeInclusive<usize> = 2..=8;

/// Hands out batches and takes back what became of them.
pub(super) struct Workers {
    batches: SyncSender<Batch>,
    done: Receiver<Vec<Done>>,
    under_way: usize,
}

impl Workers {
    /// Starts the threads; they end when this is dropped.
    pub(super) fn start<'scope, 'env: 'scope>(
        scope: &'scope Scope<'scope, 'env>,
        (domain, index): (&'env Domain, &'env dyn Locate),
        target: &'env dyn Target,
    ) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let count = cores.clamp(*WORKERS.start(), *WORKERS.end());
        let (batches, queue) = sync_channel(1);
        let (report, done) = channel();
        let queue = Arc::new(Mutex::new(queue));
        for _ in 0..count {
            let (queue, report) = (Arc::clone(&queue), report.clone());
            scope.spawn(move || work(&queue, &report, ChunkReader::new(domain, index), target));
        }
        Self {
            batches,
            done,
            under_way: 0,
        }
    }

    /// Hands out a batch, waiting while all threads are busy. False when there are none any more.
    pub(super) fn give(&mut self, batch: Batch) -> bool {
        self.under_way += 1;
        self.batches.send(batch).is_ok()
    }

    /// Gives the results of one batch, if one is finished.
    pub(super) fn try_take(&mut self) -> Option<Vec<Done>> {
        let done = self.done.try_recv().ok()?;
        self.under_way -= 1;
        Some(done)
    }

    /// Waits for the results of one batch; `None` when none is under way.
    pub(super) fn take(&mut self) -> Option<Vec<Done>> {
        if self.under_way == 0 {
            return None;
        }
        self.under_way -= 1;
        self.done.recv().ok()
    }
}

fn work(
    queue: &Mutex<Receiver<Batch>>,
    report: &Sender<Vec<Done>>,
    mut reader: ChunkReader<'_>,
    target: &dyn Target,
) {
    let next = || {
        let queue = queue.lock().unwrap_or_else(PoisonError::into_inner);
        queue.recv().ok()
    };
    while let Some(batch) = next() {
        if report.send(batch.write(&mut reader, target)).is_err() {
            return;
        }
    }
}
