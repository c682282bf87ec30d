//! Goes on with files that a restore left which was cut: compares what is there with the chunks that
//! belong there. Sizes and times are no proof, since a machine that lost its power may have kept
//! them without the content.

use std::sync::Arc;

use edge::{LeftOver, Target};
use sealing::ChunkKind;

use super::job::Job;
use crate::content::ChunkRef;
use crate::reader::ChunkReader;

/// Content of one file that is compared in one go, so that several threads share a long one.
const PORTION_BYTES: u64 = 64 * 1024 * 1024;
/// Chunks of many files that are compared in one go.
const CHUNKS_MAX: usize = 512;

/// Some chunks of a file, and where they belong among its content bytes.
pub(super) struct Portion {
    pub(super) job: Arc<Job>,
    pub(super) chunks: Vec<(u64, ChunkRef)>,
}

/// Divides the chunks of a file.
pub(super) fn portions(job: &Arc<Job>, list: &[ChunkRef]) -> Vec<Portion> {
    let mut portions = Vec::new();
    let (mut offset, mut bytes) = (0, PORTION_BYTES);
    for chunk in list {
        if bytes >= PORTION_BYTES {
            bytes = 0;
            portions.push(Portion {
                job: Arc::clone(job),
                chunks: Vec::new(),
            });
        }
        if let Some(portion) = portions.last_mut() {
            portion.chunks.push((offset, *chunk));
        }
        offset += u64::from(chunk.length);
        bytes += u64::from(chunk.length);
    }
    portions
}

/// Portions that wait to be compared.
#[derive(Default)]
pub(super) struct Waiting {
    portions: Vec<Portion>,
    chunks: usize,
    bytes: u64,
}

impl Waiting {
    pub(super) fn add(&mut self, portion: Portion) {
        self.chunks += portion.chunks.len();
        let lengths = portion.chunks.iter();
        self.bytes += lengths
            .map(|(_, chunk)| u64::from(chunk.length))
            .sum::<u64>();
        self.portions.push(portion);
    }

    pub(super) const fn is_enough(&self) -> bool {
        self.chunks >= CHUNKS_MAX || self.bytes >= PORTION_BYTES
    }

    pub(super) fn take(&mut self) -> Vec<Portion> {
        std::mem::take(self).portions
    }
}

/// Leaves of a portion what is not there; gives the number of content bytes that are.
pub(super) fn compare(
    reader: &ChunkReader<'_>,
    portion: &mut Portion,
    target: &dyn Target,
    buffer: &mut Vec<u8>,
) -> u64 {
    let Some(left) = target.left_over(&portion.job.node.entry) else {
        return 0;
    };
    let mut kept = 0;
    portion.chunks.retain(|(offset, chunk)| {
        let is_there = read(&*left, &portion.job, (*offset, chunk.length), buffer)
            && reader.is_chunk(ChunkKind::Data, &chunk.id, buffer);
        if is_there {
            kept += u64::from(chunk.length);
        }
        !is_there
    });
    kept
}

/// Reads the place of a chunk; false when it is not all there.
fn read(left: &dyn LeftOver, job: &Job, (offset, length): (u64, u32), to: &mut Vec<u8>) -> bool {
    let length = usize::try_from(length).unwrap_or(usize::MAX);
    to.resize(length, 0);
    let mut rest = to.as_mut_slice();
    for (place, count) in job.places(offset, length) {
        let (piece, after) = rest.split_at_mut(count.min(rest.len()));
        if left.read_at(place, piece).ok() != Some(piece.len()) {
            return false;
        }
        rest = after;
    }
    rest.is_empty()
}
