//! A tree that needs no disk: what an entry is follows from its number.

use std::io;
use std::sync::Arc;

use edge::{
    Content, ContentEnd, Entry, EntryKind, Extent, FileTime, Owner, Source, SourceError,
    SourceItem, TreePath,
};

/// How large the tree is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shape {
    pub(crate) count: u64,
    pub(crate) per_directory: u64,
    /// Every file of so many is newer than in a shape without a value.
    pub(crate) changed: Option<u64>,
}

/// Longer than what is kept in a page, so that every file is a chunk.
const BYTES_MIN: u64 = 257;
const BYTES_SPREAD: u64 = 128;
const LONG_AGO_SECS: i64 = 1_600_000_000;

pub(crate) struct Synthetic {
    shape: Shape,
    owner: Arc<Owner>,
    /// Directories come first, being the entries of the root.
    next_directory: u64,
    next_file: u64,
}

/// Gives the path of a file.
pub(crate) fn name(number: u64, per_directory: u64) -> String {
    format!("d{:07}/post-{number:09}.html", number / per_directory)
}

impl Synthetic {
    pub(crate) fn new(shape: Shape) -> Self {
        Self {
            shape,
            owner: Arc::new(Owner {
                uid: 1000,
                gid: 1000,
                user: b"acme".to_vec(),
                group: b"acme".to_vec(),
            }),
            next_directory: 0,
            next_file: 0,
        }
    }

    fn entry(&self, path: &str, kind: EntryKind, number: u64) -> Result<Entry, SourceError> {
        let path = TreePath::parse(path.as_bytes()).map_err(|error| SourceError {
            operation: "naming",
            object: path.to_owned(),
            class: model::ErrorClass::Never,
            source: Box::new(error),
        })?;
        let time = FileTime {
            secs: LONG_AGO_SECS + i64::try_from(number % 10_000_000).unwrap_or(0),
            nanos: u32::try_from(number % 999_999_937).unwrap_or(0),
        };
        Ok(Entry {
            path,
            kind,
            mode: 0o644,
            owner: Arc::clone(&self.owner),
            modified: time,
            changed: time,
            size_bytes: 0,
            inode: number + 2,
            device: 1,
            link_count: 1,
            xattrs: Vec::new(),
        })
    }

    fn file(&self, number: u64) -> Result<SourceItem, SourceError> {
        let path = name(number, self.shape.per_directory);
        let mut entry = self.entry(&path, EntryKind::File, number)?;
        let is_changed = self
            .shape
            .changed
            .is_some_and(|every| number.is_multiple_of(every));
        entry.size_bytes = BYTES_MIN + number % BYTES_SPREAD;
        entry.modified.secs += i64::from(is_changed);
        let opened = entry.clone();
        let opener = move || {
            let content: Box<dyn Content> = Box::new(Text {
                state: (number << 1 | u64::from(is_changed)).wrapping_mul(0x9e37_79b9_7f4a_7c15)
                    | 1,
                left: opened.size_bytes,
            });
            Ok((opened.clone(), content))
        };
        Ok(SourceItem::Entry(entry, Some(Box::new(opener))))
    }
}

impl Source for Synthetic {
    fn next(&mut self) -> Result<Option<SourceItem>, SourceError> {
        if self.next_directory * self.shape.per_directory < self.shape.count {
            let number = self.next_directory;
            self.next_directory += 1;
            let path = format!("d{number:07}");
            let entry = self.entry(&path, EntryKind::Directory, number)?;
            return Ok(Some(SourceItem::Entry(entry, None)));
        }
        if self.next_file == self.shape.count {
            return Ok(None);
        }
        let number = self.next_file;
        self.next_file += 1;
        self.file(number).map(Some)
    }
}

/// Hexadecimal digits of a random sequence: no two files alike, and each half as long compressed.
struct Text {
    state: u64,
    left: u64,
}

impl Content for Text {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut length = 0;
        for byte in buffer {
            if self.left == 0 {
                break;
            }
            self.state ^= self.state << 13;
            self.state ^= self.state >> 7;
            self.state ^= self.state << 17;
            let digit = usize::try_from(self.state >> 40 & 15).unwrap_or(0);
            *byte = b"0123456789abcdef".get(digit).copied().unwrap_or(b'0');
            self.left -= 1;
            length += 1;
        }
        Ok(length)
    }

    fn extents(&self) -> Option<Vec<Extent>> {
        None
    }

    fn finish(self: Box<Self>) -> Result<ContentEnd, SourceError> {
        Ok(ContentEnd::Steady)
    }
}
