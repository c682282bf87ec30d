//! A file whose pieces come in any order, from several threads.
//!
//! Where a piece begins or ends within a block, the rest of that block comes with another piece. Written the ordinary
//! way, such a block would lie in the page cache until the end, and while it is written no other thread may write to
//! the file. So it is kept until it is whole, and goes with the piece that completes it.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::{ALIGNED, File, after, with_buffer, write_all, write_direct};

/// Shorter pieces go the ordinary way.
const PIECE_BYTES_MIN: usize = 16 << 10;
/// The most blocks that are kept, of all files: 8 MiB.
const BLOCKS_MAX: usize = 2048;

/// Blocks that are kept, of all files.
static BLOCKS_KEPT: AtomicUsize = AtomicUsize::new(0);

/// An open file that is written in pieces. Nothing may be written twice.
#[derive(Debug)]
pub struct Pieces<F> {
    file: File<F>,
    /// By their number in the file.
    blocks: Mutex<BTreeMap<u64, Block>>,
}

/// A block of which a part was given.
#[derive(Debug)]
struct Block {
    bytes: Whole,
    /// What was given, in order and apart from each other.
    given: Vec<Range<usize>>,
}

type Whole = Box<[u8; ALIGNED]>;

/// What became of a part of a block.
enum Kept {
    /// The rest was here.
    Whole(Whole),
    Waits,
    /// There is no room for it.
    Refused,
}

impl<F: AsFd> Pieces<F> {
    /// Takes a file and the way to it.
    pub const fn new(file: File<F>) -> Self {
        Self {
            file,
            blocks: Mutex::new(BTreeMap::new()),
        }
    }

    /// Gives the file that was opened.
    pub const fn file(&self) -> &F {
        self.file.file()
    }

    /// Writes all bytes at an offset; some may wait for [`Pieces::finish`].
    ///
    /// # Errors
    ///
    /// What the system says; some of the bytes may be written then.
    pub fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        if bytes.len() < PIECE_BYTES_MIN || self.file.direct.is_none() {
            return write_all(self.file(), bytes, offset);
        }
        let within = usize::try_from(offset % ALIGNED as u64).unwrap_or(0);
        let (head, rest) = bytes.split_at((ALIGNED - within) % ALIGNED);
        let (body, tail) = rest.split_at(rest.len() / ALIGNED * ALIGNED);
        let body_at = offset + head.len() as u64;
        let tail_at = body_at + body.len() as u64;
        let first = self.keep_or_write(head, offset)?;
        let last = self.keep_or_write(tail, tail_at)?;
        let (first, last) = (slice(first.as_ref()), slice(last.as_ref()));
        let begin = body_at - first.len() as u64;
        self.write_blocks(&[first, body, last], begin)
    }

    /// Writes the parts of blocks that never became whole.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn finish(&self) -> io::Result<()> {
        let blocks = std::mem::take(&mut *self.lock());
        BLOCKS_KEPT.fetch_sub(blocks.len(), Ordering::Relaxed);
        for (number, block) in blocks {
            for given in block.given {
                let at = number * ALIGNED as u64 + given.start as u64;
                let bytes = block.bytes.get(given).unwrap_or_default();
                write_all(self.file(), bytes, at)?;
            }
        }
        Ok(())
    }

    /// Keeps a part of a block, or writes it where there is no room; gives the block when it is whole.
    fn keep_or_write(&self, part: &[u8], offset: u64) -> io::Result<Option<Whole>> {
        if part.is_empty() {
            return Ok(None);
        }
        match self.keep(part, offset) {
            Kept::Whole(block) => Ok(Some(block)),
            Kept::Waits => Ok(None),
            Kept::Refused => write_all(self.file(), part, offset).map(|()| None),
        }
    }

    fn keep(&self, part: &[u8], offset: u64) -> Kept {
        let number = offset / ALIGNED as u64;
        let within = usize::try_from(offset % ALIGNED as u64).unwrap_or(0);
        let mut blocks = self.lock();
        if let Some(block) = blocks.get_mut(&number) {
            block.give(within, part);
            if !block.is_whole() {
                return Kept::Waits;
            }
            BLOCKS_KEPT.fetch_sub(1, Ordering::Relaxed);
            let block = blocks.remove(&number);
            return block.map_or(Kept::Waits, |block| Kept::Whole(block.bytes));
        }
        if BLOCKS_KEPT.fetch_add(1, Ordering::Relaxed) >= BLOCKS_MAX {
            BLOCKS_KEPT.fetch_sub(1, Ordering::Relaxed);
            return Kept::Refused;
        }
        let mut block = Block {
            bytes: Box::new([0; ALIGNED]),
            given: Vec::new(),
        };
        block.give(within, part);
        blocks.insert(number, block);
        Kept::Waits
    }

    fn write_blocks(&self, parts: &[&[u8]], offset: u64) -> io::Result<()> {
        let Some(direct) = &self.file.direct else {
            return Ok(());
        };
        let mut written = with_buffer(|buffer| write_direct(direct, (parts, offset), buffer))?;
        // A file system whose blocks are larger, or that took less than it was given.
        for left in after(parts, written) {
            write_all(self.file(), left, offset + written as u64)?;
            written += left.len();
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Block>> {
        self.blocks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn slice(block: Option<&Whole>) -> &[u8] {
    block.map_or(&[], |block| block.as_slice())
}

impl Block {
    fn give(&mut self, within: usize, part: &[u8]) {
        let place = within..within + part.len();
        if let Some(here) = self.bytes.get_mut(place.clone()) {
            here.copy_from_slice(part);
        }
        self.given.push(place);
        self.given.sort_by_key(|given| given.start);
        let mut joined: Vec<Range<usize>> = Vec::new();
        for given in self.given.drain(..) {
            match joined.last_mut() {
                Some(last) if given.start <= last.end => last.end = last.end.max(given.end),
                _ => joined.push(given),
            }
        }
        self.given = joined;
    }

    fn is_whole(&self) -> bool {
        self.given.first() == Some(&(0..ALIGNED))
    }
}

impl<F> Drop for Pieces<F> {
    fn drop(&mut self) {
        let blocks = self
            .blocks
            .get_mut()
            .unwrap_or_else(PoisonError::into_inner);
        BLOCKS_KEPT.fetch_sub(blocks.len(), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt as _;

    use proptest::prelude::*;

    use super::*;

    /// Writes pieces between these borders, of which each is in one of two halves, the second half by another thread.
    fn write(whole: &[u8], borders: &[usize], order: u64) -> Vec<u8> {
        let file = tempfile::tempfile().unwrap();
        file.set_len(whole.len() as u64).unwrap();
        let pieces = Pieces::new(File::past_cache(file));
        let mut spans: Vec<_> = borders.windows(2).map(|pair| pair[0]..pair[1]).collect();
        spans.sort_by_key(|span| (span.start as u64 ^ order).wrapping_mul(0x9E37_79B9_7F4A_7C15));
        let (one, other) = spans.split_at(spans.len() / 2);
        std::thread::scope(|scope| {
            for spans in [one, other] {
                scope.spawn(|| {
                    for span in spans.iter().cloned() {
                        let at = span.start as u64;
                        pieces.write_all_at(&whole[span], at).unwrap();
                    }
                });
            }
        });
        pieces.finish().unwrap();
        let mut found = vec![0; whole.len()];
        pieces.file().read_exact_at(&mut found, 0).unwrap();
        found
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn pieces_in_any_order_make_the_file(
            lengths in proptest::collection::vec(prop_oneof![
                    1_usize..9_000,
                    16_000_usize..40_000,
                    Just(4096_usize),
                    Just(32_768_usize),
                ],
                1..40,
            ),
            order in any::<u64>(),
        ) {
            let mut borders = vec![0];
            for length in lengths {
                borders.push(borders.last().unwrap() + length);
            }
            let length = *borders.last().unwrap();
            let whole: Vec<u8> = (0..length).map(|at| u8::try_from((at * 7 + at / 251) % 255 + 1).unwrap()).collect();
            prop_assert!(write(&whole, &borders, order) == whole);
        }
    }

    #[test]
    fn a_block_is_whole_when_each_of_its_bytes_was_given() {
        let mut block = Block {
            bytes: Box::new([0; ALIGNED]),
            given: Vec::new(),
        };
        block.give(100, &[1; 1000]);
        block.give(0, &[2; 100]);
        block.give(0, &[2; 1100]);
        assert!(!block.is_whole());
        block.give(2000, &[3; ALIGNED - 2000]);
        assert!(!block.is_whole());
        block.give(1100, &[4; 900]);
        assert!(block.is_whole());
    }

    #[test]
    fn without_room_for_blocks_the_ordinary_way_is_taken() {
        let whole: Vec<u8> = (0..200_000_u32)
            .map(|at| u8::try_from(at % 251).unwrap())
            .collect();
        let borders = [0, 50_001, 100_003, 160_000, 200_000];
        BLOCKS_KEPT.fetch_add(BLOCKS_MAX, Ordering::Relaxed);
        let found = write(&whole, &borders, 5);
        BLOCKS_KEPT.fetch_sub(BLOCKS_MAX, Ordering::Relaxed);
        assert!(found == whole);
    }
}
