//! The chunks that a content had in the previous snapshot, and which of them may come next.
//!
//! Where a content did not change, its next chunk is the one that followed before. Whether it is, its
//! name tells, and naming costs less than the search for its end. A chunk that was cut before ends
//! where the same bytes would be cut again, so the cuts are the same with this and without.

use sealing::ChunkId;

use crate::chunker::Class;
use crate::content::ChunkRef;

/// Chunks of a list that is kept in memory: 9.4 MB of them.
pub(super) const CHUNK_COUNT_MAX: usize = 1 << 18;
/// Chunks among which the way back is looked for.
const SEARCHED_MAX: usize = 1 << 14;

/// What is expected of one content.
#[derive(Debug, Default)]
pub(super) struct Expected {
    /// How the chunks were cut; without one nothing is expected.
    class: Option<Class>,
    chunks: Vec<ChunkRef>,
    /// The chunk behind the last one that came as expected.
    at: usize,
    /// The last cut, while what comes next is not known.
    lost: Option<Lost>,
}

/// What came instead of what was expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lost {
    Nothing,
    Chunk { length: usize },
}

impl Expected {
    /// Expects the chunks of a former content.
    pub(super) fn of(class: Class, mut chunks: Vec<ChunkRef>) -> Self {
        // The last one ends where its content did, which the next one may not.
        chunks.pop();
        Self {
            class: Some(class),
            chunks,
            at: 0,
            lost: None,
        }
    }

    /// Begins again with the first chunk.
    pub(super) fn restart(&mut self) {
        self.at = 0;
        self.lost = None;
    }

    /// Gives the chunk that may come next in content of a class.
    pub(super) fn next(&self, class: Class) -> Option<(usize, ChunkId)> {
        if self.class != Some(class) || self.lost.is_some() {
            return None;
        }
        let chunk = self.chunks.get(self.at)?;
        let length = usize::try_from(chunk.length).ok()?;
        // Who may only add can have stored any list.
        class.may_be(length).then_some((length, chunk.id))
    }

    /// Says that the chunk that was given came.
    pub(super) const fn came(&mut self) {
        self.at += 1;
    }

    /// Says that it did not come.
    pub(super) const fn did_not_come(&mut self) {
        self.lost = Some(Lost::Nothing);
    }

    /// Says what was cut, and finds the way back: by the length of the chunk that did not come, when
    /// it was changed in its place, or by the lengths of two that once followed each other.
    pub(super) fn cut(&mut self, length: usize) {
        let Some(lost) = self.lost else {
            return;
        };
        let is = |chunk: &ChunkRef, length: usize| usize::try_from(chunk.length) == Ok(length);
        let ahead = self.chunks.get(self.at..).unwrap_or_default();
        let back = match lost {
            Lost::Nothing => ahead.first().filter(|chunk| is(chunk, length)).map(|_| 1),
            Lost::Chunk { length: before } => {
                let mut pairs = ahead.windows(2).take(SEARCHED_MAX);
                let found = pairs.position(|pair| match pair {
                    [first, second] => is(first, before) && is(second, length),
                    _ => false,
                });
                found.map(|at| at + 2)
            }
        };
        match back {
            Some(passed) => {
                self.at += passed;
                self.lost = None;
            }
            None => self.lost = Some(Lost::Chunk { length }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLASS: Class = Class::Dump;

    fn chunk(number: usize) -> ChunkRef {
        ChunkRef {
            id: ChunkId::from_bytes([u8::try_from(number).unwrap(); 32]),
            length: u32::try_from(20_000 + number).unwrap(),
        }
    }

    fn expected() -> Expected {
        Expected::of(CLASS, (0..100).map(chunk).collect())
    }

    fn next(expected: &Expected) -> Option<usize> {
        expected.next(CLASS).map(|(length, _)| length - 20_000)
    }

    #[test]
    fn chunks_are_expected_in_their_order_but_for_the_last() {
        let mut expected = expected();
        for number in 0..99 {
            assert_eq!(next(&expected), Some(number));
            expected.came();
        }
        assert_eq!(next(&expected), None);
        expected.restart();
        assert_eq!(next(&expected), Some(0));
    }

    #[test]
    fn other_class_and_impossible_lengths_are_not_expected() {
        assert_eq!(expected().next(Class::General), None);
        for length in [0, 100, 256 * 1024 + 1] {
            let odd = ChunkRef { length, ..chunk(1) };
            assert_eq!(next(&Expected::of(CLASS, vec![odd, chunk(2)])), None);
        }
    }

    #[test]
    fn way_back_is_found_after_a_change_in_place() {
        let mut expected = expected();
        expected.came();
        expected.did_not_come();
        assert_eq!(next(&expected), None);
        expected.cut(20_001);
        assert_eq!(next(&expected), Some(2));
    }

    #[test]
    fn way_back_is_found_after_an_insertion_and_a_removal() {
        let mut expected = expected();
        expected.did_not_come();
        for length in [31_000, 20_000, 32_000, 20_001] {
            expected.cut(length);
            assert_eq!(next(&expected), None);
        }
        expected.cut(20_002);
        assert_eq!(next(&expected), Some(3));
        expected.did_not_come();
        expected.cut(20_040);
        assert_eq!(next(&expected), None);
        expected.cut(20_041);
        assert_eq!(next(&expected), Some(42));
    }

    #[test]
    fn beyond_its_end_nothing_is_expected() {
        let mut expected = expected();
        expected.did_not_come();
        expected.cut(20_097);
        expected.cut(20_098);
        assert_eq!(next(&expected), None);
        expected.cut(20_099);
        assert_eq!(next(&expected), None);
    }
}
