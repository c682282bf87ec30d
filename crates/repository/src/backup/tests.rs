//! What packs look like: how content is spread over them, and what their sizes say.

use std::collections::BTreeMap;
use std::sync::Arc;

use edge::{Silent, TreePath};
use model::{ByteCount, DestinationName};
use sealing::{ObjectKind, ScheduleKey};
use testkit::{CollectingTarget, CountingEntropy, FileSpec, FixedClock, MemoryStore, TreeSource};

use super::{BackupOptions, Replica, back_up};
use crate::content::ChunkRef;
use crate::domain::Domain;
use crate::reader::ChunkReader;
use crate::snapshot::Snapshot;
use crate::tuning::{Compression, RunLimits, Tuning};
use crate::view::{View, find};

fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    let mut hasher = blake3::Hasher::new();
    hasher.update(&seed.to_le_bytes());
    hasher.finalize_xof().fill(&mut bytes);
    bytes
}

fn path(text: &str) -> TreePath {
    TreePath::parse(text.as_bytes()).unwrap()
}

struct Place {
    store: Arc<MemoryStore>,
    domain: Domain,
}

impl Place {
    fn new() -> Self {
        let store = Arc::new(MemoryStore::default());
        let key = ScheduleKey::from_bytes([42; 32]);
        let entropy = CountingEntropy::default();
        let domain = Domain::create(store.clone(), &key, &entropy, "test").unwrap();
        Self { store, domain }
    }

    fn run(&self, source: &TreeSource, tuning: Tuning) -> Snapshot {
        let replica = Replica {
            name: DestinationName::new("place").unwrap(),
            domain: self.domain.clone(),
        };
        let options = BackupOptions {
            schedule: "nightly",
            host: "web1",
            run: None,
            roots: &[],
            paths: &[],
            compare_by: &[],
            tuning,
            clock: &FixedClock::at_secs(1_700_000_000),
            entropy: &CountingEntropy::default(),
            monitor: &Silent,
        };
        let report = back_up(vec![replica], &options, &mut source.walk());
        let replica = report.replicas.into_iter().next().unwrap();
        assert!(replica.error.is_none(), "{:?}", replica.error);
        self.domain.snapshot(replica.snapshot.unwrap()).unwrap()
    }

    fn assert_restores(&self, snapshot: &Snapshot, source: &TreeSource) {
        let view = View::open(self.domain.clone()).unwrap();
        let mut target = CollectingTarget::default();
        let root = [TreePath::root()];
        let report = view.restore(snapshot, &root, &mut target, &Silent).unwrap();
        assert_eq!(report.failures, []);
        let collected = target.collected();
        for (path, spec) in source.specs() {
            assert!(collected[path].bytes == *spec.data, "content of {path}");
        }
    }

    fn chunks(&self, snapshot: &Snapshot, name: &str) -> Vec<ChunkRef> {
        let index = self.domain.load_index().unwrap();
        let mut reader = ChunkReader::new(&self.domain, &index);
        let node = find(&mut reader, snapshot, &path(name)).unwrap().unwrap();
        reader.chunk_list(&node.content.unwrap()).unwrap()
    }

    fn data_packs(&self) -> usize {
        self.domain.list(ObjectKind::DataPack).unwrap().len()
    }
}

/// The least memory: packs of 4 MiB.
fn little_memory() -> Tuning {
    Tuning {
        limits: RunLimits {
            memory: Some(ByteCount::new(1)),
            ..RunLimits::default()
        },
        ..Tuning::default()
    }
}

#[test]
fn changed_content_is_cut_as_if_it_were_new() {
    let before = noise(1, 6_000_000);
    let splice = |range: std::ops::Range<usize>, with: Vec<u8>| {
        let mut after = before.clone();
        after.splice(range, with);
        after
    };
    let mut rows = before.clone();
    (0..30).for_each(|row| rows[200_000 * row] ^= 1);
    let all = before.len();
    let changes = [
        ("the same", before.clone()),
        ("rows", rows),
        ("appended", splice(all..all, noise(2, 1_500_000))),
        ("appended twice", splice(all..all, before.clone())),
        ("cut short", splice(5_000_000..all, Vec::new())),
        ("inserted", splice(2_000_000..2_000_000, noise(3, 700_001))),
        ("removed", splice(1_000_000..1_900_001, Vec::new())),
        ("removed at first", splice(0..1_000_003, Vec::new())),
        ("replaced", splice(500_000..3_000_000, noise(4, 2_500_000))),
        ("turned", splice(0..0, before[3_000_000..].to_vec())),
        ("zeros", vec![0; 6_000_000]),
        ("zeros again", vec![0; 7_000_000]),
    ];
    for name in ["dump.sql", "database.bin", "film.mp4"] {
        let place = Place::new();
        let run = |place: &Place, number: u64, bytes: &[u8]| {
            let mut source = TreeSource::default();
            let mut file = FileSpec::file(path(name), bytes);
            // Another one in the place of the one before.
            file.entry.inode = number;
            source.add(file);
            let snapshot = place.run(&source, Tuning::default());
            place.assert_restores(&snapshot, &source);
            place.chunks(&snapshot, name)
        };
        run(&place, 1, &before);
        for ((change, after), number) in changes.iter().zip(2..) {
            let list = run(&place, number, after);
            let anew = run(&Place::new(), number, after);
            assert_eq!(list, anew, "{name}, {change}");
        }
    }
}

#[test]
fn chunks_of_one_file_lie_in_two_packs_by_chance() {
    let place = Place::new();
    let mut source = TreeSource::default();
    source.add_file("dump.sql", noise(1, 12_000_000));
    let snapshot = place.run(&source, little_memory());
    let index = place.domain.load_index().unwrap();
    let list = place.chunks(&snapshot, "dump.sql");
    assert!(list.len() > 100, "{} chunks", list.len());
    let packs: Vec<_> = list
        .iter()
        .map(|chunk| index.find(&chunk.id).unwrap().pack)
        .collect();
    let changes = packs.windows(2).filter(|two| two[0] != two[1]).count();
    let share = changes * 100 / packs.len();
    assert!((25..=75).contains(&share), "{share} % of changes");
    place.assert_restores(&snapshot, &source);
}

#[test]
fn what_is_left_of_two_packs_becomes_one() {
    let place = Place::new();
    let mut source = TreeSource::default();
    source.add_file("a.bin", noise(1, 3_000_000));
    source.add_file("b.sql", noise(2, 3_000_000));
    source.add_file("small", noise(3, 30_000));
    let snapshot = place.run(&source, Tuning::default());
    assert_eq!(place.data_packs(), 1);
    place.assert_restores(&snapshot, &source);
}

/// The rule of `docs/format.md`, written once more.
fn is_padme(length: u64) -> bool {
    let exponent = length.ilog2();
    let kept = exponent.ilog2() + 1;
    length.trailing_zeros() >= exponent - kept
}

#[test]
fn sizes_of_objects_are_among_few_whatever_the_chunks_are() {
    let mut lengths = BTreeMap::new();
    for seed in 0..4 {
        let place = Place::new();
        let mut source = TreeSource::default();
        // The same amount, cut in other places.
        source.add_file("video.mp4", noise(seed, 7_000_000));
        source.add_file("dump.sql", noise(10 + seed, 3_000_000));
        source.add_file("page.php", noise(20 + seed, 77_777));
        place.run(&source, little_memory());
        for (name, bytes) in place.store.objects() {
            let part = name.as_str().split('/').nth(2).unwrap_or_default();
            if matches!(part, "p" | "m" | "i") {
                let length = bytes.len() as u64;
                assert!(is_padme(length), "{name} has {length} bytes");
                *lengths.entry(length).or_insert(0) += 1;
            }
        }
    }
    assert!(lengths.values().any(|count| *count > 1), "{lengths:?}");
}

#[test]
fn every_level_and_little_memory_give_back_what_was_backed_up() {
    let mut source = TreeSource::default();
    let text = "insert into posts values ('words and words', 17);\n";
    for number in 0..30 {
        let text = text.replace("17", &number.to_string()).repeat(2000);
        source.add_file(&format!("text{number}.sql"), text);
        source.add_file(&format!("noise{number}"), noise(number, 40_000));
    }
    let levels = (0..=9).map(Compression::Level).chain([Compression::Auto]);
    let mut sizes = Vec::new();
    for compression in levels {
        for limits in [RunLimits::default(), little_memory().limits] {
            let place = Place::new();
            let tuning = Tuning {
                compression,
                limits,
                ..Tuning::default()
            };
            let snapshot = place.run(&source, tuning);
            place.assert_restores(&snapshot, &source);
            sizes.push(place.store.total_bytes());
        }
    }
    assert!(sizes[2] * 2 < sizes[0], "{sizes:?}");
    assert!(sizes[18] <= sizes[2], "{sizes:?}");
}

#[test]
fn limited_runs_store_the_same() {
    let mut source = TreeSource::default();
    source.add_file("a.bin", noise(1, 1_500_000));
    let tuning = Tuning {
        limits: RunLimits {
            upload_per_sec: Some(ByteCount::new(20_000_000)),
            download_per_sec: Some(ByteCount::new(20_000_000)),
            cpu_percent: Some(90),
            memory: None,
        },
        ..Tuning::default()
    };
    let place = Place::new();
    let snapshot = place.run(&source, tuning);
    place.assert_restores(&snapshot, &source);
}
