//! What is written past the page cache is what is read, whichever way, wherever pieces begin and end.

#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::fs::{self, OpenOptions};
use std::path::Path;

use direct::File;
use tempfile::TempDir;

/// On a disk, and in memory: what either can may differ.
fn directories() -> Vec<TempDir> {
    let disk = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let memory = Some(Path::new("/dev/shm")).filter(|memory| memory.is_dir());
    let memory = memory.map(|memory| tempfile::tempdir_in(memory).unwrap());
    std::iter::once(disk).chain(memory).collect()
}

fn pattern(length: usize) -> Vec<u8> {
    let numbers = 0_u32..;
    numbers.flat_map(u32::to_le_bytes).take(length).collect()
}

#[test]
fn pieces_written_by_several_threads_make_up_the_file() {
    let content = pattern(9_000_001);
    for directory in directories() {
        let path = directory.path().join("file");
        let mut options = OpenOptions::new();
        let opened = options.write(true).create(true).open(&path).unwrap();
        opened.set_len(content.len() as u64).unwrap();
        let file = File::past_cache(opened);
        let cuts = [
            0,
            1,
            300_001,
            2_500_000,
            2_500_100,
            4_194_304,
            7_000_003,
            content.len(),
        ];
        std::thread::scope(|scope| {
            for cut in cuts.windows(2) {
                let (file, piece) = (&file, &content[cut[0]..cut[1]]);
                scope.spawn(move || file.write_all_at(piece, cut[0] as u64).unwrap());
            }
        });
        assert!(fs::read(&path).unwrap() == content);
    }
}

#[test]
fn pieces_are_read_wherever_they_lie_and_end_with_the_file() {
    let content = pattern(3_333_333);
    for directory in directories() {
        let path = directory.path().join("file");
        fs::write(&path, &content).unwrap();
        let file = File::past_cache(fs::File::open(&path).unwrap());
        let ordinary = File::ordinary(fs::File::open(&path).unwrap());
        let mut bytes = vec![7; 100];
        for start in [0, 1, 4096, 1_048_575, 3_000_000, 3_333_332, 4_000_000] {
            for length in [0, 1, 4096, 262_144, 1_048_577, 3_333_333] {
                let end = (start + length).min(content.len());
                let wanted = content.get(start..end).unwrap_or_default();
                for file in [&file, &ordinary] {
                    let piece = start as u64..(start + length) as u64;
                    file.read_at(piece, &mut bytes).unwrap();
                    assert!(bytes == wanted, "{length} bytes at {start}");
                }
            }
        }
    }
}
