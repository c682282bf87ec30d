//! Moving that is cut: what was stored in new packs is taken up, not stored again, and nothing is
//! believed that was not read.

#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod common;

use std::collections::BTreeMap;
use std::sync::Arc;

use common::{GRACE_SECS, LEASE_SECS, World, noise, path, prune_with};
use edge::{ObjectName, ObjectStore, Silent};
use model::{ByteCount, SnapshotId};
use repository::{CheckDepth, Domain, PruneOptions, Repack, RunLimits, ScheduleKey, Tuning};
use testkit::{Fault, FaultyStore, MemoryStore, TreeSource};

const FILES: u64 = 48;
const FILE_BYTES: usize = 25_000;
/// One pack of each kind, and what the border between two of them may fall on.
const PACK_BYTES: usize = 80_000;
const SLACK_BYTES: u64 = PACK_BYTES as u64 + 2000;

type Objects = BTreeMap<ObjectName, Vec<u8>>;

/// A domain of many packs, of each of which half is needed; and it may be in its second epoch.
struct Halved {
    world: World,
    objects: Objects,
    source: TreeSource,
    id: SnapshotId,
}

impl Halved {
    fn new() -> Self {
        let mut world = World::new();
        let limits = RunLimits {
            memory: Some(ByteCount::new(1)),
            ..RunLimits::default()
        };
        world.tuning = Tuning {
            limits,
            ..Tuning::default()
        };
        let store = Arc::new(MemoryStore::default());
        let mut source = TreeSource::default();
        let mut gone = Vec::new();
        for number in 0..FILES {
            source.add_file(&format!("file{number:02}"), noise(number, FILE_BYTES));
            // Two files in each pack, of which one is needed by nobody later.
            if number % 2 == 1 {
                gone.push(world.run_well(&store, &source));
            }
        }
        for number in (0..FILES).filter(|number| number % 2 == 0) {
            source.remove(&path(&format!("file{number:02}")));
        }
        let id = world.run_well(&store, &source);
        world.view(&store).domain().forget(&gone).unwrap();
        let objects = store.objects();
        Self {
            world,
            objects,
            source,
            id,
        }
    }

    fn in_second_epoch(mut self) -> Self {
        let store = self.store();
        let place: Arc<dyn ObjectStore> = store.clone();
        let key = ScheduleKey::from_bytes([1; 32]);
        let domain = self.world.domain(&place);
        domain.begin_epoch(&key, &self.world.entropy).unwrap();
        self.world.key = key;
        self.objects = store.objects();
        self
    }

    fn store(&self) -> Arc<MemoryStore> {
        let store = Arc::new(MemoryStore::default());
        store.set_objects(self.objects.clone());
        store
    }

    fn assert_whole(&self, store: &Arc<MemoryStore>, when: &str) {
        self.world.assert_restores(store, self.id, &self.source);
        let report = self.world.view(store).check(CheckDepth::Data, &Silent);
        assert!(report.as_ref().unwrap().is_sound(), "{when}: {report:?}");
    }
}

fn repack() -> Repack {
    Repack {
        pack_bytes: PACK_BYTES,
        ..Repack::default()
    }
}

/// How moving is asked for.
#[derive(Debug, Clone, Copy)]
enum Verb {
    Prune,
    Reseal,
}

fn options(world: &World, grace_secs: u32) -> PruneOptions<'_> {
    PruneOptions {
        grace_secs,
        trash_secs: 0,
        strays: true,
        repack: Some(repack()),
        clock: &world.clock,
        entropy: &world.entropy,
        monitor: &Silent,
    }
}

fn do_it(verb: Verb, world: &World, place: &Arc<dyn ObjectStore>, grace_secs: u32) -> bool {
    let options = options(world, grace_secs);
    Domain::open(place.clone(), &world.key)
        .and_then(|domain| match verb {
            Verb::Prune => domain.prune(&options).map(drop),
            Verb::Reseal => domain.reseal(&options).map(drop),
        })
        .is_ok()
}

/// Gives the bytes of packs of a kind that are in one place and not in the other.
fn new_bytes(kind: &str, before: &Objects, after: &Objects) -> u64 {
    let new = after
        .iter()
        .filter(|(name, _)| name.as_str().contains(kind) && !before.contains_key(*name));
    new.map(|(_, bytes)| bytes.len() as u64).sum()
}

/// Cuts a verb at each of its operations; what the next one stores of either kind of pack is what
/// the first one left, and one pack.
fn assert_nothing_is_sent_twice(halved: &Halved, verb: Verb, grace_secs: u32) {
    let kinds = ["/p/", "/m/"];
    let uncut = {
        let store = halved.store();
        let place: Arc<dyn ObjectStore> = store.clone();
        assert!(do_it(verb, &halved.world, &place, grace_secs));
        kinds.map(|kind| new_bytes(kind, &halved.objects, &store.objects()))
    };
    assert!(uncut[0] > 5 * PACK_BYTES as u64, "{uncut:?}");
    for cut_at in 0.. {
        let store = halved.store();
        let fault = Fault::CutAt { at: cut_at };
        let faulty = Arc::new(FaultyStore::new(store.clone(), fault));
        let place: Arc<dyn ObjectStore> = faulty.clone();
        do_it(verb, &halved.world, &place, grace_secs);
        let is_whole = faulty.hits() == 0;
        let when = format!("{verb:?}, grace {grace_secs}, cut at {cut_at}");
        let place: Arc<dyn ObjectStore> = store.clone();
        let cut = store.objects();
        let stored = kinds.map(|kind| new_bytes(kind, &halved.objects, &cut));
        // A run between them takes the new packs up itself: then they are named beside the old ones.
        if cut_at % 2 == 0 {
            halved.world.run_well(&store, &halved.source);
        }
        // What was cut left its session, which is waited for.
        halved.world.clock.advance_secs(LEASE_SECS);
        let before = store.objects();
        assert!(do_it(verb, &halved.world, &place, grace_secs), "{when}");
        for (kind, (stored, uncut)) in kinds.into_iter().zip(stored.into_iter().zip(uncut)) {
            let sent = new_bytes(kind, &before, &store.objects());
            let most = uncut.saturating_sub(stored) + SLACK_BYTES;
            assert!(
                sent <= most,
                "{when}: {sent} of {kind} sent, {stored} of {uncut} were stored"
            );
        }
        halved.assert_whole(&store, &when);
        for _ in 0..2 {
            halved.world.clock.advance_secs(GRACE_SECS.into());
            assert!(do_it(verb, &halved.world, &place, grace_secs), "{when}");
            halved.assert_whole(&store, &when);
        }
        let left = store.total_bytes();
        let needed = FILES / 2 * FILE_BYTES as u64;
        assert!(left < needed + 200_000, "{when}: {left} bytes stay");
        // The next cut is as old as this one.
        let back = LEASE_SECS + 2 * i64::from(GRACE_SECS);
        halved.world.clock.advance_secs(-back);
        if is_whole {
            assert!(cut_at > 40, "{cut_at} operations were cut");
            return;
        }
    }
}

#[test]
fn a_prune_that_is_cut_anywhere_sends_nothing_twice() {
    let halved = Halved::new();
    for grace_secs in [0, GRACE_SECS] {
        assert_nothing_is_sent_twice(&halved, Verb::Prune, grace_secs);
    }
}

#[test]
fn sealing_anew_that_is_cut_anywhere_sends_nothing_twice() {
    let halved = Halved::new().in_second_epoch();
    assert_nothing_is_sent_twice(&halved, Verb::Reseal, 0);
}

/// Leaves the packs of a prune that was cut when it had stored them all.
fn leave_strays(halved: &Halved) -> (Arc<MemoryStore>, Vec<ObjectName>) {
    let mut at = 0;
    loop {
        let store = halved.store();
        let fault = Fault::CutAt { at };
        let cut: Arc<dyn ObjectStore> = Arc::new(FaultyStore::new(store.clone(), fault));
        do_it(Verb::Prune, &halved.world, &cut, GRACE_SECS);
        let new = |part: &str| -> Vec<_> {
            let objects = store.objects().into_keys();
            let new = objects.filter(|name| !halved.objects.contains_key(name));
            new.filter(|name| name.as_str().contains(part)).collect()
        };
        if new("/p/").len() >= 5 && new("/m/").is_empty() {
            assert!(new("/i/").is_empty());
            let packs = new("/p/");
            return (store, packs);
        }
        at += 1;
    }
}

#[test]
fn a_stray_that_is_damaged_is_not_taken_up() {
    let halved = Halved::new();
    let (store, strays) = leave_strays(&halved);
    let (damaged, sound) = strays.split_first().unwrap();
    // Its trailer is whole, and what it holds is not.
    assert!(store.damage(damaged, 30_000));
    halved.world.clock.advance_secs(LEASE_SECS);
    let before = store.objects();
    let place: Arc<dyn ObjectStore> = store.clone();
    let report = prune_with(&halved.world, &place, 0, Some(repack())).unwrap();
    assert!(report.emptied_packs > 0, "{report:?}");
    halved.assert_whole(&store, "beside a damaged stray");
    let after = store.objects();
    assert!(sound.iter().all(|name| after.contains_key(name)));
    let sent = new_bytes("/p/", &before, &after);
    assert!(sent > before[damaged].len() as u64 / 2, "{sent} sent again");
    assert!(report.condemned_packs >= 1, "{report:?}");
}

#[test]
fn strays_of_which_nothing_has_to_be_moved_are_condemned() {
    let halved = Halved::new();
    let (store, strays) = leave_strays(&halved);
    halved.world.clock.advance_secs(LEASE_SECS);
    let place: Arc<dyn ObjectStore> = store.clone();
    let patient = Repack {
        waste_percent: 90,
        ..repack()
    };
    let report = prune_with(&halved.world, &place, 0, Some(patient)).unwrap();
    assert_eq!(report.condemned_packs, strays.len() as u64, "{report:?}");
    // What is condemned is relied on by nobody any more.
    let report = prune_with(&halved.world, &place, 0, Some(repack())).unwrap();
    assert!(report.moved_bytes.get() > 500_000, "{report:?}");
    let left = store.objects();
    assert!(strays.iter().all(|name| !left.contains_key(name)));
    halved.assert_whole(&store, "without the strays");
}

#[test]
fn a_stray_of_an_older_epoch_is_no_new_place() {
    let halved = Halved::new();
    let (store, strays) = leave_strays(&halved);
    halved.world.clock.advance_secs(LEASE_SECS);
    let halved = Halved {
        objects: store.objects(),
        ..halved
    }
    .in_second_epoch();
    let store = halved.store();
    let place: Arc<dyn ObjectStore> = store.clone();
    let report = Domain::open(place, &halved.world.key).unwrap();
    let report = report.reseal(&options(&halved.world, 0)).unwrap();
    assert_eq!(report.older_packs, 0, "{report:?}");
    // Nothing names them, so they go as other strays do.
    assert!(report.pruned.condemned_packs >= strays.len() as u64);
    halved.assert_whole(&store, "in the second epoch");
}

#[test]
fn a_stray_is_not_taken_up_beside_a_session() {
    let halved = Halved::new();
    let (store, _) = leave_strays(&halved);
    // The session of what was cut is waited for.
    let before = store.objects();
    let place: Arc<dyn ObjectStore> = store.clone();
    let report = prune_with(&halved.world, &place, 0, Some(repack())).unwrap();
    assert_eq!((report.emptied_packs, report.condemned_packs), (0, 0));
    assert_eq!(new_bytes("/i/", &before, &store.objects()), 0);
}
