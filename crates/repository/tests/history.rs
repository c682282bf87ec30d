//! Random histories: whatever is backed up, forgotten and pruned, every snapshot that is left
//! restores byte for byte.

#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]
#![expect(clippy::indexing_slicing, reason = "a test ends at the first surprise")]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use common::dice::Plan;
use common::turns::{self, ALL, Program, later, take_turns, turn};
use common::{GRACE_SECS, LEASE_SECS, World, noise, path, prune, prune_with};
use edge::{ObjectName, ObjectStore, Silent};
use model::{ByteCount, SnapshotId};
use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use repository::{
    CheckDepth, Domain, Keep, Pin, PruneOptions, PruneReport, Repack, ScheduleKey, Tuning,
};
use testkit::{Fault, FaultyStore, MemoryStore, TreeSource};

#[test]
fn forgotten_content_is_deleted_after_the_grace_and_no_sooner() {
    let world = World::new();
    let store = Arc::new(MemoryStore::default());
    let mut source = TreeSource::default();
    source.add_file("kept", noise(1, 300_000));
    source.add_file("gone", noise(2, 2_000_000));
    world.run_well(&store, &source);
    source.remove(&path("gone"));
    source.add_file("kept", noise(3, 300_000));
    let second = world.run_well(&store, &source);
    assert_eq!(prune(&world, &store), PruneReport::default());

    let domain = world.view(&store).domain().clone();
    let keep = Keep {
        last: 1,
        ..Keep::default()
    };
    let now = edge::Clock::now(&world.clock);
    assert_eq!(domain.apply_retention(&keep, now).unwrap().len(), 1);
    let packs = || {
        let is_pack = |name: &&ObjectName| ["/p/", "/m/"].iter().any(|p| name.as_str().contains(p));
        store.objects().keys().filter(is_pack).count()
    };
    let before = packs();
    let report = prune(&world, &store);
    assert!(report.condemned_packs > 0 && report.deleted_packs == 0);
    assert_eq!(prune(&world, &store).deleted_packs, 0);
    assert_eq!(packs(), before);

    world.clock.advance_secs(i64::from(GRACE_SECS));
    let deleted = prune(&world, &store);
    assert_eq!(deleted.deleted_packs, report.condemned_packs);
    assert!(deleted.freed_bytes.get() > 2_000_000);
    assert!(store.total_bytes() < 1_000_000);
    world.assert_restores(&store, second, &source);
    assert!(
        store
            .objects()
            .keys()
            .all(|name| !name.as_str().starts_with("w/"))
    );
    let id = world.run_well(&store, &source);
    world.assert_restores(&store, id, &source);
}

#[test]
fn nothing_is_deleted_while_a_snapshot_cannot_be_read() {
    let world = World::new();
    let store = Arc::new(MemoryStore::default());
    let mut source = TreeSource::default();
    source.add_file("a", noise(1, 300_000));
    let first = world.run_well(&store, &source);
    source.add_file("a", noise(2, 300_000));
    world.run_well(&store, &source);
    let objects = store.objects();
    let name = objects
        .keys()
        .find(|name| name.as_str().contains(&first.to_string()))
        .unwrap();
    store.damage(name, 120);
    let before = store.objects();
    let place: Arc<dyn ObjectStore> = store.clone();
    assert!(prune_with(&world, &place, 0, None).is_err());
    assert_eq!(store.objects(), before);
}

#[test]
fn many_runs_keep_few_segments() {
    let world = World::new();
    let store = Arc::new(MemoryStore::default());
    let mut source = TreeSource::default();
    let mut snapshots = Vec::new();
    for number in 0..25 {
        source.add_file(&format!("file{number}"), noise(number, 3000));
        snapshots.push((world.run_well(&store, &source), source.clone()));
    }
    let objects = store.objects();
    let segments = objects
        .keys()
        .filter(|name| name.as_str().contains("/i/"))
        .count();
    assert!(segments <= 8, "{segments} segments");
    for (id, source) in &snapshots {
        world.assert_restores(&store, *id, source);
    }
}

#[derive(Debug, Clone)]
enum Step {
    Write { file: u8, seed: u8, kilobytes: u16 },
    Remove { file: u8 },
    Run,
    Forget { nth: u8 },
    Undelete { nth: u8 },
    Prune { repack: Option<u8>, at_once: bool },
    Pin { nth: u8 },
    Retain { last: u8 },
    CutRun { at: u8, has_checkpoints: bool },
    SilentRun { at: u8 },
    Reseal { cut_at: Option<u8> },
    CutPrune { at: u8 },
    Verify,
    Wait,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0_u8..12, any::<u8>(), 0_u16..400)
            .prop_map(|(file, seed, kilobytes)| Step::Write { file, seed, kilobytes }),
        1 => (0_u8..12).prop_map(|file| Step::Remove { file }),
        4 => Just(Step::Run),
        2 => any::<u8>().prop_map(|nth| Step::Forget { nth }),
        1 => any::<u8>().prop_map(|nth| Step::Undelete { nth }),
        2 => (proptest::option::of(0_u8..60), any::<bool>())
            .prop_map(|(repack, at_once)| Step::Prune { repack, at_once }),
        1 => any::<u8>().prop_map(|nth| Step::Pin { nth }),
        1 => (1_u8..4).prop_map(|last| Step::Retain { last }),
        2 => (0_u8..60, any::<bool>())
            .prop_map(|(at, has_checkpoints)| Step::CutRun { at, has_checkpoints }),
        1 => (0_u8..40).prop_map(|at| Step::SilentRun { at }),
        1 => proptest::option::of(0_u8..100).prop_map(|cut_at| Step::Reseal { cut_at }),
        1 => (0_u8..60).prop_map(|at| Step::CutPrune { at }),
        1 => Just(Step::Verify),
        1 => Just(Step::Wait),
    ]
}

/// A repository, and plain copies of what it must hold.
struct Model {
    world: Arc<World>,
    store: Arc<MemoryStore>,
    source: TreeSource,
    left: BTreeMap<SnapshotId, TreeSource>,
    /// In the order in which they were made.
    order: Vec<SnapshotId>,
    trash: Vec<(SnapshotId, TreeSource)>,
    pinned: BTreeSet<SnapshotId>,
    epochs: u8,
}

impl Model {
    fn new() -> Self {
        let mut model = Self {
            world: Arc::new(World::new()),
            store: Arc::new(MemoryStore::default()),
            source: TreeSource::default(),
            left: BTreeMap::new(),
            order: Vec::new(),
            trash: Vec::new(),
            pinned: BTreeSet::new(),
            epochs: 0,
        };
        model.run();
        model
    }

    fn run(&mut self) {
        let id = self.world.run_well(&self.store, &self.source);
        self.left.insert(id, self.source.clone());
        self.order.push(id);
    }

    fn world_mut(&mut self) -> &mut World {
        Arc::get_mut(&mut self.world).unwrap()
    }

    fn domain(&self) -> Domain {
        self.world.view(&self.store).domain().clone()
    }

    fn now(&self) -> model::Instant {
        edge::Clock::now(&self.world.clock)
    }

    fn nth(&self, nth: u8) -> Option<SnapshotId> {
        let at = usize::from(nth) % self.left.len().max(1);
        self.left.keys().nth(at).copied()
    }

    fn cut_at(&self, at: u8) -> Arc<dyn ObjectStore> {
        let fault = Fault::CutAt { at: at.into() };
        Arc::new(FaultyStore::new(self.store.clone(), fault))
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Write {
                file,
                seed,
                kilobytes,
            } => {
                let name = format!("dir{}/file{file}", file % 3);
                let bytes = noise(seed.into(), usize::from(kilobytes) * 1000);
                self.source.add_file(&name, bytes);
            }
            Step::Remove { file } => {
                self.source
                    .remove(&path(&format!("dir{}/file{file}", file % 3)));
            }
            Step::Run => self.run(),
            Step::Forget { nth } => {
                if let Some(id) = self.nth(nth) {
                    self.domain().discard(&[id], self.now()).unwrap();
                    let source = self.left.remove(&id).unwrap();
                    self.trash.push((id, source));
                }
            }
            Step::Undelete { nth } => self.undelete(nth),
            Step::Prune { repack, at_once } => self.prune(repack, at_once),
            Step::Pin { nth } => {
                if let Some(snapshot) = self.nth(nth) {
                    let (at, reason) = (self.now(), String::new());
                    let pin = Pin {
                        snapshot,
                        at,
                        reason,
                        until: None,
                    };
                    self.domain().pin(pin, &self.world.entropy).unwrap();
                    self.pinned.insert(snapshot);
                }
            }
            Step::Retain { last } => self.retain(last),
            Step::CutRun {
                at,
                has_checkpoints,
            } => {
                let place = self.cut_at(at);
                if has_checkpoints {
                    self.world_mut().tuning.checkpoints.bytes = ByteCount::new(100_000);
                }
                self.world.run(&[&place], &self.source, &Silent);
                self.world_mut().tuning = Tuning::default();
                self.find_new();
            }
            Step::SilentRun { at } => self.silent_run(at.into()),
            Step::Reseal { cut_at } => self.reseal(cut_at),
            Step::CutPrune { at } => {
                let place = self.cut_at(at);
                drop(prune_with(&self.world, &place, 0, Some(Repack::default())));
                self.forget_lost_trash();
            }
            Step::Verify => self.verify(),
            Step::Wait => self.world.clock.advance_secs(i64::from(GRACE_SECS)),
        }
    }

    /// A run that was cut after its snapshot was stored and before it was read back left one all the
    /// same, and one that was given up left one or none.
    fn find_new(&mut self) {
        let list = self.domain().snapshots().unwrap().snapshots;
        let ids = list.iter().map(|snapshot| snapshot.id);
        let new: Vec<_> = ids.filter(|id| !self.left.contains_key(id)).collect();
        assert!(new.len() <= 1, "{new:?}");
        for id in new {
            self.left.insert(id, self.source.clone());
            self.order.push(id);
        }
    }

    /// A run gives no sign for so long that a prune gives it up, and then goes on.
    fn silent_run(&mut self, at: u64) {
        let turns = vec![
            turn(0, at),
            later(LEASE_SECS + 3600, turn(1, ALL)),
            turn(0, ALL),
        ];
        let plan = turns::Plan {
            turns,
            ..turns::Plan::default()
        };
        let (world, source) = (&self.world, &self.source);
        let programs: Vec<Program<'_>> = vec![
            Box::new(|place| drop(world.run(&[&place], source, &Silent))),
            Box::new(|place| {
                prune_with(world, &place, 0, Some(Repack::default())).unwrap();
            }),
        ];
        take_turns((world, &self.store), &plan, programs);
        self.trash.clear();
        self.find_new();
    }

    /// Begins an epoch and seals anew what there is, to the end or not.
    fn reseal(&mut self, cut_at: Option<u8>) {
        self.epochs += 1;
        let key = ScheduleKey::from_bytes([self.epochs; 32]);
        self.domain()
            .begin_epoch(&key, &self.world.entropy)
            .unwrap();
        self.world_mut().key = key;
        let place = match cut_at {
            Some(at) => self.cut_at(at),
            None => self.store.clone(),
        };
        let options = PruneOptions {
            grace_secs: 0,
            trash_secs: u32::MAX,
            strays: true,
            repack: None,
            clock: &self.world.clock,
            entropy: &self.world.entropy,
            monitor: &Silent,
        };
        let done = Domain::open(place, &self.world.key).and_then(|domain| domain.reseal(&options));
        assert!(cut_at.is_some() || done.is_ok(), "{done:?}");
    }

    fn undelete(&mut self, nth: u8) {
        let domain = self.domain();
        assert_eq!(domain.trash().unwrap().len(), self.trash.len());
        if !self.trash.is_empty() {
            let at = usize::from(nth) % self.trash.len();
            let (id, source) = self.trash.remove(at);
            let (clock, entropy) = (&self.world.clock, &self.world.entropy);
            domain.undelete(id, clock, entropy).unwrap();
            self.left.insert(id, source);
        }
    }

    fn prune(&mut self, repack: Option<u8>, at_once: bool) {
        let place: Arc<dyn ObjectStore> = self.store.clone();
        let grace_secs = if at_once { 0 } else { GRACE_SECS };
        let repack = repack.map(|waste_percent| Repack {
            waste_percent,
            bytes_max: 500_000,
            ..Repack::default()
        });
        prune_with(&self.world, &place, grace_secs, repack).unwrap();
        // It keeps nothing in the trash.
        self.trash.clear();
    }

    /// The rules keep the newest and what is pinned.
    fn retain(&mut self, last: u8) {
        let keep = Keep {
            last: last.into(),
            ..Keep::default()
        };
        let gone = self.domain().apply_retention(&keep, self.now()).unwrap();
        let here: Vec<_> = self
            .order
            .iter()
            .filter(|id| self.left.contains_key(id))
            .collect();
        let over = here.len().saturating_sub(last.into());
        let expected: BTreeSet<_> = here[..over]
            .iter()
            .map(|id| **id)
            .filter(|id| !self.pinned.contains(id))
            .collect();
        assert_eq!(gone.into_iter().collect::<BTreeSet<_>>(), expected);
        for id in expected {
            let source = self.left.remove(&id).unwrap();
            self.trash.push((id, source));
        }
    }

    /// A prune that was cut may have emptied the trash before, or a part of it.
    fn forget_lost_trash(&mut self) {
        let there: BTreeSet<_> = self
            .domain()
            .trash()
            .unwrap()
            .iter()
            .map(|t| t.snapshot.id)
            .collect();
        self.trash.retain(|(id, _)| there.contains(id));
    }

    fn verify(&self) {
        let report = self
            .world
            .view(&self.store)
            .check(CheckDepth::Data, &Silent)
            .unwrap();
        assert!(report.is_sound(), "{report:?}");
        assert_eq!(report.snapshots, self.left.len() as u64);
        for (id, source) in &self.left {
            self.world.assert_restores(&self.store, *id, source);
        }
    }
}

fn config() -> ProptestConfig {
    let plan = Plan::from_environment("BACKSTAY_HISTORIES", 24);
    ProptestConfig {
        cases: u32::try_from(plan.count).unwrap(),
        rng_seed: RngSeed::Fixed(plan.seed),
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(config())]

    /// `BACKSTAY_HISTORIES` says how many, `BACKSTAY_SEED` from which seed.
    #[test]
    fn every_snapshot_that_is_left_restores(steps in proptest::collection::vec(step(), 5..30)) {
        let mut model = Model::new();
        for step in steps {
            model.step(step);
        }
        model.verify();
    }
}
