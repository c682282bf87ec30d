//! Restores into a directory that are cut at any instant and gone on with: the tree is the same as
//! without a cut, and what was restored before is not fetched again.

#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::mem::ManuallyDrop;
use std::path::Path;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use edge::{
    Entry, Event, Extent, FileSink, LeftOver, Monitor, ObjectStore, Silent, Target, TargetError,
    TreePath,
};
use model::{DestinationName, Exit};
use repository::{
    BackupOptions, Domain, Replica, RestoreReport, ScheduleKey, Snapshot, Tuning, View, back_up,
};
use safefs::{Links, Owners, Policy, RestoreTarget, Users};
use testkit::{
    CountingEntropy, Fault, FaultyStore, FileSpec, FixedClock, MemoryStore, RecordingStore,
    TreeSource,
};

const POLICY: Policy = Policy {
    owners: Owners::Restorer,
    ..Policy::CUSTOMER
};
const LARGE: &str = "acme.1001/files/film.mp4";

struct Place {
    key: ScheduleKey,
    store: Arc<RecordingStore>,
    source: TreeSource,
    directory: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        let key = ScheduleKey::from_bytes([42; 32]);
        let store = Arc::new(RecordingStore::new(Arc::new(MemoryStore::default())));
        let mut source = TreeSource::default();
        for number in 0..300 {
            let name = format!("acme.1001/files/dir{:02}/file{number:03}", number % 20);
            source.add_file(&name, noise(number, 20_000));
        }
        source.add_file(LARGE, noise(1_000, 24_000_000));
        let empty = TreePath::parse(b"acme.1001/files/empty").unwrap();
        source.add(FileSpec::file(empty, Vec::new()));
        let place: Arc<dyn ObjectStore> = store.clone();
        back_up_all(place, &key, &source);
        Self {
            key,
            store,
            source,
            directory: tempfile::tempdir().unwrap(),
        }
    }

    fn view(&self) -> (View, Snapshot) {
        let place: Arc<dyn ObjectStore> = self.store.clone();
        let domain = Domain::open(place, &self.key).unwrap();
        let snapshot = domain.snapshots().unwrap().snapshots.pop().unwrap();
        let view = View::open(domain).unwrap();
        self.store.take_requests();
        (view, snapshot)
    }

    fn target(&self, of: &str) -> Result<RestoreTarget, TargetError> {
        let to = (self.directory.path(), Links::Refused);
        RestoreTarget::into_directory_going_on(to, of, POLICY, Users::load().unwrap())
    }

    fn restore(&self, target: &mut dyn Target) -> RestoreReport {
        let (view, snapshot) = self.view();
        view.restore(&snapshot, &[TreePath::root()], target, &Silent)
            .unwrap()
    }

    /// Restores until so many calls of the target were made, and ends as a killed program does.
    fn cut_after(&self, calls: i64) {
        let mut target = Cut {
            inner: ManuallyDrop::new(self.target("all").unwrap()),
            left: Arc::new(AtomicI64::new(calls)),
        };
        self.restore(&mut target);
        // Only the lock goes, as it does with the process.
        drop(ManuallyDrop::into_inner(target.inner));
    }

    /// Restores to the end; gives what was fetched and what was kept.
    fn finish(&self) -> (u64, RestoreReport) {
        let mut target = self.target("all").unwrap();
        let report = self.restore(&mut target);
        assert_eq!(report.failures, []);
        (self.store.take_requests().bytes_read, report)
    }

    fn assert_whole(&self) {
        let mut names = Vec::new();
        walk(self.directory.path(), &mut names);
        names.sort();
        let expected: Vec<_> = self
            .source
            .specs()
            .keys()
            .map(ToString::to_string)
            .collect();
        let base = self.directory.path().display().to_string();
        let shown: Vec<_> = names
            .iter()
            .map(|name| name.strip_prefix(&base).unwrap().to_owned())
            .collect();
        let mut sorted = expected;
        sorted.sort();
        assert_eq!(shown, sorted);
        for (path, spec) in self.source.specs() {
            let real = format!("{base}{path}");
            if spec.entry.kind == edge::EntryKind::File {
                assert!(
                    std::fs::read(&real).unwrap() == spec.data.to_vec(),
                    "{path}"
                );
            }
            let modified = std::fs::metadata(&real).unwrap();
            let modified = std::os::unix::fs::MetadataExt::mtime(&modified);
            assert_eq!(modified, spec.entry.modified.secs, "{path}");
        }
    }
}

fn back_up_all(store: Arc<dyn ObjectStore>, key: &ScheduleKey, source: &TreeSource) {
    let entropy = CountingEntropy::default();
    let options = BackupOptions {
        schedule: "nightly",
        host: "web1",
        run: None,
        roots: &[],
        paths: &[],
        compare_by: &[],
        tuning: Tuning::default(),
        clock: &FixedClock::at_secs(1_700_000_000),
        entropy: &entropy,
        monitor: &Silent,
    };
    let replica = Replica {
        name: DestinationName::new("place".to_owned()).unwrap(),
        domain: Domain::create(store, key, &entropy, "test").unwrap(),
    };
    let report = back_up(vec![replica], &options, &mut source.walk());
    assert_eq!(report.failures, []);
    assert!(
        report
            .replicas
            .iter()
            .all(|replica| replica.snapshot.is_some())
    );
}

/// Bytes that do not compress.
fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

fn walk(directory: &Path, names: &mut Vec<String>) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        names.push(path.display().to_string());
        if path.is_dir() {
            walk(&path, names);
        }
    }
}

/// A target that is cut off after some calls.
struct Cut {
    inner: ManuallyDrop<RestoreTarget>,
    left: Arc<AtomicI64>,
}

struct CutSink {
    inner: Option<Box<dyn FileSink>>,
    left: Arc<AtomicI64>,
}

fn pass(left: &AtomicI64) -> Result<(), TargetError> {
    if left.fetch_sub(1, Ordering::SeqCst) > 0 {
        return Ok(());
    }
    Err(TargetError {
        operation: "reaching",
        object: "the target".to_owned(),
        source: "it was cut off".into(),
    })
}

impl Target for Cut {
    fn create(&self, entry: &Entry) -> Result<(), TargetError> {
        pass(&self.left)?;
        self.inner.create(entry)
    }

    fn goes_on(&self) -> bool {
        self.inner.goes_on()
    }

    fn left_over(&self, entry: &Entry) -> Option<Box<dyn LeftOver>> {
        self.inner.left_over(entry)
    }

    fn open(
        &self,
        entry: &Entry,
        extents: Option<&[Extent]>,
    ) -> Result<Box<dyn FileSink>, TargetError> {
        pass(&self.left)?;
        Ok(Box::new(CutSink {
            inner: Some(self.inner.open(entry, extents)?),
            left: Arc::clone(&self.left),
        }))
    }

    fn link(&self, entry: &Entry, first: &TreePath) -> Result<(), TargetError> {
        pass(&self.left)?;
        self.inner.link(entry, first)
    }

    fn finish(&mut self) -> Vec<TargetError> {
        if pass(&self.left).is_err() {
            return Vec::new();
        }
        self.inner.finish()
    }
}

impl FileSink for CutSink {
    fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<(), TargetError> {
        // The last write that passes is torn.
        let is_last = self.left.load(Ordering::SeqCst) == 1;
        pass(&self.left)?;
        let whole = if is_last {
            bytes.len() / 2
        } else {
            bytes.len()
        };
        let bytes = bytes.get(..whole).unwrap_or_default();
        self.inner.as_ref().unwrap().write_at(offset, bytes)
    }

    fn finish(mut self: Box<Self>) -> Result<(), TargetError> {
        pass(&self.left)?;
        self.inner.take().unwrap().finish()
    }
}

impl Drop for CutSink {
    fn drop(&mut self) {
        // A killed program does not tidy up.
        std::mem::forget(self.inner.take());
    }
}

#[test]
fn a_restore_that_was_cut_goes_on_at_any_point() {
    let mut place = Place::new();
    let (whole_bytes, report) = place.finish();
    assert_eq!((report.kept, report.kept_bytes.get()), (0, 0));
    place.assert_whole();
    // Directories, the first files, most of them, and the move to the final place.
    for calls in [1, 3, 30, 200, 700, 930] {
        place.directory = tempfile::tempdir().unwrap();
        place.cut_after(calls);
        let (bytes, report) = place.finish();
        place.assert_whole();
        let kept = report.kept_bytes.get();
        // Noise: what is kept need not be fetched, but for frames that are needed for others, and for
        // what lies between them. Threads decide what is known to be lacking when, so some frames are
        // fetched twice.
        assert!(
            bytes + kept / 4 < whole_bytes + 3_000_000,
            "cut after {calls}: {bytes} of {whole_bytes}, {kept} kept"
        );
    }
}

#[test]
fn what_was_restored_before_the_cut_is_not_fetched_again() {
    let place = Place::new();
    place.cut_after(900);
    let (bytes, report) = place.finish();
    place.assert_whole();
    // 30 MB are stored, and each thread may have had a frame of 2 MB in its hands.
    assert!(report.kept > 100, "{report:?}");
    assert!(report.kept_bytes.get() > 15_000_000, "{report:?}");
    assert!(bytes < 15_000_000, "{bytes}");
}

/// Stops a restore when so many bytes are there.
struct Stop {
    at: u64,
    bytes: AtomicU64,
}

impl Stop {
    fn at(at: u64) -> Self {
        let bytes = AtomicU64::new(0);
        Self { at, bytes }
    }
}

impl Monitor for Stop {
    fn event(&self, event: Event<'_>) {
        if let Event::Progress { bytes, .. } = event {
            self.bytes.store(bytes.get(), Ordering::SeqCst);
        }
    }

    fn is_cancelled(&self) -> bool {
        self.bytes.load(Ordering::SeqCst) >= self.at
    }
}

#[test]
fn a_restore_that_is_stopped_leaves_what_it_has_for_one_that_goes_on() {
    let mut place = Place::new();
    for at in [0, 1_000_000, 8_000_000, 20_000_000] {
        place.directory = tempfile::tempdir().unwrap();
        let (view, snapshot) = place.view();
        let mut target = place.target("all").unwrap();
        let root = [TreePath::root()];
        let stop = Stop::at(at);
        let report = view.restore(&snapshot, &root, &mut target, &stop).unwrap();
        drop(target);
        assert_eq!(report.failures, []);
        assert_eq!(report.is_cancelled, !is_filled(&place));
        if report.is_cancelled {
            let (_, report) = place.finish();
            let kept = report.kept_bytes.get();
            // What the threads have in their hands still comes.
            assert!(kept >= at && (at > 0 || kept == 0), "{at}: {kept} kept");
        } else {
            // On a busy machine it may be done before that is seen.
            assert!(at > 0);
        }
        place.assert_whole();
    }
}

/// Takes the first piece of a file, and the others when somebody saw that it came.
#[derive(Default)]
struct Patient {
    pieces: AtomicU64,
    seen: Mutex<u64>,
    saw: Condvar,
}

impl Monitor for Patient {
    fn event(&self, event: Event<'_>) {
        if let Event::Progress { bytes, .. } = event {
            *self.seen.lock().unwrap() = bytes.get();
            self.saw.notify_all();
        }
    }

    fn is_cancelled(&self) -> bool {
        false
    }
}

impl Target for &'static Patient {
    fn create(&self, _: &Entry) -> Result<(), TargetError> {
        Ok(())
    }

    fn open(&self, _: &Entry, _: Option<&[Extent]>) -> Result<Box<dyn FileSink>, TargetError> {
        Ok(Box::new(*self))
    }

    fn link(&self, _: &Entry, _: &TreePath) -> Result<(), TargetError> {
        Ok(())
    }

    fn finish(&mut self) -> Vec<TargetError> {
        Vec::new()
    }
}

impl FileSink for &'static Patient {
    fn write_at(&self, _: u64, _: &[u8]) -> Result<(), TargetError> {
        if self.pieces.fetch_add(1, Ordering::SeqCst) == 0 {
            return Ok(());
        }
        let seen = self.seen.lock().unwrap();
        let limit = Duration::from_secs(20);
        let waited = self.saw.wait_timeout_while(seen, limit, |seen| *seen == 0);
        assert!(!waited.unwrap().1.timed_out(), "nobody saw the first piece");
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<(), TargetError> {
        Ok(())
    }
}

#[test]
fn a_large_file_is_seen_to_come() {
    let place = Place::new();
    let (view, snapshot) = place.view();
    let patient: &'static Patient = Box::leak(Box::default());
    let large = [TreePath::parse(LARGE.as_bytes()).unwrap()];
    let mut target = patient;
    let report = view.restore(&snapshot, &large, &mut target, patient);
    assert_eq!(report.unwrap().failures, []);
    assert!(patient.pieces.load(Ordering::SeqCst) > 1);
    assert_eq!(*patient.seen.lock().unwrap(), 24_000_000);
}

#[test]
fn a_restore_in_place_that_is_stopped_changes_nothing() {
    let place = Place::new();
    let tree = |path: &Path| {
        let path = path.display().to_string();
        TreePath::parse(path.trim_start_matches('/').as_bytes()).unwrap()
    };
    let from = TreePath::parse(b"acme.1001/files").unwrap();
    for at in [0, 1_000_000, 15_000_000] {
        let home = place.directory.path().join(at.to_string());
        std::fs::create_dir_all(home.join("acme")).unwrap();
        std::fs::write(home.join("acme/index.php"), "as it is").unwrap();
        let (view, snapshot) = place.view();
        let roots = [(from.clone(), tree(&home.join("acme")))];
        let users = Users::load().unwrap();
        let mut target = RestoreTarget::in_place("one", &roots, POLICY, users).unwrap();
        let stop = Stop::at(at);
        let paths = [from.clone()];
        let report = view.restore(&snapshot, &paths, &mut target, &stop).unwrap();
        if !report.is_cancelled {
            // On a busy machine it may be done before that is seen.
            assert!(at > 0 && target.published().len() == 1);
            continue;
        }
        assert_eq!(target.published().len(), 0);
        drop(target);
        let mut names = Vec::new();
        walk(&home, &mut names);
        let shown = |name: &str| home.join(name).display().to_string();
        names.sort();
        assert_eq!(names, [shown("acme"), shown("acme/index.php")]);
    }
}

#[test]
fn a_restore_whose_place_goes_away_ends_and_goes_on_when_it_is_back() {
    let (mut ended, mut kept) = (0, 0);
    for at in [8, 12, 16, 20, 24] {
        let place = Place::new();
        let fault = Fault::CutAt { at };
        let away: Arc<dyn ObjectStore> = Arc::new(FaultyStore::new(place.store.clone(), fault));
        let done = Domain::open(away, &place.key).and_then(|domain| {
            let snapshot = domain.snapshots()?.snapshots.pop().unwrap();
            let mut target = place.target("all").unwrap();
            let all = [TreePath::root()];
            View::open(domain)?.restore(&snapshot, &all, &mut target, &Silent)
        });
        if let Err(error) = done {
            assert_eq!(error.exit(), Exit::Unreachable, "{error:?}");
            ended += 1;
        }
        // A directory that was filled may not be filled again.
        if !is_filled(&place) {
            let (_, report) = place.finish();
            kept += report.kept_bytes.get();
        }
        place.assert_whole();
    }
    assert!(ended > 2 && kept > 10_000_000, "{ended} ended, {kept} kept");
}

fn is_filled(place: &Place) -> bool {
    place.directory.path().join("acme.1001").exists()
}

#[test]
fn several_cuts_in_a_row_come_to_an_end() {
    let place = Place::new();
    for calls in [60, 120, 180, 240] {
        place.cut_after(calls);
    }
    let (_, report) = place.finish();
    assert!(report.kept > 0, "{report:?}");
    place.assert_whole();
}

#[test]
fn what_was_changed_after_the_cut_is_noticed_though_size_and_time_are_the_same() {
    let place = Place::new();
    place.cut_after(900);
    let mut names = Vec::new();
    walk(place.directory.path(), &mut names);
    let files: Vec<_> = names
        .iter()
        .filter(|name| std::fs::metadata(name).unwrap().len() == 20_000)
        .collect();
    assert!(files.len() > 20);
    for name in files.iter().take(10) {
        let modified = std::fs::metadata(name).unwrap().modified().unwrap();
        let mut bytes = std::fs::read(name).unwrap();
        bytes.reverse();
        std::fs::write(name, bytes).unwrap();
        let file = std::fs::File::options().write(true).open(name).unwrap();
        file.set_modified(modified).unwrap();
    }
    place.finish();
    place.assert_whole();
}

#[test]
fn only_a_restore_of_the_same_goes_on_and_only_one_at_a_time() {
    let place = Place::new();
    place.cut_after(100);
    let why = |refused: Result<RestoreTarget, TargetError>| {
        let Err(error) = refused else {
            return "it was taken".to_owned();
        };
        repository::chain(&error)
    };
    let other = why(place.target("something else"));
    assert!(
        other.contains("a restore of something else into it was cut"),
        "{other}"
    );
    let first = place.target("all").unwrap();
    let second = why(place.target("all"));
    assert!(
        second.contains("another restore into it is under way"),
        "{second}"
    );
    drop(first);
    // What somebody put there is neither taken nor removed.
    let foreign = place.directory.path().join("foreign");
    std::fs::write(&foreign, "mine").unwrap();
    let refused = why(place.target("all"));
    assert!(
        refused.contains("it is not empty: it holds foreign"),
        "{refused}"
    );
    std::fs::remove_file(&foreign).unwrap();
    place.finish();
    place.assert_whole();
}
