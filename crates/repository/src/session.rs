//! Sessions: who is about to rely on what a domain holds says so before it looks
//! (`docs/format.md`, "Sessions"). Nothing waits for a session but the deletion of packs.

mod confirm;
mod look;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use edge::{Clock, Entropy, StoreError, StoreFault};
use model::{Instant, SessionId};
use sealing::{ObjectKind, open_single, seal_single};
use serde::{Deserialize, Serialize};

use crate::condemned::Condemned;
use crate::domain::Domain;
use crate::error::RepositoryError;
use crate::layout::ObjectHash;
use look::Look;
#[cfg(any(test, feature = "foreign"))]
pub(crate) use look::Revoked;
pub(crate) use look::{Beside, Present};

/// A session that gives no sign for so long is waited for no more.
pub(crate) const LEASE_SECS: u32 = 48 * 3600;
/// How often a session gives a sign.
const BEAT_SECS: i64 = 15 * 60;
/// For so long it is known that a session was not given up: longer only after another look.
const LOOK_SECS: i64 = 60;
/// The longest object of a session.
const SESSION_BYTES_MAX: u64 = 1024 * 1024;
/// The most decisions that a session names; it is waited for before others are carried out.
const SEEN_COUNT_MAX: usize = 10_000;

/// What a session is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Task {
    /// A run stores a snapshot.
    Backup,
    /// Packs are deleted or moved.
    Prune,
    /// A snapshot is brought back.
    Undelete,
    /// What a newer program does.
    #[serde(other)]
    Other,
}

/// What a session says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SessionBody {
    pub(crate) id: SessionId,
    pub(crate) task: Task,
    #[serde(default)]
    pub(crate) schedule: String,
    #[serde(default)]
    pub(crate) host: String,
    pub(crate) started_at: Instant,
    /// When this sign was given.
    pub(crate) at: Instant,
    pub(crate) lease_secs: u32,
    /// The decisions about condemned packs that it keeps to.
    #[serde(default)]
    pub(crate) seen: Vec<String>,
    /// It is over; said by who may not delete.
    #[serde(default)]
    pub(crate) ended: bool,
}

/// Who begins a session.
#[derive(Clone, Copy)]
pub(crate) struct About<'a> {
    pub(crate) id: SessionId,
    pub(crate) task: Task,
    pub(crate) schedule: &'a str,
    pub(crate) host: &'a str,
    pub(crate) clock: &'a dyn Clock,
    pub(crate) entropy: &'a dyn Entropy,
}

/// Chooses the id of a session.
pub(crate) fn choose_id(entropy: &dyn Entropy) -> SessionId {
    let mut id = [0; 16];
    entropy.fill(&mut id);
    SessionId::from_bytes(id)
}

/// A session of this program at one place. It ends when this is dropped; of a program that is
/// killed it stays, and is waited for until its lease is over.
pub(crate) struct Session {
    domain: Domain,
    body: SessionBody,
    /// The first object. While it is there nobody gave the session up.
    first: ObjectHash,
    /// The latest sign, when it is another one.
    latest: Mutex<Option<ObjectHash>>,
    beat_at: AtomicI64,
    /// When it was known last that nobody gave it up.
    looked_at: AtomicI64,
    condemned: Vec<Condemned>,
    /// Decisions that are damaged for good.
    wrecked: Vec<ObjectHash>,
    beside: Vec<Present>,
    revoked: BTreeSet<SessionId>,
    ending_salt: [u8; 32],
}

impl Session {
    /// Says that a writer is at work, then looks who else is and what is condemned. Only what is
    /// read of the domain afterwards may be relied on.
    pub(crate) fn begin(domain: &Domain, about: &About<'_>) -> Result<Self, RepositoryError> {
        let mut condemned = Vec::new();
        let mut seen = Vec::new();
        if about.task == Task::Backup {
            for hash in Look::at(domain)?.condemned.iter().take(SEEN_COUNT_MAX) {
                // One that cannot be read, or needs a right that this key lacks, is not kept to:
                // then it is not carried out before this session is over.
                if let Ok(Some(one)) = domain.read_condemned(hash) {
                    seen.push(hash.to_string());
                    condemned.push(one);
                }
            }
        }
        clear_own(domain);
        let now = about.clock.now();
        let mut ending_salt = [0; 32];
        about.entropy.fill(&mut ending_salt);
        let mut session = Self {
            domain: domain.clone(),
            body: SessionBody {
                id: about.id,
                task: about.task,
                schedule: about.schedule.to_owned(),
                host: about.host.to_owned(),
                started_at: now,
                at: now,
                lease_secs: LEASE_SECS,
                seen,
                ended: false,
            },
            first: ObjectHash::of(b""),
            latest: Mutex::new(None),
            beat_at: AtomicI64::new(now.secs()),
            looked_at: AtomicI64::new(now.secs()),
            condemned,
            wrecked: Vec::new(),
            beside: Vec::new(),
            revoked: BTreeSet::new(),
            ending_salt,
        };
        session.first = session.put(&session.body, about.entropy)?;
        let look = Look::at(domain)?;
        session.beside = look.others(domain, (about.id, &session.first))?;
        session.revoked.clone_from(&look.revoked);
        let is_new = |hash: &&ObjectHash| session.condemned.iter().all(|one| one.hash != **hash);
        let new: Vec<_> = look.condemned.iter().filter(is_new).copied().collect();
        for hash in new {
            match domain.read_condemned(&hash) {
                Ok(one) => session.condemned.extend(one),
                Err(_) if about.task == Task::Backup => {}
                // It decides nothing any more.
                Err(error) if error.is_wreck() => session.wrecked.push(hash),
                Err(error) => return Err(error),
            }
        }
        Ok(session)
    }

    /// Gives the decisions that were there when the session had begun.
    pub(crate) fn condemned(&self) -> &[Condemned] {
        &self.condemned
    }

    /// Gives the decisions that nobody can read any more.
    pub(crate) fn wrecked(&self) -> &[ObjectHash] {
        &self.wrecked
    }

    /// Gives the sessions that were there when this one had begun, those that are over among them.
    pub(crate) fn beside(&self) -> &[Present] {
        &self.beside
    }

    /// Sorts out which of them must be waited for. Those without a sign for too long are given up:
    /// that is stored first, and only what is read of the domain afterwards counts.
    pub(crate) fn sort_out(
        &self,
        now: Instant,
        entropy: &dyn Entropy,
    ) -> Result<Beside, RepositoryError> {
        self.domain
            .sort_out(&self.beside, &self.revoked, (now, entropy))
    }

    /// Looks again whether others are at work by now.
    pub(crate) fn is_alone(&self, now: Instant) -> Result<bool, RepositoryError> {
        let others = Look::at(&self.domain)?.others(&self.domain, (self.body.id, &self.first))?;
        Ok(others.iter().all(|present| !present.is_live(now)))
    }

    /// Gives a sign, if it is time for one.
    pub(crate) fn beat(&self, clock: &dyn Clock, entropy: &dyn Entropy) {
        let now = clock.now();
        let last = self.beat_at.load(Ordering::Relaxed);
        if now.secs() - last < BEAT_SECS {
            return;
        }
        let next =
            self.beat_at
                .compare_exchange(last, now.secs(), Ordering::Relaxed, Ordering::Relaxed);
        if next.is_err() {
            return;
        }
        let mut body = self.body.clone();
        body.at = now;
        // That it fails hurts nothing yet: the lease is many signs long.
        if let Ok(hash) = self.put(&body, entropy) {
            let before = self.latest().replace(hash);
            before.iter().for_each(|hash| drop(self.delete(hash)));
        }
    }

    /// True while nobody gave the session up. Asked after something was published, it says that
    /// whoever deletes packs from now on sees what was published.
    pub(crate) fn is_waited_for(&self) -> Result<bool, StoreError> {
        let name = self.domain.name(ObjectKind::Session, &self.first);
        Ok(self.domain.store().size(&name)?.is_some())
    }

    /// As [`Session::is_waited_for`], but a look that is a minute old counts: asked before each
    /// step that would hurt, it lets a program that was suspended for days find out.
    pub(crate) fn is_still_waited_for(&self, clock: &dyn Clock) -> Result<bool, StoreError> {
        // The time is taken before: a suspension during the look makes it old.
        let now = clock.now().secs();
        let age = now - self.looked_at.load(Ordering::Relaxed);
        if (0..LOOK_SECS).contains(&age) {
            return Ok(true);
        }
        let is_there = self.is_waited_for()?;
        if is_there {
            self.looked_at.store(now, Ordering::Relaxed);
        }
        Ok(is_there)
    }

    fn latest(&self) -> MutexGuard<'_, Option<ObjectHash>> {
        self.latest.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(
        &self,
        body: &SessionBody,
        entropy: &dyn Entropy,
    ) -> Result<ObjectHash, RepositoryError> {
        let mut salt = [0; 32];
        entropy.fill(&mut salt);
        self.put_salted(body, &salt)
    }

    fn put_salted(
        &self,
        body: &SessionBody,
        salt: &[u8; 32],
    ) -> Result<ObjectHash, RepositoryError> {
        let kind = ObjectKind::Session;
        let plaintext = serde_json::to_vec(body)
            .map_err(|error| self.domain.damaged(kind, &ObjectHash::of(b""), error))?;
        let sealed = seal_single(self.domain.keyring(), kind, salt, &plaintext)
            .map_err(RepositoryError::Sealing)?;
        let hash = ObjectHash::of(&sealed);
        self.domain
            .store()
            .put(&self.domain.name(kind, &hash), &sealed)?;
        self.domain.keep_in_cache(kind, &hash, b"");
        Ok(hash)
    }

    fn delete(&self, hash: &ObjectHash) -> Result<(), StoreError> {
        let name = self.domain.name(ObjectKind::Session, hash);
        self.domain.store().delete(&name)?;
        if let Some(cache) = self.domain.cache() {
            drop(cache.delete(&name));
        }
        Ok(())
    }
}

impl Drop for Session {
    /// Ends it, on every way out. What cannot be deleted is waited for until its lease is over.
    fn drop(&mut self) {
        let latest = self.latest().take();
        for hash in latest.iter().chain([&self.first]) {
            match self.delete(hash) {
                Err(error) if error.fault == StoreFault::Denied => {
                    let mut body = self.body.clone();
                    body.ended = true;
                    drop(self.put_salted(&body, &self.ending_salt));
                    return;
                }
                Err(_) => return,
                Ok(()) => {}
            }
        }
    }
}

/// Ends sessions of this machine whose program was killed: the cache remembers them, and whoever
/// uses it holds the right to write alone. Should one be at work all the same, it finds out.
fn clear_own(domain: &Domain) {
    let Some(cache) = domain.cache() else { return };
    let kind = ObjectKind::Session;
    let mut own = Vec::new();
    let listed = cache.list(&crate::layout::prefix(domain.id(), kind), &mut |info| {
        if crate::layout::parse(domain.id(), kind, &info.name).is_some() {
            own.push(info.name);
        }
    });
    if listed.is_ok() {
        for name in own {
            if domain.store().delete(&name).is_ok() {
                drop(cache.delete(&name));
            }
        }
    }
}

impl Domain {
    /// Reads a sign; `None` when it is gone.
    pub(crate) fn read_session(
        &self,
        hash: &ObjectHash,
    ) -> Result<Option<SessionBody>, RepositoryError> {
        let kind = ObjectKind::Session;
        let name = self.name(kind, hash);
        let Some(stored) = self.read_beside(&name, Some(hash), SESSION_BYTES_MAX)? else {
            return Ok(None);
        };
        let plaintext = open_single(self.keyring(), kind, &stored)
            .map_err(|error| self.damaged(kind, hash, error))?;
        let body =
            serde_json::from_slice(&plaintext).map_err(|error| self.damaged(kind, hash, error))?;
        Ok(Some(body))
    }
}
