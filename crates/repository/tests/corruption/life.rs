//! What a repository goes through until it has every kind of object, in every suite and epoch.

use std::collections::BTreeMap;
use std::sync::Arc;

use edge::{Clock, ObjectStore, Silent, TreePath};
use model::{ByteCount, Secret, SnapshotId};
use repository::{
    CheckReport, Damage, Domain, Pin, PruneOptions, Repack, Rights, ScheduleKey, Tuning, Unlock,
};
use testkit::{Collected, Fault, FaultyStore, MemoryStore, RecordingMonitor, TreeSource};

use super::damage::kind_of;
use super::rich::Objects;
use crate::common::{GRACE_SECS, LEASE_SECS, World, noise, path};

/// What opens the domain beside the key of its newest epoch.
pub(crate) struct Keys {
    pub(crate) second: ScheduleKey,
    /// May only add.
    pub(crate) adder: ScheduleKey,
    pub(crate) password: Secret,
}

/// All that was there at some time.
pub(crate) struct Life {
    store: Arc<MemoryStore>,
    pub(crate) known: BTreeMap<SnapshotId, BTreeMap<TreePath, Collected>>,
    pub(crate) ever: Vec<(edge::ObjectName, Vec<u8>)>,
}

/// Keeps the trash.
pub(crate) fn options(world: &World, repack: Option<Repack>) -> PruneOptions<'_> {
    PruneOptions {
        grace_secs: GRACE_SECS,
        trash_secs: 100_000_000,
        strays: true,
        repack,
        clock: &world.clock,
        entropy: &world.entropy,
        monitor: &Silent,
    }
}

fn count(objects: &Objects, kind: &str) -> usize {
    let names = objects.keys();
    names.filter(|name| kind_of(name.as_str()) == kind).count()
}

impl Life {
    pub(crate) fn new(store: &Arc<MemoryStore>) -> Self {
        Self {
            store: store.clone(),
            known: BTreeMap::new(),
            ever: Vec::new(),
        }
    }

    /// Runs, lets go, prunes, pins, changes keys and is cut.
    pub(crate) fn live(
        mut self,
        (world, keys): (&mut World, &Keys),
        source: &mut TreeSource,
    ) -> Self {
        let first = self.run(world, source);
        // One snapshot of several pages is enough.
        source.remove(&path("wide"));
        self.add_slots(world, keys);
        for number in 0..2 {
            source.add_file("acme.1001/files/changing.bin", noise(100 + number, 9_000));
            source.add_file(
                &format!("acme.1001/files/new{number}"),
                noise(number, 2_500),
            );
            self.run(world, source);
        }
        source.add_file("acme.1001/files/added", noise(400, 4_000));
        self.add_only(world, source, keys);
        self.begin_epoch(world, 1);
        source.add_file("server/alone.bin", noise(200, 20_000));
        let gone = self.run(world, source);
        self.reseal_a_part(world);
        source.remove(&path("server/alone.bin"));
        source.add_file("acme.1001/files/after", "after");
        let trashed = self.run(world, source);
        self.begin_epoch(world, 2);
        self.add_slots(world, keys);
        self.cut_a_reseal(world);
        source.add_file("acme.1001/files/after", "later");
        self.add_only(world, source, keys);
        // It leaves its session, which is waited for too long.
        self.cut_a_run(world, source);
        world.clock.advance_secs(LEASE_SECS + 1);
        source.add_file("acme.1001/files/last", noise(300, 3_000));
        self.run(world, source);
        self.let_go(world, (gone, trashed), first);
        self.cut_a_run(world, source);
        self.leave_a_checkpoint(world, source);
        self.note_damage(world);
        self
    }

    fn let_go(
        &mut self,
        world: &World,
        (gone, trashed): (SnapshotId, SnapshotId),
        first: SnapshotId,
    ) {
        let domain = world.view(&self.store).domain().clone();
        domain.forget(&[gone]).unwrap();
        domain.discard(&[trashed], world.clock.now()).unwrap();
        self.note();
        let report = domain.prune(&options(world, None)).unwrap();
        assert!(report.condemned_packs > 0, "{report:?}");
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

    /// A run of who may only add.
    fn add_only(&mut self, world: &mut World, source: &TreeSource, keys: &Keys) {
        let own = std::mem::replace(&mut world.key, keys.adder.clone());
        let id = world.run_well(&self.store, source);
        world.key = own;
        world.assert_restores(&self.store, id, source);
        self.known.insert(id, world.restore(&self.store, id).0);
        self.note();
    }

    fn add_slots(&mut self, world: &World, keys: &Keys) {
        let domain = world.view(&self.store).domain().clone();
        let add = |unlock: &Unlock<'_>, rights| {
            domain.add_slot(unlock, rights, &world.entropy).unwrap();
        };
        add(&Unlock::Key(&keys.second), Rights::ALL);
        add(&Unlock::Key(&keys.adder), Rights::ADD);
        add(&Unlock::Password(&keys.password), Rights::ALL);
        self.note();
    }

    fn begin_epoch(&mut self, world: &mut World, number: u8) {
        let domain = world.view(&self.store).domain().clone();
        let key = ScheduleKey::from_bytes([100 + number; 32]);
        domain.begin_epoch(&key, &world.entropy).unwrap();
        world.key = key;
        self.note();
    }

    /// Seals all snapshots and some packs with the newest data key.
    fn reseal_a_part(&mut self, world: &World) {
        let little = Repack {
            waste_percent: 100,
            bytes_max: 1,
            ..Repack::default()
        };
        let domain = world.view(&self.store).domain().clone();
        let report = domain.reseal(&options(world, Some(little))).unwrap();
        assert!(report.snapshots > 0 && report.older_packs > 0, "{report:?}");
        self.note();
    }

    /// Leaves one snapshot under its old and its new name.
    fn cut_a_reseal(&mut self, world: &World) {
        self.cut_until_more("snapshot", &mut |cut| {
            let done = Domain::open(cut.clone(), &world.key)
                .and_then(|domain| domain.reseal(&options(world, None)));
            assert!(done.is_err(), "no snapshot is there twice");
        });
    }

    /// Leaves the session of a run that was cut, and what it stored.
    fn cut_a_run(&mut self, world: &World, source: &TreeSource) {
        let mut more = source.clone();
        more.add_file("acme.1001/files/more", noise(500, 5_000));
        self.cut_until_more("data pack", &mut |cut| {
            world.run(&[cut], &more, &Silent);
        });
        assert_eq!(count(&self.store.objects(), "session"), 1);
    }

    /// Cuts some work ever later until there are more objects of a kind.
    fn cut_until_more(&mut self, kind: &str, work: &mut dyn FnMut(&Arc<dyn ObjectStore>)) {
        let before = self.store.objects();
        for at in 0.. {
            self.store.set_objects(before.clone());
            let whole: Arc<dyn ObjectStore> = self.store.clone();
            let cut: Arc<dyn ObjectStore> = Arc::new(FaultyStore::new(whole, Fault::CutAt { at }));
            work(&cut);
            if count(&self.store.objects(), kind) > count(&before, kind) {
                break;
            }
        }
        self.note();
    }

    fn leave_a_checkpoint(&mut self, world: &mut World, source: &TreeSource) {
        let mut more = source.clone();
        more.add_file("aaa/first", noise(501, 5_000));
        world.tuning.checkpoints.bytes = ByteCount::new(1_000);
        let monitor = RecordingMonitor::cancelling_after(6);
        let report = world.run_one(&self.store, &more, &monitor);
        assert!(report.is_cancelled);
        world.tuning = Tuning::default();
        self.note();
    }

    /// Notes an undamaged pack: there is nothing to be lost.
    fn note_damage(&mut self, world: &World) {
        let objects = self.store.objects();
        let mut names = objects.keys();
        let pack = names.find(|name| kind_of(name.as_str()) == "data pack");
        let damage = Damage {
            object: pack.unwrap().to_string(),
            error: "it was slow".to_owned(),
        };
        let report = CheckReport {
            damage: vec![damage],
            ..CheckReport::default()
        };
        let domain = world.view(&self.store).domain().clone();
        assert_eq!(domain.note_damage(&report).unwrap(), 1);
        self.note();
    }

    fn note(&mut self) {
        for object in self.store.objects() {
            if !self.ever.contains(&object) {
                self.ever.push(object);
            }
        }
    }
}
