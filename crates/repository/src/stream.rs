//! Reading content in order: one file, or everything below a path, for whoever cannot write at any
//! place as a restore does.

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, Read};

use edge::{Entry, Event, Monitor, Phase, TreePath};
use model::{ByteCount, Exit};
use sealing::ChunkKind;
use thiserror::Error;

use crate::content::{Bytes, ChunkRef, Content, Node};
use crate::error::{ReadError, RepositoryError, chain};
use crate::reader::{ChunkReader, plan_runs};
use crate::snapshot::Snapshot;
use crate::tree::TreeWalk;
use crate::view::{View, find};
use crate::wire::FormatError;

/// Chunks that are fetched together have at most this many bytes, unless a single one has more.
const WINDOW_BYTES: usize = 8 * 1024 * 1024;
/// Failures that are told one by one.
const FAILURE_COUNT_MAX: usize = 1000;

/// What was read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StreamReport {
    /// Entries given.
    pub entries: u64,
    /// Bytes of content given.
    pub bytes: ByteCount,
    /// Entries left out because their content cannot be read.
    pub failed: u64,
    /// The first of them, with what is wrong, causes outermost first.
    pub failures: Vec<String>,
}

/// Says why reading in order ended early.
#[derive(Debug, Error)]
pub enum StreamError {
    /// The repository cannot be read.
    #[error(transparent)]
    Repository(#[from] RepositoryError),
    /// The content of an entry ended early, after some of it had been given.
    #[error("reading {path}")]
    Content {
        /// Of which entry.
        path: TreePath,
        /// The cause.
        #[source]
        source: ReadError,
    },
    /// The snapshot does not hold the path.
    #[error("the snapshot does not hold {path}")]
    Absent {
        /// Which one.
        path: TreePath,
    },
    /// Whoever takes the entries failed.
    #[error("writing {path}")]
    Write {
        /// At which entry.
        path: TreePath,
        /// The cause.
        #[source]
        source: io::Error,
    },
}

impl StreamError {
    /// Gives the exit code of a program that ends because of it.
    #[must_use]
    pub fn exit(&self) -> Exit {
        match self {
            Self::Repository(error) => error.exit(),
            Self::Content { source, .. } => source.exit(),
            Self::Absent { .. } | Self::Write { .. } => Exit::Failed,
        }
    }
}

/// Takes one entry, and its content where it has any.
pub type EachEntry<'e> =
    dyn FnMut(&Entry, Option<&mut ContentStream<'_, '_>>) -> io::Result<()> + 'e;

impl View {
    /// Gives the entry at a path and all below it to `each`, in order, with a way to read their
    /// contents. What cannot be read at all is left out and told in the report.
    ///
    /// # Errors
    ///
    /// `StreamError`. With `Content` and `Write`, `each` was in the midst of an entry.
    pub fn stream(
        &self,
        (snapshot, path): (&Snapshot, &TreePath),
        monitor: &dyn Monitor,
        each: &mut EachEntry<'_>,
    ) -> Result<StreamReport, StreamError> {
        monitor.event(Event::Phase(Phase::Restoring));
        let mut stream = Stream {
            reader: ChunkReader::new(&self.domain, self.locate()),
            monitor,
            report: StreamReport::default(),
        };
        // The walk and the contents read from different packs: each keeps frames of its own.
        let mut pages = ChunkReader::new(&self.domain, self.locate());
        if path.name().is_some() {
            let node = find(&mut pages, snapshot, path)?;
            let node = node.ok_or_else(|| StreamError::Absent { path: path.clone() })?;
            stream.node(&node, each)?;
        }
        let mut walk = TreeWalk::new(snapshot.root, path.key_below());
        loop {
            if monitor.is_cancelled() {
                return Err(RepositoryError::Cancelled.into());
            }
            match walk.next(&mut pages) {
                Ok(Some(node)) => stream.node(&node, each)?,
                Ok(None) => return Ok(stream.report),
                Err(lost) => {
                    let from = TreePath::from_key(&lost.first_key).unwrap_or_default();
                    stream.failed(format!("entries from {from} on"), *lost.error)?;
                }
            }
        }
    }
}

struct Stream<'a> {
    reader: ChunkReader<'a>,
    monitor: &'a dyn Monitor,
    report: StreamReport,
}

impl Stream<'_> {
    fn node(&mut self, node: &Node, each: &mut EachEntry<'_>) -> Result<(), StreamError> {
        let entry = &node.entry;
        let failed_at = |source| StreamError::Write {
            path: entry.path.clone(),
            source,
        };
        if let Some(content) = &node.content {
            match ContentStream::open(&mut self.reader, content, entry.size_bytes) {
                Err(error) => return self.failed(entry.path.to_string(), error),
                Ok(mut stream) => {
                    let done = each(entry, Some(&mut stream));
                    if let Some(source) = stream.error.take() {
                        let path = entry.path.clone();
                        return Err(StreamError::Content { path, source });
                    }
                    done.map_err(failed_at)?;
                }
            }
        } else {
            each(entry, None).map_err(failed_at)?;
        }
        self.report.entries += 1;
        self.report.bytes += ByteCount::new(node.size_bytes());
        self.monitor.event(Event::Progress {
            entries: self.report.entries,
            bytes: self.report.bytes,
            bytes_expected: None,
        });
        Ok(())
    }

    /// Notes what is damaged or lost; where the place itself fails, all ends.
    fn failed(&mut self, object: String, error: ReadError) -> Result<(), StreamError> {
        if error.exit() != Exit::Damage {
            return Err(RepositoryError::Read(error).into());
        }
        self.report.failed += 1;
        if self.report.failures.len() < FAILURE_COUNT_MAX {
            self.report
                .failures
                .push(format!("{object}: {}", chain(&error)));
        }
        Ok(())
    }
}

/// The next bytes of a file: data, or a hole.
#[derive(Debug, Clone, Copy)]
enum Segment {
    Data(u64),
    Hole(u64),
}

/// The content of one entry, with zeros for its holes: exactly as many bytes as the entry says.
pub struct ContentStream<'s, 'a> {
    reader: &'s mut ChunkReader<'a>,
    segments: VecDeque<Segment>,
    chunks: VecDeque<ChunkRef>,
    /// Opened chunks, the first of them read up to `at`.
    ready: VecDeque<Vec<u8>>,
    at: usize,
    /// Why reading failed: whoever reads sees but a text.
    error: Option<ReadError>,
}

impl<'s, 'a> ContentStream<'s, 'a> {
    /// Finds the chunks, and fetches the first of them: small content that is damaged does not
    /// even begin.
    fn open(
        reader: &'s mut ChunkReader<'a>,
        content: &Content,
        size_bytes: u64,
    ) -> Result<Self, ReadError> {
        let chunks: VecDeque<_> = reader.chunk_list(content)?.into();
        let mut ready = VecDeque::new();
        let mut data_bytes: u64 = chunks.iter().map(|chunk| u64::from(chunk.length)).sum();
        if let Bytes::Inline(bytes) = &content.bytes {
            data_bytes = bytes.len() as u64;
            ready.push_back(bytes.clone());
        }
        let segments = segments(content, data_bytes, size_bytes).ok_or(ReadError::Format {
            chunk: chunks
                .front()
                .map_or(sealing::ChunkId::from_bytes([0; 32]), |chunk| chunk.id),
            source: FormatError("the content is not as long as its entry says"),
        })?;
        let mut stream = Self {
            reader,
            segments,
            chunks,
            ready,
            at: 0,
            error: None,
        };
        stream.fetch()?;
        Ok(stream)
    }

    /// Fetches the next chunks, neighbours of one pack with one request.
    fn fetch(&mut self) -> Result<(), ReadError> {
        let mut window: Vec<ChunkRef> = Vec::new();
        let mut bytes = 0;
        while let Some(chunk) = self.chunks.front() {
            bytes += usize::try_from(chunk.length).unwrap_or(usize::MAX);
            if bytes > WINDOW_BYTES && !window.is_empty() {
                break;
            }
            window.extend(self.chunks.pop_front());
        }
        if let [chunk] = window.as_slice() {
            // Its frame may hold the next small file, too: the reader keeps it.
            let bytes = self.reader.read(ChunkKind::Data, &chunk.id)?;
            self.ready.push_back(bytes);
            return Ok(());
        }
        let mut wanted: BTreeMap<(u32, u16), Vec<usize>> = BTreeMap::new();
        for (number, chunk) in window.iter().enumerate() {
            let record = self.reader.find(&chunk.id)?;
            let frame = (record.pack, record.frame());
            wanted.entry(frame).or_default().push(number);
        }
        let frames: Vec<_> = wanted.keys().copied().collect();
        let mut opened: Vec<Vec<u8>> = vec![Vec::new(); window.len()];
        for run in plan_runs(self.reader.index(), &frames) {
            let mut outcome = Ok(());
            let done = self.reader.read_run(&run, &mut |reader, frame, plain| {
                let numbers = wanted.get(&(run.pack, frame)).into_iter().flatten();
                let taken = plain.and_then(|plain| {
                    for number in numbers {
                        let Some(chunk) = window.get(*number) else {
                            continue;
                        };
                        let record = reader.find(&chunk.id)?;
                        let bytes = reader.chunk(ChunkKind::Data, &chunk.id, &record, &plain)?;
                        if let Some(place) = opened.get_mut(*number) {
                            *place = bytes.to_vec();
                        }
                    }
                    Ok(())
                });
                if outcome.is_ok() {
                    outcome = taken;
                }
            });
            outcome?;
            if let Err(error) = done {
                let frames = run.frames.iter();
                let lost = frames.filter_map(|frame| wanted.get(&(run.pack, *frame)));
                for (number, chunk) in lost.flatten().filter_map(|n| Some((n, window.get(*n)?))) {
                    let moved = self.reader.read_moved(ChunkKind::Data, &chunk.id, &error);
                    match (moved, opened.get_mut(*number)) {
                        (Some(bytes), Some(place)) => *place = bytes,
                        _ => return Err(error),
                    }
                }
            }
        }
        self.ready.extend(opened);
        Ok(())
    }

    /// Copies data that is at hand; 0 when there is none.
    fn copy(&mut self, buffer: &mut [u8]) -> usize {
        while let Some(first) = self.ready.front() {
            let rest = first.get(self.at..).unwrap_or_default();
            if rest.is_empty() {
                self.ready.pop_front();
                self.at = 0;
                continue;
            }
            let count = rest.len().min(buffer.len());
            if let (Some(to), Some(from)) = (buffer.get_mut(..count), rest.get(..count)) {
                to.copy_from_slice(from);
            }
            self.at += count;
            return count;
        }
        0
    }
}

impl Read for ContentStream<'_, '_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(segment) = self.segments.front().copied() else {
            return Ok(0);
        };
        let (Segment::Data(left) | Segment::Hole(left)) = segment;
        let most = usize::try_from(left).map_or(buffer.len(), |left| left.min(buffer.len()));
        let buffer = buffer.get_mut(..most).unwrap_or_default();
        if buffer.is_empty() {
            return Ok(0);
        }
        let count = match segment {
            Segment::Hole(_) => {
                buffer.fill(0);
                buffer.len()
            }
            Segment::Data(_) => loop {
                let count = self.copy(buffer);
                if count > 0 {
                    break count;
                }
                if let Err(error) = self.fetch() {
                    let shown = io::Error::other(chain(&error));
                    self.error = Some(error);
                    return Err(shown);
                }
            },
        };
        let left = left - count as u64;
        self.segments.pop_front();
        if left > 0 {
            self.segments.push_front(match segment {
                Segment::Data(_) => Segment::Data(left),
                Segment::Hole(_) => Segment::Hole(left),
            });
        }
        Ok(count)
    }
}

/// Gives data and holes of a file, none of them empty; `None` when they do not add up.
fn segments(content: &Content, data_bytes: u64, size_bytes: u64) -> Option<VecDeque<Segment>> {
    let mut segments = VecDeque::new();
    let Some(extents) = &content.extents else {
        if data_bytes > 0 {
            segments.push_back(Segment::Data(data_bytes));
        }
        return (data_bytes == size_bytes).then_some(segments);
    };
    let (mut end, mut sum) = (0_u64, 0_u64);
    for extent in extents {
        let hole = extent.offset.checked_sub(end)?;
        if hole > 0 {
            segments.push_back(Segment::Hole(hole));
        }
        if extent.length > 0 {
            segments.push_back(Segment::Data(extent.length));
        }
        end = extent.offset.checked_add(extent.length)?;
        sum = sum.checked_add(extent.length)?;
    }
    let hole = size_bytes.checked_sub(end)?;
    if hole > 0 {
        segments.push_back(Segment::Hole(hole));
    }
    (sum == data_bytes).then_some(segments)
}
