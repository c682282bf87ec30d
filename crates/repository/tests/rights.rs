//! Keys that may not do everything: who may only add backs up for years and reads nothing.

#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod common;

use std::sync::Arc;

use common::{World, noise, one_of_everything, path, prune_with, snapshot_of};
use edge::{ObjectStore, Silent};
use model::SnapshotId;
use repository::{
    CheckDepth, Domain, RepositoryError, Right, Rights, ScheduleKey, Unlock, View, chain,
};
use testkit::{Fault, FaultyStore, MemoryStore, TreeSource};

fn key(byte: u8) -> ScheduleKey {
    ScheduleKey::from_bytes([byte; 32])
}

/// A domain with one snapshot made by who may do everything, and a key of fewer rights.
fn shared(
    rights: Rights,
    source: TreeSource,
) -> (World, World, Arc<MemoryStore>, TreeSource, SnapshotId) {
    let owner = World::new();
    let store = Arc::new(MemoryStore::default());
    let first = owner.run_well(&store, &source);
    let place: Arc<dyn ObjectStore> = store.clone();
    let domain = owner.domain(&place);
    let unlock = Unlock::Key(&key(1));
    domain.add_slot(&unlock, rights, &owner.entropy).unwrap();
    let mut writer = World::new();
    writer.key = key(1);
    writer.cache = Some(Arc::new(MemoryStore::default()));
    writer.clock.advance_secs(100_000);
    (owner, writer, store, source, first)
}

/// Some files, and one of so many chunks that they have a list of their own.
fn few() -> TreeSource {
    let mut source = TreeSource::default();
    for number in 0..5 {
        source.add_file(&format!("server/{number}"), noise(number, 4000));
    }
    source.add_file("server/listed.sql", noise(9, 5_500_000));
    source
}

fn no_right<T: std::fmt::Debug>(result: Result<T, RepositoryError>, wanted: Right) {
    let error = result.expect_err("what the key may not do");
    let is_right = matches!(error, RepositoryError::NoRight { right, .. } if right == wanted);
    assert!(is_right, "{error:?}");
}

#[test]
fn who_may_only_add_backs_up_and_reads_nothing() {
    let (owner, writer, store, mut source, first) = shared(Rights::ADD, one_of_everything());
    let before = source.clone();
    source.add_file("acme.1001/files/new", noise(77, 500_000));
    let report = writer.run_one(&store, &source, &Silent);
    let second = snapshot_of(&report, 0);
    let stored = report.replicas[0].stored_bytes.get();
    assert!(
        (500_000..700_000).contains(&stored),
        "what was there is not stored again: {stored}"
    );

    let report = writer.run_one(&store, &source, &Silent);
    let third = snapshot_of(&report, 0);
    // The stream is read each time.
    let streams: u64 = 40_000 * "insert into t values (1);\n".len() as u64;
    assert_eq!(report.counts.read_bytes.get(), streams);
    let stored = report.replicas[0].stored_bytes.get();
    assert!(stored < 4096, "{stored} bytes for nothing new");

    let place: Arc<dyn ObjectStore> = store.clone();
    let domain = Domain::open(place.clone(), &writer.key).unwrap();
    assert_eq!(domain.rights(), Rights::ADD);
    for id in [first, second, third] {
        no_right(domain.snapshot(id), Right::Read);
    }
    no_right(domain.snapshots(), Right::Read);
    no_right(View::open(domain.clone()), Right::Read);
    no_right(domain.forget(&[first]), Right::Delete);
    no_right(
        domain.discard(&[first], edge::Clock::now(&writer.clock)),
        Right::Delete,
    );
    no_right(prune_with(&writer, &place, 0, None), Right::Delete);
    let refused = domain.snapshot(second).unwrap_err();
    assert_eq!(
        chain(&refused),
        "the key that was given has no right to read the backups, at memory"
    );

    owner.assert_restores(&store, first, &before);
    owner.assert_restores(&store, second, &source);
    owner.assert_restores(&store, third, &source);
    let report = owner.view(&store).check(CheckDepth::Data, &Silent).unwrap();
    assert!(report.is_sound(), "{report:?}");
    let parent = owner
        .view(&store)
        .domain()
        .snapshot(third)
        .unwrap()
        .body
        .parent;
    assert_eq!(parent, Some(second));
}

#[test]
fn a_lost_or_damaged_cache_costs_time_and_nothing_else() {
    let (owner, mut writer, store, source, _) = shared(Rights::ADD, few());
    let cache = Arc::new(MemoryStore::default());
    writer.cache = Some(cache.clone());
    writer.run_well(&store, &source);
    let kept = cache.objects();
    assert!(kept.len() >= 3, "a key, pages and a snapshot");
    let all: u64 = source
        .specs()
        .values()
        .map(|spec| spec.data.len() as u64)
        .sum();
    for name in kept.keys() {
        cache.set_objects(kept.clone());
        assert!(cache.damage(name, 20));
        let report = writer.run_one(&store, &source, &Silent);
        assert!(report.replicas[0].stored_bytes.get() < 8192, "{name}");
        let id = snapshot_of(&report, 0);
        owner.assert_restores(&store, id, &source);
    }
    cache.set_objects(Default::default());
    let report = writer.run_one(&store, &source, &Silent);
    assert!(report.counts.read_bytes.get() > all / 2);
    assert!(report.replicas[0].stored_bytes.get() < 8192);
    owner.assert_restores(&store, snapshot_of(&report, 0), &source);
}

#[test]
fn runs_of_who_may_only_add_may_be_cut_anywhere() {
    let (owner, mut writer, store, mut source, first) = shared(Rights::ADD, few());
    let before = source.clone();
    source.add_file("acme.1001/files/new", noise(78, 300_000));
    let origin = store.objects();
    let plain_run = {
        writer.run_well(&store, &source);
        store.total_bytes()
    };
    let mut cut_at = 0;
    loop {
        store.set_objects(origin.clone());
        writer.cache = Some(Arc::new(MemoryStore::default()));
        let whole: Arc<dyn ObjectStore> = store.clone();
        let faulty = Arc::new(FaultyStore::new(whole, Fault::CutAt { at: cut_at }));
        let cut: Arc<dyn ObjectStore> = faulty.clone();
        writer.run(&[&cut], &source, &Silent);
        let is_whole = faulty.hits() == 0;
        let id = writer.run_well(&store, &source);
        owner.assert_restores(&store, id, &source);
        // Packs that the cut run left were taken up, not stored again.
        let more = store.total_bytes().saturating_sub(plain_run);
        assert!(more < 32 * 1024, "cut at {cut_at}: {more} bytes more");
        if is_whole {
            break;
        }
        cut_at += 1;
    }
    assert!(cut_at > 8, "{cut_at} operations were cut");
    owner.assert_restores(&store, first, &before);
}

#[test]
fn the_pages_kept_on_the_machine_stay_few() {
    let (owner, mut writer, store, mut source, _) = shared(Rights::ADD, few());
    let cache = Arc::new(MemoryStore::default());
    writer.cache = Some(cache.clone());
    for number in 0..300 {
        source.add_file(&format!("acme.1001/many/{number:04}"), noise(number, 300));
    }
    let mut largest = 0;
    let mut last = None;
    for number in 0..90_u64 {
        source.add_file("acme.1001/many/0150", noise(1000 + number, 300));
        last = Some(writer.run_well(&store, &source));
        largest = largest.max(cache.objects().len());
    }
    assert!(largest < 200, "{largest} objects in the cache");
    let report = writer.run_one(&store, &source, &Silent);
    assert_eq!(report.counts.read_bytes.get(), 0);
    owner.assert_restores(&store, last.unwrap(), &source);
}

#[test]
fn each_right_is_asked_for() {
    for rights in [Rights::READ, Rights::READ_AND_DELETE] {
        let (_, other, store, source, first) = shared(rights, few());
        let report = other.run_one(&store, &source, &Silent);
        let error = report.replicas.into_iter().next().unwrap().error;
        no_right(error.map_or(Ok(()), Err), Right::Add);
        other.assert_restores(&store, first, &source);
        let place: Arc<dyn ObjectStore> = store.clone();
        let pruned = prune_with(&other, &place, 0, None);
        assert_eq!(pruned.is_ok(), rights.has(Right::Delete));
    }
    let (owner, other, store, mut source, first) = shared(Rights::ADD_AND_READ, few());
    source.remove(&path("server/1"));
    let second = other.run_well(&store, &source);
    other.assert_restores(&store, second, &source);
    let place: Arc<dyn ObjectStore> = store.clone();
    no_right(prune_with(&other, &place, 0, None), Right::Delete);
    let domain = Domain::open(place.clone(), &other.key).unwrap();
    no_right(domain.forget(&[first]), Right::Delete);
    no_right(domain.begin_epoch(&key(5), &owner.entropy), Right::Delete);
}

#[test]
fn what_was_added_is_pruned_and_sealed_anew_by_who_may() {
    let (mut owner, writer, store, mut source, first) = shared(Rights::ADD, few());
    let place: Arc<dyn ObjectStore> = store.clone();
    source.add_file("acme.1001/files/new", noise(79, 200_000));
    writer.run_well(&store, &source);
    source.add_file("acme.1001/files/new", noise(80, 200_000));
    let last = writer.run_well(&store, &source);
    let domain = owner.domain(&place);
    let ids: Vec<_> = domain.snapshots().unwrap().snapshots;
    let gone: Vec<_> = ids
        .iter()
        .map(|one| one.id)
        .filter(|id| *id != last)
        .collect();
    assert!(gone.contains(&first));
    domain.forget(&gone).unwrap();
    let report = prune_with(&owner, &place, 0, None).unwrap();
    assert!(report.deleted_packs > 0, "{report:?}");
    owner.assert_restores(&store, last, &source);
    // Packs that are about to be deleted are known to who may not delete them.
    source.add_file("acme.1001/files/new", noise(81, 200_000));
    domain.forget(&[last]).unwrap();
    let next = writer.run_well(&store, &source);
    prune_with(&owner, &place, 1000, None).unwrap();
    let again = writer.run_well(&store, &source);
    owner.assert_restores(&store, next, &source);
    owner.assert_restores(&store, again, &source);
    domain.begin_epoch(&key(9), &owner.entropy).unwrap();
    owner.key = key(9);
    let place: Arc<dyn ObjectStore> = store.clone();
    let refused = Domain::open(place, &writer.key);
    assert!(matches!(refused, Err(RepositoryError::WrongKey { .. })));
    owner.assert_restores(&store, again, &source);
}
