//! Statistics are what a naive model counts.

#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use common::{World, noise, path};
use edge::{Clock as _, ObjectStore, Silent, TreePath};
use model::ByteCount;
use proptest::prelude::*;
use repository::{Domain, Statistics};
use testkit::{MemoryStore, RecordingStore, TreeSource};

/// Which content lies where: one chunk for each content, too long to lie in a page.
type Files = BTreeMap<(u8, u8, u8), u8>;

fn files() -> impl Strategy<Value = Files> {
    let place = (0_u8..3, 0_u8..3, 0_u8..4);
    proptest::collection::btree_map(place, 0_u8..12, 0..16)
}

const fn length_of(content: u8) -> u64 {
    300 + content as u64 * 7
}

fn tree(files: &Files) -> TreeSource {
    let mut source = TreeSource::default();
    for ((a, b, c), content) in files {
        let bytes = noise(
            (*content).into(),
            usize::try_from(length_of(*content)).unwrap(),
        );
        source.add_file(&format!("a{a}/b{b}/c{c}"), bytes);
    }
    source
}

fn statistics(world: &World, store: &Arc<MemoryStore>, below: &str) -> Statistics {
    let view = world.view(store);
    view.statistics(&path(below), &Silent).unwrap()
}

/// Gives the bytes of contents that only one of several sets holds.
fn only(own: &BTreeSet<u8>, others: &[&BTreeSet<u8>]) -> ByteCount {
    let is_own = |content: &&u8| !others.iter().any(|other| other.contains(*content));
    let lengths = own.iter().filter(is_own).map(|content| length_of(*content));
    ByteCount::new(lengths.sum())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn unique_bytes_are_those_of_a_naive_model(
        history in proptest::collection::vec(files(), 1..5),
    ) {
        let world = World::new();
        let store = Arc::new(MemoryStore::default());
        for files in &history {
            world.run_well(&store, &tree(files));
        }
        let found = statistics(&world, &store, "");
        let sets: Vec<BTreeSet<u8>> = history.iter().map(|files| files.values().copied().collect()).collect();
        let mut before = BTreeSet::new();
        for (number, (set, snapshot)) in sets.iter().zip(&found.snapshots).enumerate() {
            let others: Vec<_> = sets.iter().enumerate().filter(|(other, _)| *other != number).map(|(_, set)| set).collect();
            prop_assert_eq!(snapshot.unique.data_bytes, only(set, &others));
            prop_assert_eq!(snapshot.added.data_bytes, only(set, &[&before]));
            before.extend(set.iter().copied());
        }
        prop_assert_eq!(found.needed.data_bytes, only(&before, &[]));
        let logical: u64 = history.iter().flat_map(BTreeMap::values).map(|content| length_of(*content)).sum();
        prop_assert_eq!(found.logical_bytes, ByteCount::new(logical));

        for (below, at) in [("", None), ("a1", Some(1_u8))] {
            let found = statistics(&world, &store, below);
            let mut parts: BTreeMap<String, BTreeSet<u8>> = BTreeMap::new();
            let mut elsewhere = BTreeSet::new();
            for ((a, b, _), content) in history.iter().flatten() {
                match at {
                    None => parts.entry(format!("a{a}")).or_default().insert(*content),
                    Some(at) if at == *a => parts.entry(format!("b{b}")).or_default().insert(*content),
                    Some(_) => elsewhere.insert(*content),
                };
            }
            let names: Vec<_> = found.parts.iter().map(|part| String::from_utf8(part.name.clone()).unwrap()).collect();
            prop_assert_eq!(&names, &parts.keys().cloned().collect::<Vec<_>>());
            let mut own = ByteCount::ZERO;
            for (name, part) in names.iter().zip(&found.parts) {
                let mut others: Vec<_> = parts.iter().filter(|(other, _)| *other != name).map(|(_, set)| set).collect();
                others.push(&elsewhere);
                prop_assert_eq!(part.unique.data_bytes, only(&parts[name], &others));
                own += part.unique.data_bytes;
            }
            let all: BTreeSet<u8> = parts.values().flatten().copied().collect();
            prop_assert_eq!(found.shared.data_bytes + own, only(&all, &[&elsewhere]));
            prop_assert_eq!(found.elsewhere.data_bytes, only(&elsewhere, &[]));
        }
    }
}

#[test]
fn what_only_a_forgotten_snapshot_held_is_unneeded() {
    let world = World::new();
    let store = Arc::new(MemoryStore::default());
    let mut source = TreeSource::default();
    source.add_file("acme/large.sql", noise(1, 6_000_000));
    source.add_file("acme/kept", noise(2, 5000));
    let first = world.run_well(&store, &source);
    source.add_file("acme/large.sql", noise(3, 1000));
    world.run_well(&store, &source);
    let before = statistics(&world, &store, "acme");
    let unique = before.snapshots[0].unique;
    // Over 64 chunks: their list is stored apart, and counts as metadata.
    assert_eq!(unique.data_bytes, ByteCount::new(6_000_000));
    assert!(unique.chunks > 66, "{unique:?}");
    assert!(unique.stored_bytes > ByteCount::new(6_000_000));
    assert_eq!(before.unneeded.chunks, 0);
    assert_eq!(before.parts[0].name, b"kept");
    assert_eq!(before.parts[0].newest.bytes, ByteCount::new(5000));
    assert_eq!(before.parts[1].unique.data_bytes, ByteCount::new(6_001_000));
    let place: Arc<dyn ObjectStore> = store.clone();
    let domain = Domain::open(place, &world.key).unwrap();
    domain.discard(&[first], world.clock.now()).unwrap();
    let trashed = statistics(&world, &store, "acme");
    assert_eq!((trashed.trashed, trashed.unneeded.chunks), (unique, 0));
    let both = trashed.needed.data_bytes + unique.data_bytes;
    assert_eq!(both, before.needed.data_bytes);
    assert_eq!(trashed.parts[1].unique.data_bytes, ByteCount::new(1000));
    domain
        .undelete(first, &world.clock, &world.entropy)
        .unwrap();
    domain.forget(&[first]).unwrap();
    let after = statistics(&world, &store, "acme");
    assert_eq!(after.unneeded, unique);
    assert_eq!(after.snapshots.len(), 1);
    let sum = after.needed.stored_bytes + after.unneeded.stored_bytes;
    assert!(sum <= after.stored_bytes, "{sum} {}", after.stored_bytes);
    let both = before.snapshots[0].size.bytes + before.snapshots[1].size.bytes;
    assert_eq!(before.logical_bytes, both);
}

#[test]
fn pages_that_many_snapshots_share_are_read_twice_at_most() {
    let world = World::new();
    let store = Arc::new(MemoryStore::default());
    let mut source = TreeSource::default();
    for number in 0..20_000 {
        source.add_file(&format!("pad/{:03}/{number}", number % 50), "");
    }
    world.run_well(&store, &source);
    let requests = |store: &Arc<MemoryStore>| {
        let recording = Arc::new(RecordingStore::new(store.clone()));
        let view = repository::View::open(Domain::open(recording.clone(), &world.key).unwrap());
        view.unwrap()
            .statistics(&TreePath::root(), &Silent)
            .unwrap();
        recording.take_requests().ranges
    };
    let alone = requests(&store);
    for number in 0..6 {
        source.add_file("pad/049/changing", vec![b'x'; number]);
        world.run_well(&store, &source);
    }
    let all = requests(&store);
    assert!(all <= 2 * alone + 50, "{alone} {all}");
}
