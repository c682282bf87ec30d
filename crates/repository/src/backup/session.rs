//! The walk of a run: decides for each entry whether it must be read, cuts and names what is
//! read, and hands on what some replica lacks.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use edge::{Entropy, Entry, EntryKind, Event, Opener, SourceError, SourceItem};
use model::{ByteCount, ErrorClass, Failure, Instant, escape};
use sealing::{ChunkId, ChunkKind, ChunkNamer, Keyring, ObjectKind};

use super::ahead::{Ahead, Item, New};
use super::copy::Copy;
use super::local::{KeptPages, PageKeeper};
use super::naming::Naming;
use super::parent::{Former, Parent};
use super::pipeline::{Flow, FrameJob, Lane, NewPack, Pipeline, Side};
use super::reread::Reread;
use super::short::Short;
use super::{BackupCounts, BackupOptions, Origin};
use crate::chunker::{Chunker, Class};
use crate::content::{Bytes, ChunkRef, Content, DEPTH_MAX, LIST_MAX, Node, encode_list};
use crate::error::{RepositoryError, chain};
use crate::index::{KnownIds, prefix_of};
use crate::pack::{ChunkEntry, METADATA_FRAME_BYTES};
use crate::snapshot::SnapshotFailure;
use crate::tree::{TreeBuilder, TreeRoot, check_node, is_inner};

mod checkpoint;
mod kept;
mod read;

use kept::{Run, renewed};

/// Failures that are reported one by one.
const FAILURE_COUNT_MAX: usize = 1000;
/// Entries between two looks whether it is time for a sign of life.
const ENTRIES_PER_BEAT: u64 = 256;
/// Files with several names whose content is remembered.
const LINKED_FILES_MAX: usize = 1_000_000;

/// What a walk leaves.
#[derive(Default)]
pub(super) struct Walked {
    pub(super) root: Option<TreeRoot>,
    pub(super) counts: BackupCounts,
    pub(super) failures: Vec<Failure>,
    pub(super) accounts: Vec<String>,
    pub(super) silent_changes: Vec<String>,
    pub(super) is_cancelled: bool,
    /// Pages that were kept on this machine.
    pub(super) pages: Option<KeptPages>,
}

/// The way to the content of an entry, and the content where it was read ahead.
type Way = (Option<Opener>, Option<Short>);

/// The work cannot go on: every replica is lost.
pub(super) struct Stopped;

/// Stores chunks that some replica lacks.
struct Storing<'scope, 'env> {
    copies: &'env [Copy],
    namer: ChunkNamer,
    chunker: Chunker,
    pipeline: Pipeline<'scope>,
    frames: BTreeMap<Lane, FrameJob>,
    /// Keeps pages here, where the repository's cannot be read.
    local: Option<PageKeeper<'env>>,
    /// Chunks of this run that every live replica has or is being sent.
    stored: KnownIds,
    coins: Coins<'env>,
    /// New bytes that no checkpoint has.
    unsafe_bytes: u64,
}

/// One walk.
pub(super) struct Session<'scope, 'env> {
    options: BackupOptions<'env>,
    storing: Storing<'scope, 'env>,
    naming: Naming,
    origin: Origin,
    /// What unchanged entries are taken from, the latest first.
    parents: Vec<Parent<'env>>,
    /// Said when the walk is behind the end of them.
    are_all_new: Arc<AtomicBool>,
    reread: Reread,
    checkpoint_at: Instant,
    tree: TreeBuilder,
    links: HashMap<(u64, u64), Node>,
    run: Option<Run>,
    buffer: Vec<u8>,
    walked: Walked,
    /// Chunks could not be handed on: the tree has gaps.
    is_stopped: bool,
}

impl<'scope, 'env> Session<'scope, 'env> {
    pub(super) fn new(
        copies: &'env [Copy],
        keyring: &Keyring,
        options: BackupOptions<'env>,
        (pipeline, naming): (Pipeline<'scope>, Naming),
    ) -> Self {
        let started_at = options.clock.now();
        let scratch = copies.first().and_then(|copy| copy.domain.scratch());
        let scratch = scratch.cloned();
        Self {
            options,
            storing: Storing {
                copies,
                namer: keyring.namer(),
                chunker: Chunker::new(keyring.gear_table()),
                pipeline,
                frames: BTreeMap::new(),
                local: copies
                    .iter()
                    .find_map(|copy| copy.local.as_ref())
                    .map(|local| local.keeper(options.entropy)),
                stored: KnownIds::new(scratch),
                coins: Coins {
                    entropy: options.entropy,
                    bits: 0,
                    left: 0,
                },
                unsafe_bytes: 0,
            },
            naming,
            origin: Origin {
                started_at,
                parent: None,
                reread_round: 0,
            },
            parents: Vec::new(),
            are_all_new: Arc::default(),
            reread: Reread::new(keyring.tree_hasher(), 0, 0),
            checkpoint_at: started_at,
            tree: TreeBuilder::new(keyring.tree_hasher()),
            links: HashMap::new(),
            run: None,
            buffer: Vec::new(),
            walked: Walked::default(),
            is_stopped: false,
        }
    }

    /// Takes what the run begins with.
    pub(super) fn begin(
        &mut self,
        origin: Origin,
        parents: Vec<Parent<'env>>,
        new: &New,
    ) -> Arc<Flow> {
        let percent = self.options.tuning.reread_percent;
        let keyring = self
            .storing
            .copies
            .first()
            .map(|copy| copy.domain.keyring());
        if let Some(keyring) = keyring {
            self.reread = Reread::new(keyring.tree_hasher(), percent, origin.reread_round);
        }
        self.origin = origin;
        self.parents = parents;
        self.are_all_new = new.are_all();
        Arc::clone(&self.storing.pipeline.flow)
    }

    /// Walks the source to its end, or until the work is cancelled or every replica is lost.
    pub(super) fn walk(&mut self, mut source: Ahead) {
        for number in 0_u64.. {
            if self.options.monitor.is_cancelled() {
                self.walked.is_cancelled = true;
                return;
            }
            if number.is_multiple_of(ENTRIES_PER_BEAT) {
                if self.parents.iter().all(Parent::is_at_end) {
                    self.are_all_new.store(true, Ordering::Relaxed);
                }
                let copies = self.storing.copies.iter().filter(|copy| copy.is_live());
                copies.for_each(|copy| copy.beat(&self.options));
            }
            let Some(Item { item, short }) = source.next() else {
                return;
            };
            let done = match item {
                Ok(SourceItem::Entry(entry, opener)) => self.entry(entry, (opener, short)),
                Ok(SourceItem::Failed(error)) => {
                    self.source_failed(&error);
                    Ok(())
                }
                Err(error) => {
                    self.source_failed(&error);
                    return;
                }
            };
            let done = done.and_then(|()| self.look_up());
            self.is_stopped = done.is_err() || !self.storing.has_live();
            if self.is_stopped {
                return;
            }
        }
    }

    /// Ends the tree, waits until everything is stored, and gives what the walk leaves.
    pub(super) fn finish(mut self) -> (Walked, Vec<NewPack>) {
        if self.walked.is_cancelled {
            self.is_stopped |= self.checkpoint().is_err();
        }
        self.is_stopped |= self.end_run().is_err();
        let may_publish = !self.walked.is_cancelled && !self.is_stopped;
        if may_publish && self.storing.has_live() {
            let storing = &mut self.storing;
            let root = self.tree.finish(&mut |page| storing.page(&page));
            if let Ok(root) = root {
                self.walked.counts.entries = root.entries;
                self.walked.counts.total_bytes = ByteCount::new(root.bytes);
                self.walked.root = Some(root);
            }
        }
        drop(self.parents);
        self.walked.pages = self.storing.local.take().and_then(PageKeeper::finish);
        let copies = self.storing.copies;
        let packs = self.storing.finish();
        let is_whole = packs.is_some() && (self.walked.root.is_some() || !may_publish);
        if !is_whole {
            self.walked.root = None;
            for copy in copies {
                copy.fail(RepositoryError::Exhausted, self.options.monitor);
            }
        }
        (self.walked, packs.unwrap_or_default())
    }

    fn entry(&mut self, entry: Entry, way: Way) -> Result<(), Stopped> {
        self.options.monitor.event(Event::Object(&entry.path));
        if !self.accepts(&entry) {
            self.failed(
                entry.path.to_string(),
                "it came twice or out of order".to_owned(),
                ErrorClass::Never,
            );
            return Ok(());
        }
        let former = if is_linked(&entry) && self.links.contains_key(&inode(&entry)) {
            None
        } else {
            self.former(&entry)
        };
        let is_read_again =
            former.is_some() && entry.kind == EntryKind::File && self.reread.selects(&entry.path);
        if let Some(former) = former
            .as_ref()
            .filter(|_| !is_read_again && !is_linked(&entry))
        {
            return self.keep(former, &entry);
        }
        self.end_run()?;
        let known = former.as_ref().and_then(Former::node);
        let node = match entry.kind {
            EntryKind::File | EntryKind::Stream => {
                match self.content_node(entry, way, (known, is_read_again))? {
                    Some(node) => node,
                    None => return Ok(()),
                }
            }
            _ => Node {
                entry,
                content: None,
            },
        };
        if let Err(reason) = check_node(&node) {
            let shown = node.entry.path.to_string();
            self.failed(shown, reason.to_owned(), ErrorClass::Never);
            return Ok(());
        }
        self.count(&node);
        self.push(node)
    }

    fn count(&mut self, node: &Node) {
        let counts = &mut self.walked.counts;
        counts.entries += 1;
        counts.total_bytes += ByteCount::new(node.size_bytes());
        match (&node.entry.kind, node.entry.path.split()) {
            (EntryKind::Stream, _) => counts.streams += 1,
            (EntryKind::Directory, Some(([], name))) => self.walked.accounts.push(escape(name)),
            _ => {}
        }
        self.options.monitor.event(Event::Progress {
            entries: counts.entries,
            bytes: counts.total_bytes,
            bytes_expected: None,
        });
    }

    /// Gives a file or stream with its content, or `None` when it failed. What is known of an
    /// unchanged one is enough, unless it is to be read again.
    fn content_node(
        &mut self,
        entry: Entry,
        way: Way,
        (known, is_read_again): (Option<&Node>, bool),
    ) -> Result<Option<Node>, Stopped> {
        let link = inode(&entry);
        let is_linked = is_linked(&entry);
        if let Some(first) = self.links.get(&link).filter(|_| is_linked) {
            let mut node = first.clone();
            node.entry.path = entry.path;
            return Ok(Some(node));
        }
        let node = match known {
            Some(known) if !is_read_again => {
                self.walked.counts.unchanged += 1;
                Some(renewed(known, &entry))
            }
            Some(known) => Some(self.read_again(known, entry, way)?),
            None => match self.renamed_mail(&entry) {
                Some(node) => Some(node),
                None => self.read(entry, way)?,
            },
        };
        if let Some(node) = node.as_ref().filter(|_| is_linked)
            && self.links.len() < LINKED_FILES_MAX
        {
            self.links.insert(link, node.clone());
        }
        Ok(node)
    }

    /// Reads a file that seems unchanged, and tells when it is not. What cannot be read stays as
    /// it was.
    fn read_again(&mut self, known: &Node, entry: Entry, way: Way) -> Result<Node, Stopped> {
        let as_it_was = renewed(known, &entry);
        let Some(node) = self.read(entry, way)? else {
            return Ok(as_it_was);
        };
        let stamps = |entry: &Entry| (entry.size_bytes, entry.modified, entry.changed, entry.inode);
        let bytes = |node: &Node| node.content.as_ref().map(|content| content.bytes.clone());
        let is_same_class =
            |content: &Content| node.content.as_ref().map(|now| now.class) == Some(content.class);
        let is_silent = stamps(&node.entry) == stamps(&known.entry)
            && known.content.as_ref().is_some_and(is_same_class)
            && bytes(&node) != bytes(known);
        if is_silent {
            self.walked.counts.silent_changes += 1;
            if self.walked.silent_changes.len() < FAILURE_COUNT_MAX {
                let shown = node.entry.path.to_string();
                self.walked.silent_changes.push(shown);
            }
        }
        Ok(node)
    }

    fn source_failed(&mut self, error: &SourceError) {
        self.failed(error.object.clone(), chain(error), error.class);
    }

    fn failed(&mut self, object: String, error: String, class: ErrorClass) {
        self.options.monitor.event(Event::Failed {
            object: &object,
            error: &error,
        });
        self.walked.counts.failed += 1;
        if self.walked.failures.len() < FAILURE_COUNT_MAX {
            self.walked.failures.push(Failure {
                object,
                error,
                class,
            });
        }
    }
}

impl Storing<'_, '_> {
    fn has_live(&self) -> bool {
        self.copies.iter().any(Copy::is_live)
    }

    fn all_hold(&self, list: &[ChunkRef]) -> bool {
        list.iter().all(|chunk| self.all_hold_chunk(&chunk.id))
    }

    fn all_hold_chunk(&self, id: &ChunkId) -> bool {
        let mut live = self.copies.iter().filter(|copy| copy.is_live());
        // Without an answer it is read again, and stored again.
        let is_stored = || self.stored.contains(&prefix_of(id)).unwrap_or(false);
        live.all(|copy| copy.contains(id)) || is_stored()
    }

    /// Names a chunk and stores it where it is lacking.
    fn chunk(&mut self, kind: ChunkKind, side: Side, bytes: &[u8]) -> Result<ChunkRef, Stopped> {
        let id = self.namer.name(kind, bytes);
        self.named(kind, side, (id, bytes))
    }

    /// Stores a chunk that has its name, where it is lacking.
    fn named(
        &mut self,
        kind: ChunkKind,
        side: Side,
        (id, bytes): (ChunkId, &[u8]),
    ) -> Result<ChunkRef, Stopped> {
        self.pipeline.flow.keep_cpu_share();
        let length = u32::try_from(bytes.len()).map_err(|_| Stopped)?;
        if let Some(local) = &mut self.local {
            local.push(kind, &id, bytes);
        }
        let chunk = ChunkRef { id, length };
        let live = self.copies.iter().filter(|copy| copy.is_live());
        let lacking = live.filter(|copy| !copy.contains(&id));
        let replicas = lacking.fold(0, |set, copy| set | copy.bit);
        // Without an answer it is stored once more, which hurts nothing but space.
        if replicas == 0 || !self.stored.insert(prefix_of(&id)).unwrap_or(true) {
            return Ok(chunk);
        }
        let (object, frame_bytes) = match kind {
            ChunkKind::Data => (ObjectKind::DataPack, self.pipeline.flow.plan.frame_bytes),
            ChunkKind::Page | ChunkKind::List => (ObjectKind::MetadataPack, METADATA_FRAME_BYTES),
        };
        let lane = Lane {
            kind: object,
            replicas,
            side,
        };
        let is_full = |frame: &FrameJob| frame.plain.len() + bytes.len() > frame_bytes;
        if self.frames.get(&lane).is_some_and(is_full) {
            self.flush(lane)?;
        }
        let buffers = &self.pipeline.flow.buffers;
        let frame = self.frames.entry(lane).or_insert_with(|| FrameJob {
            lane,
            plain: buffers.take_frame(object, bytes.len()),
            chunks: Vec::new(),
        });
        self.unsafe_bytes += match kind {
            ChunkKind::Data => bytes.len() as u64,
            ChunkKind::Page | ChunkKind::List => 0,
        };
        frame.plain.extend_from_slice(bytes);
        frame.chunks.push(ChunkEntry { kind, id, length });
        if frame.plain.len() >= frame_bytes {
            // A large chunk does not lie here until the next one comes.
            self.flush(lane)?;
        }
        Ok(chunk)
    }

    fn page(&mut self, page: &[u8]) -> Result<ChunkId, Stopped> {
        // Who looks up an entry reads an inner page of each level, but few leaves.
        let side = match is_inner(page) {
            true => Side::Second,
            false => Side::First,
        };
        self.chunk(ChunkKind::Page, side, page)
            .map(|chunk| chunk.id)
    }

    /// Gives the content of a list of chunks; a long list is stored as chunks itself.
    fn content_of(&mut self, mut list: Vec<ChunkRef>) -> Result<Bytes, Stopped> {
        let mut depth = 0;
        while list.len() > LIST_MAX {
            if depth == DEPTH_MAX {
                return Err(Stopped);
            }
            let bytes = encode_list(&list);
            let mut rest = bytes.as_slice();
            list.clear();
            while !rest.is_empty() {
                let (piece, after) = rest.split_at(self.chunker.cut_all(Class::Dump, rest));
                list.push(self.chunk(ChunkKind::List, Side::First, piece)?);
                rest = after;
            }
            depth += 1;
        }
        Ok(Bytes::Chunks { depth, list })
    }

    fn flush(&mut self, lane: Lane) -> Result<(), Stopped> {
        let Some(frame) = self.frames.remove(&lane) else {
            return Ok(());
        };
        if self.pipeline.push(frame) {
            Ok(())
        } else {
            Err(Stopped)
        }
    }

    fn finish(mut self) -> Option<Vec<NewPack>> {
        self.join_sides();
        while let Some((_, frame)) = self.frames.pop_first() {
            if !self.pipeline.push(frame) {
                break;
            }
        }
        self.pipeline.finish()
    }
}

impl Storing<'_, '_> {
    /// Makes one frame of what is left of two, if it fits.
    fn join_sides(&mut self) {
        let data_bytes = self.pipeline.flow.plan.frame_bytes;
        let lanes: Vec<_> = self.frames.keys().copied().collect();
        for lane in lanes.into_iter().filter(|lane| lane.side == Side::Second) {
            let frame_bytes = match lane.kind {
                ObjectKind::MetadataPack => METADATA_FRAME_BYTES,
                _ => data_bytes,
            };
            let Some(second) = self.frames.remove(&lane) else {
                continue;
            };
            let beside = Lane {
                side: Side::First,
                ..lane
            };
            match self.frames.get_mut(&beside) {
                Some(first) if first.plain.len() + second.plain.len() <= frame_bytes => {
                    first.plain.extend_from_slice(&second.plain);
                    first.chunks.extend(second.chunks);
                }
                _ => {
                    self.frames.insert(lane, second);
                }
            }
        }
    }
}

/// Decisions by chance.
struct Coins<'env> {
    entropy: &'env dyn Entropy,
    bits: u64,
    left: u32,
}

impl Coins<'_> {
    fn toss(&mut self) -> Side {
        if self.left == 0 {
            let mut bytes = [0; 8];
            self.entropy.fill(&mut bytes);
            self.bits = u64::from_le_bytes(bytes);
            self.left = u64::BITS;
        }
        let side = if self.bits & 1 == 0 {
            Side::First
        } else {
            Side::Second
        };
        self.bits >>= 1;
        self.left -= 1;
        side
    }
}

/// Gives the failures as a snapshot names them.
pub(super) fn for_snapshot(failures: &[Failure]) -> Vec<SnapshotFailure> {
    failures
        .iter()
        .take(crate::snapshot::FAILURE_COUNT_MAX)
        .map(|failure| SnapshotFailure {
            object: failure.object.clone(),
            error: failure.error.clone(),
        })
        .collect()
}

/// Tells files apart.
const fn inode(entry: &Entry) -> (u64, u64) {
    (entry.device, entry.inode)
}

/// True for a file with several names.
fn is_linked(entry: &Entry) -> bool {
    entry.kind == EntryKind::File && entry.link_count > 1
}

/// Content that was read, before it is known whether it may be used.
struct Fresh {
    content: Content,
    data_bytes: u64,
}
