//! Object stores in memory: plain, counting, and failing by script.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use edge::{ByteRange, ObjectInfo, ObjectName, ObjectStore, StoreError, StoreFault};

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A store in memory.
#[derive(Debug, Default)]
pub struct MemoryStore(Mutex<BTreeMap<ObjectName, Vec<u8>>>);

impl MemoryStore {
    /// Gives a copy of all objects.
    #[must_use]
    pub fn objects(&self) -> BTreeMap<ObjectName, Vec<u8>> {
        lock(&self.0).clone()
    }

    /// Replaces all objects.
    pub fn set_objects(&self, objects: BTreeMap<ObjectName, Vec<u8>>) {
        *lock(&self.0) = objects;
    }

    /// Gives the bytes of all objects together.
    #[must_use]
    pub fn total_bytes(&self) -> u64 {
        lock(&self.0).values().map(|bytes| bytes.len() as u64).sum()
    }

    /// Changes one byte of an object; false when there is no such byte.
    pub fn damage(&self, name: &ObjectName, at: usize) -> bool {
        let mut objects = lock(&self.0);
        let byte = objects.get_mut(name).and_then(|bytes| bytes.get_mut(at));
        byte.map(|byte| *byte ^= 0x5a).is_some()
    }
}

fn error(operation: &'static str, object: &dyn ToString, fault: StoreFault) -> StoreError {
    StoreError {
        operation,
        object: object.to_string(),
        store: "memory".to_owned(),
        fault,
        source: format!("{fault:?}").into(),
    }
}

impl ObjectStore for MemoryStore {
    fn describe(&self) -> String {
        "memory".to_owned()
    }

    fn put(&self, name: &ObjectName, bytes: &[u8]) -> Result<(), StoreError> {
        lock(&self.0).insert(name.clone(), bytes.to_vec());
        Ok(())
    }

    fn get(&self, name: &ObjectName, bytes_max: u64) -> Result<Vec<u8>, StoreError> {
        let objects = lock(&self.0);
        let bytes = objects
            .get(name)
            .ok_or_else(|| error("reading", name, StoreFault::NotFound))?;
        if bytes.len() as u64 > bytes_max {
            return Err(error("reading", name, StoreFault::Malformed));
        }
        Ok(bytes.clone())
    }

    fn get_range(&self, name: &ObjectName, range: ByteRange) -> Result<Vec<u8>, StoreError> {
        let objects = lock(&self.0);
        let bytes = objects
            .get(name)
            .ok_or_else(|| error("reading", name, StoreFault::NotFound))?;
        let size = bytes.len() as u64;
        let (start, end) = match range {
            ByteRange::At { offset, length } => (offset, offset.saturating_add(length).min(size)),
            ByteRange::Suffix { length } => (size.saturating_sub(length), size),
        };
        let part = usize::try_from(start).ok().zip(usize::try_from(end).ok());
        part.filter(|(start, end)| start < end)
            .and_then(|(start, end)| bytes.get(start..end))
            .map(<[u8]>::to_vec)
            .ok_or_else(|| error("reading", name, StoreFault::Malformed))
    }

    fn size(&self, name: &ObjectName) -> Result<Option<u64>, StoreError> {
        Ok(lock(&self.0).get(name).map(|bytes| bytes.len() as u64))
    }

    fn list(&self, prefix: &str, each: &mut dyn FnMut(ObjectInfo)) -> Result<(), StoreError> {
        // A place on a disk knows no other prefixes: who asks for one would find nothing there.
        assert!(
            prefix.is_empty() || prefix.ends_with('/'),
            "{prefix} is no folder"
        );
        let found: Vec<_> = lock(&self.0)
            .iter()
            .filter(|(name, _)| name.as_str().starts_with(prefix))
            .map(|(name, bytes)| ObjectInfo {
                name: name.clone(),
                size_bytes: bytes.len() as u64,
            })
            .collect();
        found.into_iter().for_each(each);
        Ok(())
    }

    fn delete(&self, name: &ObjectName) -> Result<(), StoreError> {
        lock(&self.0).remove(name);
        Ok(())
    }
}

/// How often each operation was asked for, and how many bytes went either way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Requests {
    /// Objects written.
    pub puts: u64,
    /// Objects read whole.
    pub gets: u64,
    /// Parts of objects read.
    pub ranges: u64,
    /// Lengths asked for.
    pub sizes: u64,
    /// Listings.
    pub lists: u64,
    /// Objects deleted.
    pub deletes: u64,
    /// Bytes written.
    pub bytes_written: u64,
    /// Bytes read.
    pub bytes_read: u64,
}

/// Counts what is asked of another store.
pub struct RecordingStore {
    inner: Arc<dyn ObjectStore>,
    requests: Mutex<Requests>,
}

impl RecordingStore {
    /// Wraps a store.
    #[must_use]
    pub fn new(inner: Arc<dyn ObjectStore>) -> Self {
        Self {
            inner,
            requests: Mutex::new(Requests::default()),
        }
    }

    /// Gives the counts since the last call, and starts anew.
    pub fn take_requests(&self) -> Requests {
        std::mem::take(&mut *lock(&self.requests))
    }
}

impl ObjectStore for RecordingStore {
    fn describe(&self) -> String {
        self.inner.describe()
    }

    fn put(&self, name: &ObjectName, bytes: &[u8]) -> Result<(), StoreError> {
        let mut requests = lock(&self.requests);
        requests.puts += 1;
        requests.bytes_written += bytes.len() as u64;
        drop(requests);
        self.inner.put(name, bytes)
    }

    fn get(&self, name: &ObjectName, bytes_max: u64) -> Result<Vec<u8>, StoreError> {
        let bytes = self.inner.get(name, bytes_max);
        let mut requests = lock(&self.requests);
        requests.gets += 1;
        requests.bytes_read += bytes.as_ref().map_or(0, |bytes| bytes.len() as u64);
        bytes
    }

    fn get_range(&self, name: &ObjectName, range: ByteRange) -> Result<Vec<u8>, StoreError> {
        let bytes = self.inner.get_range(name, range);
        let mut requests = lock(&self.requests);
        requests.ranges += 1;
        requests.bytes_read += bytes.as_ref().map_or(0, |bytes| bytes.len() as u64);
        bytes
    }

    fn size(&self, name: &ObjectName) -> Result<Option<u64>, StoreError> {
        lock(&self.requests).sizes += 1;
        self.inner.size(name)
    }

    fn list(&self, prefix: &str, each: &mut dyn FnMut(ObjectInfo)) -> Result<(), StoreError> {
        lock(&self.requests).lists += 1;
        self.inner.list(prefix, each)
    }

    fn delete(&self, name: &ObjectName) -> Result<(), StoreError> {
        lock(&self.requests).deletes += 1;
        self.inner.delete(name)
    }
}

/// What a faulty store does from some operation on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Every operation from number `at` on fails, as if the machine were cut off.
    CutAt {
        /// Number of the first operation that fails, from 0.
        at: u64,
    },
    /// Every operation fails once so many bytes were written, as if the machine were cut off.
    CutAfterBytes {
        /// Bytes that are still written.
        written: u64,
    },
    /// Only operation number `at` fails, with this fault.
    Once {
        /// Number of the operation that fails, from 0.
        at: u64,
        /// How.
        fault: StoreFault,
    },
    /// Every write from operation number `at` on fails, with this fault.
    WritesFrom {
        /// Number of the first operation that may fail, from 0.
        at: u64,
        /// How.
        fault: StoreFault,
    },
}

/// Fails by script, and knows whether it did.
pub struct FaultyStore {
    inner: Arc<dyn ObjectStore>,
    fault: Fault,
    operations: AtomicU64,
    written: AtomicU64,
    hits: AtomicU64,
}

impl FaultyStore {
    /// Wraps a store.
    #[must_use]
    pub const fn new(inner: Arc<dyn ObjectStore>, fault: Fault) -> Self {
        Self {
            inner,
            fault,
            operations: AtomicU64::new(0),
            written: AtomicU64::new(0),
            hits: AtomicU64::new(0),
        }
    }

    /// Gives how often the fault was met.
    #[must_use]
    pub fn hits(&self) -> u64 {
        self.hits.load(Ordering::SeqCst)
    }

    /// Gives how many operations were asked for.
    #[must_use]
    pub fn operations(&self) -> u64 {
        self.operations.load(Ordering::SeqCst)
    }

    fn step(
        &self,
        operation: &'static str,
        object: &dyn ToString,
        is_write: bool,
    ) -> Result<(), StoreError> {
        let number = self.operations.fetch_add(1, Ordering::SeqCst);
        let fault = match self.fault {
            Fault::CutAt { at } if number >= at => StoreFault::Unreachable,
            Fault::CutAfterBytes { written } if self.written.load(Ordering::SeqCst) >= written => {
                StoreFault::Unreachable
            }
            Fault::Once { at, fault } if number == at => fault,
            Fault::WritesFrom { at, fault } if is_write && number >= at => fault,
            _ => return Ok(()),
        };
        self.hits.fetch_add(1, Ordering::SeqCst);
        Err(error(operation, object, fault))
    }
}

impl ObjectStore for FaultyStore {
    fn describe(&self) -> String {
        self.inner.describe()
    }

    fn put(&self, name: &ObjectName, bytes: &[u8]) -> Result<(), StoreError> {
        self.step("writing", name, true)?;
        self.inner.put(name, bytes)?;
        self.written.fetch_add(bytes.len() as u64, Ordering::SeqCst);
        Ok(())
    }

    fn get(&self, name: &ObjectName, bytes_max: u64) -> Result<Vec<u8>, StoreError> {
        self.step("reading", name, false)?;
        self.inner.get(name, bytes_max)
    }

    fn get_range(&self, name: &ObjectName, range: ByteRange) -> Result<Vec<u8>, StoreError> {
        self.step("reading", name, false)?;
        self.inner.get_range(name, range)
    }

    fn size(&self, name: &ObjectName) -> Result<Option<u64>, StoreError> {
        self.step("reading", name, false)?;
        self.inner.size(name)
    }

    fn list(&self, prefix: &str, each: &mut dyn FnMut(ObjectInfo)) -> Result<(), StoreError> {
        self.step("listing", &prefix, false)?;
        self.inner.list(prefix, each)
    }

    fn delete(&self, name: &ObjectName) -> Result<(), StoreError> {
        self.step("deleting", name, true)?;
        self.inner.delete(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_memory_store_keeps_the_contract() {
        crate::object_store_conformance(&MemoryStore::default());
    }

    #[test]
    fn scripted_faults_are_met_and_counted() {
        let memory = Arc::new(MemoryStore::default());
        let name = ObjectName::new("a").unwrap();
        let cut = FaultyStore::new(memory.clone(), Fault::CutAt { at: 1 });
        assert!(cut.put(&name, b"x").is_ok());
        assert!(cut.put(&name, b"y").is_err() && cut.size(&name).is_err());
        assert_eq!((cut.hits(), cut.operations()), (2, 3));
        let full = Fault::WritesFrom {
            at: 0,
            fault: StoreFault::Full,
        };
        let full = FaultyStore::new(memory.clone(), full);
        assert_eq!(full.get(&name, 9).unwrap(), b"x");
        assert_eq!(full.put(&name, b"z").unwrap_err().fault, StoreFault::Full);
        let recording = RecordingStore::new(memory);
        drop(recording.get(&name, 9));
        assert_eq!(recording.take_requests().bytes_read, 1);
    }
}
