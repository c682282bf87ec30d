//! A systemd in memory that has the real one's habits, the bad ones included (measured on 252
//! and 257): a reload disarms a timer whose file is missing for good, an edited calendar counts
//! from the last elapse, a start counts from the stamp file.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use model::{Instant, ScheduleName};
use rustix::fs::{FlockOperation, flock};
use settings::Calendar;
use settings::units::{TimerWish, drop_in, schedule_of, timer_unit};

use super::error::ApplyError;
use super::host::{Elapses, Host, UnitState, Unsealed, Verb};
use super::paths::Paths;

/// One timer in the memory of PID 1.
#[derive(Debug, Clone, Default)]
pub(crate) struct Loaded {
    wish: Option<TimerWish>,
    active: bool,
    sub: &'static str,
    next: Option<Instant>,
    last: Option<Instant>,
}

/// A machine of the test's making.
pub(crate) struct Fake {
    pub(crate) paths: Paths,
    pub(crate) now: Cell<Instant>,
    /// Steps until the power is cut; nothing for never.
    pub(crate) fuel: Cell<Option<u32>>,
    pub(crate) steps: Cell<u32>,
    pub(crate) reloads: Cell<u32>,
    pub(crate) checker_says: RefCell<String>,
    /// A timer whose next elapse comes out wrong.
    pub(crate) wrong: RefCell<Option<ScheduleName>>,
    /// Schedules whose timer elapsed.
    pub(crate) fired: RefCell<Vec<ScheduleName>>,
    loaded: RefCell<BTreeMap<ScheduleName, Loaded>>,
}

impl Fake {
    pub(crate) fn new(root: &Path, now: Instant) -> Self {
        Self {
            paths: Paths::below(root),
            now: Cell::new(now),
            fuel: Cell::new(None),
            steps: Cell::new(0),
            reloads: Cell::new(0),
            checker_says: RefCell::default(),
            wrong: RefCell::default(),
            fired: RefCell::default(),
            loaded: RefCell::default(),
        }
    }

    /// Switches the machine off and on: links start timers, and missed runs are made up.
    pub(crate) fn reboot(&self) {
        self.loaded.borrow_mut().clear();
        self.start_target();
    }

    /// What `systemctl daemon-reload` of anybody does.
    pub(crate) fn read_again(&self) {
        let mut loaded = self.loaded.borrow_mut();
        loaded.retain(|_, timer| timer.active);
        for (name, timer) in loaded.iter_mut() {
            let wish = self.definition(name);
            if wish.is_none() {
                timer.sub = "elapsed";
                timer.next = None;
            } else if timer.sub != "elapsed" && wish != timer.wish {
                // The calendar counts from the last elapse, so it can be due at once.
                let base = timer.last.unwrap_or_else(|| self.now.get());
                self.arm(name, timer, wish.as_ref(), base);
            }
            timer.wish = wish;
        }
    }

    /// What `systemctl stop` does.
    pub(crate) fn stop(&self, name: &ScheduleName) {
        if let Some(timer) = self.loaded.borrow_mut().get_mut(name) {
            timer.active = false;
            timer.sub = "dead";
            timer.next = None;
        }
    }

    pub(crate) fn is_armed(&self, name: &ScheduleName) -> bool {
        let loaded = self.loaded.borrow();
        loaded
            .get(name)
            .is_some_and(|timer| timer.active && timer.sub == "waiting" && timer.next.is_some())
    }

    pub(crate) fn next(&self, name: &ScheduleName) -> Option<Instant> {
        self.loaded.borrow().get(name)?.next
    }

    /// Lists the armed timers with what they wait for.
    pub(crate) fn armed(&self) -> Vec<(ScheduleName, Option<Instant>)> {
        let loaded = self.loaded.borrow();
        let active = loaded.iter().filter(|(_, timer)| timer.active);
        active.map(|(n, timer)| (n.clone(), timer.next)).collect()
    }

    fn definition(&self, name: &ScheduleName) -> Option<TimerWish> {
        let unit = timer_unit(name);
        if fs::read_link(self.paths.units().join(&unit)).is_ok() {
            return None;
        }
        let text = fs::read_to_string(self.paths.units().join(drop_in(&unit))).ok()?;
        TimerWish::read(&text)
    }

    fn arm(
        &self,
        name: &ScheduleName,
        timer: &mut Loaded,
        wish: Option<&TimerWish>,
        base: Instant,
    ) {
        let Some(calendar) = wish.and_then(|w| Calendar::from_lines(&w.on_calendar).ok()) else {
            timer.sub = "elapsed";
            timer.next = None;
            return;
        };
        timer.sub = "waiting";
        timer.next = calendar.next_after(base);
        if timer.next.is_some_and(|next| next <= self.now.get()) {
            self.fired.borrow_mut().push(name.clone());
            timer.last = Some(self.now.get());
            self.touch(name);
            timer.next = calendar.next_after(self.now.get());
        }
    }

    fn touch(&self, name: &ScheduleName) {
        let path = self.paths.stamp(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let file = fs::File::create(&path).unwrap();
        file.set_modified(self.as_file_time(self.now.get()))
            .unwrap();
    }

    fn as_file_time(&self, at: Instant) -> std::time::SystemTime {
        let micros = u64::try_from(at.micros()).unwrap();
        std::time::UNIX_EPOCH + std::time::Duration::from_micros(micros)
    }

    fn stamp(&self, name: &ScheduleName) -> Option<Instant> {
        let time = fs::metadata(self.paths.stamp(name)).ok()?.modified().ok()?;
        let since = time.duration_since(std::time::UNIX_EPOCH).ok()?;
        Some(Instant::from_micros(i64::try_from(since.as_micros()).ok()?))
    }

    fn start(&self, name: &ScheduleName) -> Result<(), String> {
        let mut loaded = self.loaded.borrow_mut();
        let fresh = !loaded.contains_key(name);
        let timer = loaded.entry(name.clone()).or_default();
        if fresh {
            timer.wish = self.definition(name);
        }
        if timer.active {
            return Ok(());
        }
        let Some(wish) = timer.wish.clone() else {
            loaded.remove(name);
            return Err("bad-setting".to_owned());
        };
        timer.active = true;
        let now = self.now.get();
        let stamp = self.stamp(name).filter(|at| *at <= now);
        if stamp.is_none() {
            self.touch(name);
        }
        timer.last = stamp.or(timer.last);
        let base = timer.last.unwrap_or(now);
        self.arm(name, timer, Some(&wish), base);
        Ok(())
    }

    fn start_target(&self) {
        let Ok(links) = fs::read_dir(self.paths.wants()) else {
            return;
        };
        for link in links {
            let unit = link.unwrap().file_name().into_string().unwrap();
            if let Some(name) = schedule_of(&drop_in(&unit)) {
                // A timer that cannot start fails alone.
                drop(self.start(&name));
            }
        }
    }

    fn burn(&self) -> Result<(), ApplyError> {
        self.steps.set(self.steps.get() + 1);
        match self.fuel.get() {
            None => Ok(()),
            Some(0) => Err(ApplyError::Systemd {
                doing: "go on".to_owned(),
                detail: "the power is cut".to_owned(),
            }),
            Some(left) => {
                self.fuel.set(Some(left - 1));
                Ok(())
            }
        }
    }
}

impl Host for Fake {
    fn now(&self) -> Instant {
        self.now.get()
    }

    fn step(&self, what: &str) -> Result<(), ApplyError> {
        // Another process may write the same files: each change is made under the lock.
        let directory = fs::File::open(self.paths.generations()).unwrap();
        let free = flock(&directory, FlockOperation::NonBlockingLockExclusive);
        assert!(free.is_err(), "{what} without the lock");
        self.burn()
    }

    async fn timers(&self) -> Result<BTreeMap<ScheduleName, UnitState>, ApplyError> {
        let loaded = self.loaded.borrow();
        let states = loaded.iter().map(|(name, timer)| {
            let state = UnitState {
                load: "loaded".to_owned(),
                active: if timer.active { "active" } else { "inactive" }.to_owned(),
                sub: timer.sub.to_owned(),
            };
            (name.clone(), state)
        });
        Ok(states.collect())
    }

    async fn elapses(&self, names: &[&ScheduleName]) -> Result<Vec<Elapses>, ApplyError> {
        let loaded = self.loaded.borrow();
        let elapses = names.iter().map(|name| {
            let timer = loaded.get(*name).cloned().unwrap_or_default();
            let late = i64::from(self.wrong.borrow().as_ref() == Some(*name)) * 1234;
            Elapses {
                next: timer.next.map(|at| at.plus_secs(late)),
                last: timer.last,
            }
        });
        Ok(elapses.collect())
    }

    async fn enable(&self, units: &[String]) -> Result<(), ApplyError> {
        for unit in units {
            self.burn()?;
            fs::create_dir_all(self.paths.wants()).unwrap();
            let link = self.paths.wants().join(unit);
            // A link that is there already is as good.
            drop(symlink("/usr/lib/systemd/system/backstay-job@.timer", link));
        }
        Ok(())
    }

    async fn disable(&self, units: &[String]) -> Result<(), ApplyError> {
        for unit in units {
            self.burn()?;
            drop(fs::remove_file(self.paths.wants().join(unit)));
        }
        Ok(())
    }

    async fn reload(&self) -> Result<(), ApplyError> {
        self.burn()?;
        self.reloads.set(self.reloads.get() + 1);
        self.read_again();
        Ok(())
    }

    async fn change(
        &self,
        verb: Verb,
        units: &[String],
    ) -> Result<BTreeMap<String, String>, ApplyError> {
        let mut failed = BTreeMap::new();
        for unit in units {
            self.burn()?;
            let Some(name) = schedule_of(&drop_in(unit)) else {
                self.start_target();
                continue;
            };
            if matches!(verb, Verb::Stop | Verb::Restart) {
                self.stop(&name);
            }
            if matches!(verb, Verb::Start | Verb::Restart)
                && let Err(why) = self.start(&name)
            {
                failed.insert(unit.clone(), why);
            }
        }
        Ok(failed)
    }

    async fn verify(&self, directory: &Path, units: &[String]) -> Result<String, ApplyError> {
        for unit in units {
            assert!(
                directory.join(drop_in(unit)).exists(),
                "{unit} is not there"
            );
        }
        Ok(self.checker_says.borrow().clone())
    }

    async fn seal_all(&self, secrets: Vec<Unsealed>) -> Result<Vec<Vec<u8>>, (String, String)> {
        let seal = |(name, secret): Unsealed| match self.burn() {
            Ok(()) => Ok([name.as_bytes(), b"\n", secret.as_slice()].concat()),
            Err(error) => Err((name, error.to_string())),
        };
        secrets.into_iter().map(seal).collect()
    }
}
