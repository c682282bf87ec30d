//! Scratch files in a directory of this server.

use std::fs::{File, OpenOptions, remove_file};
use std::io;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use edge::{Scratch, ScratchFile};

/// Makes scratch files in one directory: without a name from the start, so that not even a power
/// cut leaves any behind.
#[derive(Debug)]
pub struct LocalScratch {
    directory: PathBuf,
}

#[derive(Debug)]
struct LocalScratchFile(File);

impl LocalScratch {
    /// Uses a directory. It should be on a disk: files in memory would defeat their purpose.
    #[must_use]
    pub fn new(directory: &Path) -> Self {
        Self {
            directory: directory.to_owned(),
        }
    }

    /// For file systems that know no files without names, such as older NFS.
    fn create_and_unlink(&self) -> io::Result<File> {
        let mut random = [0; 8];
        getrandom::fill(&mut random).map_err(|error| io::Error::other(error.to_string()))?;
        let name = format!(".tmp-scratch-{:016x}", u64::from_ne_bytes(random));
        let path = self.directory.join(name);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)?;
        remove_file(&path)?;
        Ok(file)
    }
}

impl Scratch for LocalScratch {
    fn create(&self) -> io::Result<Box<dyn ScratchFile>> {
        let flags = rustix::fs::OFlags::TMPFILE.bits();
        let unnamed = OpenOptions::new()
            .read(true)
            .write(true)
            .mode(0o600)
            .custom_flags(i32::try_from(flags).unwrap_or(0))
            .open(&self.directory);
        let file = unnamed.or_else(|_| self.create_and_unlink())?;
        Ok(Box::new(LocalScratchFile(file)))
    }
}

impl ScratchFile for LocalScratchFile {
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all_at(bytes, offset)
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.0.read_exact_at(buffer, offset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scratch_files_hold_what_was_written_and_leave_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let scratch = LocalScratch::new(directory.path());
        let files = [
            scratch.create().unwrap(),
            Box::new(LocalScratchFile(scratch.create_and_unlink().unwrap())),
        ];
        for file in files {
            file.write_at(5, b"later").unwrap();
            file.write_at(0, b"first").unwrap();
            let mut read = [0; 10];
            file.read_at(0, &mut read).unwrap();
            assert_eq!(&read, b"firstlater");
            let past = file.read_at(6, &mut read).unwrap_err();
            assert_eq!(past.kind(), io::ErrorKind::UnexpectedEof);
        }
        assert_eq!(directory.path().read_dir().unwrap().count(), 0);
        let absent = LocalScratch::new(&directory.path().join("absent"));
        assert!(absent.create().is_err());
    }
}
