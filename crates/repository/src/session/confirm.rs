//! The last look of a session: was it waited for until its snapshot was there?

use sealing::ObjectKind;

use super::Session;
use crate::backup::list_packs;
use crate::error::RepositoryError;
use crate::layout::ObjectHash;
use crate::prune::holds_all;

impl Session {
    /// Makes sure, after a snapshot was stored, that whoever deletes packs knows of it. When the
    /// session was given up before, the snapshot stays only if it can be read whole all the same.
    pub(crate) fn confirm(&self, snapshot: &ObjectHash) -> Result<(), RepositoryError> {
        if self.is_waited_for()? || self.is_whole(snapshot)? {
            return Ok(());
        }
        let kind = ObjectKind::Snapshot;
        let name = self.domain.name(kind, snapshot);
        self.domain.store().delete(&name)?;
        self.domain.trim_cache(kind, &|kept| kept != snapshot);
        Err(RepositoryError::GivenUp {
            place: self.domain.place(),
        })
    }

    /// True when no pack that the snapshot needs is gone or condemned. Whoever condemns more from
    /// now on knows of the snapshot.
    fn is_whole(&self, snapshot: &ObjectHash) -> Result<bool, RepositoryError> {
        let condemned = self.domain.condemned_packs()?;
        let index = self.domain.load_index_without(&condemned)?;
        let stored = list_packs(&self.domain)?;
        let snapshot = self.domain.read_snapshot(*snapshot)?;
        let is_stored = |pack: &_| stored.contains_key(pack);
        holds_all(&self.domain, &index, &snapshot, &is_stored)
    }
}
