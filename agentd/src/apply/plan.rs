//! What has to change: a pure function of what is wanted, what was applied and what is there.

use std::collections::{BTreeMap, BTreeSet};

use model::ScheduleName;
use protocol::control::{Drift, DriftKind};
use settings::units::{FileState, Wanted, body_hash, drop_in, file_state, schedule_of, timer_unit};

use super::observe::{Applied, Intent, Observed};

/// Every change that leads from what is there to what is wanted.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Plan {
    pub(crate) created: BTreeSet<ScheduleName>,
    pub(crate) changed: BTreeSet<ScheduleName>,
    pub(crate) removed: BTreeSet<ScheduleName>,
    pub(crate) unchanged: u64,
    /// Bodies by path.
    pub(crate) write: BTreeMap<String, String>,
    pub(crate) delete: BTreeSet<String>,
    pub(crate) enable: BTreeSet<ScheduleName>,
    pub(crate) disable: BTreeSet<ScheduleName>,
    /// Timers that must not look at a changed calendar while they run.
    pub(crate) stop: BTreeSet<ScheduleName>,
    /// Timers that begin to count now, so that a changed calendar does not fire at once.
    pub(crate) stamp: BTreeSet<ScheduleName>,
    pub(crate) start: BTreeSet<ScheduleName>,
    pub(crate) restart: BTreeSet<ScheduleName>,
    /// Differences that this plan puts right.
    pub(crate) repaired: Vec<Drift>,
    /// Differences that an administrator wants so.
    pub(crate) held: Vec<Drift>,
    /// For people.
    pub(crate) diff: Vec<String>,
}

impl Plan {
    /// True when nothing has to be done.
    pub(crate) fn is_empty(&self) -> bool {
        self.write.is_empty()
            && self.delete.is_empty()
            && self.enable.is_empty()
            && self.disable.is_empty()
            && self.stop.is_empty()
            && self.start.is_empty()
            && self.restart.is_empty()
    }

    /// True when files of units change, which systemd must read again.
    pub(crate) fn changes_files(&self) -> bool {
        !self.write.is_empty() || !self.delete.is_empty()
    }
}

/// Makes the plan. `unfinished` is what an earlier apply was about when it was cut: what differs
/// is its doing.
pub(crate) fn plan(
    wanted: &Wanted,
    applied: &Applied,
    observed: &Observed,
    unfinished: Option<&Intent>,
) -> Plan {
    let mut planner = Planner {
        wanted,
        applied,
        observed,
        unfinished,
        plan: Plan::default(),
    };
    for (path, body) in &wanted.files {
        planner.wanted_file(path, body);
    }
    for (path, text) in &observed.files {
        if !wanted.files.contains_key(path) {
            planner.other_file(path, text);
        }
    }
    for name in wanted.timers.keys() {
        planner.wanted_timer(name);
    }
    for name in applied.timers.iter().chain(&observed.linked) {
        if !wanted.timers.contains_key(name) {
            planner.other_timer(name);
        }
    }
    planner.foreign();
    planner.count();
    planner.plan
}

struct Planner<'a> {
    wanted: &'a Wanted,
    applied: &'a Applied,
    observed: &'a Observed,
    unfinished: Option<&'a Intent>,
    plan: Plan,
}

impl Planner<'_> {
    fn wanted_file(&mut self, path: &str, body: &str) {
        let unit = unit_of(path);
        let known = self.applied.files.get(path);
        let untouched =
            known.is_some_and(|hash| *hash == body_hash(body)) && self.unfinished.is_none();
        let kind = match self.observed.files.get(path).map(|text| file_state(text)) {
            Some(FileState::Intact(there)) if there == body => return,
            // A whole file of ours that is older or newer than what was applied was put there.
            Some(FileState::Intact(_) | FileState::Edited(_)) => DriftKind::Edited,
            Some(FileState::Foreign) if known.is_none() => {
                self.hold(
                    &unit,
                    DriftKind::Overridden,
                    Some(path),
                    "the place of our drop-in holds a file that is not ours; rename it".to_owned(),
                );
                return;
            }
            Some(FileState::Foreign) => DriftKind::Edited,
            None => DriftKind::Deleted,
        };
        if untouched {
            let detail = match kind {
                DriftKind::Deleted => "our drop-in was deleted; it is written again",
                _ => "our drop-in was edited; it is written again",
            };
            self.repair(&unit, kind, Some(path), detail.to_owned());
        }
        let before = self.observed.files.get(path).map(|text| body_of(text));
        self.tell(&unit, before, Some(body));
        self.plan.write.insert(path.to_owned(), body.to_owned());
    }

    /// Looks at a file in one of our places that nothing wants any more.
    fn other_file(&mut self, path: &str, text: &str) {
        let unit = unit_of(path);
        if matches!(file_state(text), FileState::Foreign) {
            let detail = "a drop-in with the name of ours is not ours; it is left".to_owned();
            self.hold(&unit, DriftKind::Overridden, Some(path), detail);
            return;
        }
        if !self.applied.files.contains_key(path) && self.unfinished.is_none() {
            let detail = "a drop-in of ours is left of an earlier schedule; it is removed";
            self.repair(&unit, DriftKind::Leftover, Some(path), detail.to_owned());
        }
        self.tell(&unit, Some(body_of(text)), None);
        self.plan.delete.insert(path.to_owned());
    }

    fn wanted_timer(&mut self, name: &ScheduleName) {
        let unit = timer_unit(name);
        let path = drop_in(&unit);
        if let Some(by) = self.observed.masked.get(name) {
            let by = by.display().to_string();
            self.hold(
                &unit,
                DriftKind::Masked,
                Some(&by),
                format!("masked by {by}"),
            );
            return;
        }
        let is_foreign = self
            .observed
            .files
            .get(&path)
            .is_some_and(|text| file_state(text) == FileState::Foreign);
        if is_foreign && !self.plan.write.contains_key(&path) {
            return;
        }
        let state = self.observed.units.get(name);
        let active = state.is_some_and(|s| s.active == "active");
        let linked = self.observed.linked.contains(name);
        let is_new = !self.applied.timers.contains(name);
        let hash = self.wanted.files.get(&path).map(|body| body_hash(body));
        let changed = self.applied.files.get(&path) != hash.as_ref();
        let disabled_by_us = self.unfinished.is_some_and(|i| i.disabled.contains(name));
        if is_new || (!linked && disabled_by_us) {
            if !linked {
                self.plan.enable.insert(name.clone());
            }
            self.begin_anew(name, active);
            return;
        }
        if !linked {
            let detail = "disabled; `systemctl enable --now` arms it again".to_owned();
            self.hold(&unit, DriftKind::Disabled, None, detail);
            return;
        }
        let stopped_by_us = self.unfinished.is_some_and(|i| i.stopped.contains(name));
        if changed {
            // A failed one too: its new calendar must not count from the last elapse either.
            let failed = state.is_some_and(|s| s.active == "failed");
            if active || stopped_by_us || failed {
                self.begin_anew(name, active);
            } else {
                self.stopped_or_failed(name, &unit);
            }
            return;
        }
        if !active {
            self.stopped_or_failed(name, &unit);
        } else if state.is_some_and(|s| s.sub == "elapsed") {
            // A reload while the file was missing or wrong does this, and nothing undoes it.
            let detail = "systemd had disarmed it; it is armed again".to_owned();
            self.repair(&unit, DriftKind::Disarmed, None, detail);
            self.plan.restart.insert(name.clone());
        } else if self.plan.write.contains_key(&path) {
            self.plan.restart.insert(name.clone());
        }
    }

    fn begin_anew(&mut self, name: &ScheduleName, active: bool) {
        if active {
            self.plan.stop.insert(name.clone());
        }
        self.plan.stamp.insert(name.clone());
        self.plan.start.insert(name.clone());
    }

    fn stopped_or_failed(&mut self, name: &ScheduleName, unit: &str) {
        let state = self.observed.units.get(name);
        if state.is_some_and(|s| s.active == "failed") {
            let detail = "the timer had failed; it is started again".to_owned();
            self.repair(unit, DriftKind::Failed, None, detail);
            self.plan.restart.insert(name.clone());
        } else if self.unfinished.is_some_and(|i| i.stopped.contains(name)) {
            self.plan.start.insert(name.clone());
        } else {
            let detail = "stopped; `systemctl start` or a reboot arms it again".to_owned();
            self.hold(unit, DriftKind::Stopped, None, detail);
        }
    }

    /// Disarms a timer that nothing wants any more. A link without a trace of ours is not ours.
    fn other_timer(&mut self, name: &ScheduleName) {
        let path = drop_in(&timer_unit(name));
        if !self.applied.timers.contains(name) && !self.plan.delete.contains(&path) {
            return;
        }
        if self.observed.linked.contains(name) {
            self.plan.disable.insert(name.clone());
        }
        let loaded = self.observed.units.get(name);
        if loaded.is_some_and(|state| state.active != "inactive") {
            self.plan.stop.insert(name.clone());
        }
    }

    fn foreign(&mut self) {
        for (unit, path) in &self.observed.foreign {
            // A drop-in for a template concerns every schedule.
            let of = schedule_of(&drop_in(unit));
            if of.is_none_or(|name| self.wanted.schedules.contains(&name)) {
                let path = path.display().to_string();
                let detail = format!("an administrator's file takes part: {path}");
                self.hold(unit, DriftKind::Overridden, Some(&path), detail);
            }
        }
    }

    /// Sorts schedules into created, changed, removed and unchanged.
    fn count(&mut self) {
        let before = |name: &ScheduleName| self.applied.schedules.contains(name);
        let touched: BTreeSet<ScheduleName> = self
            .differing()
            .into_iter()
            .filter_map(|path| schedule_of(&path))
            .chain(self.timer_differences())
            .collect();
        for name in &self.wanted.schedules {
            if !before(name) {
                self.plan.created.insert(name.clone());
            } else if touched.contains(name) {
                self.plan.changed.insert(name.clone());
            } else {
                self.plan.unchanged += 1;
            }
        }
        let gone = self.applied.schedules.difference(&self.wanted.schedules);
        self.plan.removed = gone.cloned().collect();
    }

    /// Gives the paths whose wanted body is not the one that was applied.
    fn differing(&self) -> Vec<String> {
        let wanted = &self.wanted.files;
        let new = wanted
            .iter()
            .filter(|(path, body)| self.applied.files.get(*path) != Some(&body_hash(body)));
        let gone = self
            .applied
            .files
            .keys()
            .filter(|path| !wanted.contains_key(*path));
        new.map(|(path, _)| path.clone())
            .chain(gone.cloned())
            .collect()
    }

    fn timer_differences(&self) -> Vec<ScheduleName> {
        let wanted: BTreeSet<ScheduleName> = self.wanted.timers.keys().cloned().collect();
        wanted
            .symmetric_difference(&self.applied.timers)
            .cloned()
            .collect()
    }

    fn repair(&mut self, unit: &str, kind: DriftKind, path: Option<&str>, detail: String) {
        self.plan.repaired.push(drift(unit, kind, path, detail));
    }

    fn hold(&mut self, unit: &str, kind: DriftKind, path: Option<&str>, detail: String) {
        self.plan.held.push(drift(unit, kind, path, detail));
    }

    /// Writes a difference for people.
    fn tell(&mut self, unit: &str, before: Option<&str>, after: Option<&str>) {
        let sign = match (before, after) {
            (None, _) => '+',
            (_, None) => '-',
            _ => '~',
        };
        self.plan.diff.push(format!("{sign} {unit}"));
        let lines = |text: Option<&str>| -> Vec<String> {
            let lines = text.unwrap_or_default().lines();
            lines
                .filter(|line| line.contains('='))
                .map(str::to_owned)
                .collect()
        };
        let (old, new) = (lines(before), lines(after));
        for line in old.iter().filter(|line| !new.contains(line)) {
            self.plan.diff.push(format!("  - {line}"));
        }
        for line in new.iter().filter(|line| !old.contains(line)) {
            self.plan.diff.push(format!("  + {line}"));
        }
    }
}

fn drift(unit: &str, kind: DriftKind, path: Option<&str>, detail: String) -> Drift {
    Drift {
        unit: unit.to_owned(),
        kind,
        path: path.map(absolute),
        detail,
    }
}

/// Gives the whole path of one of our files; others come whole already.
fn absolute(path: &str) -> String {
    if path.starts_with('/') {
        path.to_owned()
    } else {
        format!("/etc/systemd/system/{path}")
    }
}

fn unit_of(path: &str) -> String {
    settings::units::unit_of(path).unwrap_or(path).to_owned()
}

fn body_of(text: &str) -> &str {
    match file_state(text) {
        FileState::Intact(body) | FileState::Edited(body) => body,
        FileState::Foreign => text,
    }
}
