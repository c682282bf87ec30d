//! Exit codes and error classes. The codes are frozen in `docs/exit-codes.md`.

use serde::{Deserialize, Serialize};

/// What a Backstay program says with its exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Exit {
    /// Everything asked for was done.
    Done = 0,
    /// The work failed.
    Failed = 1,
    /// The command line was wrong; nothing was tried.
    Usage = 2,
    /// Done, but something was skipped or one file could not be read.
    Partial = 3,
    /// The place holds no repository.
    NoRepository = 10,
    /// Another process holds what is needed.
    Busy = 11,
    /// The key does not open the domain.
    WrongKey = 12,
    /// A destination or the controller cannot be reached; work is kept and queued.
    Unreachable = 13,
    /// Stored bytes are damaged.
    Damage = 14,
    /// A configuration file is wrong; nothing was changed.
    BadConfiguration = 15,
    /// The user or a signal interrupted the work.
    Interrupted = 130,
}

impl Exit {
    /// Every code, in the order of the document.
    pub const ALL: [Self; 11] = [
        Self::Done,
        Self::Failed,
        Self::Usage,
        Self::Partial,
        Self::NoRepository,
        Self::Busy,
        Self::WrongKey,
        Self::Unreachable,
        Self::Damage,
        Self::BadConfiguration,
        Self::Interrupted,
    ];

    /// Gives the number that the process ends with.
    #[must_use]
    pub const fn code(self) -> u8 {
        self as u8
    }
}

/// What a caller should do about an error that crossed an edge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorClass {
    /// A short disturbance: the same call may work at once.
    RetryNow,
    /// The other side is away or full: try again at the next occasion, keep the work.
    RetryLater,
    /// The same call will never work: credentials, damage, a bug, a bad name.
    Never,
}
