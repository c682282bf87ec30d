//! Waiting that costs one wake-up: for a descriptor, or for a while.
//!
//! Timers of tokio move through a wheel whose wider slots wake the process up to three times before they are due. The daemon
//! waits for minutes at a time and wants to be woken once.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};
use tokio::io::unix::AsyncFd;

/// Waits until `duration` has passed, time asleep included.
pub(super) async fn pause(duration: Duration) {
    let ended = match alarm(duration) {
        Ok(alarm) => alarm.readable().await.map(drop),
        Err(error) => Err(error),
    };
    // Out of descriptors, for example.
    if ended.is_err() {
        tokio::time::sleep(duration).await;
    }
}

fn alarm(duration: Duration) -> io::Result<AsyncFd<OwnedFd>> {
    let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
    let timer = timerfd_create(TimerfdClockId::Boottime, flags)?;
    // Zero would disarm it.
    let duration = duration.max(Duration::from_nanos(1));
    let due = Itimerspec {
        it_interval: Timespec::default(),
        it_value: Timespec {
            tv_sec: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: duration.subsec_nanos().into(),
        },
    };
    timerfd_settime(&timer, TimerfdTimerFlags::empty(), &due)?;
    on(timer)
}

/// Prepares to wait until a descriptor can be read.
#[expect(
    deprecated,
    reason = "an OwnedFd stays open while it is waited on; the successor needs unsafe"
)]
pub(super) fn on(descriptor: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::new(descriptor)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    #[tokio::test]
    async fn a_pause_ends_when_its_time_is_over_and_not_before() {
        let began = Instant::now();
        pause(Duration::ZERO).await;
        pause(Duration::from_millis(30)).await;
        assert!(began.elapsed() >= Duration::from_millis(30));
    }
}
