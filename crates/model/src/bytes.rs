//! Byte counts: exact inside, binary units with one decimal for people.

use std::fmt;
use std::ops::{Add, AddAssign};

use serde::{Deserialize, Serialize};

/// A number of bytes. JSON carries the exact integer; `Display` is for people (`1.5 GiB`).
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct ByteCount(u64);

impl ByteCount {
    /// No bytes.
    pub const ZERO: Self = Self(0);

    /// Takes an exact number of bytes.
    #[must_use]
    pub const fn new(bytes: u64) -> Self {
        Self(bytes)
    }

    /// Gives the exact number of bytes.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl Add for ByteCount {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

impl AddAssign for ByteCount {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl fmt::Display for ByteCount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
        if self.0 < 1024 {
            return write!(f, "{} B", self.0);
        }
        // Tenths are computed in integers, so that 1023.96 KiB does not print as 1024.0 KiB.
        let mut tenths = u128::from(self.0) * 10 / 1024;
        let mut units = UNITS.iter();
        let mut unit = units.next().copied().unwrap_or("KiB");
        while tenths >= 10_240 {
            let Some(next) = units.next() else { break };
            unit = next;
            tenths /= 1024;
        }
        write!(f, "{}.{} {unit}", tenths / 10, tenths % 10)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_read_binary_units() {
        let shown = |bytes| ByteCount::new(bytes).to_string();
        assert_eq!(shown(0), "0 B");
        assert_eq!(shown(1023), "1023 B");
        assert_eq!(shown(1024), "1.0 KiB");
        assert_eq!(shown(1_610_612_736), "1.5 GiB");
        assert_eq!(shown(u64::MAX), "15.9 EiB");
    }
}
