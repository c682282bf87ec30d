//! Forgetting snapshots. What only they hold is deleted by pruning.

use model::{Instant, SnapshotId};
use sealing::ObjectKind;

use crate::domain::Domain;
use crate::error::RepositoryError;
use crate::retention::{Candidate, Keep, plan_retention};
use crate::snapshot::{SnapshotStatus, id_of};

impl Domain {
    /// Forgets the snapshots that the rules let go; gives which.
    ///
    /// # Errors
    ///
    /// `Store` when snapshots cannot be listed or deleted.
    pub fn apply_retention(
        &self,
        keep: &Keep,
        now: Instant,
    ) -> Result<Vec<SnapshotId>, RepositoryError> {
        let list = self.snapshots()?;
        let candidates: Vec<_> = list
            .snapshots
            .iter()
            .map(|snapshot| Candidate {
                id: snapshot.id,
                at: snapshot.body.started_at,
                is_complete: snapshot.body.status == SnapshotStatus::Complete,
                is_pinned: false,
            })
            .collect();
        let gone = plan_retention(&candidates, keep, now).gone;
        self.forget(&gone)?;
        Ok(gone)
    }

    /// Forgets snapshots. What only they hold is deleted by later runs of [`Domain::prune`].
    ///
    /// # Errors
    ///
    /// `Store` when they cannot be listed or deleted.
    pub fn forget(&self, ids: &[SnapshotId]) -> Result<(), RepositoryError> {
        let kind = ObjectKind::Snapshot;
        for (hash, _) in self.list(kind)? {
            if ids.contains(&id_of(&hash)) {
                self.store().delete(&self.name(kind, &hash))?;
                self.trim_cache(kind, &|kept| *kept != hash);
            }
        }
        Ok(())
    }
}
