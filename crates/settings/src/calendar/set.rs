//! A set of small numbers: minutes, hours, days, months, weekdays.

use std::fmt;

/// A set of numbers from 0 to 63.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Set(u64);

impl Set {
    pub(crate) const EMPTY: Self = Self(0);

    /// Gives the set of all numbers from `low` to `high`.
    pub(crate) fn range(low: u8, high: u8) -> Self {
        (low..=high).collect()
    }

    pub(crate) const fn contains(self, number: u8) -> bool {
        number < 64 && self.0 >> number & 1 == 1
    }

    pub(crate) const fn insert(&mut self, number: u8) {
        if number < 64 {
            self.0 |= 1 << number;
        }
    }

    pub(crate) const fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    pub(crate) const fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub(crate) fn iter(self) -> impl Iterator<Item = u8> {
        (0..64).filter(move |&n| self.contains(n))
    }

    /// Writes `*` when the set is everything from `low` to `high`, otherwise two-digit numbers.
    pub(crate) fn write(self, f: &mut fmt::Formatter<'_>, low: u8, high: u8) -> fmt::Result {
        if self == Self::range(low, high) {
            return f.write_str("*");
        }
        for (position, number) in self.iter().enumerate() {
            let comma = if position == 0 { "" } else { "," };
            write!(f, "{comma}{number:02}")?;
        }
        Ok(())
    }
}

impl FromIterator<u8> for Set {
    fn from_iter<I: IntoIterator<Item = u8>>(numbers: I) -> Self {
        let mut set = Self::EMPTY;
        numbers.into_iter().for_each(|n| set.insert(n));
        set
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_holds_what_was_put_in() {
        let set: Set = [0, 5, 63, 64, 200].into_iter().collect();
        assert_eq!(set.iter().collect::<Vec<_>>(), [0, 5, 63]);
        assert!(set.and(Set::range(1, 4)).is_empty());
    }
}
