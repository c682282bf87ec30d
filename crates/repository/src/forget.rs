//! Forgetting snapshots. What only they hold is deleted by pruning.

use std::collections::{BTreeMap, BTreeSet};

use model::{Instant, SnapshotId};
use sealing::{ObjectKind, Right};

use crate::domain::Domain;
use crate::error::RepositoryError;
use crate::retention::{Candidate, Keep, RetentionPlan, plan_retention};
use crate::snapshot::{Series, Snapshot, SnapshotStatus};

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

    /// Says what the rules would do with each snapshot. They look at each series alone: at what one
    /// host backed up of the same paths, and at the snapshots of schedules.
    ///
    /// # Errors
    ///
    /// `Store` when snapshots cannot be listed, `Damaged` when a pin cannot be read.
    pub fn plan(&self, keep: &Keep, now: Instant) -> Result<RetentionPlan, RepositoryError> {
        self.plan_by(keep, now, |snapshot| Some(snapshot.body.series()))
    }

    /// Says what the rules would do when they look at all snapshots together.
    ///
    /// # Errors
    ///
    /// As [`Domain::plan`].
    pub fn plan_together(
        &self,
        keep: &Keep,
        now: Instant,
    ) -> Result<RetentionPlan, RepositoryError> {
        self.plan_by(keep, now, |_| None)
    }

    fn plan_by(
        &self,
        keep: &Keep,
        now: Instant,
        series: impl Fn(&Snapshot) -> Option<Series<'_>>,
    ) -> Result<RetentionPlan, RepositoryError> {
        let list = self.snapshots()?;
        let pinned: BTreeSet<_> = self
            .pins()?
            .into_iter()
            .filter(|pin| pin.holds(now))
            .map(|pin| pin.snapshot)
            .collect();
        let mut candidates: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for snapshot in &list.snapshots {
            candidates
                .entry(series(snapshot))
                .or_default()
                .push(Candidate {
                    id: snapshot.id,
                    at: snapshot.body.started_at,
                    is_complete: snapshot.body.status == SnapshotStatus::Complete,
                    is_pinned: pinned.contains(&snapshot.id),
                });
        }
        let mut plan = RetentionPlan::default();
        for one in candidates.values() {
            let own = plan_retention(one, keep, now);
            plan.gone.extend(own.gone);
            plan.kept.extend(own.kept);
        }
        let ages = list.snapshots.iter().map(|snapshot| snapshot.id).zip(0..);
        let ages: BTreeMap<SnapshotId, usize> = ages.collect();
        plan.gone.sort_by_key(|id| ages.get(id));
        plan.kept.sort_by_key(|(id, _)| ages.get(id));
        Ok(plan)
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
