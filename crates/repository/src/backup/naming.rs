//! A thread that names the chunks of long content, while what follows is read and cut.
//!
//! Cutting takes longer than naming, and both longer than all that is left to do with content that
//! is stored already. What was named while it was compared with the previous snapshot only passes.

use std::ops::Range;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::Scope;

use sealing::{ChunkId, ChunkKind, ChunkNamer};

use super::pipeline::Side;

/// Windows in the thread's hands: one that it names, and one that it did.
const WINDOWS_MAX: usize = 2;

/// One chunk of a window.
pub(super) struct Piece {
    pub(super) place: Range<usize>,
    pub(super) side: Side,
    /// Its name, where it is known.
    pub(super) id: Option<ChunkId>,
}

/// A window of content, and the chunks in it.
#[derive(Default)]
pub(super) struct Cut {
    pub(super) bytes: Vec<u8>,
    pub(super) pieces: Vec<Piece>,
    /// Of the pieces, when they have names.
    pub(super) ids: Vec<ChunkId>,
}

/// Where windows go to, and come back from in the same order.
pub(super) struct Naming {
    cuts: SyncSender<Cut>,
    named: Receiver<Cut>,
    under_way: usize,
    spare: Vec<Vec<u8>>,
}

impl Naming {
    /// Begins the thread, which ends when this is dropped.
    pub(super) fn start<'scope>(scope: &'scope Scope<'scope, '_>, namer: ChunkNamer) -> Self {
        let (cuts, given) = sync_channel::<Cut>(WINDOWS_MAX);
        let (done, named) = sync_channel(WINDOWS_MAX);
        scope.spawn(move || {
            while let Ok(mut cut) = given.recv() {
                let bytes = |piece: &Piece| cut.bytes.get(piece.place.clone());
                let name = |bytes| namer.name(ChunkKind::Data, bytes);
                let pieces = cut.pieces.iter();
                cut.ids = pieces
                    .map(|piece| match piece.id {
                        Some(id) => id,
                        None => name(bytes(piece).unwrap_or_default()),
                    })
                    .collect();
                if done.send(cut).is_err() {
                    return;
                }
            }
        });
        Self {
            cuts,
            named,
            under_way: 0,
            spare: Vec::new(),
        }
    }

    /// Hands on a window. False when the thread ended.
    pub(super) fn give(&mut self, cut: Cut) -> bool {
        self.under_way += 1;
        self.cuts.send(cut).is_ok()
    }

    /// Waits for the oldest window; `None` when there is none, or the thread ended.
    pub(super) fn take(&mut self) -> Option<Cut> {
        self.under_way = self.under_way.checked_sub(1)?;
        self.named.recv().ok()
    }

    /// Tells how many windows are to come back.
    pub(super) const fn under_way(&self) -> usize {
        self.under_way
    }

    /// Gives a buffer for the next window, with anything in it.
    pub(super) fn spare(&mut self) -> Vec<u8> {
        self.spare.pop().unwrap_or_default()
    }

    /// Takes a buffer back.
    pub(super) fn give_back(&mut self, buffer: Vec<u8>) {
        if self.spare.len() < WINDOWS_MAX {
            self.spare.push(buffer);
        }
    }
}
