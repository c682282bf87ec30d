//! A new epoch, and what older ones sealed stored anew: with limits, cut anywhere, to the end.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test ends at the first surprise"
)]

mod common;

use std::sync::Arc;

use common::{LEASE_SECS, World, noise};
use edge::{ObjectStore, Silent};
use model::SnapshotId;
use repository::{Domain, Pin, PruneOptions, Repack, RepositoryError, ResealReport, ScheduleKey};
use testkit::{Fault, FaultyStore, MemoryStore, RecordingStore, TreeSource};

/// A domain in its second epoch, with three snapshots of the first: one in the trash, one pinned.
struct Older {
    world: World,
    store: Arc<MemoryStore>,
    kept: Vec<(SnapshotId, TreeSource)>,
    trashed: (SnapshotId, TreeSource),
}

fn older(large_bytes: usize) -> Older {
    let mut world = World::new();
    let store = Arc::new(MemoryStore::default());
    let place: Arc<dyn ObjectStore> = store.clone();
    let mut source = TreeSource::default();
    let mut made = Vec::new();
    for number in 0..3 {
        source.add_file(&format!("server/{number}"), noise(number, 120_000));
        source.add_file("server/changed", noise(10 + number, 3000));
        source.add_file("server/large.zip", noise(20 + number, large_bytes));
        made.push((world.run_well(&store, &source), source.clone()));
    }
    let domain = world.domain(&place);
    let now = edge::Clock::now(&world.clock);
    let trashed = made.remove(1);
    domain.discard(&[trashed.0], now).unwrap();
    let pin = Pin {
        snapshot: made[0].0,
        at: now,
        reason: "before the move".into(),
        until: None,
    };
    domain.pin(pin, &world.entropy).unwrap();
    let key = ScheduleKey::from_bytes([1; 32]);
    domain.begin_epoch(&key, &world.entropy).unwrap();
    world.key = key;
    Older {
        world,
        store,
        kept: made,
        trashed,
    }
}

fn reseal(
    world: &World,
    store: &Arc<dyn ObjectStore>,
    repack: Option<Repack>,
) -> Result<ResealReport, RepositoryError> {
    let options = PruneOptions {
        grace_secs: 0,
        trash_secs: 1_000_000,
        strays: true,
        repack,
        clock: &world.clock,
        entropy: &world.entropy,
        monitor: &Silent,
    };
    Domain::open(store.clone(), &world.key)?.reseal(&options)
}

/// Gives the names of objects whose header names the first epoch, of the kinds that have epochs.
fn of_first_epoch(store: &MemoryStore) -> Vec<String> {
    let objects = store.objects();
    let old = objects.iter().filter(|(name, bytes)| {
        let name = name.as_str();
        let has_epoch = ["/p/", "/m/", "/s/", "/trash-"]
            .iter()
            .any(|part| name.contains(part));
        has_epoch && bytes[12..16] == [0; 4]
    });
    old.map(|(name, _)| name.to_string()).collect()
}

impl Older {
    /// All snapshots are there under their ids, and byte for byte what they were.
    fn assert_whole(&self) {
        let place: Arc<dyn ObjectStore> = self.store.clone();
        let domain = Domain::open(place, &self.world.key).unwrap();
        let list = domain.snapshots().unwrap();
        assert!(list.unreadable.is_empty());
        let ids: Vec<_> = list.snapshots.iter().map(|snapshot| snapshot.id).collect();
        let kept: Vec<_> = self.kept.iter().map(|(id, _)| *id).collect();
        assert_eq!(ids, kept);
        for (id, source) in &self.kept {
            self.world.assert_restores(&self.store, *id, source);
        }
        assert_eq!(domain.pins().unwrap()[0].snapshot, kept[0]);
        let trash = domain.trash().unwrap();
        assert_eq!(trash.len(), 1);
        assert_eq!(trash[0].snapshot.id, self.trashed.0);
    }
}

#[test]
fn nothing_of_the_old_epoch_is_left_and_nothing_is_lost() {
    let older = older(9000);
    let place: Arc<dyn ObjectStore> = older.store.clone();
    assert!(!of_first_epoch(&older.store).is_empty());
    let report = reseal(&older.world, &place, None).unwrap();
    assert_eq!((report.snapshots, report.older_packs), (3, 0));
    assert_eq!(of_first_epoch(&older.store), Vec::<String>::new());
    older.assert_whole();
    let again = reseal(&older.world, &place, None).unwrap();
    assert_eq!((again.snapshots, again.pruned.emptied_packs), (0, 0));
    let domain = Domain::open(place, &older.world.key).unwrap();
    let (clock, entropy) = (&older.world.clock, &older.world.entropy);
    domain.undelete(older.trashed.0, clock, entropy).unwrap();
    let (id, source) = &older.trashed;
    older.world.assert_restores(&older.store, *id, source);
    domain.forget(&[*id]).unwrap();
    assert!(domain.snapshot(*id).is_err());
    // The next run takes over what was sealed anew.
    let (_, last) = older.kept.last().unwrap();
    let report = older.world.run_one(&older.store, last, &Silent);
    assert_eq!(report.counts.read_bytes.get(), 0);
}

#[test]
fn limits_end_it_early_and_the_next_time_goes_on() {
    let older = older(17_000_000);
    let place: Arc<dyn ObjectStore> = older.store.clone();
    let little = Repack {
        waste_percent: 100,
        bytes_max: 1,
        ..Repack::default()
    };
    let mut left = Vec::new();
    loop {
        let report = reseal(&older.world, &place, Some(little)).unwrap();
        left.push(report.older_packs);
        if report.older_packs == 0 {
            break;
        }
        assert!(report.pruned.is_cut_short);
    }
    assert!(
        left.len() > 1 && left.is_sorted_by(|a, b| a > b),
        "{left:?}"
    );
    assert_eq!(of_first_epoch(&older.store), Vec::<String>::new());
}

#[test]
fn sealing_anew_may_be_cut_anywhere() {
    let mut older = older(9000);
    let origin = older.store.objects();
    // All in one turn: what is moved twice is what was under way.
    let at_once = Some(Repack {
        waste_percent: 100,
        ..Repack::default()
    });
    let largest = origin.values().map(Vec::len).max().unwrap() as u64;
    let uncut = {
        let recording = Arc::new(RecordingStore::new(older.store.clone()));
        let place: Arc<dyn ObjectStore> = recording.clone();
        reseal(&older.world, &place, at_once).unwrap();
        recording.take_requests().bytes_written
    };
    // Headers, fillers, sessions and the index, each time.
    let beside = 40_000;
    assert!(uncut > 2 * (largest + beside), "{uncut}");
    let mut cut_at = 0;
    loop {
        older.store = Arc::new(MemoryStore::default());
        older.store.set_objects(origin.clone());
        let recording = Arc::new(RecordingStore::new(older.store.clone()));
        let whole: Arc<dyn ObjectStore> = recording.clone();
        let faulty = Arc::new(FaultyStore::new(whole.clone(), Fault::CutAt { at: cut_at }));
        let cut: Arc<dyn ObjectStore> = faulty.clone();
        let done = reseal(&older.world, &cut, at_once);
        let is_whole = faulty.hits() == 0;
        // Cut before the very last, it is done, and only its session stays.
        assert!(done.is_ok() || !is_whole, "cut at {cut_at}");
        older.assert_whole();
        // What was cut left its session, which is waited for.
        older.world.clock.advance_secs(LEASE_SECS);
        reseal(&older.world, &whole, at_once).unwrap();
        let sent = recording.take_requests().bytes_written;
        assert!(
            sent <= uncut + largest + beside,
            "cut at {cut_at}: {sent} of {uncut} sent"
        );
        // Packs that a cut left in no index are condemned first.
        older.world.clock.advance_secs(1);
        reseal(&older.world, &whole, at_once).unwrap();
        assert_eq!(of_first_epoch(&older.store), Vec::<String>::new());
        older.assert_whole();
        if is_whole {
            break;
        }
        // The next cut is as old as this one.
        older.world.clock.advance_secs(-LEASE_SECS - 1);
        cut_at += 1;
    }
    assert!(cut_at > 20, "{cut_at} operations were cut");
}
