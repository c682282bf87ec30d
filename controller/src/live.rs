//! What is known only while the controller runs: who is online, replay windows, progress.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant as Moment};

use model::Instant;
use protocol::Progress;
use tokio::sync::Notify;

/// How often progress of one server is passed on to browsers at most: twice a second.
const PROGRESS_GAP: Duration = Duration::from_millis(500);

/// What a request counter says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Counted {
    /// Not seen before.
    Fresh,
    /// The first of a later start of the agent: keep its number, then ask again.
    NewBoot,
    /// Seen before, or too old to tell.
    Replayed,
    /// Of an earlier start, or of one that this controller does not remember the counters of.
    StaleBoot {
        /// The number that the controller has.
        known: u64,
    },
}

#[derive(Debug, Default)]
struct Agent {
    boot: u64,
    highest: u64,
    /// Bit n is set when `highest - n` was seen.
    window: u64,
    seen: Option<(Moment, Instant)>,
    online: bool,
    /// Connections that are open.
    lines: usize,
    tasks: Vec<Progress>,
    passed_on: Option<Moment>,
    wake: Arc<Notify>,
}

/// Every agent, by server id.
#[derive(Debug, Default)]
pub(crate) struct Live {
    agents: Mutex<HashMap<String, Agent>>,
    /// Rings when an agent came or its last connection ended: its absence may have to be noticed.
    pub(crate) moves: Notify,
}

/// A connection; from its first signed request on it says that its agent is there.
#[derive(Debug, Clone, Default)]
pub(crate) struct Line {
    held: Arc<OnceLock<Held>>,
}

#[derive(Debug)]
struct Held {
    live: Arc<Live>,
    server: String,
}

impl Line {
    /// Notes whose connection it is. A second agent on one connection is not counted.
    pub(crate) fn hold(&self, live: &Arc<Live>, server: &str) {
        self.held.get_or_init(|| {
            live.with(server, |agent| agent.lines = agent.lines.saturating_add(1));
            Held {
                live: Arc::clone(live),
                server: server.to_owned(),
            }
        });
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.live.hung_up(&self.server, Moment::now(), crate::now());
    }
}

impl Live {
    fn with<T>(&self, server: &str, act: impl FnOnce(&mut Agent) -> T) -> T {
        let mut agents = self.agents.lock().unwrap_or_else(PoisonError::into_inner);
        act(agents.entry(server.to_owned()).or_default())
    }

    /// Counts a request whose signature was verified. `stored_boot` is what the state file has.
    pub(crate) fn count(&self, server: &str, stored_boot: u64, boot: u64, counter: u64) -> Counted {
        self.with(server, |agent| {
            let known = agent.boot.max(stored_boot);
            if boot > known {
                return Counted::NewBoot;
            }
            // After a restart of the controller the counters of a boot are forgotten: only a
            // higher boot number is safe then.
            if boot < known || agent.boot != boot || boot == 0 {
                return Counted::StaleBoot { known };
            }
            agent.count(counter)
        })
    }

    /// Begins to count for a new start of an agent, whose number is in the state file now.
    pub(crate) fn begin_boot(&self, server: &str, boot: u64) {
        self.with(server, |agent| {
            if boot > agent.boot {
                agent.boot = boot;
                agent.highest = 0;
                agent.window = 0;
            }
        });
    }

    /// Notes that an agent was heard; true when it was offline before.
    pub(crate) fn seen(&self, server: &str, moment: Moment, at: Instant) -> bool {
        let came = self.with(server, |agent| {
            agent.seen = Some((moment, at));
            !std::mem::replace(&mut agent.online, true)
        });
        if came {
            self.moves.notify_one();
        }
        came
    }

    /// Notes that a connection of an agent ended. Until then it was there.
    fn hung_up(&self, server: &str, moment: Moment, at: Instant) {
        let mut agents = self.agents.lock().unwrap_or_else(PoisonError::into_inner);
        // It may have been removed from the fleet meanwhile.
        let Some(agent) = agents.get_mut(server) else {
            return;
        };
        agent.lines = agent.lines.saturating_sub(1);
        if agent.lines == 0 {
            agent.seen = Some((moment, at));
            self.moves.notify_one();
        }
    }

    /// Gives whether an agent is online, and when it was last there since the controller started.
    pub(crate) fn status(&self, server: &str, now: Instant) -> (bool, Option<Instant>) {
        self.with(server, |agent| {
            let seen = agent.seen.map(|(_, at)| at);
            (agent.online, if agent.lines > 0 { Some(now) } else { seen })
        })
    }

    /// Marks those offline that have had no connection for `silence`, and gives them; then the
    /// moment at which the next one may be.
    pub(crate) fn expire(
        &self,
        now: Moment,
        silence: Duration,
    ) -> (Vec<(String, Instant)>, Option<Moment>) {
        let mut agents = self.agents.lock().unwrap_or_else(PoisonError::into_inner);
        let mut gone = Vec::new();
        let mut next: Option<Moment> = None;
        for (server, agent) in agents.iter_mut() {
            if !agent.online || agent.lines > 0 {
                continue;
            }
            let Some((moment, at)) = agent.seen else {
                continue;
            };
            let due = moment + silence;
            if due <= now {
                agent.online = false;
                agent.tasks.clear();
                gone.push((server.clone(), at));
            } else {
                next = Some(next.map_or(due, |earlier| earlier.min(due)));
            }
        }
        (gone, next)
    }

    /// Gives when each agent was last there.
    pub(crate) fn last_heard(&self, now: Instant) -> Vec<(String, Instant)> {
        let agents = self.agents.lock().unwrap_or_else(PoisonError::into_inner);
        agents
            .iter()
            .filter_map(|(server, agent)| {
                let at = if agent.lines > 0 { now } else { agent.seen?.1 };
                Some((server.clone(), at))
            })
            .collect()
    }

    /// Gives what rings when there is something new for an agent.
    pub(crate) fn bell(&self, server: &str) -> Arc<Notify> {
        self.with(server, |agent| Arc::clone(&agent.wake))
    }

    /// Rings for an agent.
    pub(crate) fn ring(&self, server: &str) {
        self.bell(server).notify_waiters();
    }

    /// Takes over the progress of a server; true when browsers should be told now.
    pub(crate) fn set_tasks(&self, server: &str, tasks: Vec<Progress>, now: Moment) -> TaskChange {
        self.with(server, |agent| {
            let ids = |tasks: &[Progress]| -> Vec<String> {
                tasks.iter().map(|task| task.id.clone()).collect()
            };
            let changed = ids(&agent.tasks) != ids(&tasks);
            agent.tasks = tasks;
            let due = agent
                .passed_on
                .is_none_or(|before| now.saturating_duration_since(before) >= PROGRESS_GAP);
            if due {
                agent.passed_on = Some(now);
            }
            match (changed, due) {
                (true, _) => TaskChange::Tasks,
                (false, true) => TaskChange::Progress,
                (false, false) => TaskChange::Quiet,
            }
        })
    }

    /// Gives everything that runs, with its server's id.
    pub(crate) fn tasks(&self) -> Vec<(String, Progress)> {
        let agents = self.agents.lock().unwrap_or_else(PoisonError::into_inner);
        agents
            .iter()
            .flat_map(|(server, agent)| {
                agent
                    .tasks
                    .iter()
                    .map(|task| (server.clone(), task.clone()))
            })
            .collect()
    }

    /// Removes a task that has ended.
    pub(crate) fn end_task(&self, server: &str, id: &str) {
        self.with(server, |agent| agent.tasks.retain(|task| task.id != id));
    }

    /// Forgets a server, and ends its watch.
    pub(crate) fn forget(&self, server: &str) {
        let mut agents = self.agents.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(agent) = agents.remove(server) {
            agent.wake.notify_waiters();
        }
    }
}

/// What browsers should be told about progress.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TaskChange {
    /// A task began or ended.
    Tasks,
    /// Numbers moved.
    Progress,
    /// Too soon after the last time.
    Quiet,
}

impl Agent {
    fn count(&mut self, counter: u64) -> Counted {
        if counter > self.highest {
            let ahead = counter - self.highest;
            self.window = if ahead < 64 {
                self.window << ahead | 1
            } else {
                1
            };
            self.highest = counter;
            return Counted::Fresh;
        }
        let behind = self.highest - counter;
        if behind >= 64 || counter == 0 || self.window >> behind & 1 == 1 {
            return Counted::Replayed;
        }
        self.window |= 1 << behind;
        Counted::Fresh
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counter_passes_once_in_any_order() {
        let live = Live::default();
        live.begin_boot("s", 7);
        let count = |counter| live.count("s", 7, 7, counter);
        for counter in [1, 3, 2, 70, 69, 10] {
            assert_eq!(count(counter), Counted::Fresh, "{counter}");
            assert_eq!(count(counter), Counted::Replayed, "{counter}");
        }
        assert_eq!(count(1), Counted::Replayed);
        assert_eq!(count(6), Counted::Replayed);
        assert_eq!(count(0), Counted::Replayed);
    }

    #[test]
    fn only_a_later_start_is_believed_after_a_restart() {
        let live = Live::default();
        assert_eq!(live.count("s", 7, 7, 1), Counted::StaleBoot { known: 7 });
        assert_eq!(live.count("s", 7, 6, 1), Counted::StaleBoot { known: 7 });
        assert_eq!(live.count("s", 7, 8, 1), Counted::NewBoot);
        live.begin_boot("s", 8);
        assert_eq!(live.count("s", 8, 8, 1), Counted::Fresh);
        assert_eq!(live.count("s", 8, 8, 1), Counted::Replayed);
        assert_eq!(live.count("s", 8, 7, 2), Counted::StaleBoot { known: 8 });
    }

    #[test]
    fn silence_makes_an_agent_offline_once() {
        let live = Live::default();
        let start = Moment::now();
        let at = Instant::from_secs(5);
        let silence = Duration::from_secs(100);
        assert!(live.seen("s", start, at));
        assert!(!live.seen("s", start, at));
        assert_eq!(
            live.expire(start, silence),
            (Vec::new(), Some(start + silence))
        );
        let gone = vec![("s".to_owned(), at)];
        assert_eq!(live.expire(start + silence, silence), (gone, None));
        assert_eq!(live.expire(start + silence, silence), (Vec::new(), None));
        assert!(!live.status("s", at).0);
        assert!(live.seen("s", start + silence, at));
    }

    #[test]
    fn an_agent_is_online_while_it_has_a_connection() {
        let live = Arc::new(Live::default());
        let at = Instant::from_secs(5);
        let silence = Duration::from_secs(100);
        let (first, second) = (Line::default(), Line::default());
        let later = Moment::now() + silence * 1000;
        assert!(live.seen("s", Moment::now(), at));
        first.hold(&live, "s");
        first.hold(&live, "s");
        second.hold(&live, "s");
        assert_eq!(live.expire(later, silence), (Vec::new(), None));
        drop(first);
        assert_eq!(live.expire(later, silence), (Vec::new(), None));
        let clone = second.clone();
        drop(second);
        assert_eq!(live.expire(later, silence), (Vec::new(), None));
        assert_eq!(live.status("s", at.plus_secs(9)).1, Some(at.plus_secs(9)));
        drop(clone);
        let (gone, _) = live.expire(Moment::now(), silence);
        assert!(gone.is_empty());
        let (gone, next) = live.expire(later, silence);
        assert_eq!((gone.len(), next), (1, None));
    }
}
