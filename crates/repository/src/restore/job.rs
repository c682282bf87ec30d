//! A file that is being restored: several threads write its chunks, each where it belongs.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockWriteGuard};

use edge::{Extent, FileSink, Target};

use crate::content::{Bytes, ChunkRef, Node};
use crate::error::chain;

/// A file and what became of it: its number of content bytes, or why it failed.
pub(super) type Done = (Arc<Job>, Result<u64, String>);

/// A file under way.
pub(super) struct Job {
    pub(super) node: Node,
    /// Content that is kept in the tree page.
    inline: Vec<u8>,
    /// Content bytes before each extent, when the file has holes.
    starts: Vec<u64>,
    /// Chunks that are neither written nor given up.
    left: AtomicUsize,
    /// Content bytes that were written or found.
    there: AtomicU64,
    /// Its chunks are in several frames, so that it may stay open for long.
    pub(super) is_spread: bool,
    /// All of it was there already: nothing was written.
    is_kept: AtomicBool,
    state: RwLock<State>,
}

/// Files are opened when their first chunk is there and finished with their last, so that few are
/// open at a time.
enum State {
    Untouched,
    Open(Box<dyn FileSink>),
    Finished,
    Failed(String),
}

impl Job {
    /// Takes a file with all its chunks; checks that the lengths agree.
    pub(super) fn new(mut node: Node, list: &[ChunkRef], is_spread: bool) -> Self {
        let inline = match node.content.as_mut().map(|content| &mut content.bytes) {
            Some(Bytes::Inline(bytes)) => std::mem::take(bytes),
            Some(Bytes::Nothing | Bytes::Chunks { .. }) | None => Vec::new(),
        };
        let chunks: u64 = list.iter().map(|chunk| u64::from(chunk.length)).sum();
        let held = inline.len() as u64 + chunks;
        let mut data = 0_u64;
        let starts = extents(&node).unwrap_or_default().iter().map(|extent| {
            let start = data;
            data = data.saturating_add(extent.length);
            start
        });
        let starts = starts.collect();
        let expected = match extents(&node) {
            Some(_) => data,
            None => node.entry.size_bytes,
        };
        let state = if held == expected {
            State::Untouched
        } else {
            State::Failed(format!(
                "the snapshot holds {held} bytes of content, its entry says {expected}"
            ))
        };
        Self {
            node,
            inline,
            starts,
            left: AtomicUsize::new(list.len()),
            there: AtomicU64::new(0),
            is_spread,
            is_kept: AtomicBool::new(true),
            state: RwLock::new(state),
        }
    }

    /// Writes all of a file that has no chunks.
    pub(super) fn write_without_chunks(&self, target: &dyn Target) {
        self.write(0, &self.inline, target);
    }

    /// Writes content bytes, leaving out the holes between them.
    pub(super) fn write(&self, data_offset: u64, bytes: &[u8], target: &dyn Target) {
        self.open(target);
        self.is_kept.store(false, Ordering::Relaxed);
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        let State::Open(sink) = &*state else {
            return;
        };
        let mut rest = bytes;
        for (offset, length) in self.places(data_offset, bytes.len()) {
            let (piece, after) = rest.split_at(rest.len().min(length));
            rest = after;
            if piece.is_empty() {
                continue;
            }
            if let Err(error) = sink.write_at(offset, piece) {
                drop(state);
                return self.fail(chain(&error));
            }
        }
        self.count_bytes(bytes.len() as u64);
    }

    /// Counts content bytes as written or found.
    pub(super) fn count_bytes(&self, bytes: u64) {
        self.there.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Tells how many of its content bytes are there.
    pub(super) fn bytes_there(&self) -> u64 {
        self.there.load(Ordering::Relaxed)
    }

    /// Gives up the file; the sink is dropped without finishing. The first reason counts.
    pub(super) fn fail(&self, error: String) {
        let mut state = self.change();
        if !matches!(&*state, State::Failed(_)) {
            *state = State::Failed(error);
        }
    }

    pub(super) fn has_failed(&self) -> bool {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        matches!(&*state, State::Failed(_))
    }

    /// Counts chunks as written or given up; true when they were the last.
    pub(super) fn count_down(&self, chunks: usize) -> bool {
        self.left.fetch_sub(chunks, Ordering::AcqRel) == chunks
    }

    /// True when no byte of it had to be written.
    pub(super) fn is_kept(&self) -> bool {
        self.is_kept.load(Ordering::Relaxed)
    }

    /// Makes the file what its entry says; gives its number of content bytes or why it failed.
    pub(super) fn finish(&self, target: &dyn Target) -> Result<u64, String> {
        // When all of its content was there it was not opened yet.
        self.open(target);
        let mut state = self.change();
        match std::mem::replace(&mut *state, State::Finished) {
            State::Open(sink) => sink.finish().map_err(|error| chain(&error))?,
            State::Failed(error) => return Err(error),
            State::Untouched | State::Finished => {
                return Err("not all of it was restored".to_owned());
            }
        }
        Ok(self.node.size_bytes())
    }

    fn open(&self, target: &dyn Target) {
        let is_untouched = || {
            let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
            matches!(&*state, State::Untouched)
        };
        if !is_untouched() {
            return;
        }
        let mut state = self.change();
        if matches!(&*state, State::Untouched) {
            *state = match target.open(&self.node.entry, extents(&self.node)) {
                Ok(sink) => State::Open(sink),
                Err(error) => State::Failed(chain(&error)),
            };
        }
    }

    fn change(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says where in the file content bytes belong: offsets and lengths.
    pub(super) fn places(&self, data_offset: u64, length: usize) -> Vec<(u64, usize)> {
        let Some(extents) = extents(&self.node) else {
            return vec![(data_offset, length)];
        };
        let mut places = Vec::new();
        let (mut data_offset, mut left) = (data_offset, length);
        let behind = self.starts.partition_point(|start| *start <= data_offset);
        for (extent, start) in extents
            .iter()
            .zip(&self.starts)
            .skip(behind.saturating_sub(1))
        {
            let within = data_offset.saturating_sub(*start);
            let room = usize::try_from(extent.length.saturating_sub(within)).unwrap_or(usize::MAX);
            let here = left.min(room);
            places.push((extent.offset + within, here));
            data_offset += here as u64;
            left -= here;
            if left == 0 {
                break;
            }
        }
        places
    }
}

impl Drop for Job {
    /// A file that neither failed nor was finished waits for a restore that goes on.
    fn drop(&mut self) {
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let State::Open(sink) = std::mem::replace(state, State::Finished) {
            sink.leave();
        }
    }
}

fn extents(node: &Node) -> Option<&[Extent]> {
    let content = node.content.as_ref()?;
    content.extents.as_deref()
}
