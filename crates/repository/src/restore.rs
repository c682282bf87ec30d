//! Restoring: plans reads in pack order, verifies every chunk, collects what fails and goes on.

mod files;
mod workers;

use std::collections::{BTreeSet, HashMap};

use edge::{EntryKind, Event, Monitor, Phase, Target, TreePath};
use model::{ByteCount, ErrorClass, Failure};

use crate::content::Node;
use crate::error::{RepositoryError, chain};
use crate::reader::ChunkReader;
use crate::snapshot::Snapshot;
use crate::tree::{PageLost, TreeWalk};
use crate::view::{View, find};
use files::{Batch, Done};
use workers::Workers;

/// Failures that are reported one by one.
const FAILURE_COUNT_MAX: usize = 1000;

/// What a restore did.
#[derive(Debug, Default)]
pub struct RestoreReport {
    /// Entries restored.
    pub entries: u64,
    /// Bytes of content restored.
    pub bytes: ByteCount,
    /// Entries that could not be restored.
    pub failed: u64,
    /// The first of them.
    pub failures: Vec<Failure>,
    /// True when the monitor stopped the restore.
    pub is_cancelled: bool,
}

/// What became of the first name of an inode.
enum FirstName {
    /// It is under way.
    Waiting,
    /// It was finished.
    Finished(TreePath),
}

struct Restore<'a> {
    reader: ChunkReader<'a>,
    target: &'a dyn Target,
    workers: Workers,
    monitor: &'a dyn Monitor,
    report: RestoreReport,
    expected: Option<ByteCount>,
    batch: Batch,
    first_names: HashMap<(u64, u64), FirstName>,
    /// Further names of inodes whose first name is under way.
    further_names: HashMap<(u64, u64), Vec<Node>>,
    /// Directories that could not be made.
    lost: BTreeSet<TreePath>,
}

impl View {
    /// Restores entries of a snapshot: each of `paths` with everything below it, and the
    /// directories above it. `TreePath::root()` restores everything.
    ///
    /// # Errors
    ///
    /// `Read` when a path that was asked for cannot be looked up. What fails alone is in the
    /// report; a path that the snapshot lacks is a failure, too.
    pub fn restore(
        &self,
        snapshot: &Snapshot,
        paths: &[TreePath],
        target: &mut dyn Target,
        monitor: &dyn Monitor,
    ) -> Result<RestoreReport, RepositoryError> {
        monitor.event(Event::Phase(Phase::Planning));
        let expected = self.expected_bytes(snapshot, paths);
        let mut report = std::thread::scope(|scope| {
            let target = &*target;
            let mut restore = Restore {
                reader: ChunkReader::new(&self.domain, self.locate()),
                target,
                workers: Workers::start(scope, (&self.domain, self.locate()), target),
                monitor,
                report: RestoreReport::default(),
                expected,
                batch: Batch::default(),
                first_names: HashMap::new(),
                further_names: HashMap::new(),
                lost: BTreeSet::new(),
            };
            restore.run(snapshot, paths)?;
            Ok::<_, RepositoryError>(restore.report)
        })?;
        for error in target.finish() {
            report.failed(monitor, error.object.clone(), chain(&error));
        }
        Ok(report)
    }

    /// Measures what is to be restored, each name of a file with several counted; nothing when
    /// pages are damaged.
    fn expected_bytes(&self, snapshot: &Snapshot, paths: &[TreePath]) -> Option<ByteCount> {
        outermost(paths)
            .into_iter()
            .try_fold(ByteCount::ZERO, |sum, path| {
                Some(sum + self.size_of(snapshot, path).ok()?.bytes)
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
        self.flush();
        while let Some(done) = self.workers.take() {
            self.all_done(done);
            // When a first name failed, the next one became the first.
            self.flush();
        }
        Ok(())
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
            if self.monitor.is_cancelled() {
                self.report.is_cancelled = true;
                return;
            }
            match walk.next(&mut self.reader) {
                Ok(Some(node)) => self.node(node),
                Ok(None) => return,
                Err(lost) => self.page_lost(&lost),
            }
        }
    }

    fn page_lost(&mut self, lost: &PageLost) {
        let from = TreePath::from_key(&lost.first_key).unwrap_or_default();
        self.failed(format!("entries from {from} on"), chain(&*lost.error));
    }

    fn node(&mut self, node: Node) {
        let path = &node.entry.path;
        self.monitor.event(Event::Object(path));
        if self.is_below_lost(path) {
            let error = "its directory could not be restored".to_owned();
            return self.failed(path.to_string(), error);
        }
        match node.entry.kind {
            EntryKind::File | EntryKind::Stream => self.file(node),
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
        let inode = (entry.device, entry.inode);
        let is_linked = entry.kind != EntryKind::Directory && entry.link_count > 1;
        let done = match self.first_names.get(&inode).filter(|_| is_linked) {
            Some(FirstName::Finished(first)) => self.target.link(&entry, first),
            Some(FirstName::Waiting) | None => self.target.create(&entry),
        };
        match done {
            Ok(()) => {
                if is_linked {
                    let first = FirstName::Finished(entry.path);
                    self.first_names.entry(inode).or_insert(first);
                }
                self.restored(0);
            }
            Err(error) => {
                let shown = entry.path.to_string();
                if entry.kind == EntryKind::Directory {
                    self.lost.insert(entry.path);
                }
                self.failed(shown, chain(&error));
            }
        }
    }

    /// Restores a file or stream, or a further name of one.
    fn file(&mut self, node: Node) {
        let entry = &node.entry;
        let inode = (entry.device, entry.inode);
        if entry.kind == EntryKind::File && entry.link_count > 1 {
            match self.first_names.get(&inode) {
                Some(FirstName::Waiting) => {
                    return self.further_names.entry(inode).or_default().push(node);
                }
                Some(FirstName::Finished(first)) => {
                    return match self.target.link(entry, first) {
                        Ok(()) => self.restored(0),
                        Err(error) => self.failed(entry.path.to_string(), chain(&error)),
                    };
                }
                None => {
                    self.first_names.insert(inode, FirstName::Waiting);
                }
            }
        }
        let list = node
            .content
            .as_ref()
            .map(|content| self.reader.chunk_list(content));
        match list.transpose() {
            Ok(list) => self.batch.add(node, list.unwrap_or_default()),
            Err(error) => self.file_done(&node, Err(chain(&error))),
        }
        if self.batch.is_full() {
            self.flush();
        }
    }

    /// Hands out what waits, and takes what is finished.
    fn flush(&mut self) {
        while !self.batch.is_empty() {
            let batch = std::mem::take(&mut self.batch);
            if !self.workers.give(batch) {
                return;
            }
            while let Some(done) = self.workers.try_take() {
                self.all_done(done);
            }
        }
    }

    fn all_done(&mut self, done: Vec<Done>) {
        for (node, result) in done {
            self.file_done(&node, result);
        }
        self.monitor.event(Event::Progress {
            entries: self.report.entries,
            bytes: self.report.bytes,
            bytes_expected: self.expected,
        });
    }

    fn file_done(&mut self, node: &Node, result: Result<u64, String>) {
        let entry = &node.entry;
        let inode = (entry.device, entry.inode);
        let is_linked = entry.kind == EntryKind::File && entry.link_count > 1;
        match result {
            Ok(bytes) => {
                if is_linked {
                    let first = FirstName::Finished(entry.path.clone());
                    self.first_names.insert(inode, first);
                }
                self.restored(bytes);
            }
            Err(error) => {
                if is_linked {
                    self.first_names.remove(&inode);
                }
                self.failed(entry.path.to_string(), error);
            }
        }
        if is_linked {
            for further in self.further_names.remove(&inode).unwrap_or_default() {
                self.file(further);
            }
        }
    }

    fn is_below_lost(&self, path: &TreePath) -> bool {
        !self.lost.is_empty() && self.lost.iter().any(|lost| path.is_within(lost))
    }

    fn restored(&mut self, bytes: u64) {
        self.report.entries += 1;
        self.report.bytes += ByteCount::new(bytes);
    }

    fn failed(&mut self, object: String, error: String) {
        self.report.failed(self.monitor, object, error);
    }
}
