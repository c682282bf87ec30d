//! Files that survive a power cut whole: written beside their place, synced, renamed, synced.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::error::ApplyError;
use super::host::Host;

/// No file of ours is longer.
const LENGTH_MAX: u64 = 64 << 20;

/// Replaces a file in one step; readers see the old or the new text.
pub(crate) fn replace(
    host: &impl Host,
    path: &Path,
    bytes: &[u8],
    mode: u32,
) -> Result<(), ApplyError> {
    host.step(&format!("write {}", path.display()))?;
    let file = write_beside(path, bytes, mode)?;
    file.sync_all().map_err(ApplyError::file("sync", path))?;
    host.step(&format!("rename {}", path.display()))?;
    fs::rename(beside(path), path).map_err(ApplyError::file("replace", path))?;
    sync(parent(path))
}

/// From this many files on, the file system is synced as a whole twice instead of each file.
const SYNC_WHOLE_FROM: usize = 32;

/// Replaces many files, each in one step; all are permanent when this returns.
pub(crate) fn replace_all(
    host: &impl Host,
    all: &[(PathBuf, Vec<u8>)],
    mode: u32,
) -> Result<(), ApplyError> {
    let Some((first, _)) = all.first() else {
        return Ok(());
    };
    if all.len() < SYNC_WHOLE_FROM {
        return all
            .iter()
            .try_for_each(|(path, bytes)| replace(host, path, bytes, mode));
    }
    for (path, bytes) in all {
        host.step(&format!("write {}", path.display()))?;
        write_beside(path, bytes, mode)?;
    }
    // No name may come to stand for a file whose content is not on the disk.
    sync_whole(parent(first))?;
    for (path, _) in all {
        host.step(&format!("rename {}", path.display()))?;
        fs::rename(beside(path), path).map_err(ApplyError::file("replace", path))?;
    }
    sync_whole(parent(first))
}

fn sync_whole(directory: &Path) -> Result<(), ApplyError> {
    File::open(directory)
        .and_then(|directory| Ok(rustix::fs::syncfs(directory)?))
        .map_err(ApplyError::file("sync the file system of", directory))
}

fn beside(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".tmp");
    parent(path).join(name)
}

/// Makes the directory of a file; whoever may read the file may look into a directory made for it.
/// The daemon watches the directories of drop-ins, and the umask of apply would shut it out.
fn make_directory(directory: &Path, mode: u32) -> Result<(), ApplyError> {
    if directory.is_dir() {
        return Ok(());
    }
    let made = fs::create_dir_all(directory).and_then(|()| {
        let is_public = mode & 0o004 != 0;
        let mode = fs::Permissions::from_mode(0o755);
        if is_public {
            fs::set_permissions(directory, mode)
        } else {
            Ok(())
        }
    });
    made.map_err(ApplyError::file("make", directory))
}

/// Writes the new content next to its place, not synced yet.
fn write_beside(path: &Path, bytes: &[u8], mode: u32) -> Result<File, ApplyError> {
    let directory = parent(path);
    make_directory(directory, mode)?;
    let beside = beside(path);
    let written = (|| {
        // What an earlier cut left may be there.
        match fs::remove_file(&beside) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(&beside)?;
        // The unit's umask is strict, and systemd warns of unit files that not all may read.
        file.set_permissions(fs::Permissions::from_mode(mode))?;
        file.write_all(bytes)?;
        Ok(file)
    })();
    written.map_err(ApplyError::file("write", &beside))
}

/// Replaces a symbolic link in one step.
pub(crate) fn relink(host: &impl Host, path: &Path, target: &str) -> Result<(), ApplyError> {
    host.step(&format!("link {}", path.display()))?;
    let beside = beside(path);
    remove(host, &beside)?;
    symlink(target, &beside).map_err(ApplyError::file("link", &beside))?;
    fs::rename(&beside, path).map_err(ApplyError::file("replace", path))?;
    sync(parent(path))
}

/// Removes a file; one that is not there is removed already.
pub(crate) fn remove(host: &impl Host, path: &Path) -> Result<(), ApplyError> {
    host.step(&format!("remove {}", path.display()))?;
    match fs::remove_file(path) {
        Ok(()) => sync(parent(path)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(ApplyError::file("remove", path)(error)),
    }
}

/// Makes a rename or removal in a directory permanent.
pub(crate) fn sync(directory: &Path) -> Result<(), ApplyError> {
    File::open(directory)
        .and_then(|directory| directory.sync_all())
        .map_err(ApplyError::file("sync", directory))
}

/// Reads a file of bounded length; nothing when it is not there.
pub(crate) fn read(path: &Path, length_max: u64) -> Result<Option<Vec<u8>>, ApplyError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(ApplyError::file("open", path)(error)),
    };
    let mut bytes = Vec::new();
    file.take(length_max.saturating_add(1))
        .read_to_end(&mut bytes)
        .map_err(ApplyError::file("read", path))?;
    if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > length_max {
        return Err(ApplyError::Damaged {
            path: path.to_owned(),
            detail: format!("it is longer than {length_max} bytes"),
        });
    }
    Ok(Some(bytes))
}

/// Reads a text of ours; nothing when it is not there.
pub(crate) fn read_text(path: &Path) -> Result<Option<String>, ApplyError> {
    let bytes = read(path, LENGTH_MAX)?;
    // A hand edit may have left anything; it then differs from what we wrote, which is enough.
    Ok(bytes.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
}

/// Reads JSON of ours; nothing when it is not there.
pub(crate) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, ApplyError> {
    let Some(bytes) = read(path, LENGTH_MAX)? else {
        return Ok(None);
    };
    serde_json::from_slice(&bytes)
        .map(Some)
        .map_err(|error| ApplyError::Damaged {
            path: path.to_owned(),
            detail: error.to_string(),
        })
}

/// Replaces JSON of ours, readable by the group of its directory.
pub(crate) fn write_json<T: Serialize>(
    host: &impl Host,
    path: &Path,
    value: &T,
) -> Result<(), ApplyError> {
    let mut text = serde_json::to_vec(value).map_err(|error| ApplyError::Damaged {
        path: path.to_owned(),
        detail: error.to_string(),
    })?;
    text.push(b'\n');
    replace(host, path, &text, 0o640)
}

fn parent(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new("/"))
}
