//! What the tests of the engine share: places, runs, comparisons.

#![allow(dead_code, reason = "each test binary uses a part")]
#![allow(unreachable_pub, reason = "shared by several test binaries")]
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

pub mod dice;
pub mod turns;

use std::collections::BTreeMap;
use std::sync::Arc;

use edge::{Entry, EntryKind, Monitor, ObjectStore, Silent, TreePath};
use model::{DestinationName, SnapshotId};
use repository::{
    BackupOptions, BackupReport, Domain, PruneOptions, PruneReport, Repack, Replica,
    RepositoryError, RestoreReport, ScheduleKey, Tuning, View, back_up,
};
use testkit::{
    Collected, CollectingTarget, CountingEntropy, FileSpec, FixedClock, MemoryStore, TreeSource,
};

/// One schedule on one server.
pub struct World {
    pub key: ScheduleKey,
    pub clock: FixedClock,
    pub entropy: CountingEntropy,
    pub cache: Option<Arc<dyn ObjectStore>>,
    pub paths: Vec<TreePath>,
    pub compare_by: Vec<TreePath>,
    pub tuning: Tuning,
}

impl World {
    pub fn new() -> Self {
        Self {
            key: ScheduleKey::from_bytes([42; 32]),
            clock: FixedClock::at_secs(1_700_000_000),
            entropy: CountingEntropy::default(),
            cache: None,
            paths: Vec::new(),
            compare_by: Vec::new(),
            tuning: Tuning::default(),
        }
    }

    pub fn domain(&self, store: &Arc<dyn ObjectStore>) -> Domain {
        let domain = Domain::create(store.clone(), &self.key, &self.entropy, "test").unwrap();
        match &self.cache {
            Some(cache) => domain.with_cache(cache.clone()),
            None => domain,
        }
    }

    /// Opens the stores that can be opened and backs up into them, a minute after the last run.
    pub fn run(
        &self,
        stores: &[&Arc<dyn ObjectStore>],
        source: &TreeSource,
        monitor: &dyn Monitor,
    ) -> BackupReport {
        self.clock.advance_secs(60);
        let replicas = stores
            .iter()
            .enumerate()
            .filter_map(|(number, store)| {
                Some(Replica {
                    name: DestinationName::new(format!("place{number}")).unwrap(),
                    domain: Domain::create((*store).clone(), &self.key, &self.entropy, "test")
                        .map(|domain| match &self.cache {
                            Some(cache) => domain.with_cache(cache.clone()),
                            None => domain,
                        })
                        .ok()?,
                })
            })
            .collect();
        let options = BackupOptions {
            schedule: "nightly",
            host: "web1",
            run: None,
            roots: &[],
            paths: &self.paths,
            compare_by: &self.compare_by,
            tuning: self.tuning,
            clock: &self.clock,
            entropy: &self.entropy,
            monitor,
        };
        back_up(replicas, &options, &mut source.walk())
    }

    /// Backs up into one store.
    pub fn run_one(
        &self,
        store: &Arc<MemoryStore>,
        source: &TreeSource,
        monitor: &dyn Monitor,
    ) -> BackupReport {
        let store: Arc<dyn ObjectStore> = store.clone();
        self.run(&[&store], source, monitor)
    }

    /// Backs up into one store and expects all to go well.
    pub fn run_well(&self, store: &Arc<MemoryStore>, source: &TreeSource) -> SnapshotId {
        let report = self.run_one(store, source, &Silent);
        assert_eq!(report.failures, []);
        snapshot_of(&report, 0)
    }

    pub fn view(&self, store: &Arc<MemoryStore>) -> View {
        let store: Arc<dyn ObjectStore> = store.clone();
        View::open(Domain::open(store, &self.key).unwrap()).unwrap()
    }

    pub fn restore(
        &self,
        store: &Arc<MemoryStore>,
        id: SnapshotId,
    ) -> (BTreeMap<TreePath, Collected>, RestoreReport) {
        let view = self.view(store);
        let snapshot = view.domain().snapshot(id).unwrap();
        let mut target = CollectingTarget::default();
        let report = view
            .restore(&snapshot, &[TreePath::root()], &mut target, &Silent)
            .unwrap();
        (target.collected(), report)
    }

    /// Restores a snapshot and compares it with what was backed up.
    pub fn assert_restores(&self, store: &Arc<MemoryStore>, id: SnapshotId, source: &TreeSource) {
        let (collected, report) = self.restore(store, id);
        assert_eq!(report.failures, []);
        assert_same(&collected, source);
    }
}

pub fn snapshot_of(report: &BackupReport, place: usize) -> SnapshotId {
    let replica = &report.replicas[place];
    assert!(replica.error.is_none(), "{:?}", replica.error);
    replica.snapshot.unwrap()
}

/// Compares restored entries with scripted ones.
pub fn assert_same(collected: &BTreeMap<TreePath, Collected>, source: &TreeSource) {
    let paths: Vec<_> = collected.keys().map(ToString::to_string).collect();
    let expected: Vec<_> = source.specs().keys().map(ToString::to_string).collect();
    assert_eq!(paths, expected);
    for (path, spec) in source.specs() {
        let restored = &collected[path];
        assert_eq!(restored.entry, entry_of(spec), "{path}");
        assert!(restored.bytes == bytes_of(spec), "content of {path}");
        assert_eq!(restored.extents, spec.extents, "{path}");
    }
}

fn entry_of(spec: &FileSpec) -> Entry {
    let mut entry = spec.entry.clone();
    if entry.kind == EntryKind::Stream {
        entry.size_bytes = spec.data.len() as u64;
    }
    entry
}

fn bytes_of(spec: &FileSpec) -> Vec<u8> {
    let Some(extents) = &spec.extents else {
        return spec.data.to_vec();
    };
    let mut bytes = vec![0; usize::try_from(spec.entry.size_bytes).unwrap()];
    let mut from = 0;
    for extent in extents {
        let start = usize::try_from(extent.offset).unwrap();
        let length = usize::try_from(extent.length).unwrap();
        bytes[start..start + length].copy_from_slice(&spec.data[from..from + length]);
        from += length;
    }
    bytes
}

pub const GRACE_SECS: u32 = 3600;
/// How long a session without a sign is waited for.
pub const LEASE_SECS: i64 = 48 * 3600;

pub fn prune(world: &World, store: &Arc<MemoryStore>) -> PruneReport {
    let store: Arc<dyn ObjectStore> = store.clone();
    prune_with(world, &store, GRACE_SECS, None).unwrap()
}

pub fn prune_with(
    world: &World,
    store: &Arc<dyn ObjectStore>,
    grace_secs: u32,
    repack: Option<Repack>,
) -> Result<PruneReport, RepositoryError> {
    let options = PruneOptions {
        grace_secs,
        trash_secs: 0,
        strays: true,
        repack,
        clock: &world.clock,
        entropy: &world.entropy,
        monitor: &Silent,
    };
    Domain::open(store.clone(), &world.key)?.prune(&options)
}

pub fn path(text: &str) -> TreePath {
    TreePath::parse(text.as_bytes()).unwrap()
}

/// Bytes that do not compress.
pub fn noise(seed: u64, length: usize) -> Vec<u8> {
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

/// A tree with one of everything.
pub fn one_of_everything() -> TreeSource {
    use edge::{Extent, FileTime, XAttr};
    let mut source = TreeSource::default();
    source.add_file("acme.1001/files/empty", "");
    source.add_file("acme.1001/files/tiny", "tiny");
    source.add_file("acme.1001/files/small.txt", "small\n".repeat(1000));
    source.add_file("acme.1001/files/exactly", noise(1, 128 * 1024));
    source.add_file("acme.1001/files/larger.bin", noise(2, 3_000_000));
    source.add_file("acme.1001/files/dump.sql", noise(3, 6_000_000));
    source.add_file("acme.1001/files/photo.JPG", noise(4, 5_000_000));
    source.add(FileSpec::stream(
        path("acme.1001/databases/mariadb/shop.sql"),
        "insert into t values (1);\n".repeat(40_000),
    ));
    let odd = TreePath::new(vec![b"acme.1001".to_vec(), b"odd \xff\n\\name".to_vec()]).unwrap();
    source.add(FileSpec::file(odd, "odd"));
    let target = b"../\xfe nowhere".to_vec();
    let mut link = FileSpec::plain(path("server/link"), EntryKind::Symlink { target });
    link.entry.mode = 0o777;
    source.add(link);
    source.add(FileSpec::plain(path("server/fifo"), EntryKind::Fifo));
    let device = (259, 3);
    source.add(FileSpec::plain(
        path("server/char"),
        EntryKind::CharDevice { device },
    ));
    source.add(FileSpec::plain(
        path("server/block"),
        EntryKind::BlockDevice { device },
    ));
    let mut sparse = FileSpec::file(path("server/sparse"), noise(5, 300_000));
    let extent = |offset, length| Extent { offset, length };
    sparse.extents = Some(vec![
        extent(4096, 100_000),
        extent(1_000_000, 150_000),
        extent(8_000_000, 50_000),
    ]);
    sparse.entry.size_bytes = 9_000_000;
    source.add(sparse);
    let mut hollow = FileSpec::file(path("server/hollow"), "");
    hollow.extents = Some(Vec::new());
    hollow.entry.size_bytes = 1_000_000;
    source.add(hollow);
    for name in ["server/hard/a", "server/hard/b", "server/z-hard"] {
        let mut spec = FileSpec::file(path(name), "one content under three names".repeat(100));
        spec.entry.inode = 777_777;
        spec.entry.link_count = 3;
        source.add(spec);
    }
    let mut special = FileSpec::file(path("server/special"), "x");
    special.entry.mode = 0o6711;
    special.entry.modified = FileTime {
        secs: -77,
        nanos: 999_999_999,
    };
    special.entry.xattrs = vec![XAttr {
        name: b"user.note".to_vec(),
        value: noise(6, 4000),
    }];
    source.add(special);
    source
}

/// Writes restored entries as text, one line each, content by its length and hash.
pub fn manifest(collected: &BTreeMap<TreePath, Collected>) -> String {
    let mut text = String::new();
    for (path, restored) in collected {
        let entry = &restored.entry;
        let line = format!(
            "{path} {:?} {:o} {}:{} {}:{} {}.{:09} {}.{:09} {} {} {} {} {} {:?} {:?} {}\n",
            entry.kind,
            entry.mode,
            entry.owner.uid,
            entry.owner.gid,
            entry.owner.user.escape_ascii(),
            entry.owner.group.escape_ascii(),
            entry.modified.secs,
            entry.modified.nanos,
            entry.changed.secs,
            entry.changed.nanos,
            entry.size_bytes,
            entry.inode,
            entry.device,
            entry.link_count,
            blake3::hash(&restored.bytes),
            restored.extents,
            restored.link_to.as_ref().map(ToString::to_string),
            entry
                .xattrs
                .iter()
                .map(|x| blake3::hash(&x.value).to_string())
                .collect::<String>(),
        );
        text.push_str(&line);
    }
    text
}
