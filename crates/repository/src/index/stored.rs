//! The index as a domain stores it: reading it from segments (`docs/format.md`, "Index segments").

use std::collections::BTreeSet;
use std::sync::Arc;

use edge::{ByteRange, ObjectStore, StoreFault};
use sealing::{ObjectCipher, ObjectError, ObjectKind};

use super::divide::is_large;
use super::{Doomed, Index, SegmentInfo};
use crate::backup::{list_packs, read_pack};
use crate::container::{TAIL_BYTES_FIRST, Tail, open_tail};
use crate::domain::Domain;
use crate::error::RepositoryError;
use crate::in_order::{READERS, in_order};
use crate::layout::ObjectHash;
use crate::segment::{
    Fences, SEGMENT_BYTES_MAX, SegmentError, Sibling, decode_fences, open_blocks,
};

/// Records of a segment at most: 8 MiB, which are built and read in memory.
pub(super) const RECORDS_MAX: usize = 1 << 18;
/// A segment with fewer records counts as small: writers merge those when they become many.
pub(super) const SMALL_RECORDS: usize = RECORDS_MAX / 2;
/// Segments up to this length are read in one piece from the start, as long as all that wait do
/// not take more than [`WAITING_BYTES_MAX`].
const ONE_PIECE_BYTES_MAX: u64 = 4 * 1024 * 1024;
const WAITING_BYTES_MAX: u64 = 32 * 1024 * 1024;
/// Times that a list of segments is read again because one was gone.
const ATTEMPTS: usize = 3;

/// Segments as they are listed, with their lengths.
pub(crate) type Listed = Vec<(ObjectHash, u64)>;

/// Segments that were written.
#[derive(Debug, Default)]
pub(crate) struct Written {
    pub(crate) segments: Vec<SegmentInfo>,
    pub(crate) bytes: u64,
}

/// A segment of which the trailer was opened.
pub(super) struct Opened {
    pub(super) hash: ObjectHash,
    pub(super) cipher: ObjectCipher,
    pub(super) fences: Fences,
    /// All of it, if it was read in one piece.
    pub(super) whole: Option<Vec<u8>>,
}

impl Opened {
    fn siblings(&self) -> impl Iterator<Item = &Sibling> {
        let directory = self.fences.directory.iter();
        directory.flat_map(|directory| &directory.siblings)
    }
}

impl Domain {
    /// Reads all index segments that are not replaced. Damaged ones are left out and noted.
    pub(crate) fn load_index(&self) -> Result<Index, RepositoryError> {
        self.load_index_without(&Doomed::default())
    }

    /// As [`Domain::load_index`], leaving out what is in packs that nobody should rely on.
    pub(crate) fn load_index_without(&self, doomed: &Doomed) -> Result<Index, RepositoryError> {
        // A segment that is gone between listing and reading was replaced: look again.
        self.load_leaving_out(doomed, None)
    }

    fn load_leaving_out(
        &self,
        doomed: &Doomed,
        listed: Option<Listed>,
    ) -> Result<Index, RepositoryError> {
        let begin = || Index::new(self.scratch().cloned()).leaving_out(doomed.clone());
        self.load_into(&begin, listed)
    }

    /// As [`Domain::load_index_without`], of segments that were listed just now, if they were. Where some
    /// are damaged, the packs themselves are asked.
    pub(crate) fn load_index_asking_packs(
        &self,
        doomed: &Doomed,
        listed: Option<Listed>,
    ) -> Result<Index, RepositoryError> {
        let mut index = self.load_leaving_out(doomed, listed)?;
        if index.damaged.is_some() {
            for ((hash, kind), size) in list_packs(self)? {
                if !index.has_all_of(&hash)
                    && let Some((pack, records)) = read_pack(self, kind, hash, size)?
                {
                    index.add(vec![pack], records)?;
                }
            }
            index.sort()?;
        }
        Ok(index)
    }

    /// As [`Domain::load_index`], with all places of each chunk.
    pub(crate) fn load_all_places(&self) -> Result<Index, RepositoryError> {
        self.load_into(&|| Index::of_all_places(self.scratch().cloned()), None)
    }

    fn load_into(
        &self,
        begin: &dyn Fn() -> Index,
        mut listed: Option<Listed>,
    ) -> Result<Index, RepositoryError> {
        let mut load = || {
            let listed = listed.take();
            let listed = listed.map_or_else(|| self.list(ObjectKind::IndexSegment), Ok);
            self.try_load_index(begin(), listed?)
        };
        for _ in 0..ATTEMPTS {
            match load() {
                Err(RepositoryError::Store(error)) if error.fault == StoreFault::NotFound => {}
                other => return other,
            }
        }
        load()
    }

    fn try_load_index(&self, mut index: Index, listed: Listed) -> Result<Index, RepositoryError> {
        let mut replaced = BTreeSet::new();
        let mut segments = Vec::new();
        let mut damaged = BTreeSet::new();
        let mut waiting = 0;
        let wanted = listed.iter().map(|(hash, size)| {
            let in_one_piece = *size <= ONE_PIECE_BYTES_MAX && waiting + size <= WAITING_BYTES_MAX;
            waiting += if in_one_piece { *size } else { 0 };
            (*hash, in_one_piece)
        });
        let wanted: Vec<_> = wanted.collect();
        let open = |(hash, in_one_piece): &(ObjectHash, bool), (): &mut ()| {
            self.open_segment(hash, *in_one_piece)
        };
        in_order(&wanted, READERS, &open, &mut |(hash, _), segment| {
            match segment {
                Ok(segment) => {
                    replaced.extend(segment.fences.replaced.iter().copied());
                    segments.push(segment);
                }
                Err(error @ RepositoryError::Damaged { .. }) => {
                    damaged.insert(*hash);
                    index.note_damage(*hash, error);
                }
                Err(error) => return Err(error),
            }
            Ok(())
        })?;
        let there: BTreeSet<_> = listed.iter().map(|(hash, _)| *hash).collect();
        let is_there = |hash: &_| there.contains(hash) && !replaced.contains(hash);
        let infos = segments.iter().map(|segment| SegmentInfo {
            hash: segment.hash,
            records: segment.fences.record_count(),
            leads: segment
                .siblings()
                .any(|one| is_large(one) && is_there(&one.hash)),
        });
        index.segments.extend(infos);
        segments.retain(|segment| !replaced.contains(&segment.hash));
        let mut parts = BTreeSet::new();
        let mut has_full = false;
        for segment in segments {
            let hash = segment.hash;
            has_full |= segment.fences.record_count() >= RECORDS_MAX;
            parts.extend(segment.siblings().map(|one| one.hash));
            match self.read_segment(segment, &mut index) {
                Ok(()) => {}
                Err(error @ RepositoryError::Damaged { .. }) => {
                    damaged.insert(hash);
                    index.note_damage(hash, error);
                }
                Err(error) => return Err(error),
            }
        }
        // Each part of a divided index names all packs, but not all that is in them.
        index.lacks_part = !damaged.is_empty() && (has_full || !parts.is_disjoint(&damaged));
        index.sort()?;
        Ok(index)
    }

    /// Adds the content of some segments to an index.
    pub(crate) fn read_segments(
        &self,
        hashes: &[ObjectHash],
        into: &mut Index,
    ) -> Result<(), RepositoryError> {
        hashes.iter().try_for_each(|hash| {
            let segment = self.open_segment(hash, true)?;
            self.read_segment(segment, into)
        })
    }

    pub(super) fn open_segment(
        &self,
        hash: &ObjectHash,
        in_one_piece: bool,
    ) -> Result<Opened, RepositoryError> {
        let kind = ObjectKind::IndexSegment;
        let wrong = |error: SegmentError| self.damaged(kind, hash, error);
        let whole = match in_one_piece {
            true => Some(self.get(kind, hash, SEGMENT_BYTES_MAX)?),
            false => None,
        };
        let (cipher, trailer) = match &whole {
            Some(whole) => match open_tail(self.keyring(), kind, whole) {
                Ok(Tail::Trailer { cipher, trailer }) => (cipher, trailer),
                Ok(Tail::Longer(_)) => return Err(wrong(ObjectError::TooShort.into())),
                Err(error) => return Err(wrong(error.into())),
            },
            None => self.segment_trailer(hash)?,
        };
        Ok(Opened {
            hash: *hash,
            cipher,
            fences: decode_fences(&trailer).map_err(|error| wrong(error.into()))?,
            whole,
        })
    }

    /// Reads the end of a segment, from the cache if that holds it undamaged.
    fn segment_trailer(
        &self,
        hash: &ObjectHash,
    ) -> Result<(ObjectCipher, Vec<u8>), RepositoryError> {
        let kind = ObjectKind::IndexSegment;
        let name = self.name(kind, hash);
        let from = |store: &Arc<dyn ObjectStore>| {
            let mut length = TAIL_BYTES_FIRST;
            loop {
                let end = store.get_range(&name, ByteRange::Suffix { length })?;
                match open_tail(self.keyring(), kind, &end) {
                    Ok(Tail::Trailer { cipher, trailer }) => return Ok((cipher, trailer)),
                    Ok(Tail::Longer(needed)) if needed > length => length = needed,
                    Ok(Tail::Longer(_)) => {
                        return Err(self.damaged(kind, hash, ObjectError::TooShort));
                    }
                    Err(error) => return Err(self.damaged(kind, hash, error)),
                }
            }
        };
        let cached = self.cache().and_then(|cache| from(cache).ok());
        cached.map_or_else(|| from(self.store()), Ok)
    }

    fn read_segment(&self, segment: Opened, into: &mut Index) -> Result<(), RepositoryError> {
        let kind = ObjectKind::IndexSegment;
        let whole = match segment.whole {
            Some(whole) => whole,
            None => self.get(kind, &segment.hash, SEGMENT_BYTES_MAX)?,
        };
        match open_blocks(&segment.cipher, &segment.fences, &whole, into) {
            Err(SegmentError::Index(error)) => Err(error),
            Err(error) => Err(self.damaged(kind, &segment.hash, error)),
            Ok(()) => Ok(()),
        }
    }
}

impl Index {
    fn note_damage(&mut self, hash: ObjectHash, error: RepositoryError) {
        self.damaged.get_or_insert(error);
        if self.segments.iter().all(|segment| segment.hash != hash) {
            self.segments.push(SegmentInfo {
                hash,
                records: 0,
                leads: false,
            });
        }
    }

    /// Gives the names of the segments that this index was read from.
    pub(crate) fn segment_hashes(&self) -> Vec<ObjectHash> {
        self.segments.iter().map(|segment| segment.hash).collect()
    }
}
