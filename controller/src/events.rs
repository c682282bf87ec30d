//! What browsers are told as it happens: a bounded ring that a reconnecting browser reads on.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use serde_json::Value;
use tokio::sync::watch;

/// How many events a browser may have missed before it must fetch everything anew.
const RING_MAX: usize = 1024;

/// One event.
#[derive(Debug, Clone)]
pub(crate) struct Event {
    pub(crate) id: u64,
    pub(crate) kind: &'static str,
    pub(crate) data: Value,
}

/// The ring, and the wake-up of those who read it.
#[derive(Debug)]
pub(crate) struct Events {
    ring: Mutex<VecDeque<Event>>,
    last: watch::Sender<u64>,
}

impl Events {
    /// Begins counting at `first`: higher than in any earlier life of the controller, so that an
    /// id from before a restart is recognised as lost.
    pub(crate) fn starting_at(first: u64) -> Self {
        Self {
            ring: Mutex::new(VecDeque::new()),
            last: watch::Sender::new(first),
        }
    }

    /// Tells everyone.
    pub(crate) fn send(&self, kind: &'static str, data: Value) {
        let mut ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        let id = self.last.borrow().saturating_add(1);
        if ring.len() >= RING_MAX {
            ring.pop_front();
        }
        ring.push_back(Event { id, kind, data });
        self.last.send_replace(id);
    }

    /// Gives the id of the newest event and a wake-up for the next.
    pub(crate) fn subscribe(&self) -> watch::Receiver<u64> {
        self.last.subscribe()
    }

    /// Gives the events behind `after`; `None` when some of them are gone.
    pub(crate) fn since(&self, after: u64) -> Option<Vec<Event>> {
        let ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        let newest = *self.last.borrow();
        if after == newest {
            return Some(Vec::new());
        }
        let oldest = ring
            .front()
            .map_or(newest, |event| event.id.saturating_sub(1));
        if after < oldest || after > newest {
            return None;
        }
        Some(
            ring.iter()
                .filter(|event| event.id > after)
                .cloned()
                .collect(),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_browser_reads_on_where_it_was_or_is_told_to_start_over() {
        let events = Events::starting_at(100);
        assert!(events.since(100).unwrap().is_empty());
        for n in 0..1500 {
            events.send("x", Value::from(n));
        }
        assert_eq!(events.since(1598).unwrap().len(), 2);
        assert_eq!(events.since(1600 - 1024).unwrap().len(), 1024);
        assert!(events.since(100).is_none());
        assert!(events.since(7).is_none());
        assert!(events.since(9999).is_none());
    }
}
