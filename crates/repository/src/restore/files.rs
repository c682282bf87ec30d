//! Restores a batch of files: reads the frames they need in pack order, each once, and writes
//! every chunk where it belongs.

use std::collections::BTreeMap;

use edge::{EntryKind, Extent, FileSink, Target};
use sealing::ChunkKind;

use crate::content::{Bytes, ChunkRef, Node};
use crate::error::chain;
use crate::index::Record;
use crate::reader::{ChunkReader, plan_runs};

/// Files that are open at the same time.
const FILE_COUNT_MAX: usize = 128;
/// Content after which a batch is written.
const BATCH_BYTES: u64 = 64 * 1024 * 1024;
/// Content that is planned and read at a time.
const WINDOW_BYTES: u64 = 32 * 1024 * 1024;

/// Files that are restored together.
#[derive(Default)]
pub(super) struct Batch {
    jobs: Vec<Job>,
    bytes: u64,
}

struct Job {
    node: Node,
    list: Vec<ChunkRef>,
    sink: Option<Box<dyn FileSink>>,
    /// Content bytes before each extent, when the file has holes.
    starts: Vec<u64>,
    error: Option<String>,
    /// Chunks of a stream that wait for their turn.
    waiting: BTreeMap<u64, Vec<u8>>,
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
            node,
            list,
            sink: None,
            error: None,
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
    pub(super) fn write(
        mut self,
        reader: &mut ChunkReader<'_>,
        target: &mut dyn Target,
    ) -> Vec<(Node, Result<u64, String>)> {
        for job in &mut self.jobs {
            job.open(target);
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
                    self.write_window(reader, &mut window);
                    window_bytes = 0;
                }
            }
        }
        self.write_window(reader, &mut window);
        self.jobs.into_iter().map(Job::finish).collect()
    }

    fn write_window(&mut self, reader: &mut ChunkReader<'_>, window: &mut Vec<Piece>) {
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
                        Ok(bytes) => self.write_chunk(piece, bytes),
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
        self.jobs.iter_mut().for_each(Job::write_waiting);
    }

    fn write_chunk(&mut self, piece: &Piece, bytes: &[u8]) {
        let Some(job) = self.jobs.get_mut(piece.job) else {
            return;
        };
        if job.node.entry.kind == EntryKind::Stream {
            job.waiting.insert(piece.data_offset, bytes.to_vec());
        } else {
            job.write_data(piece.data_offset, bytes);
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
    fn open(&mut self, target: &mut dyn Target) {
        let content = self.node.content.as_ref();
        let (inline, extents) = match content {
            Some(content) => {
                let inline = match &content.bytes {
                    Bytes::Inline(bytes) => bytes.clone(),
                    Bytes::Nothing | Bytes::Chunks { .. } => Vec::new(),
                };
                (inline, content.extents.clone())
            }
            None => (Vec::new(), None),
        };
        let held = inline.len() as u64 + self.list_bytes();
        let expected = match &extents {
            Some(extents) => extents.iter().map(|extent| extent.length).sum(),
            None => self.node.entry.size_bytes,
        };
        if held != expected {
            return self.fail(format!(
                "the snapshot holds {held} bytes of content, its entry says {expected}"
            ));
        }
        match target.open(&self.node.entry, extents.as_deref()) {
            Ok(sink) => self.sink = Some(sink),
            Err(error) => return self.fail(chain(&error)),
        }
        if !inline.is_empty() {
            self.write_data(0, &inline);
        }
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

    fn write_waiting(&mut self) {
        for (offset, bytes) in std::mem::take(&mut self.waiting) {
            self.write_at(offset, &bytes);
        }
    }

    fn write_at(&mut self, offset: u64, bytes: &[u8]) {
        if let Some(sink) = &mut self.sink
            && let Err(error) = sink.write_at(offset, bytes)
        {
            self.fail(chain(&error));
        }
    }

    /// Gives up the file; the sink is dropped without finishing. The first reason counts.
    fn fail(&mut self, error: String) {
        self.sink = None;
        self.waiting.clear();
        self.error.get_or_insert(error);
    }

    fn finish(self) -> (Node, Result<u64, String>) {
        let bytes = self.node.size_bytes();
        let result = match (self.error, self.sink) {
            (Some(error), _) => Err(error),
            (None, Some(sink)) => sink.finish().map(|()| bytes).map_err(|error| chain(&error)),
            (None, None) => Err("it was not opened".to_owned()),
        };
        (self.node, result)
    }
}
