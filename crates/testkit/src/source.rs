//! A source that a test describes entry by entry.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use edge::{
    Content, ContentEnd, Entry, EntryKind, Extent, FileTime, Opener, Owner, Source, SourceError,
    SourceItem, TreePath,
};
use model::ErrorClass;

/// One entry of a scripted tree.
#[derive(Debug, Clone)]
pub struct FileSpec {
    /// The entry. For files and streams, `size_bytes` is set from the data unless it has holes.
    pub entry: Entry,
    /// Content: data only, without holes.
    pub data: Arc<Vec<u8>>,
    /// Where the data is in the file, when it has holes.
    pub extents: Option<Vec<Extent>>,
    /// How often reading says that the file changed.
    pub changes: u64,
    /// Fails when it is opened, with this text.
    pub open_error: Option<&'static str>,
    /// Fails after this many bytes were read.
    pub read_error_after: Option<usize>,
    /// Fails when reading has ended, as a dump whose program failed.
    pub finish_error: Option<&'static str>,
}

/// Where a scripted entry without times of its own stands: well before any test's walk.
const LONG_AGO: FileTime = FileTime {
    secs: 1_000_000,
    nanos: 123_456_789,
};

impl FileSpec {
    /// An entry without content.
    #[must_use]
    pub fn plain(path: TreePath, kind: EntryKind) -> Self {
        let entry = Entry {
            path,
            kind,
            mode: 0o644,
            owner: Arc::new(Owner {
                uid: 1000,
                gid: 1000,
                user: b"acme".to_vec(),
                group: b"acme".to_vec(),
            }),
            modified: LONG_AGO,
            changed: LONG_AGO,
            size_bytes: 0,
            inode: 0,
            device: 1,
            link_count: 1,
            xattrs: Vec::new(),
        };
        Self {
            entry,
            data: Arc::default(),
            extents: None,
            changes: 0,
            open_error: None,
            read_error_after: None,
            finish_error: None,
        }
    }

    /// A regular file.
    #[must_use]
    pub fn file(path: TreePath, data: impl Into<Vec<u8>>) -> Self {
        let mut spec = Self::plain(path, EntryKind::File);
        spec.data = Arc::new(data.into());
        spec.entry.size_bytes = spec.data.len() as u64;
        spec
    }

    /// A stream.
    #[must_use]
    pub fn stream(path: TreePath, data: impl Into<Vec<u8>>) -> Self {
        let mut spec = Self::file(path, data);
        spec.entry.kind = EntryKind::Stream;
        spec.entry.size_bytes = 0;
        spec
    }
}

/// A tree that a test builds and changes, and walks as often as it likes.
#[derive(Debug, Clone, Default)]
pub struct TreeSource {
    specs: BTreeMap<TreePath, FileSpec>,
    opened: Arc<AtomicU64>,
    next_inode: u64,
}

impl TreeSource {
    /// Adds or replaces an entry, and adds the directories above it. It gets an inode of its own
    /// unless it has one.
    pub fn add(&mut self, mut spec: FileSpec) {
        let above = spec.entry.path.parent();
        if let Some(above) = above.filter(|above| above.name().is_some())
            && !self.specs.contains_key(&above)
        {
            self.add(FileSpec::plain(above, EntryKind::Directory));
        }
        if spec.entry.inode == 0 {
            self.next_inode += 1;
            spec.entry.inode = self.next_inode;
        }
        self.specs.insert(spec.entry.path.clone(), spec);
    }

    /// Adds a regular file at a path divided by `/`.
    ///
    /// # Panics
    ///
    /// When the path is none.
    #[expect(clippy::expect_used, reason = "a test's own path")]
    pub fn add_file(&mut self, path: &str, data: impl Into<Vec<u8>>) {
        let path = TreePath::parse(path.as_bytes()).expect("a path");
        self.add(FileSpec::file(path, data));
    }

    /// Removes an entry and everything below it.
    pub fn remove(&mut self, path: &TreePath) {
        self.specs.retain(|held, _| !held.is_within(path));
    }

    /// Gives an entry to be changed.
    pub fn get_mut(&mut self, path: &TreePath) -> Option<&mut FileSpec> {
        self.specs.get_mut(path)
    }

    /// Gives all entries in order.
    #[must_use]
    pub const fn specs(&self) -> &BTreeMap<TreePath, FileSpec> {
        &self.specs
    }

    /// Gives how often content was opened since the last call.
    pub fn take_opened(&self) -> u64 {
        self.opened.swap(0, Ordering::SeqCst)
    }

    /// Begins a walk.
    #[must_use]
    pub fn walk(&self) -> impl Source + use<> {
        let specs: Vec<_> = self.specs.values().cloned().collect();
        Walk {
            specs: specs.into_iter(),
            opened: self.opened.clone(),
        }
    }
}

struct Walk {
    specs: std::vec::IntoIter<FileSpec>,
    opened: Arc<AtomicU64>,
}

impl Source for Walk {
    fn next(&mut self) -> Result<Option<SourceItem>, SourceError> {
        let Some(spec) = self.specs.next() else {
            return Ok(None);
        };
        let entry = spec.entry.clone();
        let has_content = matches!(entry.kind, EntryKind::File | EntryKind::Stream);
        let opened = self.opened.clone();
        let opener = has_content.then(|| opener(spec, opened));
        Ok(Some(SourceItem::Entry(entry, opener)))
    }
}

fn source_error(operation: &'static str, spec: &FileSpec, text: &str) -> SourceError {
    SourceError {
        operation,
        object: spec.entry.path.to_string(),
        class: ErrorClass::Never,
        source: text.into(),
    }
}

fn opener(spec: FileSpec, opened: Arc<AtomicU64>) -> Opener {
    let mut times = 0;
    Box::new(move || {
        opened.fetch_add(1, Ordering::SeqCst);
        times += 1;
        if let Some(text) = spec.open_error {
            return Err(source_error("opening", &spec, text));
        }
        let content = Reading {
            spec: spec.clone(),
            at: 0,
            is_changed: times <= spec.changes,
        };
        Ok((spec.entry.clone(), Box::new(content) as Box<dyn Content>))
    })
}

struct Reading {
    spec: FileSpec,
    at: usize,
    is_changed: bool,
}

impl Content for Reading {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self
            .spec
            .read_error_after
            .is_some_and(|bytes| self.at >= bytes)
        {
            return Err(io::Error::other("input/output error"));
        }
        let rest = self.spec.data.get(self.at..).unwrap_or_default();
        // Odd and short reads, as pipes give them.
        let count = rest.len().min(buffer.len()).min(65_521);
        buffer
            .iter_mut()
            .zip(rest.iter().take(count))
            .for_each(|(to, from)| *to = *from);
        self.at += count;
        Ok(count)
    }

    fn extents(&self) -> Option<Vec<Extent>> {
        self.spec.extents.clone()
    }

    fn finish(self: Box<Self>) -> Result<ContentEnd, SourceError> {
        if let Some(text) = self.spec.finish_error {
            return Err(source_error("reading", &self.spec, text));
        }
        Ok(if self.is_changed {
            ContentEnd::Changed
        } else {
            ContentEnd::Steady
        })
    }
}
