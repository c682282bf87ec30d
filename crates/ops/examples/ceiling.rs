//! The least that the first backup of a tree can cost on this machine: `ceiling DIRECTORY OUTPUT`.
//!
//! On all cores files are read, hashed with BLAKE3, and what was not seen before is compressed with zstd-3 where that is
//! worth it, sealed with XChaCha20-Poly1305, hashed again and written one after the other: what Backstay has to compute
//! for the bytes that it stores, and nothing else. No boundaries are looked for, nothing is looked up, packed, indexed,
//! or described; what is written here cannot be read back. `make bench` prints how much of this Backstay reaches.
#![expect(
    clippy::print_stdout,
    reason = "this is a command that talks to people"
)]

use std::collections::HashSet;
use std::error::Error;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
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
/// So much of a frame says whether compressing the rest is worth it.
const PROBE_BYTES: usize = 64 << 10;

fn main() -> Result<()> {
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    let [directory, output] = arguments.as_slice() else {
        return Err("usage: ceiling DIRECTORY OUTPUT".into());
    };
    fs::create_dir_all(output)?;
    let begun = Instant::now();
    let mut files = Vec::new();
    collect(Path::new(directory), &mut files)?;
    let work = &Work {
        files,
        next: AtomicUsize::new(0),
        seen: Mutex::default(),
    };
    let cores = thread::available_parallelism()?.get();
    let stored: Vec<Result<u64>> = thread::scope(|scope| {
        let lanes: Vec<_> = (0..cores)
            .map(|lane| scope.spawn(move || Lane::new(output, lane)?.run(work)))
            .collect();
        let failed = |_| Err("a thread failed".into());
        lanes
            .into_iter()
            .map(|lane| lane.join().unwrap_or_else(failed))
            .collect()
    });
    let bytes = stored.into_iter().sum::<Result<u64>>()?;
    let secs = begun.elapsed().as_secs_f64();
    println!(
        "{} files, {bytes} bytes written in {secs:.2} s",
        work.files.len()
    );
    Ok(())
}

fn collect(directory: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_dir() {
            collect(&entry.path(), files)?;
        } else if kind.is_file() {
            files.push(entry.path());
        }
    }
    Ok(())
}

/// What all lanes share.
struct Work {
    files: Vec<PathBuf>,
    next: AtomicUsize,
    seen: Mutex<HashSet<[u8; 32]>>,
}

/// What one core does.
struct Lane {
    out: File,
    frame: Vec<u8>,
    packed: Vec<u8>,
    compressor: Compressor<'static>,
    cipher: XChaCha20Poly1305,
    number: u64,
    stored: u64,
}

impl Lane {
    fn new(output: &OsStr, lane: usize) -> Result<Self> {
        Ok(Self {
            out: File::create(Path::new(output).join(lane.to_string()))?,
            frame: Vec::with_capacity(2 * PIECE_BYTES),
            packed: Vec::with_capacity(zstd::zstd_safe::compress_bound(2 * PIECE_BYTES)),
            compressor: Compressor::new(LEVEL)?,
            cipher: XChaCha20Poly1305::new(&[7; 32].into()),
            number: 0,
            stored: 0,
        })
    }

    fn run(mut self, work: &Work) -> Result<u64> {
        let mut piece = vec![0; PIECE_BYTES];
        while let Some(path) = work.files.get(work.next.fetch_add(1, Ordering::Relaxed)) {
            let mut file = File::open(path)?;
            loop {
                let read = file.read(&mut piece)?;
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
        self.close_frame()?;
        Ok(self.stored)
    }

    fn close_frame(&mut self) -> Result<()> {
        if self.is_worth_it()? {
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
        self.out.write_all(&self.frame)?;
        self.stored += self.frame.len() as u64;
        self.frame.clear();
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
