//! Golden vectors: bytes as the format has them. Where one of these changes, stored backups cannot be
//! read any more, or are stored twice.

use std::fmt::Write as _;
use std::sync::Arc;

use edge::{Entry, EntryKind, Extent, FileTime, Owner, TreePath, XAttr};
use model::{ByteCount, DomainId, Instant};
use sealing::{ChunkId, ChunkKind, Keyring, ObjectKind, ScheduleKey};

use crate::chunker::{Chunker, Class};
use crate::condemned::CondemnedText;
use crate::container::{Stored, Tail, open_tail};
use crate::content::{Bytes, ChunkRef, Content, Node, encode_list, put_content};
use crate::domain::Config;
use crate::index::{FrameShape, PackInfo, Record};
use crate::layout::{self, ObjectHash};
use crate::pack::{ChunkEntry, Codec, FrameEntry, encode_trailer};
use crate::segment::{Directory, SegmentWriter, decode_fences};
use crate::snapshot::NewSnapshot;
use crate::trash::Pin;
use crate::tree::{Child, TreeBuilder, TreeRoot, encode_inner, encode_leaf};
use crate::wire::Put;

/// Shows short bytes whole and long ones by their hash.
fn shown(bytes: &[u8]) -> String {
    match bytes.len() {
        0..=200 => bytes
            .iter()
            .fold(String::new(), |text, byte| format!("{text}{byte:02x}")),
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

fn keyring() -> Keyring {
    Keyring::first(&ScheduleKey::from_bytes([1; 32]), "")
}

fn id(byte: u8) -> ChunkId {
    ChunkId::from_bytes([byte; 32])
}

fn noise(length: usize) -> Vec<u8> {
    let mut out = vec![0; length];
    blake3::Hasher::new()
        .update(b"vectors")
        .finalize_xof()
        .fill(&mut out);
    out
}

fn node(path: &str, kind: EntryKind, content: Option<Content>) -> Node {
    let owner = Owner {
        uid: 33,
        gid: 34,
        user: b"www-data".to_vec(),
        group: b"www".to_vec(),
    };
    let xattrs = vec![XAttr {
        name: b"user.a".to_vec(),
        value: b"\0\xff".to_vec(),
    }];
    let entry = Entry {
        path: TreePath::parse(path.as_bytes()).unwrap(),
        kind,
        mode: 0o4755,
        owner: Arc::new(owner),
        modified: FileTime {
            secs: -5,
            nanos: 999_999_999,
        },
        changed: FileTime {
            secs: 1_700_000_000,
            nanos: 1,
        },
        size_bytes: 3,
        inode: 300,
        device: 9,
        link_count: 1,
        xattrs,
    };
    Node { entry, content }
}

fn inline(bytes: &[u8]) -> Content {
    Content {
        class: Class::Whole,
        bytes: Bytes::Inline(bytes.to_vec()),
        extents: None,
    }
}

#[test]
fn numbers_names_and_small_texts() {
    let mut numbers = Vec::new();
    for number in [0, 1, 127, 128, 300, u64::MAX] {
        numbers.put_varint(number);
    }
    for number in [0, -1, 1, i64::MIN] {
        numbers.put_zigzag(number);
    }
    numbers.put_bytes(b"abc");
    let domain = DomainId::from_bytes([0xab; 16]);
    let hash = ObjectHash::of(b"hello");
    let name = |kind| layout::object(domain, kind, &hash).to_string();
    let pin: Pin = serde_json::from_str(
        r#"{"snapshot":"f213b6a6f587cf7238df9876e8fcbc6b","at":"2026-01-02T03:04:05Z","reason":"why","until":null}"#,
    )
    .unwrap();
    let condemned: CondemnedText =
        serde_json::from_str(r#"{"at":"2026-01-02T03:04:05Z","packs":["p/00"]}"#).unwrap();
    let config: Config =
        serde_json::from_str(r#"{"format":"backstay-repository","version":1,"later":0}"#).unwrap();
    let lines = [
        ("numbers", shown(&numbers)),
        ("data pack", name(ObjectKind::DataPack)),
        ("metadata pack", name(ObjectKind::MetadataPack)),
        ("index segment", name(ObjectKind::IndexSegment)),
        ("snapshot", name(ObjectKind::Snapshot)),
        ("condemned", name(ObjectKind::Condemned)),
        ("pin", name(ObjectKind::Pin)),
        (
            "trash",
            layout::trash(domain, 1_700_000_000, &hash).to_string(),
        ),
        (
            "slot",
            layout::slot(domain, ScheduleKey::from_bytes([1; 32]).slot_name()).to_string(),
        ),
        ("pin", serde_json::to_string(&pin).unwrap()),
        ("condemned", serde_json::to_string(&condemned).unwrap()),
        ("repository", serde_json::to_string(&config).unwrap()),
    ];
    assert_vectors(&lines, NAMES);
}

#[test]
fn content_and_lists() {
    let list = vec![
        ChunkRef {
            id: id(7),
            length: 300,
        },
        ChunkRef {
            id: id(8),
            length: 8_388_608,
        },
    ];
    let extent = |offset, length| Extent { offset, length };
    let chunks = Content {
        class: Class::Dump,
        bytes: Bytes::Chunks {
            depth: 1,
            list: list.clone(),
        },
        extents: Some(vec![extent(4096, 100), extent(10_000, 5)]),
    };
    let hollow = Content {
        class: Class::General,
        bytes: Bytes::Nothing,
        extents: Some(Vec::new()),
    };
    let written = |content: &Content| {
        let mut out = Vec::new();
        put_content(&mut out, content);
        shown(&out)
    };
    let bytes = noise(9 << 20);
    let chunker = Chunker::new(keyring().gear_table());
    let cuts = |class, bytes: &[u8]| {
        let (mut rest, mut lengths) = (bytes, Vec::new());
        while !rest.is_empty() {
            let length = chunker.cut_all(class, rest);
            lengths.push(length);
            rest = &rest[length..];
        }
        format!("{lengths:?}")
    };
    let lines = [
        ("list", shown(&encode_list(&list))),
        ("inline", written(&inline(b"abc"))),
        ("chunks", written(&chunks)),
        ("hollow", written(&hollow)),
        ("general", cuts(Class::General, &bytes[..4 << 20])),
        ("dump", cuts(Class::Dump, &bytes[..400_000])),
        ("media", cuts(Class::Media, &bytes)),
        ("zeros", cuts(Class::Dump, &[0; 600_000])),
    ];
    assert_vectors(&lines, CONTENT);
}

#[test]
fn pages_and_trees() {
    let leaf = [
        node("a/b", EntryKind::File, Some(inline(b"abc"))),
        node(
            "a/c",
            EntryKind::Symlink {
                target: b"../x".to_vec(),
            },
            None,
        ),
        node("a/d", EntryKind::CharDevice { device: (1, 3) }, None),
    ];
    let child = |n: u8| Child {
        key: vec![b'a', 0, 0, n],
        id: id(n),
        entries: n.into(),
        bytes: 1 << 40,
    };
    let mut builder = TreeBuilder::new(keyring().tree_hasher());
    let mut pages = Vec::new();
    let namer = keyring().namer();
    let mut sink = |page: Vec<u8>| {
        pages.push(page.len());
        Ok::<_, std::convert::Infallible>(namer.name(ChunkKind::Page, &page))
    };
    for number in 0..6_000 {
        let node = node(
            &format!("dir/{number:05}"),
            EntryKind::File,
            Some(inline(b"abc")),
        );
        builder.push(node, &mut sink).unwrap();
    }
    let root = builder.finish(&mut sink).unwrap();
    let lines = [
        ("leaf", shown(&encode_leaf(&leaf))),
        ("empty leaf", shown(&encode_leaf(&[]))),
        ("inner", shown(&encode_inner(&[child(1), child(2)]))),
        ("pages", format!("{pages:?}")),
        (
            "root",
            format!("{} {} {}", root.id, root.entries, root.bytes),
        ),
    ];
    assert_vectors(&lines, PAGES);
}

#[test]
fn trailers_and_segments() {
    let shape = |stored, codec| FrameShape {
        stored,
        plain: 1000,
        codec,
    };
    let chunk = |kind, n, length| ChunkEntry {
        kind,
        id: id(n),
        length,
    };
    let frames = [
        FrameEntry {
            shape: shape(1016, Codec::Raw),
            chunks: vec![
                chunk(ChunkKind::Data, 1, 400),
                chunk(ChunkKind::Data, 2, 600),
            ],
        },
        FrameEntry {
            shape: shape(99, Codec::Zstd),
            chunks: vec![chunk(ChunkKind::Page, 3, 1000)],
        },
    ];
    let packs: Vec<_> = (1..3_u8)
        .map(|n| PackInfo {
            hash: ObjectHash::from_bytes([n; 32]),
            kind: if n == 1 {
                ObjectKind::DataPack
            } else {
                ObjectKind::MetadataPack
            },
            epoch: 3,
            salt: [4; 32],
            size: 16_777_216,
            frames: vec![shape(1016, Codec::Raw), shape(99, Codec::Zstd)],
        })
        .collect();
    let mut segment = SegmentWriter::new(&keyring(), &[5; 32], &packs).unwrap();
    for n in 1..4_u8 {
        segment
            .push(&Record::new([n; 20], 1, 1, (300, 70_000)))
            .unwrap();
    }
    let (segment, ended) = segment.finish(&[ObjectHash::of(b"old")], None).unwrap();
    let leading = SegmentWriter::new(&keyring(), &[6; 32], &packs).unwrap();
    let directory = Directory::of(vec![ended], 1);
    let (leading, _) = leading.finish(&[], Some(directory)).unwrap();
    let trailer_of = |segment: &Stored| {
        let tail = open_tail(&keyring(), ObjectKind::IndexSegment, &segment.bytes).unwrap();
        let Tail::Trailer { trailer, .. } = tail else {
            panic!("the trailer is there");
        };
        assert!(decode_fences(&trailer).is_ok());
        trailer
    };
    let lines = [
        ("trailer of a pack", shown(&encode_trailer(&frames))),
        ("trailer of a segment", shown(&trailer_of(&segment))),
        ("segment", shown(&segment.bytes)),
        ("its name", segment.hash.to_string()),
        ("trailer with a directory", shown(&trailer_of(&leading))),
    ];
    assert_vectors(&lines, SEGMENTS);
}

#[test]
fn snapshots() {
    let new = NewSnapshot {
        schedule: "nightly".into(),
        host: "web1".into(),
        run: None,
        session: None,
        started_at: Instant::from_secs(1_700_000_000),
        finished_at: Instant::from_secs(1_700_000_060),
        parent: None,
        root: TreeRoot {
            id: id(9),
            entries: 4,
            bytes: 5,
        },
        failed: 0,
        failures: Vec::new(),
        accounts: vec!["acme.1001".into()],
        is_cut: false,
        reread_round: 0,
        roots: vec![TreePath::parse(b"acme.1001/files/home/\xff").unwrap()],
        paths: Vec::new(),
    };
    let text = String::from_utf8(new.encode().unwrap()).unwrap();
    assert!(text.contains(&ByteCount::new(5).get().to_string()));
    assert_vectors(&[("snapshot", text)], SNAPSHOT);
}

const NAMES: &str = "\
numbers: 00017f8001ac02ffffffffffffffffff01000102ffffffffffffffffff0103616263
data pack: d/abababababababababababababababab/p/ea/ea8f163db38682925e4491c5e58d4bb3506ef8c14eb78a86e908c5624a67200f
metadata pack: d/abababababababababababababababab/m/ea/ea8f163db38682925e4491c5e58d4bb3506ef8c14eb78a86e908c5624a67200f
index segment: d/abababababababababababababababab/i/ea/ea8f163db38682925e4491c5e58d4bb3506ef8c14eb78a86e908c5624a67200f
snapshot: d/abababababababababababababababab/s/ea/ea8f163db38682925e4491c5e58d4bb3506ef8c14eb78a86e908c5624a67200f
condemned: w/abababababababababababababababab/condemned-ea8f163db38682925e4491c5e58d4bb3506ef8c14eb78a86e908c5624a67200f
pin: w/abababababababababababababababab/pin-ea8f163db38682925e4491c5e58d4bb3506ef8c14eb78a86e908c5624a67200f
trash: w/abababababababababababababababab/trash-000000006553f100-ea8f163db38682925e4491c5e58d4bb3506ef8c14eb78a86e908c5624a67200f
slot: k/abababababababababababababababab/6557b151b0079610bcdbefc0dcbb4aba
pin: {\"snapshot\":\"f213b6a6f587cf7238df9876e8fcbc6b\",\"at\":\"2026-01-02T03:04:05Z\",\"reason\":\"why\",\"until\":null}
condemned: {\"at\":\"2026-01-02T03:04:05Z\",\"packs\":[\"p/00\"]}
repository: {\"format\":\"backstay-repository\",\"version\":1}
";
const CONTENT: &str = "\
list: ac020707070707070707070707070707070707070707070707070707070707070707808080040808080808080808080808080808080808080808080808080808080808080808
inline: 00010361626300
chunks: 02020102ac02070707070707070707070707070707070707070707070707070707070707070780808004080808080808080808080808080808080808080808080808080808080808080803802064ac2d05
hollow: 010001
general: [620930, 832200, 908460, 572304, 589626, 645590, 25194]
dump: [77674, 74583, 93875, 78183, 37225, 38460]
media: [3896980, 3493704, 2046500]
zeros: [262144, 262144, 75712]
";
const PAGES: &str = "\
leaf: 0103000461000062030163030164020406ed13ed13ed13012122087777772d646174610377777700000009ff93ebdc0300ff93ebdc0300ff93ebdc0380c49fd50c0100010001030303d80400000109000000010101010106757365722e610200ff000000042e2e2f78010300010361626300
empty leaf: 0100000000
inner: 0202000461000001030102010101010101010101010101010101010101010101010101010101010101010101808080808020020202020202020202020202020202020202020202020202020202020202020202808080808020
pages: [11216, 17479, 8641, 10457, 8967, 19295, 21438, 12302, 6255, 12762, 29300, 5115, 506]
root: a1aab1f7c9399159945f0545c3ab9d16f0f95c08156a2aac06ed2be372d60358 6000 18000
";
const SEGMENTS: &str = "\
trailer of a pack: 0102f807e8070002009003010101010101010101010101010101010101010101010101010101010101010100d804020202020202020202020202020202020202020202020202020202020202020263e807010101e8070303030303030303030303030303030303030303030303030303030303030303
trailer of a segment: 010196a4257289f9ebcbc94bfc49276f89ed87f8c951e3fa832d44dceb9b220520a501b601020170030101010101010101010101010101010101010101
segment: 576 bytes, 39c12f149e0fe7eda722ebac621181df9ace1aaa7c4338c5ba8f99f2deebbedc
its name: 39c12f149e0fe7eda722ebac621181df9ace1aaa7c4338c5ba8f99f2deebbedc
trailer with a directory: 020001b60102000101b601020139c12f149e0fe7eda722ebac621181df9ace1aaa7c4338c5ba8f99f2deebbedc05050505050505050505050505050505050505050505050505050505050505050301010101
";
const SNAPSHOT: &str = "\
snapshot: {\"schedule\":\"nightly\",\"host\":\"web1\",\"run\":null,\"started_at\":\"2023-11-14T22:13:20Z\",\"finished_at\":\"2023-11-14T22:14:20Z\",\"status\":\"complete\",\"parent\":null,\"root\":\"0909090909090909090909090909090909090909090909090909090909090909\",\"entries\":4,\"bytes\":5,\"failed\":0,\"failures\":[],\"accounts\":[\"acme.1001\"],\"roots\":[\"61636d652e313030312f66696c65732f686f6d652fff\"]}
";
