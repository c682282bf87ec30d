//! A restore has few files open at a time, however many lie in one frame.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use common::{World, noise};
use edge::{Entry, Extent, FileSink, Silent, Target, TargetError, TreePath};
use testkit::{CollectingTarget, MemoryStore, TreeSource};

/// Counts what is open in another target.
#[derive(Default)]
struct Counting {
    inner: CollectingTarget,
    open: Arc<AtomicUsize>,
    most: AtomicUsize,
}

struct CountingSink {
    inner: Box<dyn FileSink>,
    open: Arc<AtomicUsize>,
}

impl FileSink for CountingSink {
    fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<(), TargetError> {
        self.inner.write_at(offset, bytes)
    }

    fn finish(self: Box<Self>) -> Result<(), TargetError> {
        let done = self.inner.finish();
        self.open.fetch_sub(1, Ordering::SeqCst);
        done
    }
}

impl Target for Counting {
    fn create(&self, entry: &Entry) -> Result<(), TargetError> {
        self.inner.create(entry)
    }

    fn open(
        &self,
        entry: &Entry,
        extents: Option<&[Extent]>,
    ) -> Result<Box<dyn FileSink>, TargetError> {
        let open = self.open.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(open, Ordering::SeqCst);
        Ok(Box::new(CountingSink {
            inner: self.inner.open(entry, extents)?,
            open: Arc::clone(&self.open),
        }))
    }

    fn link(&self, entry: &Entry, first: &TreePath) -> Result<(), TargetError> {
        self.inner.link(entry, first)
    }

    fn finish(&mut self) -> Vec<TargetError> {
        self.inner.finish()
    }
}

#[test]
fn a_service_of_a_thousand_descriptors_restores_any_tree() {
    let world = World::new();
    let store = Arc::new(MemoryStore::default());
    let mut source = TreeSource::default();
    for number in 0..4000 {
        source.add_file(&format!("small/file{number:05}"), noise(number, 300));
    }
    for number in 0..400 {
        // Several chunks, in several frames.
        let content = noise(10_000 + number, 150_000);
        source.add_file(&format!("larger/file{number:05}"), content);
    }
    let id = world.run_well(&store, &source);
    let view = world.view(&store);
    let snapshot = view.domain().snapshot(id).unwrap();
    let mut target = Counting::default();
    let report = view
        .restore(&snapshot, &[TreePath::root()], &mut target, &Silent)
        .unwrap();
    assert_eq!((report.failures, report.entries), (Vec::new(), 4402));
    assert_eq!(target.open.load(Ordering::SeqCst), 0);
    let most = target.most.load(Ordering::SeqCst);
    assert!((1..400).contains(&most), "{most} at once");
}
