//! Removal of a tree of our own through held descriptors.

use std::io;
use std::sync::Arc;

use rustix::fs::{AtFlags, FileType, Mode, fchmod, unlinkat};

use crate::directory::Directory;
use crate::status;
use crate::walk::Names;

/// A directory on the way down.
struct Level {
    directory: Arc<Directory>,
    left: Names,
    name: Vec<u8>,
}

/// Removes `name` and all below it. Links are removed, never followed.
pub(super) fn remove_tree(parent: &Arc<Directory>, name: &[u8]) -> io::Result<()> {
    let mut stack: Vec<Level> = Vec::new();
    if let Some(level) = remove_or_enter(parent, name)? {
        stack.push(level);
    }
    while let Some(level) = stack.last_mut() {
        if let Some(name) = level.left.next() {
            let directory = Arc::clone(&level.directory);
            if let Some(level) = remove_or_enter(&directory, &name)? {
                stack.push(level);
            }
            continue;
        }
        let Some(level) = stack.pop() else {
            break;
        };
        let above = stack.last().map_or(parent, |above| &above.directory);
        unlinkat(above.open()?, &*level.name, AtFlags::REMOVEDIR)?;
    }
    Ok(())
}

fn remove_or_enter(parent: &Arc<Directory>, name: &[u8]) -> io::Result<Option<Level>> {
    let held = parent.open()?;
    if status::of_name(&held, name)?.file_type() != FileType::Directory {
        unlinkat(held, name, AtFlags::empty())?;
        return Ok(None);
    }
    let directory = parent.own_child(name)?;
    let descriptor = directory.open()?;
    // A restored mode may forbid what is to be done; when it cannot be changed, that says so.
    fchmod(&descriptor, Mode::RWXU).ok();
    let names = Names::read(&descriptor)?;
    Ok(Some(Level {
        directory,
        left: names,
        name: name.to_vec(),
    }))
}
