//! The least that the first backup of a tree can cost on this machine: `ceiling DIRECTORY OUTPUT`.
//!
//! On all cores files are read, hashed with BLAKE3, and what was not seen before is compressed with zstd-3 where that is
//! worth it, sealed with XChaCha20-Poly1305 and hashed again; beside that it is written, and made durable every 16 MiB:
//! what Backstay has to do for the bytes that it stores, and nothing else. No boundaries are looked for, nothing is looked
//! up, packed, indexed, or described; what is written here cannot be read back. `make bench` prints how much of this
//! Backstay reaches.
#![expect(
    clippy::print_stdout,
    reason = "this is a command that talks to people"
)]

use std::collections::HashSet;
use std::error::Error;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Instant;

use chacha20poly1305::aead::AeadInOut;
use chacha20poly1305::{KeyInit, XChaCha20Poly1305, XNonce};
use zstd::bulk::Compressor;

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

const LEVEL: i32 = 3;
/// What is hashed, and compressed, at once.
const PIECE_BYTES: usize = 1 << 20;
/// Longer files are read by several cores, each a part at a time.
const PART_BYTES: u64 = 16 << 20;
/// So much is made durable at once.
const DURABLE_BYTES: usize = 16 << 20;
/// Frames that wait to be written.
const WAITING: usize = 32;
/// So much of a frame says whether compressing the rest is worth it.
const PROBE_BYTES: usize = 64 << 10;

fn main() -> Result<()> {
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    let [directory, output] = arguments.as_slice() else {
        return Err("usage: ceiling DIRECTORY OUTPUT".into());
    };
    let begun = Instant::now();
    let mut parts = Vec::new();
    collect(Path::new(directory), &mut parts)?;
    let work = &Work {
        parts,
        next: AtomicUsize::new(0),
        seen: Mutex::default(),
    };
    let cores = thread::available_parallelism()?.get();
    let bytes = thread::scope(|scope| {
        let (sender, frames) = sync_channel(WAITING);
        let writer = scope.spawn(move || write(Path::new(output), &frames));
        let lanes: Vec<_> = (0..cores)
            .map(|_| sender.clone())
            .map(|sender| scope.spawn(move || Lane::new(sender)?.run(work)))
            .collect();
        drop(sender);
        let failed = |_| Err("a thread failed".into());
        for lane in lanes {
            lane.join().unwrap_or_else(failed)?;
        }
        writer.join().map_err(|_| "the writer failed")?
    })?;
    let secs = begun.elapsed().as_secs_f64();
    println!(
        "{} parts of files, {bytes} bytes written in {secs:.2} s",
        work.parts.len()
    );
    Ok(())
}

/// A part of a file.
struct Part {
    path: PathBuf,
    from: u64,
}

fn collect(directory: &Path, parts: &mut Vec<Part>) -> Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_dir() {
            collect(&entry.path(), parts)?;
        } else if kind.is_file() {
            let parts_of = entry.metadata()?.len().div_ceil(PART_BYTES);
            parts.extend((0..parts_of).map(|number| Part {
                path: entry.path(),
                from: number * PART_BYTES,
            }));
        }
    }
    Ok(())
}

/// What all lanes share.
struct Work {
    parts: Vec<Part>,
    next: AtomicUsize,
    seen: Mutex<HashSet<[u8; 32]>>,
}

fn write(output: &Path, frames: &Receiver<Vec<u8>>) -> Result<usize> {
    let mut out = File::create(output)?;
    let (mut written, mut durable) = (0, 0);
    for frame in frames {
        out.write_all(&frame)?;
        written += frame.len();
        if written - durable >= DURABLE_BYTES {
            out.sync_data()?;
            durable = written;
        }
    }
    out.sync_all()?;
    Ok(written)
}

/// What one core does.
struct Lane {
    frames: SyncSender<Vec<u8>>,
    frame: Vec<u8>,
    packed: Vec<u8>,
    compressor: Compressor<'static>,
    cipher: XChaCha20Poly1305,
    number: u64,
}

impl Lane {
    fn new(frames: SyncSender<Vec<u8>>) -> Result<Self> {
        Ok(Self {
            frames,
            frame: Vec::with_capacity(2 * PIECE_BYTES),
            packed: Vec::with_capacity(zstd::zstd_safe::compress_bound(2 * PIECE_BYTES)),
            compressor: Compressor::new(LEVEL)?,
            cipher: XChaCha20Poly1305::new(&[7; 32].into()),
            number: 0,
        })
    }

    fn run(mut self, work: &Work) -> Result<()> {
        let mut piece = vec![0; PIECE_BYTES];
        while let Some(part) = work.parts.get(work.next.fetch_add(1, Ordering::Relaxed)) {
            let file = File::open(&part.path)?;
            let mut at = part.from;
            while at < part.from + PART_BYTES {
                let read = file.read_at(&mut piece, at)?;
                at += read as u64;
                let bytes = piece.get(..read).unwrap_or_default();
                if bytes.is_empty() {
                    break;
                }
                let hash = blake3::keyed_hash(&[7; 32], bytes);
                let mut seen = work.seen.lock().unwrap_or_else(PoisonError::into_inner);
                let is_new = seen.insert(*hash.as_bytes());
                drop(seen);
                if is_new {
                    self.frame.extend_from_slice(bytes);
                }
                if self.frame.len() >= PIECE_BYTES {
                    self.close_frame()?;
                }
                if read < PIECE_BYTES {
                    break;
                }
            }
        }
        self.close_frame()
    }

    fn close_frame(&mut self) -> Result<()> {
        if self.is_worth_it()? {
            let bound = zstd::zstd_safe::compress_bound(self.frame.len());
            self.packed.reserve(bound);
            self.compressor
                .compress_to_buffer(&self.frame, &mut self.packed)?;
            std::mem::swap(&mut self.frame, &mut self.packed);
        }
        self.number += 1;
        let mut nonce = [0; 24];
        let (counter, _) = nonce.split_at_mut(8);
        counter.copy_from_slice(&self.number.to_le_bytes());
        self.cipher
            .encrypt_in_place(&XNonce::from(nonce), b"", &mut self.frame)
            .map_err(|_| "sealing failed")?;
        std::hint::black_box(blake3::hash(&self.frame));
        let next = Vec::with_capacity(2 * PIECE_BYTES);
        self.frames.send(std::mem::replace(&mut self.frame, next))?;
        self.packed.clear();
        Ok(())
    }

    /// True when the beginning of the frame loses a twentieth at the quickest level.
    fn is_worth_it(&mut self) -> Result<bool> {
        let probe = self.frame.get(..PROBE_BYTES).unwrap_or(&self.frame);
        self.compressor.set_compression_level(1)?;
        self.compressor
            .compress_to_buffer(probe, &mut self.packed)?;
        let packed = self.packed.len();
        let is_worth_it = packed < probe.len() - probe.len() / 20;
        self.packed.clear();
        self.compressor.set_compression_level(LEVEL)?;
        Ok(is_worth_it)
    }
}
