//! The threads of a run: frames are compressed in parallel, sealed into packs by one thread, and
//! uploaded by some threads for each replica; one more writes the index meanwhile. Channels are short, so memory stays bounded:
//! a few frames of at most 8 MiB and a few packs of about 16 MiB.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{Scope, ScopedJoinHandle};

use edge::{Entropy, Monitor};
use sealing::{Keyring, ObjectKind};

use super::BackupOptions;
use super::copy::Copy;
use super::indexer::{StoredAt, index_all};
use crate::error::RepositoryError;
use crate::index::{PackInfo, Record, records_of};
use crate::layout::ObjectHash;
use crate::pack::{ChunkEntry, Frame, PackBuilder, compress};

/// Frames that wait for a compressor, and as many for the packer.
const FRAMES_QUEUED: usize = 4;
const COMPRESSORS_MAX: usize = 4;
const UPLOADS_PER_REPLICA: usize = 2;
/// None waits: a pack is 16 MiB, and one is being filled meanwhile.
const PACKS_QUEUED: usize = 0;
/// Metadata is small and read often.
const METADATA_LEVEL: i32 = 3;

/// Plaintext chunks that become one frame.
pub(super) struct FrameJob {
    pub(super) kind: ObjectKind,
    /// The bits of the replicas that lack these chunks.
    pub(super) replicas: u32,
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

struct Compressed {
    kind: ObjectKind,
    replicas: u32,
    frame: Frame,
}

struct Upload {
    kind: ObjectKind,
    hash: ObjectHash,
    bytes: Vec<u8>,
    stored_at: StoredAt,
}

/// Takes frames and gives back the packs that they became.
pub(super) struct Pipeline<'scope> {
    frames: SyncSender<FrameJob>,
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
        let uploads: Vec<_> = copies
            .iter()
            .map(|copy| start_uploads(scope, copy, options.monitor))
            .collect();
        let (frames, jobs) = sync_channel(FRAMES_QUEUED);
        let (compressed, ready) = sync_channel(FRAMES_QUEUED);
        let jobs = Arc::new(Mutex::new(jobs));
        let level = i32::from(options.compression);
        let workers = std::thread::available_parallelism().map_or(1, usize::from);
        for _ in 0..workers.min(COMPRESSORS_MAX) {
            let (jobs, compressed) = (jobs.clone(), compressed.clone());
            scope.spawn(move || compress_all(&jobs, &compressed, level));
        }
        let (entropy, monitor) = (options.entropy, options.monitor);
        let (finished, packs) = channel();
        let options = *options;
        let indexer = scope.spawn(move || index_all(copies, &options, &packs));
        let packer = scope.spawn(move || {
            let mut packer = Packer {
                copies,
                entropy,
                monitor,
                uploads,
                open: BTreeMap::new(),
                finished,
                packed: 0,
            };
            packer.run(&ready);
            packer.packed
        });
        Self {
            frames,
            pushed: 0,
            packer,
            indexer,
        }
    }

    /// Queues a frame, waiting while the queues are full. False when nobody takes it any more.
    pub(super) fn push(&mut self, job: FrameJob) -> bool {
        self.pushed += 1;
        self.frames.send(job).is_ok()
    }

    /// Waits until all frames are in packs that are stored or queued; gives those that no index
    /// names yet. `None` when a frame was lost on the way, because a thread ended early: then
    /// nothing may be published.
    pub(super) fn finish(self) -> Option<Vec<NewPack>> {
        drop(self.frames);
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

fn compress_all(jobs: &Mutex<Receiver<FrameJob>>, compressed: &SyncSender<Compressed>, level: i32) {
    while let Some(job) = take(jobs) {
        let level = match job.kind {
            ObjectKind::DataPack => level,
            _ => METADATA_LEVEL,
        };
        let plain = u32::try_from(job.plain.len()).unwrap_or(u32::MAX);
        // Compression into memory fails only without memory; then this run cannot go on.
        let Ok((codec, payload)) = compress(job.plain, level) else {
            return;
        };
        let frame = Frame {
            codec,
            plain,
            payload,
            chunks: job.chunks,
        };
        let next = Compressed {
            kind: job.kind,
            replicas: job.replicas,
            frame,
        };
        if compressed.send(next).is_err() {
            return;
        }
    }
}

fn start_uploads<'scope, 'env: 'scope>(
    scope: &'scope Scope<'scope, 'env>,
    copy: &'env Copy,
    monitor: &'env dyn Monitor,
) -> SyncSender<Arc<Upload>> {
    let (sender, packs) = sync_channel::<Arc<Upload>>(PACKS_QUEUED);
    let packs = Arc::new(Mutex::new(packs));
    for _ in 0..UPLOADS_PER_REPLICA {
        let packs = packs.clone();
        scope.spawn(move || {
            while let Some(pack) = take(&packs) {
                if !copy.is_live() {
                    continue;
                }
                match copy.put(pack.kind, &pack.hash, &pack.bytes) {
                    Ok(()) => drop(pack.stored_at.fetch_or(copy.bit, Ordering::AcqRel)),
                    Err(error) => copy.fail(error.into(), monitor),
                }
            }
        });
    }
    sender
}

/// Seals frames into packs, one open pack for each kind and set of replicas.
struct Packer<'env> {
    copies: &'env [Copy],
    entropy: &'env dyn Entropy,
    monitor: &'env dyn Monitor,
    uploads: Vec<SyncSender<Arc<Upload>>>,
    open: BTreeMap<(ObjectKind, u32), PackBuilder>,
    finished: Sender<NewPack>,
    packed: usize,
}

impl Packer<'_> {
    fn run(&mut self, ready: &Receiver<Compressed>) {
        while let Ok(next) = ready.recv() {
            if let Err(error) = self.push(next) {
                return self.give_up(error);
            }
        }
        while let Some(((_, replicas), pack)) = self.open.pop_first() {
            if let Err(error) = self.close(pack, replicas) {
                return self.give_up(error);
            }
        }
    }

    fn push(&mut self, next: Compressed) -> Result<(), sealing::ObjectError> {
        let key = (next.kind, next.replicas);
        let mut pack = match self.open.remove(&key) {
            Some(pack) => pack,
            None => self.begin(next.kind)?,
        };
        pack.push(next.frame)?;
        if pack.is_full() {
            return self.close(pack, next.replicas);
        }
        self.open.insert(key, pack);
        Ok(())
    }

    fn begin(&self, kind: ObjectKind) -> Result<PackBuilder, sealing::ObjectError> {
        let mut salt = [0; 32];
        self.entropy.fill(&mut salt);
        PackBuilder::new(self.keyring()?, kind, &salt)
    }

    fn keyring(&self) -> Result<&Keyring, sealing::ObjectError> {
        let first = self.copies.first().ok_or(sealing::ObjectError::Damaged)?;
        Ok(first.domain.keyring())
    }

    fn close(&mut self, pack: PackBuilder, replicas: u32) -> Result<(), sealing::ObjectError> {
        let pack = pack.finish()?;
        let stored = pack.stored;
        let tail_start = stored.bytes.len().saturating_sub(stored.tail_bytes);
        let tail = stored.bytes.get(tail_start..).unwrap_or_default();
        let stored_at = StoredAt::default();
        self.packed += pack.info.frames.len();
        let finished = NewPack {
            replicas,
            records: records_of(0, &pack.frames),
            tail_bytes: stored.tail_bytes as u64,
            tail_hash: ObjectHash::of(tail),
            info: pack.info.clone(),
            stored_at: stored_at.clone(),
        };
        let upload = Arc::new(Upload {
            kind: pack.info.kind,
            hash: stored.hash,
            bytes: stored.bytes,
            stored_at,
        });
        for (copy, queue) in self.copies.iter().zip(&self.uploads) {
            if replicas & copy.bit == 0 {
                continue;
            }
            if upload.kind == ObjectKind::MetadataPack {
                copy.domain
                    .keep_in_cache(upload.kind, &upload.hash, &upload.bytes);
            }
            // The uploaders end only after this thread, and so does the indexer.
            drop(queue.send(upload.clone()));
        }
        drop(self.finished.send(finished));
        Ok(())
    }

    fn give_up(&self, error: sealing::ObjectError) {
        for copy in self.copies {
            copy.fail(RepositoryError::Sealing(error), self.monitor);
        }
    }
}
