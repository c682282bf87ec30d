//! Two writers and a deletion of the real engine at one domain, taking turns request by request
//! (`docs/decisions/0003-deletion-beside-writers.md`). `tests/deletion_model` explores the rules; this tries the
//! program that follows them. `BACKSTAY_INTERLEAVINGS` says how many orders each test draws beyond
//! those that it tries in any case.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test ends at the first surprise"
)]
#![expect(clippy::print_stdout, reason = "it tells what was tried")]

mod common;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use common::dice::{self, Dice};
use common::turns::{ALL, Plan, Program, Turn, later, take_turns, turn};
use common::{GRACE_SECS, LEASE_SECS, World, noise, path};
use edge::{ObjectName, ObjectStore, Silent};
use model::{DestinationName, SnapshotId};
use repository::{
    BackupOptions, CheckDepth, Damage, Domain, PruneOptions, Repack, Replica, RepositoryError,
    back_up,
};
use testkit::{Fault, FaultyStore, MemoryStore, TreeSource};

/// The programs.
const FIRST: usize = 0;
const SECOND: usize = 1;
const PRUNE: usize = 2;
const SECOND_PRUNE: usize = 3;
const HOSTS: [&str; 2] = ["web1", "web2"];

/// A domain with something of everything: packs that are needed, that are partly needed, that are
/// dead, that are condemned and due; that a run left and a deletion left, each of which was cut, and
/// that no index names; that a deletion left and a run took up; and so many segments that a run
/// merges them.
struct Ground {
    world: Arc<World>,
    objects: BTreeMap<ObjectName, Vec<u8>>,
    /// Snapshots that stay, and what they hold.
    kept: Vec<(SnapshotId, TreeSource)>,
    /// What the writers back up: all of the above is in it again.
    sources: [TreeSource; 2],
    /// How many requests each program makes.
    lengths: [u64; 4],
}

/// One way how it may go.
#[derive(Debug, Clone, Default)]
struct Case {
    plan: Plan,
    grace_secs: u32,
    /// What a run left that was given up and cut may be there until a deletion looks.
    may_leave: bool,
}

impl From<Vec<Turn>> for Case {
    fn from(turns: Vec<Turn>) -> Self {
        let plan = Plan {
            turns,
            ..Plan::default()
        };
        Self {
            plan,
            ..Self::default()
        }
    }
}

/// What became of the programs.
#[derive(Default)]
struct Ends {
    stored: Vec<(SnapshotId, TreeSource)>,
    errors: Vec<(usize, RepositoryError)>,
}

impl Ground {
    fn new() -> Self {
        let world = Arc::new(World::new());
        let store = Arc::new(MemoryStore::default());
        let mut kept = Vec::new();
        let mut base = TreeSource::default();
        for number in 0..8 {
            base.add_file(&format!("acme/file{number}"), noise(number, 600));
        }
        let mut all = base.clone();
        let whole = world.run_well(&store, &base);
        // Half of its pack is needed by nobody now.
        for number in 0..4 {
            base.remove(&path(&format!("acme/file{number}")));
        }
        kept.push((world.run_well(&store, &base), base.clone()));
        let mut gone = vec![whole];
        for (name, seed) in [("condemned", 50), ("dead", 51)] {
            all.add_file(name, noise(seed, 3000));
            let mut source = base.clone();
            source.add_file(name, noise(seed, 3000));
            gone.push(world.run_well(&store, &source));
            let domain = world.view(&store).domain().clone();
            domain.forget(&std::mem::take(&mut gone)).unwrap();
            if name == "condemned" {
                assert!(common::prune(&world, &store).condemned_packs > 0);
                // The next run takes them up.
                leave_moved(&world, &store);
            }
        }
        for number in 0..5 {
            base.add_file(&format!("more{number}"), noise(60 + number, 500));
            all.add_file(&format!("more{number}"), noise(60 + number, 500));
            world.run_well(&store, &base);
        }
        let mut source = base.clone();
        for number in 0..4 {
            let (name, bytes) = (format!("half{number}"), noise(80 + number, 600));
            source.add_file(&name, bytes.clone());
            all.add_file(&name, bytes.clone());
            if number % 2 == 0 {
                base.add_file(&name, bytes);
            }
        }
        let half = world.run_well(&store, &source);
        kept.push((world.run_well(&store, &base), base.clone()));
        world.view(&store).domain().forget(&[half]).unwrap();
        let mut source = base.clone();
        source.add_file("dead too", noise(52, 3000));
        let dead = world.run_well(&store, &source);
        leave_a_stray(&world, &store, &mut all);
        world.clock.advance_secs(LEASE_SECS + 60);
        leave_moved(&world, &store);
        world.view(&store).domain().forget(&[dead]).unwrap();
        world.clock.advance_secs(LEASE_SECS + 60);
        let mut sources = [all.clone(), all];
        for (number, source) in sources.iter_mut().enumerate() {
            source.add_file("same", noise(90, 700));
            source.add_file(&format!("own{number}"), noise(91 + number as u64, 700));
        }
        let objects = store.objects();
        let mut ground = Self {
            world,
            objects,
            kept,
            sources,
            lengths: [0; 4],
        };
        let (_, _, asked) = ground.play(&Case::default());
        let lengths: Vec<_> = asked.iter().map(|asked| asked.len() as u64).collect();
        ground.lengths = lengths.try_into().unwrap();
        ground
    }

    /// Lets the programs take turns at a copy of the domain.
    fn play(&self, case: &Case) -> (Arc<MemoryStore>, Ends, Vec<Vec<String>>) {
        let store = Arc::new(MemoryStore::default());
        store.set_objects(self.objects.clone());
        let ends = Mutex::new(Ends::default());
        let mut programs: Vec<Program<'_>> = Vec::new();
        for (who, source) in self.sources.iter().enumerate() {
            let ends = &ends;
            programs.push(Box::new(move |place| {
                let result = back_up_as(&self.world, place, (who, source));
                let mut ends = ends.lock().unwrap();
                match result {
                    Ok(id) => ends.stored.push((id, source.clone())),
                    Err(error) => ends.errors.push((who, error)),
                }
            }));
        }
        for who in [PRUNE, SECOND_PRUNE] {
            let ends = &ends;
            programs.push(Box::new(move |place| {
                let result = prune(&self.world, &place, case.grace_secs);
                let mut ends = ends.lock().unwrap();
                ends.errors.extend(result.err().map(|error| (who, error)));
            }));
        }
        let asked = take_turns((&self.world, &store), &case.plan, programs);
        (store, ends.into_inner().unwrap(), asked)
    }

    /// Plays, and then nothing may be lost, and everything goes on.
    fn try_out(&self, case: &Case) -> Ends {
        let (store, ends, _) = self.play(case);
        let when = format!("{case:?}, errors {:?}", ends.errors);
        let place: Arc<dyn ObjectStore> = store.clone();
        let damage = self.assert_whole(&store, &ends, &when);
        // Merged segments may name what goes meanwhile; nothing is lost by that, and no damage.
        assert!(damage.is_empty() || case.may_leave, "{when}: {damage:?}");
        // What was cut or given up is waited for no more, and decisions are due.
        let grace_secs = case.grace_secs;
        let later = 2 * LEASE_SECS + i64::from(grace_secs);
        self.world.clock.advance_secs(later);
        for _ in 0..2 {
            prune(&self.world, &place, grace_secs).unwrap_or_else(|e| panic!("{e}: {when}"));
            self.world.clock.advance_secs(GRACE_SECS.into());
        }
        let next = back_up_as(&self.world, place.clone(), (FIRST, &self.sources[FIRST]));
        let next = next.unwrap_or_else(|e| panic!("{e}: {when}"));
        prune(&self.world, &place, grace_secs).unwrap_or_else(|e| panic!("{e}: {when}"));
        // The run corrected the index.
        let damage = self.assert_whole(&store, &ends, &format!("later, {when}"));
        assert!(damage.is_empty(), "later, {when}: {damage:?}");
        self.world
            .assert_restores(&store, next, &self.sources[FIRST]);
        ends
    }

    /// All that was stored restores; gives what the check finds.
    fn assert_whole(&self, store: &Arc<MemoryStore>, ends: &Ends, when: &str) -> Vec<Damage> {
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            for (id, source) in self.kept.iter().chain(&ends.stored) {
                self.world.assert_restores(store, *id, source);
            }
        }));
        assert!(result.is_ok(), "a snapshot is not whole, {when}");
        let view = self.world.view(store);
        let report = view.check(CheckDepth::Data, &Silent).unwrap();
        report.damage
    }
}

/// Leaves the packs of a run that was cut before it wrote its index.
fn leave_a_stray(world: &World, store: &Arc<MemoryStore>, all: &mut TreeSource) {
    all.add_file("stray", noise(70, 2000));
    let mut source = TreeSource::default();
    source.add_file("stray", noise(70, 2000));
    leave(store, &|place| drop(world.run(&[place], &source, &Silent)));
}

/// Leaves the packs of a deletion that was cut before an index named what it had moved. It carries
/// no decision out.
fn leave_moved(world: &World, store: &Arc<MemoryStore>) {
    leave(store, &|place| drop(prune(world, place, u32::MAX)));
}

/// Cuts something as early as it leaves a data pack.
fn leave(store: &Arc<MemoryStore>, work: &dyn Fn(&Arc<dyn ObjectStore>)) {
    let packs = |store: &MemoryStore| {
        let names = store.objects().into_keys();
        names.filter(|name| name.as_str().contains("/p/")).count()
    };
    let (before, objects) = (packs(store), store.objects());
    for at in 0..1000 {
        let cut = FaultyStore::new(store.clone(), Fault::CutAt { at });
        let place: Arc<dyn ObjectStore> = Arc::new(cut);
        store.set_objects(objects.clone());
        work(&place);
        if packs(store) > before {
            return;
        }
    }
    panic!("it leaves nothing");
}

fn back_up_as(
    world: &World,
    place: Arc<dyn ObjectStore>,
    (who, source): (usize, &TreeSource),
) -> Result<SnapshotId, RepositoryError> {
    let domain = Domain::create(place, &world.key, &world.entropy, "test")?;
    let replica = Replica {
        name: DestinationName::new("place").unwrap(),
        domain,
    };
    let options = BackupOptions {
        schedule: "nightly",
        host: HOSTS[who],
        run: None,
        roots: &[],
        paths: &[],
        compare_by: &[],
        tuning: world.tuning,
        clock: &world.clock,
        entropy: &world.entropy,
        monitor: &Silent,
    };
    let mut report = back_up(vec![replica], &options, &mut source.walk());
    assert_eq!(report.failures, []);
    let replica = report.replicas.remove(0);
    match (replica.error, replica.snapshot) {
        (Some(error), _) => Err(error),
        (None, snapshot) => Ok(snapshot.unwrap()),
    }
}

fn prune(
    world: &World,
    place: &Arc<dyn ObjectStore>,
    grace_secs: u32,
) -> Result<(), RepositoryError> {
    let options = PruneOptions {
        grace_secs,
        trash_secs: 0,
        strays: true,
        repack: Some(Repack::default()),
        clock: &world.clock,
        entropy: &world.entropy,
        monitor: &Silent,
    };
    Domain::open(place.clone(), &world.key)?
        .prune(&options)
        .map(drop)
}

/// The orders in which three programs may come; the writers are alike.
const ORDERS: [[usize; 3]; 3] = [
    [FIRST, SECOND, PRUNE],
    [FIRST, PRUNE, SECOND],
    [PRUNE, FIRST, SECOND],
];

/// As many of all cases as the environment says, spread evenly.
fn some_of(cases: &[Case], usual: u64) -> Vec<Case> {
    let plan = dice::Plan::from_environment("BACKSTAY_INTERLEAVINGS", usual);
    let all = cases.len() as u64;
    let count = plan.count.min(all);
    let at = |number: u64| usize::try_from((number * all / count + plan.seed) % all).unwrap();
    (0..count).map(|number| cases[at(number)].clone()).collect()
}

fn no_errors(ground: &Ground, cases: Vec<Case>) {
    println!("{} cases, requests {:?}", cases.len(), ground.lengths);
    assert!(!cases.is_empty());
    for case in cases {
        let ends = ground.try_out(&case);
        assert!(ends.errors.is_empty(), "{case:?}: {:?}", ends.errors);
    }
}

#[test]
fn whoever_is_preempted_once_nothing_is_lost_and_nobody_fails() {
    let ground = Ground::new();
    let mut cases = Vec::new();
    for [a, b, c] in ORDERS {
        for at in 1..=ground.lengths[a] {
            let mut case = Case::from(vec![turn(a, at), turn(b, ALL), turn(c, ALL)]);
            cases.push(case.clone());
            case.grace_secs = GRACE_SECS;
            cases.push(case);
            cases.push(vec![turn(a, at), turn(b, ALL), turn(a, ALL)].into());
        }
    }
    no_errors(&ground, cases);
}

#[test]
fn whoever_are_preempted_twice_nothing_is_lost_and_nobody_fails() {
    let ground = Ground::new();
    let mut cases: Vec<Case> = Vec::new();
    for [a, b, c] in ORDERS {
        for at in 1..=ground.lengths[a] {
            for bt in 1..=ground.lengths[b] {
                cases.push(vec![turn(a, at), turn(b, bt), turn(a, ALL), turn(b, ALL)].into());
                cases.push(vec![turn(a, at), turn(b, bt), turn(c, ALL), turn(a, ALL)].into());
            }
        }
    }
    no_errors(&ground, some_of(&cases, 250));
}

/// The turns of all four, in an order and for lengths that are drawn.
fn drawn_turns(ground: &Ground, dice: &mut Dice, count: usize) -> Vec<Turn> {
    let mut turns = Vec::new();
    for _ in 0..count {
        let who = dice.below(4);
        let length = usize::try_from(ground.lengths[who]).unwrap();
        turns.push(turn(who, dice.below(length + 1) as u64));
    }
    turns
}

#[test]
fn whoever_is_cut_wherever_beside_the_others_nothing_is_lost() {
    let ground = Ground::new();
    let mut dice = Dice::new(1, 0);
    let mut cases = Vec::new();
    for who in [FIRST, PRUNE] {
        for at in 0..ground.lengths[who] {
            let mut case = Case::from(drawn_turns(&ground, &mut dice, 3));
            case.plan.cut = Some((who, at));
            case.grace_secs = *dice.pick(&[0, GRACE_SECS]);
            cases.push(case);
        }
    }
    println!("{} cases", cases.len());
    for case in cases {
        let ends = ground.try_out(&case);
        let cut = case.plan.cut.map(|(who, _)| who);
        let others = ends.errors.iter().find(|(who, _)| Some(*who) != cut);
        assert!(others.is_none(), "{case:?}: {:?}", ends.errors);
    }
}

#[test]
fn whatever_is_drawn_nothing_is_lost_and_nobody_fails() {
    let ground = Ground::new();
    let plan = dice::Plan::from_environment("BACKSTAY_INTERLEAVINGS", 200);
    for number in 0..plan.count {
        let mut dice = Dice::new(plan.seed, number);
        let count = 2 + dice.below(6);
        let mut case = Case::from(drawn_turns(&ground, &mut dice, count));
        case.grace_secs = *dice.pick(&[0, 0, GRACE_SECS]);
        let ends = ground.try_out(&case);
        assert!(ends.errors.is_empty(), "{case:?}: {:?}", ends.errors);
    }
}

/// Longer than anybody is waited for.
const SILENCE_SECS: i64 = LEASE_SECS + 3600;

#[test]
fn a_run_that_was_given_up_wherever_it_stood_has_a_whole_snapshot_or_none() {
    let ground = Ground::new();
    let mut dice = Dice::new(2, 0);
    let (mut given_up, mut stored) = (0, 0);
    for at in 1..ground.lengths[FIRST] {
        for is_cut in [false, true] {
            let mut case = Case::from(vec![
                turn(FIRST, at),
                later(SILENCE_SECS, turn(PRUNE, ALL)),
                turn(SECOND, dice.below(40) as u64),
                turn(SECOND_PRUNE, dice.below(80) as u64),
                turn(FIRST, ALL),
            ]);
            let left = usize::try_from(ground.lengths[FIRST] - at).unwrap();
            case.plan.cut = is_cut.then(|| (FIRST, at + dice.below(left + 1) as u64));
            case.may_leave = is_cut;
            let ends = ground.try_out(&case);
            for (who, error) in &ends.errors {
                // While it cannot be known whether its run takes the snapshot back, none goes on.
                let refuses = is_cut && *who == SECOND_PRUNE;
                assert!(*who == FIRST || refuses, "{case:?}: {error:?}");
                given_up += u32::from(matches!(error, RepositoryError::GivenUp { .. }));
            }
            stored += ends.stored.len();
        }
    }
    println!("{given_up} found out that they were given up, {stored} snapshots");
    assert!(given_up > 0);
}

#[test]
fn a_deletion_that_was_given_up_wherever_it_stood_loses_nothing() {
    let ground = Ground::new();
    let mut given_up = 0;
    for at in 1..ground.lengths[PRUNE] {
        for grace_secs in [0, GRACE_SECS] {
            let mut case = Case::from(vec![
                turn(PRUNE, at),
                later(SILENCE_SECS, turn(FIRST, ALL)),
                turn(SECOND_PRUNE, ALL),
                turn(SECOND, 20),
                turn(PRUNE, ALL),
            ]);
            case.grace_secs = grace_secs;
            let ends = ground.try_out(&case);
            for (who, error) in &ends.errors {
                let is_it = matches!(error, RepositoryError::GivenUp { .. });
                assert_eq!(*who, PRUNE, "{case:?}: {error:?}");
                given_up += u32::from(is_it);
            }
        }
    }
    println!("{given_up} found out that they were given up");
    assert!(given_up > 0);
}

#[test]
fn listings_that_are_late_lose_nothing_with_a_grace() {
    let ground = Ground::new();
    let plan = dice::Plan::from_environment("BACKSTAY_INTERLEAVINGS", 200);
    let mut stored = 0;
    for number in 0..plan.count {
        let mut dice = Dice::new(plan.seed, 1_000_000 + number);
        let count = 2 + dice.below(6);
        let mut case = Case::from(drawn_turns(&ground, &mut dice, count));
        // All requests together take a quarter of the grace, and a listing is late by less.
        case.plan.secs_each = i64::from(GRACE_SECS) / 1000;
        case.plan.late = 1 + dice.below(60);
        case.grace_secs = GRACE_SECS;
        stored += ground.try_out(&case).stored.len();
    }
    println!("{stored} runs stored a snapshot");
    assert!(stored as u64 > plan.count, "{stored}");
}
