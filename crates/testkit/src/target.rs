//! A target that keeps in memory what is restored into it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use edge::{Entry, EntryKind, Extent, FileSink, Target, TargetError, TreePath};

use crate::store::lock;

/// One restored entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Collected {
    /// The entry as the restore gave it.
    pub entry: Entry,
    /// Content with holes filled by zeros; empty for what has none.
    pub bytes: Vec<u8>,
    /// Where data was written, when the file has holes.
    pub extents: Option<Vec<Extent>>,
    /// The first name, when this is a further name of it.
    pub link_to: Option<TreePath>,
}

/// Collects restored entries, and checks that the restore keeps the order it promises.
#[derive(Debug, Default)]
pub struct CollectingTarget {
    collected: Arc<Mutex<BTreeMap<TreePath, Collected>>>,
    /// Entries at these paths fail.
    pub refused: BTreeSet<TreePath>,
}

impl CollectingTarget {
    /// Gives what was restored.
    #[must_use]
    pub fn collected(&self) -> BTreeMap<TreePath, Collected> {
        lock(&self.collected).clone()
    }

    fn check(&self, entry: &Entry) -> Result<(), TargetError> {
        if self.refused.contains(&entry.path) {
            return Err(error(entry, "refused"));
        }
        let collected = lock(&self.collected);
        let above = entry.path.parent().unwrap_or_default();
        let has_parent = above == TreePath::root()
            || collected
                .get(&above)
                .is_some_and(|above| above.entry.kind == EntryKind::Directory);
        if has_parent {
            Ok(())
        } else {
            Err(error(entry, "its directory is not there"))
        }
    }

    fn keep(&self, collected: Collected) {
        lock(&self.collected).insert(collected.entry.path.clone(), collected);
    }
}

fn error(entry: &Entry, text: &str) -> TargetError {
    TargetError {
        operation: "creating",
        object: entry.path.to_string(),
        source: text.into(),
    }
}

impl Target for CollectingTarget {
    fn create(&self, entry: &Entry) -> Result<(), TargetError> {
        self.check(entry)?;
        self.keep(Collected {
            entry: entry.clone(),
            bytes: Vec::new(),
            extents: None,
            link_to: None,
        });
        Ok(())
    }

    fn open(
        &self,
        entry: &Entry,
        extents: Option<&[Extent]>,
    ) -> Result<Box<dyn FileSink>, TargetError> {
        self.check(entry)?;
        let length = usize::try_from(entry.size_bytes).map_err(|_| error(entry, "too large"))?;
        Ok(Box::new(Sink {
            collected: self.collected.clone(),
            file: Mutex::new(Collected {
                entry: entry.clone(),
                bytes: vec![0; length],
                extents: extents.map(<[Extent]>::to_vec),
                link_to: None,
            }),
            end: AtomicU64::new(0),
        }))
    }

    fn link(&self, entry: &Entry, first: &TreePath) -> Result<(), TargetError> {
        self.check(entry)?;
        let original = lock(&self.collected).get(first).cloned();
        let original = original.ok_or_else(|| error(entry, "its first name is not there"))?;
        self.keep(Collected {
            entry: entry.clone(),
            link_to: Some(first.clone()),
            ..original
        });
        Ok(())
    }

    fn finish(&mut self) -> Vec<TargetError> {
        Vec::new()
    }
}

struct Sink {
    collected: Arc<Mutex<BTreeMap<TreePath, Collected>>>,
    file: Mutex<Collected>,
    end: AtomicU64,
}

impl FileSink for Sink {
    fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<(), TargetError> {
        let mut file = lock(&self.file);
        let entry = file.entry.clone();
        let end = self
            .end
            .swap(offset + bytes.len() as u64, Ordering::Relaxed);
        if entry.kind == EntryKind::Stream && offset != end {
            return Err(error(&entry, "a stream is written in order"));
        }
        let start = usize::try_from(offset).map_err(|_| error(&entry, "too far"))?;
        match file.bytes.get_mut(start..start + bytes.len()) {
            Some(place) => {
                place.copy_from_slice(bytes);
                Ok(())
            }
            None => Err(error(&entry, "written behind its end")),
        }
    }

    fn finish(self: Box<Self>) -> Result<(), TargetError> {
        let file = self
            .file
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner);
        lock(&self.collected).insert(file.entry.path.clone(), file);
        Ok(())
    }
}
