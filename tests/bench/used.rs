//! What rounds leave behind. Its files are emptied, and deleted only when everything was measured.
//!
//! For a minute after a file was deleted, and for six where the block of its inode is dirty, ext4 passes its inode over
//! (`recently_deleted` in the kernel's `fs/ext4/ialloc.c`), one by one: after the deletion of a round's hundred
//! thousands of files whoever makes files next pays for it. Emptied files give their bytes back and cost nobody anything.

use std::cell::Cell;
use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use lab::{Doing, Fault, Result};

use crate::sets::{files_of, make_directory, remove};

/// A directory of trees that are not needed any more.
pub(crate) struct Used {
    directory: PathBuf,
    count: Cell<usize>,
}

impl Used {
    /// Makes the directory, and puts what it holds of an earlier time away with the rest.
    ///
    /// # Errors
    ///
    /// When it cannot be made.
    pub(crate) fn begin(directory: PathBuf) -> Result<Self> {
        make_directory(&directory)?;
        let left = fs::read_dir(&directory).doing(|| format!("reading {}", directory.display()))?;
        let count = Cell::new(left.count());
        Ok(Self { directory, count })
    }

    /// Takes trees away from where they are, those that are there, and empties their files.
    ///
    /// # Errors
    ///
    /// When one cannot be moved, or a file of it not be emptied.
    pub(crate) fn put(&self, trees: impl IntoIterator<Item = PathBuf>) -> Result<()> {
        let mut moved = Vec::new();
        for tree in trees {
            let mut to = self.next();
            // A bench that was stopped may have left gaps.
            while to.exists() {
                to = self.next();
            }
            match fs::rename(&tree, &to) {
                Ok(()) => moved.push(to),
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(error).doing(|| format!("moving {}", tree.display())),
            }
        }
        // All at once, as a disk that discards answers late.
        std::thread::scope(|scope| {
            let all: Vec<_> = moved
                .iter()
                .map(|tree| scope.spawn(|| empty(tree)))
                .collect();
            let failed = || Fault::new("emptying what a round left");
            all.into_iter()
                .try_for_each(|one| one.join().map_err(|_| failed())?)
        })
    }

    fn next(&self) -> PathBuf {
        self.count.set(self.count.get() + 1);
        self.directory.join(self.count.get().to_string())
    }

    /// Deletes everything.
    ///
    /// # Errors
    ///
    /// When it cannot be deleted.
    pub(crate) fn end(self) -> Result<()> {
        remove(&self.directory)
    }
}

fn empty(tree: &Path) -> Result<()> {
    let files = if tree.is_dir() {
        files_of(tree)?
    } else {
        vec![tree.to_owned()]
    };
    for path in files {
        let emptied = File::options().write(true).truncate(true).open(&path);
        emptied.doing(|| format!("emptying {}", path.display()))?;
    }
    Ok(())
}

/// Touches the memory that is free. Where the machine is a guest, its host may have taken back what was free for long,
/// and whoever writes first into it would wait for it, whichever program it is.
pub(crate) fn touch_free_memory() {
    /// So much is left to others, and to the kernel.
    const LEFT_BYTES: usize = 1 << 30;
    const PAGE_BYTES: usize = 4096;
    let known = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = known.lines().find_map(|line| line.strip_prefix("MemFree:"));
    let kibibytes = line.and_then(|rest| rest.trim().split(' ').next()?.parse::<usize>().ok());
    let bytes = (kibibytes.unwrap_or(0) << 10).saturating_sub(LEFT_BYTES);
    let mut memory = vec![0_u8; bytes];
    for page in memory.chunks_mut(PAGE_BYTES) {
        if let Some(first) = page.first_mut() {
            *first = 1;
        }
    }
    // Else nobody would see the writes, and they might be left out.
    std::hint::black_box(&memory);
}
