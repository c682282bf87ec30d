//! Whatever becomes of stored objects, no wrong byte is given out, the check says so, and all that
//! is not affected comes back.
//!
//! `BACKSTAY_CORRUPTIONS` says how often to try, `BACKSTAY_SEED` from which seed.

#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]
#![expect(clippy::indexing_slicing, reason = "a test ends at the first surprise")]
#![expect(clippy::panic, reason = "a test ends at the first surprise")]

mod common;
#[path = "corruption/damage.rs"]
mod damage;
#[path = "corruption/life.rs"]
mod life;
#[path = "corruption/rich.rs"]
mod rich;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use common::dice::{Dice, Plan};
use damage::{CHANGES, Change, KINDS, kind_of};
use edge::{Clock, ObjectName, Silent, TreePath};
use model::SnapshotId;
use repository::{
    CheckDepth, CheckReport, Domain, PruneOptions, Repack, RepositoryError, StreamError, Unlock,
    View,
};
use rich::{Objects, Rich};
use testkit::{Collected, CollectingTarget, MemoryStore};

const USUAL: u64 = 585;
/// What the whole test may take of memory: an absurd length would be seen here.
const RESIDENT_KIB_MAX: u64 = 600 * 1024;
/// Damage and what a run or a prune makes of it is tried once in so many times.
const GO_ON_EVERY: u64 = 20;

#[test]
fn no_corruption_is_silent_or_gives_out_a_wrong_byte() {
    let plan = Plan::from_environment("BACKSTAY_CORRUPTIONS", USUAL);
    let rich = Rich::new();
    println!("{plan:?}, {}", rich.describe());
    let mut tally = Tally::default();
    for case in 0..plan.count {
        try_one(&rich, plan, case, &mut tally);
    }
    println!("{tally:?}");
    for kind in KINDS {
        assert!(
            tally.tried.get(kind).copied().unwrap_or(0) > 0,
            "no {kind} was damaged"
        );
    }
    assert!(tally.detected > 0 && tally.harmless > 0);
    let peak = resident_kib();
    println!("{} MiB at most", peak / 1024);
    assert!(peak < RESIDENT_KIB_MAX, "{peak} KiB");
}

#[derive(Debug, Default)]
struct Tally {
    tried: BTreeMap<&'static str, u64>,
    detected: u64,
    harmless: u64,
    files_lost: u64,
    files_restored: u64,
}

fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmHWM:"))
        .unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// What is wrong, as far as opening and checking tell.
struct Found {
    view: View,
    report: CheckReport,
    listed: Vec<repository::Snapshot>,
}

fn try_one(rich: &Rich, plan: Plan, case: u64, tally: &mut Tally) {
    let mut dice = Dice::new(plan.seed, case);
    let clock = &rich.world.clock;
    clock.advance_secs(rich.at.secs() - clock.now().secs());
    let kind = KINDS[usize::try_from(case).unwrap() % KINDS.len()];
    let change = CHANGES[usize::try_from(case).unwrap() / KINDS.len() % CHANGES.len()];
    let mut objects = rich.objects.clone();
    let mut done = vec![damage::apply(rich, &mut objects, (kind, change), &mut dice)];
    while dice.once_in(10) {
        let more = (*dice.pick(KINDS), *dice.pick(CHANGES));
        done.push(damage::apply(rich, &mut objects, more, &mut dice));
    }
    *tally.tried.entry(kind).or_default() += 1;
    let changes: Vec<_> = done.iter().map(ToString::to_string).collect();
    let changes = changes.join(", ");
    let told = format!("BACKSTAY_SEED={} case {case}: {changes}", plan.seed);
    let store = Arc::new(MemoryStore::default());
    store.set_objects(objects.clone());
    let judge = Judge {
        rich,
        objects: &objects,
        told: &told,
    };
    judge.other_keys(
        &store,
        done.iter().any(|one| one.touches("slot")) && dice.once_in(8),
    );
    let Some(found) = judge.open(&store) else {
        tally.detected += 1;
        return;
    };
    let files = judge.compare(&found);
    judge.damage_is_named(&found, &done);
    judge.nothing_vanishes(&found);
    tally.files_restored += files.0;
    tally.files_lost += files.1;
    if found.report.is_sound() {
        tally.harmless += 1;
    } else {
        tally.detected += 1;
    }
    if case.is_multiple_of(GO_ON_EVERY) {
        judge.going_on_loses_nothing(&store, &mut dice);
        if done.iter().all(Change::is_short_lived) {
            judge.work_goes_on(&store);
        }
    }
}

struct Judge<'a> {
    rich: &'a Rich,
    objects: &'a Objects,
    told: &'a str,
}

impl Judge<'_> {
    /// The other slots open the domain, or say that they do not. Passwords are slow by purpose.
    fn other_keys(&self, store: &Arc<MemoryStore>, also_password: bool) {
        let keys = &self.rich.keys;
        let mut unlocks = vec![Unlock::Key(&keys.second), Unlock::Key(&keys.adder)];
        if also_password && self.is_password_usual() {
            unlocks.push(Unlock::Password(&keys.password));
        }
        for unlock in &unlocks {
            match Domain::open_with(store.clone(), unlock) {
                Ok(domain) => assert_eq!(domain.id(), self.rich.domain, "{}", self.told),
                Err(error) => self.is_fair(&error),
            }
        }
    }

    /// True while no slot asks for more memory and time than slots did before.
    fn is_password_usual(&self) -> bool {
        let slots = |objects: &Objects| -> BTreeSet<Vec<u8>> {
            let slots = objects.iter();
            let slots = slots.filter(|(name, _)| kind_of(name.as_str()) == "slot");
            slots
                .filter_map(|(_, bytes)| Some(bytes.get(12..24)?.to_vec()))
                .collect()
        };
        slots(self.objects).is_subset(&slots(&self.rich.objects))
    }

    fn is_fair(&self, error: &RepositoryError) {
        let is_known = matches!(
            error,
            RepositoryError::Damaged { .. }
                | RepositoryError::WrongKey { .. }
                | RepositoryError::WrongPassword { .. }
                | RepositoryError::KeyGone { .. }
                | RepositoryError::Newer { .. }
                | RepositoryError::NoRepository { .. }
                | RepositoryError::Version { .. }
                | RepositoryError::Store(_)
        );
        assert!(is_known, "{}: {error:?}", self.told);
        assert!(self.gate_is_damaged(), "{}: {error:?}", self.told);
    }

    /// True when what must be read before anything else is not what it was.
    fn gate_is_damaged(&self) -> bool {
        let is_gate = |name: &&ObjectName| matches!(kind_of(name.as_str()), "repository" | "slot");
        let changed = |name: &ObjectName| self.objects.get(name) != self.rich.objects.get(name);
        self.rich.objects.keys().filter(is_gate).any(changed)
            || self.objects.keys().filter(is_gate).any(changed)
    }

    fn open(&self, store: &Arc<MemoryStore>) -> Option<Found> {
        let domain = Domain::open(store.clone(), &self.rich.world.key)
            .map_err(|error| self.is_fair(&error))
            .ok()?;
        assert_eq!(domain.id(), self.rich.domain, "{}", self.told);
        let view = View::open(domain).unwrap_or_else(|error| panic!("{}: {error:?}", self.told));
        let look = |depth| {
            let report = view.check(depth, &Silent);
            report.unwrap_or_else(|error| panic!("{}: {error:?}", self.told))
        };
        let report = look(CheckDepth::Data);
        let structure = look(CheckDepth::Structure);
        assert!(structure.is_sound() || !report.is_sound(), "{}", self.told);
        let list = view.domain().snapshots().unwrap();
        assert!(
            list.unreadable.is_empty() || !report.is_sound(),
            "{}",
            self.told
        );
        Some(Found {
            listed: list.snapshots,
            view,
            report,
        })
    }

    /// All that is given out is what was backed up; what is not given out was named by the check.
    fn compare(&self, found: &Found) -> (u64, u64) {
        let mut files = (0, 0);
        for snapshot in &found.listed {
            let known = self.rich.known.get(&snapshot.id);
            let known = known.unwrap_or_else(|| panic!("{}: an unknown snapshot", self.told));
            let mut target = CollectingTarget::default();
            let roots = [TreePath::root()];
            let report = found
                .view
                .restore(snapshot, &roots, &mut target, &Silent)
                .unwrap();
            let collected = target.collected();
            self.is_part_of(&collected, known, "restored");
            let affected: BTreeSet<&str> = found
                .report
                .affected_files
                .iter()
                .filter(|file| file.snapshot == snapshot.id)
                .map(|file| file.path.as_str())
                .collect();
            let has_lost_pages = affected.iter().any(|path| path.starts_with("entries from"));
            for failure in &report.failures {
                let is_named = has_lost_pages || affected.contains(failure.object.as_str());
                assert!(is_named, "{}: {failure:?} but {affected:?}", self.told);
            }
            for path in known.keys().filter(|path| !collected.contains_key(path)) {
                let is_named = has_lost_pages || affected.contains(path.to_string().as_str());
                assert!(is_named, "{}: {path} is absent", self.told);
            }
            self.stream(found, snapshot, known);
            self.browse(found, snapshot, known);
            files.0 += collected.len() as u64;
            files.1 += (known.len() - collected.len()) as u64;
        }
        files
    }

    fn is_part_of(
        &self,
        given: &BTreeMap<TreePath, Collected>,
        known: &BTreeMap<TreePath, Collected>,
        how: &str,
    ) {
        for (path, file) in given {
            let is_right = known.get(path).is_some_and(|right| {
                file.entry == right.entry
                    && file.bytes == right.bytes
                    && file.extents == right.extents
            });
            assert!(is_right, "{}: {path} is {how} wrongly", self.told);
        }
    }

    fn stream(
        &self,
        found: &Found,
        snapshot: &repository::Snapshot,
        known: &BTreeMap<TreePath, Collected>,
    ) {
        let at = (snapshot, &TreePath::root());
        let done = found.view.stream(at, &Silent, &mut |entry, content| {
            let right = &known[&entry.path];
            assert_eq!(*entry, right.entry, "{}", self.told);
            if let Some(content) = content {
                let mut bytes = Vec::new();
                let read = std::io::Read::read_to_end(content, &mut bytes);
                let is_right = right.bytes.starts_with(&bytes)
                    && (read.is_err() || bytes.len() == right.bytes.len());
                assert!(
                    is_right,
                    "{}: {} is streamed wrongly",
                    self.told, entry.path
                );
                read?;
            }
            Ok(())
        });
        match done {
            Ok(report) => assert!(
                report.failed == 0 || !found.report.is_sound(),
                "{}",
                self.told
            ),
            Err(StreamError::Absent { .. }) => panic!("{}: the root is absent", self.told),
            Err(_) => assert!(!found.report.is_sound(), "{}", self.told),
        }
    }

    fn browse(
        &self,
        found: &Found,
        snapshot: &repository::Snapshot,
        known: &BTreeMap<TreePath, Collected>,
    ) {
        let walked = found.view.walk(snapshot, &TreePath::root(), &mut |entry| {
            assert_eq!(entry, known[&entry.path].entry, "{}", self.told);
        });
        let listed = found.view.list(snapshot, &common::path("server"));
        assert!(walked.is_ok() || !found.report.is_sound(), "{}", self.told);
        for entry in listed.unwrap_or_default() {
            assert_eq!(entry, known[&entry.path].entry, "{}", self.told);
        }
    }

    /// What is stored under a name and is not what the name says is named by the check.
    fn damage_is_named(&self, found: &Found, done: &[Change]) {
        let named: BTreeSet<&str> = found
            .report
            .damage
            .iter()
            .map(|d| d.object.as_str())
            .collect();
        let is_one_change = matches!(done, [one] if one.names.len() == 1);
        for (name, bytes) in self.rich.live() {
            let is_there = self.objects.get(name);
            let is_changed = is_there.is_some_and(|now| now != bytes);
            let is_missing = is_there.is_none()
                && matches!(kind_of(name.as_str()), "data pack" | "metadata pack");
            // Without a segment its packs are unknown, and of several damaged ones the first is named.
            let touched = done.iter().any(|change| change.touches("index segment"));
            if touched && !(is_one_change && kind_of(name.as_str()) == "index segment") {
                continue;
            }
            // A pack that is gone is named if anything is lost with it.
            if is_changed || (is_missing && !found.report.is_sound()) {
                assert!(
                    named.contains(name.as_str()),
                    "{}: {name} is not named: {named:?}",
                    self.told
                );
            }
        }
    }

    /// A snapshot is listed, or named as damaged, or its object is gone: then it was let go for
    /// all that anyone can tell.
    fn nothing_vanishes(&self, found: &Found) {
        for id in &self.rich.listed {
            let is_listed = found.listed.iter().any(|snapshot| snapshot.id == *id);
            let mut names = self.rich.names[id].iter();
            let has_object = names.any(|name| self.objects.contains_key(name));
            assert!(
                is_listed || !has_object || !found.report.is_sound(),
                "{}: {id}",
                self.told
            );
        }
    }

    /// Neither the next run nor a prune makes a loss greater, whether they succeed or refuse.
    fn going_on_loses_nothing(&self, store: &Arc<MemoryStore>, dice: &mut Dice) {
        let prunes_first = dice.once_in(2);
        let before = self.restorable(store);
        for step in 0..4 {
            if (step % 2 == 0) == prunes_first {
                // With what is left of a session that was cut, or when it is waited for no more.
                let secs = *dice.pick(&[2 * i64::from(common::GRACE_SECS), common::LEASE_SECS + 1]);
                self.rich.world.clock.advance_secs(secs);
                let trash_secs = *dice.pick(&[0, 100_000_000]);
                drop(self.prune(store, trash_secs, dice.once_in(3)));
            } else {
                self.rich.world.run_one(store, &self.rich.source, &Silent);
            }
            let after = self.restorable(store);
            // What was brought back from the past may have lost its packs rightly.
            for (id, files) in before
                .iter()
                .filter(|(id, _)| self.rich.listed.contains(id))
            {
                let lost: Vec<_> = match after.get(id) {
                    Some(now) => files.difference(now).collect(),
                    None => files.iter().collect(),
                };
                assert!(
                    lost.is_empty(),
                    "{}: step {step} (prunes first: {prunes_first}) loses {lost:?} of {id}",
                    self.told
                );
            }
        }
    }

    fn prune(
        &self,
        store: &Arc<MemoryStore>,
        trash_secs: u32,
        reseals: bool,
    ) -> Result<(), RepositoryError> {
        let domain = Domain::open(store.clone(), &self.rich.world.key)?;
        let options = PruneOptions {
            trash_secs,
            ..life::options(&self.rich.world, Some(Repack::default()))
        };
        if reseals {
            domain.reseal(&options).map(drop)
        } else {
            domain.prune(&options).map(drop)
        }
    }

    /// Damage of what is short-lived keeps nobody from work, once a person took away what only they
    /// may; and it does not stay.
    fn work_goes_on(&self, store: &Arc<MemoryStore>) {
        let domain = Domain::open(store.clone(), &self.rich.world.key).unwrap();
        for find in [Domain::damaged_snapshots, Domain::damaged_pins] {
            domain.delete_wrecks(&find(&domain).unwrap()).unwrap();
        }
        for _ in 0..2 {
            self.rich.world.clock.advance_secs(common::LEASE_SECS + 1);
            let pruned = self.prune(store, 100_000_000, false);
            assert!(pruned.is_ok(), "{}: {pruned:?}", self.told);
            self.rich.world.run_well(store, &self.rich.source);
        }
        let found = self.open(store).unwrap();
        assert!(found.report.is_sound(), "{}: {:?}", self.told, found.report);
    }

    fn restorable(&self, store: &Arc<MemoryStore>) -> BTreeMap<SnapshotId, BTreeSet<TreePath>> {
        let Ok(view) = Domain::open(store.clone(), &self.rich.world.key).and_then(View::open)
        else {
            return BTreeMap::new();
        };
        let mut all = BTreeMap::new();
        for snapshot in view.domain().snapshots().unwrap().snapshots {
            let mut target = CollectingTarget::default();
            let roots = [TreePath::root()];
            view.restore(&snapshot, &roots, &mut target, &Silent)
                .unwrap();
            let collected = target.collected();
            if let Some(known) = self.rich.known.get(&snapshot.id) {
                self.is_part_of(&collected, known, "restored later");
            }
            all.insert(snapshot.id, collected.into_keys().collect());
        }
        all
    }
}
