//! The threads of a run: frames are compressed in parallel, sealed into packs by one thread, and
//! uploaded by some threads for each replica; one more writes the index meanwhile.
//!
//! Memory is bounded by bytes: the walk waits while so many bytes are in frames, and packs grow
//! only as far as those being stored leave room. Buffers go round.

mod level;
mod packer;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{Scope, ScopedJoinHandle};

use sealing::{ObjectKind, PART_OVERHEAD_BYTES};

use super::BackupOptions;
use super::copy::Copy;
use super::indexer::{ForIndex, StoredAt, index_all};
use crate::chunker::CHUNK_BYTES_MAX;
use crate::gate::{Gate, Permit, Pool};
use crate::index::{PackInfo, Record};
use crate::layout::ObjectHash;
use crate::pack::{ChunkEntry, Codec, Frame, METADATA_FRAME_BYTES, compress_into, is_large_noise};
use crate::throttle::{ByteRate, CpuShare};
use crate::tuning::Plan;
use level::Level;
use packer::Packer;

/// Queues are bounded by the bytes in them; this bounds what is beside the bytes.
const ITEMS_QUEUED: usize = 64;
/// Metadata is small and read often.
const METADATA_LEVEL: i32 = 3;
/// Sizes of buffers for chunks larger than a frame. One that was large once takes as much for ever,
/// so that a chunk gets none that is much larger than itself.
const LARGE_BYTES: [usize; 3] = [CHUNK_BYTES_MAX / 4, CHUNK_BYTES_MAX / 2, CHUNK_BYTES_MAX];
/// Bytes of buffers of each of these sizes that are kept.
const LARGE_BYTES_KEPT: usize = CHUNK_BYTES_MAX / 2;
/// Buffers for metadata that are kept.
const METADATA_BUFFERS: usize = 8;

/// Which of two open packs. Chunks of larger files go to either by chance, so that the sizes of
/// packs say nothing of the sizes of chunks. Inner pages go to the second one, leaves and chunk
/// lists to the first: then many of them share a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Side {
    First,
    Second,
}

/// What goes into one pack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Lane {
    pub(super) kind: ObjectKind,
    /// The bits of the replicas that lack these chunks.
    pub(super) replicas: u32,
    pub(super) side: Side,
}

/// Plaintext chunks that become one frame.
pub(super) struct FrameJob {
    pub(super) lane: Lane,
    pub(super) plain: Vec<u8>,
    pub(super) chunks: Vec<ChunkEntry>,
}

/// A pack made by this run.
pub(super) struct NewPack {
    pub(super) info: PackInfo,
    pub(super) replicas: u32,
    /// With ordinal 0.
    pub(super) records: Vec<Record>,
    pub(super) tail_bytes: u64,
    pub(super) tail_hash: ObjectHash,
    pub(super) stored_at: StoredAt,
}

/// What all threads of a run share.
pub(super) struct Flow {
    pub(super) plan: Plan,
    pub(super) buffers: Buffers,
    frames: Arc<Gate>,
    packs: Arc<Gate>,
    level: Level,
    upload: Option<ByteRate>,
    pub(super) cpu: Option<Arc<CpuShare>>,
}

impl Flow {
    fn new(options: &BackupOptions<'_>) -> Arc<Self> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let tuning = &options.tuning;
        let plan = Plan::of(tuning, cores);
        Arc::new(Self {
            plan,
            buffers: Buffers::of(&plan),
            frames: Gate::new(frame_count(&plan) * room(plan.frame_bytes)),
            packs: Gate::new(plan.packs_bytes_max),
            level: Level::of(tuning.compression),
            upload: tuning.limits.upload_per_sec.map(ByteRate::new),
            cpu: CpuShare::of(tuning.limits.cpu_percent, cores),
        })
    }

    /// Waits while the run used more than its share of the processors.
    pub(super) fn keep_cpu_share(&self) {
        if let Some(cpu) = &self.cpu {
            cpu.keep();
        }
    }
}

/// Frames of content under way.
const fn frame_count(plan: &Plan) -> usize {
    plan.frames_bytes_max.div_ceil(plan.frame_bytes)
}

/// Bytes of a buffer for a frame: it grows by its tag, and by a little when it does not compress.
fn room(plain: usize) -> usize {
    zstd::zstd_safe::compress_bound(plain) + PART_OVERHEAD_BYTES
}

/// Buffers of the sizes that a run needs.
pub(super) struct Buffers {
    data: Arc<Pool>,
    metadata: Arc<Pool>,
    /// The smallest first.
    large: [Arc<Pool>; LARGE_BYTES.len()],
    /// For packs of content only: those of metadata grow as they need.
    packs: Arc<Pool>,
}

impl Buffers {
    fn of(plan: &Plan) -> Self {
        let packs = plan.packs_bytes_max.div_ceil(plan.pack_bytes);
        Self {
            data: Pool::new(room(plan.frame_bytes), frame_count(plan)),
            metadata: Pool::new(room(METADATA_FRAME_BYTES), METADATA_BUFFERS),
            large: LARGE_BYTES.map(|bytes| Pool::new(room(bytes), LARGE_BYTES_KEPT / bytes)),
            packs: Pool::new(plan.pack_bytes, packs),
        }
    }

    /// Gives an empty buffer for a frame of at least `bytes` of plaintext.
    pub(super) fn take_frame(&self, kind: ObjectKind, bytes: usize) -> Vec<u8> {
        self.pool(kind, bytes).take()
    }

    fn give_frame(&self, kind: ObjectKind, buffer: Vec<u8>) {
        self.pool(kind, buffer.capacity()).give(buffer);
    }

    fn pool(&self, kind: ObjectKind, bytes: usize) -> &Pool {
        let ordinary = if kind == ObjectKind::DataPack {
            &self.data
        } else {
            &self.metadata
        };
        let pools = std::iter::once(ordinary).chain(&self.large);
        let mut fitting = pools.filter(|pool| bytes <= pool.capacity());
        fitting.next().unwrap_or(ordinary)
    }
}

struct Job {
    job: FrameJob,
    permit: Permit,
}

struct Compressed {
    lane: Lane,
    frame: Frame,
    permit: Permit,
}

/// What the packer is given.
enum ForPacker {
    Frame(Compressed),
    /// All open packs are to be closed before this is answered.
    Close(SyncSender<()>),
}

struct Upload {
    kind: ObjectKind,
    hash: ObjectHash,
    bytes: Vec<u8>,
    stored_at: StoredAt,
    flow: Arc<Flow>,
    /// Leaves after the bytes.
    _permit: Permit,
}

impl Drop for Upload {
    fn drop(&mut self) {
        let bytes = std::mem::take(&mut self.bytes);
        self.flow.buffers.packs.give(bytes);
    }
}

/// Takes frames and gives back the packs that they became.
pub(super) struct Pipeline<'scope> {
    pub(super) flow: Arc<Flow>,
    frames: SyncSender<Job>,
    to_packer: SyncSender<ForPacker>,
    to_indexer: Sender<ForIndex>,
    pushed: usize,
    /// Gives the number of frames that it packed.
    packer: ScopedJoinHandle<'scope, usize>,
    /// Gives the packs that are not in the index yet.
    indexer: ScopedJoinHandle<'scope, Vec<NewPack>>,
}

impl<'scope> Pipeline<'scope> {
    pub(super) fn start<'env: 'scope>(
        scope: &'scope Scope<'scope, 'env>,
        copies: &'env [Copy],
        options: &BackupOptions<'env>,
    ) -> Self {
        let flow = Flow::new(options);
        let (entropy, monitor) = (options.entropy, options.monitor);
        let uploads: Vec<_> = copies
            .iter()
            .map(|copy| start_uploads(scope, copy, &flow, *options))
            .collect();
        let (frames, jobs) = sync_channel(ITEMS_QUEUED);
        let (compressed, ready) = sync_channel(ITEMS_QUEUED);
        let jobs = Arc::new(Mutex::new(jobs));
        for _ in 0..flow.plan.compressors {
            let (jobs, compressed) = (jobs.clone(), compressed.clone());
            let flow = Arc::clone(&flow);
            scope.spawn(move || compress_all(&jobs, &compressed, &flow));
        }
        let (finished, packs) = channel();
        let to_indexer = finished.clone();
        let options = *options;
        let indexer = scope.spawn(move || index_all(copies, &options, &packs));
        let shared = Arc::clone(&flow);
        let packer = scope.spawn(move || {
            let mut packer = Packer {
                copies,
                entropy,
                monitor,
                uploads,
                flow: shared,
                open: BTreeMap::new(),
                begun: BTreeSet::new(),
                finished,
                packed: 0,
            };
            packer.run(&ready);
            packer.packed
        });
        Self {
            flow,
            frames,
            to_packer: compressed,
            to_indexer,
            pushed: 0,
            packer,
            indexer,
        }
    }

    /// Queues a frame, waiting while too much is under way. False when nobody takes it any more.
    pub(super) fn push(&mut self, job: FrameJob) -> bool {
        self.pushed += 1;
        // The buffer may have been full before.
        let permit = self.flow.frames.enter(job.plain.capacity());
        self.frames.send(Job { job, permit }).is_ok()
    }

    /// Waits until all that was pushed is stored and in an index. False when that cannot be.
    pub(super) fn settle(&self) -> bool {
        self.flow.frames.wait_until_empty();
        let (done, closed) = sync_channel(1);
        if self.to_packer.send(ForPacker::Close(done)).is_err() || closed.recv().is_err() {
            return false;
        }
        self.flow.packs.wait_until_empty();
        let (done, indexed) = sync_channel(1);
        self.to_indexer.send(ForIndex::Flush(done)).is_ok() && indexed.recv().is_ok()
    }

    /// Waits until all frames are in packs that are stored or queued; gives those that no index
    /// names yet. `None` when a frame was lost on the way, because a thread ended early: then
    /// nothing may be published.
    pub(super) fn finish(self) -> Option<Vec<NewPack>> {
        drop((self.frames, self.to_packer, self.to_indexer));
        let packed = self.packer.join().ok()?;
        let packs = self.indexer.join().ok()?;
        (packed == self.pushed).then_some(packs)
    }
}

fn take<T>(queue: &Mutex<Receiver<T>>) -> Option<T> {
    queue
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .recv()
        .ok()
}

fn compress_all(jobs: &Mutex<Receiver<Job>>, compressed: &SyncSender<ForPacker>, flow: &Flow) {
    while let Some(Job { job, permit }) = take(jobs) {
        let kind = job.lane.kind;
        let level = match kind {
            ObjectKind::DataPack => flow.level.now(),
            _ => METADATA_LEVEL,
        };
        let plain = u32::try_from(job.plain.len()).unwrap_or(u32::MAX);
        // Compression into memory fails only without memory; then this run cannot go on.
        let Ok((codec, payload)) = compress_one(job.plain, (kind, level), &flow.buffers) else {
            return;
        };
        let frame = Frame {
            codec,
            plain,
            payload,
            chunks: job.chunks,
        };
        let lane = job.lane;
        let next = Compressed {
            lane,
            frame,
            permit,
        };
        if compressed.send(ForPacker::Frame(next)).is_err() {
            return;
        }
        flow.keep_cpu_share();
    }
}

/// Compresses the plaintext of a frame, unless that gains nothing.
fn compress_one(
    plain: Vec<u8>,
    (kind, level): (ObjectKind, i32),
    buffers: &Buffers,
) -> io::Result<(Codec, Vec<u8>)> {
    if is_large_noise(&plain, level)? {
        return Ok((Codec::Raw, plain));
    }
    let mut packed = buffers.take_frame(kind, plain.len());
    let codec = compress_into(&plain, level, &mut packed)?;
    let (payload, free) = match codec {
        Codec::Zstd => (packed, plain),
        Codec::Raw => (plain, packed),
    };
    buffers.give_frame(kind, free);
    Ok((codec, payload))
}

fn start_uploads<'scope, 'env: 'scope>(
    scope: &'scope Scope<'scope, 'env>,
    copy: &'env Copy,
    flow: &Arc<Flow>,
    options: BackupOptions<'env>,
) -> SyncSender<Arc<Upload>> {
    let (sender, packs) = sync_channel::<Arc<Upload>>(ITEMS_QUEUED);
    let packs = Arc::new(Mutex::new(packs));
    for _ in 0..flow.plan.uploads {
        let packs = packs.clone();
        let flow = Arc::clone(flow);
        scope.spawn(move || {
            while let Some(pack) = take(&packs) {
                if !copy.is_live() {
                    continue;
                }
                if let Some(rate) = &flow.upload {
                    rate.pass(pack.bytes.len() as u64, options.monitor);
                }
                copy.beat(&options);
                match copy.put(pack.kind, &pack.hash, &pack.bytes) {
                    Ok(()) => drop(pack.stored_at.fetch_or(copy.bit, Ordering::AcqRel)),
                    Err(error) => copy.fail(error.into(), options.monitor),
                }
            }
        });
    }
    sender
}
