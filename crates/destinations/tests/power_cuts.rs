//! The power is cut at the n-th file-system call of a local repository, and what was not yet durable
//! is lost or not, as chance will have it: nothing that a snapshot needs is missing afterwards, and
//! nothing has to be repaired.
//!
//! `BACKSTAY_POWER_CUTS` says at how many calls of each phase, spread evenly; without it at every one.
//! `BACKSTAY_SEED` says what is lost.

#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]
#![expect(clippy::indexing_slicing, reason = "a test ends at the first surprise")]
#![expect(clippy::print_stdout, reason = "it tells how often it tried")]

#[path = "../../repository/tests/common/mod.rs"]
mod common;

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use common::dice::{Dice, Plan};
use common::{GRACE_SECS, World, noise, path, prune_with, snapshot_of};
use destinations::{FileCall, Gate, LocalStore};
use edge::{ObjectStore, Silent};
use model::{ByteCount, SnapshotId};
use repository::{CheckDepth, Domain, PruneOptions, Repack, ScheduleKey};
use tempfile::TempDir;
use testkit::{MemoryStore, TreeSource};

/// Calls of each phase at which the power is cut, unless told otherwise: more than there are.
const USUAL: u64 = 10_000;

/// What a power cut may undo.
#[derive(Debug)]
enum Undone {
    Made(PathBuf),
    Renamed(PathBuf, PathBuf),
    Removed(PathBuf, Vec<u8>),
}

impl Undone {
    fn directory(&self) -> Option<&Path> {
        match self {
            Self::Made(path) | Self::Renamed(_, path) | Self::Removed(path, _) => path.parent(),
        }
    }
}

/// A disk whose power is cut before a call.
#[derive(Debug)]
struct Power {
    cut_at: u64,
    calls: AtomicU64,
    not_durable: Mutex<(Vec<Undone>, BTreeSet<PathBuf>)>,
}

impl Power {
    fn cut_at(cut_at: u64) -> Arc<Self> {
        Arc::new(Self {
            cut_at,
            calls: AtomicU64::new(0),
            not_durable: Mutex::default(),
        })
    }

    fn calls(&self) -> u64 {
        self.calls.load(Ordering::SeqCst)
    }

    fn was_cut(&self) -> bool {
        self.calls() > self.cut_at
    }

    fn note(&self, call: FileCall<'_>) {
        let mut held = self.not_durable.lock().unwrap();
        let (undone, unsynced) = &mut *held;
        match call {
            FileCall::MakeDirectory(path) => undone.push(Undone::Made(path.to_owned())),
            FileCall::Create(path) => drop(unsynced.insert(path.to_owned())),
            FileCall::Sync(path) => drop(unsynced.remove(path)),
            FileCall::Rename(from, to) => {
                undone.push(Undone::Renamed(from.to_owned(), to.to_owned()));
            }
            FileCall::Remove(path) => {
                if let Ok(bytes) = fs::read(path) {
                    undone.push(Undone::Removed(path.to_owned(), bytes));
                }
            }
            FileCall::SyncDirectory(path) => undone.retain(|done| done.directory() != Some(path)),
            FileCall::Write(..) | FileCall::Look(_) => {}
        }
    }

    /// Loses some of what was not durable.
    fn lose(&self, dice: &mut Dice) {
        let held = self.not_durable.lock().unwrap();
        let (undone, unsynced) = &*held;
        for path in unsynced {
            if let Ok(file) = fs::File::options().write(true).open(path) {
                let length = file.metadata().unwrap().len();
                file.set_len(length / 2).unwrap();
            }
        }
        for done in undone.iter().rev().filter(|_| dice.once_in(2)) {
            match done {
                Undone::Made(path) => drop(fs::remove_dir_all(path)),
                Undone::Renamed(from, to) => drop(fs::rename(to, from)),
                Undone::Removed(path, bytes) => drop(fs::write(path, bytes)),
            }
        }
    }
}

impl Gate for Power {
    fn pass(&self, call: FileCall<'_>) -> io::Result<()> {
        let number = self.calls.fetch_add(1, Ordering::SeqCst);
        if number < self.cut_at {
            self.note(call);
            return Ok(());
        }
        if number == self.cut_at
            && let FileCall::Write(path, bytes) = call
        {
            fs::write(path, &bytes[..bytes.len() / 2])?;
        }
        Err(io::Error::other("the power is cut"))
    }
}

/// A directory in memory where there is one: thousands of syncs are no matter of this test.
fn directory() -> TempDir {
    let memory = Path::new("/dev/shm");
    let begun = tempfile::Builder::new()
        .prefix("backstay-")
        .tempdir_in(memory);
    begun.unwrap_or_else(|_| tempfile::tempdir().unwrap())
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// Reads all objects, as who looks at them afterwards finds them.
fn reopened(root: &Path) -> Arc<MemoryStore> {
    let store = LocalStore::open(root).unwrap();
    let memory = Arc::new(MemoryStore::default());
    let mut names = Vec::new();
    store.list("", &mut |info| names.push(info.name)).unwrap();
    for name in names {
        let bytes = store.get(&name, u64::MAX).unwrap();
        memory.put(&name, &bytes).unwrap();
    }
    memory
}

/// A repository with snapshots that must stay, and what is backed up next.
struct Kept {
    world: World,
    root: TempDir,
    snapshots: Vec<(SnapshotId, TreeSource)>,
    next: TreeSource,
}

impl Kept {
    /// Of what is stored most is needed by nobody any more.
    fn new() -> Self {
        let world = World::new();
        let root = directory();
        let place: Arc<dyn ObjectStore> = Arc::new(LocalStore::open(root.path()).unwrap());
        let mut source = TreeSource::default();
        let mut runs = Vec::new();
        for number in 0..24 {
            source.add_file(
                &format!("dir{}/file{number}", number % 3),
                noise(number, 20_000),
            );
        }
        runs.push((
            snapshot_of(&world.run(&[&place], &source, &Silent), 0),
            source.clone(),
        ));
        for number in (0..24).filter(|number| number % 4 != 0) {
            source.remove(&path(&format!("dir{}/file{number}", number % 3)));
        }
        for number in 0..2 {
            source.add_file("dir1/changing", noise(90 + number, 50_000));
            runs.push((
                snapshot_of(&world.run(&[&place], &source, &Silent), 0),
                source.clone(),
            ));
        }
        let domain = Domain::open(place, &world.key).unwrap();
        domain.forget(&[runs[0].0]).unwrap();
        let next = {
            source.add_file("dir1/changing", noise(99, 80_000));
            source.add_file("dir2/new", noise(98, 30_000));
            source
        };
        Self {
            world,
            root,
            snapshots: runs.split_off(1),
            next,
        }
    }

    /// Cuts the power at the calls of a phase.
    fn cut(&self, phase: &dyn Fn(&World, &Arc<dyn ObjectStore>)) {
        let plan = Plan::from_environment("BACKSTAY_POWER_CUTS", USUAL);
        let calls = {
            let whole = directory();
            copy(self.root.path(), whole.path());
            let power = Power::cut_at(u64::MAX);
            let store = LocalStore::open(whole.path()).unwrap();
            let place: Arc<dyn ObjectStore> = Arc::new(store.with_gate(power.clone()));
            phase(&self.world, &place);
            power.calls()
        };
        let stride = (calls / plan.count.max(1)).max(1);
        let mut cut_at = plan.seed % stride;
        let mut cuts = 0;
        while cut_at < calls {
            self.cut_once(phase, cut_at, &mut Dice::new(plan.seed, cut_at));
            cuts += 1;
            cut_at += stride;
        }
        println!("{cuts} cuts among {calls} calls, seed {}", plan.seed);
        assert!(calls > 40 && cuts >= plan.count.min(calls));
    }

    fn cut_once(&self, phase: &dyn Fn(&World, &Arc<dyn ObjectStore>), at: u64, dice: &mut Dice) {
        let root = directory();
        copy(self.root.path(), root.path());
        let power = Power::cut_at(at);
        let store = LocalStore::open(root.path());
        let place: Arc<dyn ObjectStore> = Arc::new(store.unwrap().with_gate(power.clone()));
        phase(&self.world, &place);
        power.lose(dice);
        let when = format!("cut at {at}, {}", power.was_cut());
        self.assert_whole(&reopened(root.path()), &when);
        // Whatever comes next finds its way, on the real directory.
        let place: Arc<dyn ObjectStore> = Arc::new(LocalStore::open(root.path()).unwrap());
        if dice.once_in(2) {
            prune_with(&self.world, &place, GRACE_SECS, Some(Repack::default())).unwrap();
        }
        let next = snapshot_of(&self.world.run(&[&place], &self.next, &Silent), 0);
        self.world.clock.advance_secs(GRACE_SECS.into());
        prune_with(&self.world, &place, GRACE_SECS, Some(Repack::default())).unwrap();
        let memory = reopened(root.path());
        self.assert_whole(&memory, &when);
        self.world.assert_restores(&memory, next, &self.next);
    }

    fn assert_whole(&self, store: &Arc<MemoryStore>, when: &str) {
        for (id, source) in &self.snapshots {
            self.world.assert_restores(store, *id, source);
        }
        let report = self
            .world
            .view(store)
            .check(CheckDepth::Data, &Silent)
            .unwrap();
        assert!(report.is_sound(), "{when}: {report:?}");
    }
}

#[test]
fn a_run_survives_a_power_cut_at_any_call() {
    let kept = Kept::new();
    kept.cut(&|world, place| drop(world.run(&[place], &kept.next, &Silent)));
}

#[test]
fn a_prune_survives_a_power_cut_at_any_call() {
    let kept = Kept::new();
    kept.cut(&|world, place| {
        drop(prune_with(world, place, 0, Some(Repack::default())));
    });
}

#[test]
fn a_run_with_checkpoints_survives_a_power_cut_at_any_call() {
    let mut kept = Kept::new();
    kept.world.tuning.checkpoints.bytes = ByteCount::new(30_000);
    for number in 0..4 {
        let name = format!("dir2/more{number}");
        kept.next.add_file(&name, noise(200 + number, 20_000));
    }
    kept.cut(&|world, place| drop(world.run(&[place], &kept.next, &Silent)));
}

#[test]
fn sealing_anew_survives_a_power_cut_at_any_call() {
    let mut kept = Kept::new();
    let place: Arc<dyn ObjectStore> = Arc::new(LocalStore::open(kept.root.path()).unwrap());
    let domain = Domain::open(place, &kept.world.key).unwrap();
    let key = ScheduleKey::from_bytes([1; 32]);
    domain.begin_epoch(&key, &kept.world.entropy).unwrap();
    kept.world.key = key;
    kept.cut(&|world, place| {
        let options = PruneOptions {
            grace_secs: 0,
            trash_secs: 0,
            strays: true,
            repack: Some(Repack::default()),
            clock: &world.clock,
            entropy: &world.entropy,
            monitor: &Silent,
        };
        let domain = Domain::open(place.clone(), &world.key);
        drop(domain.and_then(|domain| domain.reseal(&options)));
    });
}

#[test]
fn letting_go_and_bringing_back_survives_a_power_cut_at_any_call() {
    let kept = Kept::new();
    let (id, source) = kept.snapshots[0].clone();
    let (clock, entropy) = (&kept.world.clock, &kept.world.entropy);
    let at = edge::Clock::now(clock);
    let calls = {
        let whole = directory();
        copy(kept.root.path(), whole.path());
        let power = Power::cut_at(u64::MAX);
        let store = LocalStore::open(whole.path()).unwrap();
        let place: Arc<dyn ObjectStore> = Arc::new(store.with_gate(power.clone()));
        let domain = Domain::open(place, &kept.world.key).unwrap();
        domain.discard(&[id], at).unwrap();
        domain.undelete(id, clock, entropy).unwrap();
        power.calls()
    };
    for cut_at in 0..calls {
        let root = directory();
        copy(kept.root.path(), root.path());
        let power = Power::cut_at(cut_at);
        let store = LocalStore::open(root.path());
        let place: Arc<dyn ObjectStore> = Arc::new(store.unwrap().with_gate(power.clone()));
        let done = Domain::open(place, &kept.world.key).and_then(|domain| {
            domain.discard(&[id], at)?;
            domain.undelete(id, clock, entropy)
        });
        // Cut before the very last, it is done, and only its session stays.
        assert!(power.was_cut());
        drop(done);
        power.lose(&mut Dice::new(1, cut_at));
        let memory = reopened(root.path());
        let domain = kept.world.view(&memory).domain().clone();
        if domain.snapshot(id).is_err() {
            domain.undelete(id, clock, entropy).unwrap();
        }
        kept.world.assert_restores(&memory, id, &source);
    }
}

/// A disk that is pulled out before a call, and plugged in again afterwards.
#[derive(Debug)]
struct Pulled {
    root: PathBuf,
    at: u64,
    calls: AtomicU64,
}

impl Gate for Pulled {
    fn pass(&self, _: FileCall<'_>) -> io::Result<()> {
        if self.calls.fetch_add(1, Ordering::SeqCst) == self.at {
            fs::rename(&self.root, self.root.with_extension("away"))?;
        }
        Ok(())
    }
}

#[test]
fn a_disk_that_vanishes_during_a_run_is_named_and_never_made_anew() {
    let kept = Kept::new();
    for at in [0, 5, 20, 40, 55] {
        let outside = directory();
        let root = outside.path().join("disk");
        copy(kept.root.path(), &root);
        let store = LocalStore::open(&root).unwrap();
        let place: Arc<dyn ObjectStore> = Arc::new(store.with_gate(Arc::new(Pulled {
            root: root.clone(),
            at,
            calls: AtomicU64::new(0),
        })));
        let report = kept.world.run(&[&place], &kept.next, &Silent);
        // A disk that was away from the start opens nothing at all.
        if let Some(replica) = report.replicas.first() {
            assert_eq!(replica.snapshot, None, "pulled at {at}");
            let error = replica.error.as_ref().unwrap();
            let text = repository::chain(error);
            assert!(
                text.contains(&root.display().to_string()),
                "pulled at {at}: {text}"
            );
        }
        assert!(
            !root.exists(),
            "pulled at {at}: the directory was made anew"
        );
        fs::rename(root.with_extension("away"), &root).unwrap();
        kept.assert_whole(&reopened(&root), &format!("pulled at {at}"));
    }
}
