//! Writers, deletion and readers beside each other, one story after the other: each is a place in the
//! rules (`docs/format.md`, "Sessions" and "Deletion") that must be reached, which
//! `interleavings.rs` tries from everywhere.

#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod common;

use std::collections::BTreeSet;
use std::io::Read as _;
use std::sync::{Arc, Mutex};

use common::turns::{ALL, Plan, Program, Turn, later, take_turns, turn};
use common::{GRACE_SECS, LEASE_SECS, World, noise, path, prune_with};
use edge::{ObjectName, ObjectStore, Silent, TreePath};
use model::{ByteCount, DestinationName};
use repository::{
    BackupOptions, BackupReport, CheckDepth, Checkpoints, Domain, PruneReport, Repack, Replica,
    RepositoryError, Tuning, View, back_up,
};
use testkit::{CollectingTarget, MemoryStore, RecordingStore, TreeSource};

/// Longer than anybody is waited for.
const SILENCE_SECS: i64 = LEASE_SECS + 3600;

/// A domain, and what is said of it.
struct Place {
    world: Arc<World>,
    store: Arc<MemoryStore>,
    source: TreeSource,
}

/// What the programs of a story leave.
#[derive(Default)]
struct Told {
    runs: Vec<BackupReport>,
    prunes: Vec<Result<PruneReport, RepositoryError>>,
    /// What each asked for.
    asked: Vec<Vec<String>>,
}

/// A program of a story.
#[derive(Clone, Copy)]
enum Role<'a> {
    Run(&'a TreeSource, &'a str),
    Prune { grace_secs: u32 },
}

impl Place {
    fn new() -> Self {
        let world = Arc::new(World::new());
        let store = Arc::new(MemoryStore::default());
        let mut source = TreeSource::default();
        for number in 0..4 {
            source.add_file(&format!("file{number}"), noise(number, 2000));
        }
        world.run_well(&store, &source);
        Self {
            world,
            store,
            source,
        }
    }

    /// A copy of it, so that a story can be told twice.
    fn again(&self) -> Self {
        let store = Arc::new(MemoryStore::default());
        store.set_objects(self.store.objects());
        Self {
            world: self.world.clone(),
            store,
            source: self.source.clone(),
        }
    }

    fn domain(&self) -> Domain {
        self.world.view(&self.store).domain().clone()
    }

    fn tell(&self, plan: &Plan, roles: &[Role<'_>]) -> Told {
        let told = Mutex::new(Told::default());
        let programs = roles.iter().map(|role| {
            let (told, world) = (&told, &self.world);
            let program: Program<'_> = match *role {
                Role::Run(source, host) => Box::new(move |place| {
                    let report = back_up_as(world, &place, (source, host));
                    told.lock().unwrap().runs.push(report);
                }),
                Role::Prune { grace_secs } => Box::new(move |place| {
                    let repack = Some(Repack::default());
                    let report = prune_with(world, &place, grace_secs, repack);
                    told.lock().unwrap().prunes.push(report);
                }),
            };
            program
        });
        let asked = take_turns((&self.world, &self.store), plan, programs.collect());
        let mut told = told.into_inner().unwrap();
        told.asked = asked;
        told
    }

    fn prune(&self, grace_secs: u32) -> Result<PruneReport, RepositoryError> {
        let place: Arc<dyn ObjectStore> = self.store.clone();
        prune_with(&self.world, &place, grace_secs, Some(Repack::default()))
    }

    fn assert_clean(&self) {
        let view = self.world.view(&self.store);
        let report = view.check(CheckDepth::Data, &Silent).unwrap();
        assert!(report.is_sound(), "{report:?}");
    }

    fn count(&self, part: &str) -> usize {
        let names = self.store.objects().into_keys();
        names.filter(|name| name.as_str().contains(part)).count()
    }
}

fn packs(store: &MemoryStore) -> BTreeSet<ObjectName> {
    let is_pack = |name: &ObjectName| {
        let name = name.as_str();
        name.contains("/p/") || name.contains("/m/")
    };
    store.objects().into_keys().filter(is_pack).collect()
}

fn back_up_as(
    world: &World,
    place: &Arc<dyn ObjectStore>,
    (source, host): (&TreeSource, &str),
) -> BackupReport {
    let domain = Domain::create(place.clone(), &world.key, &world.entropy, "test");
    let replica = domain.map(|domain| Replica {
        name: DestinationName::new("place").unwrap(),
        domain,
    });
    let options = BackupOptions {
        schedule: "nightly",
        host,
        run: None,
        roots: &[],
        paths: &[],
        compare_by: &[],
        tuning: world.tuning,
        clock: &world.clock,
        entropy: &world.entropy,
        monitor: &Silent,
    };
    back_up(replica.into_iter().collect(), &options, &mut source.walk())
}

fn plan(turns: Vec<Turn>) -> Plan {
    Plan {
        turns,
        ..Plan::default()
    }
}

/// Gives how many requests there are up to the first that holds a text, that one included.
fn until(asked: &[String], text: &str) -> u64 {
    let at = asked.iter().position(|asked| asked.contains(text));
    at.unwrap() as u64 + 1
}

#[test]
fn a_run_that_was_given_up_keeps_its_snapshot_when_it_needs_nothing_that_is_gone() {
    let origin = Place::new();
    let length = {
        let place = origin.again();
        let roles = [Role::Run(&place.source, "web1")];
        place.tell(&Plan::default(), &roles).asked[0].len() as u64
    };
    let mut given_up = 0;
    for at in 1..length {
        let place = origin.again();
        let roles = [
            Role::Run(&place.source, "web1"),
            Role::Prune { grace_secs: 0 },
        ];
        let turns = vec![turn(0, at), later(SILENCE_SECS, turn(1, ALL))];
        let told = place.tell(&plan(turns), &roles);
        told.prunes[0].as_ref().unwrap();
        given_up += place.count("/revoked-");
        let run = &told.runs[0];
        let id = common::snapshot_of(run, 0);
        place.world.assert_restores(&place.store, id, &place.source);
        place.assert_clean();
    }
    assert!(given_up > 5, "{given_up} of {length}");
}

#[test]
fn a_run_that_was_given_up_takes_its_snapshot_back_when_something_is_gone() {
    let place = Place::new();
    let mut source = place.source.clone();
    source.add_file("new", noise(9, 3000));
    let rehearsal = place.again();
    let rehearsed = rehearsal.tell(&Plan::default(), &[Role::Run(&source, "web1")]);
    // Its index is there, its snapshot is not.
    let at = until(&rehearsed.asked[0], "put d");
    let indexed = rehearsed.asked[0]
        .iter()
        .rposition(|asked| asked.starts_with("put") && asked.contains("/i/"));
    let at = at.max(indexed.unwrap() as u64 + 1);
    let roles = [Role::Run(&source, "web1"), Role::Prune { grace_secs: 0 }];
    let turns = vec![turn(0, at), later(SILENCE_SECS, turn(1, ALL))];
    let told = place.tell(&plan(turns), &roles);
    assert!(told.prunes[0].as_ref().unwrap().deleted_packs > 0);
    let error = told.runs[0].replicas[0].error.as_ref();
    assert!(
        matches!(error, Some(RepositoryError::GivenUp { .. })),
        "{error:?}"
    );
    assert!(
        told.asked[0]
            .iter()
            .any(|asked| asked.starts_with("delete") && asked.contains("/s/"))
    );
    assert_eq!(place.domain().snapshots().unwrap().snapshots.len(), 1);
    place.assert_clean();
}

#[test]
fn the_snapshot_of_a_run_that_was_given_up_and_killed_is_taken_back_a_lease_later() {
    let place = Place::new();
    let mut source = place.source.clone();
    source.add_file("new", noise(9, 3000));
    let rehearsal = place.again();
    let rehearsed = rehearsal.tell(&Plan::default(), &[Role::Run(&source, "web1")]);
    let asked = &rehearsed.asked[0];
    let is_put = |asked: &&String, part: &str| asked.starts_with("put") && asked.contains(part);
    let indexed = asked
        .iter()
        .rposition(|asked| is_put(&asked, "/i/"))
        .unwrap() as u64
        + 1;
    let stored = asked
        .iter()
        .rposition(|asked| is_put(&asked, "/s/"))
        .unwrap() as u64
        + 1;
    let roles = [Role::Run(&source, "web1"), Role::Prune { grace_secs: 0 }];
    let mut plan = plan(vec![turn(0, indexed), later(SILENCE_SECS, turn(1, ALL))]);
    plan.cut = Some((0, stored));
    place.tell(&plan, &roles);
    assert_eq!(place.domain().snapshots().unwrap().snapshots.len(), 2);
    // It cannot be told yet whether its run will take it back.
    let refused = place.prune(0);
    assert!(
        matches!(refused, Err(RepositoryError::Read(_))),
        "{refused:?}"
    );
    assert_eq!(place.domain().snapshots().unwrap().snapshots.len(), 2);
    place.world.clock.advance_secs(LEASE_SECS);
    place.prune(0).unwrap();
    let left = place.domain().snapshots().unwrap().snapshots;
    assert_eq!(left.len(), 1);
    place
        .world
        .assert_restores(&place.store, left[0].id, &place.source);
    place.assert_clean();
}

#[test]
fn what_a_snapshot_needs_of_a_condemned_pack_is_moved_and_then_the_pack_goes() {
    let place = Place::new();
    let mut source = place.source.clone();
    source.add_file("let go and wanted again", noise(20, 4000));
    let gone = place.world.run_well(&place.store, &source);
    place.domain().forget(&[gone]).unwrap();
    let prune = Role::Prune {
        grace_secs: GRACE_SECS,
    };
    let rehearsal = place.again();
    let rehearsed = rehearsal.tell(&Plan::default(), &[prune, Role::Run(&source, "web1")]);
    // The run begins when the deletion has looked who is there, and looks itself before the decision.
    let condemned = until(&rehearsed.asked[0], "/condemned-");
    let packs = until(&rehearsed.asked[1], "put d");
    let turns = vec![turn(0, condemned - 1), turn(1, packs), turn(0, ALL)];
    let told = place.tell(&plan(turns), &[prune, Role::Run(&source, "web1")]);
    assert!(told.prunes[0].as_ref().unwrap().condemned_packs > 0);
    let id = common::snapshot_of(&told.runs[0], 0);
    place.world.assert_restores(&place.store, id, &source);
    place.world.clock.advance_secs(i64::from(GRACE_SECS));
    let report = place.prune(GRACE_SECS).unwrap();
    assert!(report.moved_bytes > ByteCount::new(4000), "{report:?}");
    place.world.assert_restores(&place.store, id, &source);
    let report = place.prune(GRACE_SECS).unwrap();
    assert!(report.deleted_packs > 0, "{report:?}");
    assert_eq!(place.count("/condemned-"), 0);
    place.world.assert_restores(&place.store, id, &source);
    place.assert_clean();
}

#[test]
fn a_copy_of_a_machine_is_reported_and_another_host_is_not() {
    for (host, silence, is_warned) in [("web1", 0, true), ("web2", 0, false), ("web1", 3600, false)]
    {
        let place = Place::new();
        let roles = [
            Role::Run(&place.source, "web1"),
            Role::Run(&place.source, host),
        ];
        let turns = vec![turn(0, 12), later(silence, turn(1, ALL))];
        let told = place.tell(&plan(turns), &roles);
        let [second, first] = told.runs.as_slice() else {
            unreachable!("both end");
        };
        assert_eq!(first.warnings, Vec::<String>::new());
        let warnings = &second.warnings;
        assert_eq!(warnings.len(), usize::from(is_warned), "{warnings:?}");
        let names = |text: &str| warnings.iter().all(|warning| warning.contains(text));
        assert!(
            names("nightly") && names("web1") && names("two machines"),
            "{warnings:?}"
        );
    }
}

#[test]
fn bringing_back_beside_a_deletion_brings_back_all_or_nothing() {
    let place = Place::new();
    let mut source = place.source.clone();
    source.add_file("wanted again", noise(30, 4000));
    let id = place.world.run_well(&place.store, &source);
    let now = edge::Clock::now(&place.world.clock);
    place.domain().discard(&[id], now).unwrap();
    let tell = |origin: &Place, turns: Vec<Turn>, grace_secs: u32| {
        let place = origin.again();
        let back = Mutex::new(None);
        let programs: Vec<Program<'_>> = vec![
            Box::new(|store| {
                let world = &place.world;
                let domain = Domain::open(store, &world.key).unwrap();
                let done = domain.undelete(id, &world.clock, &world.entropy);
                *back.lock().unwrap() = Some(done);
            }),
            Box::new(|store| {
                prune_with(&place.world, &store, grace_secs, None).unwrap();
            }),
        ];
        let asked = take_turns((&place.world, &place.store), &plan(turns), programs);
        let back = back.into_inner().unwrap().unwrap();
        (place, back, asked)
    };
    let (_, _, lengths) = tell(&place, Vec::new(), 0);
    let (mut is_back, mut is_gone) = (0, 0);
    for (who, other) in [(0, 1), (1, 0)] {
        for at in 1..=lengths[who].len() as u64 {
            for (grace_secs, other_at) in [(0, ALL), (0, 9), (0, 16), (GRACE_SECS, ALL)] {
                let turns = vec![turn(who, at), turn(other, other_at), turn(who, ALL)];
                let (place, back, _) = tell(&place, turns, grace_secs);
                match back {
                    Ok(()) => is_back += 1,
                    Err(_) => is_gone += 1,
                }
                let whole = back.is_ok();
                for _ in 0..3 {
                    let listed = place.domain().snapshots().unwrap().snapshots;
                    assert_eq!(listed.iter().any(|one| one.id == id), whole, "{who} {at}");
                    if whole {
                        place.world.assert_restores(&place.store, id, &source);
                    }
                    place.assert_clean();
                    place.prune(grace_secs).unwrap();
                    place.world.clock.advance_secs(i64::from(GRACE_SECS));
                }
            }
        }
    }
    assert!(
        is_back > 10 && is_gone > 10,
        "{is_back} back, {is_gone} gone"
    );
}

#[test]
fn a_deletion_leaves_the_checkpoint_of_a_run_that_is_at_work() {
    let mut place = Place::new();
    let mut world = World::new();
    world.tuning = Tuning {
        checkpoints: Checkpoints {
            secs: u32::MAX,
            bytes: ByteCount::new(1000),
        },
        ..Tuning::default()
    };
    world.clock.advance_secs(3600);
    place.world = Arc::new(world);
    let mut source = place.source.clone();
    for number in 0..3 {
        source.add_file(&format!("new{number}"), noise(40 + number, 3000));
    }
    let rehearsal = place.again();
    let prune = Role::Prune { grace_secs: 0 };
    let told = rehearsal.tell(&Plan::default(), &[Role::Run(&source, "web1"), prune]);
    // Beside another session it reads that, too.
    let first = until(&told.asked[0], "/checkpoint-0") + 1;
    let prune_length = told.asked[1].len() as u64;
    let is_first_there = |place: &Place| place.count("/checkpoint-") > 0;
    // The deletion stands anywhere when the checkpoint comes.
    let mut kept = 0;
    for at in 0..prune_length {
        let place = place.again();
        let store = place.store.clone();
        let seen = Mutex::new(None);
        let look: Program<'_> = Box::new(|_| {
            *seen.lock().unwrap() = Some(store.objects());
        });
        let (world, source) = (&place.world, &source);
        let programs: Vec<Program<'_>> = vec![
            Box::new(move |store| {
                back_up_as(world, &store, (source, "web1"));
            }),
            Box::new(move |store| {
                prune_with(world, &store, 0, None).unwrap();
            }),
            look,
        ];
        let turns = vec![turn(1, at), turn(0, first), turn(1, ALL), turn(2, ALL)];
        take_turns((world, &place.store), &plan(turns), programs);
        let objects = seen.into_inner().unwrap().unwrap();
        kept += 1;
        let is_there = objects
            .keys()
            .any(|name| name.as_str().contains("/checkpoint-"));
        assert!(is_there, "deleted by a deletion that stood at {at}");
        assert!(!is_first_there(&place), "a snapshot makes it useless");
    }
    assert!(kept > 20, "{kept}");
}

#[test]
fn an_open_view_finds_what_was_moved_meanwhile() {
    let world = World::new();
    let store = Arc::new(MemoryStore::default());
    let mut source = TreeSource::default();
    for number in 0..40 {
        source.add_file(
            &format!("dir{}/file{number}", number % 4),
            noise(number, 60_000),
        );
    }
    let first = world.run_well(&store, &source);
    for number in (0..40).filter(|number| number % 4 != 0) {
        source.remove(&path(&format!("dir{}/file{number}", number % 4)));
    }
    source.add_file("dir0/large", noise(99, 3_000_000));
    let id = world.run_well(&store, &source);
    // Three views, for each reads in its own way.
    let recording = Arc::new(RecordingStore::new(store.clone()));
    let open = || View::open(Domain::open(recording.clone(), &world.key).unwrap()).unwrap();
    let (restoring, streaming, listing) = (open(), open(), open());
    let snapshot = listing.domain().snapshot(id).unwrap();
    let before = packs(&store);
    listing.domain().forget(&[first]).unwrap();
    let place: Arc<dyn ObjectStore> = store.clone();
    let all = Repack {
        waste_percent: 0,
        ..Repack::default()
    };
    let report = prune_with(&world, &place, 0, Some(all)).unwrap();
    assert!(
        report.deleted_packs + report.emptied_packs > 1,
        "{report:?}"
    );
    let gone = before.difference(&packs(&store)).count();
    assert!(gone > 1, "{gone}");

    recording.take_requests();
    let mut target = CollectingTarget::default();
    let report = restoring
        .restore(&snapshot, &[TreePath::root()], &mut target, &Silent)
        .unwrap();
    assert_eq!(report.failures, []);
    common::assert_same(&target.collected(), &source);
    // The index is listed again once.
    assert_eq!(recording.take_requests().lists, 1);

    let names = |entries: Vec<edge::Entry>| -> Vec<_> {
        entries
            .into_iter()
            .map(|entry| entry.path.to_string())
            .collect()
    };
    let inside = names(listing.list(&snapshot, &path("dir0")).unwrap());
    assert_eq!(inside.len(), 11, "{inside:?}");
    let mut bytes = Vec::new();
    streaming
        .stream(
            (&snapshot, &path("dir0/large")),
            &Silent,
            &mut |_, content| content.unwrap().read_to_end(&mut bytes).map(drop),
        )
        .unwrap();
    assert!(bytes == noise(99, 3_000_000));
}

#[test]
fn an_open_view_says_what_is_lost() {
    let place = Place::new();
    let view = place.world.view(&place.store);
    let snapshot = view.domain().snapshots().unwrap().snapshots.remove(0);
    for name in packs(&place.store) {
        if name.as_str().contains("/p/") {
            place.store.delete(&name).unwrap();
        }
    }
    let mut target = CollectingTarget::default();
    let report = view
        .restore(&snapshot, &[TreePath::root()], &mut target, &Silent)
        .unwrap();
    assert_eq!(report.failed, 4, "{report:?}");
}

#[test]
fn a_deletion_that_takes_days_gives_signs_of_life() {
    let place = Place::new();
    let mut source = place.source.clone();
    source.add_file("new", noise(9, 3000));
    let gone = place.world.run_well(&place.store, &source);
    place.domain().forget(&[gone]).unwrap();
    let prune = Role::Prune { grace_secs: 0 };
    let rehearsal = place.again();
    let rehearsed = rehearsal.tell(&Plan::default(), &[prune]);
    let length = rehearsed.asked[0].len() as u64;
    // Each request takes hours, and all of them longer than anybody is waited for without a sign.
    let mut plan = plan(vec![turn(0, length - 4), turn(1, ALL)]);
    plan.secs_each = 2 * LEASE_SECS / i64::try_from(length).unwrap();
    let told = place.tell(&plan, &[prune, prune]);
    assert!(told.prunes.iter().all(Result::is_ok), "{:?}", told.prunes);
    assert_eq!(place.count("/revoked-"), 0);
    place.assert_clean();
}
