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
    pub(crate) name: ObjectName,
    pub(crate) at: Instant,
    pub(crate) snapshot: Snapshot,
}

impl Checkpoint {
    pub(crate) fn is_old(&self, now: Instant) -> bool {
        self.at.plus_secs(AGE_SECS_MAX) < now
    }
}

impl Domain {
    /// Gives the names of all checkpoints, the oldest first, and those that can be read.
    pub(crate) fn checkpoints(
        &self,
    ) -> Result<(Vec<ObjectName>, Vec<Checkpoint>), RepositoryError> {
        let mut names = Vec::new();
        let prefix = layout::checkpoint_prefix(self.id());
        self.store().list(&prefix, &mut |info| {
            names.extend(layout::parse_checkpoint(self.id(), &info.name).map(|_| info.name));
        })?;
        names.sort();
        let read = |name: &ObjectName| {
            let (secs, hash) = layout::parse_checkpoint(self.id(), name)?;
            let stored = self.store().get(name, SNAPSHOT_BYTES_MAX).ok()?;
            let snapshot = self.open_snapshot(name, hash, &stored).ok()?;
            Some(Checkpoint {
                name: name.clone(),
                at: Instant::from_secs(secs),
                snapshot,
            })
        };
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
        for found in self.checkpoints()?.1 {
            if found.is_old(now) || marker.snapshot(&found.snapshot, monitor).is_err() {
                self.store().delete(&found.name)?;
            }
        }
        Ok(())
    }
}
