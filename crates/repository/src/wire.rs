//! Reading and writing the integers and byte strings of the format (`docs/format.md`, top).

use thiserror::Error;

/// Says which part of stored bytes does not follow the format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("stored bytes do not follow the format: {0}")]
pub struct FormatError(pub(crate) &'static str);

pub(crate) type Result<T> = std::result::Result<T, FormatError>;

/// Takes fields from the front of bytes that nobody vouches for.
#[derive(Debug, Clone)]
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    pub(crate) fn finish(self) -> Result<()> {
        if self.rest.is_empty() {
            Ok(())
        } else {
            Err(FormatError("bytes are left over"))
        }
    }

    pub(crate) fn slice(&mut self, length: usize) -> Result<&'a [u8]> {
        let (head, tail) = self
            .rest
            .split_at_checked(length)
            .ok_or(FormatError("it ends too soon"))?;
        self.rest = tail;
        Ok(head)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let (head, tail) = self
            .rest
            .split_first_chunk()
            .ok_or(FormatError("it ends too soon"))?;
        self.rest = tail;
        Ok(*head)
    }

    pub(crate) fn u8(&mut self) -> Result<u8> {
        self.array().map(|[byte]| byte)
    }

    pub(crate) fn u32(&mut self) -> Result<u32> {
        self.array().map(u32::from_le_bytes)
    }

    /// Reads a varint in its shortest form.
    pub(crate) fn varint(&mut self) -> Result<u64> {
        let mut number = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.u8()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                return Err(FormatError("a number is too large"));
            }
            number |= bits << shift;
            if byte & 0x80 == 0 {
                if byte == 0 && shift > 0 {
                    return Err(FormatError("a number is not in its shortest form"));
                }
                return Ok(number);
            }
        }
        Err(FormatError("a number is too large"))
    }

    /// Reads a varint that may not exceed `max`.
    pub(crate) fn count(&mut self, max: usize) -> Result<usize> {
        match usize::try_from(self.varint()?) {
            Ok(count) if count <= max => Ok(count),
            _ => Err(FormatError("a number is out of its bounds")),
        }
    }

    /// Reads a varint that may not exceed `max`.
    pub(crate) fn small(&mut self, max: u32) -> Result<u32> {
        match u32::try_from(self.varint()?) {
            Ok(number) if number <= max => Ok(number),
            _ => Err(FormatError("a number is out of its bounds")),
        }
    }

    pub(crate) fn zigzag(&mut self) -> Result<i64> {
        let coded = self.varint()?;
        let half = (coded >> 1).cast_signed();
        Ok(if coded & 1 == 0 { half } else { !half })
    }

    pub(crate) fn bytes(&mut self, max: usize) -> Result<&'a [u8]> {
        let length = self.count(max)?;
        self.slice(length)
    }
}

/// Appends fields.
pub(crate) trait Put {
    fn put_varint(&mut self, number: u64);
    fn put_zigzag(&mut self, number: i64);
    fn put_bytes(&mut self, bytes: &[u8]);
    fn put_count(&mut self, count: usize);
}

impl Put for Vec<u8> {
    fn put_varint(&mut self, mut number: u64) {
        loop {
            let [low, ..] = number.to_le_bytes();
            number >>= 7;
            if number == 0 {
                self.push(low & 0x7f);
                return;
            }
            self.push(low | 0x80);
        }
    }

    fn put_zigzag(&mut self, number: i64) {
        self.put_varint(((number << 1) ^ (number >> 63)).cast_unsigned());
    }

    fn put_bytes(&mut self, bytes: &[u8]) {
        self.put_count(bytes.len());
        self.extend_from_slice(bytes);
    }

    fn put_count(&mut self, count: usize) {
        self.put_varint(u64::try_from(count).unwrap_or(u64::MAX));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_the_shortest_form_of_a_number_is_taken() {
        assert!(Reader::new(&[0x80, 0]).varint().is_err());
        assert_eq!(Reader::new(&[0x80, 1]).varint(), Ok(128));
        assert!(Reader::new(&[0xff; 10]).varint().is_err());
        assert!(Reader::new(&[0xff; 3]).varint().is_err());
        assert!(Reader::new(&[5, 1, 2]).bytes(4).is_err());
    }

    proptest! {
        #[test]
        fn numbers_and_bytes_read_back(a in any::<u64>(), b in any::<i64>(), c in any::<Vec<u8>>()) {
            let mut out = Vec::new();
            out.put_varint(a);
            out.put_zigzag(b);
            out.put_bytes(&c);
            let mut reader = Reader::new(&out);
            prop_assert_eq!(reader.varint(), Ok(a));
            prop_assert_eq!(reader.zigzag(), Ok(b));
            prop_assert_eq!(reader.bytes(c.len()), Ok(&c[..]));
            prop_assert!(reader.finish().is_ok());
        }
    }
}
