//! Index segments as they are stored (`docs/format.md`, "Index segments").

mod directory;

use sealing::{Keyring, ObjectCipher, ObjectError, ObjectKind};

use crate::container::{PartsWriter, Stored};
use crate::error::RepositoryError;
use crate::index::{Index, PREFIX_BYTES, PackInfo, Prefix, RECORD_BYTES, Record};
use crate::layout::ObjectHash;
use crate::pack::{FRAME_COUNT_MAX, put_shape, take_shape};
use crate::wire::{FormatError, Put, Reader, Result};

pub(crate) use directory::{
    Directory, Ended, LENT_COUNT_MAX, SIBLING_COUNT_MAX, Sibling, may_begin_before,
};

/// The longest segment that is read whole.
pub(crate) const SEGMENT_BYTES_MAX: u64 = 4 * 1024 * 1024 * 1024;

const VERSION: u8 = 1;
/// The same with a directory at the end.
const VERSION_WITH_DIRECTORY: u8 = 2;
const BLOCK_BYTES: usize = 64 * 1024;
const RECORDS_PER_BLOCK: usize = BLOCK_BYTES / RECORD_BYTES;
/// A pack block may exceed its target by one pack with very many frames.
const SEALED_BYTES_MAX: u32 = 2 * 1024 * 1024;
const BLOCK_COUNT_MAX: usize = 1 << 20;
const REPLACED_MAX: usize = 65_536;

/// One block of a segment as the trailer lists it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Block {
    sealed: u32,
    rows: usize,
    first: Option<Prefix>,
}

/// The trailer of a segment.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Fences {
    pub(crate) replaced: Vec<ObjectHash>,
    packs: Vec<Block>,
    records: Vec<Block>,
    pub(crate) directory: Option<Directory>,
}

/// Builds a segment: packs first, then records in order of their ids.
pub(crate) struct SegmentWriter {
    parts: PartsWriter,
    salt: [u8; 32],
    fences: Fences,
    block: Vec<u8>,
    rows: usize,
    first: Option<Prefix>,
}

impl SegmentWriter {
    /// Begins a segment of these packs. The ordinals of its records count within them.
    pub(crate) fn new<'p>(
        keyring: &Keyring,
        salt: &[u8; 32],
        packs: impl IntoIterator<Item = &'p PackInfo>,
    ) -> std::result::Result<Self, ObjectError> {
        let mut writer = Self {
            parts: PartsWriter::new(keyring, ObjectKind::IndexSegment, salt)?,
            salt: *salt,
            fences: Fences::default(),
            block: Vec::with_capacity(BLOCK_BYTES),
            rows: 0,
            first: None,
        };
        for pack in packs {
            let row = encode_pack(pack);
            if writer.block.len() + row.len() > BLOCK_BYTES {
                writer.close_block()?;
            }
            writer.block.extend_from_slice(&row);
            writer.rows += 1;
        }
        writer.close_block()?;
        Ok(writer)
    }

    /// Adds a record, not lower than those before.
    pub(crate) fn push(&mut self, record: &Record) -> std::result::Result<(), ObjectError> {
        self.first.get_or_insert(record.prefix);
        encode_record(record, &mut self.block);
        self.rows += 1;
        if self.rows == RECORDS_PER_BLOCK {
            self.close_block()?;
        }
        Ok(())
    }

    fn close_block(&mut self) -> std::result::Result<(), ObjectError> {
        if self.rows == 0 {
            return Ok(());
        }
        let sealed = self.parts.push(&mut self.block)?;
        self.block.clear();
        let first = self.first.take();
        let blocks = match first {
            Some(_) => &mut self.fences.records,
            None => &mut self.fences.packs,
        };
        blocks.push(Block {
            sealed: u32::try_from(sealed).map_err(|_| ObjectError::Damaged)?,
            rows: std::mem::take(&mut self.rows),
            first,
        });
        Ok(())
    }

    /// Gives the sealed segment, which replaces others, and what the directory of another one
    /// says of it.
    pub(crate) fn finish(
        mut self,
        replaced: &[ObjectHash],
        directory: Option<Directory>,
    ) -> std::result::Result<(Stored, Ended), ObjectError> {
        self.close_block()?;
        self.fences.replaced = replaced.to_vec();
        self.fences.directory = directory;
        let stored = self.parts.finish(encode_fences(&self.fences))?;
        let ended = Ended {
            sibling: self.fences.as_sibling(stored.hash, self.salt),
            packs: self.fences.packs,
        };
        Ok((stored, ended))
    }
}

impl Fences {
    /// Gives the number of records.
    pub(crate) fn record_count(&self) -> usize {
        self.records.iter().map(|block| block.rows).sum()
    }

    /// Gives the number of packs that are named for siblings.
    fn lent(&self) -> usize {
        self.directory
            .as_ref()
            .map_or(0, |directory| directory.lent)
    }

    fn as_sibling(&self, hash: ObjectHash, salt: [u8; 32]) -> Sibling {
        let starts = self.records.iter().map(|block| block.first);
        Sibling {
            hash,
            salt,
            records: self.record_count(),
            starts: starts
                .map(|first| directory::start_of(&first.unwrap_or_default()))
                .collect(),
        }
    }
}

/// Where a block lies in a segment, and what is in it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BlockPlace {
    /// The number of the part.
    part: u32,
    /// Of the first sealed byte, from the beginning of the object.
    pub(crate) offset: u64,
    pub(crate) sealed: u64,
    pub(crate) rows: usize,
    /// The first id of a block of records.
    pub(crate) first: Prefix,
}

impl Fences {
    /// Gives the places of the blocks of packs, and of those of records.
    pub(crate) fn places(&self) -> (Vec<BlockPlace>, Vec<BlockPlace>) {
        places(self.packs.iter().copied(), self.records.iter().copied())
    }
}

fn places(
    packs: impl ExactSizeIterator<Item = Block>,
    records: impl Iterator<Item = Block>,
) -> (Vec<BlockPlace>, Vec<BlockPlace>) {
    let count = packs.len();
    let mut offset = sealing::HEADER_BYTES as u64;
    let mut places: Vec<_> = (0_u32..)
        .zip(packs.chain(records))
        .map(|(part, block)| {
            let sealed = u64::from(block.sealed);
            offset += sealed;
            BlockPlace {
                part,
                offset: offset - sealed,
                sealed,
                rows: block.rows,
                first: block.first.unwrap_or_default(),
            }
        })
        .collect();
    let records = places.split_off(count);
    (places, records)
}

impl BlockPlace {
    /// Opens a block of packs.
    pub(crate) fn open_packs(
        &self,
        cipher: &ObjectCipher,
        sealed: Vec<u8>,
    ) -> std::result::Result<Vec<PackInfo>, SegmentError> {
        self.open(cipher, sealed, decode_pack)
    }

    /// Opens a block of records. Their ordinals count within the segment.
    pub(crate) fn open_records(
        &self,
        cipher: &ObjectCipher,
        sealed: Vec<u8>,
    ) -> std::result::Result<Vec<Record>, SegmentError> {
        self.open(cipher, sealed, decode_record)
    }

    fn open<T>(
        &self,
        cipher: &ObjectCipher,
        mut sealed: Vec<u8>,
        decode: fn(&mut Reader<'_>) -> Result<T>,
    ) -> std::result::Result<Vec<T>, SegmentError> {
        cipher.open_part(self.part, &mut sealed)?;
        let mut reader = Reader::new(&sealed);
        let mut rows = Vec::with_capacity(self.rows.min(RECORDS_PER_BLOCK));
        for _ in 0..self.rows {
            rows.push(decode(&mut reader)?);
        }
        reader.finish()?;
        Ok(rows)
    }
}

/// Opens the blocks of a whole segment, whose trailer was opened before, and gives its packs and
/// then its records to an index.
pub(crate) fn open_blocks(
    cipher: &ObjectCipher,
    fences: &Fences,
    whole: &[u8],
    into: &mut Index,
) -> std::result::Result<(), SegmentError> {
    let mut reader = Reader::new(whole);
    reader.slice(sealing::HEADER_BYTES)?;
    let mut sealed = |block: &BlockPlace| {
        let length = usize::try_from(block.sealed).unwrap_or(usize::MAX);
        reader.slice(length).map(<[u8]>::to_vec)
    };
    let (packs, records) = fences.places();
    let mut translated = Vec::new();
    // What is named for siblings is known once those are read.
    let mut lent = fences.lent();
    for block in &packs {
        let mut packs = block.open_packs(cipher, sealed(block)?)?;
        let own = packs.split_off(lent.min(packs.len()));
        lent -= packs.len();
        translated.append(&mut into.add_packs(own));
    }
    let lent = u32::try_from(fences.lent()).unwrap_or(u32::MAX);
    for block in &records {
        for record in block.open_records(cipher, sealed(block)?)? {
            if let Some(pack) = record.pack.checked_sub(lent) {
                into.add_record(&translated, record.in_pack(pack))?;
            }
        }
    }
    Ok(())
}

/// Says why a segment does not open.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SegmentError {
    #[error(transparent)]
    Sealed(#[from] ObjectError),
    #[error(transparent)]
    Format(#[from] FormatError),
    /// Not the segment is at fault.
    #[error(transparent)]
    Index(#[from] RepositoryError),
}

fn encode_pack(pack: &PackInfo) -> Vec<u8> {
    let mut out = pack.hash.as_bytes().to_vec();
    out.push(pack.kind as u8);
    out.extend_from_slice(&pack.epoch.to_le_bytes());
    out.extend_from_slice(&pack.salt);
    out.put_varint(pack.size);
    out.put_count(pack.frames.len());
    for frame in &pack.frames {
        put_shape(&mut out, *frame);
    }
    out
}

pub(crate) fn decode_pack(reader: &mut Reader<'_>) -> Result<PackInfo> {
    let hash = ObjectHash::from_bytes(reader.array()?);
    let kind = match reader.u8()? {
        1 => ObjectKind::DataPack,
        2 => ObjectKind::MetadataPack,
        _ => return Err(FormatError("a pack has an unknown kind")),
    };
    let epoch = reader.u32()?;
    let salt = reader.array()?;
    let size = reader.varint()?;
    let mut frames = Vec::new();
    for _ in 0..reader.count(FRAME_COUNT_MAX)? {
        frames.push(take_shape(reader)?);
    }
    Ok(PackInfo {
        hash,
        kind,
        epoch,
        salt,
        size,
        frames,
    })
}

fn encode_record(record: &Record, out: &mut Vec<u8>) {
    out.extend_from_slice(&record.prefix);
    out.extend_from_slice(&record.pack.to_le_bytes());
    out.extend_from_slice(&record.frame().to_le_bytes());
    for number in [record.offset(), record.length()] {
        let [a, b, c, _] = number.to_le_bytes();
        out.extend_from_slice(&[a, b, c]);
    }
}

pub(crate) fn decode_record(reader: &mut Reader<'_>) -> Result<Record> {
    let prefix = reader.array()?;
    let pack = reader.u32()?;
    let frame = u16::from_le_bytes(reader.array()?);
    let mut number = || {
        let [a, b, c] = reader.array()?;
        Ok(u32::from_le_bytes([a, b, c, 0]))
    };
    let range = (number()?, number()?);
    Ok(Record::new(prefix, pack, frame, range))
}

pub(crate) fn encode_fences(fences: &Fences) -> Vec<u8> {
    let mut out = vec![match fences.directory {
        None => VERSION,
        Some(_) => VERSION_WITH_DIRECTORY,
    }];
    out.put_count(fences.replaced.len());
    for hash in &fences.replaced {
        out.extend_from_slice(hash.as_bytes());
    }
    put_pack_blocks(&mut out, &fences.packs);
    out.put_count(fences.records.len());
    for block in &fences.records {
        out.put_varint(block.sealed.into());
        out.put_count(block.rows);
        out.extend_from_slice(&block.first.unwrap_or_default());
    }
    if let Some(directory) = &fences.directory {
        directory.encode(&mut out);
    }
    out
}

fn put_pack_blocks(out: &mut Vec<u8>, blocks: &[Block]) {
    out.put_count(blocks.len());
    for block in blocks {
        out.put_varint(block.sealed.into());
        out.put_count(block.rows);
    }
}

fn take_pack_blocks(reader: &mut Reader<'_>) -> Result<Vec<Block>> {
    let mut blocks = Vec::new();
    for _ in 0..reader.count(BLOCK_COUNT_MAX)? {
        blocks.push(Block {
            sealed: reader.small(SEALED_BYTES_MAX)?,
            rows: reader.count(BLOCK_BYTES)?,
            first: None,
        });
    }
    Ok(blocks)
}

/// Reads the trailer of a segment.
pub(crate) fn decode_fences(trailer: &[u8]) -> Result<Fences> {
    let mut reader = Reader::new(trailer);
    let version = reader.u8()?;
    if version != VERSION && version != VERSION_WITH_DIRECTORY {
        return Err(FormatError("an index segment has an unknown version"));
    }
    let mut fences = Fences::default();
    for _ in 0..reader.count(REPLACED_MAX)? {
        fences
            .replaced
            .push(ObjectHash::from_bytes(reader.array()?));
    }
    fences.packs = take_pack_blocks(&mut reader)?;
    for _ in 0..reader.count(BLOCK_COUNT_MAX)? {
        fences.records.push(Block {
            sealed: reader.small(SEALED_BYTES_MAX)?,
            rows: reader.count(RECORDS_PER_BLOCK)?,
            first: Some(reader.array::<PREFIX_BYTES>()?),
        });
    }
    if version == VERSION_WITH_DIRECTORY {
        fences.directory = Some(Directory::decode(&mut reader)?);
    }
    reader.finish()?;
    Ok(fences)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use sealing::ScheduleKey;

    use super::*;
    use crate::container::{Tail, open_tail};
    use crate::index::FrameShape;
    use crate::pack::Codec;

    #[test]
    fn segments_of_many_blocks_read_back() {
        let keyring = Keyring::first(&ScheduleKey::from_bytes([1; 32]), "");
        let frames = vec![
            FrameShape {
                stored: 700_000,
                plain: 1 << 20,
                codec: Codec::Zstd,
            };
            16
        ];
        let packs: Vec<_> = (0..1500_u32)
            .map(|number| PackInfo {
                hash: ObjectHash::of(&number.to_le_bytes()),
                kind: ObjectKind::DataPack,
                epoch: 3,
                salt: [4; 32],
                size: 1 << 24,
                frames: frames.clone(),
            })
            .collect();
        let mut records: Vec<_> = (0..5000_u32)
            .map(|number| {
                let mut prefix = [0; 20];
                prefix[..4].copy_from_slice(&number.to_be_bytes());
                Record::new(prefix, number % 1500, 3, (number, 9))
            })
            .collect();
        records.sort_unstable();
        let replaced = [ObjectHash::of(b"old")];
        let mut writer = SegmentWriter::new(&keyring, &[5; 32], &packs).unwrap();
        for record in &records {
            writer.push(record).unwrap();
        }
        let (stored, ended) = writer.finish(&replaced, None).unwrap();
        let Tail::Trailer { cipher, trailer } =
            open_tail(&keyring, ObjectKind::IndexSegment, &stored.bytes).unwrap()
        else {
            panic!("the trailer is there");
        };
        let fences = decode_fences(&trailer).unwrap();
        assert_eq!(fences.replaced, replaced);
        assert!(fences.packs.len() > 1 && fences.records.len() == 3);
        assert_eq!(fences.record_count(), 5000);
        // Another segment says the same of where its blocks are, but for ends of ids.
        let (packs_at, records_at) = fences.places();
        let directory = Directory::of(vec![ended], 0);
        let (packs_said, records_said) = directory.places_of(&directory.siblings[0]);
        let parts = |place: &BlockPlace| (place.part, place.offset, place.sealed, place.rows);
        for (said, places) in [(&packs_said, packs_at), (&records_said, records_at)] {
            assert_eq!(said.len(), places.len());
            for (said, place) in said.iter().zip(places) {
                assert_eq!(parts(said), parts(&place));
                assert!(said.first <= place.first && may_begin_before(&place, &said.first));
            }
        }
        let mut index = Index::default();
        open_blocks(&cipher, &fences, &stored.bytes, &mut index).unwrap();
        index.sort().unwrap();
        assert_eq!(index.packs(), packs);
        let mut read = Vec::new();
        index
            .each_record(&mut |_, record| {
                read.push(record);
                Ok(())
            })
            .unwrap();
        assert_eq!(read, records);
    }

    proptest! {
        #[test]
        fn foreign_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            drop(decode_fences(&bytes));
            for version in [VERSION, VERSION_WITH_DIRECTORY] {
                let mut like = vec![version];
                like.extend(&bytes);
                if let Ok(fences) = decode_fences(&like) {
                    prop_assert_eq!(encode_fences(&fences), like);
                }
            }
            let mut reader = Reader::new(&bytes);
            while decode_pack(&mut reader).is_ok() {}
        }
    }
}
