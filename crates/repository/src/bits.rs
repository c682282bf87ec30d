//! A set of small numbers: one bit for each record of an index.

/// Numbers below a bound.
#[derive(Debug)]
pub(crate) struct Bits(Vec<u64>);

impl Bits {
    /// Makes an empty set of numbers below `bound`.
    pub(crate) fn new(bound: usize) -> Self {
        Self(vec![0; bound.div_ceil(64)])
    }

    /// Adds a number; true when it is new. Numbers at or behind the bound never are.
    pub(crate) fn insert(&mut self, number: usize) -> bool {
        let Some(word) = self.0.get_mut(number / 64) else {
            return false;
        };
        let bit = 1 << (number % 64);
        let is_new = *word & bit == 0;
        *word |= bit;
        is_new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_new_once() {
        let mut bits = Bits::new(130);
        assert!(bits.insert(0) && bits.insert(63) && bits.insert(64) && bits.insert(129));
        assert!(!bits.insert(0) && !bits.insert(64) && !bits.insert(129));
        assert!(!bits.insert(10_000));
    }
}
