//! Runs that are cut, cancelled or paused: what was read and stored is neither read nor sent again.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use common::{World, noise, path, prune, snapshot_of};
use edge::{Event, Monitor, ObjectStore, Silent};
use model::ByteCount;
use repository::{CheckDepth, Checkpoints, RunLimits, Tuning};
use testkit::{Fault, FaultyStore, MemoryStore, RecordingMonitor, RecordingStore, TreeSource};

const FILES: u64 = 100;
const FILE_BYTES: usize = 100_000;
/// The least memory makes packs of this size.
const PACK_BYTES: u64 = 4 * 1024 * 1024;

fn many_files() -> TreeSource {
    let mut source = TreeSource::default();
    for number in 0..FILES {
        source.add_file(&format!("dir/file{number:03}"), noise(number, FILE_BYTES));
    }
    source
}

/// Small packs, and a checkpoint after every 1.5 MB.
fn careful() -> World {
    let mut world = World::new();
    world.tuning = Tuning {
        limits: RunLimits {
            memory: Some(ByteCount::new(1)),
            ..RunLimits::default()
        },
        checkpoints: Checkpoints {
            secs: 300,
            bytes: ByteCount::new(1_500_000),
        },
        ..Tuning::default()
    };
    world
}

fn checkpoints(store: &MemoryStore) -> usize {
    let names = store.objects().into_keys();
    names
        .filter(|name| name.as_str().contains("/checkpoint-"))
        .count()
}

#[test]
fn a_killed_first_backup_continues_and_sends_nothing_again() {
    let world = careful();
    let source = many_files();
    let mut continued = 0;
    for cut_at in [8, 14, 20, 30, 40, 60] {
        let store = Arc::new(MemoryStore::default());
        let faulty = Arc::new(FaultyStore::new(store.clone(), Fault::CutAt { at: cut_at }));
        let place: Arc<dyn ObjectStore> = faulty.clone();
        world.run(&[&place], &source, &Silent);
        if faulty.hits() == 0 {
            break;
        }
        source.take_opened();
        let had = checkpoints(&store);
        let stored = store.total_bytes();
        let recording = Arc::new(RecordingStore::new(store.clone()));
        let place: Arc<dyn ObjectStore> = recording.clone();
        let report = world.run(&[&place], &source, &Silent);
        let id = snapshot_of(&report, 0);
        let sent = recording.take_requests().bytes_written;
        let whole = FILES * FILE_BYTES as u64;
        // Beside one pack: padding and metadata.
        let most = whole.saturating_sub(stored) + PACK_BYTES + whole / 10;
        assert!(
            sent <= most,
            "cut at {cut_at}: {stored} stored, {sent} sent"
        );
        let opened = source.take_opened();
        if had > 0 {
            continued += 1;
            assert!(opened < FILES, "cut at {cut_at}: {opened} opened");
            assert_eq!(report.counts.unchanged, FILES - opened);
        }
        assert_eq!(checkpoints(&store), 0, "cut at {cut_at}");
        world.assert_restores(&store, id, &source);
        let view = world.view(&store);
        assert!(view.check(CheckDepth::Data, &Silent).unwrap().is_sound());
    }
    assert!(continued > 1, "{continued} runs were continued");
}

#[test]
fn a_cancelled_run_is_continued_without_reading_again() {
    let world = careful();
    let store = Arc::new(MemoryStore::default());
    let source = many_files();
    let monitor = RecordingMonitor::cancelling_after(60);
    let report = world.run_one(&store, &source, &monitor);
    assert!(report.is_cancelled && report.replicas[0].snapshot.is_none());
    assert_eq!(checkpoints(&store), 1);
    let read = source.take_opened();
    assert!(read > 50, "{read}");
    let view = world.view(&store);
    assert!(view.domain().snapshots().unwrap().snapshots.is_empty());
    let report = world.run_one(&store, &source, &Silent);
    // The one that was open when the run ended is read again.
    assert_eq!(source.take_opened(), FILES - read + 1);
    assert_eq!(checkpoints(&store), 0);
    world.assert_restores(&store, snapshot_of(&report, 0), &source);
}

#[test]
fn files_that_changed_since_the_checkpoint_are_read_again() {
    let world = careful();
    let store = Arc::new(MemoryStore::default());
    let mut source = many_files();
    world.run_one(&store, &source, &RecordingMonitor::cancelling_after(60));
    let read = source.take_opened();
    let spec = source.get_mut(&path("dir/file007")).unwrap();
    spec.data = Arc::new(noise(7777, FILE_BYTES));
    spec.entry.changed.secs += 1;
    let id = world.run_well(&store, &source);
    assert_eq!(source.take_opened(), FILES - read + 2);
    world.assert_restores(&store, id, &source);
}

#[test]
fn pruning_keeps_what_a_checkpoint_needs_until_it_is_old() {
    let world = careful();
    let store = Arc::new(MemoryStore::default());
    let source = many_files();
    world.run_one(&store, &source, &RecordingMonitor::cancelling_after(60));
    let read = source.take_opened();
    // Only pages of earlier checkpoints go.
    prune(&world, &store);
    world.clock.advance_secs(2 * 86_400);
    prune(&world, &store);
    assert_eq!(checkpoints(&store), 1);
    let kept = Arc::new(MemoryStore::default());
    kept.set_objects(store.objects());
    let id = world.run_well(&kept, &source);
    assert_eq!(source.take_opened(), FILES - read + 1);
    world.assert_restores(&kept, id, &source);

    world.clock.advance_secs(6 * 86_400);
    let before = store.total_bytes();
    prune(&world, &store);
    assert_eq!(checkpoints(&store), 0);
    world.clock.advance_secs(2 * 86_400);
    prune(&world, &store);
    assert!(store.total_bytes() < before / 2);
    let id = world.run_well(&store, &source);
    assert_eq!(source.take_opened(), FILES);
    world.assert_restores(&store, id, &source);
}

/// Pauses the work once, until it said that it rests.
struct Pausing {
    store: Arc<MemoryStore>,
    objects: AtomicU64,
    rested: AtomicBool,
    stored: AtomicBool,
}

impl Monitor for Pausing {
    fn event(&self, event: Event<'_>) {
        match event {
            Event::Object(_) => drop(self.objects.fetch_add(1, Ordering::SeqCst)),
            Event::Note(text) if text.starts_with("paused") => {
                self.rested.store(true, Ordering::SeqCst);
                let is_stored = checkpoints(&self.store) == 1;
                self.stored.store(is_stored, Ordering::SeqCst);
            }
            _ => {}
        }
    }

    fn is_paused(&self) -> bool {
        self.objects.load(Ordering::SeqCst) >= 30 && !self.rested.load(Ordering::SeqCst)
    }
}

#[test]
fn a_pause_stores_what_was_read_and_the_run_goes_on() {
    let world = careful();
    let store = Arc::new(MemoryStore::default());
    let source = many_files();
    let monitor = Pausing {
        store: store.clone(),
        objects: AtomicU64::new(0),
        rested: AtomicBool::new(false),
        stored: AtomicBool::new(false),
    };
    let report = world.run_one(&store, &source, &monitor);
    assert!(monitor.rested.load(Ordering::SeqCst));
    assert!(monitor.stored.load(Ordering::SeqCst));
    assert_eq!(source.take_opened(), FILES);
    world.assert_restores(&store, snapshot_of(&report, 0), &source);
}

#[test]
fn silent_changes_are_found_within_the_rounds_of_a_share() {
    for (percent, rounds) in [(100, 1), (25, 4)] {
        let mut world = World::new();
        let store = Arc::new(MemoryStore::default());
        let mut source = many_files();
        world.run_well(&store, &source);
        let rotten = path("dir/file042");
        source.get_mut(&rotten).unwrap().data = Arc::new(noise(4242, FILE_BYTES));
        source.take_opened();
        let id = world.run_well(&store, &source);
        assert_eq!(source.take_opened(), 0);
        let (collected, _) = world.restore(&store, id);
        assert!(collected[&rotten].bytes == noise(42, FILE_BYTES));
        world.tuning.reread_percent = percent;
        let mut found = Vec::new();
        let mut last = None;
        for _ in 0..rounds {
            let report = world.run_one(&store, &source, &Silent);
            last = Some(snapshot_of(&report, 0));
            found.extend(report.silent_changes);
        }
        assert_eq!(found, ["/dir/file042"], "{percent} %");
        assert_eq!(source.take_opened(), FILES, "{percent} %");
        world.assert_restores(&store, last.unwrap(), &source);
    }
}

#[test]
fn a_file_that_cannot_be_read_again_stays_as_it_was() {
    let mut world = World::new();
    let store = Arc::new(MemoryStore::default());
    let mut source = many_files();
    world.run_well(&store, &source);
    let rotten = path("dir/file042");
    source.get_mut(&rotten).unwrap().read_error_after = Some(1000);
    world.tuning.reread_percent = 100;
    let report = world.run_one(&store, &source, &Silent);
    assert_eq!(report.counts.failed, 1);
    assert_eq!(report.counts.entries, FILES + 1);
    world.assert_restores(&store, snapshot_of(&report, 0), &source);
}

#[test]
fn renamed_mail_is_not_read_again_and_other_renamed_files_are() {
    let world = World::new();
    let store = Arc::new(MemoryStore::default());
    let mut source = TreeSource::default();
    for name in ["cur", "new", "tmp"] {
        source.add_file(&format!("mail/{name}/.keep"), "");
    }
    source.add_file("mail/new/1.host", noise(1, 20_000));
    source.add_file("mail/cur/2.host:2,", noise(2, 20_000));
    source.add_file("mail/cur/3.host:2,S", noise(3, 20_000));
    source.add_file("other/cur/4.host:2,", noise(4, 20_000));
    world.run_well(&store, &source);
    source.take_opened();
    for (from, to) in [
        ("mail/new/1.host", "mail/cur/1.host:2,S"),
        ("mail/cur/2.host:2,", "mail/cur/2.host:2,RS"),
        ("other/cur/4.host:2,", "other/cur/4.host:2,S"),
    ] {
        let mut spec = source.specs()[&path(from)].clone();
        source.remove(&path(from));
        spec.entry.path = path(to);
        spec.entry.changed.secs += 1000;
        source.add(spec);
    }
    let report = world.run_one(&store, &source, &Silent);
    // What lies in no mailbox, and nothing else.
    assert_eq!(source.take_opened(), 1);
    world.assert_restores(&store, snapshot_of(&report, 0), &source);
    // A message that was written anew under a name of its own has another size, time or inode.
    let spec = source.get_mut(&path("mail/cur/2.host:2,RS")).unwrap();
    spec.data = Arc::new(noise(22, 20_000));
    spec.entry.modified.secs += 1;
    let id = world.run_well(&store, &source);
    assert_eq!(source.take_opened(), 1);
    world.assert_restores(&store, id, &source);
}
