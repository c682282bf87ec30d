//! The object store: the one interface that a destination offers to the engine.
//!
//! A store holds named, immutable byte strings. Everything that it sees is sealed.

use std::fmt;

use model::ErrorClass;
use thiserror::Error;

/// The name of an object: components of `[a-z0-9._-]`, divided by `/`, never `.` or `..`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectName(String);

/// Says that a text is not an object name.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0:?} is not an object name")]
pub struct ObjectNameError(String);

impl ObjectName {
    /// The longest name, in bytes. SFTP, S3 and every file system take more.
    pub const BYTES_MAX: usize = 255;

    /// Checks and takes a name.
    ///
    /// # Errors
    ///
    /// `ObjectNameError` when a component is empty, `.`, `..` or holds another character; names
    /// come from our own code or from a listing, so a caller skips such a listed object.
    pub fn new(text: impl Into<String>) -> Result<Self, ObjectNameError> {
        let text = text.into();
        let plain =
            |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'_' | b'-');
        let fits = text.len() <= Self::BYTES_MAX
            && text.split('/').all(|part| {
                !part.is_empty() && part != "." && part != ".." && part.bytes().all(plain)
            });
        if fits {
            Ok(Self(text))
        } else {
            Err(ObjectNameError(text))
        }
    }

    /// Gives the name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Which bytes of an object to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ByteRange {
    /// `length` bytes from `offset`; fewer only when the object ends before.
    At {
        /// Position of the first byte.
        offset: u64,
        /// Number of bytes, at least 1.
        length: u64,
    },
    /// The last `length` bytes, or the whole object when it is shorter.
    Suffix {
        /// Number of bytes, at least 1.
        length: u64,
    },
}

/// One row of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectInfo {
    /// The object's name.
    pub name: ObjectName,
    /// Its length in bytes.
    pub size_bytes: u64,
}

/// What went wrong in a store, in the terms that the engine acts on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StoreFault {
    /// There is no such object.
    NotFound,
    /// The store refused the credential or the right.
    Denied,
    /// No connection, time-out, or the store says that it is unwell.
    Unreachable,
    /// No space or no quota left.
    Full,
    /// The object is larger than the caller's limit, or the answer makes no sense.
    Malformed,
    /// Anything else; never worth an immediate retry.
    Other,
}

/// Says which operation on which object failed, where, and why.
#[derive(Debug, Error)]
#[error("{operation} {object} at {store}")]
pub struct StoreError {
    /// What was being done: `writing`, `reading`, `listing`, `deleting`.
    pub operation: &'static str,
    /// Which object or prefix.
    pub object: String,
    /// Where, as [`ObjectStore::describe`] says it.
    pub store: String,
    /// The kind of fault.
    pub fault: StoreFault,
    /// The cause.
    #[source]
    pub source: Box<dyn std::error::Error + Send + Sync>,
}

impl StoreError {
    /// Says what a caller should do about it.
    #[must_use]
    pub const fn class(&self) -> ErrorClass {
        match self.fault {
            StoreFault::Unreachable | StoreFault::Full => ErrorClass::RetryLater,
            StoreFault::NotFound
            | StoreFault::Denied
            | StoreFault::Malformed
            | StoreFault::Other => ErrorClass::Never,
        }
    }
}

/// A place that holds sealed objects. Implementations retry short disturbances themselves.
pub trait ObjectStore: Send + Sync {
    /// Names the place for messages, without any secret: `/srv/backups`, `s3://bucket/path`.
    fn describe(&self) -> String;

    /// Stores an object whole. On return it is durable and visible to every later call; after a
    /// crash it is either absent or whole. Storing the same bytes under the same name again is
    /// allowed and changes nothing.
    ///
    /// # Errors
    ///
    /// `StoreError`; nothing is visible under `name` then, unless it was there before.
    fn put(&self, name: &ObjectName, bytes: &[u8]) -> Result<(), StoreError>;

    /// Reads an object whole.
    ///
    /// # Errors
    ///
    /// `StoreError`; `Malformed` when it is longer than `bytes_max`.
    fn get(&self, name: &ObjectName, bytes_max: u64) -> Result<Vec<u8>, StoreError>;

    /// As [`Self::get`], in place of what a buffer holds. Whoever reads much saves fresh memory for each
    /// object, if the store can use the buffer.
    ///
    /// # Errors
    ///
    /// As [`Self::get`]; the buffer holds anything then.
    fn get_into(
        &self,
        name: &ObjectName,
        bytes_max: u64,
        buffer: &mut Vec<u8>,
    ) -> Result<(), StoreError> {
        *buffer = self.get(name, bytes_max)?;
        Ok(())
    }

    /// Reads a part of an object.
    ///
    /// # Errors
    ///
    /// `StoreError`; a range that begins behind the end is `Malformed`.
    fn get_range(&self, name: &ObjectName, range: ByteRange) -> Result<Vec<u8>, StoreError>;

    /// As [`Self::get_range`], in place of what a buffer holds.
    ///
    /// # Errors
    ///
    /// As [`Self::get_range`]; the buffer holds anything then.
    fn get_range_into(
        &self,
        name: &ObjectName,
        range: ByteRange,
        buffer: &mut Vec<u8>,
    ) -> Result<(), StoreError> {
        *buffer = self.get_range(name, range)?;
        Ok(())
    }

    /// Tells an object's length, or `None` when there is none of that name.
    ///
    /// # Errors
    ///
    /// `StoreError` when the store cannot tell.
    fn size(&self, name: &ObjectName) -> Result<Option<u64>, StoreError>;

    /// Calls `each` for every object whose name starts with `prefix` (whole components followed by
    /// `/`, or empty for all), in no particular order. Names that are not object names, such as
    /// temporary files, are left out.
    ///
    /// # Errors
    ///
    /// `StoreError`; `each` may have seen a part of the listing by then. A prefix that holds
    /// nothing is an empty listing, not an error.
    fn list(&self, prefix: &str, each: &mut dyn FnMut(ObjectInfo)) -> Result<(), StoreError>;

    /// Deletes an object; deleting what is not there succeeds.
    ///
    /// # Errors
    ///
    /// `StoreError`; the object is then still there or gone, never half.
    fn delete(&self, name: &ObjectName) -> Result<(), StoreError>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn object_names_stay_inside_their_store() {
        for good in ["a", "d/00ff/p/ab.pack", "k/slot-1"] {
            assert!(ObjectName::new(good).is_ok(), "{good}");
        }
        for bad in ["", "/a", "a/", "a//b", "..", "a/../b", "A", "a b", "a\0"] {
            assert!(ObjectName::new(bad).is_err(), "{bad:?}");
        }
    }
}
