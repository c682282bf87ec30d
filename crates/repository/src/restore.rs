//! Restoring: plans reads in pack order, verifies every chunk, collects what fails and goes on.

mod files;

use std::collections::{BTreeSet, HashMap};

use edge::{EntryKind, Event, Monitor, Phase, Target, TreePath};
use model::{ByteCount, ErrorClass, Failure};

use crate::content::Node;
use crate::error::{RepositoryError, chain};
use crate::reader::ChunkReader;
use crate::snapshot::Snapshot;
use crate::tree::{PageLost, TreeWalk};
use crate::view::{View, find};
use files::Batch;

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
    /// It waits in the batch.
    Waiting,
    /// It was finished.
    Finished(TreePath),
}

struct Restore<'a> {
    reader: ChunkReader<'a>,
    target: &'a mut dyn Target,
    monitor: &'a dyn Monitor,
    report: RestoreReport,
    batch: Batch,
    first_names: HashMap<(u64, u64), FirstName>,
    /// Further names of inodes whose first name is in the batch.
    further_names: Vec<Node>,
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
        let mut restore = Restore {
            reader: ChunkReader::new(&self.domain, &self.index),
            target,
            monitor,
            report: RestoreReport::default(),
            batch: Batch::default(),
            first_names: HashMap::new(),
            further_names: Vec::new(),
            lost: BTreeSet::new(),
        };
        let single = restore.single_entries(snapshot, paths)?;
        monitor.event(Event::Phase(Phase::Restoring));
        for node in single {
            restore.node(node);
        }
        for path in outermost(paths) {
            restore.everything_below(snapshot, path);
        }
        restore.flush();
        for error in restore.target.finish() {
            restore.failed(error.object.clone(), chain(&error), ErrorClass::Never);
        }
        Ok(restore.report)
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
                    self.failed(path.to_string(), error, ErrorClass::Never);
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
        self.failed(
            format!("entries from {from} on"),
            chain(&*lost.error),
            ErrorClass::Never,
        );
    }

    fn node(&mut self, node: Node) {
        let path = &node.entry.path;
        self.monitor.event(Event::Object(path));
        if self.is_below_lost(path) {
            let error = "its directory could not be restored".to_owned();
            return self.failed(path.to_string(), error, ErrorClass::Never);
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
                self.failed(shown, chain(&error), ErrorClass::Never);
            }
        }
    }

    /// Restores a file or stream, or a further name of one.
    fn file(&mut self, node: Node) {
        let entry = &node.entry;
        let inode = (entry.device, entry.inode);
        if entry.kind == EntryKind::File && entry.link_count > 1 {
            match self.first_names.get(&inode) {
                Some(FirstName::Waiting) => return self.further_names.push(node),
                Some(FirstName::Finished(first)) => {
                    return match self.target.link(entry, first) {
                        Ok(()) => self.restored(0),
                        Err(error) => {
                            self.failed(entry.path.to_string(), chain(&error), ErrorClass::Never);
                        }
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
            Err(error) => self.file_failed(&node, chain(&error)),
        }
        if self.batch.is_full() {
            self.flush();
        }
    }

    /// Restores what waits, and then the further names that waited for it.
    fn flush(&mut self) {
        while !self.batch.is_empty() {
            let batch = std::mem::take(&mut self.batch);
            for (node, result) in batch.write(&mut self.reader, self.target) {
                match result {
                    Ok(bytes) => self.file_finished(&node, bytes),
                    Err(error) => self.file_failed(&node, error),
                }
            }
            let entries = self.report.entries;
            let bytes = self.report.bytes;
            self.monitor.event(Event::Progress {
                entries,
                bytes,
                bytes_expected: None,
            });
            // When the first name failed, the next one becomes the first and may wait again.
            for node in std::mem::take(&mut self.further_names) {
                self.file(node);
            }
        }
    }

    fn file_finished(&mut self, node: &Node, bytes: u64) {
        let entry = &node.entry;
        if entry.link_count > 1 {
            let first = FirstName::Finished(entry.path.clone());
            self.first_names.insert((entry.device, entry.inode), first);
        }
        self.restored(bytes);
    }

    fn file_failed(&mut self, node: &Node, error: String) {
        let entry = &node.entry;
        self.first_names.remove(&(entry.device, entry.inode));
        self.failed(entry.path.to_string(), error, ErrorClass::Never);
    }

    fn is_below_lost(&self, path: &TreePath) -> bool {
        !self.lost.is_empty() && self.lost.iter().any(|lost| path.is_within(lost))
    }

    fn restored(&mut self, bytes: u64) {
        self.report.entries += 1;
        self.report.bytes += ByteCount::new(bytes);
    }

    fn failed(&mut self, object: String, error: String, class: ErrorClass) {
        self.monitor.event(Event::Failed {
            object: &object,
            error: &error,
        });
        self.report.failed += 1;
        if self.report.failures.len() < FAILURE_COUNT_MAX {
            self.report.failures.push(Failure {
                object,
                error,
                class,
            });
        }
    }
}
