//! Objects of sealed parts, the common shape of packs and index segments
//! (`docs/format.md`, "Sealed objects", suite 1).

use sealing::{
    HEADER_BYTES, Keyring, ObjectCipher, ObjectError, ObjectKind, PART_OVERHEAD_BYTES, TRAILER_PART,
};

use crate::layout::ObjectHash;

/// How much of an object's end is read at first: header and trailer of most objects.
pub(crate) const TAIL_BYTES_FIRST: u64 = 64 * 1024;

const LENGTH_BYTES: usize = 4;
const TRAILER_BYTES_MAX: usize = 16 * 1024 * 1024;

/// An object ready to be stored.
pub(crate) struct Stored {
    pub(crate) hash: ObjectHash,
    pub(crate) bytes: Vec<u8>,
    /// Length of trailer, its length field and the second header.
    pub(crate) tail_bytes: usize,
}

/// Builds an object part by part.
pub(crate) struct PartsWriter {
    cipher: ObjectCipher,
    bytes: Vec<u8>,
    parts: u32,
}

impl PartsWriter {
    pub(crate) fn new(
        keyring: &Keyring,
        kind: ObjectKind,
        salt: &[u8; 32],
    ) -> Result<Self, ObjectError> {
        Self::within(keyring, kind, salt, Vec::new())
    }

    /// Begins an object in an empty buffer.
    pub(crate) fn within(
        keyring: &Keyring,
        kind: ObjectKind,
        salt: &[u8; 32],
        mut bytes: Vec<u8>,
    ) -> Result<Self, ObjectError> {
        let cipher = ObjectCipher::create(keyring, kind, salt)?;
        bytes.extend_from_slice(cipher.header());
        Ok(Self {
            cipher,
            bytes,
            parts: 0,
        })
    }

    pub(crate) const fn cipher(&self) -> &ObjectCipher {
        &self.cipher
    }

    /// Gives the cipher, and header and parts as they would be stored.
    pub(crate) fn into_sealed(self) -> (ObjectCipher, Vec<u8>) {
        (self.cipher, self.bytes)
    }

    pub(crate) const fn stored_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Gives the length that the object would have with `more` bytes of parts, and a trailer of
    /// `trailer` bytes of plaintext.
    pub(crate) const fn length_with(&self, more: usize, trailer: usize) -> usize {
        let tail_bytes = trailer + PART_OVERHEAD_BYTES + LENGTH_BYTES + HEADER_BYTES;
        padme(self.bytes.len() + more + tail_bytes)
    }

    /// Seals a part in place and appends it; gives its stored length.
    pub(crate) fn push(&mut self, part: &mut Vec<u8>) -> Result<usize, ObjectError> {
        self.cipher.seal_part(self.parts, part)?;
        self.parts += 1;
        self.bytes.extend_from_slice(part);
        Ok(part.len())
    }

    /// Adds filler, trailer and second header.
    pub(crate) fn finish(mut self, mut trailer: Vec<u8>) -> Result<Stored, ObjectError> {
        self.cipher.seal_part(TRAILER_PART, &mut trailer)?;
        if trailer.len() > TRAILER_BYTES_MAX {
            return Err(ObjectError::Damaged);
        }
        let length = u32::try_from(trailer.len()).map_err(|_| ObjectError::Damaged)?;
        let tail_bytes = trailer.len() + LENGTH_BYTES + HEADER_BYTES;
        let body = self.bytes.len();
        let filled = padme(body + tail_bytes) - tail_bytes;
        // A buffer that has room keeps its place.
        self.bytes.resize(filled, 0);
        self.cipher
            .fill(self.bytes.get_mut(body..).unwrap_or_default());
        self.bytes.append(&mut trailer);
        self.bytes.extend_from_slice(&length.to_le_bytes());
        self.bytes.extend_from_slice(self.cipher.header());
        Ok(Stored {
            hash: ObjectHash::of(&self.bytes),
            bytes: self.bytes,
            tail_bytes,
        })
    }
}

/// What the end of an object says.
pub(crate) enum Tail {
    /// The opened trailer.
    Trailer {
        cipher: ObjectCipher,
        trailer: Vec<u8>,
    },
    /// The trailer is longer than what was read: read this many bytes of the end.
    Longer(u64),
}

/// Opens the end of an object: the last bytes of it, or all.
pub(crate) fn open_tail(
    keyring: &Keyring,
    kind: ObjectKind,
    end: &[u8],
) -> Result<Tail, ObjectError> {
    let (rest, header) = end.split_last_chunk().ok_or(ObjectError::TooShort)?;
    let cipher = ObjectCipher::open(keyring, kind, header)?;
    let (rest, length) = rest.split_last_chunk().ok_or(ObjectError::TooShort)?;
    let length = usize::try_from(u32::from_le_bytes(*length)).unwrap_or(usize::MAX);
    if !(PART_OVERHEAD_BYTES..=TRAILER_BYTES_MAX).contains(&length) {
        return Err(ObjectError::Damaged);
    }
    let tail_bytes = length + LENGTH_BYTES + HEADER_BYTES;
    let Some(start) = rest.len().checked_sub(length) else {
        return Ok(Tail::Longer(tail_bytes as u64));
    };
    let mut trailer = rest.get(start..).unwrap_or_default().to_vec();
    cipher.open_part(TRAILER_PART, &mut trailer)?;
    Ok(Tail::Trailer { cipher, trailer })
}

/// Gives the Padmé length for `length`: at most 12 % more, and one of few lengths.
const fn padme(length: usize) -> usize {
    if length < 2 {
        return length;
    }
    let exponent = length.ilog2();
    let keep = exponent.ilog2() + 1;
    let mask = (1_usize << (exponent - keep)) - 1;
    (length + mask) & !mask
}

#[cfg(test)]
mod tests {
    use sealing::ScheduleKey;

    use super::*;

    #[test]
    fn padded_lengths_are_few_and_close() {
        assert_eq!(padme(9), 10);
        assert_eq!(padme(1_000_000), 1_015_808);
        for length in 8..100_000 {
            let padded = padme(length);
            assert!(padded >= length && padded * 100 <= length * 112);
            assert_eq!(padme(padded), padded);
        }
    }

    #[test]
    fn the_end_of_an_object_tells_all() {
        let keyring = Keyring::first(&ScheduleKey::from_bytes([1; 32]), "");
        let kind = ObjectKind::IndexSegment;
        let mut writer = PartsWriter::new(&keyring, kind, &[2; 32]).unwrap();
        assert_eq!(writer.push(&mut b"part".to_vec()).unwrap(), 20);
        let stored = writer.finish(vec![7; 1000]).unwrap();
        let end = &stored.bytes[stored.bytes.len() - 500..];
        assert!(matches!(
            open_tail(&keyring, kind, end).unwrap(),
            Tail::Longer(1116)
        ));
        let end = &stored.bytes[stored.bytes.len() - 1116..];
        let Tail::Trailer { trailer, .. } = open_tail(&keyring, kind, end).unwrap() else {
            panic!("the trailer is there");
        };
        assert_eq!(trailer, vec![7; 1000]);
        for length in 0..stored.bytes.len() {
            drop(open_tail(&keyring, kind, &stored.bytes[..length]));
        }
    }
}
