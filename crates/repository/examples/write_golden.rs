//! Writes a golden repository: `cargo run -p repository --example write_golden -- DIRECTORY [rights]`.
//!
//! Golden repositories are made once for each released form of the format and never changed.
//! `tests/golden.rs` opens every one of them. The schedule key is that of the test there. With `rights`
//! it has a second epoch, a password, and a key that may only add and that made a snapshot.

#![expect(
    clippy::disallowed_methods,
    clippy::print_stderr,
    clippy::unwrap_used,
    reason = "a tool for developers that writes files"
)]

#[path = "../tests/common/mod.rs"]
mod common;

use std::path::Path;
use std::sync::Arc;

use common::{World, manifest, noise, one_of_everything, path};
use edge::{Entropy as _, EntryKind, Extent, ObjectStore};
use model::{Secret, SnapshotId};
use repository::{Domain, Rights, ScheduleKey, Unlock};
use testkit::{FileSpec, MemoryStore, TreeSource};

/// What opens the golden repository with rights, too.
const PASSWORD: &str = "golden.Repository-7";

fn main() {
    let Some(directory) = std::env::args().nth(1) else {
        eprintln!("usage: write_golden DIRECTORY");
        return;
    };
    let mut world = World::new();
    let store = Arc::new(MemoryStore::default());
    let mut source = small();
    let has_rights = std::env::args().nth(2).is_some_and(|word| word == "rights");
    if has_rights {
        begin_second_epoch(&mut world, &store);
    }
    let first = world.run_well(&store, &source);
    source.add_file("server/added", "added later");
    source.remove(&path("server/empty"));
    let second = if has_rights {
        run_with_fewer_rights(&world, &store, &source)
    } else {
        world.run_well(&store, &source)
    };
    for (name, bytes) in store.objects() {
        let file = Path::new(&directory).join("objects").join(name.as_str());
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, bytes).unwrap();
    }
    let place: Arc<dyn ObjectStore> = store.clone();
    let listed = Domain::open(place, &world.key)
        .unwrap()
        .snapshots()
        .unwrap();
    let ids: Vec<_> = listed.snapshots.iter().map(|one| one.id).collect();
    assert!(ids.contains(&first) && ids.contains(&second));
    for id in ids {
        let (collected, report) = world.restore(&store, id);
        assert_eq!(report.failed, 0);
        let file = Path::new(&directory).join(format!("{id}.txt"));
        std::fs::write(file, manifest(&collected)).unwrap();
    }
}

/// The domain begins with another key, stores a snapshot, and goes on with the key of all golden
/// repositories.
fn begin_second_epoch(world: &mut World, store: &Arc<MemoryStore>) {
    let key = std::mem::replace(&mut world.key, ScheduleKey::from_bytes([41; 32]));
    let mut source = TreeSource::default();
    source.add_file("server/older", noise(9, 3000));
    let older = world.run_well(store, &source);
    let place: Arc<dyn ObjectStore> = store.clone();
    let domain = world.domain(&place);
    let domain = domain.begin_epoch(&key, &world.entropy).unwrap();
    let password = Secret::new(PASSWORD.to_owned());
    let unlock = Unlock::Password(&password);
    domain
        .add_slot(&unlock, Rights::ALL, &world.entropy)
        .unwrap();
    assert!(domain.snapshot(older).is_ok());
    world.key = key;
}

fn run_with_fewer_rights(
    world: &World,
    store: &Arc<MemoryStore>,
    source: &TreeSource,
) -> SnapshotId {
    let place: Arc<dyn ObjectStore> = store.clone();
    let mut writer = World::new();
    writer.key = ScheduleKey::from_bytes([43; 32]);
    writer.clock.advance_secs(3600);
    // Salts are secrets of this writer: none that was used before.
    (0..10_000).for_each(|_| writer.entropy.fill(&mut [0]));
    let unlock = Unlock::Key(&writer.key);
    let domain = world.domain(&place);
    domain
        .add_slot(&unlock, Rights::ADD, &world.entropy)
        .unwrap();
    writer.run_well(store, source)
}

/// One of everything again, but small once it is compressed.
fn small() -> TreeSource {
    let mut source = TreeSource::default();
    for spec in one_of_everything().specs().values() {
        if spec.data.len() < 10_000 {
            source.add(spec.clone());
        }
    }
    source.add_file("server/empty", "");
    source.add_file("server/whole", noise(1, 3000).repeat(10));
    source.add_file("server/general", noise(2, 3000).repeat(150));
    source.add_file("server/media.zip", noise(3, 3000).repeat(300));
    let mut dump = vec![0; 20_000_000];
    for (number, row) in dump.chunks_mut(100_000).enumerate() {
        row.iter_mut()
            .zip(number.to_le_bytes())
            .for_each(|(to, from)| *to = from);
    }
    source.add(FileSpec::stream(path("server/listed.sql"), dump));
    let mut sparse = FileSpec::plain(path("server/sparse"), EntryKind::File);
    sparse.data = Arc::new(noise(4, 3000));
    let extent = |offset, length| Extent { offset, length };
    sparse.extents = Some(vec![extent(4096, 1000), extent(65_536, 2000)]);
    sparse.entry.size_bytes = 100_000;
    source.add(sparse);
    source
}
