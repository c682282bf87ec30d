//! Growing delays for guesses: per source and per name, never a lock-out.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Failures before the first delay.
const FREE: u32 = 5;
/// The longest delay of a source.
const SOURCE_MAX: Duration = Duration::from_secs(900);
/// The longest delay of a name: short, so that a stranger cannot keep its owner out.
const NAME_MAX: Duration = Duration::from_secs(30);
/// How many keys are remembered; the oldest make room.
const KEYS_MAX: usize = 10_000;

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Key {
    Source([u8; 16]),
    Name(String),
}

#[derive(Debug)]
struct Tally {
    failures: u32,
    last: Instant,
}

/// Counts failed attempts.
#[derive(Debug, Default)]
pub(crate) struct Throttle(Mutex<HashMap<Key, Tally>>);

impl Throttle {
    /// Gives how long the next attempt has to wait, when it has to.
    pub(crate) fn delay(&self, source: IpAddr, name: &str, now: Instant) -> Option<Duration> {
        let tallies = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        keys(source, name)
            .iter()
            .filter_map(|(key, longest)| {
                let tally = tallies.get(key)?;
                let over = tally.failures.checked_sub(FREE)?;
                let delay = Duration::from_secs(1 << over.min(12)).min(*longest);
                delay.checked_sub(now.saturating_duration_since(tally.last))
            })
            .max()
            .filter(|wait| !wait.is_zero())
    }

    /// Counts a failure.
    pub(crate) fn failed(&self, source: IpAddr, name: &str, now: Instant) {
        let mut tallies = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if tallies.len() >= KEYS_MAX {
            tallies.retain(|_, tally| now.saturating_duration_since(tally.last) < SOURCE_MAX);
        }
        if tallies.len() >= KEYS_MAX
            && let Some(oldest) = tallies
                .iter()
                .min_by_key(|(_, tally)| tally.last)
                .map(|(key, _)| key.clone())
        {
            tallies.remove(&oldest);
        }
        for (key, _) in keys(source, name) {
            let tally = tallies.entry(key).or_insert(Tally {
                failures: 0,
                last: now,
            });
            tally.failures = tally.failures.saturating_add(1);
            tally.last = now;
        }
    }

    /// Forgets the failures of a name and source that got it right.
    pub(crate) fn succeeded(&self, source: IpAddr, name: &str) {
        let mut tallies = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for (key, _) in keys(source, name) {
            tallies.remove(&key);
        }
    }
}

/// A source is an IPv4 address or an IPv6 network of 64 bits.
fn keys(source: IpAddr, name: &str) -> [(Key, Duration); 2] {
    let network = match source.to_canonical() {
        IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        IpAddr::V6(address) => (u128::from(address) >> 64 << 64).to_be_bytes(),
    };
    let name: String = name.chars().take(64).collect();
    [
        (Key::Source(network), SOURCE_MAX),
        (Key::Name(name), NAME_MAX),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guesses_wait_longer_and_longer_but_never_for_ever() {
        let throttle = Throttle::default();
        let start = Instant::now();
        let source = IpAddr::from([192, 0, 2, 1]);
        for _ in 0..FREE {
            assert_eq!(throttle.delay(source, "root", start), None);
            throttle.failed(source, "root", start);
        }
        assert_eq!(
            throttle.delay(source, "root", start),
            Some(Duration::from_secs(1))
        );
        for _ in 0..40 {
            throttle.failed(source, "root", start);
        }
        assert_eq!(throttle.delay(source, "root", start), Some(SOURCE_MAX));
        let owner = IpAddr::from([198, 51, 100, 7]);
        assert_eq!(throttle.delay(owner, "root", start), Some(NAME_MAX));
        assert_eq!(throttle.delay(owner, "root", start + NAME_MAX), None);
        throttle.succeeded(source, "root");
        assert_eq!(throttle.delay(source, "root", start), None);
    }
}
