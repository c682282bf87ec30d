//! The threads that restore files, while the tree is walked on.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::Scope;
use std::time::Duration;

use edge::{StoreFault, Target};
use sealing::ChunkKind;

use super::compare::{Portion, compare};
use super::job::{Done, Job};
use super::plan::{Piece, PlannedRun};
use crate::content::ChunkRef;
use crate::domain::Domain;
use crate::error::{ReadError, chain};
use crate::index::Locate;
use crate::reader::{ChunkReader, plan_runs};

/// Bounds of the number of threads: more than cores, since some wait for the store or the disk.
const WORKERS: std::ops::RangeInclusive<usize> = 3..=8;
/// Content of a stream that is read at a time.
const WINDOW_BYTES: u64 = 8 * 1024 * 1024;

/// What a thread does in one go.
pub(super) enum Work {
    /// Files that have no chunks.
    WithoutChunks(Vec<Arc<Job>>),
    /// Chunks that may be there already.
    Compare(Vec<Portion>),
    /// Frames, and what is written of them.
    Run(PlannedRun),
    /// A file that is written from its beginning to its end.
    InOrder(Arc<Job>, Vec<ChunkRef>),
}

/// What a thread tells.
pub(super) enum Told {
    /// A file is done.
    Done(Done),
    /// These chunks of a file are not there, so many bytes of others are.
    Missing(Portion, u64),
    /// The place cannot be read any more; what was under way with it is not done.
    PlaceLost(ReadError),
}

/// Hands out work and takes back what became of the files.
pub(super) struct Workers {
    work: SyncSender<Work>,
    told: Receiver<Told>,
    is_over: Arc<AtomicBool>,
}

impl Workers {
    /// Starts the threads; they end when this is dropped.
    pub(super) fn start<'scope, 'env: 'scope>(
        scope: &'scope Scope<'scope, 'env>,
        (domain, index): (&'env Domain, &'env dyn Locate),
        target: &'env dyn Target,
    ) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let count = (cores + 3).clamp(*WORKERS.start(), *WORKERS.end());
        let (work, queue) = sync_channel(count);
        let (report, told) = channel();
        let queue = Arc::new(Mutex::new(queue));
        let is_over = Arc::new(AtomicBool::new(false));
        for _ in 0..count {
            let queue = Arc::clone(&queue);
            let mut worker = Worker {
                reader: ChunkReader::new(domain, index),
                target,
                report: report.clone(),
                is_over: Arc::clone(&is_over),
            };
            scope.spawn(move || worker.run(&queue));
        }
        Self {
            work,
            told,
            is_over,
        }
    }

    /// Hands out work, waiting while all threads are busy. False when there are none any more.
    pub(super) fn give(&self, work: Work) -> bool {
        self.work.send(work).is_ok()
    }

    /// Gives what was told, if anything was.
    pub(super) fn try_take(&self) -> Option<Told> {
        self.told.try_recv().ok()
    }

    /// Waits until something is told, or for a time.
    pub(super) fn take_within(&self, time: Duration) -> Result<Told, RecvTimeoutError> {
        self.told.recv_timeout(time)
    }

    /// Lets the threads leave what they have not begun; of a stream, what follows.
    pub(super) fn stop(&self) {
        self.is_over.store(true, Ordering::Relaxed);
    }
}

struct Worker<'a> {
    reader: ChunkReader<'a>,
    target: &'a dyn Target,
    report: Sender<Told>,
    /// The place is away, or all was stopped: nothing more is tried.
    is_over: Arc<AtomicBool>,
}

impl Worker<'_> {
    fn run(&mut self, queue: &Mutex<Receiver<Work>>) {
        let next = || {
            let queue = queue.lock().unwrap_or_else(PoisonError::into_inner);
            queue.recv().ok()
        };
        while let Some(work) = next() {
            if self.is_over() {
                continue;
            }
            match work {
                Work::WithoutChunks(jobs) => {
                    for job in jobs {
                        job.write_without_chunks(self.target);
                        self.done(job);
                    }
                }
                Work::Compare(portions) => self.compare(portions),
                Work::Run(planned) => self.restore_run(planned),
                Work::InOrder(job, list) => match self.restore_in_order(&job, &list) {
                    Ok(false) => {}
                    Err(error) if is_place_lost(&error) => self.place_lost(error),
                    done => {
                        if let Err(error) = done {
                            job.fail(chain(&error));
                        }
                        self.done(job);
                    }
                },
            }
        }
    }

    fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Relaxed)
    }

    /// Finishes a file and tells it. Nobody listens any more only when all ends.
    fn done(&self, job: Arc<Job>) {
        let result = job.finish(self.target);
        let told = Told::Done((job, result));
        self.report.send(told).unwrap_or_default();
    }

    fn place_lost(&self, error: ReadError) {
        self.is_over.store(true, Ordering::Relaxed);
        let told = Told::PlaceLost(error);
        self.report.send(told).unwrap_or_default();
    }

    fn piece_done(&self, piece: Piece) {
        if piece.job.count_down(1) {
            self.done(piece.job);
        }
    }

    fn compare(&self, portions: Vec<Portion>) {
        let mut buffer = Vec::new();
        for mut portion in portions {
            let before = portion.chunks.len();
            let kept = compare(&self.reader, &mut portion, self.target, &mut buffer);
            let there = before - portion.chunks.len();
            let job = Arc::clone(&portion.job);
            let told = Told::Missing(portion, kept);
            self.report.send(told).unwrap_or_default();
            for _ in 0..there {
                if job.count_down(1) {
                    self.done(Arc::clone(&job));
                }
            }
        }
    }

    fn restore_run(&mut self, planned: PlannedRun) {
        let PlannedRun { run, pieces } = planned;
        // Whoever failed needs no frame any more.
        if pieces.iter().all(|piece| piece.job.has_failed()) {
            return pieces.into_iter().for_each(|piece| self.piece_done(piece));
        }
        let target = self.target;
        let mut left = pieces.into_iter().peekable();
        let report = self.report.clone();
        let done = self.reader.look_at_run(&run, &mut |reader, frame, plain| {
            let plain = plain.as_ref().copied();
            // At once: a frame may hold a thousand files, which are not all to be open.
            let mut write = |span: Span| {
                if span.write(plain.unwrap_or_default(), target) {
                    let result = span.job.finish(target);
                    let told = Told::Done((span.job, result));
                    report.send(told).unwrap_or_default();
                }
            };
            let mut span: Option<Span> = None;
            while let Some(piece) = left.next_if(|piece| piece.record.frame() <= frame) {
                verify_piece(reader, &piece, plain);
                match span.as_mut().filter(|span| span.is_followed_by(&piece)) {
                    Some(span) => span.take(&piece),
                    None => span
                        .replace(Span::of(piece))
                        .into_iter()
                        .for_each(&mut write),
                }
            }
            span.into_iter().for_each(write);
        });
        let error = match done {
            Err(error) if is_place_lost(&error) => return self.place_lost(error),
            done => done.err(),
        };
        for piece in left {
            let (kind, id) = (ChunkKind::Data, &piece.chunk.id);
            // The pack may have been moved since the index was read.
            let moved = |error| self.reader.read_moved(kind, id, error);
            match (error.as_ref().and_then(moved), &error) {
                (Some(bytes), _) => piece.job.write(piece.data_offset, &bytes, target),
                (None, Some(error)) => piece.job.fail(chain(error)),
                (None, None) => piece.job.fail("its frame was not read".to_owned()),
            }
            self.piece_done(piece);
        }
    }

    /// Reads windows of a file ahead, each in the order of the packs, and writes them in its own. False when
    /// all was over before its end.
    fn restore_in_order(&mut self, job: &Job, list: &[ChunkRef]) -> Result<bool, ReadError> {
        let mut rest = list;
        let mut offset = 0;
        while !rest.is_empty() && !job.has_failed() {
            if self.is_over() {
                return Ok(false);
            }
            let mut bytes = 0;
            let fits = |chunk: &&ChunkRef| {
                bytes += u64::from(chunk.length);
                bytes <= WINDOW_BYTES
            };
            let count = rest.iter().take_while(fits).count().max(1);
            let (window, after) = rest.split_at(count.min(rest.len()));
            rest = after;
            for chunk in self.read_window(window)? {
                job.write(offset, &chunk, self.target);
                offset += chunk.len() as u64;
            }
        }
        if list.is_empty() {
            job.write_without_chunks(self.target);
        }
        Ok(true)
    }

    fn read_window(&mut self, window: &[ChunkRef]) -> Result<Vec<Vec<u8>>, ReadError> {
        let mut wanted: BTreeMap<(u32, u16), Vec<usize>> = BTreeMap::new();
        let mut records = Vec::new();
        for (number, chunk) in window.iter().enumerate() {
            let record = self.reader.find(&chunk.id)?;
            let frame = (record.pack, record.frame());
            wanted.entry(frame).or_default().push(number);
            records.push(record);
        }
        let frames: Vec<_> = wanted.keys().copied().collect();
        let mut opened = vec![Vec::new(); window.len()];
        let mut failure = None;
        for run in plan_runs(self.reader.index(), &frames) {
            let done = self.reader.look_at_run(&run, &mut |reader, frame, plain| {
                let numbers = wanted.get(&(run.pack, frame)).into_iter().flatten();
                let taken = plain.and_then(|plain| {
                    for number in numbers {
                        let chunk = window.get(*number).zip(records.get(*number));
                        if let Some((chunk, record)) = chunk
                            && let Some(place) = opened.get_mut(*number)
                        {
                            let kind = ChunkKind::Data;
                            *place = reader.chunk(kind, &chunk.id, record, plain)?.to_vec();
                        }
                    }
                    Ok(())
                });
                failure = failure.take().or(taken.err());
            });
            let Err(error) = done else { continue };
            let frames = run.frames.iter();
            let numbers = frames.filter_map(|frame| wanted.get(&(run.pack, *frame)));
            for number in numbers.flatten() {
                let (chunk, place) = (window.get(*number), opened.get_mut(*number));
                let moved = chunk.and_then(|chunk| {
                    let kind = ChunkKind::Data;
                    self.reader.read_moved(kind, &chunk.id, &error)
                });
                match (moved, place) {
                    (Some(bytes), Some(place)) => *place = bytes,
                    _ => return Err(error),
                }
            }
        }
        failure.map_or(Ok(opened), Err)
    }
}

/// True when a place is away or refuses, and not just one object of it.
pub(super) const fn is_place_lost(error: &ReadError) -> bool {
    match error {
        ReadError::Store(error) => {
            matches!(error.fault, StoreFault::Unreachable | StoreFault::Denied)
        }
        _ => false,
    }
}

/// Fails the file of a chunk that is not what its name says.
fn verify_piece(reader: &ChunkReader<'_>, piece: &Piece, frame: Result<&[u8], &ReadError>) {
    let chunk = match frame {
        Ok(frame) => reader
            .chunk(ChunkKind::Data, &piece.chunk.id, &piece.record, frame)
            .map_err(|error| chain(&error)),
        Err(error) => Err(chain(error)),
    };
    if let Err(error) = chunk {
        piece.job.fail(error);
    }
}

/// Chunks of one file that follow each other in a frame as they do in the file: they are written at once.
struct Span {
    job: Arc<Job>,
    data_offset: u64,
    /// Where they are in the plaintext of the frame.
    bytes: Range<usize>,
    chunks: usize,
}

impl Span {
    fn of(piece: Piece) -> Self {
        Self {
            data_offset: piece.data_offset,
            bytes: bytes_of(&piece),
            chunks: 1,
            job: piece.job,
        }
    }

    fn is_followed_by(&self, piece: &Piece) -> bool {
        let end = self.data_offset.checked_add(self.bytes.len() as u64);
        Arc::ptr_eq(&self.job, &piece.job)
            && end == Some(piece.data_offset)
            && self.bytes.end == bytes_of(piece).start
    }

    fn take(&mut self, piece: &Piece) {
        self.bytes.end = bytes_of(piece).end;
        self.chunks += 1;
    }

    /// Writes the chunks, unless their file failed; true when they were its last.
    fn write(&self, plain: &[u8], target: &dyn Target) -> bool {
        if !self.job.has_failed() {
            match plain.get(self.bytes.clone()) {
                Some(bytes) => self.job.write(self.data_offset, bytes, target),
                None => self
                    .job
                    .fail("its frame is shorter than it should be".to_owned()),
            }
        }
        self.job.count_down(self.chunks)
    }
}

fn bytes_of(piece: &Piece) -> Range<usize> {
    let start = usize::try_from(piece.record.offset()).unwrap_or(usize::MAX);
    let length = usize::try_from(piece.record.length()).unwrap_or(usize::MAX);
    start..start.saturating_add(length)
}
