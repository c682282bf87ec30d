//! Index segments while a run goes on: what is stored is soon in the index, so that a run that is
//! cut leaves little to take up, and so that memory need not hold what is known of it.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, SyncSender};
use std::sync::{Arc, PoisonError};

use super::BackupOptions;
use super::copy::Copy;
use super::pipeline::NewPack;
use super::publish::verify_pack;
use crate::error::RepositoryError;
use crate::index::{Index, SegmentInfo};
use crate::layout::ObjectHash;

/// Records that wait for a segment: 8 MiB.
const RECORDS_WAITING: usize = 1 << 18;
/// And so long they wait at most, while packs are stored.
const WAIT_SECS: i64 = 300;

/// The replicas at which a pack is stored, as their bits.
pub(super) type StoredAt = Arc<AtomicU32>;

/// What the indexer is given.
pub(super) enum ForIndex {
    /// A pack that is being stored.
    Pack(NewPack),
    /// What is stored is to be in the index before this is answered.
    Flush(SyncSender<()>),
}

/// What a run wrote of its index at one replica before its end.
#[derive(Default)]
pub(super) struct Indexed {
    pub(super) segments: Vec<SegmentInfo>,
    /// The packs in them.
    pub(super) packs: Vec<ObjectHash>,
}

impl Copy {
    /// Takes what of this run is in the index already.
    pub(super) fn take_indexed(&self) -> Indexed {
        let mut indexed = self.indexed.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *indexed)
    }

    /// Writes a segment of packs that are stored here.
    fn index_packs(
        &self,
        packs: &[&NewPack],
        options: &BackupOptions<'_>,
    ) -> Result<(), RepositoryError> {
        let mut index = Index::new(self.domain.scratch().cloned());
        for pack in packs {
            verify_pack(self, pack)?;
            index.add(vec![pack.info.clone()], pack.records.iter().copied())?;
        }
        index.sort()?;
        let segments = self.put_index(&index, &[], (options.clock, options.entropy))?;
        let mut indexed = self.indexed.lock().unwrap_or_else(PoisonError::into_inner);
        indexed.segments.extend(segments);
        let packs = packs.iter().map(|pack| pack.info.hash);
        indexed.packs.extend(packs);
        Ok(())
    }
}

/// Puts packs into the index as they are stored. Gives back those that are not in it at the end.
pub(super) fn index_all(
    copies: &[Copy],
    options: &BackupOptions<'_>,
    packs: &Receiver<ForIndex>,
) -> Vec<NewPack> {
    let mut waiting = Vec::new();
    let mut records = 0;
    let clock = options.clock;
    let mut due = clock.now().plus_secs(WAIT_SECS);
    while let Ok(given) = packs.recv() {
        let mut done = None;
        match given {
            ForIndex::Pack(pack) => {
                records += pack.records.len();
                waiting.push(pack);
            }
            ForIndex::Flush(answer) => done = Some(answer),
        }
        if done.is_none() && records < RECORDS_WAITING && clock.now() < due {
            continue;
        }
        // Where something must be corrected, all of the index is written at the end.
        if copies
            .iter()
            .any(|copy| copy.has_noted() || !copy.bad_chunks().is_empty())
        {
            answer(done);
            continue;
        }
        index_stored(copies, options, &mut waiting);
        records = waiting.iter().map(|pack| pack.records.len()).sum();
        due = clock.now().plus_secs(WAIT_SECS);
        answer(done);
    }
    waiting
}

/// Tells who waits; one who ended meanwhile needs no answer.
fn answer(done: Option<SyncSender<()>>) {
    if let Some(done) = done {
        let _ended = done.send(());
    }
}

/// Takes those out of `waiting` that are stored at all their replicas.
fn index_stored(copies: &[Copy], options: &BackupOptions<'_>, waiting: &mut Vec<NewPack>) {
    let live = copies
        .iter()
        .filter(|copy| copy.is_live())
        .fold(0, |bits, copy| bits | copy.bit);
    let is_stored = |pack: &NewPack| {
        let needed = pack.replicas & live;
        pack.stored_at.load(Ordering::Acquire) & needed == needed
    };
    let stored: Vec<_> = waiting.extract_if(.., |pack| is_stored(pack)).collect();
    for copy in copies.iter().filter(|copy| copy.is_live()) {
        let own: Vec<_> = stored
            .iter()
            .filter(|pack| pack.replicas & copy.bit != 0)
            .collect();
        if !own.is_empty()
            && let Err(error) = copy.index_packs(&own, options)
        {
            copy.fail(error, options.monitor);
        }
    }
}
