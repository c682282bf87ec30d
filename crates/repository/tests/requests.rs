//! What each operation asks of its store: a change that asks for more is a change that costs, over a
//! line to a bucket, a round trip each.

#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]
#![expect(clippy::print_stdout, reason = "it tells what was asked")]

mod common;

use std::collections::BTreeMap;
use std::io::Read as _;
use std::sync::Arc;

use common::turns::{Plan, take_turns};
use common::{World, noise, path, prune_with, snapshot_of};
use edge::{ObjectStore, Silent, TreePath};
use repository::{CheckDepth, Domain, Repack, View};
use testkit::{CollectingTarget, MemoryStore, RecordingStore, Requests, TreeSource};

/// Enough for three levels of pages and several blocks of the index.
const FILES: u64 = 12_000;
const DIRECTORIES: u64 = 40;

/// The most of each request, in the order of the fields of `Requests`.
#[derive(Debug, Clone, Copy)]
struct Most {
    puts: u64,
    gets: u64,
    ranges: u64,
    sizes: u64,
    lists: u64,
    deletes: u64,
    read_kib: u64,
}

struct Place {
    world: World,
    source: TreeSource,
    recording: Arc<RecordingStore>,
    store: Arc<dyn ObjectStore>,
}

impl Place {
    fn new() -> Self {
        let world = World::new();
        let recording = Arc::new(RecordingStore::new(Arc::new(MemoryStore::default())));
        let store: Arc<dyn ObjectStore> = recording.clone();
        let mut source = TreeSource::default();
        for number in 0..FILES {
            source.add_file(&name(number), noise(number, 300));
        }
        snapshot_of(&world.run(&[&store], &source, &Silent), 0);
        recording.take_requests();
        Self {
            world,
            source,
            recording,
            store,
        }
    }

    fn domain(&self) -> Domain {
        Domain::open(self.store.clone(), &self.world.key).unwrap()
    }

    fn view(&self) -> View {
        let view = View::open(self.domain()).unwrap();
        self.recording.take_requests();
        view
    }

    fn newest(&self) -> repository::Snapshot {
        let list = self.domain().snapshots().unwrap().snapshots;
        self.recording.take_requests();
        list.into_iter().next_back().unwrap()
    }

    fn assert_few(&self, operation: &str, most: Most) {
        let asked = self.recording.take_requests();
        println!("{operation}: {asked:?}");
        let pairs = [
            (asked.puts, most.puts),
            (asked.gets, most.gets),
            (asked.ranges, most.ranges),
            (asked.sizes, most.sizes),
            (asked.lists, most.lists),
            (asked.deletes, most.deletes),
            (asked.bytes_read / 1024, most.read_kib),
        ];
        let is_few = pairs.iter().all(|(asked, most)| asked <= most);
        assert!(is_few, "{operation}: {asked:?}, but at most {most:?}");
        assert_ne!(asked, Requests::default(), "{operation}");
    }
}

fn name(number: u64) -> String {
    format!(
        "acme.1001/files/dir{:02}/file{number:05}.html",
        number % DIRECTORIES
    )
}

const NOTHING: Most = Most {
    puts: 0,
    gets: 0,
    ranges: 0,
    sizes: 0,
    lists: 0,
    deletes: 0,
    read_kib: 0,
};

#[test]
fn looking_and_reading_ask_little() {
    let place = Place::new();
    // The configuration and the slot, which is where it should be.
    place.domain();
    place.assert_few(
        "open",
        Most {
            gets: 2,
            read_kib: 2,
            ..NOTHING
        },
    );

    let domain = place.domain();
    place.recording.take_requests();
    domain.snapshots().unwrap();
    place.assert_few(
        "list snapshots",
        Most {
            gets: 1,
            lists: 1,
            read_kib: 4,
            ..NOTHING
        },
    );

    let newest = place.newest();
    let view = place.view();
    let inside = view.list(&newest, &path("acme.1001/files/dir07")).unwrap();
    assert_eq!(inside.len() as u64, FILES / DIRECTORIES);
    place.assert_few(
        "list a directory",
        Most {
            ranges: 4,
            read_kib: 512,
            ..NOTHING
        },
    );

    // All that a client without a cache asks for to give out one file: ten requests.
    let view = View::open(place.domain()).unwrap();
    let newest = view.domain().snapshots().unwrap().snapshots.pop().unwrap();
    let one = path(&name(4_321));
    let mut bytes = Vec::new();
    view.stream((&newest, &one), &Silent, &mut |_, content| {
        content.unwrap().read_to_end(&mut bytes).map(drop)
    })
    .unwrap();
    assert_eq!(bytes, noise(4_321, 300));
    // Configuration, slot, snapshot and index; pages of three levels, and the chunk.
    let most = Most {
        gets: 4,
        ranges: 4,
        lists: 2,
        read_kib: 2048,
        ..NOTHING
    };
    place.assert_few("dump one file, cold", most);

    // To restore it takes the pages of the directories above it, too.
    let view = View::open(place.domain()).unwrap();
    let newest = view.domain().snapshots().unwrap().snapshots.pop().unwrap();
    let mut target = CollectingTarget::default();
    let report = view.restore(&newest, &[one], &mut target, &Silent).unwrap();
    assert_eq!((report.entries, report.failed), (4, 0));
    let most = Most { ranges: 5, ..most };
    place.assert_few("restore one file, cold", most);
}

#[test]
fn restoring_and_verifying_ask_little() {
    let place = Place::new();
    let newest = place.newest();
    let view = place.view();
    let mut target = CollectingTarget::default();
    let report = view
        .restore(&newest, &[TreePath::root()], &mut target, &Silent)
        .unwrap();
    assert_eq!(report.failed, 0);
    // Each frame once, however many small files share it: a range for each run of them, and the
    // pages. The content cannot be compressed.
    let content_kib = FILES * 300 / 1024;
    place.assert_few(
        "restore",
        Most {
            ranges: 14,
            read_kib: content_kib * 12 / 10,
            ..NOTHING
        },
    );

    let view = place.view();
    assert!(
        view.check(CheckDepth::Structure, &Silent)
            .unwrap()
            .is_sound()
    );
    place.assert_few(
        "verify the structure",
        Most {
            gets: 2,
            ranges: 16,
            lists: 6,
            read_kib: 2048,
            ..NOTHING
        },
    );
}

#[test]
fn runs_ask_little_for_what_did_not_change() {
    let mut place = Place::new();
    snapshot_of(&place.world.run(&[&place.store], &place.source, &Silent), 0);
    let most = Most {
        puts: 3,
        gets: 8,
        ranges: 12,
        sizes: 4,
        lists: 8,
        deletes: 2,
        read_kib: 2048,
    };
    place.assert_few("back up, unchanged", most);

    for number in 0..FILES / 100 {
        place
            .source
            .add_file(&name(number * 100), noise(number + 500_000, 300));
    }
    snapshot_of(&place.world.run(&[&place.store], &place.source, &Silent), 0);
    let most = Most {
        puts: 7,
        gets: 9,
        ranges: 14,
        sizes: 6,
        lists: 8,
        deletes: 2,
        read_kib: 2048,
    };
    place.assert_few("back up, 1 % changed", most);

    let first = place.domain().snapshots().unwrap().snapshots[0].id;
    let domain = place.domain();
    place.recording.take_requests();
    domain.forget(&[first]).unwrap();
    place.assert_few(
        "forget",
        Most {
            lists: 2,
            deletes: 1,
            gets: 1,
            read_kib: 16,
            ..NOTHING
        },
    );

    prune_with(&place.world, &place.store, 0, None).unwrap();
    let most = Most {
        puts: 4,
        gets: 10,
        ranges: 14,
        sizes: 4,
        lists: 12,
        deletes: 4,
        read_kib: 2048,
    };
    place.assert_few("prune", most);
}

/// What a first run asks for. Five requests of each are for the session: it is stored, beside is listed
/// before and after that, it is asked for, which a deletion that deletes nothing need not do, and
/// it is deleted.
const FIRST_RUN: &[(&str, u64)] = &[
    ("delete session", 1),
    ("get repository", 1),
    // Where the slot should be, and that and the snapshot as they were stored.
    ("get slot", 2),
    ("get snapshot", 1),
    // Twice for the session, for checkpoints, for notes of damage.
    ("list beside", 4),
    ("list data pack", 1),
    ("list metadata pack", 1),
    ("list segment", 1),
    ("list slot", 2),
    ("list snapshot", 1),
    ("put data pack", 1),
    ("put metadata pack", 1),
    ("put repository", 1),
    ("put segment", 1),
    ("put session", 1),
    ("put slot", 1),
    ("put snapshot", 1),
    // Of each pack the end is read back, and its length asked for.
    ("range data pack", 1),
    ("range metadata pack", 1),
    ("size data pack", 1),
    ("size metadata pack", 1),
    ("size session", 1),
];

/// What a run asks for when nothing changed.
const UNCHANGED_RUN: &[(&str, u64)] = &[
    ("delete session", 1),
    ("get repository", 1),
    ("get segment", 1),
    ("get slot", 1),
    // The one before, and its own read back.
    ("get snapshot", 2),
    // Twice for the session, for checkpoints, for notes of damage.
    ("list beside", 4),
    ("list data pack", 1),
    ("list metadata pack", 1),
    ("list segment", 1),
    ("list snapshot", 1),
    ("put session", 1),
    ("put snapshot", 1),
    // The pages of the one before.
    ("range metadata pack", 1),
    ("size session", 1),
];

/// What a deletion with nothing to do asks for.
const IDLE_DELETION: &[(&str, u64)] = &[
    ("delete session", 1),
    ("get repository", 1),
    ("get segment", 1),
    ("get slot", 1),
    ("get snapshot", 2),
    // Who is at work, what is in the trash, to mark it and to empty it, and checkpoints.
    ("list beside", 4),
    // Before the session, and again after the index.
    ("list data pack", 2),
    ("list metadata pack", 2),
    ("list segment", 1),
    ("list snapshot", 1),
    ("put session", 1),
    ("range metadata pack", 1),
];

/// Gives what a program asks for, how often each: "put session".
fn kinds(asked: &[String]) -> BTreeMap<String, u64> {
    let mut kinds = BTreeMap::new();
    for asked in asked {
        let (verb, name) = asked.split_once(' ').unwrap();
        let parts: Vec<_> = name.split('/').collect();
        let kind = match parts.as_slice() {
            ["k", ..] => "slot",
            ["d", _, "p", ..] => "data pack",
            ["d", _, "m", ..] => "metadata pack",
            ["d", _, "i", ..] => "segment",
            ["d", _, "s", ..] => "snapshot",
            ["w", _, rest] if !rest.is_empty() => rest.split('-').next().unwrap(),
            ["w", ..] => "beside",
            _ => name,
        };
        *kinds.entry(format!("{verb} {kind}")).or_default() += 1;
    }
    kinds
}

/// Runs one program alone and compares what it asks for.
#[track_caller]
fn assert_asks(
    (world, store): (&Arc<World>, &Arc<MemoryStore>),
    program: impl FnOnce(Arc<dyn ObjectStore>) + Send,
    expected: &[(&str, u64)],
) {
    let asked = take_turns((world, store), &Plan::default(), vec![Box::new(program)]);
    let expected: Vec<_> = expected
        .iter()
        .map(|(kind, n)| ((*kind).to_owned(), *n))
        .collect();
    let asked: Vec<_> = kinds(&asked.concat()).into_iter().collect();
    assert_eq!(asked, expected);
}

#[test]
fn sessions_cost_exactly_what_is_written_here() {
    let world = Arc::new(World::new());
    let store = Arc::new(MemoryStore::default());
    let mut source = TreeSource::default();
    for number in 0..3 {
        source.add_file(&name(number), noise(number, 3000));
    }
    let run = |store: Arc<dyn ObjectStore>| {
        snapshot_of(&world.run(&[&store], &source, &Silent), 0);
    };
    let prune = |store: Arc<dyn ObjectStore>| {
        prune_with(&world, &store, 0, Some(Repack::default())).unwrap();
    };
    let at = (&world, &store);
    assert_asks(at, run, FIRST_RUN);
    assert_asks(at, run, UNCHANGED_RUN);
    assert_asks(at, prune, IDLE_DELETION);
}
