//! Says of most ids that are not in a table that they are not: a Bloom filter whose bits of one id
//! share a cache line (Putze, Sanders and Singler, "Cache-, Hash- and Space-Efficient Bloom
//! Filters", 2007). Ids are keyed hashes, so their own bytes serve as the hash.

use super::record::Prefix;

/// Bits for each id. With six set, about one absent id in fifty is not recognised.
const BITS_PER_ID: usize = 10;
const BITS_SET: u32 = 6;
const LINE_WORDS: usize = 8;
const LINE_BITS: usize = 64 * LINE_WORDS;

#[derive(Debug)]
pub(super) struct Filter(Vec<[u64; LINE_WORDS]>);

impl Filter {
    /// Makes an empty filter for so many ids.
    pub(super) fn new(ids: usize) -> Self {
        let lines = (ids.saturating_mul(BITS_PER_ID)).div_ceil(LINE_BITS);
        Self(vec![[0; LINE_WORDS]; lines.max(1)])
    }

    pub(super) fn insert(&mut self, prefix: &Prefix) {
        let (line, bits) = self.place(prefix);
        if let Some(words) = self.0.get_mut(line) {
            words
                .iter_mut()
                .zip(bits)
                .for_each(|(word, bits)| *word |= bits);
        }
    }

    /// False when the id was certainly not inserted.
    pub(super) fn may_contain(&self, prefix: &Prefix) -> bool {
        let (line, bits) = self.place(prefix);
        self.0.get(line).is_none_or(|words| {
            words
                .iter()
                .zip(bits)
                .all(|(word, bits)| word & bits == bits)
        })
    }

    fn place(&self, prefix: &Prefix) -> (usize, [u64; LINE_WORDS]) {
        let (choice, rest) = prefix.split_first_chunk().unwrap_or((&[0; 8], &[]));
        let lines = self.0.len() as u128;
        let line = (u128::from(u64::from_le_bytes(*choice)) * lines) >> 64;
        let mut hash = u64::from_le_bytes(rest.first_chunk().copied().unwrap_or_default());
        let mut bits = [0; LINE_WORDS];
        for _ in 0..BITS_SET {
            let word = usize::try_from(hash & 7).unwrap_or(0);
            if let Some(word) = bits.get_mut(word) {
                *word |= 1 << (hash >> 3 & 63);
            }
            hash >>= 9;
        }
        (usize::try_from(line).unwrap_or(0), bits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefix(number: u32) -> Prefix {
        let hash = blake3::hash(&number.to_le_bytes());
        *hash.as_bytes().first_chunk().unwrap()
    }

    #[test]
    fn what_is_in_is_found_and_what_is_not_seldom() {
        let mut filter = Filter::new(10_000);
        (0..10_000).for_each(|number| filter.insert(&prefix(number)));
        assert!((0..10_000).all(|number| filter.may_contain(&prefix(number))));
        let wrong = (10_000..110_000).filter(|number| filter.may_contain(&prefix(*number)));
        assert!(wrong.count() < 3_000);
    }
}
