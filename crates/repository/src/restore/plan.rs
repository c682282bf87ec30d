//! The plan of a restore: chunks of many files, brought into the order of the packs, so that a frame
//! is fetched once for all of them.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::job::Job;
use crate::content::ChunkRef;
use crate::index::{Locate, Record};
use crate::reader::{FrameRun, plan_runs_up_to};

/// Chunks that are planned together: 1.5 MiB.
const PIECES_MAX: usize = 16 * 1024;
/// Files that are planned together, which takes 600 bytes for each.
const FILES_MAX: usize = 8 * 1024;
/// One request fetches at most this: several threads do so at once.
const REQUEST_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// A run that holds more chunks is divided between its frames: with small files it is not the
/// bytes that take the time.
const RUN_PIECES: usize = 2048;
/// The chunks planned last, whose frames are probably not all seen yet.
const RECENT_PIECES: usize = 64;

/// One chunk to be written.
#[derive(Clone)]
pub(super) struct Piece {
    pub(super) job: Arc<Job>,
    pub(super) data_offset: u64,
    pub(super) chunk: ChunkRef,
    pub(super) record: Record,
}

impl Piece {
    /// Pack and frame.
    pub(super) const fn frame(&self) -> (u32, u16) {
        (self.record.pack, self.record.frame())
    }
}

/// Frames that are fetched together, and what is to be written of them, in their order.
pub(super) struct PlannedRun {
    pub(super) run: FrameRun,
    pub(super) pieces: Vec<Piece>,
}

/// How much of a plan is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Extract {
    /// All but frames of which more is to be expected: they are not fetched twice.
    Settled,
    /// Everything.
    All,
}

/// What waits to be restored.
#[derive(Default)]
pub(super) struct Plan {
    pieces: Vec<Piece>,
    files: usize,
}

impl Plan {
    pub(super) fn add(&mut self, piece: Piece) {
        self.pieces.push(piece);
    }

    /// Counts a file whose chunks were added.
    pub(super) const fn count_file(&mut self) {
        self.files += 1;
    }

    pub(super) const fn is_full(&self) -> bool {
        self.pieces.len() >= PIECES_MAX || self.files >= FILES_MAX
    }

    /// Takes out what is to be fetched now.
    pub(super) fn take(&mut self, extract: Extract, index: &dyn Locate) -> Vec<PlannedRun> {
        let mut pieces = std::mem::take(&mut self.pieces);
        self.files = 0;
        if extract == Extract::Settled {
            let recent: BTreeSet<_> = pieces.iter().rev().take(RECENT_PIECES).collect_frames();
            let is_recent = |piece: &&Piece| recent.contains(&piece.frame());
            // Else it would grow without end, or gain little.
            if pieces.iter().filter(is_recent).count() <= pieces.len() / 2 {
                (self.pieces, pieces) = pieces
                    .into_iter()
                    .partition(|piece| recent.contains(&piece.frame()));
            }
        }
        pieces.sort_by_key(|piece| (piece.frame(), piece.record.offset()));
        runs(pieces, index)
    }
}

trait Frames {
    fn collect_frames(self) -> BTreeSet<(u32, u16)>;
}

impl<'p, I: Iterator<Item = &'p Piece>> Frames for I {
    fn collect_frames(self) -> BTreeSet<(u32, u16)> {
        self.map(Piece::frame).collect()
    }
}

/// Divides sorted chunks into runs.
fn runs(pieces: Vec<Piece>, index: &dyn Locate) -> Vec<PlannedRun> {
    let mut planned = Vec::new();
    let mut frames: Vec<(u32, u16)> = Vec::new();
    let mut here: Vec<Piece> = Vec::new();
    for piece in pieces {
        if frames.last() != Some(&piece.frame()) {
            if here.len() >= RUN_PIECES {
                close(&mut planned, &mut frames, &mut here, index);
            }
            frames.push(piece.frame());
        }
        here.push(piece);
    }
    close(&mut planned, &mut frames, &mut here, index);
    planned
}

fn close(
    planned: &mut Vec<PlannedRun>,
    frames: &mut Vec<(u32, u16)>,
    pieces: &mut Vec<Piece>,
    index: &dyn Locate,
) {
    let mut left = std::mem::take(pieces).into_iter().peekable();
    for run in plan_runs_up_to(REQUEST_BYTES_MAX, index, frames) {
        let last = (run.pack, run.frames.last().copied().unwrap_or_default());
        let pieces = std::iter::from_fn(|| left.next_if(|piece| piece.frame() <= last)).collect();
        planned.push(PlannedRun { run, pieces });
    }
    frames.clear();
}
