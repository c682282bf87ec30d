//! Checking: is everything there that snapshots need, and is it undamaged? What is damaged is named
//! together with the files that it takes away.

use std::collections::{HashMap, HashSet};

use edge::{Event, Monitor, Phase, TreePath};
use model::{ByteCount, SnapshotId};
use sealing::ObjectCipher;

use crate::backup::{list_packs, read_pack};
use crate::container::{Tail, open_tail};
use crate::content::Bytes;
use crate::domain::NameMismatch;
use crate::error::{ReadError, RepositoryError, chain};
use crate::index::{PackInfo, Prefix, Record, prefix_of};
use crate::layout::ObjectHash;
use crate::pack::{FrameEntry, decode_trailer, decompress};
use crate::reader::ChunkReader;
use crate::snapshot::Snapshot;
use crate::tree::TreeWalk;
use crate::view::View;

/// Damage and affected files that are reported one by one.
const REPORT_COUNT_MAX: usize = 1000;
/// The longest pack that is read whole.
const PACK_BYTES_MAX: u64 = 512 * 1024 * 1024;

/// How thoroughly to check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CheckDepth {
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

struct Check<'a> {
    view: &'a View,
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
        let mut check = Check {
            view: self,
            report: CheckReport::default(),
            bad: HashSet::new(),
        };
        if let Some(RepositoryError::Damaged { object, source, .. }) = &self.index.damaged {
            check.report.damage(object.to_string(), chain(&**source));
        }
        check.packs(depth, monitor)?;
        check.snapshots(monitor)?;
        Ok(check.report)
    }
}

impl Check<'_> {
    fn packs(&mut self, depth: CheckDepth, monitor: &dyn Monitor) -> Result<(), RepositoryError> {
        let view = self.view;
        let stored = list_packs(&view.domain)?;
        // Sorted by pack, so that each pack finds its own.
        let mut records = view.index.records().to_vec();
        records.sort_unstable_by_key(|record| record.pack);
        for (ordinal, pack) in (0_u32..).zip(view.index.packs()) {
            if monitor.is_cancelled() {
                return Err(RepositoryError::Cancelled);
            }
            let name = view.domain.name(pack.kind, &pack.hash);
            let from = records.partition_point(|record| record.pack < ordinal);
            let to = records.partition_point(|record| record.pack <= ordinal);
            let own = records.get(from..to).unwrap_or_default();
            let size = stored.get(&(pack.hash, pack.kind)).copied();
            let error = match (size, depth) {
                (None, _) => Some("it is not there".to_owned()),
                (Some(size), _) if size != pack.size => {
                    Some(format!("it has {size} bytes instead of {}", pack.size))
                }
                (Some(size), CheckDepth::Structure) => {
                    let read = read_pack(&view.domain, pack.kind, pack.hash, size)?;
                    let is_same = read.is_some_and(|(info, _)| info == *pack);
                    (!is_same).then(|| "its trailer is damaged".to_owned())
                }
                (Some(_), CheckDepth::Data) => self.pack_data(pack, own)?,
            };
            self.report.packs += 1;
            if let Some(error) = error {
                // What a whole check has found to be readable stays good.
                let lost = own.iter().map(|record| record.prefix);
                if depth == CheckDepth::Structure || size != Some(pack.size) {
                    self.bad.extend(lost);
                }
                self.report.damage(name.to_string(), error);
            }
            monitor.event(Event::Progress {
                entries: self.report.packs,
                bytes: self.report.read_bytes,
                bytes_expected: None,
            });
        }
        Ok(())
    }

    /// Reads a pack whole; gives what is wrong with it, and notes the chunks that are lost.
    fn pack_data(
        &mut self,
        pack: &PackInfo,
        own: &[Record],
    ) -> Result<Option<String>, RepositoryError> {
        let domain = &self.view.domain;
        let name = domain.name(pack.kind, &pack.hash);
        let bytes = domain.store().get(&name, PACK_BYTES_MAX)?;
        self.report.read_bytes += ByteCount::new(bytes.len() as u64);
        if ObjectHash::of(&bytes) == pack.hash {
            let namer = domain.keyring().namer();
            let good = open_all(&self.view.domain, pack, &bytes, &mut |chunk, bytes| {
                namer.name(chunk.kind, bytes) == chunk.id
            });
            if good.len() >= own.len() && own.iter().all(|record| good.contains(&record.prefix)) {
                return Ok(None);
            }
            self.bad.extend(own.iter().map(|record| record.prefix));
            return Ok(Some("its content is not what its names say".to_owned()));
        }
        // Find out what is lost: every frame that still opens is good.
        let mut frames = HashMap::new();
        for record in own {
            let frame = record.frame();
            let is_good = *frames
                .entry(frame)
                .or_insert_with(|| self.opens(pack, frame, &bytes));
            if !is_good {
                self.bad.insert(record.prefix);
            }
        }
        Ok(Some(NameMismatch.to_string()))
    }

    fn opens(&self, pack: &PackInfo, frame: u16, bytes: &[u8]) -> bool {
        let keyring = self.view.domain.keyring();
        let Ok(cipher) = ObjectCipher::recall(keyring, pack.kind, pack.epoch, &pack.salt) else {
            return false;
        };
        let Some(shape) = pack.frames.get(usize::from(frame)) else {
            return false;
        };
        let start = usize::try_from(pack.frame_offset(frame)).unwrap_or(usize::MAX);
        let end = start.saturating_add(usize::try_from(shape.stored).unwrap_or(usize::MAX));
        let Some(mut sealed) = bytes.get(start..end).map(<[u8]>::to_vec) else {
            return false;
        };
        cipher.open_part(frame.into(), &mut sealed).is_ok() && decompress(*shape, sealed).is_ok()
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

    fn snapshot(
        &mut self,
        snapshot: &Snapshot,
        seen: &mut HashSet<Prefix>,
        monitor: &dyn Monitor,
    ) -> Result<(), RepositoryError> {
        let view = self.view;
        let mut reader = ChunkReader::new(&view.domain, &view.index);
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
                    if let ReadError::Store(error) = *lost.error {
                        return Err(error.into());
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
        let is_good = |id: &sealing::ChunkId| {
            !self.bad.contains(&prefix_of(id)) && self.view.index.contains(id)
        };
        if !list.iter().all(|chunk| is_good(&chunk.id)) {
            return Ok(false);
        }
        match reader.chunk_list(content) {
            Ok(list) => Ok(list.iter().all(|chunk| is_good(&chunk.id))),
            Err(ReadError::Store(error)) => Err(error.into()),
            Err(_) => Ok(false),
        }
    }
}

/// Opens every frame of an undamaged pack; gives the chunks that `is_good` agrees to.
fn open_all(
    domain: &crate::domain::Domain,
    pack: &PackInfo,
    bytes: &[u8],
    is_good: &mut dyn FnMut(&crate::pack::ChunkEntry, &[u8]) -> bool,
) -> HashSet<Prefix> {
    let mut good = HashSet::new();
    let Ok(Tail::Trailer { cipher, trailer }) = open_tail(domain.keyring(), pack.kind, bytes)
    else {
        return good;
    };
    let frames: Vec<FrameEntry> = decode_trailer(&trailer).unwrap_or_default();
    let mut start = sealing::HEADER_BYTES;
    for (number, frame) in (0_u32..).zip(&frames) {
        let end = start.saturating_add(usize::try_from(frame.shape.stored).unwrap_or(usize::MAX));
        let mut sealed = bytes.get(start..end).unwrap_or_default().to_vec();
        start = end;
        if cipher.open_part(number, &mut sealed).is_err() {
            continue;
        }
        let Ok(plain) = decompress(frame.shape, sealed) else {
            continue;
        };
        let mut rest = plain.as_slice();
        for chunk in &frame.chunks {
            let length = usize::try_from(chunk.length).unwrap_or(usize::MAX);
            let Some((piece, after)) = rest.split_at_checked(length) else {
                break;
            };
            if is_good(chunk, piece) {
                good.insert(prefix_of(&chunk.id));
            }
            rest = after;
        }
    }
    good
}
