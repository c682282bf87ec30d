//! Restores a batch of files: reads the frames they need in pack order, each once, and writes
//! every chunk where it belongs.

use std::collections::BTreeMap;

use edge::{EntryKind, Extent, FileSink, Target};
use sealing::ChunkKind;

use crate::content::{Bytes, ChunkRef, Node};
use crate::error::chain;
use crate::index::Record;
use crate::reader::{ChunkReader, plan_runs};

/// Files of a batch.
const FILE_COUNT_MAX: usize = 1024;
/// Content after which a batch is written.
const BATCH_BYTES: u64 = 16 * 1024 * 1024;
/// Content that is planned and read at a time.
const WINDOW_BYTES: u64 = 16 * 1024 * 1024;

/// A file of a batch: its number of content bytes, or why it failed.
pub(super) type Done = (Node, Result<u64, String>);

/// Files that are restored together.
#[derive(Default)]
pub(super) struct Batch {
    jobs: Vec<Job>,
    bytes: u64,
}

struct Job {
    node: Node,
    list: Vec<ChunkRef>,
    state: State,
    /// Chunks still to be written.
    left: usize,
    /// Content bytes before each extent, when the file has holes.
    starts: Vec<u64>,
    /// Chunks of a stream that wait for their turn.
    waiting: BTreeMap<u64, Vec<u8>>,
}

/// Files are opened when their first chunk is there and finished with their last, so that few are
/// open at a time.
enum State {
    Untouched,
    Open(Box<dyn FileSink>),
    Finished,
    Failed(String),
}

/// One chunk to be written.
#[derive(Clone, Copy)]
struct Piece {
    job: usize,
    data_offset: u64,
    chunk: ChunkRef,
    record: Record,
}

impl Batch {
    pub(super) fn add(&mut self, node: Node, list: Vec<ChunkRef>) {
        self.bytes = self.bytes.saturating_add(node.entry.size_bytes);
        let mut data = 0_u64;
        let starts = extents(&node).iter().map(|extent| {
            let start = data;
            data = data.saturating_add(extent.length);
            start
        });
        self.jobs.push(Job {
            starts: starts.collect(),
            left: list.len(),
            node,
            list,
            state: State::Untouched,
            waiting: BTreeMap::new(),
        });
    }

    pub(super) const fn is_full(&self) -> bool {
        self.jobs.len() >= FILE_COUNT_MAX || self.bytes >= BATCH_BYTES
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.jobs.is_empty()
    }

    /// Restores all files; gives for each its number of content bytes or why it failed.
    pub(super) fn write(mut self, reader: &mut ChunkReader<'_>, target: &dyn Target) -> Vec<Done> {
        for job in &mut self.jobs {
            job.begin(target);
        }
        let mut window = Vec::new();
        let mut window_bytes = 0;
        for number in 0..self.jobs.len() {
            let Some(job) = self.jobs.get(number) else {
                break;
            };
            let list = job.list.clone();
            let mut data_offset = 0;
            for chunk in list {
                match reader.find(&chunk.id) {
                    Ok(record) => window.push(Piece {
                        job: number,
                        data_offset,
                        chunk,
                        record,
                    }),
                    Err(error) => self.fail(number, chain(&error)),
                }
                data_offset += u64::from(chunk.length);
                window_bytes += u64::from(chunk.length);
                if window_bytes >= WINDOW_BYTES {
                    self.write_window(reader, target, &mut window);
                    window_bytes = 0;
                }
            }
        }
        self.write_window(reader, target, &mut window);
        self.jobs.into_iter().map(Job::done).collect()
    }

    fn write_window(
        &mut self,
        reader: &mut ChunkReader<'_>,
        target: &dyn Target,
        window: &mut Vec<Piece>,
    ) {
        window.sort_by_key(|piece| {
            (
                piece.record.pack,
                piece.record.frame(),
                piece.record.offset(),
            )
        });
        let mut frames: Vec<_> = window
            .iter()
            .map(|piece| (piece.record.pack, piece.record.frame()))
            .collect();
        frames.dedup();
        let runs = plan_runs(reader.index(), &frames);
        for run in &runs {
            let done = reader.read_run(run, &mut |reader, frame, plain| {
                let from = window.partition_point(|piece| {
                    (piece.record.pack, piece.record.frame()) < (run.pack, frame)
                });
                let here = window.iter().skip(from).take_while(|piece| {
                    (piece.record.pack, piece.record.frame()) == (run.pack, frame)
                });
                for piece in here {
                    let chunk = match &plain {
                        Ok(plain) => reader
                            .chunk(ChunkKind::Data, &piece.chunk.id, &piece.record, plain)
                            .map_err(|error| chain(&error)),
                        Err(error) => Err(chain(error)),
                    };
                    match chunk {
                        Ok(bytes) => self.write_chunk(piece, bytes, target),
                        Err(error) => self.fail(piece.job, error),
                    }
                }
            });
            if let Err(error) = done {
                let lost = |piece: &&Piece| {
                    piece.record.pack == run.pack && run.frames.contains(&piece.record.frame())
                };
                for piece in window.iter().filter(lost) {
                    self.fail(piece.job, chain(&error));
                }
            }
        }
        window.clear();
        for job in &mut self.jobs {
            job.write_waiting(target);
        }
    }

    fn write_chunk(&mut self, piece: &Piece, bytes: &[u8], target: &dyn Target) {
        let Some(job) = self.jobs.get_mut(piece.job) else {
            return;
        };
        if job.node.entry.kind == EntryKind::Stream {
            job.waiting.insert(piece.data_offset, bytes.to_vec());
        } else {
            job.open(target);
            job.write_data(piece.data_offset, bytes);
            job.chunk_written();
        }
    }

    fn fail(&mut self, number: usize, error: String) {
        if let Some(job) = self.jobs.get_mut(number) {
            job.fail(error);
        }
    }
}

fn extents(node: &Node) -> &[Extent] {
    let extents = node
        .content
        .as_ref()
        .and_then(|content| content.extents.as_deref());
    extents.unwrap_or_default()
}

impl Job {
    /// Checks that lengths agree, and restores what has no chunks.
    fn begin(&mut self, target: &dyn Target) {
        let inline = match self.node.content.as_mut().map(|content| &mut content.bytes) {
            Some(Bytes::Inline(bytes)) => std::mem::take(bytes),
            Some(Bytes::Nothing | Bytes::Chunks { .. }) | None => Vec::new(),
        };
        let held = inline.len() as u64 + self.list_bytes();
        let content = self.node.content.as_ref();
        let expected = match content.and_then(|content| content.extents.as_ref()) {
            Some(extents) => extents.iter().map(|extent| extent.length).sum(),
            None => self.node.entry.size_bytes,
        };
        if held != expected {
            return self.fail(format!(
                "the snapshot holds {held} bytes of content, its entry says {expected}"
            ));
        }
        if self.left == 0 {
            self.open(target);
            if !inline.is_empty() {
                self.write_data(0, &inline);
            }
            self.finish();
        }
    }

    fn open(&mut self, target: &dyn Target) {
        if !matches!(self.state, State::Untouched) {
            return;
        }
        let content = self.node.content.as_ref();
        let extents = content.and_then(|content| content.extents.as_deref());
        match target.open(&self.node.entry, extents) {
            Ok(sink) => self.state = State::Open(sink),
            Err(error) => self.fail(chain(&error)),
        }
    }

    fn chunk_written(&mut self) {
        self.left = self.left.saturating_sub(1);
        if self.left == 0 {
            self.finish();
        }
    }

    fn finish(&mut self) {
        self.state = match std::mem::replace(&mut self.state, State::Finished) {
            State::Open(sink) => match sink.finish() {
                Ok(()) => State::Finished,
                Err(error) => State::Failed(chain(&error)),
            },
            other => other,
        };
    }

    fn list_bytes(&self) -> u64 {
        self.list.iter().map(|chunk| u64::from(chunk.length)).sum()
    }

    /// Writes content bytes, leaving out the holes between them.
    fn write_data(&mut self, data_offset: u64, bytes: &[u8]) {
        let mut rest = bytes;
        for (offset, length) in self.places(data_offset, bytes.len()) {
            let (piece, after) = rest.split_at(rest.len().min(length));
            self.write_at(offset, piece);
            rest = after;
        }
    }

    /// Says where in the file content bytes belong: offsets and lengths.
    fn places(&self, data_offset: u64, length: usize) -> Vec<(u64, usize)> {
        let extents = extents(&self.node);
        if extents.is_empty() {
            return vec![(data_offset, length)];
        }
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

    fn write_waiting(&mut self, target: &dyn Target) {
        for (offset, bytes) in std::mem::take(&mut self.waiting) {
            self.open(target);
            self.write_at(offset, &bytes);
            self.chunk_written();
        }
    }

    fn write_at(&mut self, offset: u64, bytes: &[u8]) {
        if let State::Open(sink) = &mut self.state
            && let Err(error) = sink.write_at(offset, bytes)
        {
            self.fail(chain(&error));
        }
    }

    /// Gives up the file; the sink is dropped without finishing. The first reason counts.
    fn fail(&mut self, error: String) {
        self.waiting.clear();
        if !matches!(self.state, State::Failed(_)) {
            self.state = State::Failed(error);
        }
    }

    fn done(self) -> Done {
        let bytes = self.node.size_bytes();
        let result = match self.state {
            State::Finished => Ok(bytes),
            State::Failed(error) => Err(error),
            State::Untouched | State::Open(_) => Err("not all of it was restored".to_owned()),
        };
        (self.node, result)
    }
}
