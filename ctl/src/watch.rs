//! Watching work that this program does itself: a bar on a terminal, silence elsewhere.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use edge::{Event, Monitor, Phase};
use indicatif::ProgressBar;
use ledger::Progress;
use model::{ByteCount, Instant, RunId};

use crate::follow;

/// How often the bar moves.
const TICK: Duration = Duration::from_millis(120);

/// Shows on a terminal how far the work is.
pub struct Watch {
    bar: ProgressBar,
    work: &'static str,
    phase: Mutex<&'static str>,
}

impl Watch {
    /// Begins to show; `work` is what is done: `backup`, `restore`.
    pub fn new(work: &'static str) -> Self {
        let bar = ProgressBar::new_spinner();
        bar.enable_steady_tick(TICK);
        Self {
            bar,
            work,
            phase: Mutex::new("opening"),
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

const fn said(phase: Phase) -> &'static str {
    match phase {
        Phase::Opening => "opening",
        Phase::Storing => "storing",
        Phase::Publishing => "publishing",
        Phase::Verifying => "verifying",
        Phase::Pruning => "pruning",
        Phase::Planning => "planning",
        Phase::Restoring => "restoring",
    }
}

impl Monitor for Watch {
    fn event(&self, event: Event<'_>) {
        match event {
            Event::Phase(next) => {
                *self.phase.lock().unwrap_or_else(PoisonError::into_inner) = said(next);
                self.bar.set_message(said(next));
            }
            Event::Progress {
                entries,
                bytes,
                bytes_expected,
            } => {
                let phase = *self.phase.lock().unwrap_or_else(PoisonError::into_inner);
                follow::set(
                    &self.bar,
                    &Progress {
                        id: RunId::from_bytes([0; 16]),
                        schedule: String::new(),
                        work: self.work.to_owned(),
                        phase: phase.to_owned(),
                        entries,
                        bytes,
                        bytes_expected: bytes_expected.filter(|bytes| *bytes > ByteCount::ZERO),
                        started_at: Instant::default(),
                    },
                );
            }
            Event::Object(_)
            | Event::Note(_)
            | Event::Failed { .. }
            | Event::DestinationLost { .. } => {}
        }
    }
}
