//! Checkpoints: partial snapshots of a run that goes on, and pauses.
//!
//! A run that is cut is continued by the next one, which takes from the checkpoint what did not
//! change since, as it does from the previous snapshot.

use std::time::Duration;

use edge::Event;
use sealing::Right;

use super::super::seal_snapshot;
use super::{Session, Stopped, for_snapshot};
use crate::layout;
use crate::snapshot::NewSnapshot;
use crate::throttle::rest;

/// A pause looks this often whether it is over.
const LOOK_EVERY: Duration = Duration::from_millis(50);

impl Session<'_, '_> {
    /// Writes a checkpoint when one is due, and waits while the work is to pause.
    pub(super) fn look_up(&mut self) -> Result<(), Stopped> {
        if self.is_checkpoint_due() {
            self.checkpoint()?;
        }
        let monitor = self.options.monitor;
        if !monitor.is_paused() {
            return Ok(());
        }
        self.checkpoint()?;
        monitor.event(Event::Note("paused; what was read is stored"));
        while monitor.is_paused() && !monitor.is_cancelled() {
            let copies = self.storing.copies.iter().filter(|copy| copy.is_live());
            copies.for_each(|copy| copy.beat(&self.options));
            rest(LOOK_EVERY);
        }
        monitor.event(Event::Note("goes on"));
        Ok(())
    }

    fn is_checkpoint_due(&self) -> bool {
        let every = self.options.tuning.checkpoints;
        let bytes = self.storing.unsafe_bytes;
        bytes >= every.bytes.get()
            || (bytes > 0
                && self.options.clock.now() >= self.checkpoint_at.plus_secs(i64::from(every.secs)))
    }

    /// Brings all that was read into stored packs and an index, and writes down what there is.
    /// Nothing is done when nothing new was read.
    pub(super) fn checkpoint(&mut self) -> Result<(), Stopped> {
        self.checkpoint_at = self.options.clock.now();
        if self.storing.unsafe_bytes == 0 || !self.storing.has_live() {
            return Ok(());
        }
        self.storing.unsafe_bytes = 0;
        let copies = self.storing.copies;
        if !copies
            .iter()
            .all(|copy| copy.domain.rights().has(Right::Read))
        {
            // The next run could not read it; that nothing is sent again is what can be had.
            return self.storing.settle();
        }
        self.end_run()?;
        let storing = &mut self.storing;
        let root = self.tree.clone().finish(&mut |page| storing.page(&page))?;
        self.storing.settle()?;
        let snapshot = NewSnapshot {
            schedule: self.options.schedule.to_owned(),
            host: self.options.host.to_owned(),
            run: self.options.run,
            session: None,
            started_at: self.origin.started_at,
            finished_at: self.checkpoint_at,
            is_cut: true,
            parent: self.origin.parent,
            root,
            failed: self.walked.counts.failed,
            failures: for_snapshot(&self.walked.failures),
            accounts: self.walked.accounts.clone(),
            roots: self.options.roots.to_vec(),
            paths: self.options.paths.to_vec(),
            reread_round: self.origin.reread_round,
        };
        let plaintext = snapshot.encode().map_err(|_| Stopped)?;
        let sealed = seal_snapshot(copies, self.options.entropy, &plaintext);
        let Some((hash, bytes)) = sealed else {
            return Ok(());
        };
        // Where uploads are slow, time for work is left before the next one.
        self.checkpoint_at = self.options.clock.now();
        for copy in copies.iter().filter(|copy| copy.is_live()) {
            let secs = self.checkpoint_at.secs();
            let name = layout::checkpoint(copy.domain.id(), secs, &hash);
            if let Err(error) = copy.put_checkpoint(name, &bytes) {
                copy.fail(error.into(), self.options.monitor);
            }
        }
        Ok(())
    }
}

impl super::Storing<'_, '_> {
    /// Waits until all that was cut so far is stored and in an index.
    fn settle(&mut self) -> Result<(), Stopped> {
        self.join_sides();
        while let Some((_, frame)) = self.frames.pop_first() {
            if !self.pipeline.push(frame) {
                return Err(Stopped);
            }
        }
        if self.pipeline.settle() {
            Ok(())
        } else {
            Err(Stopped)
        }
    }
}
