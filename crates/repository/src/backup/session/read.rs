//! Reading one file or stream: open, cut, name, compare afterwards, try again.

use std::io;

use edge::{ContentEnd, Entry, EntryKind, Opener};
use model::{ByteCount, ErrorClass};
use sealing::{ChunkId, ChunkKind};

use super::super::expected::Expected;
use super::super::naming::{Cut, Piece};
use super::super::pipeline::Side;
use super::{Fresh, Session, Short, Stopped, Way};
use crate::chunker::{Class, Scan};
use crate::content::{Bytes, ChunkRef, Content, INLINE_BYTES_MAX, Node, check_extents};
use crate::error::chain;

/// What is read at a time: it is still near the processor when it is cut and named, and a file that
/// is one chunk comes with its end at once.
const STEP_BYTES: usize = 256 * 1024;
/// What a buffer holds at first.
const WINDOW_BYTES: usize = 1024 * 1024;
/// From this size on another thread names the chunks, of classes whose chunks are not so long that
/// windows of them would take much memory.
const LONG_BYTES: u64 = 4 * WINDOW_BYTES as u64;
/// Windows that are with that thread while the next one is read and cut.
const WINDOWS_AHEAD: usize = 1;
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
        (opener, short): Way,
    ) -> Result<Option<Node>, Stopped> {
        if let Some(short) = short {
            return self.store_short(short).map(Some);
        }
        let shown = || entry.path.to_string();
        let Some(mut opener) = opener else {
            let error = "the source gives no way to its content".to_owned();
            self.failed(shown(), error, ErrorClass::Never);
            return Ok(None);
        };
        let mut last = None;
        let mut expected = self.expected(&entry);
        for _ in 0..ATTEMPTS_MAX {
            match self.attempt(&entry, &mut opener, &mut expected) {
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

    /// Stores a file that was read ahead.
    fn store_short(&mut self, short: Short) -> Result<Node, Stopped> {
        let mut rest = short.bytes();
        self.walked.counts.read_bytes += ByteCount::new(rest.len() as u64);
        let mut list = Vec::with_capacity(short.chunks.len());
        for (length, id) in &short.chunks {
            let (chunk, after) = rest.split_at_checked(*length).ok_or(Stopped)?;
            let side = self.side_of(list.is_empty() && after.is_empty());
            let named = (*id, chunk);
            list.push(self.storing.named(ChunkKind::Data, side, named)?);
            rest = after;
        }
        let bytes = match (list.is_empty(), rest.is_empty()) {
            (true, true) => Bytes::Nothing,
            (true, false) => Bytes::Inline(rest.to_vec()),
            (false, _) => self.storing.content_of(list)?,
        };
        Ok(Node {
            content: Some(Content {
                class: short.class,
                bytes,
                extents: None,
            }),
            entry: short.entry,
        })
    }

    /// Gives the pack for a chunk: by chance, unless it is all of a content.
    fn side_of(&mut self, is_all: bool) -> Side {
        if is_all {
            Side::First
        } else {
            self.storing.coins.toss()
        }
    }

    /// Gives what is expected of long content: the chunks of the latest snapshot that has it.
    fn expected(&mut self, entry: &Entry) -> Expected {
        if entry.kind == EntryKind::File && entry.size_bytes < LONG_BYTES {
            return Expected::default();
        }
        let mut parents = self.parents.iter_mut();
        let before = parents.find_map(|parent| parent.chunks_before(entry));
        before.map_or_else(Expected::default, |(class, chunks)| {
            Expected::of(class, chunks)
        })
    }

    fn attempt(
        &mut self,
        walked: &Entry,
        opener: &mut Opener,
        expected: &mut Expected,
    ) -> Result<Attempt, ReadFailure> {
        let source_error = |error: edge::SourceError| ReadFailure::Failed {
            error: chain(&error),
            class: error.class,
        };
        let (mut entry, mut content) = opener().map_err(source_error)?;
        entry.path = walked.path.clone();
        if entry.kind != walked.kind {
            return Ok(Attempt::Changed(None));
        }
        let fresh = self.cut(&entry, &mut *content, expected)?;
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
    fn cut(
        &mut self,
        entry: &Entry,
        source: &mut dyn edge::Content,
        expected: &mut Expected,
    ) -> Result<Fresh, ReadFailure> {
        let extents = source.extents();
        expected.restart();
        let mut cutting = Cutting {
            class: Class::of(entry),
            expected,
            scan: Scan::default(),
            window: Window::take(std::mem::take(&mut self.buffer)),
            list: Vec::new(),
            chunks: 0,
            data_bytes: 0,
            is_long: false,
        };
        cutting.is_long =
            matches!(cutting.class, Class::General | Class::Dump) && entry.size_bytes >= LONG_BYTES;
        let inline = self.cut_all(entry, source, &mut cutting);
        let result = inline.and_then(|inline| {
            self.hand_on(&mut cutting)?;
            self.take_back(&mut cutting, 0)?;
            Ok(inline)
        });
        while self.naming.under_way() > 0 {
            // What belongs to nothing any more.
            drop(self.naming.take());
        }
        self.buffer = cutting.window.buffer;
        let bytes = match result? {
            Some(inline) => Bytes::Inline(inline),
            None if cutting.list.is_empty() => Bytes::Nothing,
            None => self.storing.content_of(cutting.list)?,
        };
        Ok(Fresh {
            content: Content {
                class: cutting.class,
                bytes,
                extents,
            },
            data_bytes: cutting.data_bytes,
        })
    }

    /// Cuts content to its end; gives it if it is to be kept in its entry.
    fn cut_all(
        &mut self,
        entry: &Entry,
        source: &mut dyn edge::Content,
        cutting: &mut Cutting<'_>,
    ) -> Result<Option<Vec<u8>>, ReadFailure> {
        loop {
            if self.options.monitor.is_cancelled() {
                self.walked.is_cancelled = true;
                return Err(ReadFailure::Stopped);
            }
            let window = &cutting.window;
            let bytes = window.bytes();
            if window.is_at_end && bytes.is_empty() {
                return Ok(None);
            }
            // After the last chunk it would come too soon: a checkpoint has the files that are whole.
            self.look_up()?;
            let longest = cutting.class.chunk_bytes_max();
            if cutting.class == Class::Whole && bytes.len() > longest {
                cutting.class = Class::General;
                continue;
            }
            if cutting.chunks == 0 && window.is_at_end && bytes.len() <= INLINE_BYTES_MAX {
                cutting.data_bytes = bytes.len() as u64;
                return Ok(Some(bytes.to_vec()));
            }
            if let Some((length, id)) = self.next_chunk(cutting) {
                self.piece(cutting, length, id)?;
                continue;
            }
            if cutting.window.is_full() {
                self.hand_on(cutting)?;
            }
            let filled = cutting.window.fill(source);
            filled.map_err(|error| ReadFailure::of(entry, &error))?;
        }
    }

    /// Gives the length of the next chunk, and its name where that was needed; `None` when more bytes are.
    fn next_chunk(&self, cutting: &mut Cutting<'_>) -> Option<(usize, Option<ChunkId>)> {
        let (class, is_at_end) = (cutting.class, cutting.window.is_at_end);
        let bytes = cutting.window.bytes();
        if class == Class::Whole {
            return is_at_end.then_some((bytes.len(), None));
        }
        if let Some((length, id)) = cutting.expected.next(class) {
            let name = |bytes| self.storing.namer.name(ChunkKind::Data, bytes);
            match bytes.get(..length) {
                None if !is_at_end => return None,
                Some(chunk) if name(chunk) == id => {
                    cutting.expected.came();
                    return Some((length, Some(id)));
                }
                _ => cutting.expected.did_not_come(),
            }
        }
        let chunker = &self.storing.chunker;
        let length = chunker.cut(class, bytes, is_at_end, &mut cutting.scan)?;
        cutting.scan = Scan::default();
        cutting.expected.cut(length);
        Some((length, None))
    }

    /// Takes the next chunk from the window.
    fn piece(
        &mut self,
        cutting: &mut Cutting<'_>,
        length: usize,
        id: Option<ChunkId>,
    ) -> Result<(), Stopped> {
        let window = &cutting.window;
        let is_all = cutting.chunks == 0 && window.is_at_end && length == window.bytes().len();
        let side = self.side_of(is_all);
        let window = &mut cutting.window;
        let place = window.start..window.start + length;
        if cutting.is_long {
            window.pieces.push(Piece { place, side, id });
        } else {
            let bytes = window.buffer.get(place).unwrap_or_default();
            let id = id.unwrap_or_else(|| self.storing.namer.name(ChunkKind::Data, bytes));
            let chunk = self.storing.named(ChunkKind::Data, side, (id, bytes))?;
            cutting.list.push(chunk);
        }
        window.consume(length);
        cutting.chunks += 1;
        cutting.data_bytes += length as u64;
        Ok(())
    }

    /// Hands on what was cut and has no names yet, and stores what has got them meanwhile.
    fn hand_on(&mut self, cutting: &mut Cutting<'_>) -> Result<(), Stopped> {
        if cutting.window.pieces.is_empty() {
            return Ok(());
        }
        let cut = cutting.window.take_cut(self.naming.spare());
        if !self.naming.give(cut) {
            return Err(Stopped);
        }
        self.take_back(cutting, WINDOWS_AHEAD)
    }

    /// Stores chunks that have got their names, until so many windows are left.
    fn take_back(&mut self, cutting: &mut Cutting<'_>, left: usize) -> Result<(), Stopped> {
        while self.naming.under_way() > left {
            let cut = self.naming.take().ok_or(Stopped)?;
            for (piece, id) in cut.pieces.iter().zip(&cut.ids) {
                let bytes = cut.bytes.get(piece.place.clone()).unwrap_or_default();
                let chunk = self
                    .storing
                    .named(ChunkKind::Data, piece.side, (*id, bytes))?;
                cutting.list.push(chunk);
            }
            self.naming.give_back(cut.bytes);
        }
        Ok(())
    }
}

/// How far one content is.
struct Cutting<'a> {
    class: Class,
    expected: &'a mut Expected,
    /// How far the search for the end of the next chunk is.
    scan: Scan,
    window: Window,
    list: Vec<ChunkRef>,
    /// Chunks that were cut; some may not be in the list yet.
    chunks: u64,
    data_bytes: u64,
    /// Its chunks are named by another thread.
    is_long: bool,
}

/// The part of a content that is in memory.
struct Window {
    buffer: Vec<u8>,
    /// Chunks before `start` that have no names yet.
    pieces: Vec<Piece>,
    start: usize,
    end: usize,
    is_at_end: bool,
}

impl Window {
    const fn take(buffer: Vec<u8>) -> Self {
        Self {
            buffer,
            pieces: Vec::new(),
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

    /// True when what was cut must leave before more is read.
    const fn is_full(&self) -> bool {
        self.buffer.len() - self.end < STEP_BYTES
    }

    /// Gives away what was cut; what follows goes on in another buffer.
    fn take_cut(&mut self, mut buffer: Vec<u8>) -> Cut {
        let rest = self.buffer.get(self.start..self.end).unwrap_or_default();
        let room = (rest.len() + STEP_BYTES).max(WINDOW_BYTES);
        if buffer.len() < room {
            buffer.resize(room.next_multiple_of(WINDOW_BYTES), 0);
        }
        if let Some(begin) = buffer.get_mut(..rest.len()) {
            begin.copy_from_slice(rest);
        }
        (self.start, self.end) = (0, rest.len());
        Cut {
            bytes: std::mem::replace(&mut self.buffer, buffer),
            pieces: std::mem::take(&mut self.pieces),
            ids: Vec::new(),
        }
    }

    /// Reads until there is a step more, or the end.
    fn fill(&mut self, source: &mut dyn edge::Content) -> io::Result<()> {
        if self.is_full() {
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
