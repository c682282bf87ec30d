//! Every released form of the format stays readable: each golden repository opens, is sound, and
//! restores to what its manifests say.

#![expect(clippy::disallowed_methods, reason = "golden repositories are files")]

mod common;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use common::{World, manifest};
use edge::{ObjectName, ObjectStore, Silent};
use model::Secret;
use repository::{CheckDepth, Domain, RepositoryError, Rights, ScheduleKey, Unlock};
use testkit::MemoryStore;

fn repositories() -> Vec<PathBuf> {
    let all = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/data/repositories");
    entries(&all)
}

fn entries(directory: &Path) -> Vec<PathBuf> {
    let read = std::fs::read_dir(directory).into_iter().flatten();
    read.filter_map(|entry| Some(entry.ok()?.path())).collect()
}

fn load(directory: &Path, prefix: &str, store: &MemoryStore) -> std::io::Result<()> {
    for file in entries(directory) {
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        let name = format!("{prefix}{name}");
        if file.is_dir() {
            load(&file, &format!("{name}/"), store)?;
        } else {
            let name = ObjectName::new(name).map_err(std::io::Error::other)?;
            store
                .put(&name, &std::fs::read(&file)?)
                .map_err(std::io::Error::other)?;
        }
    }
    Ok(())
}

#[test]
fn every_golden_repository_restores_to_its_manifests() {
    let world = World::new();
    let repositories = repositories();
    assert!(!repositories.is_empty());
    for repository in repositories {
        let store = Arc::new(MemoryStore::default());
        load(&repository.join("objects"), "", &store).unwrap();
        let view = world.view(&store);
        let report = view.check(CheckDepth::Data, &Silent).unwrap();
        assert!(report.is_sound(), "{report:?}");
        let list = view.domain().snapshots().unwrap();
        assert!(!list.snapshots.is_empty() && list.unreadable.is_empty());
        for snapshot in list.snapshots {
            let (collected, report) = world.restore(&store, snapshot.id);
            assert_eq!(report.failures, []);
            let file = repository.join(format!("{}.txt", snapshot.id));
            let expected = std::fs::read_to_string(&file).unwrap();
            assert_eq!(manifest(&collected), expected, "{}", file.display());
        }
    }
}

#[test]
fn the_golden_repository_with_rights_opens_with_all_its_keys() {
    let world = World::new();
    let store = Arc::new(MemoryStore::default());
    let all = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/data/repositories");
    load(&all.join("v1-rights/objects"), "", &store).unwrap();
    let place: Arc<dyn ObjectStore> = store;
    let password = Secret::new("golden.Repository-7".to_owned());
    let by_password = Domain::open_with(place.clone(), &Unlock::Password(&password)).unwrap();
    let by_key = Domain::open(place.clone(), &world.key).unwrap();
    let writer = Domain::open(place.clone(), &ScheduleKey::from_bytes([43; 32])).unwrap();
    for (domain, rights) in [
        (&by_password, Rights::ALL),
        (&by_key, Rights::ALL),
        (&writer, Rights::ADD),
    ] {
        assert_eq!((domain.rights(), domain.epoch()), (rights, 1));
    }
    assert_eq!(by_password.snapshots().unwrap().snapshots.len(), 3);
    let replaced = Domain::open(place, &ScheduleKey::from_bytes([41; 32]));
    assert!(matches!(replaced, Err(RepositoryError::KeyGone { .. })));
}
