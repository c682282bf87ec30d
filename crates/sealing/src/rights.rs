//! What the holder of a slot may do (`docs/format.md`, "Rights").

use std::fmt;

/// One thing that a key may allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Right {
    /// To store new snapshots.
    Add = 1,
    /// To read what is stored.
    Read = 2,
    /// To let snapshots go and delete what they leave.
    Delete = 4,
}

impl fmt::Display for Right {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Add => "add to the backups",
            Self::Read => "read the backups",
            Self::Delete => "delete from the backups",
        })
    }
}

/// What a slot allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Rights(u8);

impl Rights {
    /// Everything.
    pub const ALL: Self = Self(7);
    /// Only to add: nothing that is stored can be read.
    pub const ADD: Self = Self(1);
    /// Only to read.
    pub const READ: Self = Self(2);
    /// To add and to read, not to delete.
    pub const ADD_AND_READ: Self = Self(3);
    /// To read and to delete, not to add.
    pub const READ_AND_DELETE: Self = Self(6);

    /// Gives the rights of a number from the format. To delete one has to read: what nothing
    /// needs is found by reading what is needed.
    #[must_use]
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            1 | 2 | 3 | 6 | 7 => Some(Self(number)),
            _ => None,
        }
    }

    /// Gives the number in the format.
    #[must_use]
    pub const fn number(self) -> u8 {
        self.0
    }

    /// True when a right is among them.
    #[must_use]
    pub const fn has(self, right: Right) -> bool {
        self.0 & right as u8 != 0
    }

    /// True when all of `other` are among them.
    #[must_use]
    pub const fn include(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

impl fmt::Display for Rights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            1 => "add",
            2 => "read",
            3 => "add, read",
            6 => "read, delete",
            _ => "add, read, delete",
        })
    }
}
