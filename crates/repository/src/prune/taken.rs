//! What would have to be moved and is stored already, in packs that a deletion left that was cut:
//! no index names them, or it names them beside the old ones (`docs/format.md`, "Deletion").
//!
//! Nothing is believed that was not read: the old packs are deleted afterwards, so what counts as
//! moved was found whole in its new place, by its id.

use std::collections::{BTreeMap, BTreeSet};

use edge::{Monitor, StoreFault};
use model::{ByteCount, Instant};
use sealing::epoch_number;

use super::Pruning;
use super::mark::{Bits, Usage};
use super::repack::{Repack, choose};
use crate::backup::read_trailer;
use crate::condemned::PackName;
use crate::domain::Domain;
use crate::error::{ReadError, RepositoryError};
use crate::index::{Index, PackInfo, Record, prefix_of, records_of};
use crate::layout::ObjectHash;
use crate::pack::FrameEntry;
use crate::reader::{ChunkReader, plan_runs};

/// What counts as moved before anything is moved.
pub(super) struct Taken {
    /// The packs that hold it, with all that they hold.
    pub(super) places: Index,
    /// The chunks, by their numbers in the index.
    chunks: Bits,
    /// How many of them each old pack has.
    counts: BTreeMap<u32, u32>,
}

impl Taken {
    fn none(domain: &Domain, index: &Index) -> Self {
        Self {
            places: Index::new(domain.scratch().cloned()),
            chunks: Bits::new(index.len()),
            counts: BTreeMap::new(),
        }
    }

    /// True for a chunk that need not be moved.
    pub(super) fn has(&self, position: usize) -> bool {
        self.chunks.get(position)
    }

    /// Gives how many chunks of an old pack need not be moved.
    pub(super) fn count(&self, ordinal: u32) -> u32 {
        self.counts.get(&ordinal).copied().unwrap_or(0)
    }
}

/// A pack that may hold what is to be moved, as its trailer says.
struct Candidate {
    info: PackInfo,
    frames: Vec<FrameEntry>,
}

/// What a candidate is good for.
#[derive(Default)]
struct Worth {
    /// Bytes of its chunks, of those that are needed, wherever else they are, and of those for
    /// which it would be kept.
    bytes: u64,
    needed: u64,
    useful: u64,
    /// Needed chunks that would otherwise be moved, and the old packs that they are in.
    gained: BTreeMap<usize, u32>,
}

impl Worth {
    /// Where most of a pack is of no use, moving what is stores less than keeping it wastes.
    fn is_enough(&self) -> bool {
        !self.gained.is_empty() && self.useful.saturating_mul(2) >= self.bytes
    }

    /// Gives the share of a number of bytes that is of no use.
    fn waste_of(&self, size: u64) -> u64 {
        let useless = u128::from(self.bytes.saturating_sub(self.useful));
        let waste = u128::from(size) * useless / u128::from(self.bytes.max(1));
        u64::try_from(waste).unwrap_or(size)
    }

    /// Gives a number by which candidates are tried: those of which most is needed come first.
    fn rank(&self) -> u128 {
        let unneeded = u128::from(self.bytes.saturating_sub(self.needed));
        unneeded * 1_000_000 / u128::from(self.bytes.max(1))
    }
}

/// What is looked for.
struct Wanted<'a> {
    index: &'a Index,
    bits: &'a Bits,
    /// The packs that everything needed is to be moved out of.
    old: BTreeSet<ObjectHash>,
    taken: Taken,
}

impl Wanted<'_> {
    fn worth(&self, candidate: &Candidate) -> Worth {
        let mut worth = Worth::default();
        for chunk in candidate.frames.iter().flat_map(|frame| &frame.chunks) {
            let length = u64::from(chunk.length);
            worth.bytes += length;
            let Some((position, at)) = self.index.locate(&chunk.id) else {
                continue;
            };
            if !self.bits.get(position) || at.length() != chunk.length {
                continue;
            }
            worth.needed += length;
            let Some(pack) = self.index.pack(at.pack).map(|pack| pack.hash) else {
                continue;
            };
            if pack == candidate.info.hash {
                worth.useful += length;
            } else if self.old.contains(&pack) && !self.taken.has(position) {
                let is_first = worth.gained.insert(position, at.pack).is_none();
                worth.useful += if is_first { length } else { 0 };
            }
        }
        worth
    }

    fn take(&mut self, candidate: Candidate, worth: &Worth) -> Result<(), RepositoryError> {
        for (position, old) in &worth.gained {
            self.taken.chunks.set(*position, true);
            *self.taken.counts.entry(*old).or_default() += 1;
        }
        // It stays, so nothing is moved out of it.
        self.old.remove(&candidate.info.hash);
        let records = records_of(0, &candidate.frames);
        self.taken.places.add(vec![candidate.info], records)
    }
}

impl Pruning<'_> {
    /// True while moving for more than rescue is allowed, and so is looking for what need not be
    /// moved: a pack of a session that is at work is for that session to name.
    pub(super) fn limits(&self) -> Option<Repack> {
        self.options.repack.filter(|_| self.beside.live.is_empty())
    }

    /// Gives packs that hold, too, what is about to be moved out of others. An index that names a
    /// chunk twice finds it in either pack: that of a deletion which was cut looks dead then, and
    /// must not be condemned before it was looked at.
    pub(super) fn find_spares(
        &self,
        index: &Index,
        bits: &Bits,
    ) -> Result<BTreeSet<ObjectHash>, RepositoryError> {
        let mut spares = BTreeSet::new();
        let Some(limits) = self.limits() else {
            return Ok(spares);
        };
        let named: usize = index.segments.iter().map(|segment| segment.records).sum();
        if named <= index.len() {
            return Ok(spares);
        }
        let old: BTreeSet<_> = choose(index, &Usage::of(index, bits)?, limits)
            .into_iter()
            .collect();
        if old.is_empty() {
            return Ok(spares);
        }
        let condemned = self.condemned();
        let all = self.domain.load_all_places()?;
        let mut last: Option<Record> = None;
        all.each_record(&mut |_, record| {
            let again = last.replace(record);
            if let Some(last) = again.filter(|last| last.prefix == record.prefix)
                && let Some((position, at)) = index.locate_as(&record)
                && bits.get(position)
                && old.contains(&at.pack)
            {
                let own = index.pack(at.pack).map(|pack| pack.hash);
                let packs = [last, record].into_iter();
                let packs = packs.filter_map(|place| all.pack(place.pack));
                let spare = packs.filter(|pack| {
                    Some(pack.hash) != own
                        && !condemned.contains(&pack.hash)
                        && self.stored.contains_key(&(pack.hash, pack.kind))
                });
                spares.extend(spare.map(|pack| pack.hash));
            }
            Ok(())
        })?;
        Ok(spares)
    }

    /// Finds what of the chosen packs is stored elsewhere and whole, names those places anew, and
    /// leaves them out of what is chosen. Only what was listed before this session began counts,
    /// and nothing that is condemned.
    pub(super) fn take_up(
        &mut self,
        (index, bits, usage): (&mut Index, &Bits, &Usage),
        chosen: &mut Vec<u32>,
        (limits, ends): (Repack, Instant),
    ) -> Result<Taken, RepositoryError> {
        let taken = Taken::none(self.domain, index);
        if chosen.is_empty() || !self.beside.live.is_empty() {
            return Ok(taken);
        }
        let hash_of = |ordinal: &u32| index.pack(*ordinal).map(|pack| pack.hash);
        let mut wanted = Wanted {
            index,
            bits,
            old: chosen.iter().filter_map(hash_of).collect(),
            taken,
        };
        for (pack, size) in self.candidates(&wanted, (limits, ends))? {
            if self.is_over(ends) {
                break;
            }
            let Some(candidate) = self.candidate(pack, size)? else {
                continue;
            };
            let worth = wanted.worth(&candidate);
            if !worth.is_enough() || !is_whole(self.domain, &candidate)? {
                continue;
            }
            let number = index.packs().iter().position(|named| named.hash == pack.0);
            let counted = number.map_or(0, |number| usage.waste(number));
            let waste = self.report.waste_bytes.get().saturating_sub(counted);
            self.report.waste_bytes = ByteCount::new(waste + worth.waste_of(size));
            wanted.take(candidate, &worth)?;
            // From here on it is as if it came since this deletion began.
            self.stored.remove(&pack);
        }
        let Wanted { old, mut taken, .. } = wanted;
        chosen.retain(|ordinal| hash_of(ordinal).is_some_and(|hash| old.contains(&hash)));
        if !taken.places.packs().is_empty() {
            taken.places.sort()?;
            self.go_on()?;
            let entropy = self.options.entropy;
            let written = self.domain.write_index(&taken.places, &[], entropy)?;
            index.segments.extend(written.segments);
        }
        Ok(taken)
    }

    /// Gives packs that hold something of what is wanted, the best first.
    fn candidates(
        &self,
        wanted: &Wanted<'_>,
        (limits, ends): (Repack, Instant),
    ) -> Result<Vec<(PackName, u64)>, RepositoryError> {
        let condemned = self.condemned();
        let mut found = Vec::new();
        for (pack, size) in &self.stored {
            let is_stray = !wanted.index.has_pack(&pack.0) && !condemned.contains(&pack.0);
            if !is_stray && !self.spares.contains(&pack.0) {
                continue;
            }
            if self.is_over(ends) {
                break;
            }
            if let Some(candidate) = self.candidate(*pack, *size)? {
                let worth = wanted.worth(&candidate);
                // Sealing anew moves everything into the newest epoch.
                let is_old = epoch_number(candidate.info.epoch) < limits.before_epoch;
                if !worth.gained.is_empty() && !is_old {
                    found.push((worth.rank(), *pack, *size));
                }
            }
        }
        found.sort_unstable();
        Ok(found
            .into_iter()
            .map(|(_, pack, size)| (pack, size))
            .collect())
    }

    fn candidate(
        &self,
        (hash, kind): PackName,
        size: u64,
    ) -> Result<Option<Candidate>, RepositoryError> {
        let trailer = read_trailer(self.domain, kind, &hash)?;
        Ok(trailer.map(|trailer| Candidate {
            info: trailer.info(kind, hash, size),
            frames: trailer.frames,
        }))
    }

    fn is_over(&self, ends: Instant) -> bool {
        self.options.clock.now() >= ends || self.sign().is_cancelled()
    }
}

/// Reads a pack; true when each of its chunks is what its trailer says.
fn is_whole(domain: &Domain, candidate: &Candidate) -> Result<bool, RepositoryError> {
    let mut own = Index::default();
    own.add_packs([candidate.info.clone()]);
    let numbers = (0_u16..).zip(&candidate.frames);
    let numbers: Vec<_> = numbers.map(|(number, _)| (0, number)).collect();
    let mut reader = ChunkReader::new(domain, &own);
    let mut is_whole = true;
    for run in plan_runs(&own, &numbers) {
        let read = reader.look_at_run(&run, &mut |reader, number, plain| {
            let frame = candidate.frames.get(usize::from(number));
            is_whole &= frame.zip(plain.ok()).is_some_and(|(frame, plain)| {
                let mut offset = 0;
                frame.chunks.iter().all(|chunk| {
                    let range = (offset, chunk.length);
                    let record = Record::new(prefix_of(&chunk.id), 0, number, range);
                    offset += chunk.length;
                    reader.chunk(chunk.kind, &chunk.id, &record, plain).is_ok()
                })
            });
        });
        match read {
            Err(ReadError::Store(error))
                if !matches!(error.fault, StoreFault::NotFound | StoreFault::Malformed) =>
            {
                return Err(error.into());
            }
            Err(_) => return Ok(false),
            Ok(()) if !is_whole => return Ok(false),
            Ok(()) => {}
        }
    }
    Ok(true)
}
