//! What a restore that was cut left in its staging directory, which nobody else can enter. What has
//! no content is made anew; files are compared and gone on with.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use edge::{Entry, LeftOver};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, chmodat, mkdirat, openat};
use rustix::io::{Errno, pread};

use super::remove::remove_tree;
use super::stage::keep_private;
use crate::directory::{CAREFUL, Directory};
use crate::status;

/// A file that is compared.
pub(super) struct LeftFile(pub(super) OwnedFd);

impl LeftOver for LeftFile {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let mut done = 0;
        while let Some(rest) = buffer.get_mut(done..).filter(|rest| !rest.is_empty()) {
            match pread(&self.0, rest, offset.saturating_add(done as u64)) {
                Err(Errno::INTR) => {}
                Ok(0) => break,
                read => done += read?,
            }
        }
        Ok(done)
    }
}

/// Removes a name and all below it; nothing need be there.
pub(super) fn clear(parent: &Arc<Directory>, name: &[u8]) -> io::Result<()> {
    match remove_tree(parent, name) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

/// Opens a directory that is there and makes it private again; what is there instead goes.
pub(super) fn directory(parent: &Arc<Directory>, name: &[u8]) -> io::Result<Arc<Directory>> {
    let held = parent.open()?;
    if status::of_name(&held, name)?.file_type() != FileType::Directory {
        clear(parent, name)?;
        mkdirat(&held, name, Mode::RWXU)?;
        return parent.own_child(name);
    }
    // It may have its final mode, which may forbid its owner what is to be done.
    chmodat(&held, name, Mode::RWXU, AtFlags::empty())?;
    let directory = parent.own_child(name)?;
    keep_private(&*directory.open()?)?;
    Ok(directory)
}

/// Opens a file that is there; nothing else, and no name of another file.
pub(super) fn file(
    parent: &Arc<Directory>,
    name: &[u8],
    entry: &Entry,
    access: OFlags,
) -> io::Result<Option<OwnedFd>> {
    let held = parent.open()?;
    let seen = match status::of_name(&held, name) {
        Err(Errno::NOENT) => return Ok(None),
        seen => seen?,
    };
    let is_own = seen.link_count() == 1 || entry.link_count > 1;
    if seen.file_type() != FileType::RegularFile || !is_own {
        return Ok(None);
    }
    let open = || openat(&held, name, CAREFUL | access, Mode::empty());
    match open() {
        // It may have its final mode, which may forbid its owner to write.
        Err(Errno::ACCESS) => {
            chmodat(&held, name, Mode::RUSR | Mode::WUSR, AtFlags::empty())?;
            Ok(Some(open()?))
        }
        opened => Ok(Some(opened?)),
    }
}
