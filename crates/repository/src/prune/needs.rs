//! What a deletion run reads before it decides: the index, and what of it snapshots need.

use std::collections::BTreeSet;

use edge::{Event, StoreFault};

use super::Pruning;
use super::mark::{Bits, Marker, holds_all};
use crate::backup::{list_packs, lost_packs};
use crate::checkpoint::is_old;
use crate::error::{ReadError, RepositoryError};
use crate::index::{Index, PackInfo, Record};
use crate::layout::ObjectHash;
use crate::snapshot::Snapshot;

/// Times that the index is read again because a snapshot came that is younger.
const ATTEMPTS: usize = 5;

/// Places of chunks that only condemned packs hold, and these packs.
pub(super) type LastResort = Vec<(Record, ObjectHash)>;

impl Pruning<'_> {
    /// Reads the index and marks what snapshots need. First of all every snapshot must be whole:
    /// then what no index names is not needed.
    pub(super) fn find_needs(&mut self) -> Result<(Index, LastResort, Bits), RepositoryError> {
        let mut read = self.load_index()?;
        let mut attempts = 0;
        loop {
            let error = match self.mark(&read.0) {
                Ok(bits) => return Ok((read.0, read.1, bits)),
                Err(RepositoryError::Read(error)) if is_lack(&error) => error,
                Err(error) => return Err(error),
            };
            // A run that ended just now stored a snapshot, and before it segments: they came after
            // the index was read. Where none came, something is lost.
            attempts += 1;
            let again = self.load_index()?;
            if attempts == ATTEMPTS || names_of(&again.0) == names_of(&read.0) {
                return Err(error.into());
            }
            read = again;
        }
    }

    /// Loads the index without packs that are lost. Of a chunk in a condemned pack and another one
    /// it knows the other.
    fn load_index(&self) -> Result<(Index, LastResort), RepositoryError> {
        let mut doomed = self.condemned();
        loop {
            let mut index = self.domain.load_index_without(&doomed)?;
            if let Some(damage) = index.damaged {
                return Err(damage);
            }
            // What an index names was stored before: what is not there by now is gone.
            let stored = list_packs(self.domain)?;
            let lost = lost_packs(self.domain, &index, &stored)?;
            let is_lost = |pack: &PackInfo| lost.contains(&pack.hash);
            let count = doomed.len();
            doomed.extend(&lost);
            // Of a chunk in a lost pack and another one the index may know the lost one.
            if doomed.len() == count {
                index.remove_packs(&is_lost, &mut |_, _| {})?;
                let places = index.take_back()?;
                let pack_of = |record: &Record| index.pack(record.pack).map(|pack| pack.hash);
                let places = places.into_iter();
                let places = places.filter_map(|record| Some((record, pack_of(&record)?)));
                let places = places.collect();
                return Ok((index, places));
            }
        }
    }

    /// Marks what snapshots need. One that its session did not live to find wanting is taken back
    /// in its place.
    fn mark(&mut self, index: &Index) -> Result<Bits, RepositoryError> {
        let (domain, options) = (self.domain, self.options);
        let mut marker = Marker::new(domain, index);
        let young = domain.young_trash(options.trash_secs, options.clock.now())?;
        for snapshot in domain.needing()?.iter().chain(&young) {
            let session = snapshot.body.session;
            if session.is_some_and(|session| self.beside.given_up.contains(&session)) {
                // It may be younger than the index that was read.
                if self.is_lacking(snapshot)? {
                    options.monitor.event(Event::Note(&format!(
                        "snapshot {} was stored by a run that was given up, and lacks what was \
                         deleted meanwhile: it is taken back",
                        snapshot.id
                    )));
                    self.go_on()?;
                    domain.forget(&[snapshot.id])?;
                    continue;
                }
            }
            marker.snapshot(snapshot, &self.sign())?;
            self.marked.insert(snapshot.hash);
        }
        self.mark_checkpoints(&mut marker)?;
        Ok(marker.into_bits())
    }

    /// Counts as needed what the next run takes from checkpoints. One that is of no use is deleted:
    /// all that is lost with it is time.
    fn mark_checkpoints(&self, marker: &mut Marker<'_>) -> Result<(), RepositoryError> {
        let now = self.options.clock.now();
        for (name, at) in self.domain.checkpoint_names()? {
            let is_old = is_old(at, now);
            let is_useless = match self.domain.read_checkpoint(&name) {
                Ok(None) => false,
                Ok(Some(_)) if is_old && self.is_without_runs()? => true,
                Ok(Some(found)) => match marker.snapshot(&found.snapshot, &self.sign()) {
                    Ok(()) => false,
                    Err(RepositoryError::Read(error)) if is_lack(&error) => {
                        self.is_without_runs()? && self.is_lacking(&found.snapshot)?
                    }
                    Err(error) => return Err(error),
                },
                Err(error @ RepositoryError::Store(_)) => return Err(error),
                // Without what it needs it is worth nothing, but a newer program may know better.
                Err(error) => error.is_wreck() || is_old && self.is_without_runs()?,
            };
            if is_useless {
                self.go_on()?;
                self.domain.store().delete(&name)?;
            }
        }
        Ok(())
    }

    /// True while no run is at work, nor was one when this deletion began: a checkpoint may be its
    /// own, of a run that pauses for a week, or younger than the index that was read.
    fn is_without_runs(&self) -> Result<bool, RepositoryError> {
        let now = self.options.clock.now();
        Ok(self.beside.live.is_empty() && self.session.is_alone(now)?)
    }

    /// True when a snapshot cannot be read whole by an index that is younger than it.
    fn is_lacking(&self, snapshot: &Snapshot) -> Result<bool, RepositoryError> {
        let index = self.load_index()?.0;
        Ok(!holds_all(self.domain, &index, snapshot, &|_| true)?)
    }
}

fn names_of(index: &Index) -> BTreeSet<ObjectHash> {
    index.segments.iter().map(|segment| segment.hash).collect()
}

/// True when something is not there or not as it should be; not when a place failed for now.
fn is_lack(error: &ReadError) -> bool {
    match error {
        ReadError::Store(error) => error.fault == StoreFault::NotFound,
        _ => true,
    }
}
