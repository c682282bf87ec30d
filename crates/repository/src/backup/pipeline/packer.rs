//! The thread that seals frames into packs and hands these to the uploaders.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, SyncSender};

use edge::{Entropy, Monitor};
use sealing::{Keyring, ObjectKind};

use super::level::Wait;
use super::{Compressed, Flow, ForPacker, Lane, NewPack, Side, Upload};
use crate::backup::copy::Copy;
use crate::backup::indexer::{ForIndex, StoredAt};
use crate::error::RepositoryError;
use crate::index::records_of;
use crate::layout::ObjectHash;
use crate::pack::{Frame, PackBuilder};

/// Seals frames into packs, one open pack for each lane.
pub(super) struct Packer<'env> {
    pub(super) copies: &'env [Copy],
    pub(super) entropy: &'env dyn Entropy,
    pub(super) monitor: &'env dyn Monitor,
    pub(super) uploads: Vec<SyncSender<Arc<Upload>>>,
    pub(super) flow: Arc<Flow>,
    pub(super) open: BTreeMap<Lane, PackBuilder>,
    /// Lanes that closed a pack.
    pub(super) begun: BTreeSet<Lane>,
    pub(super) finished: Sender<ForIndex>,
    /// Frames in finished packs.
    pub(super) packed: usize,
}

impl Packer<'_> {
    pub(super) fn run(&mut self, ready: &Receiver<ForPacker>) {
        while let Ok(given) = ready.recv() {
            let done = match given {
                ForPacker::Frame(next) => self.push(next),
                ForPacker::Close(done) => self.end().inspect(|()| {
                    let _ended = done.send(());
                }),
            };
            if let Err(error) = done {
                return self.give_up(error);
            }
        }
        if let Err(error) = self.end() {
            self.give_up(error);
        }
    }

    fn push(&mut self, next: Compressed) -> Result<(), sealing::ObjectError> {
        let lane = next.lane;
        // Packs grow only as far as those being stored leave room.
        let open: usize = self.open.values().map(PackBuilder::stored_bytes).sum();
        let room = open + next.frame.payload.len();
        self.flow.packs.wait_for_room(room);
        let mut pack = match self.open.remove(&lane) {
            Some(pack) if pack.has_room_for(&next.frame, self.full_bytes(lane)) => pack,
            Some(full) => {
                self.close(full, lane)?;
                self.begin(lane.kind)?
            }
            None => self.begin(lane.kind)?,
        };
        self.add(&mut pack, lane, next.frame)?;
        drop(next.permit);
        self.open.insert(lane, pack);
        Ok(())
    }

    fn add(
        &self,
        pack: &mut PackBuilder,
        lane: Lane,
        frame: Frame,
    ) -> Result<(), sealing::ObjectError> {
        let buffer = pack.push_and_give_back(frame)?;
        self.flow.buffers.give_frame(lane.kind, buffer);
        Ok(())
    }

    /// The two packs of one kind are filled half a pack apart, so that they are not both large at
    /// the same time.
    fn full_bytes(&self, lane: Lane) -> usize {
        let whole = self.flow.plan.pack_bytes;
        if lane.side == Side::Second && !self.begun.contains(&lane) {
            whole / 2
        } else {
            whole
        }
    }

    /// Closes what is open. What is left of two packs of one kind becomes one if it fits.
    fn end(&mut self) -> Result<(), sealing::ObjectError> {
        let seconds: Vec<_> = self.open.keys().copied().collect();
        for second in seconds {
            let first = Lane {
                side: Side::First,
                ..second
            };
            let bytes = |lane| self.open.get(lane).map(PackBuilder::stored_bytes);
            let (Side::Second, Some(left), Some(right)) =
                (second.side, bytes(&first), bytes(&second))
            else {
                continue;
            };
            // Trailer and filler come on top.
            if left + right > self.flow.plan.pack_bytes / 16 * 15 {
                continue;
            }
            if let (Some(mut pack), Some(rest)) =
                (self.open.remove(&first), self.open.remove(&second))
            {
                let (frames, buffer) = rest.into_frames()?;
                self.flow.buffers.packs.give(buffer);
                for frame in frames {
                    self.add(&mut pack, first, frame)?;
                }
                self.open.insert(first, pack);
            }
        }
        while let Some((lane, pack)) = self.open.pop_first() {
            self.close(pack, lane)?;
        }
        Ok(())
    }

    fn begin(&self, kind: ObjectKind) -> Result<PackBuilder, sealing::ObjectError> {
        let mut salt = [0; 32];
        self.entropy.fill(&mut salt);
        let buffer = match kind {
            ObjectKind::DataPack => self.flow.buffers.packs.take(),
            _ => Vec::new(),
        };
        PackBuilder::within(self.keyring()?, kind, &salt, buffer)
    }

    fn keyring(&self) -> Result<&Keyring, sealing::ObjectError> {
        let first = self.copies.first().ok_or(sealing::ObjectError::Damaged)?;
        Ok(first.domain.keyring())
    }

    fn close(&mut self, pack: PackBuilder, lane: Lane) -> Result<(), sealing::ObjectError> {
        self.begun.insert(lane);
        let pack = pack.finish()?;
        let stored = pack.stored;
        let tail_start = stored.bytes.len().saturating_sub(stored.tail_bytes);
        let tail = stored.bytes.get(tail_start..).unwrap_or_default();
        let stored_at = StoredAt::default();
        self.packed += pack.info.frames.len();
        let finished = NewPack {
            replicas: lane.replicas,
            records: records_of(0, &pack.frames),
            tail_bytes: stored.tail_bytes as u64,
            tail_hash: ObjectHash::of(tail),
            info: pack.info.clone(),
            stored_at: stored_at.clone(),
        };
        let upload = Arc::new(Upload {
            kind: lane.kind,
            hash: stored.hash,
            _permit: self.flow.packs.count(stored.bytes.len()),
            bytes: stored.bytes,
            stored_at,
            flow: Arc::clone(&self.flow),
        });
        for (copy, queue) in self.copies.iter().zip(&self.uploads) {
            if lane.replicas & copy.bit == 0 {
                continue;
            }
            if upload.kind == ObjectKind::MetadataPack {
                copy.domain
                    .keep_in_cache(upload.kind, &upload.hash, &upload.bytes);
            }
            // The uploaders end only after this thread, and so does the indexer.
            drop(queue.send(upload.clone()));
        }
        drop(self.finished.send(ForIndex::Pack(finished)));
        if lane.kind == ObjectKind::DataPack {
            self.flow.level.adapt(self.waited_for());
        }
        Ok(())
    }

    /// Says what the run waited for since the last pack of content.
    fn waited_for(&self) -> Wait {
        let waits = (self.flow.packs.take_waits(), self.flow.frames.take_waits());
        match waits {
            (1.., _) => Wait::Uploads,
            (0, 1..) => Wait::Compressors,
            (0, 0) => Wait::Source,
        }
    }

    fn give_up(&self, error: sealing::ObjectError) {
        for copy in self.copies {
            copy.fail(RepositoryError::Sealing(error), self.monitor);
        }
    }
}
