//! Reading one file or stream: open, cut, name, compare afterwards, try again.

use std::io;

use edge::{ContentEnd, Entry, EntryKind, Opener};
use model::{ByteCount, ErrorClass};
use sealing::ChunkKind;

use super::super::pipeline::Side;
use super::{Fresh, Session, Stopped};
use crate::chunker::{Class, Scan};
use crate::content::{Bytes, Content, INLINE_BYTES_MAX, Node, check_extents};
use crate::error::chain;

/// What is read at a time: it is still near the processor when it is cut and named, and a file that
/// is one chunk comes with its end at once.
const STEP_BYTES: usize = 256 * 1024;
/// What a buffer holds at first.
const WINDOW_BYTES: usize = 1024 * 1024;
/// How often a file that changes while it is read is opened.
const ATTEMPTS_MAX: usize = 3;

/// How one attempt ended.
enum Attempt {
    Steady(Node),
    Changed(Option<Node>),
}

/// Why an attempt gave nothing.
enum ReadFailure {
    Stopped,
    Failed { error: String, class: ErrorClass },
}

impl ReadFailure {
    fn of(entry: &Entry, error: &io::Error) -> Self {
        Self::Failed {
            error: format!("reading {}: {}", entry.path, chain(error)),
            class: ErrorClass::Never,
        }
    }
}

impl From<Stopped> for ReadFailure {
    fn from(_: Stopped) -> Self {
        Self::Stopped
    }
}

impl Session<'_, '_> {
    /// Reads a file or stream; `None` when it failed, which is then recorded.
    pub(super) fn read(
        &mut self,
        entry: Entry,
        opener: Option<Opener>,
    ) -> Result<Option<Node>, Stopped> {
        let shown = || entry.path.to_string();
        let Some(mut opener) = opener else {
            let error = "the source gives no way to its content".to_owned();
            self.failed(shown(), error, ErrorClass::Never);
            return Ok(None);
        };
        let mut last = None;
        for _ in 0..ATTEMPTS_MAX {
            match self.attempt(&entry, &mut opener) {
                Ok(Attempt::Steady(node)) => return Ok(Some(node)),
                Ok(Attempt::Changed(node)) => last = node.or(last),
                Err(ReadFailure::Stopped) => return Err(Stopped),
                Err(ReadFailure::Failed { error, class }) => {
                    self.failed(shown(), error, class);
                    return Ok(last);
                }
            }
        }
        let kept = if last.is_some() {
            "changed while it was read; what was read last is kept"
        } else {
            "changed while it was read"
        };
        self.failed(shown(), kept.to_owned(), ErrorClass::RetryLater);
        Ok(last)
    }

    fn attempt(&mut self, walked: &Entry, opener: &mut Opener) -> Result<Attempt, ReadFailure> {
        let source_error = |error: edge::SourceError| ReadFailure::Failed {
            error: chain(&error),
            class: error.class,
        };
        let (mut entry, mut content) = opener().map_err(source_error)?;
        entry.path = walked.path.clone();
        if entry.kind != walked.kind {
            return Ok(Attempt::Changed(None));
        }
        let fresh = self.cut(&entry, &mut *content)?;
        let end = content.finish().map_err(source_error)?;
        self.walked.counts.read_bytes += ByteCount::new(fresh.data_bytes);
        let mut is_steady = end == ContentEnd::Steady;
        match &fresh.content.extents {
            Some(extents) => {
                if check_extents(extents, fresh.data_bytes).is_err() {
                    return Ok(Attempt::Changed(None));
                }
                let data_end = extents.last().map_or(0, |last| last.offset + last.length);
                is_steady &= data_end <= entry.size_bytes;
                entry.size_bytes = entry.size_bytes.max(data_end);
            }
            None => {
                is_steady &=
                    entry.kind == EntryKind::Stream || entry.size_bytes == fresh.data_bytes;
                entry.size_bytes = fresh.data_bytes;
            }
        }
        let node = Node {
            entry,
            content: Some(fresh.content),
        };
        Ok(if is_steady {
            Attempt::Steady(node)
        } else {
            Attempt::Changed(Some(node))
        })
    }

    /// Reads content to its end, cutting and storing it.
    fn cut(&mut self, entry: &Entry, source: &mut dyn edge::Content) -> Result<Fresh, ReadFailure> {
        let extents = source.extents();
        let mut class = Class::of(entry);
        let mut window = Window::take(std::mem::take(&mut self.buffer));
        let mut list = Vec::new();
        let mut data_bytes = 0_u64;
        let mut scan = Scan::default();
        let result = loop {
            if self.options.monitor.is_cancelled() {
                self.walked.is_cancelled = true;
                break Err(ReadFailure::Stopped);
            }
            let bytes = window.bytes();
            if window.is_at_end && bytes.is_empty() {
                break Ok(None);
            }
            // After the last chunk it would come too soon: a checkpoint has the files that are whole.
            if let Err(stopped) = self.look_up() {
                break Err(stopped.into());
            }
            let longest = class.chunk_bytes_max();
            if class == Class::Whole && bytes.len() > longest {
                class = Class::General;
                continue;
            }
            if list.is_empty() && window.is_at_end && bytes.len() <= INLINE_BYTES_MAX {
                data_bytes = bytes.len() as u64;
                break Ok(Some(bytes.to_vec()));
            }
            let cut = match class {
                Class::Whole => window.is_at_end.then_some(bytes.len()),
                _ => self
                    .storing
                    .chunker
                    .cut(class, bytes, window.is_at_end, &mut scan),
            };
            let Some(length) = cut else {
                match window.fill(source) {
                    Ok(()) => continue,
                    Err(error) => break Err(ReadFailure::of(entry, &error)),
                }
            };
            scan = Scan::default();
            let piece = bytes.get(..length).unwrap_or_default();
            let is_all = list.is_empty() && window.is_at_end && length == bytes.len();
            let side = if is_all {
                Side::First
            } else {
                self.storing.coins.toss()
            };
            match self.storing.chunk(ChunkKind::Data, side, piece) {
                Ok(chunk) => list.push(chunk),
                Err(stopped) => break Err(stopped.into()),
            }
            data_bytes += length as u64;
            window.consume(length);
        };
        self.buffer = window.buffer;
        let bytes = match result? {
            Some(inline) => Bytes::Inline(inline),
            None if list.is_empty() => Bytes::Nothing,
            None => self.storing.content_of(list)?,
        };
        Ok(Fresh {
            content: Content {
                class,
                bytes,
                extents,
            },
            data_bytes,
        })
    }
}

/// The part of a content that is in memory.
struct Window {
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    is_at_end: bool,
}

impl Window {
    const fn take(buffer: Vec<u8>) -> Self {
        Self {
            buffer,
            start: 0,
            end: 0,
            is_at_end: false,
        }
    }

    fn bytes(&self) -> &[u8] {
        self.buffer.get(self.start..self.end).unwrap_or_default()
    }

    const fn consume(&mut self, length: usize) {
        self.start += length;
    }

    /// Reads until there is a step more, or the end.
    fn fill(&mut self, source: &mut dyn edge::Content) -> io::Result<()> {
        if self.buffer.len() - self.end < STEP_BYTES {
            self.buffer.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
            // What is larger is only for the few long chunks.
            let room = (self.end + STEP_BYTES).max(WINDOW_BYTES);
            if self.buffer.len() < room {
                self.buffer.resize(room.next_multiple_of(WINDOW_BYTES), 0);
            }
        }
        let enough = self.end + STEP_BYTES;
        while !self.is_at_end && self.end < enough {
            let room = self.buffer.get_mut(self.end..enough).unwrap_or_default();
            match source.read(room) {
                Ok(0) => self.is_at_end = true,
                Ok(count) => self.end += count.min(room.len()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}
