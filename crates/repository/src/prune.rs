//! Deleting packs that no snapshot needs any more, in two phases, and moving what is needed out of
//! packs that are mostly not (`docs/format.md`, "Deletion").
//!
//! Readers and other writers may be at work meanwhile: what a session of theirs may rely on is not
//! deleted, and while one is at work nothing more is condemned.

mod mark;
mod moving;
mod needs;
mod repack;
mod taken;

use std::collections::{BTreeMap, BTreeSet};

use edge::{Clock, Entropy, Event, Monitor, Phase};
use model::{ByteCount, Instant, SnapshotId};
use sealing::{ObjectKind, Right};

use crate::backup::list_packs;
use crate::condemned::{CONDEMNED_COUNT_MAX, Condemned, PackName};
use crate::domain::Domain;
use crate::error::RepositoryError;
use crate::index::Index;
use crate::layout::ObjectHash;
use crate::session::{About, Beside, Session, SessionBody, Task, choose_id};
use crate::snapshot::Snapshot;
use mark::{Bits, Usage};
pub(crate) use mark::{Marker, holds_all};
use needs::LastResort;
pub use repack::Repack;

/// What pruning needs from outside.
#[derive(Clone, Copy)]
pub struct PruneOptions<'a> {
    /// How long condemned packs stay, for readers that began before; usually a day. With 0 they go
    /// at once.
    pub grace_secs: u32,
    /// How long discarded snapshots stay in the trash.
    pub trash_secs: u32,
    /// Also condemn packs that no index names. A run takes them up, so not before the next one.
    pub strays: bool,
    /// How much to move out of partly needed packs; nothing when there is no value.
    pub repack: Option<Repack>,
    /// Tells the time.
    pub clock: &'a dyn Clock,
    /// Gives salts.
    pub entropy: &'a dyn Entropy,
    /// Hears of the work and may stop it.
    pub monitor: &'a dyn Monitor,
}

/// What pruning did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PruneReport {
    /// Snapshots that were in the trash for long enough and can be had back no more.
    pub expired_snapshots: u64,
    /// Packs that were condemned and are still there.
    pub condemned_packs: u64,
    /// Condemned packs that were deleted.
    pub deleted_packs: u64,
    /// Bytes that their deletion freed.
    pub freed_bytes: ByteCount,
    /// Packs of which everything needed was moved elsewhere. They are among the condemned.
    pub emptied_packs: u64,
    /// Bytes stored anew by that.
    pub moved_bytes: ByteCount,
    /// Partly needed packs that cannot be read and therefore stay.
    pub unreadable_packs: u64,
    /// Moving ended before all was done, for its limits or for lack of space.
    pub is_cut_short: bool,
    /// Bytes that nobody needs in packs that are needed for others.
    pub waste_bytes: ByteCount,
    /// Other runs that are at work or were killed: beside them nothing is condemned.
    pub others_at_work: u64,
    /// When the last of these is waited for no more, should it give no further sign.
    pub waits_until: Option<Instant>,
}

/// What the loss of snapshots would free.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Freed {
    /// Packs that nothing would need any more.
    pub packs: u64,
    /// Their bytes.
    pub bytes: ByteCount,
    /// Bytes that nobody would need any more in packs that stay; repacking frees them. Of parts
    /// that are compressed together it is the share.
    pub partly_bytes: ByteCount,
}

/// One run of pruning, from its session on.
struct Pruning<'a> {
    domain: &'a Domain,
    options: &'a PruneOptions<'a>,
    session: Session,
    /// Who else is at work.
    beside: Beside,
    /// All packs with their sizes, listed before the session began: what is new since is not here.
    stored: BTreeMap<PackName, u64>,
    /// The snapshots, there and in the trash, whose needs are known.
    marked: BTreeSet<ObjectHash>,
    /// Packs that may stand for what would be moved otherwise: they are not dead.
    spares: BTreeSet<ObjectHash>,
    report: PruneReport,
}

impl Domain {
    /// Deletes packs that were condemned at least the grace ago, condemns those that no snapshot
    /// needs, and then, if asked, those whose needed chunks it moves into new ones.
    ///
    /// # Errors
    ///
    /// Whatever keeps a snapshot, a page or the index from being read: then nothing is condemned.
    /// What keeps a pack from being stored ends the moving; what was moved before counts.
    pub fn prune(&self, options: &PruneOptions<'_>) -> Result<PruneReport, RepositoryError> {
        self.require(Right::Delete)?;
        options.monitor.event(Event::Phase(Phase::Pruning));
        let stored = list_packs(self)?;
        let session = Session::begin(
            self,
            &About {
                id: choose_id(options.entropy),
                task: Task::Prune,
                schedule: "",
                host: "",
                clock: options.clock,
                entropy: options.entropy,
            },
        )?;
        let beside = session.sort_out(options.clock.now(), options.entropy)?;
        let report = PruneReport {
            others_at_work: beside.live.len() as u64,
            waits_until: beside.live.iter().map(SessionBody::lease_ends).max(),
            ..PruneReport::default()
        };
        let mut pruning = Pruning {
            domain: self,
            options,
            session,
            beside,
            stored,
            marked: BTreeSet::new(),
            spares: BTreeSet::new(),
            report,
        };
        pruning.run()?;
        Ok(pruning.report)
    }

    /// Says what pruning could delete if these snapshots were gone for good, and could not before.
    /// What is in the trash counts as needed.
    ///
    /// # Errors
    ///
    /// Whatever keeps a snapshot, a page or the index from being read.
    pub fn freed_without(
        &self,
        gone: &[SnapshotId],
        monitor: &dyn Monitor,
    ) -> Result<Freed, RepositoryError> {
        let mut index = self.load_index_without(&self.known_condemned_packs()?)?;
        index.take_back()?;
        if let Some(damage) = index.damaged {
            return Err(damage);
        }
        let (going, kept): (Vec<_>, Vec<_>) = self
            .needing()?
            .into_iter()
            .partition(|snapshot| gone.contains(&snapshot.id));
        let mut marker = Marker::new(self, &index);
        let trash = self.trash()?.into_iter().map(|trashed| trashed.snapshot);
        for snapshot in kept.into_iter().chain(trash) {
            marker.snapshot(&snapshot, monitor)?;
        }
        let after = Usage::of(&index, marker.bits())?;
        for snapshot in &going {
            marker.snapshot(snapshot, monitor)?;
        }
        let before = Usage::of(&index, marker.bits())?;
        let mut freed = Freed::default();
        for ordinal in 0..index.packs().len() {
            let more = after.waste(ordinal).saturating_sub(before.waste(ordinal));
            if after.chunks(ordinal) > 0 {
                freed.partly_bytes += ByteCount::new(more);
            } else if before.chunks(ordinal) > 0 {
                freed.packs += 1;
                let pack = index.packs().get(ordinal);
                freed.bytes += ByteCount::new(pack.map_or(0, |pack| pack.size));
            }
        }
        Ok(freed)
    }

    /// Gives all snapshots whose content must stay.
    fn needing(&self) -> Result<Vec<Snapshot>, RepositoryError> {
        let list = self.snapshots()?;
        match list.unreadable.into_iter().next() {
            Some(damage) => Err(damage),
            None => Ok(list.snapshots),
        }
    }
}

impl Pruning<'_> {
    fn run(&mut self) -> Result<(), RepositoryError> {
        let (mut index, last_resort, mut bits) = self.find_needs()?;
        // Before the index is written anew, which keeps one place of each chunk.
        self.spares = self.find_spares(&index, &bits)?;
        let now = self.options.clock.now();
        self.go_on()?;
        self.report.expired_snapshots = self.domain.empty_trash(self.options.trash_secs, now)?;
        self.carry_out((&mut index, &mut bits), &last_resort)?;
        drop(last_resort);
        if self.beside.live.is_empty() {
            self.delete_wrecked_decisions()?;
            self.condemn_dead(&mut index, &mut bits)?;
        }
        let usage = Usage::of(&index, &bits)?;
        let sound = (0_usize..).zip(index.packs());
        let sound = sound.filter(|(_, pack)| !index.is_doomed(&pack.hash));
        let waste = sound.map(|(ordinal, _)| usage.waste(ordinal)).sum();
        self.report.waste_bytes = ByteCount::new(waste);
        self.move_needed(index, (bits, usage))?;
        Ok(())
    }

    /// Gives all packs that are condemned.
    fn condemned(&self) -> BTreeSet<ObjectHash> {
        let packs = self.session.condemned().iter().flat_map(|one| &one.packs);
        packs.map(|(hash, _)| *hash).collect()
    }

    /// Carries out decisions that are old enough and that no session stands against. Packs of which
    /// something is needed after all stay until it was moved.
    fn carry_out(
        &mut self,
        (index, bits): (&mut Index, &mut Bits),
        last_resort: &LastResort,
    ) -> Result<(), RepositoryError> {
        let now = self.options.clock.now();
        let grace_secs = i64::from(self.options.grace_secs);
        let is_due = |one: &&Condemned| {
            now >= one.at.plus_secs(grace_secs) && !self.beside.blocks(&one.hash)
        };
        let due: Vec<_> = self
            .session
            .condemned()
            .iter()
            .filter(is_due)
            .cloned()
            .collect();
        let mut needed = needed_packs(index, bits)?;
        // Of several condemned packs that hold what is nowhere else, all stay until it was moved.
        let places = last_resort.iter();
        let places = places.filter(|(record, _)| {
            let position = index.position_of(record);
            position.is_some_and(|position| bits.get(position))
        });
        needed.extend(places.map(|(_, pack)| *pack));
        let is_free = |pack: &PackName| !needed.contains(&pack.0);
        let free: Vec<_> = due
            .iter()
            .flat_map(|one| one.packs.iter().copied().filter(is_free))
            .collect();
        self.delete(&free, (index, bits))?;
        for one in due.iter().filter(|one| one.packs.iter().all(is_free)) {
            self.delete_decision(&one.hash)?;
        }
        Ok(())
    }

    /// Deletes packs: first from the index, then themselves.
    fn delete(
        &mut self,
        packs: &[PackName],
        (index, bits): (&mut Index, &mut Bits),
    ) -> Result<(), RepositoryError> {
        if packs.is_empty() {
            return Ok(());
        }
        if packs.iter().any(|(hash, _)| index.has_pack(hash)) {
            let gone = Index::among(packs);
            index.remove_packs(&gone, &mut |from, to| bits.follow(from, to))?;
            self.replace_segments(index)?;
        }
        self.delete_stored(packs)
    }

    fn sign(&self) -> Sign<'_> {
        Sign {
            session: &self.session,
            options: self.options,
        }
    }

    fn delete_stored(&mut self, packs: &[PackName]) -> Result<(), RepositoryError> {
        for pack in packs {
            let Some(size) = self.stored.remove(pack) else {
                continue;
            };
            let (hash, kind) = pack;
            self.go_on()?;
            self.domain.store().delete(&self.domain.name(*kind, hash))?;
            self.report.deleted_packs += 1;
            self.report.freed_bytes += ByteCount::new(size);
        }
        Ok(())
    }

    /// Gives a sign of life, and makes sure before each step that deletes or names something that
    /// nobody gave this deletion up: another one would have gone on as if it were not there.
    fn go_on(&self) -> Result<(), RepositoryError> {
        let options = self.options;
        self.session.beat(options.clock, options.entropy);
        if self.session.is_still_waited_for(options.clock)? {
            return Ok(());
        }
        let place = self.domain.place();
        Err(RepositoryError::GivenUp { place })
    }

    fn delete_decision(&self, hash: &ObjectHash) -> Result<(), RepositoryError> {
        self.go_on()?;
        let name = self.domain.name(ObjectKind::Condemned, hash);
        Ok(self.domain.store().delete(&name)?)
    }

    /// Deletes decisions that are damaged for good: what nobody can read condemns nothing. Who read
    /// one before would be at work still, and seen.
    fn delete_wrecked_decisions(&self) -> Result<(), RepositoryError> {
        for hash in self.session.wrecked() {
            self.options.monitor.event(Event::Note(&format!(
                "{} is damaged: what it condemned is decided on anew",
                self.domain.name(ObjectKind::Condemned, hash)
            )));
            self.delete_decision(hash)?;
        }
        Ok(())
    }

    /// Condemns packs that nobody needs. What was stored since this run began may be about to be
    /// needed, and what is condemned is so already.
    fn condemn_dead(&mut self, index: &mut Index, bits: &mut Bits) -> Result<(), RepositoryError> {
        let usage = Usage::of(index, bits)?;
        let dead: Vec<_> = (0_usize..)
            .zip(index.packs())
            .filter(|(ordinal, pack)| {
                usage.chunks(*ordinal) == 0
                    && !index.is_doomed(&pack.hash)
                    && !self.spares.contains(&pack.hash)
                    && self.stored.contains_key(&(pack.hash, pack.kind))
            })
            .map(|(_, pack)| (pack.hash, pack.kind))
            .take(CONDEMNED_COUNT_MAX)
            .collect();
        drop(usage);
        if dead.is_empty() {
            return Ok(());
        }
        let decision = self.condemn(&dead)?;
        if self.may_delete_at_once()? {
            self.delete(&dead, (index, bits))?;
            self.carried_out(&[decision], &dead)?;
        }
        Ok(())
    }

    fn condemn(&mut self, packs: &[PackName]) -> Result<ObjectHash, RepositoryError> {
        self.go_on()?;
        let options = self.options;
        let now = options.clock.now();
        let decision = self.domain.condemn(packs, now, options.entropy)?;
        self.report.condemned_packs += packs.len() as u64;
        Ok(decision)
    }

    /// With no grace no reader is waited for. A session that began meanwhile is, and a snapshot
    /// that came meanwhile may need what is condemned: then the next prune sees to it.
    fn may_delete_at_once(&self) -> Result<bool, RepositoryError> {
        Ok(self.options.grace_secs == 0
            && self.session.is_alone(self.options.clock.now())?
            && self.domain.snapshot_hashes()?.is_subset(&self.marked))
    }

    fn carried_out(
        &mut self,
        decisions: &[ObjectHash],
        packs: &[PackName],
    ) -> Result<(), RepositoryError> {
        self.report.condemned_packs -= packs.len() as u64;
        decisions
            .iter()
            .try_for_each(|one| self.delete_decision(one))
    }

    /// Condemns packs that no index names and that no run took up. None is of a run that is still
    /// at work: it would have been seen, and its packs are listed only after its session.
    fn condemn_strays(&mut self, index: &Index) -> Result<(), RepositoryError> {
        let condemned = self.condemned();
        let strays: Vec<_> = self
            .stored
            .keys()
            .filter(|(hash, _)| !index.has_pack(hash) && !condemned.contains(hash))
            .take(CONDEMNED_COUNT_MAX)
            .copied()
            .collect();
        if !strays.is_empty() {
            self.condemn(&strays)?;
        }
        Ok(())
    }

    /// Writes the index in place of all segments that it was read from.
    fn replace_segments(&self, index: &mut Index) -> Result<(), RepositoryError> {
        let replaced = index.segment_hashes();
        let entropy = self.options.entropy;
        self.go_on()?;
        let written = self.domain.write_index(index, &replaced, entropy)?;
        index.segments = written.segments;
        for hash in replaced {
            self.go_on()?;
            let name = self.domain.name(ObjectKind::IndexSegment, &hash);
            self.domain.store().delete(&name)?;
        }
        Ok(())
    }
}

/// Gives signs of life while work is long that looks, now and then, whether it should stop.
struct Sign<'a> {
    session: &'a Session,
    options: &'a PruneOptions<'a>,
}

impl Monitor for Sign<'_> {
    fn event(&self, event: Event<'_>) {
        self.options.monitor.event(event);
    }

    fn is_cancelled(&self) -> bool {
        self.session.beat(self.options.clock, self.options.entropy);
        self.options.monitor.is_cancelled()
    }
}

/// Gives the packs that hold something needed.
fn needed_packs(index: &Index, bits: &Bits) -> Result<BTreeSet<ObjectHash>, RepositoryError> {
    let usage = Usage::of(index, bits)?;
    let packs = (0_usize..).zip(index.packs());
    let needed = packs.filter(|(ordinal, _)| usage.chunks(*ordinal) > 0);
    Ok(needed.map(|(_, pack)| pack.hash).collect())
}
