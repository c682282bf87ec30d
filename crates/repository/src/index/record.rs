//! What the index knows of one chunk: 32 bytes.

use sealing::ChunkId;

use crate::pack::FrameEntry;

/// Bytes of a chunk id that a record keeps.
pub(crate) const PREFIX_BYTES: usize = 20;
/// Bytes of a record, in memory, in scratch and in a segment.
pub(crate) const RECORD_BYTES: usize = 32;

/// The first bytes of a chunk id.
pub(crate) type Prefix = [u8; PREFIX_BYTES];

pub(crate) fn prefix_of(id: &ChunkId) -> Prefix {
    id.as_bytes().first_chunk().copied().unwrap_or_default()
}

/// Where one chunk is: pack ordinal, and frame, offset and length in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Record {
    pub(crate) prefix: Prefix,
    pub(crate) pack: u32,
    pub(super) place: u64,
}

impl Record {
    /// Offset and length are below 2^24: a frame has at most 8 MiB.
    pub(crate) fn new(prefix: Prefix, pack: u32, frame: u16, range: (u32, u32)) -> Self {
        let (offset, length) = range;
        let place = u64::from(frame) << 48 | u64::from(offset) << 24 | u64::from(length);
        Self {
            prefix,
            pack,
            place,
        }
    }

    /// Gives the record with another ordinal.
    pub(crate) const fn in_pack(self, pack: u32) -> Self {
        Self { pack, ..self }
    }

    pub(crate) const fn frame(self) -> u16 {
        (self.place >> 48) as u16
    }

    pub(crate) const fn offset(self) -> u32 {
        (self.place >> 24 & 0xff_ffff) as u32
    }

    pub(crate) const fn length(self) -> u32 {
        (self.place & 0xff_ffff) as u32
    }

    /// Gives the record as scratch files hold it.
    pub(super) fn to_bytes(self) -> [u8; RECORD_BYTES] {
        let mut bytes = [0; RECORD_BYTES];
        let fields = self
            .prefix
            .into_iter()
            .chain(self.pack.to_le_bytes())
            .chain(self.place.to_le_bytes());
        bytes
            .iter_mut()
            .zip(fields)
            .for_each(|(at, byte)| *at = byte);
        bytes
    }

    pub(super) fn from_bytes(bytes: &[u8; RECORD_BYTES]) -> Self {
        let (prefix, rest) = bytes.split_first_chunk().unwrap_or((&[0; 20], &[]));
        let (pack, rest) = rest.split_first_chunk().unwrap_or((&[0; 4], &[]));
        let place = rest.first_chunk().copied().unwrap_or_default();
        Self {
            prefix: *prefix,
            pack: u32::from_le_bytes(*pack),
            place: u64::from_le_bytes(place),
        }
    }
}

/// Gives the records of a pack with ordinal `pack`.
pub(crate) fn records_of(pack: u32, frames: &[FrameEntry]) -> Vec<Record> {
    let mut records = Vec::new();
    for (number, frame) in (0_u16..).zip(frames) {
        let mut offset = 0;
        for chunk in &frame.chunks {
            let range = (offset, chunk.length);
            records.push(Record::new(prefix_of(&chunk.id), pack, number, range));
            offset += chunk.length;
        }
    }
    records
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_takes_32_bytes_and_gives_back_its_fields() {
        assert_eq!(size_of::<Record>(), RECORD_BYTES);
        let record = Record::new([1; 20], 7, 65_534, (0x80_0000, 0x7f_ffff));
        assert_eq!(
            (record.frame(), record.offset(), record.length()),
            (65_534, 0x80_0000, 0x7f_ffff)
        );
        assert_eq!(Record::from_bytes(&record.to_bytes()), record);
    }
}
