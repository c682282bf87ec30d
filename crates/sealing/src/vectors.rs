//! Golden vectors: bytes as the format has them. Where one of these changes, stored backups cannot be
//! read any more, or are stored twice.

use std::fmt::Write as _;

use data_encoding::HEXLOWER;

use crate::keyring::Keyring;
use crate::naming::{ChunkKind, ChunkNamer};
use crate::object::{ObjectCipher, ObjectKind, TRAILER_PART, seal_single};
use crate::rights::{Right, Rights};
use crate::schedule_key::ScheduleKey;
use crate::slot::{PasswordCost, seal_slot_for_key, seal_slot_for_password};

fn key() -> ScheduleKey {
    ScheduleKey::from_bytes([1; 32])
}

/// Shows short bytes whole and long ones by their hash.
fn shown(bytes: &[u8]) -> String {
    match bytes.len() {
        0..=160 => HEXLOWER.encode(bytes),
        length => format!("{length} bytes, {}", blake3::hash(bytes)),
    }
}

fn assert_vectors(lines: &[(&str, String)], expected: &str) {
    let text = lines.iter().fold(String::new(), |mut text, (name, value)| {
        writeln!(text, "{name}: {value}").unwrap();
        text
    });
    assert_eq!(text, expected);
}

#[test]
fn what_follows_from_a_schedule_key() {
    let key = key();
    let derived = |purpose| (purpose, shown(key.derive(purpose).as_ref()));
    let mut lines = vec![
        ("text", key.to_text().reveal().to_owned()),
        ("domain", key.domain_id().to_string()),
        ("slot name", key.slot_name().to_string()),
        ("second epoch", shown(key.epoch_key(1).as_ref())),
    ];
    let purposes = [
        "slot key",
        "id key",
        "chunker key",
        "tree key",
        "control key",
        "data key",
    ];
    lines.extend(purposes.map(derived));
    let keyring = Keyring::first(&key, "");
    let gear: Vec<u8> = keyring
        .gear_table()
        .iter()
        .flat_map(|word| word.to_le_bytes())
        .collect();
    lines.push(("gear table", shown(&gear)));
    let hasher = keyring.tree_hasher();
    lines.push(("border", format!("{:016x}", hasher.hash(0, b"a\0\0b"))));
    let namer: ChunkNamer = keyring.namer();
    for (name, kind) in [
        ("data", ChunkKind::Data),
        ("page", ChunkKind::Page),
        ("list", ChunkKind::List),
    ] {
        lines.push((name, namer.name(kind, b"hello").to_string()));
    }
    assert_vectors(&lines, KEY);
}

#[test]
fn keyrings_and_slots() {
    let mut keyring = Keyring::first(&key(), "web1");
    let first = keyring.encode().to_vec();
    let slot = seal_slot_for_key(&keyring, &key(), &[3; 24]).unwrap();
    let cost = PasswordCost {
        memory_kib: 19_456,
        passes: 1,
        lanes: 1,
    };
    let password = model::Secret::new("correct horse".into());
    let by_password =
        seal_slot_for_password(&keyring, &password, cost, &([4; 16], [5; 24])).unwrap();
    keyring
        .add_epoch(&ScheduleKey::from_bytes([2; 32]))
        .unwrap();
    let second = keyring.encode().to_vec();
    let add = Rights::from_number(1).unwrap();
    assert!(add.has(Right::Add) && !add.has(Right::Read));
    let writer = keyring.with_rights(add).unwrap().encode().to_vec();
    let lines = [
        ("keyring", shown(&first)),
        ("of two epochs", shown(&second)),
        ("that may add", shown(&writer)),
        ("head of a slot", shown(&slot[..96])),
        ("slot", shown(&slot)),
        ("head of a password's slot", shown(&by_password[..96])),
        ("slot of a password", shown(&by_password)),
    ];
    assert_vectors(&lines, SLOTS);
}

#[test]
fn sealed_objects() {
    let keyring = Keyring::first(&key(), "");
    let mut lines = Vec::new();
    for (name, kind) in [
        ("data pack", ObjectKind::DataPack),
        ("metadata pack", ObjectKind::MetadataPack),
        ("index segment", ObjectKind::IndexSegment),
    ] {
        let cipher = ObjectCipher::create(&keyring, kind, &[6; 32]).unwrap();
        lines.push((name, shown(cipher.header())));
        for number in [0, 1, TRAILER_PART] {
            let mut part = b"hello".to_vec();
            cipher.seal_part(number, &mut part).unwrap();
            lines.push(("part", shown(&part)));
        }
        let mut filler = [0; 16];
        cipher.fill(&mut filler);
        lines.push(("filler", shown(&filler)));
    }
    for (name, kind) in [
        ("snapshot", ObjectKind::Snapshot),
        ("condemned", ObjectKind::Condemned),
        ("pin", ObjectKind::Pin),
    ] {
        let sealed = seal_single(&keyring, kind, &[7; 32], b"hello").unwrap();
        lines.push((name, shown(&sealed)));
    }
    assert_vectors(&lines, OBJECTS);
}

const KEY: &str = "\
text: bsk1-aeaqcaib-aeaqcaib-aeaqcaib-aeaqcaib-aeaqcaib-aeaqcaib-aea7oumj
domain: 0698ee7570c11936fa8bc83d1eba33b6
slot name: 6557b151b0079610bcdbefc0dcbb4aba
second epoch: bd8e596ed1990d7f509f41ac8e858e9583c66ec37ba81be7d29b851e0d3a345f
slot key: 249be738c9f9b368387a97ec338266d34f9fbd05b8b879e42f7fa007593a2c8e
id key: 2d0d11a7a788720b6a1b5fed61b744ff0fb761a096cf580244554c8866ea9520
chunker key: 962ba7339328dfa203acefcb03c7ff4f7fb632868a1a4b0933a4f5aef833a2de
tree key: 202a709741d71eb3b7ba6cb055ab8968e64a3e1d82d798b8dc9d0b5f8e643689
control key: e0a6eb4b4848e0c530ca41c3cb6ee778176ea69e6129d6579c49b6b3b339b02b
data key: 27ac39b0718a429b516ccb85bb5d54173224b29b98b7e397f2726e86cf692e5a
gear table: 2048 bytes, 306e9416224927e34c00632e23399cd711f6dcc0fd1077b98d4be51eb72ea32c
border: 695e83006ab62a48
data: 91b48305e7d7a6452ce3902191f905c76911e81f314ea3f623265be38c001fe9
page: 5dfee586ce2ec95508c991f24a1e08f11ede60ef508f5535f35d674ce6efee70
list: 7e221a2b67357eb028468ae1e0d2645a6de8c38cb0fd1843987f69eb68910a66
";
const SLOTS: &str = "\
keyring: 188 bytes, eadafcf7715caaa79c7dddfd647b8ca8e94afec8a11e7812894a6b736963a7dd
of two epochs: 224 bytes, 38fcf88eea006b51ed4c7b89524466f57d80805abd1d1f375a0534405a83f052
that may add: 188 bytes, 02abba708d70517b0f0f67b33fbd801c36364ad7fd052fdaa5d6c06a1771b89f
head of a slot: 42535459534c4f5401000100000000000000000000000000000000000000000000000000000000000303030303030303030303030303030303030303030303035697c75a5cb34462830134fa8440d98a672451e1cf067f30f0235730fa5c0f82
slot: 300 bytes, d05414f83c45c059c6e9ea861bedb978448b75c77797c6620b2188ffe66dd6ba
head of a password's slot: 42535459534c4f5401000200004c00000100000001000000040404040404040404040404040404040505050505050505050505050505050505050505050505058c8541b0a0a0d9ab4a5b45c0900a7f78292e8a667dacbe7fa19a1daa668c3685
slot of a password: 300 bytes, 0741a169b68a646d5173d501e9ee76a9905016e676aaa7d050559e4655a76c16
";
const OBJECTS: &str = "\
data pack: 425354594f424a3101000101000000000698ee7570c11936fa8bc83d1eba33b606060606060606060606060606060606060606060606060606060606060606066e3e8e63e9f7a52838893b9720530b5ad10f26e22cea935ab57150dcdc237ff5
part: d667725bcce815d074646870c62a2b317e2899f7e8
part: aaba08ccf0ed98dbdaf784dd0aff92186782a4c2d4
part: 37e1c1a43a4c210ad3b29028cf401649a069a3abeb
filler: c03e26151c689eaf9fcf33a46547f9cc
metadata pack: 425354594f424a3101000102000000000698ee7570c11936fa8bc83d1eba33b60606060606060606060606060606060606060606060606060606060606060606a94acf8782c9726b7e5f3153d869faf09970d33a9c792c7f6585ec362b4f6807
part: 4aad3856a668d4ee8ce400304467b3bbfed0bbf353
part: 3b7b526720b9e05b076bec4a102155b7bcbaaef35c
part: 5a6a36372ac586ae5abfe1d519a5af2f75116b88d1
filler: 28ffb230a3731ca39976e33eb6bdef4f
index segment: 425354594f424a3101000103000000000698ee7570c11936fa8bc83d1eba33b606060606060606060606060606060606060606060606060606060606060606067e97812f404638d7fcc6f6569d36e2707319e6ec4e796eb39b4e4fbe6e6745c2
part: 9d1a9a915e50dae3b80538e6a14e9df2dcd676e05f
part: cd037ec8052accbfbf86e4be11637b107a9658dc1c
part: 6b21fe7c3089239519d083030045f7be2280effd16
filler: 33dd75f857e529866f2998c218e2db54
snapshot: 425354594f424a3101000204000000000698ee7570c11936fa8bc83d1eba33b6070707070707070707070707070707070707070707070707070707070707070702a4c9bdbe32b14eeeeb4344a807ff5827a0c65aba75e7794787b78d1bd94f580a994be1cff5cbaee7269745e0ebce51b4c9674e7a
condemned: 425354594f424a3101000505000000000698ee7570c11936fa8bc83d1eba33b60707070707070707070707070707070707070707070707070707070707070707987239303e07db7ecbbc4945ce3e76f688cf821c075e372aadacbb69841d523311d9b24adfa59e6e2acbb042c4febb687dc35457c5082f1a3c7a0375ba050cdc602b8da6fa2052aa0f434b34563f0663dd16774b25
pin: 425354594f424a3101000206000000000698ee7570c11936fa8bc83d1eba33b60707070707070707070707070707070707070707070707070707070707070707a272e9f4917cee23b175e684f4e994140799c599c67a38eacae0896a43409e4b038000e88560951513d8d8e1943945cbd60153604a
";
