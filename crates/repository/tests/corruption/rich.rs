//! A repository that is small and has every kind of object.

use std::collections::BTreeMap;
use std::sync::Arc;

use edge::{Clock, EntryKind, Extent, ObjectName, TreePath, XAttr};
use model::{DomainId, SnapshotId};
use repository::{Pin, PruneOptions, Rights, ScheduleKey, Unlock};
use testkit::{Collected, FileSpec, MemoryStore, TreeSource};

use super::damage::{KINDS, kind_of};
use crate::common::{World, noise, path};

pub(crate) type Objects = BTreeMap<ObjectName, Vec<u8>>;

pub(crate) struct Rich {
    pub(crate) world: World,
    pub(crate) second_key: ScheduleKey,
    pub(crate) domain: DomainId,
    pub(crate) objects: Objects,
    /// What was there at some time and is not any more, or was otherwise.
    pub(crate) stale: Vec<(ObjectName, Vec<u8>)>,
    /// The objects of another domain, of another key.
    pub(crate) foreign: Vec<(ObjectName, Vec<u8>)>,
    /// What each snapshot holds that ever was.
    pub(crate) known: BTreeMap<SnapshotId, BTreeMap<TreePath, Collected>>,
    pub(crate) listed: Vec<SnapshotId>,
    /// The newest tree.
    pub(crate) source: TreeSource,
    /// Packs that no snapshot needs: condemned ones.
    dead: Vec<ObjectName>,
}

impl Rich {
    pub(crate) fn new() -> Self {
        let mut world = World::new();
        let store = Arc::new(MemoryStore::default());
        let mut builder = Builder {
            store: store.clone(),
            known: BTreeMap::new(),
            ever: Vec::new(),
        };
        let mut source = tree();
        let second_key = ScheduleKey::from_bytes([43; 32]);
        builder.live_through(&world, &mut source, &second_key);
        let domain = world.view(&store).domain().clone();
        let objects = store.objects();
        let ever = builder.ever.into_iter();
        let stale = ever.filter(|(name, bytes)| objects.get(name) != Some(bytes));
        let stale = stale.collect();
        let live = live_packs(&objects, &world, &store);
        let is_dead =
            |name: &&ObjectName| kind_of(name.as_str()).ends_with("pack") && !live.contains(name);
        let listed = domain.snapshots().unwrap().snapshots;
        let rich = Self {
            second_key,
            domain: domain.id(),
            stale,
            foreign: foreign(&mut world),
            known: builder.known,
            listed: listed.iter().map(|snapshot| snapshot.id).collect(),
            source,
            dead: objects.keys().filter(is_dead).cloned().collect(),
            objects,
            world,
        };
        for kind in KINDS {
            assert!(rich.of_kind(kind).next().is_some(), "there is no {kind}");
        }
        rich
    }

    pub(crate) fn describe(&self) -> String {
        let count: BTreeMap<_, _> = KINDS
            .iter()
            .map(|kind| (*kind, self.of_kind(kind).count()))
            .collect();
        let bytes: usize = self.objects.values().map(Vec::len).sum();
        format!("{count:?} in {bytes} bytes")
    }

    pub(crate) fn of_kind<'a>(&'a self, kind: &'a str) -> impl Iterator<Item = &'a ObjectName> {
        self.objects
            .keys()
            .filter(move |name| kind_of(name.as_str()) == kind)
    }

    /// The objects whose damage a check has to name.
    pub(crate) fn live(&self) -> impl Iterator<Item = (&ObjectName, &Vec<u8>)> {
        self.objects.iter().filter(|(name, _)| {
            !matches!(kind_of(name.as_str()), "repository" | "slot") && !self.dead.contains(name)
        })
    }
}

/// Without a pack the check of an undamaged index names it, when the index does.
fn live_packs(objects: &Objects, world: &World, store: &Arc<MemoryStore>) -> Vec<ObjectName> {
    let mut live = Vec::new();
    for name in objects
        .keys()
        .filter(|name| kind_of(name.as_str()).ends_with("pack"))
    {
        let mut less = objects.clone();
        less.remove(name);
        store.set_objects(less);
        let report = world
            .view(store)
            .check(repository::CheckDepth::Structure, &edge::Silent)
            .unwrap();
        if !report.is_sound() {
            live.push(name.clone());
        }
    }
    store.set_objects(objects.clone());
    live
}

fn foreign(world: &mut World) -> Vec<(ObjectName, Vec<u8>)> {
    let store = Arc::new(MemoryStore::default());
    let own = std::mem::replace(&mut world.key, ScheduleKey::from_bytes([77; 32]));
    world.run_well(&store, &tree());
    world.key = own;
    store.objects().into_iter().collect()
}

struct Builder {
    store: Arc<MemoryStore>,
    known: BTreeMap<SnapshotId, BTreeMap<TreePath, Collected>>,
    ever: Vec<(ObjectName, Vec<u8>)>,
}

impl Builder {
    /// Runs, lets go, prunes and pins until there is an object of every kind.
    fn live_through(&mut self, world: &World, source: &mut TreeSource, second_key: &ScheduleKey) {
        let first = self.run(world, source);
        // One snapshot of several pages is enough.
        source.remove(&path("wide"));
        let domain = world.view(&self.store).domain().clone();
        let unlock = Unlock::Key(second_key);
        domain
            .add_slot(&unlock, Rights::ALL, &world.entropy)
            .unwrap();
        for number in 0..2 {
            source.add_file("acme.1001/files/changing.bin", noise(100 + number, 9_000));
            source.add_file(
                &format!("acme.1001/files/new{number}"),
                noise(number, 2_500),
            );
            self.run(world, source);
        }
        source.add_file("server/alone.bin", noise(200, 20_000));
        let gone = self.run(world, source);
        source.remove(&path("server/alone.bin"));
        source.add_file("acme.1001/files/after", "after");
        let trashed = self.run(world, source);
        source.add_file("acme.1001/files/after", "later");
        self.run(world, source);
        domain.forget(&[gone]).unwrap();
        domain.discard(&[trashed], world.clock.now()).unwrap();
        self.note();
        let options = PruneOptions {
            grace_secs: 3600,
            trash_secs: 86_400,
            strays: true,
            repack: None,
            clock: &world.clock,
            entropy: &world.entropy,
            monitor: &edge::Silent,
        };
        let report = domain.prune(&options).unwrap();
        assert!(report.condemned_packs > 0, "{report:?}");
        source.add_file("acme.1001/files/last", noise(300, 3_000));
        self.run(world, source);
        let pin = Pin {
            snapshot: first,
            at: world.clock.now(),
            reason: "the first".to_owned(),
            until: None,
        };
        domain.pin(pin, &world.entropy).unwrap();
        self.note();
    }
    fn run(&mut self, world: &World, source: &TreeSource) -> SnapshotId {
        let id = world.run_well(&self.store, source);
        world.assert_restores(&self.store, id, source);
        self.known.insert(id, world.restore(&self.store, id).0);
        self.note();
        id
    }

    fn note(&mut self) {
        for object in self.store.objects() {
            if !self.ever.contains(&object) {
                self.ever.push(object);
            }
        }
    }
}

/// Every kind of entry and content, and more than one page.
fn tree() -> TreeSource {
    let mut source = TreeSource::default();
    source.add_file("acme.1001/files/empty", "");
    source.add_file("acme.1001/files/tiny", "tiny");
    source.add_file("acme.1001/files/small.txt", "small\n".repeat(1000));
    source.add_file("acme.1001/files/general.bin", noise(2, 3000).repeat(45));
    source.add_file("acme.1001/files/media.zip", noise(3, 3000).repeat(50));
    for number in 0..10_u64 {
        source.add_file(
            &format!("acme.1001/files/mail/{number}"),
            noise(10 + number, 1500),
        );
    }
    let dump = "insert into t values (1);\n".repeat(3_000);
    source.add(FileSpec::stream(
        path("acme.1001/databases/mariadb/shop.sql"),
        dump,
    ));
    let target = b"../\xfe nowhere".to_vec();
    source.add(FileSpec::plain(
        path("server/link"),
        EntryKind::Symlink { target },
    ));
    source.add(FileSpec::plain(path("server/fifo"), EntryKind::Fifo));
    let device = (259, 3);
    source.add(FileSpec::plain(
        path("server/char"),
        EntryKind::CharDevice { device },
    ));
    let mut sparse = FileSpec::file(path("server/sparse"), noise(5, 3_000));
    let extent = |offset, length| Extent { offset, length };
    sparse.extents = Some(vec![extent(4096, 1_000), extent(65_536, 2_000)]);
    sparse.entry.size_bytes = 70_000;
    source.add(sparse);
    for name in ["server/hard/a", "server/z-hard"] {
        let mut spec = FileSpec::file(path(name), "one content under two names".repeat(100));
        spec.entry.inode = 777_777;
        spec.entry.link_count = 2;
        source.add(spec);
    }
    // Attributes that differ fill pages; they compress.
    for number in 0..14_u32 {
        let mut spec = FileSpec::file(path(&format!("wide/{number:03}")), "");
        let name = b"user.note".to_vec();
        let value = number.to_be_bytes().repeat(2500);
        spec.entry.xattrs = vec![XAttr { name, value }];
        source.add(spec);
    }
    source
}
