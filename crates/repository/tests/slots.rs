//! Who may open a domain: keys and passwords, added, taken away and replaced.

#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod common;

use std::sync::Arc;

use common::{World, noise};
use edge::ObjectStore;
use model::Secret;
use repository::{Domain, RepositoryError, Rights, ScheduleKey, SlotLock, Unlock};
use testkit::{CountingEntropy, Fault, FaultyStore, MemoryStore, TreeSource};

fn place() -> Arc<dyn ObjectStore> {
    Arc::new(MemoryStore::default())
}

fn key(byte: u8) -> ScheduleKey {
    ScheduleKey::from_bytes([byte; 32])
}

fn password(text: &str) -> Secret {
    Secret::new(text.to_owned())
}

#[test]
fn a_password_begins_and_opens_a_domain() {
    let (store, entropy) = (place(), CountingEntropy::default());
    let right = password("Vex.quail7-Trombone");
    let unlock = Unlock::Password(&right);
    let (begun, is_new) = Domain::begin(store.clone(), &unlock, &entropy, "web1").unwrap();
    assert!(is_new);
    let (again, is_new) = Domain::begin(store.clone(), &unlock, &entropy, "web1").unwrap();
    assert_eq!((again.id(), is_new), (begun.id(), false));
    let wrong = password("Vex.quail7-trombone");
    assert!(matches!(
        Domain::open_with(store, &Unlock::Password(&wrong)),
        Err(RepositoryError::WrongPassword { .. })
    ));
    let rows = begun.slots().unwrap();
    assert_eq!(rows.len(), 1);
    assert_eq!(rows[0].tells, Some((SlotLock::Password, Rights::ALL)));
    assert!(rows[0].is_own);
}

#[test]
fn several_slots_open_one_domain_and_the_last_one_stays() {
    let world = World::new();
    let store = place();
    let domain = world.domain(&store);
    let right = password("Vex.quail7-Trombone");
    let add = |unlock: &Unlock<'_>, rights| domain.add_slot(unlock, rights, &world.entropy);
    let by_password = add(&Unlock::Password(&right), Rights::ALL).unwrap();
    let other = key(1);
    add(&Unlock::Key(&other), Rights::READ).unwrap();
    assert!(matches!(
        add(&Unlock::Key(&other), Rights::ALL),
        Err(RepositoryError::SlotTaken { .. })
    ));
    let opened = Domain::open_with(store.clone(), &Unlock::Password(&right)).unwrap();
    assert_eq!((opened.id(), opened.slot()), (domain.id(), by_password));
    let reader = Domain::open(store.clone(), &other).unwrap();
    assert_eq!(reader.rights(), Rights::READ);
    assert!(matches!(
        reader.remove_slot(by_password),
        Err(RepositoryError::NoRight { .. })
    ));
    let more = reader.add_slot(&Unlock::Key(&key(2)), Rights::ALL, &world.entropy);
    assert!(matches!(more, Err(RepositoryError::NoRight { .. })));
    assert_eq!(domain.slots().unwrap().len(), 3);

    opened.remove_slot(world.key.slot_name()).unwrap();
    assert!(matches!(
        Domain::open(store.clone(), &world.key),
        Err(RepositoryError::KeyGone { .. })
    ));
    // The other one may only read.
    assert!(matches!(
        opened.remove_slot(by_password),
        Err(RepositoryError::LastSlot { .. })
    ));
    assert!(matches!(
        opened.remove_slot(world.key.slot_name()),
        Err(RepositoryError::NoSlot { .. })
    ));
    opened.remove_slot(other.slot_name()).unwrap();
    assert_eq!(opened.slots().unwrap().len(), 1);
}

#[test]
fn a_key_that_was_taken_away_does_not_bring_itself_back() {
    let world = World::new();
    let store = place();
    let domain = world.domain(&store);
    let replaced = domain.replace_slot(&Unlock::Key(&key(1)), &world.entropy);
    assert_eq!(replaced.unwrap().slots().unwrap().len(), 1);
    assert!(matches!(
        Domain::create(store.clone(), &world.key, &world.entropy, ""),
        Err(RepositoryError::KeyGone { .. })
    ));
    assert!(Domain::open(store, &key(1)).is_ok());
}

/// Runs `work` cut at every store operation; after each cut one of the two keys opens the domain,
/// and doing it again gets to the end.
fn cut_everywhere(work: &dyn Fn(&Domain, &World) -> Result<Domain, RepositoryError>) {
    let world = World::new();
    let origin = Arc::new(MemoryStore::default());
    let mut source = TreeSource::default();
    source.add_file("a", noise(1, 20_000));
    let id = world.run_well(&origin, &source);
    let new = key(1);
    let mut cut_at = 0;
    loop {
        let store = Arc::new(MemoryStore::default());
        store.set_objects(origin.objects());
        let whole: Arc<dyn ObjectStore> = store.clone();
        let faulty = Arc::new(FaultyStore::new(whole.clone(), Fault::CutAt { at: cut_at }));
        let cut: Arc<dyn ObjectStore> = faulty.clone();
        let done = Domain::open(cut, &world.key).and_then(|domain| work(&domain, &world));
        let is_whole = faulty.hits() == 0;
        assert_eq!(is_whole, done.is_ok(), "cut at {cut_at}");
        let opened = Domain::open(whole.clone(), &world.key);
        let opens = opened.is_ok() || Domain::open(whole.clone(), &new).is_ok();
        assert!(opens, "nothing opens after a cut at {cut_at}");
        if let Ok(opened) = opened
            && let Err(error) = work(&opened, &world)
        {
            assert!(
                matches!(error, RepositoryError::SlotTaken { .. }),
                "{error:?}"
            );
            opened.remove_slot(opened.slot()).unwrap();
        }
        let opened = Domain::open(whole.clone(), &new).unwrap();
        assert_eq!(opened.slots().unwrap().len(), 1);
        assert!(opened.snapshot(id).is_ok());
        if is_whole {
            break;
        }
        cut_at += 1;
    }
    assert!(cut_at > 4, "{cut_at} operations were cut");
}

#[test]
fn replacing_a_key_may_be_cut_anywhere() {
    cut_everywhere(&|domain, world| domain.replace_slot(&Unlock::Key(&key(1)), &world.entropy));
}

#[test]
fn beginning_an_epoch_may_be_cut_anywhere() {
    cut_everywhere(&|domain, world| domain.begin_epoch(&key(1), &world.entropy));
}

#[test]
fn what_is_stored_in_a_new_epoch_the_old_key_does_not_open() {
    let mut world = World::new();
    let store = Arc::new(MemoryStore::default());
    let place: Arc<dyn ObjectStore> = store.clone();
    let mut source = TreeSource::default();
    source.add_file("old", noise(1, 20_000));
    let first = world.run_well(&store, &source);
    // Somebody copied the slot.
    let copied = store.objects();
    let domain = Domain::open(place.clone(), &world.key).unwrap();
    assert_eq!(
        domain.begin_epoch(&key(1), &world.entropy).unwrap().epoch(),
        1
    );
    let old = std::mem::replace(&mut world.key, key(1));
    let before = source.clone();
    source.add_file("new", noise(2, 20_000));
    let second = world.run_well(&store, &source);
    world.assert_restores(&store, first, &before);
    world.assert_restores(&store, second, &source);
    let mut objects = store.objects();
    objects.extend(copied);
    store.set_objects(objects);
    let stale = Domain::open(place, &old).unwrap();
    assert!(stale.snapshot(first).is_ok());
    assert!(stale.snapshot(second).is_err());
}

#[test]
fn places_that_begin_an_epoch_apart_share_every_object() {
    let mut world = World::new();
    let places = [place(), place()];
    let mut source = TreeSource::default();
    source.add_file("a", noise(1, 20_000));
    let refs: Vec<_> = places.iter().collect();
    world.run(&refs, &source, &edge::Silent);
    for place in &places {
        let domain = Domain::open(place.clone(), &world.key).unwrap();
        domain
            .begin_epoch(&key(1), &CountingEntropy::default())
            .unwrap();
    }
    world.key = key(1);
    source.add_file("b", noise(2, 20_000));
    let report = world.run(&refs, &source, &edge::Silent);
    assert_eq!(
        common::snapshot_of(&report, 0),
        common::snapshot_of(&report, 1)
    );
}

#[test]
fn damaged_newer_and_misplaced_slots_are_told_apart() {
    let world = World::new();
    let store = Arc::new(MemoryStore::default());
    let place: Arc<dyn ObjectStore> = store.clone();
    let domain = world.domain(&place);
    let name = format!("k/{}/{}", domain.id(), world.key.slot_name());
    let name = edge::ObjectName::new(name).unwrap();
    let slot = place.get(&name, 65_536).unwrap();
    let opened_with = |at: usize, byte: u8| {
        let mut slot = slot.clone();
        slot[at] = byte;
        place.put(&name, &slot).unwrap();
        Domain::open(place.clone(), &world.key).unwrap_err()
    };
    assert!(matches!(
        opened_with(200, !slot[200]),
        RepositoryError::Damaged { .. }
    ));
    assert!(matches!(opened_with(8, 9), RepositoryError::Newer { .. }));
    assert!(matches!(opened_with(10, 9), RepositoryError::Newer { .. }));
    // It has the name of this key's slot: that it is another key's is damage.
    assert!(matches!(
        opened_with(80, !slot[80]),
        RepositoryError::Damaged { .. }
    ));
    place.delete(&name).unwrap();
    let astray = format!("k/{}/{}", "00".repeat(16), world.key.slot_name());
    place
        .put(&edge::ObjectName::new(astray).unwrap(), &slot)
        .unwrap();
    let error = Domain::open(place, &world.key).unwrap_err();
    assert_eq!(
        repository::chain(&error).split(": ").last(),
        Some("it holds the keys of another domain")
    );
}
