//! Limits on what a run uses: bytes to and from places, and time of the processors.
//!
//! An object goes to a place in one piece, so a limit is kept over some seconds, not within one.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use edge::{ByteRange, Monitor, ObjectInfo, ObjectName, ObjectStore, StoreError};
use model::ByteCount;
use rustix::time::{ClockId, clock_gettime};

/// So much may pass at once after a rest.
const BURST: Duration = Duration::from_secs(1);
/// Who waits looks this often whether the work was cancelled.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Shorter pauses are saved up.
const PAUSE_MIN: Duration = Duration::from_millis(5);
/// What was not used of the processors within this time is lost.
const RECKONING: Duration = Duration::from_secs(2);

/// A number of bytes per second, whoever takes them.
#[derive(Debug)]
pub(crate) struct ByteRate {
    bucket: Mutex<Bucket>,
}

/// What is taken before its time is owed, and who comes next waits for it.
#[derive(Debug)]
struct Bucket {
    per_sec: u64,
    /// When all that was taken is paid for.
    paid_at: Duration,
}

impl Bucket {
    /// Takes bytes; gives how long to wait first.
    fn take(&mut self, now: Duration, bytes: u64) -> Duration {
        let begin = self.paid_at.max(now.saturating_sub(BURST));
        let micros = u128::from(bytes) * 1_000_000 / u128::from(self.per_sec.max(1));
        let cost = Duration::from_micros(u64::try_from(micros).unwrap_or(u64::MAX));
        self.paid_at = begin.saturating_add(cost);
        begin.saturating_sub(now)
    }
}

impl ByteRate {
    pub(crate) fn new(per_sec: ByteCount) -> Self {
        Self {
            bucket: Mutex::new(Bucket {
                per_sec: per_sec.get(),
                paid_at: passed(ClockId::Monotonic),
            }),
        }
    }

    fn take(&self, bytes: u64) -> Duration {
        let mut bucket = self.bucket.lock().unwrap_or_else(PoisonError::into_inner);
        bucket.take(passed(ClockId::Monotonic), bytes)
    }

    /// Takes bytes, and waits for their time; not after the work was cancelled, which then has to
    /// end soon.
    pub(crate) fn pass(&self, bytes: u64, monitor: &dyn Monitor) {
        let mut left = self.take(bytes);
        while !left.is_zero() && !monitor.is_cancelled() {
            let now = left.min(LOOK_EVERY);
            rest(now);
            left -= now;
        }
    }
}

/// A store of which so many bytes are read in a second.
pub(crate) struct SlowReads {
    inner: Arc<dyn ObjectStore>,
    rate: ByteRate,
}

impl SlowReads {
    pub(crate) fn new(inner: Arc<dyn ObjectStore>, per_sec: ByteCount) -> Self {
        Self {
            inner,
            rate: ByteRate::new(per_sec),
        }
    }

    /// Waits for what went before, then counts what came.
    fn read(
        &self,
        buffer: &mut Vec<u8>,
        read: impl FnOnce(&mut Vec<u8>) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        rest(self.rate.take(0));
        read(buffer)?;
        self.rate.take(buffer.len() as u64);
        Ok(())
    }
}

impl ObjectStore for SlowReads {
    fn describe(&self) -> String {
        self.inner.describe()
    }

    fn put(&self, name: &ObjectName, bytes: &[u8]) -> Result<(), StoreError> {
        self.inner.put(name, bytes)
    }

    fn get(&self, name: &ObjectName, bytes_max: u64) -> Result<Vec<u8>, StoreError> {
        let mut bytes = Vec::new();
        self.get_into(name, bytes_max, &mut bytes)?;
        Ok(bytes)
    }

    fn get_into(
        &self,
        name: &ObjectName,
        bytes_max: u64,
        buffer: &mut Vec<u8>,
    ) -> Result<(), StoreError> {
        self.read(buffer, |buffer| {
            self.inner.get_into(name, bytes_max, buffer)
        })
    }

    fn get_range(&self, name: &ObjectName, range: ByteRange) -> Result<Vec<u8>, StoreError> {
        let mut bytes = Vec::new();
        self.get_range_into(name, range, &mut bytes)?;
        Ok(bytes)
    }

    fn get_range_into(
        &self,
        name: &ObjectName,
        range: ByteRange,
        buffer: &mut Vec<u8>,
    ) -> Result<(), StoreError> {
        self.read(buffer, |buffer| {
            self.inner.get_range_into(name, range, buffer)
        })
    }

    fn size(&self, name: &ObjectName) -> Result<Option<u64>, StoreError> {
        self.inner.size(name)
    }

    fn list(&self, prefix: &str, each: &mut dyn FnMut(ObjectInfo)) -> Result<(), StoreError> {
        self.inner.list(prefix, each)
    }

    fn delete(&self, name: &ObjectName) -> Result<(), StoreError> {
        self.inner.delete(name)
    }
}

/// Keeps this process within a share of the processors: threads that do the work pause when it
/// used more than its share.
#[derive(Debug)]
pub(crate) struct CpuShare {
    /// Processors, in percent of one.
    percent: u32,
    reckoning: Mutex<Option<Reckoning>>,
}

/// Since when, by the wall and by the processors.
#[derive(Debug, Clone, Copy)]
struct Reckoning {
    wall: Duration,
    used: Duration,
}

impl CpuShare {
    /// Takes the percent of all `cores`; none or all of them is no limit.
    pub(crate) fn of(percent: Option<u8>, cores: usize) -> Option<Arc<Self>> {
        let percent = u32::from(percent.filter(|percent| *percent < 100)?);
        let cores = u32::try_from(cores).unwrap_or(1);
        Some(Arc::new(Self {
            percent: (percent * cores).max(1),
            reckoning: Mutex::new(None),
        }))
    }

    /// Waits when the process is ahead of its share.
    pub(crate) fn keep(&self) {
        rest(self.pause(passed(ClockId::Monotonic), passed(ClockId::ProcessCPUTime)));
    }

    fn pause(&self, wall: Duration, used: Duration) -> Duration {
        let mut held = self
            .reckoning
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let since = *held.get_or_insert(Reckoning { wall, used });
        let passed = wall.saturating_sub(since.wall);
        let due = used.saturating_sub(since.used) * 100 / self.percent;
        let ahead = due.saturating_sub(passed);
        if ahead.is_zero() && passed > RECKONING {
            *held = Some(Reckoning { wall, used });
        }
        drop(held);
        if ahead < PAUSE_MIN {
            Duration::ZERO
        } else {
            ahead
        }
    }
}

/// Gives what passed by a clock that only goes forward: time, or this process's use of all
/// processors. Neither is a time of day.
fn passed(clock: ClockId) -> Duration {
    let time = clock_gettime(clock);
    let secs = u64::try_from(time.tv_sec).unwrap_or(0);
    Duration::new(secs, u32::try_from(time.tv_nsec).unwrap_or(0))
}

#[expect(
    clippy::disallowed_methods,
    reason = "to go slowly is to wait for time"
)]
pub(crate) fn rest(time: Duration) {
    if !time.is_zero() {
        std::thread::sleep(time);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_pass_at_their_rate_whoever_takes_them() {
        let secs = Duration::from_secs;
        let mut bucket = Bucket {
            per_sec: 1000,
            paid_at: Duration::ZERO,
        };
        // What comes first passes, then who follows waits for it.
        assert_eq!(bucket.take(secs(10), 3000), Duration::ZERO);
        assert_eq!(bucket.take(secs(10), 1000), secs(2));
        assert_eq!(bucket.take(secs(11), 500), secs(2));
        // After a rest no more than a second's bytes are saved up.
        assert_eq!(bucket.take(secs(100), 1000), Duration::ZERO);
        assert_eq!(bucket.take(secs(100), 1), Duration::ZERO);
        assert_eq!(bucket.take(secs(100), 1000), Duration::from_millis(1));
    }

    #[test]
    fn what_was_read_is_waited_for_by_the_next_who_reads() {
        let memory = Arc::new(testkit::MemoryStore::default());
        let name = ObjectName::new("a").unwrap();
        memory.put(&name, &[0; 50_000]).unwrap();
        let slow = SlowReads::new(memory, ByteCount::new(500_000));
        let begun = passed(ClockId::Monotonic);
        for _ in 0..3 {
            assert_eq!(slow.get(&name, 50_000).unwrap().len(), 50_000);
        }
        let took = passed(ClockId::Monotonic) - begun;
        assert!(took >= Duration::from_millis(190), "{took:?}");
    }

    #[test]
    fn a_share_of_the_processors_is_kept() {
        assert!(CpuShare::of(None, 2).is_none() && CpuShare::of(Some(100), 2).is_none());
        let share = CpuShare::of(Some(25), 2).unwrap();
        let start = Duration::from_secs(1000);
        let after = |secs: u64| start + Duration::from_secs(secs);
        let used = Duration::from_secs;
        assert_eq!(share.pause(start, used(7)), Duration::ZERO);
        // Half of one processor: two seconds of work take four.
        assert_eq!(share.pause(after(1), used(9)), Duration::from_secs(3));
        assert_eq!(share.pause(after(4), used(9)), Duration::ZERO);
        // The reckoning began anew there: rest gives no right to catch up.
        assert_eq!(share.pause(after(100), used(9)), Duration::ZERO);
        assert_eq!(share.pause(after(100), used(10)), Duration::from_secs(2));
    }
}
