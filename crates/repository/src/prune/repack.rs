//! Repacking: what is still needed of partly dead packs goes into new packs.

use std::collections::{BTreeMap, BTreeSet};

use edge::{ByteRange, StoreFault};
use sealing::{ObjectKind, epoch_number};

use super::PruneOptions;
use super::mark::{Bits, Usage};
use super::taken::Taken;
use crate::backup::read_trailer;
use crate::condemned::PackName;
use crate::domain::{Domain, NameMismatch};
use crate::error::{ReadError, RepositoryError};
use crate::index::{Index, PackInfo, Record, records_of};
use crate::layout::ObjectHash;
use crate::pack::{
    ChunkEntry, DATA_FRAME_BYTES, Frame, METADATA_FRAME_BYTES, PACK_BYTES, PackBuilder, compress,
};
use crate::reader::{ChunkReader, plan_runs};

/// How much to move at a time. Packs that are mostly needed stay as they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Repack {
    /// Only while more than this share of what is stored is not needed.
    pub waste_percent: u8,
    /// No pack is begun once so many bytes are to be stored anew; the next time goes on.
    pub bytes_max: u64,
    /// No pack is begun after this time; the next time goes on.
    pub secs_max: u32,
    /// 1–9 as zstd counts, 0 for none.
    pub compression: u8,
    /// Packs of epochs before this one come first, whatever of them is needed.
    pub before_epoch: u32,
    /// After so many bytes of old packs the index names the new ones and the old ones are
    /// condemned. When the work is cut before, the next time takes up the new packs that it finds:
    /// what is stored again is what was under way, one pack of each kind at most.
    pub turn_bytes: u64,
    /// New packs have at most so many bytes, 12 MiB whatever is asked for.
    pub pack_bytes: usize,
}

impl Default for Repack {
    fn default() -> Self {
        Self {
            waste_percent: 10,
            bytes_max: u64::MAX,
            secs_max: u32::MAX,
            compression: 3,
            before_epoch: 0,
            turn_bytes: 128 << 20,
            pack_bytes: PACK_BYTES,
        }
    }
}

/// Gives the packs to rewrite, the worst first.
pub(super) fn choose(index: &Index, usage: &Usage, repack: Repack) -> Vec<u32> {
    let mut partly: Vec<(u32, u64, u64)> = Vec::new();
    let mut chosen = Vec::new();
    let (mut total, mut waste) = (0_u64, 0_u64);
    for ((ordinal, pack), number) in (0_u32..).zip(index.packs()).zip(0_usize..) {
        if index.is_doomed(&pack.hash) {
            continue;
        }
        total += pack.size;
        waste += usage.waste(number);
        if usage.chunks(number) > 0 && epoch_number(pack.epoch) < repack.before_epoch {
            chosen.push(ordinal);
        } else if usage.chunks(number) > 0 && usage.waste(number) > 0 {
            partly.push((ordinal, usage.waste(number), pack.size));
        }
    }
    let share = |waste: u64, size: u64| u128::from(waste) * 1_000_000 / u128::from(size.max(1));
    partly.sort_by_key(|(_, waste, size)| std::cmp::Reverse(share(*waste, *size)));
    for (ordinal, own, _) in partly {
        if share(waste, total) <= u128::from(repack.waste_percent) * 10_000 {
            break;
        }
        chosen.push(ordinal);
        waste -= own;
        total -= own;
    }
    chosen
}

/// Gives the condemned packs that hold something needed: it was in no other pack when it came to
/// be needed.
pub(super) fn rescued(
    index: &Index,
    usage: &Usage,
    stored: &BTreeMap<PackName, u64>,
    condemned: &BTreeSet<ObjectHash>,
) -> Vec<u32> {
    let packs = (0_u32..).zip(0_usize..).zip(index.packs());
    packs
        .filter(|((_, number), pack)| {
            usage.chunks(*number) > 0
                && condemned.contains(&pack.hash)
                && stored.contains_key(&(pack.hash, pack.kind))
        })
        .map(|((ordinal, _), _)| ordinal)
        .collect()
}

/// What was moved.
pub(super) struct Moved {
    /// New packs, stored and in no segment yet.
    pub(super) new: Index,
    /// Old packs, of which everything that is needed is in the new ones.
    pub(super) emptied: Vec<(ObjectHash, ObjectKind)>,
    /// Bytes in them that nobody needs.
    pub(super) waste: u64,
    /// Old packs that cannot be read: they stay.
    pub(super) unreadable: u64,
    /// Packs were left for the next time.
    pub(super) is_cut_short: bool,
    /// What ended it early.
    pub(super) error: Option<RepositoryError>,
}

impl Moved {
    pub(super) fn bytes(&self) -> u64 {
        self.new.packs().iter().map(|pack| pack.size).sum()
    }
}

/// Chunks of one kind on their way into packs.
struct Lane {
    kind: ObjectKind,
    builder: Option<PackBuilder>,
    plain: Vec<u8>,
    chunks: Vec<ChunkEntry>,
    /// Chunks that came, that are in frames, and that are in stored packs.
    pushed: u64,
    framed: u64,
    stored: u64,
    /// Old packs and the number of their last chunk.
    waiting: Vec<(ObjectHash, u64)>,
}

/// What has to stay.
#[derive(Clone, Copy)]
pub(super) struct Needed<'a> {
    pub(super) bits: &'a Bits,
    pub(super) usage: &'a Usage,
    /// What of it is in new packs already.
    pub(super) taken: &'a Taken,
}

impl Needed<'_> {
    /// Gives how many chunks of a pack have to be moved.
    fn chunks(&self, ordinal: u32) -> u32 {
        let number = usize::try_from(ordinal).unwrap_or(usize::MAX);
        let chunks = self.usage.chunks(number);
        chunks.saturating_sub(self.taken.count(ordinal))
    }
}

/// Moves chunks from old packs into new ones.
struct Mover<'a> {
    domain: &'a Domain,
    index: &'a Index,
    needed: Needed<'a>,
    options: &'a PruneOptions<'a>,
    level: i32,
    pack_bytes: usize,
    moved: Moved,
}

/// Rewrites packs, in the order given, until the budget is used up. Nothing that is stored already
/// changes.
pub(super) fn repack(
    domain: &Domain,
    index: &Index,
    needed: Needed<'_>,
    options: &PruneOptions<'_>,
    (ordinals, limits): (Vec<u32>, Repack),
) -> Moved {
    let mut mover = Mover {
        domain,
        index,
        needed,
        options,
        level: limits.compression.into(),
        pack_bytes: limits.pack_bytes.min(PACK_BYTES),
        moved: Moved {
            new: Index::new(domain.scratch().cloned()),
            emptied: Vec::new(),
            waste: 0,
            unreadable: 0,
            is_cut_short: false,
            error: None,
        },
    };
    let mut lanes = [ObjectKind::DataPack, ObjectKind::MetadataPack].map(Lane::new);
    if let Err(error) = mover.run(&mut lanes, ordinals, limits) {
        // What was moved so far counts; without space the rest waits for better times.
        mover.moved.is_cut_short = true;
        let is_full = |fault: StoreFault| fault == StoreFault::Full;
        match &error {
            RepositoryError::Store(store) if is_full(store.fault) => {}
            _ => mover.moved.error = Some(error),
        }
    }
    let mut moved = mover.moved;
    let emptied: BTreeSet<_> = moved.emptied.iter().map(|(hash, _)| *hash).collect();
    let packs = (0_usize..).zip(index.packs());
    let waste = packs.filter(|(_, pack)| emptied.contains(&pack.hash));
    moved.waste = waste.map(|(ordinal, _)| needed.usage.waste(ordinal)).sum();
    moved
}

impl Mover<'_> {
    fn run(
        &mut self,
        lanes: &mut [Lane; 2],
        ordinals: Vec<u32>,
        limits: Repack,
    ) -> Result<(), RepositoryError> {
        let ends = self.options.clock.now().plus_secs(limits.secs_max.into());
        let mut reader = ChunkReader::new(self.domain, self.index);
        for ordinal in ordinals {
            let begun: u64 = lanes.iter().map(Lane::begun_bytes).sum();
            let is_over = self.moved.bytes() + begun >= limits.bytes_max;
            if is_over || self.options.clock.now() >= ends || self.options.monitor.is_cancelled() {
                self.moved.is_cut_short = true;
                break;
            }
            let Some(pack) = self.index.pack(ordinal) else {
                continue;
            };
            let Some(lane) = lanes.iter_mut().find(|lane| lane.kind == pack.kind) else {
                continue;
            };
            match self.pack(ordinal, pack, lane, &mut reader) {
                Ok(()) => lane.waiting.push((pack.hash, lane.pushed)),
                Err(RepositoryError::Read(ReadError::Store(error)))
                    if error.fault != StoreFault::NotFound =>
                {
                    return Err(error.into());
                }
                Err(RepositoryError::Read(_)) => self.moved.unreadable += 1,
                Err(error) => return Err(error),
            }
        }
        for lane in lanes {
            self.close_frame(lane)?;
            self.store(lane)?;
        }
        Ok(())
    }

    /// Moves the needed chunks of one pack; each is verified.
    fn pack(
        &mut self,
        ordinal: u32,
        pack: &PackInfo,
        lane: &mut Lane,
        reader: &mut ChunkReader<'_>,
    ) -> Result<(), RepositoryError> {
        if self.needed.chunks(ordinal) == 0 {
            return Ok(());
        }
        let chunks = self.needed_of(ordinal, pack)?;
        let mut frames: Vec<_> = chunks.iter().map(|(_, at)| (ordinal, at.frame())).collect();
        frames.dedup();
        for run in plan_runs(self.index, &frames) {
            let mut result = Ok(());
            reader.read_run(&run, &mut |reader: &ChunkReader<'_>, frame, plain| {
                let from = chunks.partition_point(|(_, at)| at.frame() < frame);
                let to = chunks.partition_point(|(_, at)| at.frame() <= frame);
                let own = chunks.get(from..to).unwrap_or_default();
                if result.is_ok() {
                    result = plain.map_err(RepositoryError::from).and_then(|plain| {
                        own.iter().try_for_each(|(chunk, at)| {
                            let bytes = reader.chunk(chunk.kind, &chunk.id, at, &plain)?;
                            self.push(lane, *chunk, bytes)
                        })
                    });
                }
            })?;
            result?;
        }
        Ok(())
    }

    /// Gives the needed chunks of a pack in their order, as its trailer names them.
    fn needed_of(
        &self,
        ordinal: u32,
        pack: &PackInfo,
    ) -> Result<Vec<(ChunkEntry, Record)>, RepositoryError> {
        let Needed { bits, taken, .. } = self.needed;
        let wrong = |what: &'static str| ReadError::Frame {
            pack: self.domain.name(pack.kind, &pack.hash),
            frame: 0,
            source: what.into(),
        };
        let trailer = read_trailer(self.domain, pack.kind, &pack.hash)
            .map_err(ReadError::Store)?
            .ok_or_else(|| wrong("its trailer does not open"))?;
        let mut needed = Vec::new();
        for (number, frame) in (0_u16..).zip(&trailer.frames) {
            let mut offset = 0;
            for chunk in &frame.chunks {
                let place = (ordinal, number, offset, chunk.length);
                offset += chunk.length;
                if let Some((position, at)) = self.index.locate(&chunk.id)
                    && bits.get(position)
                    && !taken.has(position)
                    && (at.pack, at.frame(), at.offset(), at.length()) == place
                {
                    needed.push((*chunk, at));
                }
            }
        }
        if u32::try_from(needed.len()) == Ok(self.needed.chunks(ordinal)) {
            Ok(needed)
        } else {
            Err(wrong("its trailer lacks chunks that the index finds in it").into())
        }
    }

    fn push(
        &mut self,
        lane: &mut Lane,
        chunk: ChunkEntry,
        bytes: &[u8],
    ) -> Result<(), RepositoryError> {
        let frame_bytes = lane.frame_bytes().min(self.pack_bytes);
        if lane.plain.len() + bytes.len() > frame_bytes {
            self.close_frame(lane)?;
        }
        lane.plain.extend_from_slice(bytes);
        lane.chunks.push(chunk);
        lane.pushed += 1;
        Ok(())
    }

    fn close_frame(&mut self, lane: &mut Lane) -> Result<(), RepositoryError> {
        if lane.chunks.is_empty() {
            return Ok(());
        }
        let plain = std::mem::take(&mut lane.plain);
        let length = u32::try_from(plain.len()).unwrap_or(u32::MAX);
        let (codec, payload) = compress(plain, self.level).map_err(|source| {
            let object = self.domain.name(lane.kind, &ObjectHash::of(b""));
            ReadError::Frame {
                pack: object,
                frame: 0,
                source: source.into(),
            }
        })?;
        let frame = Frame {
            codec,
            plain: length,
            payload,
            chunks: std::mem::take(&mut lane.chunks),
        };
        let pack_bytes = self.pack_bytes;
        let is_full = |builder: &PackBuilder| !builder.has_room_for(&frame, pack_bytes);
        if lane.builder.as_ref().is_some_and(is_full) {
            self.store(lane)?;
        }
        let mut builder = match lane.builder.take() {
            Some(builder) => builder,
            None => {
                let mut salt = [0; 32];
                self.options.entropy.fill(&mut salt);
                PackBuilder::new(self.domain.keyring(), lane.kind, &salt)
                    .map_err(RepositoryError::Sealing)?
            }
        };
        builder.push(frame).map_err(RepositoryError::Sealing)?;
        lane.framed = lane.pushed;
        lane.builder = Some(builder);
        Ok(())
    }

    /// Stores the pack of a lane and reads its end back.
    fn store(&mut self, lane: &mut Lane) -> Result<(), RepositoryError> {
        let Some(builder) = lane.builder.take() else {
            lane.release(&mut self.moved.emptied);
            return Ok(());
        };
        let pack = builder.finish().map_err(RepositoryError::Sealing)?;
        let (kind, stored) = (lane.kind, pack.stored);
        let name = self.domain.name(kind, &stored.hash);
        self.domain.store().put(&name, &stored.bytes)?;
        let length = stored.tail_bytes as u64;
        let end = self
            .domain
            .store()
            .get_range(&name, ByteRange::Suffix { length })?;
        if !stored.bytes.ends_with(&end) || end.len() != stored.tail_bytes {
            return Err(self.domain.damaged(kind, &stored.hash, NameMismatch));
        }
        if kind == ObjectKind::MetadataPack {
            self.domain.keep_in_cache(kind, &stored.hash, &stored.bytes);
        }
        let records = records_of(0, &pack.frames);
        self.moved.new.add(vec![pack.info], records)?;
        lane.stored = lane.framed;
        lane.release(&mut self.moved.emptied);
        Ok(())
    }
}

impl Lane {
    const fn new(kind: ObjectKind) -> Self {
        Self {
            kind,
            builder: None,
            plain: Vec::new(),
            chunks: Vec::new(),
            pushed: 0,
            framed: 0,
            stored: 0,
            waiting: Vec::new(),
        }
    }

    fn frame_bytes(&self) -> usize {
        if self.kind == ObjectKind::DataPack {
            DATA_FRAME_BYTES
        } else {
            METADATA_FRAME_BYTES
        }
    }

    /// Gives how much is on its way into a pack that is not stored yet.
    fn begun_bytes(&self) -> u64 {
        let framed = self.builder.as_ref().map_or(0, PackBuilder::stored_bytes);
        framed as u64 + self.plain.len() as u64
    }

    /// Gives the old packs of which everything is stored anew.
    fn release(&mut self, emptied: &mut Vec<(ObjectHash, ObjectKind)>) {
        let (kind, stored) = (self.kind, self.stored);
        let done = self.waiting.iter().filter(|(_, last)| *last <= stored);
        emptied.extend(done.map(|(hash, _)| (*hash, kind)));
        self.waiting.retain(|(_, last)| *last > stored);
    }
}
