//! Which level frames are compressed at: a fixed one, or one that follows what the run waits for.

use std::sync::atomic::{AtomicU8, Ordering};

use crate::tuning::{AUTO_LEVELS, Compression};

/// Where `auto` begins.
const AUTO_BEGINS: u8 = 3;

/// What the run waited for since it was looked at last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wait {
    /// Packs for their upload.
    Uploads,
    /// The walk for compressors.
    Compressors,
    /// Both for what is read, or nothing for anything.
    Source,
}

/// The level of a run, shared by its threads.
#[derive(Debug)]
pub(super) struct Level {
    now: AtomicU8,
    follows: bool,
}

impl Level {
    pub(super) const fn of(compression: Compression) -> Self {
        let (level, follows) = match compression {
            Compression::Level(level) => (level, false),
            Compression::Auto => (AUTO_BEGINS, true),
        };
        Self {
            now: AtomicU8::new(level),
            follows,
        }
    }

    pub(super) fn now(&self) -> i32 {
        self.now.load(Ordering::Relaxed).into()
    }

    /// Moves one step: harder while uploads are waited for, less hard while compressors are.
    pub(super) fn adapt(&self, wait: Wait) {
        if !self.follows {
            return;
        }
        let now = self.now.load(Ordering::Relaxed);
        let next = match wait {
            Wait::Uploads => now + 1,
            Wait::Compressors => now - 1,
            Wait::Source => now,
        };
        let next = next.clamp(*AUTO_LEVELS.start(), *AUTO_LEVELS.end());
        self.now.store(next, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn auto_follows_what_the_run_waits_for_and_a_fixed_level_stays() {
        let (auto, fixed) = (
            Level::of(Compression::Auto),
            Level::of(Compression::Level(9)),
        );
        let mut levels = Vec::new();
        let waits = [Wait::Uploads, Wait::Compressors, Wait::Source];
        for (wait, times) in waits.into_iter().zip([4, 7, 1]) {
            for _ in 0..times {
                auto.adapt(wait);
                fixed.adapt(wait);
                levels.push(auto.now());
            }
        }
        assert_eq!(levels, [4, 5, 6, 6, 5, 4, 3, 2, 1, 1, 1, 1]);
        assert_eq!(fixed.now(), 9);
    }
}
