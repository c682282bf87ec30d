//! Packs: frames of chunks, compressed and sealed (`docs/format.md`, "Packs").

use std::cell::RefCell;
use std::io;

use sealing::{ChunkId, ChunkKind, Keyring, ObjectError, ObjectKind, PART_OVERHEAD_BYTES};
use zstd::bulk::{Compressor, Decompressor};

use crate::chunker::CHUNK_BYTES_MAX;
use crate::container::{PartsWriter, Stored};
use crate::index::{FrameShape, PackInfo};
use crate::wire::{FormatError, Put, Reader, Result};

/// A pack is closed when it has reached this size (`docs/decisions/0006-packs-of-12-mib.md`).
pub(crate) const PACK_BYTES: usize = 12 * 1024 * 1024;
/// A data frame is closed before it exceeds this size.
pub(crate) const DATA_FRAME_BYTES: usize = 1024 * 1024;
/// A metadata frame is closed before it exceeds this size.
pub(crate) const METADATA_FRAME_BYTES: usize = 128 * 1024;
/// The largest plaintext of a frame.
pub(crate) const FRAME_BYTES_MAX: u32 = 8 * 1024 * 1024;
const SEALED_BYTES_MAX: u32 = FRAME_BYTES_MAX + 16;
const _: () = assert!(CHUNK_BYTES_MAX == 8 * 1024 * 1024 && PART_OVERHEAD_BYTES == 16);
/// The most frames of a pack.
pub(crate) const FRAME_COUNT_MAX: usize = 65_535;

const TRAILER_VERSION: u8 = 1;
/// The longest varint of a length or count in a trailer, and what comes before its frames.
const LENGTH_BYTES_MAX: usize = 4;
const TRAILER_START_BYTES: usize = 1 + LENGTH_BYTES_MAX;
const CHUNKS_PER_FRAME_MAX: usize = 1 << 20;

/// How the plaintext of a frame is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Codec {
    Raw = 0,
    Zstd = 1,
}

impl Codec {
    pub(crate) const fn from_number(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::Raw),
            1 => Some(Self::Zstd),
            _ => None,
        }
    }
}

/// One chunk as the trailer of its pack lists it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ChunkEntry {
    pub(crate) kind: ChunkKind,
    pub(crate) id: ChunkId,
    pub(crate) length: u32,
}

/// One frame as the trailer of its pack lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FrameEntry {
    pub(crate) shape: FrameShape,
    pub(crate) chunks: Vec<ChunkEntry>,
}

/// A compressed frame that is not yet in a pack.
pub(crate) struct Frame {
    pub(crate) codec: Codec,
    pub(crate) plain: u32,
    pub(crate) payload: Vec<u8>,
    pub(crate) chunks: Vec<ChunkEntry>,
}

/// Looked at before a frame is compressed hard, or a large one at all: does it compress?
const PROBE_BYTES: usize = 8 * 1024;
const PROBES_MIN: usize = 3;
const BYTES_PER_PROBE: usize = 256 * 1024;
/// Lower levels pass over what does not compress almost as fast as it is copied.
const PROBE_FROM_LEVEL: i32 = 4;
/// The level for what seems not to compress.
const LEVEL_MIN: i32 = 1;

thread_local! {
    /// The compressor of this thread and its level. It has megabytes of tables, which are not
    /// made anew for each frame.
    static COMPRESSOR: RefCell<Option<(i32, Compressor<'static>)>> = const { RefCell::new(None) };
    static DECOMPRESSOR: RefCell<Option<Decompressor<'static>>> = const { RefCell::new(None) };
}

/// Compresses the plaintext of a frame at a level of 1–22; 0 stores it as it is.
pub(crate) fn compress(plain: Vec<u8>, level: i32) -> io::Result<(Codec, Vec<u8>)> {
    let mut packed = Vec::new();
    match compress_into(&plain, level, &mut packed)? {
        Codec::Zstd => Ok((Codec::Zstd, packed)),
        Codec::Raw => Ok((Codec::Raw, plain)),
    }
}

/// Compresses the plaintext of a frame into an empty buffer, unless it is to be stored as it is.
pub(crate) fn compress_into(plain: &[u8], level: i32, packed: &mut Vec<u8>) -> io::Result<Codec> {
    if level == 0 {
        return Ok(Codec::Raw);
    }
    COMPRESSOR.with_borrow_mut(|held| {
        let level = if level >= PROBE_FROM_LEVEL && !compresses(held, plain)? {
            LEVEL_MIN
        } else {
            level
        };
        packed.reserve(zstd::zstd_safe::compress_bound(plain.len()));
        at_level(held, level)?.compress_to_buffer(plain, packed)
    })?;
    if packed.len() < plain.len() - plain.len() * 3 / 100 {
        Ok(Codec::Zstd)
    } else {
        Ok(Codec::Raw)
    }
}

/// True for a large frame that does not compress: then no buffer is needed to see that.
pub(crate) fn is_large_noise(plain: &[u8], level: i32) -> io::Result<bool> {
    if level == 0 || plain.len() <= DATA_FRAME_BYTES {
        return Ok(false);
    }
    COMPRESSOR.with_borrow_mut(|held| Ok(!compresses(held, plain)?))
}

/// Says from some places of a frame whether it is worth the effort: whether they lose a twentieth.
fn compresses(held: &mut Option<(i32, Compressor<'static>)>, plain: &[u8]) -> io::Result<bool> {
    let probes = PROBES_MIN.max(plain.len() / BYTES_PER_PROBE);
    let sampled = probes * PROBE_BYTES;
    if plain.len() < 2 * sampled {
        return Ok(true);
    }
    let last = plain.len() - PROBE_BYTES;
    let mut packed = [0; PROBE_BYTES + PROBE_BYTES / 8];
    let mut sum = 0;
    for number in 0..probes {
        let from = last / (probes - 1) * number;
        let piece = plain.get(from..from + PROBE_BYTES).unwrap_or_default();
        sum += at_level(held, LEVEL_MIN)?.compress_to_buffer(piece, &mut packed[..])?;
    }
    Ok(sum < sampled - sampled / 20)
}

fn at_level<'h>(
    held: &'h mut Option<(i32, Compressor<'static>)>,
    level: i32,
) -> io::Result<&'h mut Compressor<'static>> {
    if held.is_none() {
        *held = Some((level, Compressor::new(level)?));
    }
    let (at, compressor) = held.as_mut().ok_or(io::ErrorKind::OutOfMemory)?;
    if *at != level {
        compressor.set_compression_level(level)?;
        *at = level;
    }
    Ok(compressor)
}

/// Gives back the plaintext of an opened frame.
pub(crate) fn decompress(shape: FrameShape, payload: Vec<u8>) -> Result<Vec<u8>> {
    let mut plain = Vec::new();
    match shape.codec {
        Codec::Raw => plain = payload,
        Codec::Zstd => drop(decompress_into(shape, &payload, &mut plain)?),
    }
    check_length(shape, &plain)?;
    Ok(plain)
}

/// As [`decompress`], into a buffer that is used again; what is stored as it is stays where it is.
pub(crate) fn decompress_into<'p>(
    shape: FrameShape,
    payload: &'p [u8],
    buffer: &'p mut Vec<u8>,
) -> Result<&'p [u8]> {
    let plain = match shape.codec {
        Codec::Raw => payload,
        Codec::Zstd => {
            buffer.clear();
            buffer.reserve(usize::try_from(shape.plain).unwrap_or(usize::MAX));
            DECOMPRESSOR
                .with_borrow_mut(|held| {
                    let mut decompressor = match held.take() {
                        Some(decompressor) => decompressor,
                        None => Decompressor::new()?,
                    };
                    let plain = decompressor.decompress_to_buffer(payload, buffer);
                    *held = Some(decompressor);
                    plain
                })
                .map_err(|_| FormatError("a frame does not decompress"))?;
            buffer
        }
    };
    check_length(shape, plain)?;
    Ok(plain)
}

fn check_length(shape: FrameShape, plain: &[u8]) -> Result<()> {
    if usize::try_from(shape.plain) == Ok(plain.len()) {
        Ok(())
    } else {
        Err(FormatError("a frame has another length than listed"))
    }
}

/// Builds one pack.
pub(crate) struct PackBuilder {
    kind: ObjectKind,
    parts: PartsWriter,
    frames: Vec<FrameEntry>,
    /// At least as many bytes as the trailer will have.
    trailer_bytes: usize,
}

/// A pack ready to be stored, with what the index needs to know.
pub(crate) struct FinishedPack {
    pub(crate) stored: Stored,
    pub(crate) info: PackInfo,
    pub(crate) frames: Vec<FrameEntry>,
}

impl PackBuilder {
    pub(crate) fn new(
        keyring: &Keyring,
        kind: ObjectKind,
        salt: &[u8; 32],
    ) -> std::result::Result<Self, ObjectError> {
        Self::within(keyring, kind, salt, Vec::new())
    }

    /// Begins a pack in an empty buffer.
    pub(crate) fn within(
        keyring: &Keyring,
        kind: ObjectKind,
        salt: &[u8; 32],
        buffer: Vec<u8>,
    ) -> std::result::Result<Self, ObjectError> {
        Ok(Self {
            kind,
            parts: PartsWriter::within(keyring, kind, salt, buffer)?,
            frames: Vec::new(),
            trailer_bytes: TRAILER_START_BYTES,
        })
    }

    /// Says whether a frame can be added without bringing the stored pack over `pack_bytes`. The
    /// first one always can.
    pub(crate) fn has_room_for(&self, frame: &Frame, pack_bytes: usize) -> bool {
        let part = frame.payload.len() + PART_OVERHEAD_BYTES;
        let trailer = self.trailer_bytes + trailer_bytes_of(frame);
        self.frames.is_empty()
            || (self.frames.len() < FRAME_COUNT_MAX
                && self.parts.length_with(part, trailer) <= pack_bytes)
    }

    pub(crate) const fn stored_bytes(&self) -> usize {
        self.parts.stored_bytes()
    }

    pub(crate) fn push(&mut self, frame: Frame) -> std::result::Result<(), ObjectError> {
        self.push_and_give_back(frame).map(drop)
    }

    /// Adds a frame; gives its buffer back.
    pub(crate) fn push_and_give_back(
        &mut self,
        mut frame: Frame,
    ) -> std::result::Result<Vec<u8>, ObjectError> {
        self.trailer_bytes += trailer_bytes_of(&frame);
        let stored = self.parts.push(&mut frame.payload)?;
        self.frames.push(FrameEntry {
            shape: FrameShape {
                stored: u32::try_from(stored).map_err(|_| ObjectError::Damaged)?,
                plain: frame.plain,
                codec: frame.codec,
            },
            chunks: frame.chunks,
        });
        Ok(frame.payload)
    }

    /// Opens the frames again, to put them into another pack; gives them and the buffer.
    pub(crate) fn into_frames(self) -> std::result::Result<(Vec<Frame>, Vec<u8>), ObjectError> {
        let (cipher, bytes) = self.parts.into_sealed();
        let mut start = sealing::HEADER_BYTES;
        let mut frames = Vec::new();
        for (number, frame) in (0_u32..).zip(self.frames) {
            let stored = usize::try_from(frame.shape.stored).map_err(|_| ObjectError::Damaged)?;
            let sealed = bytes.get(start..start + stored);
            let mut payload = sealed.ok_or(ObjectError::Damaged)?.to_vec();
            cipher.open_part(number, &mut payload)?;
            start += stored;
            frames.push(Frame {
                codec: frame.shape.codec,
                plain: frame.shape.plain,
                payload,
                chunks: frame.chunks,
            });
        }
        Ok((frames, bytes))
    }

    pub(crate) fn finish(self) -> std::result::Result<FinishedPack, ObjectError> {
        let (epoch, salt) = self.parts.cipher().origin()?;
        let stored = self.parts.finish(encode_trailer(&self.frames))?;
        let info = PackInfo {
            hash: stored.hash,
            kind: self.kind,
            epoch,
            salt,
            size: stored.bytes.len() as u64,
            frames: self.frames.iter().map(|frame| frame.shape).collect(),
        };
        Ok(FinishedPack {
            stored,
            info,
            frames: self.frames,
        })
    }
}

/// At least what a frame takes in the trailer: its shape, and its chunks with their ids.
const fn trailer_bytes_of(frame: &Frame) -> usize {
    4 * LENGTH_BYTES_MAX + frame.chunks.len() * (1 + LENGTH_BYTES_MAX + 32)
}

pub(crate) fn encode_trailer(frames: &[FrameEntry]) -> Vec<u8> {
    let mut out = vec![TRAILER_VERSION];
    out.put_count(frames.len());
    for frame in frames {
        put_shape(&mut out, frame.shape);
        out.put_count(frame.chunks.len());
        for chunk in &frame.chunks {
            out.push(chunk.kind as u8);
            out.put_varint(chunk.length.into());
            out.extend_from_slice(chunk.id.as_bytes());
        }
    }
    out
}

/// Reads the trailer of a pack.
pub(crate) fn decode_trailer(trailer: &[u8]) -> Result<Vec<FrameEntry>> {
    let mut reader = Reader::new(trailer);
    if reader.u8()? != TRAILER_VERSION {
        return Err(FormatError("a pack trailer has an unknown version"));
    }
    let mut frames = Vec::new();
    for _ in 0..reader.count(FRAME_COUNT_MAX)? {
        let shape = take_shape(&mut reader)?;
        let mut chunks = Vec::new();
        let mut left = shape.plain;
        for _ in 0..reader.count(CHUNKS_PER_FRAME_MAX)? {
            let kind = ChunkKind::from_number(reader.u8()?)
                .ok_or(FormatError("a chunk has an unknown type"))?;
            let length = reader.small(FRAME_BYTES_MAX)?;
            left = left
                .checked_sub(length)
                .ok_or(FormatError("the chunks of a frame exceed it"))?;
            let id = ChunkId::from_bytes(reader.array()?);
            chunks.push(ChunkEntry { kind, id, length });
        }
        if left != 0 {
            return Err(FormatError("the chunks of a frame do not fill it"));
        }
        frames.push(FrameEntry { shape, chunks });
    }
    reader.finish()?;
    Ok(frames)
}

pub(crate) fn put_shape(out: &mut Vec<u8>, shape: FrameShape) {
    out.put_varint(shape.stored.into());
    out.put_varint(shape.plain.into());
    out.push(shape.codec as u8);
}

pub(crate) fn take_shape(reader: &mut Reader<'_>) -> Result<FrameShape> {
    let stored = reader.small(SEALED_BYTES_MAX)?;
    let plain = reader.small(FRAME_BYTES_MAX)?;
    let codec =
        Codec::from_number(reader.u8()?).ok_or(FormatError("a frame has an unknown codec"))?;
    Ok(FrameShape {
        stored,
        plain,
        codec,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use sealing::ScheduleKey;

    use super::*;
    use crate::container::{Tail, open_tail};

    fn frame(bytes: &[u8], level: i32) -> Frame {
        let (codec, payload) = compress(bytes.to_vec(), level).unwrap();
        let length = u32::try_from(bytes.len()).unwrap();
        Frame {
            codec,
            plain: length,
            payload,
            chunks: vec![ChunkEntry {
                kind: ChunkKind::Data,
                id: ChunkId::from_bytes([9; 32]),
                length,
            }],
        }
    }

    #[test]
    fn a_pack_is_frozen_and_reads_back() {
        let keyring = Keyring::first(&ScheduleKey::from_bytes([1; 32]), "");
        let mut pack = PackBuilder::new(&keyring, ObjectKind::DataPack, &[2; 32]).unwrap();
        pack.push(frame(&[b'a'; 5000], 0)).unwrap();
        pack.push(frame(b"short", 0)).unwrap();
        let pack = pack.finish().unwrap();
        let end = &pack.stored.bytes;
        let Tail::Trailer { trailer, .. } = open_tail(&keyring, ObjectKind::DataPack, end).unwrap()
        else {
            panic!("the trailer is there");
        };
        assert_eq!(decode_trailer(&trailer).unwrap(), pack.frames);
        assert_eq!(pack.stored.hash.to_string(), PACK_HASH);
    }

    const PACK_HASH: &str = "de7a9a262ff5dbf6441b854560bd3e11b431829edddc5d1a45e8696e550c3405";

    #[test]
    fn frames_can_be_taken_out_of_an_open_pack_again() {
        let keyring = Keyring::first(&ScheduleKey::from_bytes([1; 32]), "");
        let begin = |salt| PackBuilder::new(&keyring, ObjectKind::DataPack, &[salt; 32]).unwrap();
        let mut pack = begin(2);
        pack.push(frame(&[b'a'; 5000], 3)).unwrap();
        pack.push(frame(b"short", 0)).unwrap();
        let (frames, _) = pack.into_frames().unwrap();
        let mut other = begin(3);
        let mut plain = Vec::new();
        for frame in frames {
            let shape = FrameShape {
                stored: 0,
                plain: frame.plain,
                codec: frame.codec,
            };
            plain.push(decompress(shape, frame.payload.clone()).unwrap());
            other.push(frame).unwrap();
        }
        assert_eq!(plain, [vec![b'a'; 5000], b"short".to_vec()]);
        assert_eq!(other.finish().unwrap().frames.len(), 2);
    }

    #[test]
    fn what_does_not_compress_costs_no_effort() {
        let mut noise = vec![0; 1 << 20];
        blake3::Hasher::new().finalize_xof().fill(&mut noise);
        let text: Vec<u8> = b"insert into t values (1);\n".repeat(20_000);
        COMPRESSOR.with_borrow_mut(|held| {
            assert!(!compresses(held, &noise).unwrap());
            assert!(compresses(held, &text).unwrap());
            assert!(compresses(held, b"short").unwrap());
        });
        let large = noise.repeat(2);
        assert!(is_large_noise(&large, 3).unwrap());
        assert!(!is_large_noise(&large, 0).unwrap() && !is_large_noise(&noise, 3).unwrap());
        let mut mixed = large.clone();
        mixed[..1 << 19].fill(7);
        assert!(!is_large_noise(&mixed, 3).unwrap());
        for level in 0..=9 {
            let (codec, payload) = compress(noise.clone(), level).unwrap();
            assert!(codec == Codec::Raw && payload == noise);
            let (codec, payload) = compress(text.clone(), level).unwrap();
            assert_eq!(codec == Codec::Zstd, level > 0);
            let shape = FrameShape {
                stored: 0,
                plain: u32::try_from(text.len()).unwrap(),
                codec,
            };
            assert!(decompress(shape, payload).unwrap() == text);
        }
    }

    #[test]
    fn frames_are_compressed_only_when_it_gains() {
        for (bytes, codec) in [
            (vec![b'a'; 5000], Codec::Zstd),
            (b"short".to_vec(), Codec::Raw),
        ] {
            let frame = frame(&bytes, 3);
            assert_eq!(frame.codec, codec);
            let shape = FrameShape {
                stored: 0,
                plain: frame.plain,
                codec,
            };
            assert_eq!(decompress(shape, frame.payload.clone()), Ok(bytes));
            let longer = FrameShape {
                plain: frame.plain + 1,
                ..shape
            };
            assert!(decompress(longer, frame.payload).is_err());
        }
    }

    proptest! {
        #[test]
        fn foreign_trailers_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let mut like = vec![TRAILER_VERSION];
            like.extend(&bytes);
            drop(decode_trailer(&bytes));
            if let Ok(frames) = decode_trailer(&like) {
                prop_assert_eq!(encode_trailer(&frames), like);
            }
        }
    }
}
