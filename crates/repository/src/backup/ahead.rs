//! The walk of the source, on a thread of its own and a little ahead of the work.
//!
//! Looking at a file costs system calls, deciding what to do with it costs time of ours: both at
//! once take half as long.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::Scope;

use edge::{Source, SourceError, SourceItem};

/// Items that travel together: each hand-over wakes a thread.
const BATCH_ITEMS: usize = 256;
/// Batches under way. Openers hold on to their directory, so no more than a few.
const BATCHES_MAX: usize = 4;

type Item = Result<SourceItem, SourceError>;

/// The items of a source, in their order.
pub(super) struct Ahead {
    batches: Receiver<Vec<Item>>,
    batch: std::vec::IntoIter<Item>,
}

impl Ahead {
    /// Begins to walk. The walk ends when this is dropped, or at its own end.
    pub(super) fn start<'scope, 'env: 'scope>(
        scope: &'scope Scope<'scope, 'env>,
        source: &'env mut dyn Source,
    ) -> Self {
        let (sender, batches) = sync_channel(BATCHES_MAX);
        scope.spawn(move || walk(source, &sender));
        Self {
            batches,
            batch: Vec::new().into_iter(),
        }
    }

    /// Gives the next item, as [`Source::next`] does.
    pub(super) fn next(&mut self) -> Result<Option<SourceItem>, SourceError> {
        loop {
            if let Some(item) = self.batch.next() {
                return item.map(Some);
            }
            match self.batches.recv() {
                Ok(batch) => self.batch = batch.into_iter(),
                Err(_) => return Ok(None),
            }
        }
    }
}

fn walk(source: &mut dyn Source, batches: &SyncSender<Vec<Item>>) {
    let mut is_over = false;
    while !is_over {
        let mut batch = Vec::with_capacity(BATCH_ITEMS);
        while batch.len() < BATCH_ITEMS && !is_over {
            match source.next() {
                Ok(Some(item)) => batch.push(Ok(item)),
                Ok(None) => is_over = true,
                Err(error) => {
                    is_over = true;
                    batch.push(Err(error));
                }
            }
        }
        if batches.send(batch).is_err() {
            return;
        }
    }
}
