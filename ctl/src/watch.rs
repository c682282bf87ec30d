//! Watching work that this program does itself: a bar on a terminal, silence elsewhere.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant as Moment};

use edge::{Event, Monitor, Phase};
use indicatif::ProgressBar;
use ledger::Progress;
use model::{ByteCount, Exit, Instant, RunId};
use signal_hook::consts::{SIGINT, SIGTERM, SIGUSR1, SIGUSR2};
use signal_hook::flag;

use crate::follow;

/// How often the bar moves.
const TICK: Duration = Duration::from_millis(120);

/// Shows on a terminal how far the work is.
pub struct Watch {
    bar: ProgressBar,
    work: &'static str,
    shown: Mutex<Shown>,
    asked: Asked,
}

/// What signals asked for.
#[derive(Default)]
struct Asked {
    is_to_stop: Arc<AtomicBool>,
    /// 1 while the work is to rest.
    pause: Arc<AtomicUsize>,
}

/// What the bar says now.
struct Shown {
    phase: &'static str,
    /// News come thousands of times a second; the bar takes them when it moves.
    at: Option<Moment>,
}

impl Watch {
    /// Begins to show; `work` is what is done: `backup`, `restore`.
    pub fn new(work: &'static str) -> Self {
        let bar = ProgressBar::new_spinner();
        bar.enable_steady_tick(TICK);
        Self {
            bar,
            work,
            shown: Mutex::new(Shown {
                phase: "opening",
                at: None,
            }),
            asked: Asked::default(),
        }
    }

    /// Begins to show work that may be ended with what it has so far, by SIGINT or SIGTERM, and that
    /// rests from SIGUSR1 to SIGUSR2. A second SIGINT or SIGTERM ends the program at once.
    ///
    /// # Errors
    ///
    /// That the system takes no handler.
    pub fn that_heeds_signals(work: &'static str) -> io::Result<Self> {
        let watch = Self::new(work);
        let Asked { is_to_stop, pause } = &watch.asked;
        let code = i32::from(Exit::Interrupted.code());
        for signal in [SIGINT, SIGTERM] {
            // In this order: the first signal finds that nobody asked yet.
            flag::register_conditional_shutdown(signal, code, Arc::clone(is_to_stop))?;
            flag::register(signal, Arc::clone(is_to_stop))?;
        }
        flag::register_usize(SIGUSR1, Arc::clone(pause), 1)?;
        flag::register_usize(SIGUSR2, Arc::clone(pause), 0)?;
        Ok(watch)
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
                let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
                shown.phase = said(next);
                shown.at = None;
                self.bar.set_message(shown.phase);
            }
            Event::Progress {
                entries,
                bytes,
                bytes_expected,
            } => {
                let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
                if shown.at.is_some_and(|at| at.elapsed() < TICK) {
                    return;
                }
                shown.at = Some(Moment::now());
                follow::set(
                    &self.bar,
                    &Progress {
                        id: RunId::from_bytes([0; 16]),
                        schedule: String::new(),
                        work: self.work.to_owned(),
                        phase: shown.phase.to_owned(),
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

    fn is_cancelled(&self) -> bool {
        self.asked.is_to_stop.load(Ordering::Relaxed)
    }

    fn is_paused(&self) -> bool {
        self.asked.pause.load(Ordering::Relaxed) == 1
    }
}
