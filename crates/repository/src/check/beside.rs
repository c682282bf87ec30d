//! Looking at what lies beside the data: the trash, pins, condemned packs, checkpoints, and what
//! writers say of themselves.

use edge::ObjectName;
use sealing::ObjectKind;

use crate::domain::Domain;
use crate::error::{RepositoryError, chain, is_loss};
use crate::layout;

/// Tells of each object that is not what its name says, and what is wrong with it.
pub(super) fn look_beside(
    domain: &Domain,
    each: &mut dyn FnMut(&ObjectName, String),
) -> Result<(), RepositoryError> {
    let mut names = Vec::new();
    let prefix = layout::prefix(domain.id(), ObjectKind::Condemned);
    domain
        .store()
        .list(&prefix, &mut |info| names.push(info.name))?;
    for name in names {
        match look_at(domain, &name) {
            // Without a right to more, its hash is all there is; what is gone is no damage.
            Ok(()) | Err(RepositoryError::NoRight { .. } | RepositoryError::NoSnapshot { .. }) => {}
            Err(RepositoryError::Store(error)) if !is_loss(&error) => return Err(error.into()),
            Err(RepositoryError::Damaged { source, .. }) => each(&name, chain(&*source)),
            Err(error) => each(&name, chain(&error)),
        }
    }
    Ok(())
}

fn look_at(domain: &Domain, name: &ObjectName) -> Result<(), RepositoryError> {
    let id = domain.id();
    if let Some((secs, hash)) = layout::parse_trash(id, name) {
        domain.read_trashed(secs, &hash).map(drop)
    } else if let Some(hash) = layout::parse(id, ObjectKind::Condemned, name) {
        domain.read_condemned(&hash).map(drop)
    } else if let Some(hash) = layout::parse(id, ObjectKind::Pin, name) {
        domain.read_pin(&hash).map(drop)
    } else if let Some(hash) = layout::parse(id, ObjectKind::Session, name) {
        domain.read_session(&hash).map(drop)
    } else if layout::parse_checkpoint(id, name).is_some() {
        domain.read_checkpoint(name).map(drop)
    } else if let Some(session) = layout::parse_revoked(id, name) {
        domain.revoked_at(session).map(drop)
    } else {
        Ok(())
    }
}
