//! Cuts of long work at any request to the store: nothing has to be repaired, nothing is lost, and
//! what was stored is not sent again.

#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use common::{World, noise, snapshot_of};
use edge::{Event, Monitor, ObjectStore, Silent};
use model::ByteCount;
use repository::{CheckDepth, Checkpoints, RunLimits, Tuning};
use testkit::{Fault, FaultyStore, MemoryStore, RecordingStore, TreeSource};

const FILES: u64 = 30;
const FILE_BYTES: usize = 40_000;
/// Headers, fillers and pages of what is stored anew, and one checkpoint of files.
const BESIDE_BYTES: u64 = 400_000;

/// Pauses once, in the middle.
#[derive(Default)]
struct Pausing {
    objects: AtomicU64,
    rests: AtomicU64,
}

impl Monitor for Pausing {
    fn event(&self, event: Event<'_>) {
        match event {
            Event::Object(_) => drop(self.objects.fetch_add(1, Ordering::SeqCst)),
            Event::Note(text) if text.starts_with("paused") => {
                self.rests.fetch_add(1, Ordering::SeqCst);
            }
            _ => {}
        }
    }

    fn is_paused(&self) -> bool {
        let is_rested = self.rests.load(Ordering::SeqCst) > 0;
        self.objects.load(Ordering::SeqCst) >= 17 && !is_rested
    }
}

fn careful() -> World {
    let mut world = World::new();
    world.tuning = Tuning {
        limits: RunLimits {
            memory: Some(ByteCount::new(1)),
            ..RunLimits::default()
        },
        checkpoints: Checkpoints {
            secs: 300,
            bytes: ByteCount::new(250_000),
        },
        ..Tuning::default()
    };
    world
}

fn many_files() -> TreeSource {
    let mut source = TreeSource::default();
    for number in 0..FILES {
        source.add_file(&format!("dir/file{number:03}"), noise(number, FILE_BYTES));
    }
    source
}

fn bytes_of(store: &MemoryStore, part: &str) -> u64 {
    let objects = store.objects();
    let own = objects.iter();
    let own = own.filter(|(name, _)| name.as_str().contains(part));
    own.map(|(_, bytes)| bytes.len() as u64).sum()
}

fn is_sound(world: &World, store: &Arc<MemoryStore>, when: &str) {
    let report = world.view(store).check(CheckDepth::Data, &Silent);
    assert!(report.as_ref().unwrap().is_sound(), "{when}: {report:?}");
}

#[test]
fn a_run_with_checkpoints_and_a_pause_may_be_cut_anywhere() {
    let world = careful();
    let origin = Arc::new(MemoryStore::default());
    let mut before = TreeSource::default();
    before.add_file("dir/old", noise(1000, 30_000));
    let first = world.run_well(&origin, &before);
    let source = many_files();
    let whole = FILES * FILE_BYTES as u64;
    let (mut cut_at, mut continued) = (0, 0);
    loop {
        let store = Arc::new(MemoryStore::default());
        store.set_objects(origin.objects());
        let faulty = Arc::new(FaultyStore::new(store.clone(), Fault::CutAt { at: cut_at }));
        let place: Arc<dyn ObjectStore> = faulty.clone();
        let monitor = Pausing::default();
        world.run(&[&place], &source, &monitor);
        let is_whole = faulty.hits() == 0;
        let when = format!("cut at {cut_at}");
        world.assert_restores(&store, first, &before);
        is_sound(&world, &store, &when);
        let stored = bytes_of(&store, "/p/") - bytes_of(&origin, "/p/");
        source.take_opened();
        let recording = Arc::new(RecordingStore::new(store.clone()));
        let place: Arc<dyn ObjectStore> = recording.clone();
        let next = snapshot_of(&world.run(&[&place], &source, &Silent), 0);
        let sent = recording.take_requests().bytes_written;
        let most = whole.saturating_sub(stored) + BESIDE_BYTES;
        assert!(sent <= most, "{when}: {stored} stored, {sent} sent");
        continued += u64::from(source.take_opened() < FILES);
        world.assert_restores(&store, next, &source);
        world.assert_restores(&store, first, &before);
        is_sound(&world, &store, &when);
        assert_eq!(bytes_of(&store, "/checkpoint-"), 0, "{when}");
        if is_whole {
            assert_eq!(monitor.rests.load(Ordering::SeqCst), 1);
            break;
        }
        cut_at += 1;
    }
    assert!(cut_at > 40, "{cut_at} operations were cut");
    assert!(continued > 20, "{continued} runs were continued");
}
