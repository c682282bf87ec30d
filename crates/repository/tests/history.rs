//! Random histories: whatever is backed up, forgotten and pruned, every snapshot that is left
//! restores byte for byte.

mod common;

use std::collections::BTreeMap;
use std::sync::Arc;

use common::{GRACE_SECS, World, noise, path, prune, prune_with};
use edge::{ObjectName, ObjectStore, Silent};
use model::SnapshotId;
use proptest::prelude::*;
use repository::{CheckDepth, Keep, PruneReport, Repack};
use testkit::{MemoryStore, TreeSource};

#[test]
fn forgotten_content_is_deleted_after_the_grace_and_no_sooner() {
    let world = World::new();
    let store = Arc::new(MemoryStore::default());
    let mut source = TreeSource::default();
    source.add_file("kept", noise(1, 300_000));
    source.add_file("gone", noise(2, 2_000_000));
    world.run_well(&store, &source);
    source.remove(&path("gone"));
    source.add_file("kept", noise(3, 300_000));
    let second = world.run_well(&store, &source);
    assert_eq!(prune(&world, &store), PruneReport::default());

    let domain = world.view(&store).domain().clone();
    let keep = Keep {
        last: 1,
        ..Keep::default()
    };
    let now = edge::Clock::now(&world.clock);
    assert_eq!(domain.apply_retention(&keep, now).unwrap().len(), 1);
    let packs = || {
        let is_pack = |name: &&ObjectName| ["/p/", "/m/"].iter().any(|p| name.as_str().contains(p));
        store.objects().keys().filter(is_pack).count()
    };
    let before = packs();
    let report = prune(&world, &store);
    assert!(report.condemned_packs > 0 && report.deleted_packs == 0);
    assert_eq!(prune(&world, &store).deleted_packs, 0);
    assert_eq!(packs(), before);

    world.clock.advance_secs(i64::from(GRACE_SECS));
    let deleted = prune(&world, &store);
    assert_eq!(deleted.deleted_packs, report.condemned_packs);
    assert!(deleted.freed_bytes.get() > 2_000_000);
    assert!(store.total_bytes() < 1_000_000);
    world.assert_restores(&store, second, &source);
    assert!(
        store
            .objects()
            .keys()
            .all(|name| !name.as_str().starts_with("w/"))
    );
    let id = world.run_well(&store, &source);
    world.assert_restores(&store, id, &source);
}

#[test]
fn nothing_is_deleted_while_a_snapshot_cannot_be_read() {
    let world = World::new();
    let store = Arc::new(MemoryStore::default());
    let mut source = TreeSource::default();
    source.add_file("a", noise(1, 300_000));
    let first = world.run_well(&store, &source);
    source.add_file("a", noise(2, 300_000));
    world.run_well(&store, &source);
    let objects = store.objects();
    let name = objects
        .keys()
        .find(|name| name.as_str().contains(&first.to_string()))
        .unwrap();
    store.damage(name, 120);
    let before = store.objects();
    let place: Arc<dyn ObjectStore> = store.clone();
    assert!(prune_with(&world, &place, 0, None).is_err());
    assert_eq!(store.objects(), before);
}

#[test]
fn many_runs_keep_few_segments() {
    let world = World::new();
    let store = Arc::new(MemoryStore::default());
    let mut source = TreeSource::default();
    let mut snapshots = Vec::new();
    for number in 0..25 {
        source.add_file(&format!("file{number}"), noise(number, 3000));
        snapshots.push((world.run_well(&store, &source), source.clone()));
    }
    let objects = store.objects();
    let segments = objects
        .keys()
        .filter(|name| name.as_str().contains("/i/"))
        .count();
    assert!(segments <= 8, "{segments} segments");
    for (id, source) in &snapshots {
        world.assert_restores(&store, *id, source);
    }
}

#[derive(Debug, Clone)]
enum Step {
    Write { file: u8, seed: u8, kilobytes: u16 },
    Remove { file: u8 },
    Run,
    Forget { nth: u8 },
    Undelete { nth: u8 },
    Prune { repack: Option<u8>, at_once: bool },
    Wait,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0_u8..12, any::<u8>(), 0_u16..400)
            .prop_map(|(file, seed, kilobytes)| Step::Write { file, seed, kilobytes }),
        1 => (0_u8..12).prop_map(|file| Step::Remove { file }),
        4 => Just(Step::Run),
        2 => any::<u8>().prop_map(|nth| Step::Forget { nth }),
        1 => any::<u8>().prop_map(|nth| Step::Undelete { nth }),
        2 => (proptest::option::of(0_u8..60), any::<bool>())
            .prop_map(|(repack, at_once)| Step::Prune { repack, at_once }),
        1 => Just(Step::Wait),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn every_snapshot_that_is_left_restores(steps in proptest::collection::vec(step(), 5..30)) {
        let world = World::new();
        let store = Arc::new(MemoryStore::default());
        let mut source = TreeSource::default();
        let mut left: BTreeMap<SnapshotId, TreeSource> = BTreeMap::new();
        let mut trash: Vec<(SnapshotId, TreeSource)> = Vec::new();
        left.insert(world.run_well(&store, &source), source.clone());
        for step in steps {
            match step {
                Step::Write { file, seed, kilobytes } => {
                    let name = format!("dir{}/file{file}", file % 3);
                    source.add_file(&name, noise(seed.into(), usize::from(kilobytes) * 1000));
                }
                Step::Remove { file } => {
                    source.remove(&path(&format!("dir{}/file{file}", file % 3)));
                }
                Step::Run => {
                    left.insert(world.run_well(&store, &source), source.clone());
                }
                Step::Forget { nth } => {
                    let id = left.keys().nth(usize::from(nth) % left.len().max(1)).copied();
                    if let Some(id) = id {
                        let source_of = left.remove(&id).unwrap();
                        let now = edge::Clock::now(&world.clock);
                        world.view(&store).domain().discard(&[id], now).unwrap();
                        trash.push((id, source_of.clone()));
                    }
                }
                Step::Undelete { nth } => {
                    let domain = world.view(&store).domain().clone();
                    let listed: Vec<_> = domain.trash().unwrap().iter().map(|t| t.snapshot.id).collect();
                    prop_assert_eq!(listed.len(), trash.len());
                    if !trash.is_empty() {
                        let (id, source) = trash.remove(usize::from(nth) % trash.len());
                        domain.undelete(id).unwrap();
                        left.insert(id, source);
                    }
                }
                Step::Prune { repack, at_once } => {
                    let place: Arc<dyn ObjectStore> = store.clone();
                    let grace_secs = if at_once { 0 } else { GRACE_SECS };
                    let repack = repack.map(|waste_percent| Repack {
                        waste_percent,
                        bytes_max: 500_000,
                        ..Repack::default()
                    });
                    prune_with(&world, &place, grace_secs, repack).unwrap();
                    // It keeps nothing in the trash.
                    trash.clear();
                }
                Step::Wait => world.clock.advance_secs(i64::from(GRACE_SECS)),
            }
        }
        for (id, source) in &left {
            world.assert_restores(&store, *id, source);
        }
        let report = world.view(&store).check(CheckDepth::Data, &Silent).unwrap();
        prop_assert!(report.is_sound(), "{report:?}");
        prop_assert_eq!(report.snapshots, left.len() as u64);
    }
}
