//! An index that is long enough for metadata to have a segment of their own: one file takes few
//! requests, and damage to any of its segments loses nothing.

mod common;

use std::sync::Arc;

use common::{World, noise, path, snapshot_of};
use edge::{ObjectName, ObjectStore, Silent};
use repository::{CheckDepth, Domain, View};
use testkit::{CollectingTarget, MemoryStore, RecordingStore, TreeSource};

const FILES: u64 = 33_000;

fn name(number: u64) -> String {
    format!("acme.1001/files/dir{:02}/file{number:05}", number / 1000)
}

fn many_files() -> TreeSource {
    let mut source = TreeSource::default();
    for number in 0..FILES {
        source.add_file(&name(number), noise(number, 260));
    }
    source
}

fn segments(store: &MemoryStore) -> Vec<(ObjectName, usize)> {
    let objects = store.objects().into_iter();
    let segments = objects.filter(|(name, _)| name.as_str().contains("/i/"));
    let mut segments: Vec<_> = segments.map(|(name, bytes)| (name, bytes.len())).collect();
    segments.sort_by_key(|(_, size)| *size);
    segments
}

#[test]
fn one_file_of_many_takes_few_requests() {
    let world = World::new();
    let store = Arc::new(MemoryStore::default());
    world.run_well(&store, &many_files());
    let sizes: Vec<_> = segments(&store).iter().map(|(_, size)| *size).collect();
    assert_eq!(sizes.len(), 2);
    assert!(sizes[0] < 65_536 && sizes[1] > 1_000_000, "{sizes:?}");

    let recording = Arc::new(RecordingStore::new(store));
    let place: Arc<dyn ObjectStore> = recording.clone();
    let view = View::open(Domain::open(place, &world.key).unwrap()).unwrap();
    let newest = view.domain().snapshots().unwrap().snapshots.pop().unwrap();
    let one = path(&name(FILES / 2));
    let mut target = CollectingTarget::default();
    let report = view.restore(&newest, &[one], &mut target, &Silent).unwrap();
    assert_eq!((report.entries, report.failed), (4, 0));
    let asked = recording.take_requests();
    // Configuration, slot, snapshot and the short segment; what lists snapshots and segments; pages
    // on the way to the file and to the directories above it, a block of the long segment and a
    // frame, which cannot be compressed.
    assert_eq!((asked.gets, asked.lists), (4, 2), "{asked:?}");
    assert!(asked.ranges <= 6 && asked.sizes == 0, "{asked:?}");
    assert!(asked.bytes_read < 1_500_000, "{asked:?}");
}

#[test]
fn damage_to_a_part_of_the_index_loses_nothing() {
    let world = World::new();
    let sound = Arc::new(MemoryStore::default());
    let source = many_files();
    let id = world.run_well(&sound, &source);
    let packs = |store: &MemoryStore| -> Vec<_> {
        let names = store.objects().into_keys();
        names.filter(|name| name.as_str().contains("/p/")).collect()
    };
    for (segment, _) in segments(&sound) {
        for is_deleted in [false, true] {
            let store = Arc::new(MemoryStore::default());
            for (name, bytes) in sound.objects() {
                store.put(&name, &bytes).unwrap();
            }
            match is_deleted {
                true => store.delete(&segment).unwrap(),
                false => store.put(&segment, b"no segment").unwrap(),
            }
            if !is_deleted {
                world.assert_restores(&store, id, &source);
            }
            // The next run takes up the packs, and stores none of them again.
            let place: Arc<dyn ObjectStore> = store.clone();
            let report = world.run(&[&place], &source, &Silent);
            snapshot_of(&report, 0);
            assert_eq!(packs(&store), packs(&sound), "{segment} {is_deleted}");
            world.assert_restores(&store, id, &source);
            let report = world.view(&store).check(CheckDepth::Structure, &Silent);
            assert!(report.unwrap().is_sound());
        }
    }
}
