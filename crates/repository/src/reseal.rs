//! Sealing anew what older epochs sealed (`docs/format.md`, "Keys"): snapshots here, packs by moving
//! them as pruning does.

use edge::{Entropy, ObjectName, StoreFault};
use model::SnapshotId;
use sealing::{ObjectKind, Right, epoch_number, open_single, seal_single, sealed_by};

use crate::domain::{Domain, NameMismatch};
use crate::error::RepositoryError;
use crate::layout::{self, ObjectHash};
use crate::prune::{PruneOptions, PruneReport, Repack};
use crate::snapshot::{SNAPSHOT_BYTES_MAX, with_id};

/// What sealing anew did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ResealReport {
    /// Snapshots that were sealed anew, those in the trash among them.
    pub snapshots: u64,
    /// Packs of older epochs that are still needed; the next time goes on.
    pub older_packs: u64,
    /// What became of packs.
    pub pruned: PruneReport,
}

impl Domain {
    /// Seals with the newest data key what older ones sealed: snapshots, then as many packs as the
    /// limits of `options.repack` allow. It may be cut anywhere, and goes on the next time. Packs
    /// of older epochs stay for the grace, as others that pruning condemned.
    ///
    /// # Errors
    ///
    /// As [`Domain::prune`].
    pub fn reseal(&self, options: &PruneOptions<'_>) -> Result<ResealReport, RepositoryError> {
        self.require(Right::Delete)?;
        let mut report = ResealReport::default();
        let kind = ObjectKind::Snapshot;
        for (hash, _) in self.list(kind)? {
            let name = |hash: &ObjectHash| self.name(kind, hash);
            report.snapshots += u64::from(self.reseal_one(&hash, &name, options.entropy)?);
        }
        self.trim_cache(kind, &|_| false);
        for (secs, hash) in self.list_trash()? {
            let name = |hash: &ObjectHash| layout::trash(self.id(), secs, hash);
            report.snapshots += u64::from(self.reseal_one(&hash, &name, options.entropy)?);
        }
        let limits = Repack {
            before_epoch: self.epoch(),
            ..options.repack.unwrap_or(Repack {
                // Nothing but what is old.
                waste_percent: 100,
                ..Repack::default()
            })
        };
        report.pruned = self.prune(&PruneOptions {
            repack: Some(limits),
            ..*options
        })?;
        let index = self.load_index()?;
        let is_old = |epoch: u32| epoch_number(epoch) < self.epoch();
        let older = index.packs().iter().filter(|pack| is_old(pack.epoch));
        report.older_packs = older.count() as u64;
        Ok(report)
    }

    /// Stores a snapshot of an older epoch anew, reads it back, and deletes the old object; false
    /// when it is of the newest epoch. Until the old one is gone both are one snapshot.
    fn reseal_one(
        &self,
        hash: &ObjectHash,
        name: &dyn Fn(&ObjectHash) -> ObjectName,
        entropy: &dyn Entropy,
    ) -> Result<bool, RepositoryError> {
        let kind = ObjectKind::Snapshot;
        let old = name(hash);
        let stored = match self.store().get(&old, SNAPSHOT_BYTES_MAX) {
            // Let go since it was listed.
            Err(error) if error.fault == StoreFault::NotFound => return Ok(false),
            other => other?,
        };
        let id: SnapshotId = self.open_snapshot(&old, *hash, &stored)?.id;
        let wrong = |error| self.damaged(kind, hash, error);
        let (epoch, _) = sealed_by(&stored).map_err(wrong)?;
        if epoch >= self.epoch() {
            return Ok(false);
        }
        let plaintext = open_single(self.keyring(), kind, &stored).map_err(wrong)?;
        let plaintext = with_id(&plaintext, id).map_err(|error| self.damaged(kind, hash, error))?;
        let mut salt = [0; 32];
        entropy.fill(&mut salt);
        let sealed = seal_single(self.keyring(), kind, &salt, &plaintext)
            .map_err(RepositoryError::Sealing)?;
        let new_hash = ObjectHash::of(&sealed);
        let new = name(&new_hash);
        self.store().put(&new, &sealed)?;
        if self.store().get(&new, SNAPSHOT_BYTES_MAX)? != sealed {
            return Err(self.damaged(kind, &new_hash, NameMismatch));
        }
        self.store().delete(&old)?;
        Ok(true)
    }
}
