//! What a run notes for the next one, so that this need not ask the index for each chunk, and that
//! nothing which is lost meanwhile stays unnoticed for it.

#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod common;

use std::collections::BTreeSet;
use std::sync::Arc;

use common::{World, noise, path, prune_with};
use edge::{ObjectName, ObjectStore, Silent};
use repository::{CheckDepth, Repack};
use testkit::{MemoryStore, TreeSource};

const FILES: u64 = 40;

/// A world with a cache, of which two runs know all files.
struct Known {
    world: World,
    cache: Arc<MemoryStore>,
    store: Arc<MemoryStore>,
    source: TreeSource,
    /// What the first run stored.
    first: BTreeSet<ObjectName>,
}

fn known() -> Known {
    let cache = Arc::new(MemoryStore::default());
    let mut world = World::new();
    world.cache = Some(cache.clone());
    let store = Arc::new(MemoryStore::default());
    let mut source = TreeSource::default();
    for number in 0..FILES / 2 {
        source.add_file(&format!("a/file{number:03}"), noise(number, 3_000));
    }
    world.run_well(&store, &source);
    let first = store.objects().into_keys().collect();
    for number in FILES / 2..FILES {
        source.add_file(&format!("b/file{number:03}"), noise(number, 3_000));
    }
    world.run_well(&store, &source);
    Known {
        world,
        cache,
        store,
        source,
        first,
    }
}

impl Known {
    fn unchanged(&self) -> u64 {
        let report = self.world.run_one(&self.store, &self.source, &Silent);
        let id = common::snapshot_of(&report, 0);
        self.world.assert_restores(&self.store, id, &self.source);
        report.counts.unchanged
    }

    fn delete(&self, part: &str, count: usize) {
        let named = |name: &&ObjectName| name.as_str().contains(part);
        let objects = self.store.objects();
        for name in objects.keys().filter(named).take(count) {
            self.store.delete(name).unwrap();
        }
    }

    fn note(&self) -> (ObjectName, String) {
        let mut objects = self.cache.objects().into_iter();
        let (name, note) = objects
            .find(|(name, _)| name.as_str().contains("/held-"))
            .unwrap();
        (name, String::from_utf8(note).unwrap())
    }
}

#[test]
fn nothing_changed_and_nothing_is_read() {
    let known = known();
    assert_eq!(known.unchanged(), FILES);
    assert_eq!(known.unchanged(), FILES);
}

#[test]
fn what_is_lost_is_stored_again_although_no_file_changed() {
    let known = known();
    // A pack that the index names, then a segment with all that it named.
    known.delete("/p/", 1);
    assert!(known.unchanged() < FILES);
    assert_eq!(known.unchanged(), FILES);
    known.delete("/i/", usize::MAX);
    known.delete("/p/", 1);
    assert!(known.unchanged() < FILES);
    assert_eq!(known.unchanged(), FILES);
}

#[test]
fn what_was_repacked_and_deleted_meanwhile_is_still_known() {
    let Known {
        world,
        cache: _cache,
        store,
        mut source,
        first: _,
    } = known();
    for number in 0..FILES / 4 {
        source.remove(&path(&format!("a/file{number:03}")));
    }
    world.run_well(&store, &source);
    let place: Arc<dyn ObjectStore> = store.clone();
    let snapshots = world.view(&store).domain().snapshots().unwrap().snapshots;
    let old: Vec<_> = snapshots.iter().rev().skip(1).map(|one| one.id).collect();
    world.view(&store).domain().forget(&old).unwrap();
    for grace_secs in [3600, 0] {
        let repack = Some(Repack::default());
        prune_with(&world, &place, grace_secs, repack).unwrap();
        let report = world.run_one(&store, &source, &Silent);
        assert_eq!(report.counts.unchanged, FILES - FILES / 4);
        let id = common::snapshot_of(&report, 0);
        world.assert_restores(&store, id, &source);
    }
    let checked = world.view(&store).check(CheckDepth::Data, &Silent);
    assert_eq!(checked.unwrap().damage, []);
}

#[test]
fn the_note_is_believed_only_while_its_segments_are_there() {
    for is_forged in [false, true] {
        let known = known();
        let (name, note) = known.note();
        // The first segment, and the content that it named.
        let first = known.first.iter().filter(|name| {
            let name = name.as_str();
            name.contains("/i/") || name.contains("/p/")
        });
        first.for_each(|name| known.store.delete(name).unwrap());
        if is_forged {
            let lost = |line: &&str| known.first.iter().any(|name| name.as_str().ends_with(line));
            let left: Vec<_> = note.lines().filter(|line| !lost(line)).collect();
            assert_eq!(left.len(), note.lines().count() - 1);
            known.cache.put(&name, left.join("\n").as_bytes()).unwrap();
        }
        let report = known.world.run_one(&known.store, &known.source, &Silent);
        // That a lie is believed shows that this is what the run goes by.
        let expected = if is_forged { FILES } else { FILES / 2 };
        assert_eq!(report.counts.unchanged, expected);
    }
}
