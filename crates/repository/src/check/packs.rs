//! Looking at packs, on several threads: are they there, whole, and what their names say?

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::Range;

use edge::Monitor;
use sealing::{ChunkNamer, ObjectCipher};

use super::{CheckDepth, DepthOf};
use crate::backup::read_pack;
use crate::condemned::PackName;
use crate::container::{Tail, open_tail};
use crate::domain::{Domain, NameMismatch};
use crate::error::{RepositoryError, chain, is_loss};
use crate::in_order::{cores_and, in_order};
use crate::index::{Index, PackInfo, Prefix, Record, prefix_of};
use crate::layout::ObjectHash;
use crate::pack::{FrameEntry, decode_trailer, decompress, decompress_into};

/// The longest pack that is read whole.
pub(crate) const PACK_BYTES_MAX: u64 = 512 * 1024 * 1024;
/// Packs that are looked at at the same time, at most.
const WORKERS_MAX: usize = 8;
/// Of them, those that wait for the store while the others have a core each.
const WAITING: usize = 2;

/// Records that are held in memory at once: 32 MiB.
const RECORDS_AT_ONCE: usize = 1 << 20;

/// Memory of one thread, used again for every pack.
#[derive(Default)]
struct Buffers {
    stored: Vec<u8>,
    plain: Vec<u8>,
}

/// What was found out about one pack.
#[derive(Default)]
pub(super) struct Found {
    pub(super) read_bytes: u64,
    /// What is wrong with it.
    pub(super) error: Option<String>,
    /// Its chunks that cannot be read.
    pub(super) lost: Vec<Prefix>,
}

/// Looks at all packs of the index but those that it knows to be gone; tells of each in the order of
/// the index. What is stored was listed before.
pub(super) fn look_at_all(
    (domain, index, stored): (&Domain, &Index, &BTreeMap<PackName, u64>),
    depth: &DepthOf<'_>,
    monitor: &dyn Monitor,
    each: &mut dyn FnMut(&PackInfo, Found),
) -> Result<(), RepositoryError> {
    for part in parts(index)? {
        let mut records = Vec::new();
        index.each_record(&mut |_, record| {
            if part.contains(&ordinal(record.pack)) {
                records.push(record);
            }
            Ok(())
        })?;
        // Sorted by pack, so that each pack finds its own.
        records.sort_unstable_by_key(|record| record.pack);
        let look = |number: usize, pack: &PackInfo, buffers: &mut Buffers| {
            let from = records.partition_point(|record| ordinal(record.pack) < number);
            let to = records.partition_point(|record| ordinal(record.pack) <= number);
            let own = records.get(from..to).unwrap_or_default();
            if index.is_doomed(&pack.hash) {
                return Ok(Found::default());
            }
            let size = stored.get(&(pack.hash, pack.kind)).copied();
            look_at((domain, pack, own), (size, depth(number)), buffers)
        };
        look_at_part((index.packs(), part), &look, monitor, each)?;
    }
    Ok(())
}

fn ordinal(pack: u32) -> usize {
    usize::try_from(pack).unwrap_or(usize::MAX)
}

/// Divides the packs into parts of which memory can hold all records.
fn parts(index: &Index) -> Result<Vec<Range<usize>>, RepositoryError> {
    let packs = index.packs();
    let mut counts = vec![0_usize; packs.len()];
    index.each_record(&mut |_, record| {
        if let Some(count) = counts.get_mut(ordinal(record.pack)) {
            *count += 1;
        }
        Ok(())
    })?;
    let mut parts = Vec::new();
    let (mut from, mut records) = (0, 0);
    for (number, count) in counts.into_iter().enumerate() {
        if records + count > RECORDS_AT_ONCE && number > from {
            parts.push(from..number);
            (from, records) = (number, 0);
        }
        records += count;
    }
    parts.push(from..packs.len());
    Ok(parts)
}

/// Looks at one pack, given by its ordinal.
type Look<'a> =
    dyn Fn(usize, &PackInfo, &mut Buffers) -> Result<Found, RepositoryError> + Sync + 'a;

fn look_at_part(
    (packs, part): (&[PackInfo], Range<usize>),
    look: &Look<'_>,
    monitor: &dyn Monitor,
    each: &mut dyn FnMut(&PackInfo, Found),
) -> Result<(), RepositoryError> {
    let numbered = part.clone().zip(packs.get(part).unwrap_or_default());
    let numbered: Vec<_> = numbered.collect();
    let threads = cores_and(WAITING).min(WORKERS_MAX);
    let work =
        |(number, pack): &(usize, &PackInfo), buffers: &mut Buffers| look(*number, pack, buffers);
    in_order(&numbered, threads, &work, &mut |(_, pack), found| {
        if monitor.is_cancelled() {
            return Err(RepositoryError::Cancelled);
        }
        each(pack, found?);
        Ok(())
    })
}

fn look_at(
    (domain, pack, own): (&Domain, &PackInfo, &[Record]),
    (size, depth): (Option<u64>, CheckDepth),
    buffers: &mut Buffers,
) -> Result<Found, RepositoryError> {
    let all_lost = |error: String| Found {
        read_bytes: 0,
        error: Some(error),
        lost: own.iter().map(|record| record.prefix).collect(),
    };
    match (size, depth) {
        (None, _) => Ok(all_lost("it is not there".to_owned())),
        (Some(size), _) if size != pack.size => {
            let instead = format!("it has {size} bytes instead of {}", pack.size);
            Ok(all_lost(instead))
        }
        (Some(_), CheckDepth::Presence) => Ok(Found::default()),
        (Some(size), CheckDepth::Structure) => {
            let read = read_pack(domain, pack.kind, pack.hash, size)?;
            if read.is_some_and(|(info, _)| info == *pack) {
                return Ok(Found::default());
            }
            Ok(all_lost("its trailer is damaged".to_owned()))
        }
        (Some(_), CheckDepth::Data) => match data((domain, pack, own), buffers) {
            // Gone or cut since it was listed.
            Err(RepositoryError::Store(error)) if is_loss(&error) => Ok(all_lost(chain(&error))),
            found => found,
        },
    }
}

/// Reads a pack whole; gives those of its chunks that cannot be read.
pub(crate) fn lost_of(
    domain: &Domain,
    pack: &PackInfo,
    own: &[Record],
) -> Result<Vec<Prefix>, RepositoryError> {
    let buffers = &mut Buffers::default();
    data((domain, pack, own), buffers).map(|found| found.lost)
}

/// Reads a pack whole.
fn data(
    (domain, pack, own): (&Domain, &PackInfo, &[Record]),
    Buffers { stored, plain }: &mut Buffers,
) -> Result<Found, RepositoryError> {
    let name = domain.name(pack.kind, &pack.hash);
    domain.store().get_into(&name, PACK_BYTES_MAX, stored)?;
    let bytes = stored;
    let mut found = Found {
        read_bytes: bytes.len() as u64,
        ..Found::default()
    };
    if ObjectHash::of(bytes) == pack.hash {
        let good = good_chunks(domain, pack, (bytes, plain));
        if good.len() < own.len() || !own.iter().all(|record| good.contains(&record.prefix)) {
            found.lost = own.iter().map(|record| record.prefix).collect();
            found.error = Some("its content is not what its names say".to_owned());
        }
        return Ok(found);
    }
    // Find out what is lost: every frame that still opens is good.
    let mut frames = HashMap::new();
    let lost = own.iter().filter(|record| {
        let frame = record.frame();
        !*frames
            .entry(frame)
            .or_insert_with(|| opens(domain, pack, frame, bytes))
    });
    found.lost = lost.map(|record| record.prefix).collect();
    found.error = Some(NameMismatch.to_string());
    Ok(found)
}

fn opens(domain: &Domain, pack: &PackInfo, frame: u16, bytes: &[u8]) -> bool {
    let keyring = domain.keyring();
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

/// Opens every frame of an undamaged pack where it lies; gives the chunks that are what their names say.
fn good_chunks(
    domain: &Domain,
    pack: &PackInfo,
    (bytes, buffer): (&mut [u8], &mut Vec<u8>),
) -> HashSet<Prefix> {
    let namer: ChunkNamer = domain.keyring().namer();
    let mut good = HashSet::new();
    let Ok(Tail::Trailer { cipher, trailer }) = open_tail(domain.keyring(), pack.kind, bytes)
    else {
        return good;
    };
    let frames: Vec<FrameEntry> = decode_trailer(&trailer).unwrap_or_default();
    let mut start = sealing::HEADER_BYTES;
    for (number, frame) in (0_u32..).zip(&frames) {
        let end = start.saturating_add(usize::try_from(frame.shape.stored).unwrap_or(usize::MAX));
        let sealed = bytes.get_mut(start..end).unwrap_or_default();
        start = end;
        let Ok(packed) = cipher.open_part_within(number, sealed) else {
            continue;
        };
        let Ok(mut rest) = decompress_into(frame.shape, packed, buffer) else {
            continue;
        };
        for chunk in &frame.chunks {
            let length = usize::try_from(chunk.length).unwrap_or(usize::MAX);
            let Some((piece, after)) = rest.split_at_checked(length) else {
                break;
            };
            if namer.name(chunk.kind, piece) == chunk.id {
                good.insert(prefix_of(&chunk.id));
            }
            rest = after;
        }
    }
    good
}
