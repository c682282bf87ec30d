//! Retries of short disturbances, bounded and with jitter.

use std::time::Duration;

use edge::{StoreError, StoreFault};

/// How often an operation is tried before its error is given to the caller.
const ATTEMPTS_MAX: u32 = 4;

/// The longest pause before the second attempt; it doubles with each further one.
const PAUSE_MAX: Duration = Duration::from_millis(250);

/// Runs `operation` again while the store cannot be reached, with growing random pauses.
pub(crate) fn with_retry<T>(
    mut operation: impl FnMut() -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    let mut attempt = 1;
    loop {
        match operation() {
            Err(error) if error.fault == StoreFault::Unreachable && attempt < ATTEMPTS_MAX => {
                std::thread::sleep(pause(attempt));
                attempt += 1;
            }
            result => return result,
        }
    }
}

fn pause(attempt: u32) -> Duration {
    let mut random = [0; 1];
    // Without entropy the pause is the longest one, which is also right.
    let share = getrandom::fill(&mut random).map_or(255, |()| u32::from(random[0]));
    PAUSE_MAX * (1 << attempt.min(6)) * share / 255 / 2
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(fault: StoreFault) -> StoreError {
        StoreError {
            operation: "reading",
            object: "a".into(),
            store: "test".into(),
            fault,
            source: "scripted".into(),
        }
    }

    #[test]
    fn only_what_may_pass_is_tried_again() {
        let mut calls = 0;
        let result: Result<(), _> = with_retry(|| {
            calls += 1;
            Err(error(StoreFault::Denied))
        });
        assert!(result.is_err());
        assert_eq!(calls, 1);
        let mut calls = 0;
        with_retry(|| {
            calls += 1;
            if calls < 3 {
                Err(error(StoreFault::Unreachable))
            } else {
                Ok(())
            }
        })
        .unwrap();
        assert_eq!(calls, 3);
    }
}
