//! Pages as they are stored: front-coded keys and columns.

use std::sync::Arc;

use edge::{Entry, EntryKind, FileTime, Owner, TreePath, XAttr};
use sealing::ChunkId;

use super::{
    KEY_BYTES_MAX, OWNER_BYTES_MAX, TARGET_BYTES_MAX, XATTR_COUNT_MAX, XATTR_NAME_BYTES_MAX,
    XATTR_VALUE_BYTES_MAX,
};
use crate::content::{Node, put_content, take_content};
use crate::wire::{FormatError, Put, Reader, Result};

const FORM_LEAF: u8 = 1;
const FORM_INNER: u8 = 2;
const ROWS_MAX: usize = 65_536;
const MODE_MAX: u32 = 0o7777;
/// What the keys of a page, and the attributes of its entries, take in memory. Writers stay well
/// below: what entries share is stored once, but they count it.
const SHARED_BYTES_MAX: usize = 64 * 1024 * 1024;

/// One child of an inner page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Child {
    pub(crate) key: Vec<u8>,
    pub(crate) id: ChunkId,
    pub(crate) entries: u64,
    pub(crate) bytes: u64,
}

/// A page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Page {
    Leaf(Vec<Node>),
    Inner(Vec<Child>),
}

pub(crate) fn encode_inner(children: &[Child]) -> Vec<u8> {
    let mut out = vec![FORM_INNER];
    out.put_count(children.len());
    put_keys(&mut out, children.iter().map(|child| child.key.as_slice()));
    for child in children {
        out.extend_from_slice(child.id.as_bytes());
        out.put_varint(child.entries);
        out.put_varint(child.bytes);
    }
    out
}

pub(crate) fn encode_leaf(nodes: &[Node]) -> Vec<u8> {
    let mut out = vec![FORM_LEAF];
    out.put_count(nodes.len());
    put_keys(&mut out, nodes.iter().map(|node| node.entry.path.key()));
    let entries = || nodes.iter().map(|node| &node.entry);
    entries().for_each(|entry| out.push(kind_number(&entry.kind)));
    entries().for_each(|entry| out.put_varint(entry.mode.into()));
    put_table(&mut out, entries().map(|entry| &entry.owner), put_owner);
    put_times(&mut out, entries().map(|entry| entry.modified));
    put_times(&mut out, entries().map(|entry| entry.changed));
    entries().for_each(|entry| out.put_varint(entry.size_bytes));
    let mut before = 0_i64;
    for inode in entries().map(|entry| entry.inode.cast_signed()) {
        out.put_zigzag(inode.wrapping_sub(before));
        before = inode;
    }
    put_table(
        &mut out,
        entries().map(|entry| &entry.device),
        |out, device| {
            out.put_varint(*device);
        },
    );
    entries().for_each(|entry| out.put_varint(entry.link_count));
    put_table(&mut out, entries().map(|entry| &entry.xattrs), put_xattrs);
    for entry in entries() {
        match &entry.kind {
            EntryKind::Symlink { target } => out.put_bytes(target),
            EntryKind::CharDevice { device } | EntryKind::BlockDevice { device } => {
                out.put_varint(device.0.into());
                out.put_varint(device.1.into());
            }
            EntryKind::Directory | EntryKind::File | EntryKind::Stream | EntryKind::Fifo => {}
        }
    }
    for content in nodes.iter().filter_map(|node| node.content.as_ref()) {
        put_content(&mut out, content);
    }
    out
}

/// True for a page that holds pages, by its first byte.
pub(crate) fn is_inner(page: &[u8]) -> bool {
    page.first() == Some(&FORM_INNER)
}

/// Reads a page of either form.
pub(crate) fn decode_page(bytes: &[u8]) -> Result<Page> {
    let mut reader = Reader::new(bytes);
    let form = reader.u8()?;
    let rows = reader.count(ROWS_MAX)?;
    let page = match form {
        FORM_LEAF => Page::Leaf(decode_leaf(&mut reader, rows)?),
        FORM_INNER => Page::Inner(decode_inner(&mut reader, rows)?),
        _ => return Err(FormatError("a page has an unknown form")),
    };
    reader.finish()?;
    Ok(page)
}

/// False when a page is a leaf without a key that is wanted, which is found without reading more
/// than its keys.
pub(crate) fn may_have_key(bytes: &[u8], wanted: &mut dyn FnMut(&[u8]) -> bool) -> Result<bool> {
    let mut reader = Reader::new(bytes);
    if reader.u8()? != FORM_LEAF {
        return Ok(true);
    }
    let mut key = Vec::new();
    for _ in 0..reader.count(ROWS_MAX)? {
        key.truncate(reader.count(key.len())?);
        key.extend_from_slice(reader.bytes(KEY_BYTES_MAX)?);
        if wanted(&key) {
            return Ok(true);
        }
    }
    Ok(false)
}

fn decode_inner(reader: &mut Reader<'_>, rows: usize) -> Result<Vec<Child>> {
    if rows == 0 {
        return Err(FormatError("an inner page has no children"));
    }
    let keys = take_keys(reader, rows)?;
    keys.into_iter()
        .map(|key| {
            Ok(Child {
                key,
                id: ChunkId::from_bytes(reader.array()?),
                entries: reader.varint()?,
                bytes: reader.varint()?,
            })
        })
        .collect()
}

fn decode_leaf(reader: &mut Reader<'_>, rows: usize) -> Result<Vec<Node>> {
    let keys = take_keys(reader, rows)?;
    let kinds = column(rows, || reader.u8())?;
    let modes = column(rows, || reader.small(MODE_MAX))?;
    let owners = take_table(reader, rows, take_owner)?;
    let modified = take_times(reader, rows)?;
    let changed = take_times(reader, rows)?;
    let sizes = column(rows, || reader.varint())?;
    let mut before = 0_i64;
    let inodes = column(rows, || {
        before = before.wrapping_add(reader.zigzag()?);
        Ok(before.cast_unsigned())
    })?;
    let devices = take_table(reader, rows, |reader| reader.varint())?;
    let link_counts = column(rows, || reader.varint())?;
    let xattrs = take_table(reader, rows, |reader| take_xattrs(reader).map(Arc::new))?;
    check_shared(&xattrs)?;
    let kinds = kinds
        .into_iter()
        .map(|number| take_kind(number, reader))
        .collect::<Result<Vec<_>>>()?;
    // All columns have the same length, so the zipped iterators end together.
    let rows = keys.into_iter().zip(kinds).zip(modes).zip(owners);
    let rows = rows.zip(modified).zip(changed).zip(sizes).zip(inodes);
    let rows = rows.zip(devices).zip(link_counts).zip(xattrs);
    let mut nodes = Vec::new();
    for (row, xattrs) in rows {
        let ((row, device), link_count) = row;
        let ((((row, modified), changed), size_bytes), inode) = row;
        let (((key, kind), mode), owner) = row;
        // The root has no entry of its own.
        let path = TreePath::from_key(&key)
            .filter(|path| path.name().is_some())
            .ok_or(FormatError("an entry has no proper path"))?;
        let has_content = matches!(kind, EntryKind::File | EntryKind::Stream);
        let entry = Entry {
            path,
            kind,
            mode,
            owner,
            modified,
            changed,
            size_bytes,
            inode,
            device,
            link_count,
            xattrs: xattrs.to_vec(),
        };
        let content = has_content.then(|| take_content(reader)).transpose()?;
        nodes.push(Node { entry, content });
    }
    Ok(nodes)
}

/// Refuses attributes that would take too much memory, once each entry has its own.
fn check_shared(xattrs: &[Arc<Vec<XAttr>>]) -> Result<()> {
    let bytes = |one: &XAttr| size_of::<XAttr>() + one.name.len() + one.value.len();
    let mut sum = 0_usize;
    for set in xattrs {
        sum += set.iter().map(bytes).sum::<usize>();
        if sum > SHARED_BYTES_MAX {
            return Err(FormatError("the attributes of a page are too large"));
        }
    }
    Ok(())
}

fn column<T>(rows: usize, mut take: impl FnMut() -> Result<T>) -> Result<Vec<T>> {
    (0..rows).map(|_| take()).collect()
}

fn put_keys<'a>(out: &mut Vec<u8>, keys: impl Iterator<Item = &'a [u8]>) {
    let mut before = &[][..];
    for key in keys {
        let shared = shared_bytes(before, key);
        out.put_count(shared);
        out.put_bytes(key.get(shared..).unwrap_or_default());
        before = key;
    }
}

pub(super) fn shared_bytes(a: &[u8], b: &[u8]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

fn take_keys(reader: &mut Reader<'_>, rows: usize) -> Result<Vec<Vec<u8>>> {
    let mut keys: Vec<Vec<u8>> = Vec::new();
    let mut sum = 0;
    for _ in 0..rows {
        let before = keys.last().map_or(&[][..], Vec::as_slice);
        let shared = reader.count(before.len())?;
        let rest = reader.bytes(KEY_BYTES_MAX - shared.min(KEY_BYTES_MAX))?;
        let key = [before.get(..shared).unwrap_or_default(), rest].concat();
        if !keys.is_empty() && key.as_slice() <= before {
            return Err(FormatError("the keys of a page do not ascend"));
        }
        sum += key.len();
        if sum > SHARED_BYTES_MAX {
            return Err(FormatError("the keys of a page are too long"));
        }
        keys.push(key);
    }
    Ok(keys)
}

/// Writes the different values in the order of their first use, then the number of each entry's.
fn put_table<'a, T: PartialEq + 'a>(
    out: &mut Vec<u8>,
    values: impl Iterator<Item = &'a T>,
    mut put: impl FnMut(&mut Vec<u8>, &T),
) {
    let mut table: Vec<&T> = Vec::new();
    let mut numbers = Vec::new();
    for value in values {
        // Neighbours are mostly alike: look from the last used value backwards.
        let known = numbers
            .last()
            .copied()
            .filter(|last| table.get(*last).is_some_and(|held| *held == value))
            .or_else(|| table.iter().position(|held| *held == value));
        numbers.push(known.unwrap_or(table.len()));
        if known.is_none() {
            table.push(value);
        }
    }
    out.put_count(table.len());
    table.into_iter().for_each(|value| put(out, value));
    numbers.into_iter().for_each(|number| out.put_count(number));
}

fn take_table<T: Clone>(
    reader: &mut Reader<'_>,
    rows: usize,
    mut take: impl FnMut(&mut Reader<'_>) -> Result<T>,
) -> Result<Vec<T>> {
    let count = reader.count(rows)?;
    let table = column(count, || take(reader))?;
    column(rows, || {
        let number = reader.count(ROWS_MAX)?;
        table
            .get(number)
            .cloned()
            .ok_or(FormatError("a page refers to nothing"))
    })
}

fn put_owner(out: &mut Vec<u8>, owner: &Arc<Owner>) {
    out.put_varint(owner.uid.into());
    out.put_varint(owner.gid.into());
    out.put_bytes(&owner.user);
    out.put_bytes(&owner.group);
}

fn take_owner(reader: &mut Reader<'_>) -> Result<Arc<Owner>> {
    Ok(Arc::new(Owner {
        uid: reader.small(u32::MAX)?,
        gid: reader.small(u32::MAX)?,
        user: reader.bytes(OWNER_BYTES_MAX)?.to_vec(),
        group: reader.bytes(OWNER_BYTES_MAX)?.to_vec(),
    }))
}

fn put_xattrs(out: &mut Vec<u8>, xattrs: &Vec<XAttr>) {
    out.put_count(xattrs.len());
    for xattr in xattrs {
        out.put_bytes(&xattr.name);
        out.put_bytes(&xattr.value);
    }
}

fn take_xattrs(reader: &mut Reader<'_>) -> Result<Vec<XAttr>> {
    let count = reader.count(XATTR_COUNT_MAX)?;
    column(count, || {
        Ok(XAttr {
            name: reader.bytes(XATTR_NAME_BYTES_MAX)?.to_vec(),
            value: reader.bytes(XATTR_VALUE_BYTES_MAX)?.to_vec(),
        })
    })
}

fn put_times(out: &mut Vec<u8>, times: impl Iterator<Item = FileTime>) {
    let mut before = 0_i64;
    for time in times {
        out.put_zigzag(time.secs.wrapping_sub(before));
        out.put_varint(time.nanos.into());
        before = time.secs;
    }
}

fn take_times(reader: &mut Reader<'_>, rows: usize) -> Result<Vec<FileTime>> {
    let mut secs = 0_i64;
    column(rows, || {
        secs = secs.wrapping_add(reader.zigzag()?);
        Ok(FileTime {
            secs,
            nanos: reader.small(999_999_999)?,
        })
    })
}

const fn kind_number(kind: &EntryKind) -> u8 {
    match kind {
        EntryKind::Directory => 1,
        EntryKind::File => 2,
        EntryKind::Stream => 3,
        EntryKind::Symlink { .. } => 4,
        EntryKind::Fifo => 5,
        EntryKind::CharDevice { .. } => 6,
        EntryKind::BlockDevice { .. } => 7,
    }
}

fn take_kind(number: u8, reader: &mut Reader<'_>) -> Result<EntryKind> {
    let device = |reader: &mut Reader<'_>| Ok((reader.small(u32::MAX)?, reader.small(u32::MAX)?));
    Ok(match number {
        1 => EntryKind::Directory,
        2 => EntryKind::File,
        3 => EntryKind::Stream,
        4 => EntryKind::Symlink {
            target: reader.bytes(TARGET_BYTES_MAX)?.to_vec(),
        },
        5 => EntryKind::Fifo,
        6 => EntryKind::CharDevice {
            device: device(reader)?,
        },
        7 => EntryKind::BlockDevice {
            device: device(reader)?,
        },
        _ => return Err(FormatError("an entry has an unknown kind")),
    })
}

#[cfg(test)]
mod tests {
    use edge::{Extent, TreePath};
    use proptest::prelude::*;

    use super::*;
    use crate::chunker::Class;
    use crate::content::{Bytes, ChunkRef, Content};

    fn node(path: &[u8], kind: EntryKind, content: Option<Content>) -> Node {
        let entry = Entry {
            path: TreePath::parse(path).unwrap(),
            kind,
            mode: 0o4755,
            owner: Arc::new(Owner {
                uid: 33,
                gid: 33,
                user: b"www-data".to_vec(),
                group: b"www-data".to_vec(),
            }),
            modified: FileTime {
                secs: -5,
                nanos: 999_999_999,
            },
            changed: FileTime::default(),
            size_bytes: 3,
            inode: u64::MAX,
            device: 9,
            link_count: 1,
            xattrs: vec![XAttr {
                name: b"user.a".to_vec(),
                value: b"\0\xff".to_vec(),
            }],
        };
        Node { entry, content }
    }

    fn nodes() -> Vec<Node> {
        let content = |bytes, extents| {
            Some(Content {
                class: Class::General,
                bytes,
                extents,
            })
        };
        let chunks = Bytes::Chunks {
            depth: 1,
            list: vec![
                ChunkRef {
                    id: ChunkId::from_bytes([7; 32]),
                    length: 99,
                };
                3
            ],
        };
        let holes = vec![
            Extent {
                offset: 4096,
                length: 10,
            },
            Extent {
                offset: 1 << 40,
                length: 1,
            },
        ];
        let target = b"../\xff".to_vec();
        vec![
            node(b"d", EntryKind::Directory, None),
            node(
                b"d/a\n\xff",
                EntryKind::File,
                content(Bytes::Inline(b"abc".to_vec()), None),
            ),
            node(b"d/b", EntryKind::Stream, content(chunks, Some(holes))),
            node(b"d/c", EntryKind::Symlink { target }, None),
            node(b"d/d", EntryKind::CharDevice { device: (1, 3) }, None),
            node(b"d/e", EntryKind::BlockDevice { device: (259, 1) }, None),
            node(b"d/f", EntryKind::Fifo, None),
            node(
                b"d/g",
                EntryKind::File,
                content(Bytes::Nothing, Some(Vec::new())),
            ),
        ]
    }

    #[test]
    fn a_leaf_page_is_frozen_and_reads_back() {
        let page = encode_leaf(&nodes());
        assert_eq!(decode_page(&page).unwrap(), Page::Leaf(nodes()));
        assert_eq!(blake3::hash(&page).to_hex().as_str(), PAGE_HASH);
        assert_eq!(
            decode_page(&encode_leaf(&[])).unwrap(),
            Page::Leaf(Vec::new())
        );
    }

    const PAGE_HASH: &str = "96cec6fa80743959bc8f264d136c65346cece1b04ea830b07d86da4c55bc2c67";

    #[test]
    fn what_entries_share_stays_within_memory() {
        let large = XAttr {
            name: b"user.large".to_vec(),
            value: vec![7; 60_000],
        };
        let labelled = |number: u32| {
            let name = format!("d/file{number:05}");
            let mut node = node(name.as_bytes(), EntryKind::Fifo, None);
            node.entry.xattrs = vec![large.clone(); 10];
            node
        };
        let few: Vec<_> = (0..20).map(labelled).collect();
        assert!(decode_page(&encode_leaf(&few)).unwrap() == Page::Leaf(few));
        let many: Vec<_> = (0..120).map(labelled).collect();
        let page = encode_leaf(&many);
        assert!(page.len() < 1_000_000, "{}", page.len());
        assert!(decode_page(&page).is_err());
    }

    #[test]
    fn an_inner_page_reads_back() {
        let children: Vec<_> = (1..9_u8)
            .map(|n| Child {
                key: vec![0, n],
                id: ChunkId::from_bytes([n; 32]),
                entries: n.into(),
                bytes: u64::MAX,
            })
            .collect();
        let page = encode_inner(&children);
        assert_eq!(decode_page(&page).unwrap(), Page::Inner(children));
    }

    proptest! {
        #[test]
        fn damaged_pages_never_panic(at in 0_usize..500, byte in any::<u8>(), cut in 0_usize..500) {
            let mut page = encode_leaf(&nodes());
            let length = page.len();
            page[at % length] = byte;
            drop(decode_page(&page));
            drop(decode_page(&page[..cut % length]));
        }

        #[test]
        fn foreign_pages_never_panic(form in 0_u8..4, bytes in any::<Vec<u8>>()) {
            let mut like = vec![form];
            like.extend(bytes);
            drop(decode_page(&like));
        }
    }
}
