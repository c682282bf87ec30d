//! What the threads of a restore tell: files that are done, how far the others are, and when all ends.

use std::sync::Arc;
use std::sync::mpsc::RecvTimeoutError;
use std::time::Duration;

use edge::Event;
use model::ByteCount;

use super::job::Done;
use super::workers::Told;
use super::{Restore, linked};
use crate::content::Node;

/// A wait is shown, and may be ended, this often.
const LOOK_EVERY: Duration = Duration::from_millis(200);

impl Restore<'_> {
    /// True when nothing more is to be done, because the place is away or the monitor stops it.
    pub(super) fn is_over(&mut self) -> bool {
        if !self.report.is_cancelled && self.monitor.is_cancelled() {
            self.report.is_cancelled = true;
            self.workers.stop();
        }
        self.report.is_cancelled || self.place_lost.is_some()
    }

    /// Waits for a file to be done; false when none is under way, or when none will be.
    pub(super) fn wait_for_one(&mut self) -> bool {
        while self.under_way > 0 && !self.is_over() {
            match self.workers.take_within(LOOK_EVERY) {
                Ok(told) => {
                    self.told(told);
                    self.progress();
                    return true;
                }
                Err(RecvTimeoutError::Timeout) => self.progress(),
                Err(RecvTimeoutError::Disconnected) => return false,
            }
        }
        false
    }

    pub(super) fn told(&mut self, told: Told) {
        match told {
            Told::Done(done) => self.job_done(&done),
            Told::Missing(portion, kept) => {
                self.report.kept_bytes += ByteCount::new(kept);
                portion.job.count_bytes(kept);
                self.missing.push_back(portion);
            }
            Told::PlaceLost(error) => {
                self.place_lost.get_or_insert(error);
            }
        }
    }

    /// Tells how far it is, files that are not done with what is there of them.
    pub(super) fn progress(&self) {
        let parts = self.spread.iter().map(|job| job.bytes_there());
        self.monitor.event(Event::Progress {
            entries: self.report.entries,
            bytes: self.report.bytes + ByteCount::new(parts.sum()),
            bytes_expected: self.expected,
        });
    }

    pub(super) fn job_done(&mut self, (job, result): &Done) {
        self.under_way -= 1;
        if job.is_spread {
            self.spread.retain(|other| !Arc::ptr_eq(other, job));
        }
        self.report.kept += u64::from(result.is_ok() && job.is_kept());
        self.file_done(&job.node, result.clone());
    }

    pub(super) fn file_done(&mut self, node: &Node, result: Result<u64, String>) {
        let entry = &node.entry;
        let inode = linked(entry);
        match result {
            Ok(bytes) => {
                if let Some(inode) = inode {
                    // Their first name is there now.
                    self.again.extend(self.links.finished(inode, entry));
                }
                self.restored(bytes);
            }
            Err(error) => {
                if let Some(inode) = inode {
                    // One of them becomes the first.
                    self.again.extend(self.links.failed(inode));
                }
                self.failed(entry.path.to_string(), error);
            }
        }
    }

    pub(super) fn restored(&mut self, bytes: u64) {
        self.report.entries += 1;
        self.report.bytes += ByteCount::new(bytes);
    }

    pub(super) fn failed(&mut self, object: String, error: String) {
        self.report.failed(self.monitor, object, error);
    }
}
