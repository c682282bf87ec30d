//! Forgetting snapshots. What only they hold is deleted by pruning.

use std::collections::BTreeSet;

use model::{Instant, SnapshotId};
use sealing::{ObjectKind, Right};

use crate::domain::Domain;
use crate::error::RepositoryError;
use crate::retention::{Candidate, Keep, RetentionPlan, plan_retention};
use crate::snapshot::SnapshotStatus;

impl Domain {
    /// Discards the snapshots that the rules let go; gives which.
    ///
    /// # Errors
    ///
    /// `Store` when snapshots cannot be listed or moved, `Damaged` when one or a pin cannot be read.
    pub fn apply_retention(
        &self,
        keep: &Keep,
        now: Instant,
    ) -> Result<Vec<SnapshotId>, RepositoryError> {
        let gone = self.plan(keep, now)?.gone;
        self.discard(&gone, now)?;
        Ok(gone)
    }

    /// Says what the rules would do with each snapshot.
    ///
    /// # Errors
    ///
    /// `Store` when snapshots cannot be listed, `Damaged` when a pin cannot be read.
    pub fn plan(&self, keep: &Keep, now: Instant) -> Result<RetentionPlan, RepositoryError> {
        let list = self.snapshots()?;
        let pinned: BTreeSet<_> = self
            .pins()?
            .into_iter()
            .filter(|pin| pin.holds(now))
            .map(|pin| pin.snapshot)
            .collect();
        let candidates: Vec<_> = list
            .snapshots
            .iter()
            .map(|snapshot| Candidate {
                id: snapshot.id,
                at: snapshot.body.started_at,
                is_complete: snapshot.body.status == SnapshotStatus::Complete,
                is_pinned: pinned.contains(&snapshot.id),
            })
            .collect();
        Ok(plan_retention(&candidates, keep, now))
    }

    /// Forgets snapshots for good: they do not go into the trash. What only they hold is deleted by later runs of [`Domain::prune`].
    ///
    /// # Errors
    ///
    /// `Store` when they cannot be listed or deleted.
    pub fn forget(&self, ids: &[SnapshotId]) -> Result<(), RepositoryError> {
        let kind = ObjectKind::Snapshot;
        self.require(Right::Delete)?;
        for hash in self.hashes_of(ids)? {
            self.store().delete(&self.name(kind, &hash))?;
            self.trim_cache(kind, &|kept| *kept != hash);
        }
        Ok(())
    }
}
