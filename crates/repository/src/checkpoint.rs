//! Checkpoints as they are stored: partial snapshots of runs that go on or were cut
//! (`docs/format.md`, "Checkpoints").

use edge::{Monitor, ObjectName};
use model::Instant;

use crate::domain::Domain;
use crate::error::RepositoryError;
use crate::layout;
use crate::prune::Marker;
use crate::snapshot::{SNAPSHOT_BYTES_MAX, Snapshot};

/// One that no run continued for so long is of little use.
const AGE_SECS_MAX: i64 = 7 * 86_400;

/// A checkpoint that can be read.
pub(crate) struct Checkpoint {
    pub(crate) at: Instant,
    pub(crate) snapshot: Snapshot,
}

impl Checkpoint {
    pub(crate) fn is_old(&self, now: Instant) -> bool {
        is_old(self.at, now)
    }
}

fn is_old(at: Instant, now: Instant) -> bool {
    at.plus_secs(AGE_SECS_MAX) < now
}

impl Domain {
    /// Gives the names of all checkpoints, the oldest first, and those that can be read.
    pub(crate) fn checkpoints(
        &self,
    ) -> Result<(Vec<ObjectName>, Vec<Checkpoint>), RepositoryError> {
        let names = self.checkpoint_names()?.into_iter();
        let names: Vec<_> = names.map(|(name, _)| name).collect();
        let read = |name: &ObjectName| self.read_checkpoint(name).ok().flatten();
        let readable = names.iter().filter_map(read).collect();
        Ok((names, readable))
    }

    /// Counts as needed what the next run takes from checkpoints. One that is old or not whole is
    /// deleted: all that is lost with it is time.
    pub(crate) fn mark_checkpoints(
        &self,
        marker: &mut Marker<'_>,
        now: Instant,
        monitor: &dyn Monitor,
    ) -> Result<(), RepositoryError> {
        for (name, at) in self.checkpoint_names()? {
            let is_useless = match self.read_checkpoint(&name) {
                Ok(None) => false,
                Ok(Some(found)) => {
                    found.is_old(now) || marker.snapshot(&found.snapshot, monitor).is_err()
                }
                Err(error @ RepositoryError::Store(_)) => return Err(error),
                // Without what it needs it is worth nothing, but a newer program may know better.
                Err(error) => error.is_wreck() || is_old(at, now),
            };
            if is_useless {
                self.store().delete(&name)?;
            }
        }
        Ok(())
    }

    /// Gives the names of all checkpoints, the oldest first, and when each was stored.
    fn checkpoint_names(&self) -> Result<Vec<(ObjectName, Instant)>, RepositoryError> {
        let mut names = Vec::new();
        let prefix = layout::beside_prefix(self.id());
        self.store().list(&prefix, &mut |info| {
            let parsed = layout::parse_checkpoint(self.id(), &info.name);
            names.extend(parsed.map(|(secs, _)| (info.name, Instant::from_secs(secs))));
        })?;
        names.sort();
        Ok(names)
    }

    /// Reads a checkpoint; `None` when it is gone.
    pub(crate) fn read_checkpoint(
        &self,
        name: &ObjectName,
    ) -> Result<Option<Checkpoint>, RepositoryError> {
        let Some((secs, hash)) = layout::parse_checkpoint(self.id(), name) else {
            return Ok(None);
        };
        let Some(stored) = self.read_beside(name, Some(&hash), SNAPSHOT_BYTES_MAX)? else {
            return Ok(None);
        };
        Ok(Some(Checkpoint {
            at: Instant::from_secs(secs),
            snapshot: self.open_snapshot(name, hash, &stored)?,
        }))
    }
}
