//! Content that is read in order is what was backed up, byte for byte, or the reading ends.

#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]
#![expect(clippy::indexing_slicing, reason = "a test ends at the first surprise")]

mod common;

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::sync::Arc;

use common::{World, noise, one_of_everything, path};
use edge::{Silent, TreePath};
use model::Exit;
use repository::{Domain, StreamError, StreamReport, View};
use testkit::{MemoryStore, RecordingStore, TreeSource};

type Contents = BTreeMap<TreePath, Option<Vec<u8>>>;

fn read_all(view: &View, below: &str) -> (Contents, Result<StreamReport, StreamError>) {
    let list = view.domain().snapshots().unwrap().snapshots;
    let mut found = BTreeMap::new();
    let at = (&list[0], &path(below));
    let done = view.stream(at, &Silent, &mut |entry, content| {
        let bytes = match content {
            None => None,
            Some(content) => {
                let mut bytes = Vec::new();
                let done = content.read_to_end(&mut bytes);
                found.insert(entry.path.clone(), Some(bytes.clone()));
                done?;
                Some(bytes)
            }
        };
        found.insert(entry.path.clone(), bytes);
        Ok(())
    });
    (found, done)
}

#[test]
fn everything_is_read_in_order_with_zeros_for_holes() {
    let world = World::new();
    let store = Arc::new(MemoryStore::default());
    let source = one_of_everything();
    let id = world.run_well(&store, &source);
    let (found, report) = read_all(&world.view(&store), "");
    let report = report.unwrap();
    assert_eq!((report.failed, report.entries), (0, found.len() as u64));
    let (restored, _) = world.restore(&store, id);
    assert!(found.keys().eq(restored.keys()));
    for (path, spec) in source.specs() {
        let expected = spec.extents.as_ref().map_or_else(
            || spec.data.to_vec(),
            |extents| {
                let mut bytes = vec![0; usize::try_from(spec.entry.size_bytes).unwrap()];
                let mut from = 0;
                for extent in extents {
                    let at = usize::try_from(extent.offset).unwrap();
                    let length = usize::try_from(extent.length).unwrap();
                    bytes[at..at + length].copy_from_slice(&spec.data[from..from + length]);
                    from += length;
                }
                bytes
            },
        );
        if let Some(bytes) = &found[path] {
            assert!(*bytes == expected, "content of {path}");
        } else {
            assert!(expected.is_empty(), "{path}");
        }
    }
    let (part, _) = read_all(&world.view(&store), "server/hard");
    let names: Vec<_> = part.keys().map(ToString::to_string).collect();
    assert_eq!(names, ["/server/hard", "/server/hard/a", "/server/hard/b"]);
    let (_, absent) = read_all(&world.view(&store), "server/nowhere");
    assert!(matches!(absent, Err(StreamError::Absent { .. })));
}

#[test]
fn no_wrong_byte_is_given_when_content_is_damaged() {
    let world = World::new();
    let store = Arc::new(MemoryStore::default());
    let mut source = TreeSource::default();
    source.add_file("a-small", noise(1, 5000));
    source.add_file("b-large.bin", noise(2, 40_000_000));
    world.run_well(&store, &source);
    let view = world.view(&store);
    let objects = store.objects();
    let mut packs: Vec<_> = objects
        .keys()
        .filter(|name| name.as_str().contains("/p/"))
        .collect();
    packs.sort_by_key(|name| objects[*name].len());
    let (mut ended, mut left_out) = (0, 0);
    for pack in packs {
        store.set_objects(objects.clone());
        assert!(store.damage(pack, 5000));
        let (found, done) = read_all(&view, "");
        for (path, bytes) in found {
            let whole = &source.specs()[&path].data;
            assert!(
                bytes.is_none_or(|bytes| whole.starts_with(&bytes)),
                "{path}"
            );
        }
        match done {
            Err(error) => {
                assert!(matches!(error, StreamError::Content { .. }), "{error}");
                assert_eq!(error.exit(), Exit::Damage);
                ended += 1;
            }
            Ok(report) => {
                assert!(report.failed > 0);
                left_out += 1;
            }
        }
    }
    assert!(ended > 0 && left_out > 0, "{ended} {left_out}");
}

#[test]
fn neighbouring_small_files_are_read_with_few_requests() {
    let world = World::new();
    let store = Arc::new(MemoryStore::default());
    let mut source = TreeSource::default();
    for number in 0..2000 {
        source.add_file(&format!("mail/{number:04}"), noise(number, 3000));
    }
    world.run_well(&store, &source);
    let recording = Arc::new(RecordingStore::new(store));
    let view = View::open(Domain::open(recording.clone(), &world.key).unwrap()).unwrap();
    let list = view.domain().snapshots().unwrap().snapshots;
    recording.take_requests();
    let at = (&list[0], &TreePath::root());
    let report = view.stream(at, &Silent, &mut |_, content| match content {
        Some(content) => io::copy(content, &mut io::sink()).map(drop),
        None => Ok(()),
    });
    assert_eq!(report.unwrap().bytes.get(), 6_000_000);
    let requests = recording.take_requests();
    assert!(requests.ranges <= 40, "{requests:?}");
}
