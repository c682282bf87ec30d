//! Time, chance and a listener, all decided by the test.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};

use edge::{Clock, Entropy, Event, Monitor};
use model::Instant;

use crate::store::lock;

/// A clock that stands still until it is moved.
#[derive(Debug)]
pub struct FixedClock(AtomicI64);

impl FixedClock {
    /// Starts at `secs` since the epoch.
    #[must_use]
    pub const fn at_secs(secs: i64) -> Self {
        Self(AtomicI64::new(secs))
    }

    /// Moves on.
    pub fn advance_secs(&self, secs: i64) {
        self.0.fetch_add(secs, Ordering::SeqCst);
    }
}

impl Clock for FixedClock {
    fn now(&self) -> Instant {
        Instant::from_secs(self.0.load(Ordering::SeqCst))
    }
}

/// Gives different but repeatable bytes at each call. Of no use outside tests.
#[derive(Debug, Default)]
pub struct CountingEntropy(AtomicU64);

impl Entropy for CountingEntropy {
    fn fill(&self, bytes: &mut [u8]) {
        // SplitMix64: well spread, small, repeatable.
        let mut state = self
            .0
            .fetch_add(1, Ordering::SeqCst)
            .wrapping_mul(0x1_0000_0000);
        for word in bytes.chunks_mut(8) {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut mixed = state;
            mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            let mixed = (mixed ^ (mixed >> 31)).to_le_bytes();
            word.iter_mut()
                .zip(mixed)
                .for_each(|(byte, new)| *byte = new);
        }
    }
}

/// Keeps what it hears of failures, and can ask to stop.
#[derive(Debug, Default)]
pub struct RecordingMonitor {
    failures: Mutex<Vec<String>>,
    lost: Mutex<Vec<String>>,
    is_cancelled: AtomicBool,
    cancel_after: Mutex<Option<u64>>,
}

impl RecordingMonitor {
    /// Asks the work to stop when it has looked at this many objects.
    #[must_use]
    pub fn cancelling_after(objects: u64) -> Self {
        Self {
            cancel_after: Mutex::new(Some(objects)),
            ..Self::default()
        }
    }

    /// Gives `object: error` for each failed object.
    #[must_use]
    pub fn failures(&self) -> Vec<String> {
        lock(&self.failures).clone()
    }

    /// Gives `destination: error` for each lost destination.
    #[must_use]
    pub fn lost(&self) -> Vec<String> {
        lock(&self.lost).clone()
    }
}

impl Monitor for RecordingMonitor {
    fn event(&self, event: Event<'_>) {
        match event {
            Event::Failed { object, error } => {
                lock(&self.failures).push(format!("{object}: {error}"));
            }
            Event::DestinationLost { destination, error } => {
                lock(&self.lost).push(format!("{destination}: {error}"));
            }
            Event::Object(_) => {
                if let Some(left) = &mut *lock(&self.cancel_after) {
                    *left = left.saturating_sub(1);
                    if *left == 0 {
                        self.is_cancelled.store(true, Ordering::SeqCst);
                    }
                }
            }
            Event::Phase(_) | Event::Note(_) | Event::Progress { .. } => {}
        }
    }

    fn is_cancelled(&self) -> bool {
        self.is_cancelled.load(Ordering::SeqCst)
    }
}
