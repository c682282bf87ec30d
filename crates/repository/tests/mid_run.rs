//! What a run leaves before its end: index segments of what is stored by then.

#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod common;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use common::{World, noise, snapshot_of};
use edge::{ByteRange, ObjectInfo, ObjectName, ObjectStore, Silent, StoreError};
use model::ByteCount;
use repository::Checkpoints;
use testkit::{Fault, FaultyStore, MemoryStore, TreeSource};

/// A place so slow that minutes pass with every pack.
struct SlowStore {
    world: Arc<World>,
    inner: Arc<dyn ObjectStore>,
    /// Of what parts were read.
    read: Mutex<BTreeSet<ObjectName>>,
    segments_written: AtomicUsize,
}

impl ObjectStore for SlowStore {
    fn describe(&self) -> String {
        self.inner.describe()
    }

    fn put(&self, name: &ObjectName, bytes: &[u8]) -> Result<(), StoreError> {
        if name.as_str().contains("/p/") {
            self.world.clock.advance_secs(400);
        }
        if name.as_str().contains("/i/") {
            self.segments_written.fetch_add(1, Ordering::Relaxed);
        }
        self.inner.put(name, bytes)
    }

    fn get(&self, name: &ObjectName, bytes_max: u64) -> Result<Vec<u8>, StoreError> {
        self.inner.get(name, bytes_max)
    }

    fn get_range(&self, name: &ObjectName, range: ByteRange) -> Result<Vec<u8>, StoreError> {
        self.read.lock().unwrap().insert(name.clone());
        self.inner.get_range(name, range)
    }

    fn size(&self, name: &ObjectName) -> Result<Option<u64>, StoreError> {
        self.inner.size(name)
    }

    fn list(&self, prefix: &str, each: &mut dyn FnMut(ObjectInfo)) -> Result<(), StoreError> {
        self.inner.list(prefix, each)
    }

    fn delete(&self, name: &ObjectName) -> Result<(), StoreError> {
        self.inner.delete(name)
    }
}

fn slow(world: &Arc<World>, inner: Arc<dyn ObjectStore>) -> Arc<SlowStore> {
    Arc::new(SlowStore {
        world: Arc::clone(world),
        inner,
        read: Mutex::default(),
        segments_written: AtomicUsize::new(0),
    })
}

fn segments(store: &MemoryStore) -> usize {
    let names = store.objects().into_keys();
    names.filter(|name| name.as_str().contains("/i/")).count()
}

fn packs(store: &MemoryStore) -> BTreeSet<ObjectName> {
    let names = store.objects().into_keys();
    let is_pack = |name: &ObjectName| name.as_str().contains("/p/");
    names.filter(is_pack).collect()
}

/// Checkpoints write the index, too.
fn without_checkpoints() -> World {
    let mut world = World::new();
    world.tuning.checkpoints = Checkpoints {
        secs: u32::MAX,
        bytes: ByteCount::new(u64::MAX),
    };
    world
}

/// A little more than five packs.
fn five_packs() -> TreeSource {
    let mut source = TreeSource::default();
    for number in 0..9 {
        source.add_file(&format!("file{number}.bin"), noise(number, 10_000_000));
    }
    source
}

#[test]
fn a_long_run_writes_its_index_as_it_goes() {
    let world = Arc::new(without_checkpoints());
    let store = Arc::new(MemoryStore::default());
    let source = five_packs();
    let recorded = slow(&world, store.clone());
    let place: Arc<dyn ObjectStore> = recorded.clone();
    let report = world.run(&[&place], &source, &Silent);
    let first = snapshot_of(&report, 0);
    let written = recorded.segments_written.load(Ordering::Relaxed);
    assert!(written > 2, "only at its end");
    // At its end they are one: who looks up a chunk has one to ask.
    assert_eq!(segments(&store), 1);
    world.assert_restores(&store, first, &source);
    // Segments of many runs are merged, those within a run with them.
    let mut more = five_packs();
    for round in 0..4 {
        more.add_file(&format!("more{round}.bin"), noise(100 + round, 35_000_000));
        let report = world.run(&[&place], &more, &Silent);
        let last = snapshot_of(&report, 0);
        if round == 3 {
            world.assert_restores(&store, last, &more);
        }
    }
    assert!(segments(&store) <= 8 + 2, "{}", segments(&store));
    world.assert_restores(&store, first, &source);
}

#[test]
fn what_a_cut_run_has_in_the_index_is_not_looked_at_again() {
    let world = Arc::new(without_checkpoints());
    let store = Arc::new(MemoryStore::default());
    let source = five_packs();
    let cut = Arc::new(FaultyStore::new(
        store.clone(),
        Fault::CutAfterBytes {
            written: 60_000_000,
        },
    ));
    let place: Arc<dyn ObjectStore> = slow(&world, cut);
    let report = world.run(&[&place], &source, &Silent);
    assert!(report.replicas[0].error.is_some());
    let (stored, indexed) = (store.total_bytes(), segments(&store));
    assert!(stored > 40_000_000, "{stored}");
    assert!(indexed > 0);
    // Whose trailers are read was stored before and is named by no segment.
    let before = packs(&store);
    let read = slow(&world, store.clone());
    let place: Arc<dyn ObjectStore> = read.clone();
    let report = world.run(&[&place], &source, &Silent);
    let read: BTreeSet<_> = read.read.lock().unwrap().clone();
    let looked_at = before.intersection(&read).count();
    assert!(looked_at < before.len(), "{looked_at} of {}", before.len());
    // Less than a pack is stored twice.
    let twice = store.total_bytes().saturating_sub(90_000_000);
    assert!(twice < 16_000_000, "{twice}");
    world.assert_restores(&store, snapshot_of(&report, 0), &source);
}
