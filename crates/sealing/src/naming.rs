//! Names of chunks and the borders of tree pages: keyed hashes that tell nothing without the key.

use std::fmt;

use crate::derive::{Key, derive};

/// What a chunk holds; each kind has names of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum ChunkKind {
    /// Content of a file or stream.
    Data = 0,
    /// A page of a tree.
    Page = 1,
    /// A list of chunks.
    List = 2,
}

impl ChunkKind {
    /// Gives the kind of a number from the format.
    #[must_use]
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::Data),
            1 => Some(Self::Page),
            2 => Some(Self::List),
            _ => None,
        }
    }
}

/// The name of a chunk: a keyed hash of its plaintext.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChunkId([u8; 32]);

impl ChunkId {
    /// Takes the raw bytes of an id.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Gives the raw bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for ChunkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

impl fmt::Debug for ChunkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ChunkId({self})")
    }
}

/// Names chunks of one domain.
#[derive(Clone)]
pub struct ChunkNamer {
    data: Key,
    page: Key,
    list: Key,
}

impl ChunkNamer {
    pub(crate) fn new(id_key: &Key) -> Self {
        Self {
            data: derive("chunk id data", id_key.as_ref()),
            page: derive("chunk id page", id_key.as_ref()),
            list: derive("chunk id list", id_key.as_ref()),
        }
    }

    /// Names a chunk.
    #[must_use]
    pub fn name(&self, kind: ChunkKind, plaintext: &[u8]) -> ChunkId {
        let key = match kind {
            ChunkKind::Data => &self.data,
            ChunkKind::Page => &self.page,
            ChunkKind::List => &self.list,
        };
        ChunkId(*blake3::keyed_hash(key, plaintext).as_bytes())
    }
}

impl fmt::Debug for ChunkNamer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ChunkNamer(…)")
    }
}

/// Decides after which keys a tree page ends.
#[derive(Clone)]
pub struct TreeHasher(Key);

impl TreeHasher {
    pub(crate) fn new(tree_key: &Key) -> Self {
        Self(tree_key.clone())
    }

    /// Gives the first 8 bytes of the keyed hash of level and key.
    #[must_use]
    pub fn hash(&self, level: u8, key: &[u8]) -> u64 {
        let mut hasher = blake3::Hasher::new_keyed(&self.0);
        hasher.update(&[level]).update(key);
        let mut first = [0; 8];
        hasher.finalize_xof().fill(&mut first);
        u64::from_le_bytes(first)
    }
}

impl fmt::Debug for TreeHasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TreeHasher(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunk_names_are_frozen_and_differ_by_kind() {
        let namer = ChunkNamer::new(&Key::new([1; 32]));
        insta::assert_snapshot!(namer.name(ChunkKind::Data, b"hello"), @"6d9cb4a37a83f9f372ffabb4d39a580c9fa61f535e5b2c5b9f53995be2a25fad");
        insta::assert_snapshot!(namer.name(ChunkKind::Page, b"hello"), @"b5566a903f4df5c57b7b47b63853c771b0dbad32fe34ea7f83e984ea26649864");
        insta::assert_snapshot!(namer.name(ChunkKind::List, b"hello"), @"77b84722db6040ff4a60b98e9e88b3b9ce8e3caebc647bb804c99c9a271b87cc");
    }

    #[test]
    fn page_borders_are_frozen() {
        let hasher = TreeHasher::new(&Key::new([1; 32]));
        insta::assert_snapshot!(format!("{:016x}", hasher.hash(0, b"a\0\0b")), @"4b0f4c5bd11bcf18");
        insta::assert_snapshot!(format!("{:016x}", hasher.hash(1, b"a\0\0b")), @"c3e5981b58f2937c");
    }
}
