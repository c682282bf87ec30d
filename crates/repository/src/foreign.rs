//! Every parser of stored bytes under a name: what the targets in `fuzz/` feed, and what a test
//! feeds again with the inputs that are kept there. Compiled for these two alone.
//!
//! No bytes make a parser panic, run for long or take much more memory than they have. What it
//! reads it writes alike, where the format has one form only.

use edge::{ObjectName, TreePath};
use sealing::{Keyring, ObjectCipher, ObjectKind, ScheduleKey, open_single};

use crate::condemned::CondemnedText;
use crate::container::{PartsWriter, Tail, open_tail};
use crate::content::{check_extents, decode_list, encode_list, put_content, take_content};
use crate::domain::Config;
use crate::index::{FrameShape, Index, PackInfo, Record, records_of};
use crate::layout::{self, ObjectHash};
use crate::pack::{Codec, FRAME_BYTES_MAX, decode_trailer, decompress, encode_trailer};
use crate::segment::{decode_fences, decode_pack, decode_record, encode_fences, open_blocks};
use crate::session::{Revoked, SessionBody};
use crate::snapshot::Snapshot;
use crate::trash::Pin;
use crate::tree::{Page, decode_page, encode_inner, encode_leaf, may_have_key};
use crate::wire::Reader;

/// Takes any bytes.
pub type Parser = fn(&[u8]);

/// All parsers, each with the name of its folder of inputs.
pub const PARSERS: &[(&str, Parser)] = &[
    ("object", object),
    ("pack_trailer", pack_trailer),
    ("frame", frame),
    ("segment", segment),
    ("segment_rows", segment_rows),
    ("page", page),
    ("content", content),
    ("snapshot", snapshot),
    ("small_json", small_json),
    ("names", names),
];

const KINDS: [ObjectKind; 8] = [
    ObjectKind::DataPack,
    ObjectKind::MetadataPack,
    ObjectKind::IndexSegment,
    ObjectKind::Snapshot,
    ObjectKind::Condemned,
    ObjectKind::Pin,
    ObjectKind::Session,
    ObjectKind::Revoked,
];

/// The keys that all sealed inputs are sealed with.
fn keyring() -> Keyring {
    Keyring::first(&ScheduleKey::from_bytes([42; 32]), "")
}

/// Header and tail of a stored object, of any kind.
pub fn object(bytes: &[u8]) {
    let keyring = keyring();
    for kind in KINDS {
        drop(open_single(&keyring, kind, bytes));
        if let Ok(Tail::Trailer { trailer, .. }) = open_tail(&keyring, kind, bytes) {
            drop(decode_trailer(&trailer));
        }
        if let Some(header) = bytes.first_chunk() {
            drop(ObjectCipher::open(&keyring, kind, header));
        }
    }
}

/// The opened trailer of a pack.
///
/// # Panics
///
/// When it is written in another way than it was read.
pub fn pack_trailer(bytes: &[u8]) {
    if let Ok(frames) = decode_trailer(bytes) {
        assert_eq!(encode_trailer(&frames), bytes);
        let chunks: usize = frames.iter().map(|frame| frame.chunks.len()).sum();
        assert_eq!(records_of(0, &frames).len(), chunks);
    }
}

/// An opened frame: three bytes of its length, its codec, what is compressed.
///
/// # Panics
///
/// When it gives another length than it should.
pub fn frame(bytes: &[u8]) {
    let Some(([a, b, c, codec], payload)) = bytes.split_first_chunk() else {
        return;
    };
    let shape = FrameShape {
        stored: 0,
        plain: u32::from_le_bytes([*a, *b, *c, 0]).min(FRAME_BYTES_MAX),
        codec: Codec::from_number(codec % 2).unwrap_or(Codec::Raw),
    };
    if let Ok(plain) = decompress(shape, payload.to_vec()) {
        assert_eq!(u32::try_from(plain.len()), Ok(shape.plain));
    }
}

/// A whole segment: two bytes of the length of its trailer, the trailer, then its blocks as one.
///
/// # Panics
///
/// When the trailer is written in another way than it was read.
pub fn segment(bytes: &[u8]) {
    let Some((length, rest)) = bytes.split_first_chunk() else {
        return;
    };
    let length = usize::from(u16::from_le_bytes(*length)).min(rest.len());
    let (trailer, block) = rest.split_at(length);
    let Ok(fences) = decode_fences(trailer) else {
        return;
    };
    assert_eq!(encode_fences(&fences), trailer);
    let kind = ObjectKind::IndexSegment;
    let sealed = PartsWriter::new(&keyring(), kind, &[1; 32]).and_then(|mut parts| {
        parts.push(&mut block.to_vec())?;
        parts.finish(trailer.to_vec())
    });
    let Ok(stored) = sealed else { return };
    let Ok(Tail::Trailer { cipher, .. }) = open_tail(&keyring(), kind, &stored.bytes) else {
        return;
    };
    let mut index = Index::default();
    if open_blocks(&cipher, &fences, &stored.bytes, &mut index).is_ok() {
        look_up_all(index);
    }
}

/// The rows of opened blocks.
pub fn segment_rows(bytes: &[u8]) {
    let mut reader = Reader::new(bytes);
    let packs: Vec<PackInfo> = std::iter::from_fn(|| decode_pack(&mut reader).ok()).collect();
    let mut reader = Reader::new(bytes);
    let records: Vec<Record> = std::iter::from_fn(|| decode_record(&mut reader).ok()).collect();
    for pack in &packs {
        let last = u16::try_from(pack.frames.len()).unwrap_or(u16::MAX);
        pack.frame_offset(last);
    }
    let mut index = Index::default();
    if index.add(packs, records).is_ok() {
        look_up_all(index);
    }
}

/// # Panics
///
/// When a record names a pack that the index does not know.
fn look_up_all(mut index: Index) {
    let looked_up = index.sort().and_then(|()| {
        index.each_record(&mut |_, record| {
            assert!(index.pack(record.pack).is_some());
            Ok(())
        })
    });
    assert!(looked_up.is_ok(), "nothing of it is outside memory");
}

/// A page of either form.
///
/// # Panics
///
/// When what it was read as is written as a page that is read otherwise.
pub fn page(bytes: &[u8]) {
    let _leaf = may_have_key(bytes, &mut |_| false);
    let Ok(page) = decode_page(bytes) else { return };
    let written = match &page {
        Page::Leaf(nodes) => {
            assert!(nodes.is_empty() || may_have_key(bytes, &mut |_| true) == Ok(true));
            encode_leaf(nodes)
        }
        Page::Inner(children) => {
            for child in children {
                drop(TreePath::from_key(&child.key));
            }
            encode_inner(children)
        }
    };
    assert_eq!(decode_page(&written), Ok(page));
}

/// A list of chunks, and the content of an entry.
///
/// # Panics
///
/// When either is written in another way than it was read.
pub fn content(bytes: &[u8]) {
    if let Ok(list) = decode_list(bytes) {
        assert_eq!(encode_list(&list), bytes);
    }
    let mut reader = Reader::new(bytes);
    if let Ok(content) = take_content(&mut reader) {
        let mut written = Vec::new();
        put_content(&mut written, &content);
        assert!(bytes.starts_with(&written));
        if let Some(extents) = &content.extents {
            let _fits = check_extents(extents, 1000);
        }
    }
}

/// The opened text of a snapshot.
pub fn snapshot(bytes: &[u8]) {
    if let Ok(snapshot) = Snapshot::decode(ObjectHash::of(b""), bytes, true) {
        drop(snapshot.body.roots());
    }
}

/// The `repository` object, condemned packs, pins, sessions and revoked ones.
pub fn small_json(bytes: &[u8]) {
    drop(serde_json::from_slice::<Config>(bytes));
    drop(serde_json::from_slice::<CondemnedText>(bytes));
    drop(serde_json::from_slice::<Pin>(bytes));
    drop(serde_json::from_slice::<SessionBody>(bytes));
    drop(serde_json::from_slice::<Revoked>(bytes));
}

/// Names as a listing gives them, one on a line.
///
/// # Panics
///
/// When a name is taken for that of an object which has another one.
pub fn names(bytes: &[u8]) {
    let domain = keyring().domain();
    let text = String::from_utf8_lossy(bytes);
    for name in text.lines().filter_map(|line| ObjectName::new(line).ok()) {
        // What is revoked has its session's name.
        for kind in KINDS
            .into_iter()
            .filter(|kind| *kind != ObjectKind::Revoked)
        {
            if let Some(hash) = layout::parse(domain, kind, &name) {
                assert_eq!(layout::object(domain, kind, &hash), name);
            }
        }
        if let Some((secs, hash)) = layout::parse_trash(domain, &name) {
            assert_eq!(layout::trash(domain, secs, &hash), name);
        }
        if let Some((secs, hash)) = layout::parse_checkpoint(domain, &name) {
            assert_eq!(layout::checkpoint(domain, secs, &hash), name);
        }
        if let Some(hash) = layout::parse_damaged(domain, &name) {
            assert_eq!(layout::damaged(domain, &hash), name);
        }
        if let Some(session) = layout::parse_revoked(domain, &name) {
            assert_eq!(layout::revoked(domain, session), name);
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::disallowed_methods, reason = "kept inputs are files")]

    use std::path::Path;

    use super::*;

    #[test]
    fn every_kept_input_is_parsed_without_a_panic() {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus");
        for (name, parser) in PARSERS {
            let folder = corpus.join(name);
            let inputs = std::fs::read_dir(&folder)
                .unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
            let mut count = 0;
            for input in inputs {
                parser(&std::fs::read(input.unwrap().path()).unwrap());
                count += 1;
            }
            assert!(count > 0, "{} is empty", folder.display());
        }
    }
}
