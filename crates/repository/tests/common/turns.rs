//! Taking turns: several programs at one store in memory, of which always one works and the others
//! stand still between two requests. Who works for how many requests is a plan that a test makes.

#![allow(dead_code, reason = "each test binary uses a part")]
#![allow(unreachable_pub, reason = "shared by several test binaries")]
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use edge::{ByteRange, ObjectInfo, ObjectName, ObjectStore, StoreError, StoreFault};
use testkit::MemoryStore;

use super::World;

/// As many requests as there are.
pub const ALL: u64 = u64::MAX;

/// One program works for a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Turn {
    pub who: usize,
    /// It stands still after so many requests; with 0 the turn is left out.
    pub requests: u64,
    /// So much time passes before.
    pub secs_before: i64,
}

pub const fn turn(who: usize, requests: u64) -> Turn {
    Turn {
        who,
        requests,
        secs_before: 0,
    }
}

pub const fn later(secs_before: i64, turn: Turn) -> Turn {
    Turn {
        secs_before,
        ..turn
    }
}

/// How the programs take turns, and what else happens to them. Who is not done at the end of the
/// plan goes on then, the first one first.
#[derive(Debug, Clone, Default)]
pub struct Plan {
    pub turns: Vec<Turn>,
    /// This program is cut off before this request of its own, from 0, for good.
    pub cut: Option<(usize, u64)>,
    /// Listings show what was there up to so many requests ago, of anybody.
    pub late: usize,
    /// So long takes each request.
    pub secs_each: i64,
}

/// What a program does with its store.
pub type Program<'p> = Box<dyn FnOnce(Arc<dyn ObjectStore>) + Send + 'p>;

type Names = BTreeMap<ObjectName, u64>;

struct State {
    turns: VecDeque<Turn>,
    whose: Option<usize>,
    left: u64,
    asked: Vec<Vec<String>>,
    is_done: Vec<bool>,
    /// What was there after each of the last requests, the latest last.
    before: VecDeque<Names>,
    listings: usize,
}

struct Table {
    world: Arc<World>,
    store: Arc<MemoryStore>,
    plan: Plan,
    state: Mutex<State>,
    changed: Condvar,
}

/// Runs programs to their ends, taking turns; gives the requests that each made.
pub fn take_turns(
    (world, store): (&Arc<World>, &Arc<MemoryStore>),
    plan: &Plan,
    programs: Vec<Program<'_>>,
) -> Vec<Vec<String>> {
    let table = Arc::new(Table {
        world: world.clone(),
        store: store.clone(),
        plan: plan.clone(),
        state: Mutex::new(State {
            turns: plan.turns.iter().copied().collect(),
            whose: None,
            left: 0,
            asked: vec![Vec::new(); programs.len()],
            is_done: vec![false; programs.len()],
            before: VecDeque::from([names(store)]),
            listings: 0,
        }),
        changed: Condvar::new(),
    });
    table.next(&mut table.lock());
    std::thread::scope(|scope| {
        for (who, program) in programs.into_iter().enumerate() {
            let table = table.clone();
            scope.spawn(move || {
                let seat = Seat { who, table };
                drop(seat.wait());
                let place = Seat {
                    who,
                    table: seat.table.clone(),
                };
                // Whatever becomes of it, the others go on.
                let _end = End(seat);
                program(Arc::new(place));
            });
        }
    });
    let state = table.lock();
    state.asked.clone()
}

fn names(store: &MemoryStore) -> Names {
    let objects = store.objects().into_iter();
    objects
        .map(|(name, bytes)| (name, bytes.len() as u64))
        .collect()
}

impl Table {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives the next turn to somebody.
    fn next(&self, state: &mut State) {
        state.whose = None;
        while let Some(turn) = state.turns.pop_front() {
            self.world.clock.advance_secs(turn.secs_before);
            if turn.requests > 0 && !state.is_done[turn.who] {
                state.whose = Some(turn.who);
                state.left = turn.requests;
                break;
            }
        }
        if state.whose.is_none() {
            state.whose = state.is_done.iter().position(|is_done| !is_done);
            state.left = ALL;
        }
        self.changed.notify_all();
    }
}

/// A program's store.
struct Seat {
    who: usize,
    table: Arc<Table>,
}

/// Tells the others when a program has ended.
struct End(Seat);

impl Drop for End {
    fn drop(&mut self) {
        let table = &self.0.table;
        let mut state = table.lock();
        state.is_done[self.0.who] = true;
        if state.whose == Some(self.0.who) {
            table.next(&mut state);
        }
    }
}

impl Seat {
    fn wait(&self) -> MutexGuard<'_, State> {
        self.wait_with(self.table.lock())
    }

    fn wait_with<'s>(&'s self, mut state: MutexGuard<'s, State>) -> MutexGuard<'s, State> {
        while state.whose != Some(self.who) {
            let woken = self.table.changed.wait(state);
            state = woken.unwrap_or_else(PoisonError::into_inner);
        }
        state
    }

    /// Makes one request when it is this program's turn; stands still after it, when that is over.
    fn ask<T>(
        &self,
        request: String,
        make: impl FnOnce(&MemoryStore, &mut State) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let table = &self.table;
        let mut state = self.wait();
        let number = state.asked[self.who].len() as u64;
        if table.plan.cut == Some((self.who, number)) {
            return Err(StoreError {
                operation: "reaching",
                object: request,
                store: "memory".to_owned(),
                fault: StoreFault::Unreachable,
                source: "cut off".into(),
            });
        }
        state.asked[self.who].push(request);
        let answer = make(&table.store, &mut state);
        table.world.clock.advance_secs(table.plan.secs_each);
        if table.plan.late > 0 {
            state.before.push_back(names(&table.store));
            if state.before.len() > table.plan.late + 1 {
                state.before.pop_front();
            }
        }
        state.left -= 1;
        if state.left == 0 {
            table.next(&mut state);
            drop(self.wait_with(state));
        }
        answer
    }
}

impl ObjectStore for Seat {
    fn describe(&self) -> String {
        "memory".to_owned()
    }

    fn put(&self, name: &ObjectName, bytes: &[u8]) -> Result<(), StoreError> {
        self.ask(format!("put {name}"), |store, _| store.put(name, bytes))
    }

    fn get(&self, name: &ObjectName, bytes_max: u64) -> Result<Vec<u8>, StoreError> {
        self.ask(format!("get {name}"), |store, _| store.get(name, bytes_max))
    }

    fn get_range(&self, name: &ObjectName, range: ByteRange) -> Result<Vec<u8>, StoreError> {
        self.ask(format!("range {name}"), |store, _| {
            store.get_range(name, range)
        })
    }

    fn size(&self, name: &ObjectName) -> Result<Option<u64>, StoreError> {
        self.ask(format!("size {name}"), |store, _| store.size(name))
    }

    fn list(&self, prefix: &str, each: &mut dyn FnMut(ObjectInfo)) -> Result<(), StoreError> {
        let late = self.table.plan.late;
        let listed = self.ask(format!("list {prefix}"), |store, state| {
            if late == 0 {
                return Ok(names(store));
            }
            // Some are later than others.
            state.listings += 1;
            let at = state.listings * 7 % state.before.len();
            Ok(state.before[at].clone())
        })?;
        let found = listed.into_iter();
        found
            .filter(|(name, _)| name.as_str().starts_with(prefix))
            .for_each(|(name, size_bytes)| each(ObjectInfo { name, size_bytes }));
        Ok(())
    }

    fn delete(&self, name: &ObjectName) -> Result<(), StoreError> {
        self.ask(format!("delete {name}"), |store, _| store.delete(name))
    }
}
