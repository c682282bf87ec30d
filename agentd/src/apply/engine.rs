//! Brings systemd to what the configuration says: validated, crash-consistent, reversible.
//!
//! Every prefix of the steps leaves working timers, and running the whole again from any of them
//! ends in the same state. One reload at most; the last good configuration stays when anything
//! fails.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use model::ScheduleName;
use protocol::control::{ApplyOutcome, RefusedGeneration, SystemStatus};
use rustix::fs::{FlockOperation, flock};
use settings::units::{
    FileState, TimerWish, Wanted, body_hash, drop_in, file_state, file_text, render, timer_unit,
};
use settings::{Folders, Problems, Settings};

use super::error::ApplyError;
use super::files;
use super::generations::{self, Candidate, Incoming};
use super::host::{Elapses, Host, Verb};
use super::keys;
use super::observe::{Applied, Intent, Observed, observe};
use super::paths::Paths;
use super::plan::{Plan, plan};
use super::status::{self, Ask};
use super::verify::verify;

/// From this many timers on, the target starts them in one transaction.
const START_BY_TARGET_FROM: usize = 16;

/// The unit that groups the timers.
const TARGET: &str = "backstay-schedules.target";

/// Whether generations that wait in the inbox are taken in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Inbox {
    Take,
    Leave,
}

/// One host and its files.
pub(crate) struct Engine<'h, H> {
    pub(crate) host: &'h H,
    pub(crate) paths: &'h Paths,
    /// What the check read, for the status that follows.
    pub(crate) seen: RefCell<BTreeMap<ScheduleName, Elapses>>,
}

/// What is to be in force: settings, and the generation that they came from when it is new.
struct Decision {
    settings: Settings,
    accepted: Option<Candidate>,
    refused: Option<RefusedGeneration>,
}

impl<'h, H: Host> Engine<'h, H> {
    pub(crate) const fn new(host: &'h H, paths: &'h Paths) -> Self {
        Self {
            host,
            paths,
            seen: RefCell::new(BTreeMap::new()),
        }
    }

    /// Applies the configuration as it is now.
    ///
    /// # Errors
    ///
    /// Nothing was changed, or it was put back (`RolledBack`); only `Stuck` leaves work, which the
    /// next reconcile does.
    pub(crate) async fn apply(&self, inbox: Inbox) -> Result<ApplyOutcome, ApplyError> {
        let begun = std::time::Instant::now();
        let _lock = self.lock()?;
        let result = self.apply_locked(inbox).await;
        let mut outcome = match result {
            Ok(outcome) => outcome,
            Err(error) => {
                // The status shows the faults also when nothing could be applied.
                if let Err(other) = status::refresh(self, &[], &Ask::All).await {
                    tracing::warn!("cannot write the status: {}", other.chain());
                }
                return Err(error);
            }
        };
        let repaired = outcome.repaired.iter().filter_map(|drift| {
            let path = drop_in(&drift.unit);
            settings::units::schedule_of(&path)
        });
        let touched = outcome.created.iter().chain(&outcome.changed).cloned();
        let ask = Ask::Touched(touched.chain(repaired).collect());
        status::refresh(self, &outcome.repaired, &ask).await?;
        outcome.took_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        Ok(outcome)
    }

    /// Says what an apply would do.
    ///
    /// # Errors
    ///
    /// The faults that would stop it.
    pub(crate) async fn dry_run(&self) -> Result<ApplyOutcome, ApplyError> {
        let _lock = self.lock()?;
        let decision = self.decide(Inbox::Take)?;
        let applied = self.applied()?;
        let wanted = self.render(&decision.settings);
        let observed = self.observe().await?;
        let unfinished = self.intent()?;
        let plan = plan(&wanted, &applied, &observed, unfinished.as_ref());
        let mut outcome = self.outcome(&decision, &plan, &wanted);
        outcome.dry_run = true;
        outcome.keys_made = keys::missing(self.paths, &wanted.schedules);
        Ok(outcome)
    }

    /// Looks at everything and writes it down.
    ///
    /// # Errors
    ///
    /// What could not be looked at or written.
    pub(crate) async fn status(&self) -> Result<SystemStatus, ApplyError> {
        // An apply writes the same file, at its end; one of both would find its half taken away.
        let _lock = self.lock()?;
        status::refresh(self, &[], &Ask::All).await
    }

    async fn apply_locked(&self, inbox: Inbox) -> Result<ApplyOutcome, ApplyError> {
        let decision = self.decide(inbox)?;
        let applied = self.applied()?;
        let wanted = self.render(&decision.settings);
        let observed = self.observe().await?;
        let unfinished = self.intent()?;
        let plan = plan(&wanted, &applied, &observed, unfinished.as_ref());
        let mut outcome = self.outcome(&decision, &plan, &wanted);
        outcome.keys_made = keys::make_missing(self.host, self.paths, &wanted.schedules).await?;
        if !plan.is_empty() || unfinished.is_some() {
            verify(self.host, self.paths, &plan.write).await?;
            let former = former(&applied, &observed);
            outcome.reloaded = plan.changes_files() || unfinished.is_some();
            if let Err(error) = self.switch(&wanted, &plan, &observed, unfinished).await {
                return Err(self.undo(error, &former, &decision).await);
            }
        }
        let applied_now = self.in_force(&wanted, &applied, &observed, &plan);
        self.finish(&applied_now, &applied, &decision)?;
        self.keep_in_force(&decision.settings)?;
        Ok(outcome)
    }

    /// Gives jobs the copy of the configuration that they run by.
    fn keep_in_force(&self, settings: &Settings) -> Result<(), ApplyError> {
        let root = self.paths.root();
        let mut folders = Folders::below(root);
        folders.generation = generations::current(self.paths)?;
        crate::configuration::keep(root, &folders, settings, self.host.now()).map_err(
            ApplyError::file("keep a copy in", &self.paths.generations()),
        )
    }

    fn lock(&self) -> Result<fs::File, ApplyError> {
        let directory = self.paths.generations();
        fs::create_dir_all(&directory).map_err(ApplyError::file("make", &directory))?;
        let file = fs::File::open(&directory).map_err(ApplyError::file("open", &directory))?;
        flock(&file, FlockOperation::LockExclusive)
            .map_err(|error| ApplyError::file("lock", &directory)(error.into()))?;
        Ok(file)
    }

    /// Chooses what is to be in force: a new generation when it is good, otherwise the last good.
    fn decide(&self, inbox: Inbox) -> Result<Decision, ApplyError> {
        let current = generations::current(self.paths)?;
        let incoming = match inbox {
            Inbox::Leave => Incoming::Nothing,
            Inbox::Take => generations::incoming(self.paths, self.host.now())?,
        };
        let now = self.load(current);
        let (refused, candidate) = match incoming {
            Incoming::Nothing => (None, None),
            Incoming::Refused(refused) => (Some(refused), None),
            Incoming::Candidate(candidate) => (None, Some(*candidate)),
        };
        let Some(candidate) = candidate else {
            let settings = now.map_err(ApplyError::Configuration)?;
            return Ok(Decision {
                settings,
                accepted: None,
                refused,
            });
        };
        let text = candidate.generation.toml.clone();
        match (self.load(Some((candidate.generation.number, text))), now) {
            (Ok(settings), _) => Ok(Decision {
                settings,
                accepted: Some(candidate),
                refused: None,
            }),
            // The fault is the generation's: without it everything is right.
            (Err(problems), Ok(settings)) => Ok(Decision {
                settings,
                accepted: None,
                refused: Some(candidate.refuse("invalid", problems.to_string(), self.host.now())),
            }),
            // The fault is on this server: the generation waits until it is put right.
            (Err(_), Err(problems)) => Err(ApplyError::Configuration(problems)),
        }
    }

    pub(crate) fn load(&self, generation: Option<(u64, String)>) -> Result<Settings, Problems> {
        let mut folders = Folders::below(self.paths.root());
        folders.generation = generation;
        Settings::load(&folders)
    }

    pub(crate) fn render(&self, settings: &Settings) -> Wanted {
        let now = jiff::Timestamp::from_microsecond(self.host.now().micros()).unwrap_or_default();
        let year = jiff::tz::TimeZone::UTC.to_datetime(now).year();
        render(settings, year, &|path: &Path| {
            fs::symlink_metadata(self.paths.inside(path)).is_ok()
        })
    }

    pub(crate) fn applied(&self) -> Result<Applied, ApplyError> {
        match files::read_json(&self.applied_path()) {
            // It is replaced in one step, so damage is a hand's work; everything is made anew.
            Err(ApplyError::Damaged { .. }) => Ok(Applied::default()),
            other => Ok(other?.unwrap_or_default()),
        }
    }

    pub(crate) async fn observe(&self) -> Result<Observed, ApplyError> {
        let mut observed = observe(self.paths)?;
        observed.units = self.host.timers().await?;
        Ok(observed)
    }

    fn outcome(&self, decision: &Decision, plan: &Plan, wanted: &Wanted) -> ApplyOutcome {
        ApplyOutcome {
            generation: decision.settings.generation,
            refused: decision.refused.clone(),
            created: plan.created.iter().cloned().collect(),
            changed: plan.changed.iter().cloned().collect(),
            removed: plan.removed.iter().cloned().collect(),
            unchanged: plan.unchanged,
            repaired: plan.repaired.clone(),
            held: plan.held.clone(),
            diff: plan.diff.clone(),
            warnings: wanted.warnings.clone(),
            ..ApplyOutcome::default()
        }
    }

    /// Does what the plan says, in an order in which every prefix is a working system.
    async fn switch(
        &self,
        wanted: &Wanted,
        plan: &Plan,
        observed: &Observed,
        unfinished: Option<Intent>,
    ) -> Result<(), ApplyError> {
        let must_reload = plan.changes_files() || unfinished.is_some();
        let mut intent = unfinished.unwrap_or_default();
        intent.disabled.extend(plan.disable.iter().cloned());
        for names in [&plan.stop, &plan.start, &plan.restart] {
            intent.stopped.extend(names.iter().cloned());
        }
        files::write_json(self.host, &self.intent_path(), &intent)?;
        self.write_files(wanted, plan)?;
        self.host.disable(&units(&plan.disable)).await?;
        self.host.enable(&units(&plan.enable)).await?;
        self.all_done(Verb::Stop, &plan.stop).await?;
        for name in plan.disable.iter().chain(&plan.stop) {
            if !wanted.timers.contains_key(name) {
                files::remove(self.host, &self.paths.stamp(name))?;
            }
        }
        if must_reload {
            self.host.reload().await?;
        }
        for name in &plan.stamp {
            self.stamp(name)?;
        }
        self.start(plan, observed).await?;
        self.all_done(Verb::Restart, &plan.restart).await?;
        self.check(wanted, plan, observed).await
    }

    fn write_files(&self, wanted: &Wanted, plan: &Plan) -> Result<(), ApplyError> {
        let directory = self.paths.units();
        let texts = plan.write.iter().map(|(path, body)| {
            let text = file_text(body, wanted.generation);
            (directory.join(path), text.into_bytes())
        });
        files::replace_all(self.host, &texts.collect::<Vec<_>>(), 0o644)?;
        for path in &plan.delete {
            let file = directory.join(path);
            files::remove(self.host, &file)?;
            if let Some(parent) = file.parent() {
                // An administrator's own drop-in may be in it; then it stays.
                drop(fs::remove_dir(parent));
            }
        }
        if plan.changes_files() {
            files::sync(&directory)?;
        }
        Ok(())
    }

    /// Makes a timer count from now: systemd takes the time of this file for the last elapse.
    fn stamp(&self, name: &ScheduleName) -> Result<(), ApplyError> {
        let path = self.paths.stamp(name);
        self.host.step(&format!("stamp {}", path.display()))?;
        let parent = path.parent().unwrap_or(Path::new("/"));
        fs::create_dir_all(parent).map_err(ApplyError::file("make", parent))?;
        let micros = u64::try_from(self.host.now().micros()).unwrap_or(0);
        let now = std::time::UNIX_EPOCH + std::time::Duration::from_micros(micros);
        fs::OpenOptions::new()
            .append(true)
            .create(true)
            .open(&path)
            .and_then(|file| file.set_modified(now))
            .map_err(ApplyError::file("stamp", &path))
    }

    async fn start(&self, plan: &Plan, observed: &Observed) -> Result<(), ApplyError> {
        // The target would also start what an administrator stopped.
        let held = plan.held.iter().any(|drift| {
            matches!(
                drift.kind,
                protocol::control::DriftKind::Stopped | protocol::control::DriftKind::Disabled
            )
        });
        let mut rest = plan.start.clone();
        if rest.len() >= START_BY_TARGET_FROM && !held {
            let failed = self.host.change(Verb::Start, &[TARGET.to_owned()]).await?;
            if let Some((_, why)) = failed.into_iter().next() {
                return Err(systemd(format!("start {TARGET}"), why));
            }
            let timers = self.host.timers().await?;
            rest.retain(|name| timers.get(name).is_none_or(|s| s.active != "active"));
        }
        tracing::debug!(
            known = observed.units.len(),
            one_by_one = rest.len(),
            "start timers"
        );
        self.all_done(Verb::Start, &rest).await
    }

    async fn all_done(&self, verb: Verb, names: &BTreeSet<ScheduleName>) -> Result<(), ApplyError> {
        if names.is_empty() {
            return Ok(());
        }
        let failed = self.host.change(verb, &units(names)).await?;
        match failed.into_iter().next() {
            None => Ok(()),
            Some((unit, why)) => Err(systemd(format!("{verb:?} {unit}").to_lowercase(), why)),
        }
    }

    /// Reads back every timer that was touched: only a next elapse that our own computation
    /// explains counts.
    async fn check(
        &self,
        wanted: &Wanted,
        plan: &Plan,
        observed: &Observed,
    ) -> Result<(), ApplyError> {
        let touched: BTreeSet<&ScheduleName> = plan.start.iter().chain(&plan.restart).collect();
        if touched.is_empty() {
            return Ok(());
        }
        let states = self.host.timers().await?;
        let mut waiting = Vec::new();
        for name in touched {
            let Some(wish) = wanted.timers.get(name) else {
                continue;
            };
            let state = states.get(name).cloned().unwrap_or_default();
            match state.sub.as_str() {
                // Its job runs at this moment: it will wait again when the job has ended.
                "running" => {}
                "waiting" => waiting.push((name, wish)),
                _ => {
                    return Err(ApplyError::NotArmed {
                        unit: timer_unit(name),
                        detail: format!("its state is {} {}", state.active, state.sub),
                    });
                }
            }
        }
        let names: Vec<&ScheduleName> = waiting.iter().map(|(name, _)| *name).collect();
        let elapses = self.host.elapses(&names).await?;
        for ((name, wish), elapses) in waiting.into_iter().zip(elapses) {
            self.seen.borrow_mut().insert(name.clone(), elapses);
            let unit = timer_unit(name);
            // An administrator's own calendar beside ours is theirs to explain.
            let wish = (!observed.is_overridden(&unit)).then_some(wish);
            self.explain(unit, wish, elapses)?;
        }
        Ok(())
    }

    /// Refuses a next elapse that is missing or that the wish does not explain.
    fn explain(
        &self,
        unit: String,
        wish: Option<&TimerWish>,
        elapses: Elapses,
    ) -> Result<(), ApplyError> {
        let detail = match (elapses.next, wish) {
            (None, _) => "systemd has no next elapse for it".to_owned(),
            (Some(next), Some(wish)) if !wish.explains(next, self.host.now()) => format!(
                "systemd would elapse at {next}, which {} with a delay of up to {}s does not explain",
                wish.on_calendar.join(", "),
                wish.spread_secs
            ),
            _ => return Ok(()),
        };
        Err(ApplyError::NotArmed { unit, detail })
    }

    /// Goes back to the former units with the same steps.
    async fn undo(&self, error: ApplyError, former: &Wanted, decision: &Decision) -> ApplyError {
        self.seen.borrow_mut().clear();
        let undone = async {
            let observed = self.observe().await?;
            let unfinished = self.intent()?;
            let back = plan(former, &self.applied()?, &observed, unfinished.as_ref());
            self.switch(former, &back, &observed, unfinished).await?;
            if let Some(candidate) = &decision.accepted {
                let refused = candidate.refuse("apply_failed", error.chain(), self.host.now());
                generations::refuse(self.host, self.paths, &refused)?;
                generations::clear_inbox(self.host, self.paths)?;
            }
            files::remove(self.host, &self.intent_path())
        };
        match undone.await {
            Ok(()) => ApplyError::RolledBack(Box::new(error)),
            Err(undo) => ApplyError::Stuck {
                source: Box::new(error),
                undo: undo.chain(),
            },
        }
    }

    /// Writes down what is in force now. The inbox is emptied last: until then a cut apply finds
    /// the same generation again.
    fn finish(
        &self,
        applied: &Applied,
        before: &Applied,
        decision: &Decision,
    ) -> Result<(), ApplyError> {
        if let Some(candidate) = &decision.accepted {
            generations::store(self.host, self.paths, candidate)?;
        }
        if applied != before {
            files::write_json(self.host, &self.applied_path(), applied)?;
        }
        if self.intent_path().exists() {
            files::remove(self.host, &self.intent_path())?;
        }
        if let Some(refused) = &decision.refused {
            generations::refuse(self.host, self.paths, refused)?;
        } else if decision.accepted.is_some() {
            generations::forgive(self.host, self.paths)?;
        }
        if decision.refused.is_some() || decision.accepted.is_some() {
            generations::clear_inbox(self.host, self.paths)?;
        }
        Ok(())
    }

    /// Gives what is in force after a plan was done. What an administrator kept from us is not.
    fn in_force(
        &self,
        wanted: &Wanted,
        before: &Applied,
        observed: &Observed,
        plan: &Plan,
    ) -> Applied {
        let is_ours = |path: &String| {
            let text = observed.files.get(path);
            plan.write.contains_key(path)
                || text.is_some_and(|t| file_state(t) != FileState::Foreign)
        };
        let files = wanted.files.iter().filter(|(path, _)| is_ours(path));
        let is_armed = |name: &&ScheduleName| {
            before.timers.contains(*name)
                || plan.enable.contains(*name)
                || plan.start.contains(*name)
        };
        Applied {
            generation: wanted.generation,
            files: files
                .map(|(path, body)| (path.clone(), body_hash(body)))
                .collect(),
            timers: wanted.timers.keys().filter(is_armed).cloned().collect(),
            schedules: wanted.schedules.clone(),
        }
    }

    fn intent(&self) -> Result<Option<Intent>, ApplyError> {
        match files::read_json(&self.intent_path()) {
            Err(ApplyError::Damaged { .. }) => Ok(Some(Intent::default())),
            other => other,
        }
    }

    fn applied_path(&self) -> std::path::PathBuf {
        self.paths.generations().join("applied.json")
    }

    fn intent_path(&self) -> std::path::PathBuf {
        self.paths.generations().join("intent.json")
    }
}

/// Rebuilds what was wanted before from the files that are there.
fn former(applied: &Applied, observed: &Observed) -> Wanted {
    let mut wanted = Wanted {
        generation: applied.generation,
        schedules: applied.schedules.clone(),
        ..Wanted::default()
    };
    for path in applied.files.keys() {
        let Some(FileState::Intact(body)) = observed.files.get(path).map(|t| file_state(t)) else {
            continue;
        };
        wanted.files.insert(path.clone(), body.to_owned());
    }
    for name in &applied.timers {
        let body = wanted.files.get(&drop_in(&timer_unit(name)));
        if let Some(wish) = body.and_then(|body| TimerWish::read(body)) {
            wanted.timers.insert(name.clone(), wish);
        }
    }
    wanted
}

fn units(names: &BTreeSet<ScheduleName>) -> Vec<String> {
    names.iter().map(timer_unit).collect()
}

fn systemd(doing: String, detail: String) -> ApplyError {
    ApplyError::Systemd { doing, detail }
}
