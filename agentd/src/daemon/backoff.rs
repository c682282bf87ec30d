//! How long to wait after a failed call: full jitter between nothing and a growing bound.

use std::time::Duration;

const FIRST: Duration = Duration::from_secs(1);
const LAST: Duration = Duration::from_secs(300);

/// Counts failures in a row.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    failures: u32,
}

impl Backoff {
    /// Counts a failure and gives how long to wait. `asked` is what the controller asked for.
    pub(super) fn failed(&mut self, asked: Option<Duration>) -> Duration {
        self.failures = self.failures.saturating_add(1);
        let mut bytes = [0; 4];
        // Without random bytes every agent waits the whole time, which is also correct.
        let share = match getrandom::fill(&mut bytes) {
            Ok(()) => u32::from_le_bytes(bytes),
            Err(_) => u32::MAX,
        };
        wait(self.failures, share).max(asked.unwrap_or_default().min(LAST))
    }

    /// Begins anew.
    pub(super) const fn succeeded(&mut self) {
        self.failures = 0;
    }
}

/// Gives `share` (of `u32::MAX`) of the bound after so many failures, never less than a tenth of it.
fn wait(failures: u32, share: u32) -> Duration {
    let bound = FIRST
        .saturating_mul(1 << failures.saturating_sub(1).min(9))
        .min(LAST);
    let part = bound.mul_f64(f64::from(share) / f64::from(u32::MAX));
    part.max(bound / 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_grows_to_five_minutes_and_is_spread() {
        assert_eq!(wait(1, u32::MAX), FIRST);
        assert_eq!(wait(4, u32::MAX), FIRST * 8);
        assert_eq!(wait(40, u32::MAX), LAST);
        assert_eq!(wait(40, 0), LAST / 10);
        let mut backoff = Backoff::default();
        assert!(backoff.failed(None) <= FIRST);
        assert_eq!(backoff.failed(Some(LAST * 2)), LAST);
    }
}
