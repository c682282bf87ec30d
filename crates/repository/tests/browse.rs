//! Looking around in snapshots: searches, versions and differences are what a naive model says, and
//! cost few requests.

#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]
#![expect(clippy::indexing_slicing, reason = "a test ends at the first surprise")]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use common::{World, path};
use edge::{EntryKind, Event, Monitor, Silent, TreePath};
use model::{ByteCount, SnapshotId};
use proptest::prelude::*;
use repository::{Aspect, Change, Domain, Pattern, RepositoryError, Snapshot, View};
use testkit::{FileSpec, MemoryStore, RecordingStore, TreeSource};

fn snapshot(view: &View, id: SnapshotId) -> Snapshot {
    view.domain().snapshot(id).unwrap()
}

fn shown(change: &Change) -> (String, Vec<Aspect>) {
    match change {
        Change::Added(entry) => (format!("+ {}", entry.path), Vec::new()),
        Change::Removed(entry) => (format!("- {}", entry.path), Vec::new()),
        Change::Changed { after, aspects, .. } => (format!("~ {}", after.path), aspects.clone()),
    }
}

fn diff(view: &View, ids: (SnapshotId, SnapshotId), below: &str) -> Vec<(String, Vec<Aspect>)> {
    let pair = (&snapshot(view, ids.0), &snapshot(view, ids.1));
    let mut found = Vec::new();
    let mut each = |change: Change| {
        found.push(shown(&change));
        ControlFlow::Continue(())
    };
    view.diff(pair, &path(below), &Silent, &mut each).unwrap();
    found
}

/// One file of a random tree: content, mode, time.
type Random = (u8, u8, u8);
type Files = BTreeMap<String, Random>;

fn files() -> impl Strategy<Value = Files> {
    let name = (0_u8..4, 0_u8..4, 0_u8..8).prop_map(|(a, b, c)| match c {
        0..=3 => format!("d{a}/e{b}/f{c}"),
        4..=6 => format!("d{a}/g{b}"),
        _ => format!("h{a}"),
    });
    let file = (0_u8..3, 0_u8..2, 0_u8..2);
    proptest::collection::btree_map(name, file, 0..40)
}

fn tree(files: &Files, padding: u32) -> TreeSource {
    let mut source = TreeSource::default();
    for (name, (content, mode, time)) in files {
        let length = [0, 5, 2000][usize::from(*content)];
        let mut spec = FileSpec::file(path(name), vec![b'x'; length]);
        spec.entry.mode = 0o600 + u32::from(*mode);
        spec.entry.modified.secs += i64::from(*time);
        // As a kernel does, which the next run relies on.
        spec.entry.changed.secs += i64::from(*mode) + i64::from(*time) * 2;
        source.add(spec);
    }
    for number in 0..padding {
        source.add_file(&format!("pad/{:03}/{number:05}", number % 50), "");
    }
    source
}

fn expected(before: &TreeSource, after: &TreeSource) -> Vec<(String, Vec<Aspect>)> {
    let paths: BTreeSet<&TreePath> = before.specs().keys().chain(after.specs().keys()).collect();
    let mut found = Vec::new();
    for path in paths {
        match (before.specs().get(path), after.specs().get(path)) {
            (None, _) => found.push((format!("+ {path}"), Vec::new())),
            (_, None) => found.push((format!("- {path}"), Vec::new())),
            (Some(was), Some(is)) => {
                let mut aspects = Vec::new();
                let mut note = |differs: bool, aspect| {
                    if differs {
                        aspects.push(aspect);
                    }
                };
                note(was.entry.kind != is.entry.kind, Aspect::Kind);
                note(was.data != is.data, Aspect::Content);
                note(was.entry.mode != is.entry.mode, Aspect::Mode);
                note(was.entry.modified != is.entry.modified, Aspect::Modified);
                if !aspects.is_empty() {
                    found.push((format!("~ {path}"), aspects));
                }
            }
        }
    }
    found
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn differences_of_random_trees_are_those_of_a_naive_model(
        first in files(),
        second in files(),
        // With padding the trees have several levels.
        paddings in (0_u32..3, 0_u32..3),
    ) {
        let world = World::new();
        let store = Arc::new(MemoryStore::default());
        let one = tree(&first, paddings.0 * 700);
        let other = tree(&second, paddings.1 * 700);
        let ids = (world.run_well(&store, &one), world.run_well(&store, &other));
        let view = world.view(&store);
        let all = expected(&one, &other);
        prop_assert_eq!(&diff(&view, ids, ""), &all);
        prop_assert_eq!(diff(&view, (ids.1, ids.0), ""), expected(&other, &one));
        for below in ["d1", "d2/e3", "h1", "nowhere"] {
            let is_within = |text: &String| path(&text[2..]).is_within(&path(below));
            let mut part = all.clone();
            part.retain(|(text, _)| is_within(text));
            prop_assert_eq!(diff(&view, ids, below), part, "{}", below);
        }
        let snapshot = snapshot(&view, ids.0);
        let mut live = Vec::new();
        let report = view.diff_live((&snapshot, &[TreePath::root()]), &mut other.walk(), &Silent, &mut |change| {
            live.push(shown(&change).0);
            ControlFlow::Continue(())
        }).unwrap();
        prop_assert_eq!(report.failed, 0);
        let texts: Vec<_> = all.into_iter().map(|(text, _)| text).collect();
        prop_assert_eq!(live, texts);
    }

    #[test]
    fn sizes_are_the_sums_of_entries(first in files(), padding in 0_u32..3) {
        let world = World::new();
        let store = Arc::new(MemoryStore::default());
        let source = tree(&first, padding * 700);
        let id = world.run_well(&store, &source);
        let view = world.view(&store);
        for below in ["", "d1", "d2/e3", "h1", "pad", "pad/007", "nowhere"] {
            let within = source.specs().values().filter(|spec| spec.entry.path.is_within(&path(below)));
            let (mut entries, mut bytes) = (0, 0);
            for spec in within {
                entries += 1;
                bytes += spec.data.len() as u64;
            }
            let size = view.size_of(&snapshot(&view, id), &path(below)).unwrap();
            prop_assert_eq!((size.entries, size.bytes), (entries, ByteCount::new(bytes)), "{}", below);
        }
    }
}

/// 40,000 files, of which one changed, and all requests since the view was opened are counted.
struct Large {
    recording: Arc<RecordingStore>,
    view: View,
    ids: Vec<SnapshotId>,
}

impl Large {
    fn new() -> Self {
        let world = World::new();
        let store = Arc::new(MemoryStore::default());
        let mut source = tree(&Files::new(), 40_000);
        let mut ids = vec![world.run_well(&store, &source)];
        for text in ["first", "second", "second", "first"] {
            source.add_file("pad/031/00031", text);
            ids.push(world.run_well(&store, &source));
        }
        let recording = Arc::new(RecordingStore::new(store));
        let domain = Domain::open(recording.clone(), &world.key).unwrap();
        let view = View::open(domain).unwrap();
        Self {
            recording,
            view,
            ids,
        }
    }

    fn snapshots(&self) -> Vec<Snapshot> {
        let list = self.ids.iter().map(|id| snapshot(&self.view, *id));
        let list = list.collect();
        self.recording.take_requests();
        list
    }
}

#[test]
fn nearly_equal_large_snapshots_are_compared_with_few_requests() {
    let large = Large::new();
    let snapshots = large.snapshots();
    let mut found = Vec::new();
    let pair = (&snapshots[0], &snapshots[1]);
    large
        .view
        .diff(pair, &TreePath::root(), &Silent, &mut |change| {
            found.push(shown(&change));
            ControlFlow::Continue(())
        })
        .unwrap();
    assert_eq!(
        found,
        [("~ /pad/031/00031".to_owned(), vec![Aspect::Content])]
    );
    let requests = large.recording.take_requests();
    assert!(requests.ranges <= 8, "{requests:?}");
    assert!(requests.bytes_read < 256 * 1024, "{requests:?}");
}

#[test]
fn versions_are_told_once_each_and_equal_contents_are_known_again() {
    let large = Large::new();
    let snapshots = large.snapshots();
    let versions = large
        .view
        .versions(&snapshots, &path("pad/031/00031"), &Silent)
        .unwrap();
    let told: Vec<_> = versions
        .iter()
        .map(|version| (version.content, version.snapshots, version.first.snapshot))
        .collect();
    let ids = &large.ids;
    assert_eq!(
        told,
        [
            (Some(0), 1, ids[0]),
            (Some(1), 1, ids[1]),
            (Some(2), 2, ids[2]),
            (Some(1), 1, ids[4])
        ]
    );
    assert_eq!(versions[2].last.snapshot, ids[3]);
    let requests = large.recording.take_requests();
    assert!(requests.ranges <= 14, "{requests:?}");
    let absent = large.view.versions(&snapshots, &path("pad/0"), &Silent);
    assert_eq!(absent.unwrap(), []);
}

#[test]
fn a_path_that_goes_and_comes_back_has_a_gap() {
    let world = World::new();
    let store = Arc::new(MemoryStore::default());
    let mut source = TreeSource::default();
    source.add_file("b", "b");
    world.run_well(&store, &source);
    source.add_file("a", "a");
    world.run_well(&store, &source);
    source.remove(&path("a"));
    world.run_well(&store, &source);
    world.run_well(&store, &source);
    source.add_file("a", "a");
    world.run_well(&store, &source);
    let view = world.view(&store);
    let list = view.domain().snapshots().unwrap().snapshots;
    let versions = view.versions(&list, &path("a"), &Silent).unwrap();
    let told: Vec<_> = versions
        .iter()
        .map(|version| (version.entry.is_some(), version.content, version.snapshots))
        .collect();
    assert_eq!(
        told,
        [(true, Some(0), 1), (false, None, 2), (true, Some(0), 1)]
    );
}

fn search(view: &View, snapshots: &[&Snapshot], below: &str, text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let asked = (&path(below), &Pattern::new(text.as_bytes()));
    view.search(snapshots, asked, &Silent, &mut |hit| {
        found.push(format!("{} {}", hit.entry.path, hit.entry.size_bytes));
        ControlFlow::Continue(())
    })
    .unwrap();
    found
}

#[test]
fn a_search_across_snapshots_reads_shared_pages_once_and_tells_each_version_once() {
    let large = Large::new();
    let mut snapshots = large.snapshots();
    let one = search(&large.view, &[&snapshots[0]], "", "00031");
    assert_eq!(one, ["/pad/031/00031 0"]);
    let alone = large.recording.take_requests();
    snapshots.reverse();
    let newest_first: Vec<_> = snapshots.iter().collect();
    let all = search(&large.view, &newest_first, "", "00031");
    assert_eq!(
        all,
        ["/pad/031/00031 5", "/pad/031/00031 6", "/pad/031/00031 0"]
    );
    let together = large.recording.take_requests();
    assert!(
        together.ranges <= alone.ranges + 12,
        "{alone:?} {together:?}"
    );
    let below = search(&large.view, &newest_first, "pad/007", "*57");
    assert_eq!(below.len(), 400, "{below:?}");
    assert!(below.iter().all(|line| line.starts_with("/pad/007/")));
    let few = large.recording.take_requests();
    assert!(few.ranges <= 30, "{few:?}");
}

/// Stops the work when it has heard of it this often.
struct Impatient(AtomicU64);

impl Monitor for Impatient {
    fn event(&self, _: Event<'_>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Relaxed) >= 3
    }
}

#[test]
fn a_search_ends_when_it_is_told_to() {
    let large = Large::new();
    let snapshots = large.snapshots();
    let (root, all) = (TreePath::root(), Pattern::new(b"*"));
    let mut count = 0;
    let mut first_ten = |_: repository::Hit<'_>| {
        count += 1;
        if count == 10 {
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    };
    let done = large
        .view
        .search(&[&snapshots[0]], (&root, &all), &Silent, &mut first_ten);
    assert!(done.is_ok());
    assert_eq!(count, 10);
    let nothing = Pattern::new(b"not there");
    let monitor = Impatient(AtomicU64::new(0));
    let stopped = large
        .view
        .search(&[&snapshots[0]], (&root, &nothing), &monitor, &mut |_| {
            ControlFlow::Continue(())
        });
    assert!(matches!(stopped, Err(RepositoryError::Cancelled)));
}

#[test]
fn a_live_tree_is_compared_without_reading_it_and_only_where_it_was_backed_up() {
    let world = World::new();
    let store = Arc::new(MemoryStore::default());
    let mut source = TreeSource::default();
    for name in ["www/index.php", "www/same", "www/touched", "mail/new"] {
        source.add_file(name, "as it was");
    }
    source.add(FileSpec::stream(path("dumps/shop.sql"), "insert"));
    let target = b"here".to_vec();
    source.add(FileSpec::plain(
        path("www/link"),
        EntryKind::Symlink { target },
    ));
    let id = world.run_well(&store, &source);
    source.take_opened();
    source.remove(&path("mail"));
    source.remove(&path("dumps"));
    source.get_mut(&path("www/index.php")).unwrap().entry.mode = 0o600;
    let touched = &mut source.get_mut(&path("www/touched")).unwrap().entry;
    touched.changed.secs += 1;
    let link = &mut source.get_mut(&path("www/link")).unwrap().entry;
    link.kind = EntryKind::Symlink {
        target: b"there".to_vec(),
    };
    let view = world.view(&store);
    let mut found = Vec::new();
    let parts = [path("www")];
    view.diff_live(
        (&snapshot(&view, id), &parts),
        &mut source.walk(),
        &Silent,
        &mut |change| {
            found.push(shown(&change));
            ControlFlow::Continue(())
        },
    )
    .unwrap();
    let changed = |name: &str, aspect| (format!("~ /www/{name}"), vec![aspect]);
    assert_eq!(
        found,
        [
            changed("index.php", Aspect::Mode),
            changed("link", Aspect::Target),
            changed("touched", Aspect::Inode)
        ]
    );
    assert_eq!(source.take_opened(), 0);
}
