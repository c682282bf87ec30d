//! How a tree entry says what its content is (`docs/format.md`, "Tree", *Content*).

use edge::{Entry, Extent};
use sealing::ChunkId;

use crate::chunker::{CHUNK_BYTES_MAX, Class};
use crate::wire::{FormatError, Put, Reader, Result};

/// Content up to this size is kept in the tree page.
pub(crate) const INLINE_BYTES_MAX: usize = 256;
/// Longer lists become chunks themselves.
pub(crate) const LIST_MAX: usize = 64;
/// How deep lists of lists go.
pub(crate) const DEPTH_MAX: u8 = 4;

const EXTENT_COUNT_MAX: usize = 1 << 20;

/// A chunk as content refers to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ChunkRef {
    pub(crate) id: ChunkId,
    pub(crate) length: u32,
}

/// Where the bytes of a file are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Bytes {
    /// There are none.
    Nothing,
    /// Here.
    Inline(Vec<u8>),
    /// In chunks; with a depth, in the chunks that these lists name.
    Chunks { depth: u8, list: Vec<ChunkRef> },
}

/// The content of one file or stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Content {
    pub(crate) class: Class,
    pub(crate) bytes: Bytes,
    pub(crate) extents: Option<Vec<Extent>>,
}

/// One entry of a tree with its content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Node {
    pub(crate) entry: Entry,
    pub(crate) content: Option<Content>,
}

impl Node {
    /// Gives the bytes that the entry counts for.
    pub(crate) const fn size_bytes(&self) -> u64 {
        match self.content {
            Some(_) => self.entry.size_bytes,
            None => 0,
        }
    }
}

pub(crate) fn put_content(out: &mut Vec<u8>, content: &Content) {
    out.push(content.class as u8);
    match &content.bytes {
        Bytes::Nothing => out.push(0),
        Bytes::Inline(bytes) => {
            out.push(1);
            out.put_bytes(bytes);
        }
        Bytes::Chunks { depth, list } => {
            out.push(2);
            out.put_varint((*depth).into());
            out.put_count(list.len());
            list.iter().for_each(|chunk| put_chunk(out, chunk));
        }
    }
    let Some(extents) = &content.extents else {
        out.put_varint(0);
        return;
    };
    out.put_count(extents.len() + 1);
    let mut end = 0;
    for extent in extents {
        out.put_varint(extent.offset.saturating_sub(end));
        out.put_varint(extent.length);
        end = extent.offset.saturating_add(extent.length);
    }
}

pub(crate) fn take_content(reader: &mut Reader<'_>) -> Result<Content> {
    let class =
        Class::from_number(reader.u8()?).ok_or(FormatError("content has an unknown class"))?;
    let bytes = match reader.u8()? {
        0 => Bytes::Nothing,
        1 => Bytes::Inline(reader.bytes(INLINE_BYTES_MAX)?.to_vec()),
        2 => {
            let depth = reader.count(DEPTH_MAX.into())?;
            let mut list = Vec::new();
            for _ in 0..reader.count(LIST_MAX)? {
                list.push(take_chunk(reader)?);
            }
            Bytes::Chunks {
                depth: u8::try_from(depth).unwrap_or(DEPTH_MAX),
                list,
            }
        }
        _ => return Err(FormatError("content has an unknown form")),
    };
    let extents = match reader.count(EXTENT_COUNT_MAX + 1)?.checked_sub(1) {
        None => None,
        Some(count) => Some(take_extents(reader, count)?),
    };
    Ok(Content {
        class,
        bytes,
        extents,
    })
}

fn take_extents(reader: &mut Reader<'_>, count: usize) -> Result<Vec<Extent>> {
    let beyond = || FormatError("an extent ends beyond the largest file");
    let mut extents = Vec::new();
    let mut end = 0_u64;
    for _ in 0..count {
        let offset = end.checked_add(reader.varint()?).ok_or_else(beyond)?;
        let length = reader.varint()?;
        end = offset.checked_add(length).ok_or_else(beyond)?;
        extents.push(Extent { offset, length });
    }
    Ok(extents)
}

/// Says why extents cannot be recorded, when they cannot.
pub(crate) fn check_extents(
    extents: &[Extent],
    data_bytes: u64,
) -> std::result::Result<(), &'static str> {
    if extents.len() > EXTENT_COUNT_MAX {
        return Err("the file has more than 1,048,576 holes");
    }
    let mut end = 0_u64;
    let mut sum = 0_u64;
    for extent in extents {
        if extent.offset < end || extent.length == 0 {
            return Err("the file's extents overlap");
        }
        end = extent
            .offset
            .checked_add(extent.length)
            .ok_or("the file is too large")?;
        sum = sum.saturating_add(extent.length);
    }
    if sum == data_bytes {
        Ok(())
    } else {
        Err("the file changed while it was read: its holes moved")
    }
}

pub(crate) fn encode_list(list: &[ChunkRef]) -> Vec<u8> {
    let mut out = Vec::with_capacity(list.len() * 36);
    list.iter().for_each(|chunk| put_chunk(&mut out, chunk));
    out
}

pub(crate) fn decode_list(bytes: &[u8]) -> Result<Vec<ChunkRef>> {
    let mut reader = Reader::new(bytes);
    let mut list = Vec::new();
    while !reader.is_empty() {
        list.push(take_chunk(&mut reader)?);
    }
    Ok(list)
}

fn put_chunk(out: &mut Vec<u8>, chunk: &ChunkRef) {
    out.put_varint(chunk.length.into());
    out.extend_from_slice(chunk.id.as_bytes());
}

fn take_chunk(reader: &mut Reader<'_>) -> Result<ChunkRef> {
    let length = reader.count(CHUNK_BYTES_MAX)?;
    Ok(ChunkRef {
        length: u32::try_from(length).map_err(|_| FormatError("a chunk is too long"))?,
        id: ChunkId::from_bytes(reader.array()?),
    })
}
