//! Cuts, lost destinations and damage: earlier snapshots stay restorable, nothing is silent, and
//! nothing that is stored is stored again.

mod common;

use std::collections::BTreeSet;
use std::sync::Arc;

use common::{World, noise, one_of_everything, path, snapshot_of};
use edge::{ObjectName, ObjectStore, Silent, StoreFault};
use repository::{CheckDepth, RepositoryError};
use testkit::{Fault, FaultyStore, MemoryStore, RecordingMonitor, TreeSource};

fn small_tree() -> TreeSource {
    let mut source = TreeSource::default();
    for number in 0..12 {
        source.add_file(
            &format!("dir{}/file{number}", number % 3),
            noise(number, 40_000),
        );
    }
    source
}

#[test]
fn a_run_cut_at_any_operation_leaves_every_earlier_snapshot_restorable() {
    let world = World::new();
    let origin = Arc::new(MemoryStore::default());
    let before = small_tree();
    let first = world.run_well(&origin, &before);
    let mut after = small_tree();
    after.add_file("dir1/new", noise(99, 400_000));
    after.remove(&path("dir0/file3"));
    let mut cut_at = 0;
    loop {
        let store = Arc::new(MemoryStore::default());
        store.set_objects(origin.objects());
        let faulty = Arc::new(FaultyStore::new(store.clone(), Fault::CutAt { at: cut_at }));
        let place: Arc<dyn ObjectStore> = faulty.clone();
        let report = world.run(&[&place], &after, &Silent);
        let is_whole = faulty.hits() == 0;
        let finished = report.replicas.first().and_then(|replica| replica.snapshot);
        // Cut before the very last, it is done, and only its session stays.
        assert!(finished.is_some() || !is_whole, "cut at {cut_at}");
        world.assert_restores(&store, first, &before);
        let next = world.run_well(&store, &after);
        world.assert_restores(&store, next, &after);
        let sound = world.view(&store).check(CheckDepth::Data, &Silent).unwrap();
        assert!(sound.is_sound(), "cut at {cut_at}: {sound:?}");
        if is_whole {
            break;
        }
        cut_at += 1;
    }
    assert!(cut_at > 12, "{cut_at} operations were cut");
}

#[test]
fn what_a_cut_run_stored_is_adopted() {
    let world = World::new();
    let store = Arc::new(MemoryStore::default());
    let mut source = TreeSource::default();
    for number in 0..60 {
        source.add_file(&format!("file{number}.bin"), noise(number, 1_000_000));
    }
    // The first packs go through, then the line is cut.
    let cut = Fault::CutAfterBytes {
        written: 20_000_000,
    };
    let faulty = Arc::new(FaultyStore::new(store.clone(), cut));
    let place: Arc<dyn ObjectStore> = faulty.clone();
    world.run(&[&place], &source, &Silent);
    assert!(faulty.hits() > 0);
    let stored = store.total_bytes();
    assert!(stored > 16_000_000, "{stored}");
    let id = world.run_well(&store, &source);
    assert!(store.total_bytes() < 63_000_000, "{}", store.total_bytes());
    world.assert_restores(&store, id, &source);
}

#[test]
fn one_of_two_replicas_failing_midway_leaves_the_other_whole() {
    let world = World::new();
    let (good, bad) = (
        Arc::new(MemoryStore::default()),
        Arc::new(MemoryStore::default()),
    );
    let source = one_of_everything();
    let full = Fault::WritesFrom {
        at: 8,
        fault: StoreFault::Full,
    };
    let faulty = Arc::new(FaultyStore::new(bad.clone(), full));
    let places: [Arc<dyn ObjectStore>; 2] = [faulty.clone(), good.clone()];
    let monitor = RecordingMonitor::default();
    let report = world.run(&[&places[0], &places[1]], &source, &monitor);
    assert!(faulty.hits() > 0);
    assert_eq!(report.replicas[0].snapshot, None);
    assert!(matches!(
        &report.replicas[0].error,
        Some(RepositoryError::Store(error)) if error.fault == StoreFault::Full
    ));
    assert_eq!(monitor.lost().len(), 1);
    let first = snapshot_of(&report, 1);
    world.assert_restores(&good, first, &source);

    // The replica that lags gets all that it lacks, although nothing changed since.
    let places: [Arc<dyn ObjectStore>; 2] = [bad.clone(), good.clone()];
    let before = good.total_bytes();
    let report = world.run(&[&places[0], &places[1]], &source, &Silent);
    let (at_bad, at_good) = (snapshot_of(&report, 0), snapshot_of(&report, 1));
    assert_eq!(at_bad, at_good);
    world.assert_restores(&bad, at_bad, &source);
    world.assert_restores(&good, at_good, &source);
    assert!(good.total_bytes() - before < 20_000);
}

#[test]
fn replicas_begun_apart_share_one_domain() {
    let world = World::new();
    let (a, b) = (
        Arc::new(MemoryStore::default()),
        Arc::new(MemoryStore::default()),
    );
    let source = one_of_everything();
    world.run_well(&a, &source);
    world.run_well(&b, &source);
    let places: [Arc<dyn ObjectStore>; 2] = [a.clone(), b.clone()];
    let report = world.run(&[&places[0], &places[1]], &source, &Silent);
    assert_eq!(snapshot_of(&report, 0), snapshot_of(&report, 1));
    // The stream is read at each run; all files are taken over, linked ones once.
    assert_eq!(report.counts.unchanged, 12);
}

fn packs(store: &MemoryStore, letter: char) -> Vec<ObjectName> {
    let part = format!("/{letter}/");
    let objects = store.objects();
    objects
        .into_keys()
        .filter(|name| name.as_str().contains(&part))
        .collect()
}

#[test]
fn any_damaged_byte_of_a_pack_is_found_and_its_files_are_named() {
    let world = World::new();
    let origin = Arc::new(MemoryStore::default());
    let mut source = TreeSource::default();
    source.add_file("first.bin", noise(1, 1_500_000));
    source.add_file("second.bin", noise(2, 1_500_000));
    let id = world.run_well(&origin, &source);
    let pack = packs(&origin, 'p').remove(0);
    let length = origin.objects()[&pack].len();
    // Header, first frame, last frame, filler, trailer, its length, second header.
    let classes = [
        0,
        40,
        70,
        200,
        2_900_000,
        length - 200,
        length - 98,
        length - 50,
        length - 1,
    ];
    for at in classes {
        let store = Arc::new(MemoryStore::default());
        store.set_objects(origin.objects());
        assert!(store.damage(&pack, at));
        let view = world.view(&store);
        let report = view.check(CheckDepth::Data, &Silent).unwrap();
        assert_eq!(report.damage.len(), 1, "byte {at}");
        assert_eq!(report.damage[0].object, pack.to_string());
        let affected: BTreeSet<_> = report
            .affected_files
            .iter()
            .map(|f| f.path.as_str())
            .collect();
        // Frames lie in the order in which the sealing threads finished them, so which file the
        // byte belongs to is known from the restore alone, which never saw the report.
        let (collected, restored) = world.restore(&store, id);
        let failed: BTreeSet<_> = restored
            .failures
            .iter()
            .map(|f| f.object.as_str())
            .collect();
        assert_eq!(affected, failed, "byte {at}");
        let is_content = (96..=2_900_000).contains(&at);
        assert_eq!(!failed.is_empty(), is_content, "byte {at}");
        assert_eq!(collected.len(), 2 - failed.len());
    }
}

#[test]
fn a_missing_pack_is_found_without_reading_data_and_stored_again() {
    let world = World::new();
    let store = Arc::new(MemoryStore::default());
    let mut source = TreeSource::default();
    source.add_file("first.bin", noise(1, 1_500_000));
    let old = world.run_well(&store, &source);
    let pack = packs(&store, 'p').remove(0);
    store.delete(&pack).unwrap();
    let report = world
        .view(&store)
        .check(CheckDepth::Structure, &Silent)
        .unwrap();
    assert_eq!(report.damage[0].object, pack.to_string());
    assert_eq!(report.affected_files[0].path, "/first.bin");
    world.run_well(&store, &source);
    world.assert_restores(&store, old, &source);
    assert!(
        world
            .view(&store)
            .check(CheckDepth::Data, &Silent)
            .unwrap()
            .is_sound()
    );
}

#[test]
fn a_lost_or_damaged_index_costs_nothing_but_time() {
    let world = World::new();
    let store = Arc::new(MemoryStore::default());
    let source = one_of_everything();
    let id = world.run_well(&store, &source);
    let segment = packs(&store, 'i').remove(0);
    store.damage(&segment, 300);
    world.assert_restores(&store, id, &source);
    let report = world
        .view(&store)
        .check(CheckDepth::Structure, &Silent)
        .unwrap();
    assert_eq!(report.damage[0].object, segment.to_string());
    assert_eq!(report.affected, 0);
    let before = store.total_bytes();
    world.run_well(&store, &source);
    assert!(store.total_bytes() < before + 20_000);
    store.delete(&packs(&store, 'i').remove(0)).unwrap();
    let next = world.run_well(&store, &source);
    assert!(store.total_bytes() < before + 40_000);
    world.assert_restores(&store, next, &source);
    assert!(
        world
            .view(&store)
            .check(CheckDepth::Data, &Silent)
            .unwrap()
            .is_sound()
    );
}

#[test]
fn damaged_metadata_is_stored_again_and_heals_older_snapshots() {
    let world = World::new();
    let store = Arc::new(MemoryStore::default());
    let source = one_of_everything();
    let old = world.run_well(&store, &source);
    for name in packs(&store, 'm') {
        store.damage(&name, 120);
    }
    assert!(world.restore(&store, old).1.failed > 0);
    let new = world.run_well(&store, &source);
    world.assert_restores(&store, new, &source);
    world.assert_restores(&store, old, &source);
}

#[test]
fn a_damaged_snapshot_is_reported_and_hides_no_other() {
    let world = World::new();
    let store = Arc::new(MemoryStore::default());
    let first = world.run_well(&store, &small_tree());
    let second = world.run_well(&store, &small_tree());
    let name = packs(&store, 's')
        .into_iter()
        .find(|name| name.as_str().contains(&first.to_string()))
        .unwrap();
    store.damage(&name, 150);
    let view = world.view(&store);
    let list = view.domain().snapshots().unwrap();
    assert_eq!(list.snapshots.len(), 1);
    assert_eq!(list.snapshots[0].id, second);
    assert_eq!(list.unreadable.len(), 1);
    let report = view.check(CheckDepth::Structure, &Silent).unwrap();
    assert_eq!(report.damage[0].object, name.to_string());
}

#[test]
fn a_damaged_cache_hurts_nothing() {
    let mut world = World::new();
    let cache = Arc::new(MemoryStore::default());
    world.cache = Some(cache.clone());
    let store = Arc::new(MemoryStore::default());
    let mut source = one_of_everything();
    world.run_well(&store, &source);
    assert!(!cache.objects().is_empty());
    for name in cache.objects().into_keys() {
        for at in [0, 100, 150] {
            cache.damage(&name, at);
        }
    }
    source.add_file("new", "new");
    let id = world.run_well(&store, &source);
    world.assert_restores(&store, id, &source);
}

#[test]
fn damaged_content_that_a_check_noted_is_stored_again_and_heals_older_snapshots() {
    let world = World::new();
    let store = Arc::new(MemoryStore::default());
    let mut source = TreeSource::default();
    source.add_file("stays.bin", noise(1, 1_500_000));
    source.add_file("goes.bin", noise(2, 1_500_000));
    let old = world.run_well(&store, &source);
    let pack = packs(&store, 'p').remove(0);
    let length = store.objects()[&pack].len();
    for at in (120..length - 2000).step_by(400_000) {
        store.damage(&pack, at);
    }
    let check = || {
        let view = world.view(&store);
        let report = view.check(CheckDepth::Data, &Silent).unwrap();
        (view, report)
    };
    let (view, report) = check();
    assert_eq!(report.affected, 2);
    // Nobody told the next run: it takes over what it knows.
    world.run_well(&store, &source);
    assert!(check().1.affected > 0);

    assert_eq!(view.domain().note_damage(&report).unwrap(), 1);
    let gone = source.specs()[&path("goes.bin")].clone();
    source.remove(&path("goes.bin"));
    let new = world.run_well(&store, &source);
    world.assert_restores(&store, new, &source);
    let (collected, restored) = world.restore(&store, old);
    assert_eq!(restored.failures.len(), 1, "{:?}", restored.failures);
    assert!(collected[&path("stays.bin")].bytes == noise(1, 1_500_000));

    // What comes back later heals what was lost until then.
    source.add(gone);
    world.run_well(&store, &source);
    world.assert_restores(&store, old, &source);
    assert_eq!(check().1.affected, 0);
    let notes = |store: &MemoryStore| {
        let names = store.objects().into_keys();
        names
            .filter(|name| name.as_str().contains("damaged"))
            .count()
    };
    assert_eq!(notes(&store), 1);
    world.run_well(&store, &source);
    assert_eq!(notes(&store), 0);
}

#[test]
fn damaged_and_missing_objects_are_had_back_from_another_place() {
    let world = World::new();
    let (here, there) = (
        Arc::new(MemoryStore::default()),
        Arc::new(MemoryStore::default()),
    );
    let source = one_of_everything();
    let places: [Arc<dyn ObjectStore>; 2] = [here.clone(), there.clone()];
    let report = world.run(&[&places[0], &places[1]], &source, &Silent);
    let id = snapshot_of(&report, 0);
    for name in packs(&here, 'm') {
        here.damage(&name, 120);
    }
    here.delete(&packs(&here, 'p').remove(0)).unwrap();
    let view = world.view(&here);
    let report = view.check(CheckDepth::Data, &Silent).unwrap();
    assert!(report.damaged >= 2, "{report:?}");
    let other = world.view(&there);
    // The other place has damage of its own: what it gives is verified.
    let pack = packs(&there, 'm').remove(0);
    let good = there.objects()[&pack].clone();
    there.damage(&pack, 200);
    let healed = view.domain().heal_from(other.domain(), &report, &Silent);
    let healed = healed.unwrap();
    assert_eq!(healed.healed + healed.failed.len() as u64, report.damaged);
    assert_eq!(healed.failed.len(), 1, "{healed:?}");
    there.put(&pack, &good).unwrap();
    let healed = view.domain().heal_from(other.domain(), &report, &Silent);
    assert_eq!(healed.unwrap().failed, []);
    let view = world.view(&here);
    let report = view.check(CheckDepth::Data, &Silent).unwrap();
    assert!(report.is_sound(), "{report:?}");
    world.assert_restores(&here, id, &source);

    let foreign = repository::ScheduleKey::from_bytes([7; 32]);
    let elsewhere: Arc<dyn ObjectStore> = Arc::new(MemoryStore::default());
    let foreign = repository::Domain::create(elsewhere, &foreign, &world.entropy, "other");
    let refused = view.domain().heal_from(&foreign.unwrap(), &report, &Silent);
    assert!(matches!(refused, Err(RepositoryError::WrongKey { .. })));
}

#[test]
fn shares_cover_all_data_and_find_what_is_damaged() {
    let mut world = World::new();
    // Many packs: the least memory makes small ones.
    world.tuning.limits.memory = Some(model::ByteCount::new(1));
    let store = Arc::new(MemoryStore::default());
    let mut source = TreeSource::default();
    for number in 0..20 {
        source.add_file(&format!("file{number}"), noise(number, 1_000_000));
    }
    world.run_well(&store, &source);
    let all = packs(&store, 'p').len() + packs(&store, 'm').len();
    assert!(all > 4, "{all} packs");
    store.damage(&packs(&store, 'p')[1], 500);
    let kept = MemoryStore::default();
    let view = world.view(&store);
    let share = repository::CheckShare {
        percent: 20,
        until: None,
        record: Some(&kept),
        clock: &world.clock,
    };
    let mut found = 0;
    let mut read = 0;
    for _ in 0..all {
        world.clock.advance_secs(3600);
        let report = view.check_share(&share, &Silent).unwrap();
        assert_eq!(report.packs, all as u64);
        read += report.read_bytes.get();
        found += report.damaged;
        if read >= store.total_bytes() {
            break;
        }
    }
    assert!(found >= 1);
    assert!(read < 2 * store.total_bytes());
    // Without time nothing is read; all packs are looked for all the same.
    let hasty = repository::CheckShare {
        until: Some(edge::Clock::now(&world.clock)),
        ..share
    };
    let report = view.check_share(&hasty, &Silent).unwrap();
    assert_eq!((report.packs, report.read_bytes.get()), (all as u64, 0));
}
