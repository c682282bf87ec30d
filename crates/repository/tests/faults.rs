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
        assert_eq!(is_whole, finished.is_some(), "cut at {cut_at}");
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
