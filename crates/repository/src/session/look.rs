//! Looking who else is at work: one listing, and a request for each other session.

use std::collections::{BTreeMap, BTreeSet};

use edge::Entropy;
use model::{Instant, SessionId};
use sealing::{ObjectKind, open_single, seal_single};
use serde::{Deserialize, Serialize};

use super::{SessionBody, Task};
use crate::domain::{Domain, NameMismatch};
use crate::error::RepositoryError;
use crate::layout::{self, ObjectHash};

/// The longest object that says that a session is waited for no more.
const REVOKED_BYTES_MAX: u64 = 4096;
/// For so long it is known which sessions were given up.
const REVOKED_KEPT_SECS: i64 = 90 * 24 * 3600;
/// A session gave a sign within this time, or is thought to be dead by people.
const ALARM_SECS: i64 = 2 * super::BEAT_SECS;

/// What a listing of a domain's short-lived objects says.
#[derive(Default)]
pub(super) struct Look {
    pub(super) condemned: Vec<ObjectHash>,
    sessions: Vec<ObjectHash>,
    pub(super) revoked: BTreeSet<SessionId>,
}

/// Another session.
#[derive(Debug, Clone)]
pub(crate) struct Present {
    /// Its latest sign; none of them can be read when there is no value.
    pub(crate) body: Option<SessionBody>,
    /// Its objects.
    pub(crate) objects: Vec<ObjectHash>,
    /// It was given up by somebody before.
    is_revoked: bool,
}

/// Who is at work beside a session that deletes.
#[derive(Debug, Default)]
pub(crate) struct Beside {
    /// Those that have to be waited for.
    pub(crate) live: Vec<SessionBody>,
    /// Those that were given up more than a lease ago, in the last months.
    pub(crate) given_up: BTreeSet<SessionId>,
}

impl Beside {
    /// True when a decision may not be carried out: a session may rely on what it condemns.
    pub(crate) fn blocks(&self, condemned: &ObjectHash) -> bool {
        let condemned = condemned.to_string();
        self.live
            .iter()
            .any(|session| !session.seen.contains(&condemned))
    }
}

/// That a session is waited for no more, as it is stored.
#[derive(Serialize, Deserialize)]
pub(crate) struct Revoked {
    session: SessionId,
    at: Instant,
}

impl Look {
    pub(super) fn at(domain: &Domain) -> Result<Self, RepositoryError> {
        let mut look = Self::default();
        let prefix = layout::prefix(domain.id(), ObjectKind::Session);
        domain.store().list(&prefix, &mut |info| {
            let named = |kind| layout::parse(domain.id(), kind, &info.name);
            look.condemned.extend(named(ObjectKind::Condemned));
            look.sessions.extend(named(ObjectKind::Session));
            look.revoked
                .extend(layout::parse_revoked(domain.id(), &info.name));
        })?;
        look.condemned.sort_unstable();
        Ok(look)
    }

    /// Reads all sessions but one.
    pub(super) fn others(
        &self,
        domain: &Domain,
        (own, first): (SessionId, &ObjectHash),
    ) -> Result<Vec<Present>, RepositoryError> {
        let mut by_id: BTreeMap<Option<SessionId>, Present> = BTreeMap::new();
        for hash in self.sessions.iter().filter(|hash| *hash != first) {
            let body = match domain.read_session(hash) {
                Ok(None) => continue,
                Ok(body) => body,
                Err(RepositoryError::Damaged { .. }) => None,
                Err(error) => return Err(error),
            };
            let id = body.as_ref().map(|body| body.id);
            if id == Some(own) {
                continue;
            }
            let present = by_id.entry(id).or_insert_with(|| Present {
                body: body.clone(),
                objects: Vec::new(),
                is_revoked: id.is_some_and(|id| self.revoked.contains(&id)),
            });
            present.objects.push(*hash);
            if let (Some(before), Some(body)) = (&mut present.body, body) {
                let ended = before.ended || body.ended;
                if body.at > before.at {
                    *before = body;
                }
                before.ended = ended;
            }
        }
        Ok(by_id.into_values().collect())
    }
}

impl SessionBody {
    fn lease(&self) -> u32 {
        self.lease_secs.min(super::LEASE_SECS)
    }

    /// Gives when it is waited for no more, unless it gives another sign.
    pub(crate) fn lease_ends(&self) -> Instant {
        self.at.plus_secs(self.lease().into())
    }
}

impl Present {
    /// True when it must be waited for.
    pub(super) fn is_live(&self, now: Instant) -> bool {
        // A sign from far in the future is no sign: that clock, or this one, is wrong.
        let holds = |body: &SessionBody| {
            let lease = i64::from(body.lease());
            let since = now.secs() - body.at.secs();
            !body.ended && since < lease && since > -lease
        };
        !self.is_revoked && self.body.as_ref().is_some_and(holds)
    }

    /// Says when it gave its last sign, if it is a run of the same schedule on a host of the same
    /// name and gave it just now.
    pub(crate) fn twin_of(&self, schedule: &str, host: &str, now: Instant) -> Option<&SessionBody> {
        self.body.as_ref().filter(|body| {
            body.task == Task::Backup
                && body.schedule == schedule
                && body.host == host
                && self.is_live(now)
                && (now.secs() - body.at.secs()).abs() <= ALARM_SECS
        })
    }
}

impl Domain {
    pub(super) fn sort_out(
        &self,
        others: &[Present],
        revoked: &BTreeSet<SessionId>,
        (now, entropy): (Instant, &dyn Entropy),
    ) -> Result<Beside, RepositoryError> {
        let mut beside = Beside::default();
        for present in others {
            if present.is_live(now) {
                beside.live.extend(present.body.clone());
                continue;
            }
            if let Some(body) = &present.body
                && !body.ended
                && !present.is_revoked
            {
                self.revoke(body.id, now, entropy)?;
            }
            for hash in &present.objects {
                self.store().delete(&self.name(ObjectKind::Session, hash))?;
            }
        }
        for id in revoked {
            match self.revoked_at(*id) {
                Ok(Some(at)) if now.secs() - at.secs() > REVOKED_KEPT_SECS => {
                    self.store().delete(&layout::revoked(self.id(), *id))?;
                }
                Ok(Some(at)) if now.secs() - at.secs() >= super::LEASE_SECS.into() => {
                    beside.given_up.insert(*id);
                }
                Ok(_) => {}
                // No snapshot is taken back because of it, and who was given up knows all the same.
                Err(RepositoryError::Damaged { .. }) => {
                    self.store().delete(&layout::revoked(self.id(), *id))?;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(beside)
    }

    fn revoke(
        &self,
        session: SessionId,
        at: Instant,
        entropy: &dyn Entropy,
    ) -> Result<(), RepositoryError> {
        let kind = ObjectKind::Revoked;
        let plaintext = serde_json::to_vec(&Revoked { session, at })
            .map_err(|error| self.damaged(kind, &ObjectHash::of(b""), error))?;
        let mut salt = [0; 32];
        entropy.fill(&mut salt);
        let sealed = seal_single(self.keyring(), kind, &salt, &plaintext)
            .map_err(RepositoryError::Sealing)?;
        Ok(self
            .store()
            .put(&layout::revoked(self.id(), session), &sealed)?)
    }

    /// Says when a session was given up; `None` when it is gone.
    pub(crate) fn revoked_at(
        &self,
        session: SessionId,
    ) -> Result<Option<Instant>, RepositoryError> {
        let name = layout::revoked(self.id(), session);
        let Some(stored) = self.read_beside(&name, None, REVOKED_BYTES_MAX)? else {
            return Ok(None);
        };
        let plaintext = open_single(self.keyring(), ObjectKind::Revoked, &stored)
            .map_err(|error| self.damaged_or_refused(&name, error))?;
        match serde_json::from_slice::<Revoked>(&plaintext) {
            Ok(revoked) if revoked.session == session => Ok(Some(revoked.at)),
            Ok(_) => Err(self.damaged_or_refused(&name, NameMismatch)),
            Err(error) => Err(self.damaged_or_refused(&name, error)),
        }
    }
}
