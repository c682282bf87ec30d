//! Restoring: plans reads in pack order, verifies every chunk, collects what fails and goes on.

mod compare;
mod job;
mod links;
mod plan;
mod told;
mod workers;

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use edge::{Entry, EntryKind, Event, Monitor, Phase, Target, TreePath};
use model::{ByteCount, ErrorClass, Failure};

use crate::content::{ChunkRef, Node};
use crate::error::{ReadError, RepositoryError, chain};
use crate::index::Record;
use crate::reader::ChunkReader;
use crate::snapshot::Snapshot;
use crate::tree::{PageLost, TreeWalk};
use crate::view::{View, find};
use compare::{Portion, Waiting, portions};
use job::Job;
use links::{Inode, Links, Name};
use plan::{Extract, Piece, Plan};
use workers::{Work, Workers, is_place_lost};

/// Failures that are reported one by one.
const FAILURE_COUNT_MAX: usize = 1000;
/// Files without chunks that are written in one go.
const WITHOUT_CHUNKS_MAX: usize = 256;
/// Files with chunks in several frames that are under way, and may be open, at a time.
const SPREAD_MAX: usize = 256;
/// Directories that could not be made and are remembered. What lies below others fails by itself.
const LOST_MAX: usize = 1_000_000;

/// What a restore did.
#[derive(Debug, Default)]
pub struct RestoreReport {
    /// Entries restored.
    pub entries: u64,
    /// Bytes of content restored.
    pub bytes: ByteCount,
    /// Files among them of which a restore that was cut had left all content.
    pub kept: u64,
    /// Bytes of content that it had left, in these and in others.
    pub kept_bytes: ByteCount,
    /// Entries that could not be restored.
    pub failed: u64,
    /// The first of them.
    pub failures: Vec<Failure>,
    /// True when the monitor stopped the restore.
    pub is_cancelled: bool,
}

struct Restore<'a> {
    reader: ChunkReader<'a>,
    target: &'a dyn Target,
    workers: Workers,
    monitor: &'a dyn Monitor,
    report: RestoreReport,
    expected: Option<ByteCount>,
    plan: Plan,
    without_chunks: Vec<Arc<Job>>,
    /// Files that may be there already.
    to_compare: Waiting,
    /// What of them is not.
    missing: VecDeque<Portion>,
    /// Files that are not done.
    under_way: usize,
    /// Those of them with chunks in several frames.
    spread: Vec<Arc<Job>>,
    links: Links,
    /// Further names whose first one was done meanwhile.
    again: VecDeque<Node>,
    /// Directories that could not be made.
    lost: BTreeSet<TreePath>,
    /// Why the place cannot be read any more.
    place_lost: Option<ReadError>,
}

impl View {
    /// Restores entries of a snapshot: each of `paths` with everything below it, and the
    /// directories above it. `TreePath::root()` restores everything.
    ///
    /// # Errors
    ///
    /// `Read` when a path that was asked for cannot be looked up, and when the place is away: then, and when the
    /// monitor stops it, the target is not finished, and may go on later. What fails alone is in the report; a path
    /// that the snapshot lacks is a failure, too.
    pub fn restore(
        &self,
        snapshot: &Snapshot,
        paths: &[TreePath],
        target: &mut dyn Target,
        monitor: &dyn Monitor,
    ) -> Result<RestoreReport, RepositoryError> {
        monitor.event(Event::Phase(Phase::Planning));
        // What measuring reads is read again right after: it is kept.
        let mut reader = ChunkReader::new(&self.domain, self.locate());
        let expected = self.expected_bytes(&mut reader, snapshot, paths);
        let mut report = std::thread::scope(|scope| {
            let target = &*target;
            let mut restore = Restore {
                reader,
                target,
                workers: Workers::start(scope, (&self.domain, self.locate()), target),
                monitor,
                report: RestoreReport::default(),
                expected,
                plan: Plan::default(),
                without_chunks: Vec::new(),
                to_compare: Waiting::default(),
                missing: VecDeque::new(),
                under_way: 0,
                spread: Vec::new(),
                links: Links::default(),
                again: VecDeque::new(),
                lost: BTreeSet::new(),
                place_lost: None,
            };
            restore.run(snapshot, paths)?;
            Ok::<_, RepositoryError>(restore.report)
        })?;
        if report.is_cancelled {
            // Half of a tree takes nobody's place.
            return Ok(report);
        }
        for error in target.finish() {
            report.failed(monitor, error.object.clone(), chain(&error));
        }
        Ok(report)
    }

    /// Measures what is to be restored, each name of a file with several counted; nothing when
    /// pages are damaged.
    fn expected_bytes(
        &self,
        reader: &mut ChunkReader<'_>,
        snapshot: &Snapshot,
        paths: &[TreePath],
    ) -> Option<ByteCount> {
        outermost(paths)
            .into_iter()
            .try_fold(ByteCount::ZERO, |sum, path| {
                Some(sum + self.size_with(reader, snapshot, path).ok()?.bytes)
            })
    }
}

impl RestoreReport {
    fn failed(&mut self, monitor: &dyn Monitor, object: String, error: String) {
        monitor.event(Event::Failed {
            object: &object,
            error: &error,
        });
        self.failed += 1;
        if self.failures.len() < FAILURE_COUNT_MAX {
            self.failures.push(Failure {
                object,
                error,
                class: ErrorClass::Never,
            });
        }
    }
}

/// Leaves out paths that lie within others.
fn outermost(paths: &[TreePath]) -> BTreeSet<&TreePath> {
    let is_outermost = |path: &&TreePath| {
        !paths
            .iter()
            .any(|other| other != *path && path.is_within(other))
    };
    paths.iter().filter(is_outermost).collect()
}

impl Restore<'_> {
    fn run(&mut self, snapshot: &Snapshot, paths: &[TreePath]) -> Result<(), RepositoryError> {
        let single = self.single_entries(snapshot, paths)?;
        self.monitor.event(Event::Phase(Phase::Restoring));
        for node in single {
            self.node(node);
        }
        for path in outermost(paths) {
            self.everything_below(snapshot, path);
        }
        self.settle();
        match self.place_lost.take() {
            Some(error) => Err(error.into()),
            None => Ok(()),
        }
    }

    /// Notes when an error means that all others would follow; gives what it says.
    fn look_at(&mut self, error: ReadError) -> String {
        let text = chain(&error);
        if is_place_lost(&error) {
            self.place_lost.get_or_insert(error);
        }
        text
    }

    /// Looks up the paths themselves and the directories above them, in order.
    fn single_entries(
        &mut self,
        snapshot: &Snapshot,
        paths: &[TreePath],
    ) -> Result<Vec<Node>, RepositoryError> {
        let mut wanted = BTreeSet::new();
        for path in outermost(paths) {
            let above = std::iter::successors(Some(path.clone()), TreePath::parent);
            wanted.extend(above.filter(|path| path.name().is_some()));
        }
        let mut found = Vec::new();
        for path in wanted {
            match find(&mut self.reader, snapshot, &path)? {
                Some(node) => found.push(node),
                None => {
                    let error = "the snapshot does not hold it".to_owned();
                    self.failed(path.to_string(), error);
                }
            }
        }
        Ok(found)
    }

    fn everything_below(&mut self, snapshot: &Snapshot, path: &TreePath) {
        let mut walk = TreeWalk::new(snapshot.root, path.key_below());
        loop {
            if self.is_over() {
                return;
            }
            match walk.next(&mut self.reader) {
                Ok(Some(node)) => self.node(node),
                Ok(None) => return,
                Err(lost) => self.page_lost(lost),
            }
        }
    }

    fn page_lost(&mut self, lost: PageLost) {
        let from = TreePath::from_key(&lost.first_key).unwrap_or_default();
        let error = self.look_at(*lost.error);
        if self.place_lost.is_none() {
            self.failed(format!("entries from {from} on"), error);
        }
    }

    fn node(&mut self, node: Node) {
        let path = &node.entry.path;
        self.monitor.event(Event::Object(path));
        if self.is_below_lost(path) {
            let error = "its directory could not be restored".to_owned();
            return self.failed(path.to_string(), error);
        }
        match node.entry.kind {
            EntryKind::File | EntryKind::Stream => {
                self.file(node);
                self.further_names();
                if self.links.are_many_waiting() {
                    self.settle();
                }
            }
            EntryKind::Directory
            | EntryKind::Symlink { .. }
            | EntryKind::Fifo
            | EntryKind::CharDevice { .. }
            | EntryKind::BlockDevice { .. } => self.without_content(node),
        }
    }

    /// Restores a directory, or a link, pipe or device, of which further names become hard links.
    fn without_content(&mut self, node: Node) {
        let entry = node.entry;
        let inode = linked(&entry);
        let done = match inode.map(|inode| self.links.look(inode)) {
            Some(Name::Further(first)) => self.target.link(&entry, first),
            Some(Name::First | Name::Waits) | None => self.target.create(&entry),
        };
        match done {
            Ok(()) => {
                if let Some(inode) = inode {
                    self.links.made(inode, &entry);
                }
                self.restored(0);
            }
            Err(error) => {
                let shown = entry.path.to_string();
                if entry.kind == EntryKind::Directory && self.lost.len() < LOST_MAX {
                    self.lost.insert(entry.path);
                }
                self.failed(shown, chain(&error));
            }
        }
    }

    /// Restores a file or stream, or a further name of one.
    fn file(&mut self, node: Node) {
        if let Some(inode) = linked(&node.entry) {
            match self.links.look(inode) {
                Name::Waits => return self.links.wait(inode, node),
                Name::Further(first) => {
                    let done = self.target.link(&node.entry, first);
                    self.links.made(inode, &node.entry);
                    return match done {
                        Ok(()) => self.restored(0),
                        Err(error) => self.failed(node.entry.path.to_string(), chain(&error)),
                    };
                }
                Name::First => self.links.begin(inode),
            }
        }
        let content = node.content.as_ref();
        match content.map(|content| self.reader.chunk_list(content)) {
            Some(Err(error)) => {
                let error = self.look_at(error);
                if self.place_lost.is_none() {
                    self.file_done(&node, Err(error));
                }
            }
            Some(Ok(list)) => self.plan_file(node, list),
            None => self.plan_file(node, Vec::new()),
        }
    }

    fn plan_file(&mut self, node: Node, list: Vec<ChunkRef>) {
        let is_in_order = self.target.takes_in_order(&node.entry);
        let is_spread = is_in_order || self.is_spread(&list);
        let job = Arc::new(Job::new(node, &list, is_spread));
        self.under_way += 1;
        if is_spread {
            self.spread.push(Arc::clone(&job));
        }
        if job.has_failed() {
            self.job_done(&(job.clone(), job.finish(self.target)));
        } else if is_in_order {
            self.give(Work::InOrder(job, list));
        } else if list.is_empty() {
            self.without_chunks.push(job);
            if self.without_chunks.len() >= WITHOUT_CHUNKS_MAX {
                self.flush_without_chunks();
            }
        } else if self.target.goes_on() {
            for portion in portions(&job, &list) {
                self.to_compare.add(portion);
                if self.to_compare.is_enough() {
                    self.flush_to_compare();
                    self.plan_missing();
                }
            }
        } else {
            let mut offset = 0;
            self.plan_chunks(
                &job,
                list.iter().map(|chunk| {
                    let at = offset;
                    offset += u64::from(chunk.length);
                    (at, *chunk)
                }),
            );
        }
        if self.spread.len() >= SPREAD_MAX {
            self.finish_some(SPREAD_MAX / 2);
        }
    }

    /// Plans what was found not to be there.
    fn plan_missing(&mut self) {
        while let Some(portion) = self.missing.pop_front() {
            self.plan_chunks(&portion.job, portion.chunks.into_iter());
        }
    }

    /// Waits until no more than so many files with chunks in several frames are under way.
    fn finish_some(&mut self, spread: usize) {
        while !self.is_over() {
            self.plan_missing();
            self.flush(Extract::All);
            if self.spread.len() <= spread || self.missing.is_empty() && !self.wait_for_one() {
                return;
            }
        }
    }

    fn plan_chunks(&mut self, job: &Arc<Job>, chunks: impl Iterator<Item = (u64, ChunkRef)>) {
        for (data_offset, chunk) in chunks {
            match self.locate(&chunk) {
                Ok(record) => self.plan.add(Piece {
                    job: Arc::clone(job),
                    data_offset,
                    chunk,
                    record,
                }),
                Err(error) => {
                    let error = self.look_at(error);
                    if self.place_lost.is_some() {
                        return;
                    }
                    self.give_up(job, error);
                }
            }
            if self.plan.is_full() {
                self.flush(Extract::Settled);
                if self.is_over() {
                    return;
                }
            }
        }
        self.plan.count_file();
    }

    /// Gives up one chunk of a file, and with it the file.
    fn give_up(&mut self, job: &Arc<Job>, error: String) {
        job.fail(error);
        if job.count_down(1) {
            self.job_done(&(Arc::clone(job), job.finish(self.target)));
        }
    }

    /// True when chunks of a file are in several frames, so that it may be open for long.
    fn is_spread(&mut self, list: &[ChunkRef]) -> bool {
        let mut frames = list.iter().map(|chunk| {
            let record = self.reader.find(&chunk.id).ok();
            record.map(|record| (record.pack, record.frame()))
        });
        let first = frames.next();
        frames.any(|frame| Some(frame) != first)
    }

    fn locate(&self, chunk: &ChunkRef) -> Result<Record, ReadError> {
        let record = self.reader.find(&chunk.id)?;
        let pack = self.reader.index().pack(record.pack);
        let frame = pack.and_then(|pack| pack.frames.get(usize::from(record.frame())));
        // A frame that nobody can fetch would never be done.
        frame
            .map(|_| record)
            .ok_or(ReadError::Unknown { chunk: chunk.id })
    }

    /// Hands out what is planned, and takes what is finished.
    fn flush(&mut self, extract: Extract) {
        for run in self.plan.take(extract, self.reader.index()) {
            self.give(Work::Run(run));
        }
        if extract == Extract::All {
            self.flush_without_chunks();
            self.flush_to_compare();
        }
    }

    fn flush_to_compare(&mut self) {
        let portions = self.to_compare.take();
        if !portions.is_empty() {
            self.give(Work::Compare(portions));
        }
    }

    fn flush_without_chunks(&mut self) {
        if !self.without_chunks.is_empty() {
            let jobs = std::mem::take(&mut self.without_chunks);
            self.give(Work::WithoutChunks(jobs));
        }
    }

    fn give(&mut self, work: Work) {
        if self.workers.give(work) {
            while let Some(told) = self.workers.try_take() {
                self.told(told);
            }
            self.progress();
        }
    }

    /// Does everything that was begun.
    fn settle(&mut self) {
        while !self.is_over() {
            self.further_names();
            self.plan_missing();
            self.flush(Extract::All);
            let is_idle = self.again.is_empty() && self.missing.is_empty();
            if is_idle && !self.wait_for_one() {
                return;
            }
        }
    }

    /// Restores further names whose first one was done meanwhile.
    fn further_names(&mut self) {
        while let Some(node) = self.again.pop_front() {
            self.file(node);
        }
    }

    fn is_below_lost(&self, path: &TreePath) -> bool {
        let mut up = std::iter::successors(Some(path.clone()), TreePath::parent);
        !self.lost.is_empty() && up.any(|path| self.lost.contains(&path))
    }
}

/// Gives the inode of an entry that may have several names.
fn linked(entry: &Entry) -> Option<Inode> {
    let may_be_linked = match entry.kind {
        EntryKind::Directory | EntryKind::Stream => false,
        EntryKind::File
        | EntryKind::Symlink { .. }
        | EntryKind::Fifo
        | EntryKind::CharDevice { .. }
        | EntryKind::BlockDevice { .. } => entry.link_count > 1,
    };
    may_be_linked.then_some((entry.device, entry.inode))
}
