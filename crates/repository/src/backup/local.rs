//! What a writer that may not read keeps on its machine: the pages of its last snapshot, so that
//! the next run knows what did not change (`docs/format.md`, "Rights").
//!
//! It lies in the cache of the domain, sealed with a key that lies beside it, as a domain of its
//! own. All of it may be lost at any time: then files are read again, and nothing is stored twice.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use edge::{Entropy, ObjectStore};
use model::SnapshotId;
use sealing::{ChunkId, ChunkKind, ObjectKind, Right, seal_single};

use super::copy::list_packs;
use crate::content::{Bytes, decode_list};
use crate::domain::Domain;
use crate::error::{ReadError, RepositoryError};
use crate::index::{Index, PackInfo, Prefix, Record, prefix_of, records_of};
use crate::layout::{self, ObjectHash};
use crate::pack::{ChunkEntry, Frame, METADATA_FRAME_BYTES, PACK_BYTES, PackBuilder, compress};
use crate::reader::ChunkReader;
use crate::snapshot::{Snapshot, with_id};
use crate::tree::TreeWalk;

const KEY_BYTES: usize = 32;
const LEVEL: i32 = 3;
/// Chunks beyond twice those of the last complete set that may lie about.
const SPARE_CHUNKS: usize = 256;
/// Runs whose pages may lie apart.
const SEGMENT_COUNT_MAX: usize = 64;

/// The pages of the last snapshot.
pub(super) struct LocalState {
    pub(super) domain: Domain,
    pub(super) index: Index,
    pub(super) snapshot: Option<Snapshot>,
}

/// Pages that a run stored here, in no index yet.
#[derive(Default)]
pub(super) struct KeptPages {
    packs: Vec<PackInfo>,
    records: Vec<Record>,
}

/// Takes the pages of a run.
pub(super) struct PageKeeper<'a> {
    domain: &'a Domain,
    /// What is here already.
    index: Option<&'a Index>,
    entropy: &'a dyn Entropy,
    taken: HashSet<Prefix>,
    plain: Vec<u8>,
    chunks: Vec<ChunkEntry>,
    builder: Option<PackBuilder>,
    pages: KeptPages,
    is_failed: bool,
}

impl LocalState {
    /// Opens what is kept for a domain that cannot be read; `None` when it can, or has no cache.
    pub(super) fn open(domain: &Domain, entropy: &dyn Entropy) -> Option<Self> {
        if domain.rights().has(Right::Read) {
            return None;
        }
        let cache = domain.cache()?;
        let key = key(&**cache, &layout::local_key(domain.id()), entropy)?;
        let domain = domain.on_this_machine(cache.clone(), key);
        let index = domain.load_index().ok();
        let index = index.filter(|index| index.damaged.is_none());
        let list = domain.snapshots().unwrap_or_default();
        let newest = list.snapshots.into_iter().next_back();
        Some(Self {
            snapshot: newest.filter(|_| index.is_some()),
            index: index.unwrap_or_default(),
            domain,
        })
    }

    /// Begins to take the pages of a run.
    pub(super) fn keeper<'a>(&'a self, entropy: &'a dyn Entropy) -> PageKeeper<'a> {
        PageKeeper::new(&self.domain, Some(&self.index), entropy)
    }

    /// Keeps the snapshot that a run published. That this fails hurts nothing but speed.
    pub(super) fn keep(
        mut self,
        pages: KeptPages,
        (plaintext, id): (&[u8], SnapshotId),
        entropy: &dyn Entropy,
    ) {
        drop(self.try_keep(pages, (plaintext, id), entropy));
    }

    fn try_keep(
        &mut self,
        pages: KeptPages,
        (plaintext, id): (&[u8], SnapshotId),
        entropy: &dyn Entropy,
    ) -> Result<(), RepositoryError> {
        let kind = ObjectKind::Snapshot;
        let wrong = |error| self.domain.damaged(kind, &ObjectHash::of(b""), error);
        let plaintext = with_id(plaintext, id).map_err(wrong)?;
        let mut salt = [0; 32];
        entropy.fill(&mut salt);
        let sealed = seal_single(self.domain.keyring(), kind, &salt, &plaintext)
            .map_err(RepositoryError::Sealing)?;
        let hash = ObjectHash::of(&sealed);
        let name = self.domain.name(kind, &hash);
        let snapshot = self.domain.open_snapshot(&name, hash, &sealed)?;
        let complete = self.index.segments.iter().map(|segment| segment.records);
        let complete = complete.max().unwrap_or(0).max(pages.records.len());
        let count = self.index.len() + pages.records.len();
        let is_full =
            count > 2 * complete + SPARE_CHUNKS || self.index.segments.len() >= SEGMENT_COUNT_MAX;
        if is_full {
            self.index.add(pages.packs, pages.records)?;
            self.index.sort()?;
            self.pack_anew(&snapshot, entropy)?;
        } else if !pages.packs.is_empty() {
            let mut new = Index::default();
            new.add(pages.packs.clone(), pages.records.iter().copied())?;
            new.sort()?;
            self.domain.write_index(&new, &[], entropy)?;
            self.index.add(pages.packs, pages.records)?;
        }
        self.domain.store().put(&name, &sealed)?;
        self.tidy(&hash)
    }

    /// Moves what the snapshot needs into new packs.
    fn pack_anew(
        &mut self,
        snapshot: &Snapshot,
        entropy: &dyn Entropy,
    ) -> Result<(), RepositoryError> {
        let mut keeper = PageKeeper::new(&self.domain, None, entropy);
        let mut reader = ChunkReader::new(&self.domain, &self.index);
        for (kind, id) in needed(&mut reader, snapshot)? {
            let bytes = reader.read(kind, &id)?;
            keeper.push(kind, &id, &bytes);
        }
        let pages = keeper.finish().ok_or(RepositoryError::Exhausted)?;
        let replaced = self.index.segment_hashes();
        let mut index = Index::default();
        index.add(pages.packs, pages.records)?;
        index.sort()?;
        index.segments = self
            .domain
            .write_index(&index, &replaced, entropy)?
            .segments;
        for hash in replaced {
            let name = self.domain.name(ObjectKind::IndexSegment, &hash);
            self.domain.store().delete(&name)?;
        }
        self.index = index;
        Ok(())
    }

    /// Deletes snapshots before this one, and packs that no index names.
    fn tidy(&self, newest: &ObjectHash) -> Result<(), RepositoryError> {
        let (domain, kind) = (&self.domain, ObjectKind::Snapshot);
        for (hash, _) in domain.list(kind)? {
            if hash != *newest {
                domain.store().delete(&domain.name(kind, &hash))?;
            }
        }
        for (hash, kind) in list_packs(domain)?.into_keys() {
            if !self.index.has_pack(&hash) {
                domain.store().delete(&domain.name(kind, &hash))?;
            }
        }
        Ok(())
    }
}

/// Reads the key of this machine, or makes one.
fn key(
    cache: &dyn ObjectStore,
    name: &edge::ObjectName,
    entropy: &dyn Entropy,
) -> Option<[u8; KEY_BYTES]> {
    let kept = cache.get(name, KEY_BYTES as u64).ok();
    if let Some(key) = kept.and_then(|bytes| bytes.try_into().ok()) {
        return Some(key);
    }
    let mut key = [0; KEY_BYTES];
    entropy.fill(&mut key);
    cache.put(name, &key).ok()?;
    Some(key)
}

/// Gives the pages and lists of a snapshot.
fn needed(
    reader: &mut ChunkReader<'_>,
    snapshot: &Snapshot,
) -> Result<BTreeSet<(ChunkKind, ChunkId)>, RepositoryError> {
    let mut needed = BTreeSet::new();
    let mut walk = TreeWalk::new(snapshot.root, Vec::new());
    loop {
        let mut visit = |page: &ChunkId| needed.insert((ChunkKind::Page, *page));
        let node = walk.next_visiting(reader, &mut visit);
        let Some(node) = node.map_err(|lost| *lost.error)? else {
            return Ok(needed);
        };
        let Some(Bytes::Chunks { depth, list }) = node.content.map(|content| content.bytes) else {
            continue;
        };
        let mut level = list;
        for _ in 0..depth {
            let mut bytes = Vec::new();
            for chunk in &level {
                needed.insert((ChunkKind::List, chunk.id));
                bytes.extend(reader.read(ChunkKind::List, &chunk.id)?);
            }
            let first = level.first().map(|chunk| chunk.id);
            level = decode_list(&bytes).map_err(|source| ReadError::Format {
                chunk: first.unwrap_or(ChunkId::from_bytes([0; 32])),
                source,
            })?;
        }
    }
}

impl<'a> PageKeeper<'a> {
    fn new(domain: &'a Domain, index: Option<&'a Index>, entropy: &'a dyn Entropy) -> Self {
        Self {
            domain,
            index,
            entropy,
            taken: HashSet::new(),
            plain: Vec::new(),
            chunks: Vec::new(),
            builder: None,
            pages: KeptPages::default(),
            is_failed: false,
        }
    }

    /// Takes a page or list that is not here yet.
    pub(super) fn push(&mut self, kind: ChunkKind, id: &ChunkId, bytes: &[u8]) {
        let is_here = || self.index.is_some_and(|index| index.contains(id));
        if kind == ChunkKind::Data || self.is_failed || is_here() {
            return;
        }
        if !self.taken.insert(prefix_of(id)) {
            return;
        }
        if self.plain.len() + bytes.len() > METADATA_FRAME_BYTES {
            self.close_frame();
        }
        self.plain.extend_from_slice(bytes);
        self.chunks.push(ChunkEntry {
            kind,
            id: *id,
            length: u32::try_from(bytes.len()).unwrap_or(u32::MAX),
        });
    }

    /// Gives what was stored; nothing when something could not be.
    pub(super) fn finish(mut self) -> Option<KeptPages> {
        self.close_frame();
        self.close_pack();
        (!self.is_failed).then_some(self.pages)
    }

    fn close_frame(&mut self) {
        if !self.chunks.is_empty() && self.try_close_frame().is_none() {
            self.is_failed = true;
        }
    }

    fn try_close_frame(&mut self) -> Option<()> {
        let plain = std::mem::take(&mut self.plain);
        let length = u32::try_from(plain.len()).ok()?;
        let (codec, payload) = compress(plain, LEVEL).ok()?;
        let frame = Frame {
            codec,
            plain: length,
            payload,
            chunks: std::mem::take(&mut self.chunks),
        };
        let is_full = |builder: &PackBuilder| !builder.has_room_for(&frame, PACK_BYTES);
        if self.builder.as_ref().is_some_and(is_full) {
            self.close_pack();
        }
        let mut builder = match self.builder.take() {
            Some(builder) => builder,
            None => {
                let mut salt = [0; 32];
                self.entropy.fill(&mut salt);
                let kind = ObjectKind::MetadataPack;
                PackBuilder::new(self.domain.keyring(), kind, &salt).ok()?
            }
        };
        builder.push(frame).ok()?;
        self.builder = Some(builder);
        Some(())
    }

    fn close_pack(&mut self) {
        if let Some(builder) = self.builder.take()
            && self.store(builder).is_none()
        {
            self.is_failed = true;
        }
    }

    fn store(&mut self, builder: PackBuilder) -> Option<()> {
        let pack = builder.finish().ok()?;
        let name = self.domain.name(pack.info.kind, &pack.info.hash);
        self.domain.store().put(&name, &pack.stored.bytes).ok()?;
        let ordinal = u32::try_from(self.pages.packs.len()).ok()?;
        self.pages.records.extend(records_of(ordinal, &pack.frames));
        self.pages.packs.push(pack.info);
        Some(())
    }
}

impl Domain {
    /// Gives the domain in which the pages of this one are kept on this machine.
    fn on_this_machine(&self, cache: Arc<dyn ObjectStore>, key: [u8; KEY_BYTES]) -> Self {
        let keyring = self.keyring().for_this_machine(key);
        self.with_keyring(keyring, self.slot()).at(cache)
    }
}
