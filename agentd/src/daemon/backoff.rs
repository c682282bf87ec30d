//! How long to wait after a failed call: full jitter between nothing and a growing bound.

use std::time::Duration;

const FIRST: Duration = Duration::from_secs(1);
/// The longest wait that a controller may ask for.
const ASKED_MAX: Duration = Duration::from_secs(300);

/// Counts failures in a row.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    failures: u32,
}

impl Backoff {
    /// Counts a failure and gives how long to wait: `longest`, or what the controller asked for.
    pub(super) fn failed(&mut self, asked: Option<Duration>, longest: Duration) -> Duration {
        self.failures = self.failures.saturating_add(1);
        let mut bytes = [0; 4];
        // Without random bytes every agent waits the whole time, which is also correct.
        let share = match getrandom::fill(&mut bytes) {
            Ok(()) => u32::from_le_bytes(bytes),
            Err(_) => u32::MAX,
        };
        wait(self.failures, share, longest).max(asked.unwrap_or_default().min(ASKED_MAX))
    }

    /// Begins anew.
    pub(super) const fn succeeded(&mut self) {
        self.failures = 0;
    }
}

/// Gives `share` (of `u32::MAX`) of the bound after so many failures, never less than a tenth of it.
fn wait(failures: u32, share: u32, longest: Duration) -> Duration {
    let bound = FIRST
        .saturating_mul(1 << failures.saturating_sub(1).min(9))
        .min(longest);
    let part = bound.mul_f64(f64::from(share) / f64::from(u32::MAX));
    part.max(bound / 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_grows_to_its_bound_and_is_spread() {
        let longest = Duration::from_secs(30);
        assert_eq!(wait(1, u32::MAX, longest), FIRST);
        assert_eq!(wait(4, u32::MAX, longest), FIRST * 8);
        assert_eq!(wait(40, u32::MAX, longest), longest);
        assert_eq!(wait(40, 0, longest), longest / 10);
        let mut backoff = Backoff::default();
        assert!(backoff.failed(None, longest) <= FIRST);
        assert_eq!(backoff.failed(Some(ASKED_MAX * 2), longest), ASKED_MAX);
    }
}
