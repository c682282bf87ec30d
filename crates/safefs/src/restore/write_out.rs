//! What was restored goes to the disk while more is restored, so that little is left to wait for in the end.

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use rustix::fs::syncfs;

/// So much is left to the system before it is told to begin.
const WAITING_BYTES_MAX: u64 = 128 << 20;
/// What a file adds to that by its name and its metadata.
const FILE_BYTES: u64 = 1024;

/// Counts what waits in memory to be written out.
#[derive(Debug, Default)]
pub(super) struct WriteOut {
    waiting_bytes: AtomicU64,
    is_running: AtomicBool,
}

impl WriteOut {
    /// Counts a file of so many bytes; now and then waits until all that was restored is on the disk.
    pub(super) fn count(&self, file: &OwnedFd, bytes: u64) {
        let more = bytes.saturating_add(FILE_BYTES);
        let waiting = self.waiting_bytes.fetch_add(more, Ordering::Relaxed);
        if waiting.saturating_add(more) < WAITING_BYTES_MAX
            || self.is_running.swap(true, Ordering::Relaxed)
        {
            return;
        }
        self.waiting_bytes.store(0, Ordering::Relaxed);
        // A failure is told once more to the descriptor by which all is made durable before it is published, since that was
        // open before.
        syncfs(file).unwrap_or_default();
        self.is_running.store(false, Ordering::Relaxed);
    }
}
