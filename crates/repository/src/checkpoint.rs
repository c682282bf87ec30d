//! Checkpoints as they are stored: partial snapshots of runs that go on or were cut
//! (`docs/format.md`, "Checkpoints").

use edge::ObjectName;
use model::Instant;

use crate::domain::Domain;
use crate::error::RepositoryError;
use crate::layout;
use crate::snapshot::{SNAPSHOT_BYTES_MAX, Snapshot};

/// One that no run continued for so long is of little use.
const AGE_SECS_MAX: i64 = 7 * 86_400;

/// A checkpoint that can be read.
pub(crate) struct Checkpoint {
    pub(crate) snapshot: Snapshot,
}

/// True when a checkpoint was stored so long ago.
pub(crate) fn is_old(at: Instant, now: Instant) -> bool {
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

    /// Gives the names of all checkpoints, the oldest first, and when each was stored.
    pub(crate) fn checkpoint_names(&self) -> Result<Vec<(ObjectName, Instant)>, RepositoryError> {
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
        let Some((_, hash)) = layout::parse_checkpoint(self.id(), name) else {
            return Ok(None);
        };
        let Some(stored) = self.read_beside(name, Some(&hash), SNAPSHOT_BYTES_MAX)? else {
            return Ok(None);
        };
        Ok(Some(Checkpoint {
            snapshot: self.open_snapshot(name, hash, &stored)?,
        }))
    }
}
