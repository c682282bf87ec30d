//! Packs that the index names and that are gone: damage when something is lost with them, else not.

#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod common;

use std::sync::Arc;

use common::{World, noise, path, prune_with};
use edge::{Clock as _, ObjectName, ObjectStore, Silent};
use model::SnapshotId;
use repository::{CheckDepth, CheckReport, Repack};
use testkit::{MemoryStore, TreeSource};

/// A world with one snapshot, which shares a file with one that was let go.
struct Two {
    world: World,
    store: Arc<MemoryStore>,
    source: TreeSource,
    id: SnapshotId,
    /// The index before the second run.
    segments: Vec<(ObjectName, Vec<u8>)>,
}

impl Two {
    fn new() -> Self {
        let world = World::new();
        let store = Arc::new(MemoryStore::default());
        let mut source = TreeSource::default();
        source.add_file("stays", noise(1, 60_000));
        source.add_file("goes", noise(2, 600_000));
        let first = world.run_well(&store, &source);
        let is_segment = |name: &ObjectName| name.as_str().contains("/i/");
        let objects = store.objects().into_iter();
        let segments = objects.filter(|(name, _)| is_segment(name)).collect();
        source.remove(&path("goes"));
        source.add_file("comes", noise(3, 60_000));
        let id = world.run_well(&store, &source);
        world.view(&store).domain().forget(&[first]).unwrap();
        Self {
            world,
            store,
            source,
            id,
            segments,
        }
    }

    fn check(&self, depth: CheckDepth) -> CheckReport {
        self.world.view(&self.store).check(depth, &Silent).unwrap()
    }

    /// Takes the data packs away that were there before the second run, or those that came later.
    fn lose_packs(&self, is_of_first: bool) -> Vec<String> {
        let mut packs: Vec<_> = self.store.objects().into_iter().collect();
        packs.retain(|(name, _)| name.as_str().contains("/p/"));
        let longest = packs.iter().map(|(_, bytes)| bytes.len()).max().unwrap();
        packs.retain(|(_, bytes)| (bytes.len() == longest) == is_of_first);
        assert!(!packs.is_empty());
        for (name, _) in &packs {
            self.store.delete(name).unwrap();
        }
        packs
            .into_iter()
            .map(|(name, _)| name.to_string())
            .collect()
    }
}

const DEPTHS: [CheckDepth; 3] = [
    CheckDepth::Presence,
    CheckDepth::Structure,
    CheckDepth::Data,
];

#[test]
fn what_a_merged_segment_names_of_deleted_packs_is_no_damage() {
    let two = Two::new();
    let place: Arc<dyn ObjectStore> = two.store.clone();
    let report = prune_with(&two.world, &place, 0, Some(Repack::default())).unwrap();
    assert!(report.emptied_packs > 0 && report.deleted_packs > 0);
    // A run read them before the deletion wrote them anew, and stored what it read after that.
    for (name, bytes) in &two.segments {
        two.store.put(name, bytes).unwrap();
    }
    for depth in DEPTHS {
        let report = two.check(depth);
        assert!(report.is_sound(), "{depth:?}: {report:?}");
        assert!(report.packs > 0 && report.damage.is_empty());
    }
    two.world.assert_restores(&two.store, two.id, &two.source);
}

#[test]
fn beside_a_damaged_segment_nothing_else_is_lost_with_packs_that_nobody_needs() {
    let two = Two::new();
    let place: Arc<dyn ObjectStore> = two.store.clone();
    prune_with(&two.world, &place, 0, Some(Repack::default())).unwrap();
    let mut now = two.store.objects().into_keys();
    let segment = now.find(|name| name.as_str().contains("/i/")).unwrap();
    for (name, bytes) in &two.segments {
        two.store.put(name, bytes).unwrap();
    }
    two.store.put(&segment, b"no segment").unwrap();
    let report = two.check(CheckDepth::Data);
    assert_eq!(report.affected, 0, "{report:?}");
    let named: Vec<_> = report.damage.iter().map(|one| &*one.object).collect();
    assert!(named.contains(&segment.as_str()), "{named:?}");
    two.world.assert_restores(&two.store, two.id, &two.source);
}

#[test]
fn what_is_lost_with_a_pack_that_is_gone_is_damage() {
    let two = Two::new();
    let lost = two.lose_packs(true);
    for depth in DEPTHS {
        let report = two.check(depth);
        let named: Vec<_> = report.damage.iter().map(|one| one.object.clone()).collect();
        assert_eq!(named, lost, "{depth:?}");
        let files: Vec<_> = report.affected_files.iter().map(|one| &*one.path).collect();
        assert_eq!(files, ["/stays"], "{depth:?}");
    }
}

#[test]
fn what_only_the_trash_needs_of_a_pack_that_is_gone_is_damage() {
    let two = Two::new();
    let domain = two.world.view(&two.store);
    let domain = domain.domain();
    let now = two.world.clock.now();
    domain.discard(&[two.id], now).unwrap();
    let lost = two.lose_packs(false);
    let report = two.check(CheckDepth::Structure);
    let named: Vec<_> = report.damage.iter().map(|one| one.object.clone()).collect();
    assert_eq!(named, lost);
    assert_eq!(report.affected, 0);
}
