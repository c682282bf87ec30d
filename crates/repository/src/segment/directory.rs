//! The directory of a segment: where the records of its siblings are, so that a reader without
//! any local state need not open them to know (`docs/format.md`, "Index segments").

use sealing::PART_OVERHEAD_BYTES;

use super::{
    BLOCK_BYTES, BLOCK_COUNT_MAX, Block, BlockPlace, RECORDS_PER_BLOCK, places, put_pack_blocks,
    take_pack_blocks,
};
use crate::index::{Prefix, RECORD_BYTES};
use crate::layout::ObjectHash;
use crate::wire::{FormatError, Put, Reader, Result};

/// Bytes of the first id of a block that a directory keeps.
const START_BYTES: usize = 4;
/// Siblings of a segment at most.
pub(crate) const SIBLING_COUNT_MAX: usize = 1024;
/// Packs that a segment names for its siblings at most.
pub(crate) const LENT_COUNT_MAX: usize = 1024;

/// What a segment says of those that were written before it as parts of one index.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Directory {
    /// So many packs of this segment, the first ones, are those of each sibling, in their order.
    /// No record here is of them.
    pub(crate) lent: usize,
    /// The blocks of packs of each sibling.
    pub(super) packs: Vec<Block>,
    /// In the order of their ids.
    pub(crate) siblings: Vec<Sibling>,
}

/// A segment and where its blocks of records are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sibling {
    pub(crate) hash: ObjectHash,
    pub(crate) salt: [u8; 32],
    pub(crate) records: usize,
    /// The first bytes of the first id of each block.
    pub(super) starts: Vec<[u8; START_BYTES]>,
}

/// What is told of a segment that was written.
pub(crate) struct Ended {
    pub(crate) sibling: Sibling,
    pub(super) packs: Vec<Block>,
}

/// Gives what a directory keeps of an id.
pub(super) fn start_of(prefix: &Prefix) -> [u8; START_BYTES] {
    prefix.first_chunk().copied().unwrap_or_default()
}

/// True when the records of an id may begin before a block of which only so much is known.
pub(crate) fn may_begin_before(block: &BlockPlace, prefix: &Prefix) -> bool {
    start_of(&block.first) == start_of(prefix)
}

impl Sibling {
    fn blocks(&self) -> impl Iterator<Item = Block> {
        let mut left = self.records;
        self.starts.iter().map(move |start| {
            let rows = left.min(RECORDS_PER_BLOCK);
            left -= rows;
            let mut first = Prefix::default();
            first
                .iter_mut()
                .zip(start)
                .for_each(|(at, byte)| *at = *byte);
            Block {
                sealed: u32::try_from(rows * RECORD_BYTES + PART_OVERHEAD_BYTES)
                    .unwrap_or(u32::MAX),
                rows,
                first: Some(first),
            }
        })
    }
}

impl Directory {
    /// Makes the directory of segments that were written with the same packs.
    pub(crate) fn of(ended: Vec<Ended>, lent: usize) -> Self {
        let packs = ended.first().map(|one| one.packs.clone());
        Self {
            lent,
            packs: packs.unwrap_or_default(),
            siblings: ended.into_iter().map(|one| one.sibling).collect(),
        }
    }

    /// Gives the places of the blocks of packs of a sibling, and of those of records, of which the
    /// first ids are not above the true ones.
    pub(crate) fn places_of(&self, sibling: &Sibling) -> (Vec<BlockPlace>, Vec<BlockPlace>) {
        places(self.packs.iter().copied(), sibling.blocks())
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.put_count(self.lent);
        put_pack_blocks(out, &self.packs);
        out.put_count(self.siblings.len());
        for sibling in &self.siblings {
            out.extend_from_slice(sibling.hash.as_bytes());
            out.extend_from_slice(&sibling.salt);
            out.put_count(sibling.records);
            out.extend(sibling.starts.iter().flatten());
        }
    }

    pub(super) fn decode(reader: &mut Reader<'_>) -> Result<Self> {
        let lent = reader.count(LENT_COUNT_MAX)?;
        let packs = take_pack_blocks(reader)?;
        let mut siblings = Vec::new();
        for _ in 0..reader.count(SIBLING_COUNT_MAX)? {
            let hash = ObjectHash::from_bytes(reader.array()?);
            let salt = reader.array()?;
            let records = reader.count(BLOCK_COUNT_MAX * RECORDS_PER_BLOCK)?;
            let starts = reader.slice(records.div_ceil(RECORDS_PER_BLOCK) * START_BYTES)?;
            siblings.push(Sibling {
                hash,
                salt,
                records,
                starts: starts.as_chunks().0.to_vec(),
            });
        }
        match siblings.is_empty() {
            true => Err(FormatError("a directory names nothing")),
            false => Ok(Self {
                lent,
                packs,
                siblings,
            }),
        }
    }
}

const _: () = assert!(RECORDS_PER_BLOCK * RECORD_BYTES == BLOCK_BYTES);
