//! Work on many things by several threads, with the results in the order of the things.
//!
//! Objects of a place that is far away are read so: each request waits for the one before it otherwise.

use std::collections::BTreeMap;
use std::num::NonZero;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// Requests for small objects that are under way at the same time.
pub(crate) const READERS: usize = 8;

/// Gives the number of threads for work that needs the processor, and so many more that wait for the store.
pub(crate) fn cores_and(more: usize) -> usize {
    std::thread::available_parallelism().map_or(1, NonZero::get) + more
}

/// Works on things with so many threads, each with memory of its own; hands on each result in the order of the
/// things, until one is refused.
///
/// # Errors
///
/// What the refusal said.
pub(crate) fn in_order<T: Sync, M: Default, R: Send, E>(
    things: &[T],
    threads: usize,
    work: &(dyn Fn(&T, &mut M) -> R + Sync),
    each: &mut dyn FnMut(&T, R) -> Result<(), E>,
) -> Result<(), E> {
    let threads = threads.min(things.len());
    if threads < 2 {
        let mut memory = M::default();
        return things
            .iter()
            .try_for_each(|thing| each(thing, work(thing, &mut memory)));
    }
    let board = Board::new(2 * threads);
    std::thread::scope(|scope| {
        let (sender, results) = sync_channel(threads);
        for _ in 0..threads {
            let (sender, board) = (sender.clone(), &board);
            scope.spawn(move || board.work(things, work, &sender));
        }
        drop(sender);
        let _end = End(&board);
        let mut early = BTreeMap::new();
        let mut numbers = 0..;
        let mut waiting = numbers.next();
        for (number, result) in results {
            early.insert(number, result);
            while let Some(number) = waiting
                && let Some(result) = early.remove(&number)
                && let Some(thing) = things.get(number)
            {
                board.passed();
                each(thing, result)?;
                waiting = numbers.next();
            }
        }
        Ok(())
    })
}

/// Who works on what.
struct Board {
    /// Things that may be begun before the oldest of them is done.
    ahead: usize,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    begun: usize,
    passed: usize,
    is_over: bool,
}

impl Board {
    fn new(ahead: usize) -> Self {
        Self {
            ahead,
            state: Mutex::default(),
            changed: Condvar::new(),
        }
    }

    fn work<T, M: Default, R>(
        &self,
        things: &[T],
        work: &(dyn Fn(&T, &mut M) -> R + Sync),
        results: &SyncSender<(usize, R)>,
    ) {
        // Where one thread comes to its end nothing is left to begin, or it panicked.
        let _end = End(self);
        let mut memory = M::default();
        while let Some(number) = self.next(things.len())
            && let Some(thing) = things.get(number)
        {
            if results.send((number, work(thing, &mut memory))).is_err() {
                return;
            }
        }
    }

    fn next(&self, count: usize) -> Option<usize> {
        let mut state = self.lock();
        while !state.is_over && state.begun < count && state.begun >= state.passed + self.ahead {
            state = self
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
        let number = state.begun;
        state.begun += 1;
        (!state.is_over && number < count).then_some(number)
    }

    fn passed(&self) {
        self.lock().passed += 1;
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ends all work when it is dropped.
struct End<'a>(&'a Board);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.lock().is_over = true;
        self.0.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn results_come_in_order_and_not_far_ahead() {
        let things: Vec<usize> = (0..200).collect();
        for threads in [1, 2, 7, 300] {
            let (begun, mut passed) = (AtomicUsize::new(0), Vec::new());
            let work = |thing: &usize, memory: &mut Vec<usize>| {
                begun.fetch_add(1, Ordering::Relaxed);
                // The first of each ten is the last to be ready.
                (0..if thing.is_multiple_of(10) { 2000 } else { 1 })
                    .for_each(|_| std::thread::yield_now());
                memory.push(*thing);
                (*thing * 2, memory.len())
            };
            let done = in_order(&things, threads, &work, &mut |thing, (double, _)| {
                assert_eq!(double, 2 * thing);
                let ahead = begun.load(Ordering::Relaxed) - passed.len();
                assert!(ahead <= 2 * threads + 1, "{ahead} with {threads}");
                passed.push(*thing);
                Ok::<_, Infallible>(())
            });
            assert!(done.is_ok() && passed == things);
        }
    }

    #[test]
    fn a_refusal_ends_the_work() {
        let things: Vec<usize> = (0..10_000).collect();
        let begun = AtomicUsize::new(0);
        let work = |_: &usize, (): &mut ()| begun.fetch_add(1, Ordering::Relaxed);
        let mut left = 5;
        let done = in_order(&things, 4, &work, &mut |_, _| {
            left -= 1;
            if left == 0 { Err("enough") } else { Ok(()) }
        });
        assert_eq!(done, Err("enough"));
        assert!(begun.load(Ordering::Relaxed) <= 5 + 8 + 4);
    }

    #[test]
    fn a_panic_ends_the_work() {
        let things: Vec<usize> = (0..1000).collect();
        let done = std::panic::catch_unwind(|| {
            let work = |thing: &usize, (): &mut ()| assert_ne!(*thing, 7);
            in_order(&things, 3, &work, &mut |_, ()| Ok::<_, Infallible>(()))
        });
        assert!(done.is_err());
    }
}
