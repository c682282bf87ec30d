//! What people choose about how a run works, and what follows from it: sizes, threads, bounds.

use model::ByteCount;

use crate::chunker::CHUNK_BYTES_MAX;
use crate::pack::{DATA_FRAME_BYTES, PACK_BYTES};

/// Levels that `auto` moves between.
pub(crate) const AUTO_LEVELS: std::ops::RangeInclusive<u8> = 1..=6;
/// From this level on larger frames gain something.
const LARGE_FRAMES_FROM: u8 = 7;
const LARGE_DATA_FRAME_BYTES: usize = 4 * 1024 * 1024;

const MIB: usize = 1024 * 1024;
/// Memory for content under way where nothing else is said.
const MEMORY_MIB: usize = 64;
/// With less than this nothing moves.
const MEMORY_MIB_MIN: usize = 24;
/// A pack takes about this long where the upload is limited, so that the limit is kept smoothly.
const PACK_SECS: u64 = 4;
const COMPRESSORS_MAX: usize = 8;
/// Bounds of the number of threads that read short files ahead: more than there are processors, since they wait for the
/// disk.
const READERS: std::ops::RangeInclusive<usize> = 4..=8;
/// The largest file that is read ahead.
const SHORT_BYTES_MAX: usize = 256 * 1024;

/// How hard content is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// 1–9 as zstd counts, 0 for not at all.
    Level(u8),
    /// Between 1 and 6: harder while uploads are what the run waits for, less hard while it waits
    /// for the processor.
    Auto,
}

impl Default for Compression {
    fn default() -> Self {
        Self::Level(3)
    }
}

/// What a run may use; what is `None` is not limited.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RunLimits {
    /// Bytes per second that go to all places together.
    pub upload_per_sec: Option<ByteCount>,
    /// Bytes per second that come from each place.
    pub download_per_sec: Option<ByteCount>,
    /// Percent of all processors, 1–100.
    pub cpu_percent: Option<u8>,
    /// Memory for content under way, 64 MiB if not given. Indexes and the program come on top.
    pub memory: Option<ByteCount>,
}

/// How a run works.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tuning {
    /// How hard content is compressed.
    pub compression: Compression,
    /// What it may use.
    pub limits: RunLimits,
    /// Percent of the unchanged files that are read all the same, others in each run: 0 for none.
    pub reread_percent: u8,
    /// How often a run writes down how far it is.
    pub checkpoints: Checkpoints,
}

/// When a run writes a partial snapshot, from which the next one continues if it is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Checkpoints {
    /// After so many seconds in which something new was read.
    pub secs: u32,
    /// After so many new bytes.
    pub bytes: ByteCount,
}

impl Default for Checkpoints {
    fn default() -> Self {
        Self {
            secs: 300,
            bytes: ByteCount::new(2_000_000_000),
        }
    }
}

/// What follows from a [`Tuning`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Plan {
    /// A pack is closed when it has reached this size.
    pub(crate) pack_bytes: usize,
    /// A data frame is closed before it exceeds this size.
    pub(crate) frame_bytes: usize,
    /// Plaintext of frames under way between the walk and the packs.
    pub(crate) frames_bytes_max: usize,
    /// Packs that are open or being stored; one more pack may be open while none is stored.
    pub(crate) packs_bytes_max: usize,
    /// Threads that compress.
    pub(crate) compressors: usize,
    /// Threads that store, for each place.
    pub(crate) uploads: usize,
    /// Threads that read short files ahead.
    pub(crate) readers: usize,
    /// A file of at most this size is short.
    pub(crate) short_bytes: usize,
}

impl Plan {
    /// Short files are read together until they have so many bytes.
    pub(crate) const fn portion_bytes(&self) -> usize {
        2 * self.short_bytes
    }

    /// So many bytes can come together then.
    pub(crate) const fn portion_bytes_max(&self) -> usize {
        self.portion_bytes() + self.short_bytes
    }

    pub(crate) fn of(tuning: &Tuning, cores: usize) -> Self {
        let limits = tuning.limits;
        let memory = limits.memory.map_or(MEMORY_MIB * MIB, |bytes| {
            usize::try_from(bytes.get()).unwrap_or(usize::MAX)
        });
        let memory = memory.max(MEMORY_MIB_MIN * MIB);
        let level = match tuning.compression {
            Compression::Level(level) => level,
            Compression::Auto => *AUTO_LEVELS.end(),
        };
        let frame_bytes = if level >= LARGE_FRAMES_FROM {
            LARGE_DATA_FRAME_BYTES
        } else {
            DATA_FRAME_BYTES
        };
        let fitting = if memory >= 64 * MIB {
            PACK_BYTES
        } else if memory >= 40 * MIB {
            PACK_BYTES / 2
        } else {
            PACK_BYTES / 4
        };
        let paced = limits.upload_per_sec.map_or(PACK_BYTES, |rate| {
            usize::try_from(rate.get().saturating_mul(PACK_SECS)).unwrap_or(usize::MAX)
        });
        let busy = match limits.cpu_percent {
            Some(percent) => (cores * usize::from(percent)).div_ceil(100),
            None => cores,
        };
        // An explicit budget counts the tables of the compressors, too.
        let affordable = match limits.memory {
            Some(_) => memory / 6 / context_bytes(level),
            None => COMPRESSORS_MAX,
        };
        let compressors = busy.min(affordable).clamp(1, COMPRESSORS_MAX);
        Self {
            pack_bytes: fitting.min(paced).max(MIB),
            frame_bytes,
            // One in work and one that waits, for each compressor; or the largest chunk, beside
            // which the next one is read.
            frames_bytes_max: (memory / 8)
                .min((2 * compressors * frame_bytes).max(CHUNK_BYTES_MAX)),
            // Of three packs, two are open, half a pack apart: so one and a half can be on the way
            // while these grow.
            packs_bytes_max: memory / 16 * 9,
            compressors,
            uploads: (memory / (32 * MIB)).clamp(1, 4),
            readers: busy.clamp(*READERS.start(), *READERS.end()),
            short_bytes: (memory / 256).min(SHORT_BYTES_MAX),
        }
    }
}

/// About what one compressor takes: the tables that zstd 1.5 has for the level, and a block.
const fn context_bytes(level: u8) -> usize {
    match level {
        0..=3 => 3 * MIB,
        4..=6 => 5 * MIB,
        _ => 15 * MIB,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backup::PORTIONS_BESIDE;

    fn plan(limits: RunLimits, level: u8, cores: usize) -> Plan {
        let compression = Compression::Level(level);
        Plan::of(
            &Tuning {
                compression,
                limits,
                ..Tuning::default()
            },
            cores,
        )
    }

    fn memory(mib: u64) -> RunLimits {
        RunLimits {
            memory: Some(ByteCount::new(mib << 20)),
            ..RunLimits::default()
        }
    }

    #[test]
    fn all_buffers_together_stay_within_the_budget() {
        for mib in [24, 32, 48, 64, 80, 96, 128, 256, 1024] {
            for level in [0, 3, 6, 9] {
                let plan = plan(memory(mib), level, 4);
                // Compressed frames are beside their plaintext for a moment.
                let tables = plan.compressors * context_bytes(level);
                let ahead = (plan.readers + PORTIONS_BESIDE) * plan.portion_bytes_max();
                let sum = plan.packs_bytes_max + 2 * plan.frames_bytes_max + tables + ahead;
                // One compressor works whatever its tables take.
                let budget = usize::try_from(mib << 20).unwrap() + context_bytes(level);
                assert!(sum <= budget, "{mib} MiB, level {level}: {plan:?}");
                assert!(plan.pack_bytes * 2 <= plan.packs_bytes_max, "{plan:?}");
            }
        }
    }

    #[test]
    fn limits_shape_the_work() {
        let ordinary = plan(RunLimits::default(), 3, 4);
        assert_eq!((ordinary.pack_bytes, ordinary.compressors), (12 * MIB, 4));
        assert_eq!((ordinary.frame_bytes, ordinary.uploads), (MIB, 2));
        assert_eq!(plan(RunLimits::default(), 7, 4).frame_bytes, 4 * MIB);
        assert_eq!(plan(RunLimits::default(), 9, 4).compressors, 4);
        assert_eq!(plan(memory(48), 9, 4).compressors, 1);
        let slow = RunLimits {
            upload_per_sec: Some(ByteCount::new(500_000)),
            cpu_percent: Some(30),
            ..RunLimits::default()
        };
        let slow = plan(slow, 3, 4);
        assert_eq!((slow.pack_bytes, slow.compressors), (2_000_000, 2));
        assert_eq!(plan(memory(1), 3, 1).pack_bytes, 3 * MIB);
    }
}
