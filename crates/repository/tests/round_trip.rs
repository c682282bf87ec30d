//! What is backed up is restored, entry by entry and byte by byte; what did not change costs little.

mod common;

use std::sync::Arc;

use common::{World, noise, one_of_everything, path, snapshot_of};
use edge::{EntryKind, ObjectStore, Silent, TreePath};
use repository::{Domain, RepositoryError, Rights, ScheduleKey, SnapshotStatus, Unlock};
use testkit::{
    CollectingTarget, FileSpec, MemoryStore, RecordingMonitor, RecordingStore, TreeSource,
};

#[test]
fn everything_comes_back_as_it_was() {
    let world = World::new();
    let store = Arc::new(MemoryStore::default());
    let source = one_of_everything();
    let id = world.run_well(&store, &source);
    world.assert_restores(&store, id, &source);
    let (collected, report) = world.restore(&store, id);
    assert_eq!(collected[&path("server/z-hard")].link_to, None);
    assert_eq!(
        collected[&path("server/hard/b")].link_to,
        Some(path("server/z-hard"))
    );
    assert_eq!(report.entries, source.specs().len() as u64);
    let list = world.view(&store).domain().snapshots().unwrap();
    let snapshot = &list.snapshots[0];
    assert_eq!(snapshot.id, id);
    assert_eq!(snapshot.body.status, SnapshotStatus::Complete);
    assert_eq!(snapshot.body.accounts, ["acme.1001", "server"]);
    assert_eq!(snapshot.body.entries, report.entries);
}

#[test]
fn names_of_one_symbolic_link_stay_one_link() {
    let world = World::new();
    let store = Arc::new(MemoryStore::default());
    let mut source = TreeSource::default();
    for (name, inode, count) in [("a", 7, 2), ("b", 7, 2), ("c", 8, 1), ("d", 9, 2)] {
        let target = b"where".to_vec();
        let mut spec = FileSpec::plain(path(name), EntryKind::Symlink { target });
        spec.entry.inode = inode;
        spec.entry.link_count = count;
        source.add(spec);
    }
    let id = world.run_well(&store, &source);
    let (collected, _) = world.restore(&store, id);
    let links = ["a", "b", "c", "d"].map(|name| collected[&path(name)].link_to.clone());
    assert_eq!(links, [None, Some(path("a")), None, None]);
}

#[test]
fn a_source_without_entries_is_a_snapshot_too() {
    let world = World::new();
    let store = Arc::new(MemoryStore::default());
    let id = world.run_well(&store, &TreeSource::default());
    world.assert_restores(&store, id, &TreeSource::default());
}

fn three_thousand_files() -> TreeSource {
    let mut source = TreeSource::default();
    for number in 0..3000_usize {
        let name = format!("site/dir{}/page-{number}.php", number % 60);
        let text = format!("<?php // page {number}\n").repeat(50 + number % 200);
        source.add_file(&name, text);
    }
    source
}

#[test]
fn an_unchanged_second_run_opens_nothing_and_stores_under_64_kib() {
    let world = World::new();
    let store = Arc::new(MemoryStore::default());
    let source = three_thousand_files();
    let first = world.run_well(&store, &source);
    assert_eq!(source.take_opened(), 3000);
    let before = store.total_bytes();
    let second = world.run_well(&store, &source);
    assert_eq!(source.take_opened(), 0);
    let stored = store.total_bytes() - before;
    assert!(stored < 64 * 1024, "{stored} bytes");
    assert_ne!(first, second);
    world.assert_restores(&store, second, &source);
}

#[test]
fn a_run_is_compared_with_the_newest_snapshot_of_the_same_trees() {
    let mut world = World::new();
    let store = Arc::new(MemoryStore::default());
    let source = three_thousand_files();
    let mut other = TreeSource::default();
    other.add_file("etc/hosts", "127.0.0.1 localhost");
    world.run_well(&store, &source);
    world.run_well(&store, &other);
    source.take_opened();
    world.compare_by = vec![path("site")];
    let id = world.run_well(&store, &source);
    assert_eq!(source.take_opened(), 0);
    world.assert_restores(&store, id, &source);
    // Nothing holds these: the newest is as good as any.
    world.compare_by = vec![path("nowhere")];
    world.run_well(&store, &source);
    assert_eq!(source.take_opened(), 0);
}

#[test]
fn pages_that_are_taken_over_are_those_that_would_be_built() {
    let world = World::new();
    let store = Arc::new(MemoryStore::default());
    let pages = || {
        let objects = store.objects();
        let names = objects.keys().filter(|name| name.as_str().contains("/m/"));
        names.cloned().collect::<Vec<_>>()
    };
    let mut source = three_thousand_files();
    world.run_well(&store, &source);
    for step in 0..6 {
        let site = |name: &str| path(&format!("site/{name}"));
        match step {
            // Behind the last page, which has no border of its own.
            0 => source.add_file("site/dir9/zz-new.php", "new"),
            1 => source.remove(&site("dir9/zz-new.php")),
            2 => {
                (0..40).for_each(|n| source.remove(&site(&format!("dir9/page-{}.php", 9 + n * 60))))
            }
            3 => source.remove(&site("dir30")),
            4 => source.add_file("site/a-first.php", "first"),
            _ => {
                let entry = &mut source.get_mut(&site("dir45/page-45.php")).unwrap().entry;
                entry.mode = 0o600;
                entry.changed.secs += 5;
            }
        }
        world.run_well(&store, &source);
        let before = pages();
        // After an empty snapshot nothing can be taken over.
        world.run_well(&store, &TreeSource::default());
        let empty = pages();
        let id = world.run_well(&store, &source);
        assert_eq!(pages(), empty, "step {step}");
        assert!(empty.len() <= before.len() + 1);
        world.assert_restores(&store, id, &source);
    }
}

#[test]
fn one_appended_line_in_3000_files_stores_under_256_kib() {
    let world = World::new();
    let store = Arc::new(MemoryStore::default());
    let mut source = three_thousand_files();
    world.run_well(&store, &source);
    source.take_opened();
    let before = store.total_bytes();
    let name = path("site/dir17/page-1277.php");
    let spec = source.get_mut(&name).unwrap();
    let text = [spec.data.as_slice(), b"appended\n"].concat();
    spec.entry.size_bytes = text.len() as u64;
    spec.entry.changed.secs += 5;
    spec.data = Arc::new(text);
    let second = world.run_well(&store, &source);
    assert_eq!(source.take_opened(), 1);
    let stored = store.total_bytes() - before;
    assert!(stored < 256 * 1024, "{stored} bytes");
    world.assert_restores(&store, second, &source);
}

#[test]
fn a_file_that_changed_just_before_the_last_walk_is_read_again() {
    let world = World::new();
    let store = Arc::new(MemoryStore::default());
    let mut source = TreeSource::default();
    source.add_file("steady", "a");
    source.add_file("racy", "a");
    // The first walk begins a minute after the world does.
    source.get_mut(&path("racy")).unwrap().entry.changed.secs = 1_700_000_059;
    world.run_well(&store, &source);
    source.take_opened();
    world.run_well(&store, &source);
    assert_eq!(source.take_opened(), 1);
}

#[test]
fn streams_are_read_at_each_run_and_share_what_did_not_change() {
    let world = World::new();
    let store = Arc::new(MemoryStore::default());
    let mut source = TreeSource::default();
    let mut dump = noise(9, 4_000_000);
    source.add(FileSpec::stream(path("db.sql"), dump.clone()));
    world.run_well(&store, &source);
    let before = store.total_bytes();
    dump.splice(2_000_000..2_000_000, *b"one more row");
    source.add(FileSpec::stream(path("db.sql"), dump));
    let id = world.run_well(&store, &source);
    assert!(store.total_bytes() - before < 400_000);
    world.assert_restores(&store, id, &source);
}

#[test]
fn a_part_of_a_snapshot_restores_alone() {
    let world = World::new();
    let store = Arc::new(MemoryStore::default());
    let source = one_of_everything();
    let id = world.run_well(&store, &source);
    let view = world.view(&store);
    let snapshot = view.domain().snapshot(id).unwrap();
    let mut target = CollectingTarget::default();
    let wanted = [
        path("server/hard"),
        path("acme.1001/files/tiny"),
        path("no/such"),
    ];
    let report = view
        .restore(&snapshot, &wanted, &mut target, &Silent)
        .unwrap();
    let restored: Vec<_> = target.collected().keys().map(ToString::to_string).collect();
    assert_eq!(
        restored,
        [
            "/acme.1001",
            "/server",
            "/acme.1001/files",
            "/acme.1001/files/tiny",
            "/server/hard",
            "/server/hard/a",
            "/server/hard/b"
        ]
    );
    let failed: Vec<_> = report.failures.iter().map(|f| f.object.as_str()).collect();
    assert_eq!(failed, ["/no", "/no/such"]);
}

#[test]
fn a_refused_entry_does_not_stop_the_others() {
    let world = World::new();
    let store = Arc::new(MemoryStore::default());
    let source = one_of_everything();
    let id = world.run_well(&store, &source);
    let view = world.view(&store);
    let snapshot = view.domain().snapshot(id).unwrap();
    let mut target = CollectingTarget::default();
    target
        .refused
        .extend([path("server/z-hard"), path("acme.1001/files")]);
    let root = [TreePath::root()];
    let report = view
        .restore(&snapshot, &root, &mut target, &Silent)
        .unwrap();
    let collected = target.collected();
    assert_eq!(collected[&path("server/hard/a")].link_to, None);
    assert_eq!(
        collected[&path("server/hard/b")].link_to,
        Some(path("server/hard/a"))
    );
    assert!(!collected.contains_key(&path("acme.1001/files/tiny")));
    assert_eq!(report.failed, 9);
}

#[test]
fn directories_are_listed_with_few_requests() {
    let world = World::new();
    let store = Arc::new(MemoryStore::default());
    let id = world.run_well(&store, &three_thousand_files());
    let recording = Arc::new(RecordingStore::new(store));
    let domain = Domain::open(recording.clone(), &world.key).unwrap();
    let snapshot = domain.snapshot(id).unwrap();
    let view = repository::View::open(domain).unwrap();
    recording.take_requests();
    let entries = view.list(&snapshot, &path("site/dir7")).unwrap();
    assert_eq!(entries.len(), 50);
    let requests = recording.take_requests();
    assert!(requests.ranges <= 4 && requests.gets == 0, "{requests:?}");
    let root = view.list(&snapshot, &TreePath::root()).unwrap();
    assert_eq!(root.len(), 1);
    assert_eq!(root[0].kind, EntryKind::Directory);
    assert!(
        view.entry(&snapshot, &path("site/dir7/page-67.php"))
            .unwrap()
            .is_some()
    );
    assert!(
        view.entry(&snapshot, &path("site/dir7/page-6"))
            .unwrap()
            .is_none()
    );
}

#[test]
fn another_key_and_an_empty_place_are_told_apart() {
    let world = World::new();
    let store: Arc<dyn ObjectStore> = Arc::new(MemoryStore::default());
    assert!(matches!(
        Domain::open(store.clone(), &world.key),
        Err(RepositoryError::NoRepository { .. })
    ));
    world.domain(&store);
    let other = ScheduleKey::from_bytes([1; 32]);
    assert!(matches!(
        Domain::open(store.clone(), &other),
        Err(RepositoryError::WrongKey { .. })
    ));
    let domain = world.domain(&store);
    let (key, all) = (Unlock::Key(&other), Rights::ALL);
    domain.add_slot(&key, all, &world.entropy).unwrap();
    domain.remove_slot(world.key.slot_name()).unwrap();
    assert_eq!(
        Domain::open(store.clone(), &other).unwrap().id(),
        domain.id()
    );
    assert!(matches!(
        Domain::open(store, &world.key),
        Err(RepositoryError::KeyGone { .. })
    ));
}

#[test]
fn a_newer_repository_is_refused_and_said_so() {
    let world = World::new();
    let store: Arc<dyn ObjectStore> = Arc::new(MemoryStore::default());
    let name = edge::ObjectName::new("repository").unwrap();
    store
        .put(
            &name,
            br#"{"format":"backstay-repository","version":2,"x":[]}"#,
        )
        .unwrap();
    assert!(matches!(
        Domain::create(store, &world.key, &world.entropy, ""),
        Err(RepositoryError::Version { version: 2, .. })
    ));
}

#[test]
fn failing_objects_are_named_and_the_rest_is_stored() {
    let world = World::new();
    let store = Arc::new(MemoryStore::default());
    let mut source = one_of_everything();
    let healthy = source.clone();
    let mut failing = |name: &str, change: &dyn Fn(&mut FileSpec)| {
        let mut spec = FileSpec::file(path(name), noise(8, 500_000));
        change(&mut spec);
        source.add(spec);
    };
    failing("bad-open", &|spec| {
        spec.open_error = Some("permission denied")
    });
    failing("bad-read", &|spec| spec.read_error_after = Some(300_000));
    failing("bad-end", &|spec| {
        spec.finish_error = Some("the dump ended with exit status 2")
    });
    let monitor = RecordingMonitor::default();
    let report = world.run_one(&store, &source, &monitor);
    assert_eq!(report.counts.failed, 3);
    assert_eq!(
        monitor.failures(),
        [
            "/bad-end: reading /bad-end: the dump ended with exit status 2",
            "/bad-open: opening /bad-open: permission denied",
            "/bad-read: reading /bad-read: input/output error",
        ]
    );
    let id = snapshot_of(&report, 0);
    world.assert_restores(&store, id, &healthy);
    let snapshot = world.view(&store).domain().snapshot(id).unwrap();
    assert_eq!(snapshot.body.status, SnapshotStatus::Partial);
    assert_eq!(snapshot.body.failures.len(), 3);
}

#[test]
fn a_file_that_changes_while_it_is_read_is_tried_again_and_kept() {
    let world = World::new();
    let store = Arc::new(MemoryStore::default());
    let mut source = TreeSource::default();
    for (name, changes) in [("calm", 0), ("twice", 2), ("always", u64::MAX)] {
        let mut spec = FileSpec::file(path(name), noise(changes, 200_000));
        spec.changes = changes;
        source.add(spec);
    }
    let monitor = RecordingMonitor::default();
    let report = world.run_one(&store, &source, &monitor);
    // Each is read ahead once, and what changed then three times more.
    assert_eq!(source.take_opened(), 1 + 3 + 4);
    assert_eq!(
        monitor.failures(),
        ["/always: changed while it was read; what was read last is kept"]
    );
    world.assert_restores(&store, snapshot_of(&report, 0), &source);
}

#[test]
fn a_cancelled_run_leaves_no_snapshot_and_is_not_stored_twice() {
    let world = World::new();
    let store = Arc::new(MemoryStore::default());
    let mut source = TreeSource::default();
    for number in 0..40 {
        source.add_file(&format!("file{number}.bin"), noise(number, 1_000_000));
    }
    let report = world.run_one(&store, &source, &RecordingMonitor::cancelling_after(30));
    assert!(report.is_cancelled && report.replicas[0].snapshot.is_none());
    let before = store.total_bytes();
    assert!(before > 25_000_000);
    let id = world.run_well(&store, &source);
    assert!(store.total_bytes() - before < 16_000_000);
    world.assert_restores(&store, id, &source);
}

#[test]
fn a_run_is_cancelled_in_the_middle_of_a_large_file() {
    let world = World::new();
    let store = Arc::new(MemoryStore::default());
    let mut source = TreeSource::default();
    source.add_file("large.bin", noise(1, 64_000_000));
    let report = world.run_one(&store, &source, &RecordingMonitor::cancelling_after(1));
    assert!(report.is_cancelled && report.replicas[0].snapshot.is_none());
    assert_eq!(report.counts.failed, 0);
    assert!(store.total_bytes() < 32_000_000, "it was read to its end");
    let id = world.run_well(&store, &source);
    world.assert_restores(&store, id, &source);
}

/// Chunks of long content are named by a thread of their own, those of a stream are not.
#[test]
fn long_content_is_cut_and_named_as_a_stream_of_it() {
    let world = World::new();
    let store = Arc::new(MemoryStore::default());
    let mut source = TreeSource::default();
    let rows = noise(4, 21_000_000);
    source.add(FileSpec::stream(path("db.sql"), rows.clone()));
    world.run_well(&store, &source);
    let before = store.total_bytes();
    for (name, length) in [("a.sql", 21_000_000), ("b.log", 5_000_001)] {
        source.add_file(name, &rows[..length]);
    }
    let id = world.run_well(&store, &source);
    // Pages, and the chunk in which the shorter one ends.
    assert!(store.total_bytes() - before < 300_000);
    world.assert_restores(&store, id, &source);
}

#[test]
fn what_fails_in_the_middle_of_long_content_spoils_nothing_else() {
    let world = World::new();
    let store = Arc::new(MemoryStore::default());
    let mut healthy = TreeSource::default();
    healthy.add_file("b.bin", noise(2, 9_000_000));
    healthy.add_file("d.sql", noise(4, 6_000_000));
    let mut source = healthy.clone();
    for (number, name) in [(1, "a.sql"), (3, "c.bin")] {
        let mut spec = FileSpec::file(path(name), noise(number, 8_000_000));
        spec.read_error_after = Some(5_700_000);
        source.add(spec);
    }
    let report = world.run_one(&store, &source, &RecordingMonitor::default());
    assert_eq!(report.counts.failed, 2);
    world.assert_restores(&store, snapshot_of(&report, 0), &healthy);
}
