//! Reads chunks: finds them in the index, fetches their frames, opens and verifies.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use edge::{ByteRange, ObjectStore, StoreFault};
use sealing::{ChunkId, ChunkKind, ChunkNamer, ObjectCipher, ObjectKind};

use crate::content::{Bytes, ChunkRef, Content, decode_list};
use crate::domain::Domain;
use crate::error::ReadError;
use crate::index::{Index, Locate, PackInfo, Record};
use crate::layout::ObjectHash;
use crate::pack::{decompress, decompress_into};
use crate::tree::PageSource;
use crate::wire::FormatError;

/// Frames whose distance is at most this are fetched with one request.
const GAP_BYTES_MAX: u64 = 1024 * 1024;
/// One request fetches at most this, unless a single frame is larger.
const REQUEST_BYTES_MAX: u64 = 8 * 1024 * 1024;
/// Opened frames that are kept: pages near each other are read together.
const RECENT_FRAMES: usize = 8;
const CUT_OFF: FormatError = FormatError("it is cut off");
/// A chunk that is moved again while it is looked for is looked for so often.
const MOVES_MAX: usize = 4;
/// Packs whose ciphers are kept.
const CIPHERS_MAX: usize = 1024;

/// Reads chunks of one domain at one place.
pub(crate) struct ChunkReader<'a> {
    domain: &'a Domain,
    index: &'a dyn Locate,
    namer: ChunkNamer,
    kept: Kept,
    /// What was read of packs that came in the place of those that are gone.
    moved: Option<(Arc<Index>, Kept)>,
    /// Where frames are decompressed that are looked at once.
    buffer: Vec<u8>,
    /// Where frames are fetched that are looked at once.
    fetched: Vec<u8>,
}

/// What is kept of packs that were read from.
#[derive(Default)]
struct Kept {
    /// Pack, frame and plaintext, the one that was asked for last first.
    recent: VecDeque<(u32, u16, Arc<Vec<u8>>)>,
    ciphers: BTreeMap<u32, Arc<ObjectCipher>>,
}

/// Neighbouring frames of one pack that one request fetches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FrameRun {
    pub(crate) pack: u32,
    /// Frame numbers, ascending.
    pub(crate) frames: Vec<u16>,
    offset: u64,
    length: u64,
}

/// Takes an opened frame with its number.
pub(crate) type FrameSink<'f, R> = dyn FnMut(&R, u16, Result<Vec<u8>, ReadError>) + 'f;
/// The same for a frame that is there only for the call.
pub(crate) type FrameLook<'f, R> = dyn FnMut(&R, u16, Result<&[u8], ReadError>) + 'f;

/// Joins frames, sorted by pack and number, into runs.
pub(crate) fn plan_runs(index: &dyn Locate, frames: &[(u32, u16)]) -> Vec<FrameRun> {
    plan_runs_up_to(REQUEST_BYTES_MAX, index, frames)
}

/// As [`plan_runs`], with runs of at most so many bytes, unless a single frame is larger.
pub(crate) fn plan_runs_up_to(
    bytes_max: u64,
    index: &dyn Locate,
    frames: &[(u32, u16)],
) -> Vec<FrameRun> {
    let mut runs: Vec<FrameRun> = Vec::new();
    for (pack, frame) in frames {
        let Some(info) = index.pack(*pack) else {
            continue;
        };
        let Some(shape) = info.frames.get(usize::from(*frame)) else {
            continue;
        };
        let offset = info.frame_offset(*frame);
        let end = offset + u64::from(shape.stored);
        match runs.last_mut() {
            Some(run)
                if run.pack == *pack
                    && offset - (run.offset + run.length) <= GAP_BYTES_MAX
                    && end - run.offset <= bytes_max =>
            {
                run.frames.push(*frame);
                run.length = end - run.offset;
            }
            _ => runs.push(FrameRun {
                pack: *pack,
                frames: vec![*frame],
                offset,
                length: end - offset,
            }),
        }
    }
    runs
}

impl<'a> ChunkReader<'a> {
    pub(crate) fn new(domain: &'a Domain, index: &'a dyn Locate) -> Self {
        Self {
            domain,
            index,
            namer: domain.keyring().namer(),
            kept: Kept::default(),
            moved: None,
            buffer: Vec::new(),
            fetched: Vec::new(),
        }
    }

    pub(crate) const fn index(&self) -> &'a dyn Locate {
        self.index
    }

    /// Reads one chunk.
    pub(crate) fn read(&mut self, kind: ChunkKind, id: &ChunkId) -> Result<Vec<u8>, ReadError> {
        let record = self.find(id)?;
        self.read_at(kind, id, record)
            .or_else(|error| self.read_moved(kind, id, &error).ok_or(error))
    }

    /// Reads a chunk from where it was moved to, when reading it failed because its pack is gone.
    /// `None` when that is not why, or when it was not moved.
    pub(crate) fn read_moved(
        &mut self,
        kind: ChunkKind,
        id: &ChunkId,
        error: &ReadError,
    ) -> Option<Vec<u8>> {
        if !is_gone(error) {
            return None;
        }
        let mut gone = pack_of(self.index, id)?;
        for _ in 0..MOVES_MAX {
            let newer = self.index.without(&gone)?;
            let kept = self.moved.take();
            let kept = kept.filter(|(index, _)| Arc::ptr_eq(index, &newer));
            let mut reader = ChunkReader::new(self.domain, &*newer);
            reader.kept = kept.map(|(_, kept)| kept).unwrap_or_default();
            let read = reader
                .find(id)
                .and_then(|record| reader.read_at(kind, id, record));
            let kept = reader.kept;
            gone = pack_of(&*newer, id)?;
            self.moved = Some((newer, kept));
            match read {
                Err(error) if is_gone(&error) => {}
                other => return other.ok(),
            }
        }
        None
    }

    fn read_at(
        &mut self,
        kind: ChunkKind,
        id: &ChunkId,
        record: Record,
    ) -> Result<Vec<u8>, ReadError> {
        let frame = self.frame(&record)?;
        self.chunk(kind, id, &record, &frame).map(<[u8]>::to_vec)
    }

    /// Gives all chunks of a content, lists of lists read.
    pub(crate) fn chunk_list(&mut self, content: &Content) -> Result<Vec<ChunkRef>, ReadError> {
        let Bytes::Chunks { depth, list } = &content.bytes else {
            return Ok(Vec::new());
        };
        let mut list = list.clone();
        for _ in 0..*depth {
            let mut bytes = Vec::new();
            let first = list.first().map(|chunk| chunk.id);
            for chunk in &list {
                bytes.extend(self.read(ChunkKind::List, &chunk.id)?);
            }
            list = decode_list(&bytes).map_err(|source| ReadError::Format {
                chunk: first.unwrap_or(ChunkId::from_bytes([0; 32])),
                source,
            })?;
        }
        Ok(list)
    }

    pub(crate) fn find(&self, id: &ChunkId) -> Result<Record, ReadError> {
        self.index
            .find(id)?
            .ok_or(ReadError::Unknown { chunk: *id })
    }

    /// True when these bytes are the content of a chunk.
    pub(crate) fn is_chunk(&self, kind: ChunkKind, id: &ChunkId, bytes: &[u8]) -> bool {
        self.namer.name(kind, bytes) == *id
    }

    /// Takes a chunk out of its opened frame and verifies it.
    pub(crate) fn chunk<'f>(
        &self,
        kind: ChunkKind,
        id: &ChunkId,
        record: &Record,
        frame: &'f [u8],
    ) -> Result<&'f [u8], ReadError> {
        let start = usize::try_from(record.offset()).unwrap_or(usize::MAX);
        let length = usize::try_from(record.length()).unwrap_or(usize::MAX);
        let bytes = start
            .checked_add(length)
            .and_then(|end| frame.get(start..end))
            .filter(|bytes| self.is_chunk(kind, id, bytes));
        bytes.ok_or_else(|| ReadError::Mismatch {
            chunk: *id,
            pack: self
                .index
                .pack(record.pack)
                .map_or_else(crate::layout::config, |pack| {
                    self.domain.name(pack.kind, &pack.hash)
                }),
        })
    }

    /// Fetches and opens the frames of a run, one after another.
    pub(crate) fn read_run(
        &mut self,
        run: &FrameRun,
        each: &mut FrameSink<'_, Self>,
    ) -> Result<(), ReadError> {
        self.look_at_run(run, &mut |reader, frame, plain| {
            each(reader, frame, plain.map(<[u8]>::to_vec));
        })
    }

    /// As [`ChunkReader::read_run`], without a copy of each frame. Fails before the first frame or
    /// not at all.
    pub(crate) fn look_at_run(
        &mut self,
        run: &FrameRun,
        each: &mut FrameLook<'_, Self>,
    ) -> Result<(), ReadError> {
        let pack = self.pack(run.pack)?;
        let cipher = self.cipher(run.pack, pack)?;
        let name = self.domain.name(pack.kind, &pack.hash);
        let range = ByteRange::At {
            offset: run.offset,
            length: run.length,
        };
        let mut bytes = std::mem::take(&mut self.fetched);
        let store = self.domain.store();
        store.get_range_into(&name, range, &mut bytes)?;
        let mut buffer = std::mem::take(&mut self.buffer);
        for frame in &run.frames {
            let start = pack.frame_offset(*frame) - run.offset;
            let sealed = cut_out(&mut bytes, start, pack, *frame);
            let plain = self.open_within((pack, &cipher, *frame), sealed, &mut buffer);
            each(self, *frame, plain);
        }
        (self.buffer, self.fetched) = (buffer, bytes);
        Ok(())
    }

    fn frame(&mut self, record: &Record) -> Result<Arc<Vec<u8>>, ReadError> {
        let place = (record.pack, record.frame());
        let recent = &mut self.kept.recent;
        let is_here = |held: &(u32, u16, _)| (held.0, held.1) == place;
        let kept = recent
            .iter()
            .position(is_here)
            .and_then(|at| recent.remove(at));
        if let Some(kept) = kept {
            let frame = kept.2.clone();
            recent.push_front(kept);
            return Ok(frame);
        }
        let pack = self.pack(record.pack)?;
        let cipher = self.cipher(record.pack, pack)?;
        let frame = Arc::new(self.fetch(pack, &cipher, record.frame())?);
        self.kept.recent.truncate(RECENT_FRAMES - 1);
        self.kept
            .recent
            .push_front((place.0, place.1, frame.clone()));
        Ok(frame)
    }

    /// Fetches one frame, from the cache if that holds it undamaged.
    fn fetch(
        &self,
        pack: &PackInfo,
        cipher: &ObjectCipher,
        frame: u16,
    ) -> Result<Vec<u8>, ReadError> {
        let length = pack
            .frames
            .get(usize::from(frame))
            .map_or(1, |shape| u64::from(shape.stored));
        let range = ByteRange::At {
            offset: pack.frame_offset(frame),
            length,
        };
        let name = self.domain.name(pack.kind, &pack.hash);
        let from = |store: &Arc<dyn ObjectStore>| {
            let bytes = store.get_range(&name, range)?;
            self.open(pack, cipher, frame, bytes)
        };
        let cached = match self.domain.cache() {
            Some(cache) if pack.kind == ObjectKind::MetadataPack => from(cache).ok(),
            _ => None,
        };
        cached.map_or_else(|| from(self.domain.store()), Ok)
    }

    fn open(
        &self,
        pack: &PackInfo,
        cipher: &ObjectCipher,
        frame: u16,
        mut sealed: Vec<u8>,
    ) -> Result<Vec<u8>, ReadError> {
        let wrong = |source| self.frame_error(pack, frame, source);
        let Some(shape) = pack.frames.get(usize::from(frame)) else {
            return Err(wrong(Box::new(CUT_OFF)));
        };
        cipher
            .open_part(frame.into(), &mut sealed)
            .map_err(|error| wrong(Box::new(error)))?;
        decompress(*shape, sealed).map_err(|error| wrong(Box::new(error)))
    }

    /// Opens a frame where it lies, and decompresses it into a buffer when it is compressed.
    fn open_within<'b>(
        &self,
        (pack, cipher, frame): (&PackInfo, &ObjectCipher, u16),
        sealed: Option<&'b mut [u8]>,
        buffer: &'b mut Vec<u8>,
    ) -> Result<&'b [u8], ReadError> {
        let wrong = |source| self.frame_error(pack, frame, source);
        let (Some(shape), Some(sealed)) = (pack.frames.get(usize::from(frame)), sealed) else {
            return Err(wrong(Box::new(CUT_OFF)));
        };
        let packed = cipher
            .open_part_within(frame.into(), sealed)
            .map_err(|error| wrong(Box::new(error)))?;
        decompress_into(*shape, packed, buffer).map_err(|error| wrong(Box::new(error)))
    }

    fn frame_error(
        &self,
        pack: &PackInfo,
        frame: u16,
        source: Box<dyn std::error::Error + Send + Sync>,
    ) -> ReadError {
        ReadError::Frame {
            pack: self.domain.name(pack.kind, &pack.hash),
            frame,
            source,
        }
    }

    fn pack(&self, ordinal: u32) -> Result<&'a PackInfo, ReadError> {
        self.index.pack(ordinal).ok_or(ReadError::Unknown {
            chunk: ChunkId::from_bytes([0; 32]),
        })
    }

    fn cipher(&mut self, ordinal: u32, pack: &PackInfo) -> Result<Arc<ObjectCipher>, ReadError> {
        if let Some(cipher) = self.kept.ciphers.get(&ordinal) {
            return Ok(cipher.clone());
        }
        let keyring = self.domain.keyring();
        let cipher =
            ObjectCipher::recall(keyring, pack.kind, pack.epoch, &pack.salt).map_err(|error| {
                ReadError::Frame {
                    pack: self.domain.name(pack.kind, &pack.hash),
                    frame: 0,
                    source: Box::new(error),
                }
            })?;
        let cipher = Arc::new(cipher);
        if self.kept.ciphers.len() >= CIPHERS_MAX {
            self.kept.ciphers.clear();
        }
        self.kept.ciphers.insert(ordinal, cipher.clone());
        Ok(cipher)
    }
}

/// True when a pack is not where the index has it.
fn is_gone(error: &ReadError) -> bool {
    matches!(error, ReadError::Store(error) if error.fault == StoreFault::NotFound)
}

fn pack_of(index: &dyn Locate, id: &ChunkId) -> Option<ObjectHash> {
    let record = index.find(id).ok().flatten()?;
    Some(index.pack(record.pack)?.hash)
}

fn cut_out<'b>(
    bytes: &'b mut [u8],
    start: u64,
    pack: &PackInfo,
    frame: u16,
) -> Option<&'b mut [u8]> {
    let shape = pack.frames.get(usize::from(frame))?;
    let start = usize::try_from(start).ok()?;
    let end = start.checked_add(usize::try_from(shape.stored).ok()?)?;
    bytes.get_mut(start..end)
}

impl PageSource for ChunkReader<'_> {
    fn page(&mut self, id: &ChunkId) -> Result<Vec<u8>, ReadError> {
        self.read(ChunkKind::Page, id)
    }
}
