//! Short files are read by several threads, a little ahead of the work and not far, and cut as others are.

#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod common;

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use common::{World, noise, path, snapshot_of};
use edge::{
    Clock as _, Content, ContentEnd, Event, Extent, Monitor, ObjectStore, Silent, Source,
    SourceError, SourceItem, TreePath,
};
use model::{ByteCount, DestinationName};
use repository::{BackupOptions, BackupReport, Replica, back_up};
use testkit::{FileSpec, MemoryStore, TreeSource};

/// For one thread that waits in vain.
const LONG: Duration = Duration::from_secs(60);

/// What is seen of reading.
#[derive(Default)]
struct Watch {
    reading: Mutex<Reading>,
    changed: Condvar,
    opened: AtomicU64,
    /// Entries that the work came to.
    reached: AtomicU64,
    most_ahead: AtomicU64,
}

#[derive(Default)]
struct Reading {
    now: usize,
    /// Two files were read at the same time, or need not be.
    met: bool,
}

impl Watch {
    fn of_any_order() -> Self {
        let watch = Self::default();
        watch.reading.lock().unwrap().met = true;
        watch
    }

    /// Waits until another file is read, too, once.
    fn meet(&self) -> io::Result<()> {
        let mut reading = self.reading.lock().unwrap();
        reading.now += 1;
        reading.met |= reading.now > 1;
        self.changed.notify_all();
        let waiting = self
            .changed
            .wait_timeout_while(reading, LONG, |reading| !reading.met);
        let (mut reading, _) = waiting.unwrap();
        reading.now -= 1;
        let met = reading.met;
        drop(reading);
        met.then_some(())
            .ok_or_else(|| io::Error::other("nobody reads another file"))
    }

    fn opens(&self) {
        let opened = self.opened.fetch_add(1, Ordering::SeqCst) + 1;
        let ahead = opened.saturating_sub(self.reached.load(Ordering::SeqCst));
        self.most_ahead.fetch_max(ahead, Ordering::SeqCst);
    }
}

impl Monitor for Watch {
    fn event(&self, event: Event<'_>) {
        if matches!(event, Event::Object(_)) {
            self.reached.fetch_add(1, Ordering::SeqCst);
        }
    }
}

/// Tells the watch what is opened and read of another source.
struct Watched<S> {
    inner: S,
    watch: Arc<Watch>,
}

struct WatchedContent {
    inner: Box<dyn Content>,
    watch: Arc<Watch>,
    is_begun: bool,
}

impl<S: Source> Source for Watched<S> {
    fn next(&mut self) -> Result<Option<SourceItem>, SourceError> {
        let item = self.inner.next()?;
        let Some(SourceItem::Entry(entry, Some(mut opener))) = item else {
            return Ok(item);
        };
        let watch = Arc::clone(&self.watch);
        let watched = move || {
            watch.opens();
            let (entry, inner) = opener()?;
            let content: Box<dyn Content> = Box::new(WatchedContent {
                inner,
                watch: Arc::clone(&watch),
                is_begun: false,
            });
            Ok((entry, content))
        };
        Ok(Some(SourceItem::Entry(entry, Some(Box::new(watched)))))
    }
}

impl Content for WatchedContent {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if !std::mem::replace(&mut self.is_begun, true) {
            self.watch.meet()?;
        }
        self.inner.read(buffer)
    }

    fn extents(&self) -> Option<Vec<Extent>> {
        self.inner.extents()
    }

    fn finish(self: Box<Self>) -> Result<ContentEnd, SourceError> {
        self.inner.finish()
    }
}

fn run_watched(
    world: &World,
    store: &Arc<MemoryStore>,
    source: &TreeSource,
    watch: &Arc<Watch>,
) -> BackupReport {
    world.clock.advance_secs(60);
    let store: Arc<dyn ObjectStore> = store.clone();
    let replica = Replica {
        name: DestinationName::new("place").unwrap(),
        domain: world.domain(&store),
    };
    let options = BackupOptions {
        schedule: "nightly",
        host: "web1",
        run: None,
        roots: &[],
        paths: &[],
        compare_by: &[],
        tuning: world.tuning,
        clock: &world.clock,
        entropy: &world.entropy,
        monitor: &**watch,
    };
    let mut watched = Watched {
        inner: source.walk(),
        watch: Arc::clone(watch),
    };
    back_up(vec![replica], &options, &mut watched)
}

#[test]
fn several_files_are_read_at_once_and_few_are_ahead() {
    let (world, store) = (World::new(), Arc::new(MemoryStore::default()));
    let mut source = TreeSource::default();
    for number in 0..5000 {
        source.add_file(&format!("home/file{number:05}"), noise(number, 400));
    }
    let watch = Arc::default();
    let report = run_watched(&world, &store, &source, &watch);
    assert_eq!(report.failures, []);
    world.assert_restores(&store, snapshot_of(&report, 0), &source);
    assert_eq!(watch.opened.load(Ordering::SeqCst), 5000);
    // Eight threads and four portions more, of 64 files each.
    let most = watch.most_ahead.load(Ordering::SeqCst);
    assert!((1..=12 * 64).contains(&most), "{most} ahead");
}

#[test]
fn only_what_changed_since_is_read() {
    let (world, store) = (World::new(), Arc::new(MemoryStore::default()));
    let mut source = TreeSource::default();
    for number in 0..300 {
        source.add_file(&format!("home/file{number:05}"), noise(number, 400));
    }
    let mut specs: Vec<_> = source.specs().keys().cloned().collect();
    specs.retain(|path| path.to_string().contains("file0002"));
    world.run_well(&store, &source);
    for path in &specs {
        source.get_mut(path).unwrap().entry.changed.secs = world.clock.now().secs();
    }
    // It is in no snapshot, and what comes after it is new for sure, whatever its times say.
    for number in 0..1000 {
        source.add_file(&format!("later/file{number:05}"), noise(number + 1000, 400));
    }
    let watch = Arc::new(Watch::of_any_order());
    let report = run_watched(&world, &store, &source, &watch);
    assert_eq!(report.failures, []);
    world.assert_restores(&store, snapshot_of(&report, 0), &source);
    assert_eq!(watch.opened.load(Ordering::SeqCst), 10 + 1000);
}

#[test]
fn short_files_are_cut_alike_whoever_reads_them() {
    let (world, store) = (World::new(), Arc::new(MemoryStore::default()));
    let mut source = TreeSource::default();
    let sizes = [
        0,
        1,
        256,
        257,
        128 * 1024,
        128 * 1024 + 1,
        200_000,
        256 * 1024,
        256 * 1024 + 1,
    ];
    for (number, size) in (0..).zip(sizes) {
        for (round, ending) in (0..).zip(["txt", "sql", "jpg"]) {
            let content = noise(100 * number + round, size);
            source.add_file(&format!("ahead/{number}.{ending}"), content.clone());
            // A file with several names is not read ahead.
            let mut other = FileSpec::file(path(&format!("one/{number}.{ending}")), content);
            other.entry.link_count = 2;
            source.add(other);
        }
    }
    let id = world.run_well(&store, &source);
    world.assert_restores(&store, id, &source);
    let view = world.view(&store);
    let statistics = view.statistics(&TreePath::root(), &Silent).unwrap();
    assert_eq!(statistics.parts.len(), 2);
    for part in statistics.parts {
        assert_eq!(part.unique.data_bytes, ByteCount::ZERO, "{:?}", part.name);
    }
}
