//! Tests of sealed objects.

use super::*;
use crate::rights::Rights;
use crate::schedule_key::ScheduleKey;

fn keyring(byte: u8) -> Keyring {
    Keyring::first(&ScheduleKey::from_bytes([byte; 32]), "test")
}

#[test]
fn every_changed_byte_of_a_single_object_is_noticed() {
    let keyring = keyring(1);
    let sealed = seal_single(&keyring, ObjectKind::Snapshot, &[5; 32], b"hello").unwrap();
    assert_eq!(
        open_single(&keyring, ObjectKind::Snapshot, &sealed).unwrap(),
        b"hello"
    );
    for at in 0..sealed.len() {
        let mut damaged = sealed.clone();
        damaged[at] ^= 1;
        assert!(
            open_single(&keyring, ObjectKind::Snapshot, &damaged).is_err(),
            "{at}"
        );
    }
    for length in 0..sealed.len() {
        let cut = &sealed[..length];
        assert!(open_single(&keyring, ObjectKind::Snapshot, cut).is_err());
    }
    assert!(open_single(&keyring, ObjectKind::Condemned, &sealed).is_err());
}

#[test]
fn parts_open_only_in_their_place() {
    let keyring = keyring(1);
    let object = ObjectCipher::create(&keyring, ObjectKind::DataPack, &[6; 32]).unwrap();
    let mut part = b"frame".to_vec();
    object.seal_part(3, &mut part).unwrap();
    assert_eq!(part.len(), 5 + PART_OVERHEAD_BYTES);
    let again = ObjectCipher::open(&keyring, ObjectKind::DataPack, object.header()).unwrap();
    assert_eq!(
        again.open_part(4, &mut part.clone()),
        Err(ObjectError::Damaged)
    );
    again.open_part(3, &mut part).unwrap();
    assert_eq!(part, b"frame");
}

#[test]
fn another_key_is_told_from_damage() {
    let mut other = keyring(1);
    other.add_epoch(&ScheduleKey::from_bytes([9; 32])).unwrap();
    let sealed = seal_single(&other, ObjectKind::Snapshot, &[5; 32], b"x").unwrap();
    assert_eq!(
        open_single(&keyring(1), ObjectKind::Snapshot, &sealed),
        Err(ObjectError::Epoch(1))
    );
    let mut third = keyring(1);
    third.add_epoch(&ScheduleKey::from_bytes([8; 32])).unwrap();
    assert_eq!(
        open_single(&third, ObjectKind::Snapshot, &sealed),
        Err(ObjectError::Commitment)
    );
    assert_eq!(
        open_single(&keyring(2), ObjectKind::Snapshot, &sealed),
        Err(ObjectError::Header)
    );
}

#[test]
fn who_may_only_add_seals_what_only_others_open() {
    let full = keyring(1);
    let add = full.with_rights(Rights::ADD).unwrap();
    let kind = ObjectKind::Snapshot;
    let sealed = seal_single(&add, kind, &[5; 32], b"hello").unwrap();
    assert_eq!(open_single(&full, kind, &sealed).unwrap(), b"hello");
    assert_eq!(sealed_by(&sealed), Ok((0, false)));
    let no_right = Err(ObjectError::Right(Right::Read));
    assert_eq!(open_single(&add, kind, &sealed), no_right);
    let older = seal_single(&full, kind, &[6; 32], b"older").unwrap();
    assert_eq!(open_single(&add, kind, &older), no_right);
    assert_eq!(
        open_single(&add, ObjectKind::Pin, &older),
        Err(ObjectError::Header)
    );
    for at in 0..sealed.len() {
        let mut damaged = sealed.clone();
        damaged[at] ^= 0x80;
        assert!(open_single(&full, kind, &damaged).is_err(), "{at}");
    }
    let stranger = keyring(2).with_rights(Rights::ADD).unwrap();
    let foreign = seal_single(&stranger, kind, &[5; 32], b"hello").unwrap();
    assert_eq!(open_single(&full, kind, &foreign), Err(ObjectError::Header));
}

#[test]
fn who_may_only_add_reads_trailers_and_no_frame() {
    let full = keyring(1);
    let add = full.with_rights(Rights::ADD).unwrap();
    let kind = ObjectKind::DataPack;
    let object = ObjectCipher::create(&add, kind, &[6; 32]).unwrap();
    let (mut frame, mut trailer) = (b"frame".to_vec(), b"trailer".to_vec());
    object.seal_part(0, &mut frame).unwrap();
    object.seal_part(TRAILER_PART, &mut trailer).unwrap();
    let own = ObjectCipher::open(&add, kind, object.header()).unwrap();
    let mut opened = trailer.clone();
    own.open_part(TRAILER_PART, &mut opened).unwrap();
    assert_eq!(opened, b"trailer");
    assert_eq!(
        own.open_part(0, &mut frame.clone()),
        Err(ObjectError::Right(Right::Read))
    );
    let (epoch, salt) = object.origin().unwrap();
    assert!(ObjectCipher::recall(&add, kind, epoch, &salt).is_err());
    let reader = ObjectCipher::recall(&full, kind, epoch, &salt).unwrap();
    assert_eq!(reader.header(), object.header());
    for (number, part, text) in [
        (0, &frame, &b"frame"[..]),
        (TRAILER_PART, &trailer, b"trailer"),
    ] {
        let mut opened = part.clone();
        reader.open_part(number, &mut opened).unwrap();
        assert_eq!(opened, text);
        let mut damaged = part.clone();
        damaged[1] ^= 1;
        assert!(reader.open_part(number, &mut damaged).is_err());
    }
    let older = ObjectCipher::create(&full, kind, &[6; 32]).unwrap();
    let refused = ObjectCipher::open(&add, kind, older.header()).unwrap_err();
    assert_eq!(refused, ObjectError::Right(Right::Read));
}

#[test]
fn a_newer_suite_says_so() {
    let keyring = keyring(1);
    let mut sealed = seal_single(&keyring, ObjectKind::Snapshot, &[5; 32], b"x").unwrap();
    sealed[10] = 9;
    let refused = open_single(&keyring, ObjectKind::Snapshot, &sealed);
    assert_eq!(refused, Err(ObjectError::Suite(9)));
}

#[test]
fn decisions_are_read_by_all_and_made_by_few() {
    let full = keyring(1);
    let (kind, salt) = (ObjectKind::Condemned, [5; 32]);
    let sealed = seal_single(&full, kind, &salt, b"packs").unwrap();
    assert_eq!(open_single(&full, kind, &sealed).unwrap(), b"packs");
    let add = full.with_rights(Rights::ADD).unwrap();
    assert_eq!(open_single(&add, kind, &sealed).unwrap(), b"packs");
    assert_eq!(
        seal_single(&add, kind, &salt, b"packs"),
        Err(ObjectError::Right(Right::Delete))
    );
    // Whoever has only the key to read them, and makes up a code.
    let mut forger = keyring(1);
    forger.control = Key::new([9; 32]);
    let forged = seal_single(&forger, kind, &salt, b"packs").unwrap();
    assert_eq!(open_single(&add, kind, &forged).unwrap(), b"packs");
    assert_eq!(open_single(&full, kind, &forged), Err(ObjectError::Damaged));
    for at in 0..sealed.len() {
        let mut damaged = sealed.clone();
        damaged[at] ^= 0x80;
        assert!(open_single(&full, kind, &damaged).is_err(), "{at}");
    }
}
