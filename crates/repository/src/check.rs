//! Checking: is everything there that snapshots need, and is it undamaged? What is damaged is named
//! together with the files that it takes away.

mod beside;
mod names;
mod packs;
mod share;

use std::collections::{BTreeMap, HashSet};

use edge::{Event, Monitor, Phase, TreePath};
use model::{ByteCount, SnapshotId};

use crate::backup::{list_packs, lost_packs};
use crate::condemned::PackName;
use crate::content::Bytes;
use crate::domain::check_config;
use crate::error::{ReadError, RepositoryError, chain, is_loss};
use crate::index::{Doomed, Index, PackInfo, Prefix, prefix_of};
use crate::reader::ChunkReader;
use crate::snapshot::Snapshot;
use crate::tree::TreeWalk;
use crate::view::View;
use beside::look_beside;
pub use names::{NameReport, check_names};
use packs::look_at_all;
pub(crate) use packs::{PACK_BYTES_MAX, lost_of};
pub use share::CheckShare;
use share::Record;

/// Damage and affected files that are reported one by one.
const REPORT_COUNT_MAX: usize = 1000;
/// Times that the index is read again because it names packs that are gone.
const ATTEMPTS: usize = 3;

/// How thoroughly to check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CheckDepth {
    /// Snapshots, trees, and that all packs are there in their length.
    Presence,
    /// Snapshots, trees, and that all packs are there in their length and end as they should.
    Structure,
    /// Every byte, too.
    Data,
}

/// One damaged or missing object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// Which object.
    pub object: String,
    /// What is wrong with it, causes outermost first.
    pub error: String,
}

/// A file that cannot be restored whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AffectedFile {
    /// From which snapshot.
    pub snapshot: SnapshotId,
    /// Its path, escaped; or which entries are lost with a page.
    pub path: String,
}

/// What a check found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CheckReport {
    /// Snapshots looked at.
    pub snapshots: u64,
    /// Packs looked at.
    pub packs: u64,
    /// Bytes read to check packs.
    pub read_bytes: ByteCount,
    /// Number of damaged objects.
    pub damaged: u64,
    /// The first of them.
    pub damage: Vec<Damage>,
    /// Number of affected files, counted in each snapshot that holds them.
    pub affected: u64,
    /// The first of them.
    pub affected_files: Vec<AffectedFile>,
}

impl CheckReport {
    /// True when nothing is damaged or missing.
    #[must_use]
    pub const fn is_sound(&self) -> bool {
        self.damaged == 0 && self.affected == 0
    }

    fn damage(&mut self, object: String, error: String) {
        self.damaged += 1;
        if self.damage.len() < REPORT_COUNT_MAX {
            self.damage.push(Damage { object, error });
        }
    }

    fn affected(&mut self, snapshot: &Snapshot, path: String) {
        self.affected += 1;
        if self.affected_files.len() < REPORT_COUNT_MAX {
            self.affected_files.push(AffectedFile {
                snapshot: snapshot.id,
                path,
            });
        }
    }
}

/// Says how thoroughly to look at a pack, by its ordinal.
type DepthOf<'a> = dyn Fn(usize) -> CheckDepth + Sync + 'a;

struct Check<'a> {
    view: &'a View,
    /// Without what is in packs that are gone.
    index: &'a Index,
    gone: Doomed,
    /// All packs that are there, listed after the index was read.
    stored: BTreeMap<PackName, u64>,
    report: CheckReport,
    /// Chunks that cannot be read.
    bad: HashSet<Prefix>,
}

impl View {
    /// Checks the domain.
    ///
    /// # Errors
    ///
    /// `Store` when the place cannot be read, `Cancelled`. Damage is in the report.
    pub fn check(
        &self,
        depth: CheckDepth,
        monitor: &dyn Monitor,
    ) -> Result<CheckReport, RepositoryError> {
        monitor.event(Event::Phase(Phase::Verifying));
        self.checked(monitor, &mut |check| {
            check.packs(&|_| depth, monitor, &mut |_| {})
        })
    }

    /// Checks snapshots and trees, that all packs are there, and a share of the data: what was
    /// checked the longest ago.
    ///
    /// # Errors
    ///
    /// As [`View::check`].
    pub fn check_share(
        &self,
        share: &CheckShare<'_>,
        monitor: &dyn Monitor,
    ) -> Result<CheckReport, RepositoryError> {
        monitor.event(Event::Phase(Phase::Verifying));
        self.checked(monitor, &mut |check| {
            let mut record = Record::read(share);
            let chosen = record.choose(check.index.packs(), share.percent);
            let is_time = || share.until.is_none_or(|until| share.clock.now() < until);
            let depth = |ordinal: usize| {
                if chosen.contains(&ordinal) && is_time() {
                    CheckDepth::Data
                } else {
                    CheckDepth::Presence
                }
            };
            let now = share.clock.now();
            let done = check.packs(&depth, monitor, &mut |pack| record.note(pack, now));
            record.write(share, check.index.packs());
            done
        })
    }

    /// Lets `packs` look at the packs, then looks at all else.
    fn checked(
        &self,
        monitor: &dyn Monitor,
        packs: &mut dyn FnMut(&mut Check<'_>) -> Result<(), RepositoryError>,
    ) -> Result<CheckReport, RepositoryError> {
        let known = self.index()?;
        let mut without: Option<Index> = None;
        let mut gone = Doomed::new();
        let mut attempts = 0;
        let stored = loop {
            let stored = list_packs(&self.domain)?;
            let index = without.as_ref().unwrap_or(known);
            let lost = lost_packs(&self.domain, index, &stored)?;
            attempts += 1;
            if lost.is_subset(&gone) || attempts > ATTEMPTS {
                break stored;
            }
            gone.extend(lost);
            without = Some(self.domain.load_index_asking_packs(&gone, None)?);
        };
        let mut check = Check {
            view: self,
            index: without.as_ref().unwrap_or(known),
            gone,
            stored,
            report: CheckReport::default(),
            bad: HashSet::new(),
        };
        if let Some(RepositoryError::Damaged { object, source, .. }) = &check.index.damaged {
            check.report.damage(object.to_string(), chain(&**source));
        }
        packs(&mut check)?;
        check.snapshots(monitor)?;
        check.name_gone(monitor)?;
        check.finish()
    }
}

impl Check<'_> {
    /// Looks at what lies beside the data, and makes sure that the place is still there: one that
    /// went away meanwhile is not damaged.
    fn finish(mut self) -> Result<CheckReport, RepositoryError> {
        look_beside(&self.view.domain, &mut |name, error| {
            self.report.damage(name.to_string(), error);
        })?;
        if !self.report.is_sound() {
            check_config(&**self.view.domain.store())?;
        }
        Ok(self.report)
    }

    /// Looks at all packs, each as thoroughly as `depth` says; `read` hears of those read whole.
    fn packs(
        &mut self,
        depth: &DepthOf<'_>,
        monitor: &dyn Monitor,
        read: &mut dyn FnMut(&PackInfo),
    ) -> Result<(), RepositoryError> {
        look_at_all(
            (&self.view.domain, self.index, &self.stored),
            depth,
            monitor,
            &mut |pack, found| {
                if self.gone.contains(&pack.hash) {
                    return;
                }
                if found.read_bytes > 0 {
                    read(pack);
                }
                self.report.packs += 1;
                self.report.read_bytes += ByteCount::new(found.read_bytes);
                self.bad.extend(found.lost);
                if let Some(error) = found.error {
                    let name = self.view.domain.name(pack.kind, &pack.hash);
                    self.report.damage(name.to_string(), error);
                }
                monitor.event(Event::Progress {
                    entries: self.report.packs,
                    bytes: self.report.read_bytes,
                    bytes_expected: None,
                });
            },
        )
    }

    fn snapshots(&mut self, monitor: &dyn Monitor) -> Result<(), RepositoryError> {
        let list = self.view.domain.snapshots()?;
        for error in &list.unreadable {
            match error {
                RepositoryError::Damaged { object, source, .. } => {
                    self.report.damage(object.to_string(), chain(&**source));
                }
                error => self.report.damage("a snapshot".to_owned(), chain(error)),
            }
        }
        // Pages that several snapshots share are looked at once while nothing is lost.
        let mut seen = HashSet::new();
        for snapshot in &list.snapshots {
            self.report.snapshots += 1;
            self.snapshot(snapshot, &mut seen, monitor)?;
        }
        Ok(())
    }

    /// Names packs that the index names and that are gone, if anything that they held is lost. A run
    /// that merged segments while a deletion was at work may have left the names of what nobody
    /// needs, until the next run.
    fn name_gone(&mut self, monitor: &dyn Monitor) -> Result<(), RepositoryError> {
        if self.gone.is_empty() || !self.is_anything_lost(monitor)? {
            return Ok(());
        }
        let packs = self.index.packs().iter();
        for pack in packs.filter(|pack| self.gone.contains(&pack.hash)) {
            let name = self.view.domain.name(pack.kind, &pack.hash);
            self.report
                .damage(name.to_string(), "it is not there".to_owned());
        }
        Ok(())
    }

    /// Also looks at the snapshots in the trash, which may be brought back.
    fn is_anything_lost(&mut self, monitor: &dyn Monitor) -> Result<bool, RepositoryError> {
        if !self.report.is_sound() {
            return Ok(true);
        }
        let list = self.view.domain.trash_list()?;
        let mut seen = HashSet::new();
        let before = std::mem::take(&mut self.report);
        let looked = list
            .trashed
            .iter()
            .try_for_each(|one| self.snapshot(&one.snapshot, &mut seen, monitor));
        let found = std::mem::replace(&mut self.report, before);
        looked.map(|()| !found.is_sound() || !list.unreadable.is_empty())
    }

    fn snapshot(
        &mut self,
        snapshot: &Snapshot,
        seen: &mut HashSet<Prefix>,
        monitor: &dyn Monitor,
    ) -> Result<(), RepositoryError> {
        let view = self.view;
        let mut reader = ChunkReader::new(&view.domain, self.index);
        let mut walk = TreeWalk::new(snapshot.root, Vec::new());
        loop {
            if monitor.is_cancelled() {
                return Err(RepositoryError::Cancelled);
            }
            let all_good = self.report.is_sound();
            let mut visit = |id: &sealing::ChunkId| seen.insert(prefix_of(id)) || !all_good;
            match walk.next_visiting(&mut reader, &mut visit) {
                Ok(None) => return Ok(()),
                Ok(Some(node)) => {
                    let Some(content) = &node.content else {
                        continue;
                    };
                    if !self.is_whole(&content.bytes, &mut reader, content)? {
                        self.report.affected(snapshot, node.entry.path.to_string());
                    }
                }
                Err(lost) => {
                    match *lost.error {
                        ReadError::Store(error) if !is_loss(&error) => return Err(error.into()),
                        _ => {}
                    }
                    let from = TreePath::from_key(&lost.first_key).unwrap_or_default();
                    self.report
                        .affected(snapshot, format!("entries from {from} on"));
                }
            }
        }
    }

    fn is_whole(
        &self,
        bytes: &Bytes,
        reader: &mut ChunkReader<'_>,
        content: &crate::content::Content,
    ) -> Result<bool, RepositoryError> {
        let Bytes::Chunks { list, .. } = bytes else {
            return Ok(true);
        };
        let is_good =
            |id: &sealing::ChunkId| !self.bad.contains(&prefix_of(id)) && self.index.contains(id);
        if !list.iter().all(|chunk| is_good(&chunk.id)) {
            return Ok(false);
        }
        match reader.chunk_list(content) {
            Ok(list) => Ok(list.iter().all(|chunk| is_good(&chunk.id))),
            Err(ReadError::Store(error)) if !is_loss(&error) => Err(error.into()),
            Err(_) => Ok(false),
        }
    }
}
