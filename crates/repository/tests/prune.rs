//! Pruning and repacking: what nobody needs goes, what somebody needs stays, wherever it is cut.

#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod common;

use std::sync::Arc;

use common::{GRACE_SECS, LEASE_SECS, World, noise, path, prune_with};
use edge::{ObjectStore, Silent, StoreFault};
use model::SnapshotId;
use repository::{
    CheckDepth, Domain, Keep, Pin, PruneOptions, PruneReport, Repack, RepositoryError,
};
use testkit::{Fault, FaultyStore, MemoryStore, TreeSource};

/// A store where most of what is stored is needed by nobody.
struct Wasted {
    world: World,
    store: Arc<MemoryStore>,
    source: TreeSource,
    id: SnapshotId,
}

impl Wasted {
    fn new() -> Self {
        let world = World::new();
        let store = Arc::new(MemoryStore::default());
        let mut source = TreeSource::default();
        for number in 0..40 {
            source.add_file(&format!("file{number}"), noise(number, 60_000));
        }
        let first = world.run_well(&store, &source);
        for number in (0..40).filter(|number| number % 4 != 0) {
            source.remove(&path(&format!("file{number}")));
        }
        source.add_file("new", noise(99, 200_000));
        let second = world.run_well(&store, &source);
        source.add_file("new", noise(98, 200_000));
        let id = world.run_well(&store, &source);
        let gone = [first, second];
        world.view(&store).domain().forget(&gone).unwrap();
        Self {
            world,
            store,
            source,
            id,
        }
    }

    fn prune(&self, grace_secs: u32, repack: Option<Repack>) -> PruneReport {
        let place: Arc<dyn ObjectStore> = self.store.clone();
        prune_with(&self.world, &place, grace_secs, repack).unwrap()
    }

    fn assert_whole(&self, store: &Arc<MemoryStore>, when: &str) {
        self.world.assert_restores(store, self.id, &self.source);
        let report = self.world.view(store).check(CheckDepth::Data, &Silent);
        assert!(report.as_ref().unwrap().is_sound(), "{when}: {report:?}");
    }
}

#[test]
fn what_nobody_needs_of_a_pack_is_freed_by_moving_the_rest() {
    let wasted = Wasted::new();
    let before = wasted.store.total_bytes();
    let looked = wasted.prune(GRACE_SECS, None);
    assert!(looked.waste_bytes.get() > 1_500_000, "{looked:?}");
    assert_eq!(looked.emptied_packs, 0);
    let report = wasted.prune(GRACE_SECS, Some(Repack::default()));
    assert!(report.emptied_packs > 0, "{report:?}");
    assert!(report.moved_bytes.get() > 600_000 && report.moved_bytes.get() < 1_000_000);
    assert!(
        wasted.store.total_bytes() > before,
        "readers need the old ones"
    );
    wasted.assert_whole(&wasted.store, "while both are there");
    wasted.world.clock.advance_secs(GRACE_SECS.into());
    wasted.prune(GRACE_SECS, Some(Repack::default()));
    assert!(wasted.store.total_bytes() < 1_100_000);
    wasted.assert_whole(&wasted.store, "after the grace");
    let again = wasted.prune(GRACE_SECS, Some(Repack::default()));
    assert_eq!(
        again.emptied_packs, 0,
        "there is nothing left to gain: {again:?}"
    );
    let next = wasted.world.run_well(&wasted.store, &wasted.source);
    wasted
        .world
        .assert_restores(&wasted.store, next, &wasted.source);
}

#[test]
fn little_waste_is_left_alone() {
    let wasted = Wasted::new();
    let patient = Repack {
        waste_percent: 90,
        ..Repack::default()
    };
    assert_eq!(wasted.prune(0, Some(patient)).emptied_packs, 0);
}

#[test]
fn a_budget_ends_the_work_and_the_next_time_goes_on() {
    let world = World::new();
    let store = Arc::new(MemoryStore::default());
    let mut source = TreeSource::default();
    let mut gone = Vec::new();
    for number in 0..6 {
        source.add_file(&format!("kept{number}"), noise(number, 100_000));
        source.add_file("gone", noise(100 + number, 100_000));
        gone.push(world.run_well(&store, &source));
    }
    source.remove(&path("gone"));
    let id = world.run_well(&store, &source);
    world.view(&store).domain().forget(&gone).unwrap();
    let place: Arc<dyn ObjectStore> = store.clone();
    let none = Repack {
        secs_max: 0,
        ..Repack::default()
    };
    let report = prune_with(&world, &place, 0, Some(none)).unwrap();
    assert!(report.is_cut_short && report.emptied_packs == 0);
    let little = Repack {
        bytes_max: 1,
        ..Repack::default()
    };
    let mut times = 0;
    let mut waste = report.waste_bytes;
    loop {
        let report = prune_with(&world, &place, 0, Some(little)).unwrap();
        world.assert_restores(&store, id, &source);
        if !report.is_cut_short {
            break;
        }
        assert!(report.waste_bytes < waste, "{report:?}");
        waste = report.waste_bytes;
        times += 1;
    }
    assert!((4..20).contains(&times), "one pack each time: {times}");
    assert!(store.total_bytes() < 750_000, "{}", store.total_bytes());
}

#[test]
fn a_prune_cut_at_any_operation_needs_no_repair() {
    let wasted = Wasted::new();
    let objects = wasted.store.objects();
    for grace_secs in [0, GRACE_SECS] {
        let mut cut_at = 0;
        loop {
            let store = Arc::new(MemoryStore::default());
            store.set_objects(objects.clone());
            let fault = Fault::CutAt { at: cut_at };
            let faulty = Arc::new(FaultyStore::new(store.clone(), fault));
            let place: Arc<dyn ObjectStore> = faulty.clone();
            let done = prune_with(&wasted.world, &place, grace_secs, Some(Repack::default()));
            let is_whole = faulty.hits() == 0;
            // Cut before the very last, it is done, and only its session stays.
            assert!(done.is_ok() || !is_whole, "cut at {cut_at}");
            wasted.assert_whole(&store, &format!("cut at {cut_at}"));
            // Whichever comes next, a run or a prune, finds its way.
            let place: Arc<dyn ObjectStore> = store.clone();
            if cut_at % 2 == 0 {
                let next = wasted.world.run_well(&store, &wasted.source);
                wasted.world.assert_restores(&store, next, &wasted.source);
            }
            // What was cut left its session, which is waited for.
            wasted.world.clock.advance_secs(LEASE_SECS);
            for _ in 0..2 {
                prune_with(&wasted.world, &place, grace_secs, Some(Repack::default())).unwrap();
                wasted.world.clock.advance_secs(GRACE_SECS.into());
            }
            prune_with(&wasted.world, &place, grace_secs, Some(Repack::default())).unwrap();
            wasted.assert_whole(&store, &format!("cut at {cut_at} and pruned"));
            let left = store.total_bytes();
            assert!(left < 1_200_000, "cut at {cut_at}: {left} bytes stay");
            if is_whole {
                break;
            }
            cut_at += 1;
        }
        assert!(cut_at > 20, "{cut_at} operations were cut");
    }
}

#[test]
fn a_full_disk_keeps_dead_packs_from_nothing() {
    let wasted = Wasted::new();
    let objects = wasted.store.objects();
    let mut has_stopped = false;
    for at in 0..80 {
        let store = Arc::new(MemoryStore::default());
        store.set_objects(objects.clone());
        let fault = Fault::WritesFrom {
            at,
            fault: StoreFault::Full,
        };
        let faulty = Arc::new(FaultyStore::new(store.clone(), fault));
        let place: Arc<dyn ObjectStore> = faulty.clone();
        match prune_with(&wasted.world, &place, 0, Some(Repack::default())) {
            // Dead packs went before anything was moved.
            Ok(report) if report.is_cut_short => {
                has_stopped = true;
                assert!(report.deleted_packs > 0, "full at {at}: {report:?}");
            }
            Ok(_) => {}
            Err(RepositoryError::Store(error)) => assert_eq!(error.fault, StoreFault::Full),
            Err(error) => panic!("full at {at}: {error}"),
        }
        wasted.assert_whole(&store, &format!("full at {at}"));
    }
    assert!(has_stopped);
}

#[test]
fn a_damaged_pack_stays_where_it_is() {
    let wasted = Wasted::new();
    for (name, bytes) in &wasted.store.objects() {
        if name.as_str().contains("/p/") && bytes.len() > 1_000_000 {
            assert!(wasted.store.damage(name, 200));
        }
    }
    let (before, _) = wasted.world.restore(&wasted.store, wasted.id);
    let report = wasted.prune(0, Some(Repack::default()));
    assert_eq!(report.unreadable_packs, 1, "{report:?}");
    let (after, _) = wasted.world.restore(&wasted.store, wasted.id);
    assert!(before.len() < wasted.source.specs().len());
    assert!(before.keys().eq(after.keys()), "nothing more is lost");
}

#[test]
fn packs_that_no_run_took_up_go_after_the_grace() {
    let wasted = Wasted::new();
    wasted.prune(0, Some(Repack::default()));
    let before = wasted.store.total_bytes();
    // The packs of another run of this domain, without its index and its snapshot.
    let other = Arc::new(MemoryStore::default());
    let mut source = TreeSource::default();
    source.add_file("stray", noise(500, 300_000));
    wasted.world.run_well(&other, &source);
    let mut objects = wasted.store.objects();
    let is_pack = |name: &str| name.contains("/p/") || name.contains("/m/");
    let strays = other
        .objects()
        .into_iter()
        .filter(|(name, _)| is_pack(name.as_str()));
    objects.extend(strays);
    wasted.store.set_objects(objects);
    let report = wasted.prune(0, None);
    assert_eq!((report.condemned_packs, report.deleted_packs), (2, 0));
    let report = wasted.prune(GRACE_SECS, None);
    assert_eq!((report.condemned_packs, report.deleted_packs), (0, 0));
    wasted.world.clock.advance_secs(GRACE_SECS.into());
    assert_eq!(wasted.prune(GRACE_SECS, None).deleted_packs, 2);
    assert_eq!(wasted.store.total_bytes(), before);
}

#[test]
fn what_a_forecast_says_is_what_is_freed() {
    let world = World::new();
    let store = Arc::new(MemoryStore::default());
    let mut source = TreeSource::default();
    let mut ids = Vec::new();
    for number in 0..4 {
        source.add_file("changing", noise(number, 300_000));
        source.add_file(&format!("kept{number}"), noise(50 + number, 50_000));
        ids.push(world.run_well(&store, &source));
        source.add_file("alone", noise(80 + number, 100_000));
        ids.push(world.run_well(&store, &source));
    }
    let place: Arc<dyn ObjectStore> = store.clone();
    let before = prune_with(&world, &place, 0, None).unwrap();
    let gone = &ids[1..6];
    let domain = world.view(&store).domain().clone();
    let freed = domain.freed_without(gone, &Silent).unwrap();
    assert!(
        freed.packs > 0 && freed.partly_bytes.get() > 200_000,
        "{freed:?}"
    );
    assert_eq!(domain.snapshots().unwrap().snapshots.len(), ids.len());
    domain.forget(gone).unwrap();
    let report = prune_with(&world, &place, 0, None).unwrap();
    assert_eq!(report.deleted_packs, freed.packs);
    assert_eq!(report.freed_bytes, freed.bytes);
    let waste = report.waste_bytes.get() - before.waste_bytes.get();
    assert_eq!(waste, freed.partly_bytes.get());
    assert_eq!(domain.freed_without(gone, &Silent).unwrap().packs, 0);
}

#[test]
fn letting_go_and_bringing_back_may_be_cut_anywhere() {
    let world = World::new();
    let origin = Arc::new(MemoryStore::default());
    let mut source = TreeSource::default();
    source.add_file("a", noise(1, 200_000));
    let id = world.run_well(&origin, &source);
    let before = source.clone();
    source.add_file("a", noise(2, 200_000));
    world.run_well(&origin, &source);
    let now = edge::Clock::now(&world.clock);
    let mut cut_at = 0;
    loop {
        let store = Arc::new(MemoryStore::default());
        store.set_objects(origin.objects());
        let place: Arc<dyn ObjectStore> = store.clone();
        let domain = Domain::open(place.clone(), &world.key).unwrap();
        let fault = Fault::CutAt { at: cut_at };
        let faulty = Arc::new(FaultyStore::new(place.clone(), fault));
        let cut: Arc<dyn ObjectStore> = faulty.clone();
        let done = Domain::open(cut, &world.key).and_then(|domain| {
            domain.discard(&[id], now)?;
            domain.undelete(id, &world.clock, &world.entropy)?;
            domain.discard(&[id], now)
        });
        let is_whole = faulty.hits() == 0;
        assert_eq!(is_whole, done.is_ok(), "cut at {cut_at}");
        let is_listed = |domain: &Domain| {
            let list = domain.snapshots().unwrap();
            list.snapshots.iter().any(|snapshot| snapshot.id == id)
        };
        let is_in_trash = domain.trash().unwrap().iter().any(|t| t.snapshot.id == id);
        assert_ne!(is_listed(&domain), is_in_trash, "cut at {cut_at}");
        let kept = PruneOptions {
            grace_secs: 0,
            trash_secs: 60,
            strays: true,
            repack: Some(Repack::default()),
            clock: &world.clock,
            entropy: &world.entropy,
            monitor: &Silent,
        };
        assert_eq!(domain.prune(&kept).unwrap().deleted_packs, 0);
        if is_in_trash {
            domain.undelete(id, &world.clock, &world.entropy).unwrap();
        }
        world.assert_restores(&store, id, &before);
        if is_whole {
            break;
        }
        cut_at += 1;
    }
    assert!(cut_at > 8, "{cut_at} operations were cut");
}

#[test]
fn a_pin_is_sealed_and_holds_until_it_expires() {
    let world = World::new();
    let store = Arc::new(MemoryStore::default());
    let mut source = TreeSource::default();
    source.add_file("a", noise(1, 1000));
    let id = world.run_well(&store, &source);
    let newest = world.run_well(&store, &source);
    let domain = world.view(&store).domain().clone();
    let at = edge::Clock::now(&world.clock);
    let pin = Pin {
        snapshot: id,
        at,
        reason: "before the move of acme".into(),
        until: Some(at.plus_secs(60)),
    };
    domain.pin(pin.clone(), &world.entropy).unwrap();
    assert_eq!(domain.pins().unwrap(), std::slice::from_ref(&pin));
    let is_open = |bytes: &[u8]| bytes.windows(8).any(|part| part == b"the move");
    assert!(!store.objects().values().any(|bytes| is_open(bytes)));
    let keep = Keep {
        last: 1,
        ..Keep::default()
    };
    assert_eq!(domain.plan(&keep, at).unwrap().gone, []);
    let later = at.plus_secs(60);
    assert_eq!(domain.plan(&keep, later).unwrap().gone, [id]);
    let forever = Pin {
        until: None,
        snapshot: newest,
        ..pin
    };
    domain.pin(forever, &world.entropy).unwrap();
    assert_eq!(domain.unpin(id).unwrap(), 1);
    assert_eq!(domain.plan(&keep, at).unwrap().gone, [id]);
    assert_eq!(domain.pins().unwrap().len(), 1);
}
