//! A repository that is small and has every kind of object.

use std::collections::BTreeMap;
use std::sync::Arc;

use edge::{Clock, EntryKind, Extent, ObjectName, TreePath, XAttr};
use model::{DomainId, Instant, Secret, SnapshotId};
use repository::ScheduleKey;
use testkit::{Collected, FileSpec, MemoryStore, TreeSource};

use super::damage::{KINDS, kind_of};
use super::life::{Keys, Life};
use crate::common::{World, noise, path};

pub(crate) type Objects = BTreeMap<ObjectName, Vec<u8>>;

pub(crate) struct Rich {
    pub(crate) world: World,
    pub(crate) keys: Keys,
    pub(crate) domain: DomainId,
    pub(crate) objects: Objects,
    /// What was there at some time and is not any more, or was otherwise.
    pub(crate) stale: Vec<(ObjectName, Vec<u8>)>,
    /// The objects of another domain, of another key.
    pub(crate) foreign: Vec<(ObjectName, Vec<u8>)>,
    /// What each snapshot holds that ever was.
    pub(crate) known: BTreeMap<SnapshotId, BTreeMap<TreePath, Collected>>,
    pub(crate) listed: Vec<SnapshotId>,
    /// The objects of each snapshot; one that is being sealed anew has two.
    pub(crate) names: BTreeMap<SnapshotId, Vec<ObjectName>>,
    /// When all this was so.
    pub(crate) at: Instant,
    /// The newest tree.
    pub(crate) source: TreeSource,
    /// Packs that no snapshot needs: condemned ones.
    dead: Vec<ObjectName>,
}

impl Rich {
    pub(crate) fn new() -> Self {
        let mut world = World::new();
        let store = Arc::new(MemoryStore::default());
        let keys = Keys {
            second: ScheduleKey::from_bytes([43; 32]),
            adder: ScheduleKey::from_bytes([44; 32]),
            password: Secret::new("Vex.quail7-Trombone".to_owned()),
        };
        let mut source = tree();
        let life = Life::new(&store).live((&mut world, &keys), &mut source);
        let domain = world.view(&store).domain().clone();
        let objects = store.objects();
        let ever = life.ever.into_iter();
        let stale = ever.filter(|(name, bytes)| objects.get(name) != Some(bytes));
        let stale = stale.collect();
        let live = live_packs(&objects, &world, &store);
        let is_dead =
            |name: &&ObjectName| kind_of(name.as_str()).ends_with("pack") && !live.contains(name);
        let listed = domain.snapshots().unwrap().snapshots;
        let rich = Self {
            keys,
            domain: domain.id(),
            stale,
            foreign: foreign(&mut world),
            known: life.known,
            listed: listed.iter().map(|snapshot| snapshot.id).collect(),
            names: names_of(&objects, &world, &store),
            at: world.clock.now(),
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
            let kind = kind_of(name.as_str());
            // What a note says is in its name alone.
            !matches!(kind, "repository" | "slot" | "damage note") && !self.dead.contains(name)
        })
    }
}

/// Finds the objects of each snapshot: those with which alone it is there.
fn names_of(
    objects: &Objects,
    world: &World,
    store: &Arc<MemoryStore>,
) -> BTreeMap<SnapshotId, Vec<ObjectName>> {
    let is_snapshot = |name: &ObjectName| kind_of(name.as_str()) == "snapshot";
    let mut names: BTreeMap<SnapshotId, Vec<ObjectName>> = BTreeMap::new();
    for name in objects.keys().filter(|name| is_snapshot(name)) {
        let mut alone = objects.clone();
        alone.retain(|other, _| other == name || !is_snapshot(other));
        store.set_objects(alone);
        for snapshot in world.view(store).domain().snapshots().unwrap().snapshots {
            names.entry(snapshot.id).or_default().push(name.clone());
        }
    }
    store.set_objects(objects.clone());
    names
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
