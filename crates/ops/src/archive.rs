//! A file or a subtree of a snapshot as one stream of bytes: as it is, as tar, or as zip. Nothing is
//! kept on disk, and of the content no more in memory than is being read.

mod tar_form;
mod zip_form;

use std::cell::Cell;
use std::io::{self, Write};

use edge::{Entry, EntryKind, Monitor, TreePath};
use repository::{ContentStream, Snapshot, StreamError, StreamReport, View};

/// The form of an archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ArchiveForm {
    /// POSIX tar, with owners, times, links, devices and extended attributes. Holes become zeros.
    Tar,
    /// Zip, for whoever has no tar: devices and pipes are left out, hard links are files of their
    /// own, times are UTC to two seconds. The table of entries is kept in memory until the end.
    Zip,
}

/// Writes the content of one file or stream.
///
/// # Errors
///
/// `StreamError`; `Absent` when the path is no file. What was written until then is part of it.
pub fn write_file(
    (view, snapshot): (&View, &Snapshot),
    path: &TreePath,
    out: &mut dyn Write,
    monitor: &dyn Monitor,
) -> Result<StreamReport, StreamError> {
    let mut is_file = true;
    let done = view.stream((snapshot, path), monitor, &mut |_, content| match content {
        Some(content) => io::copy(content, out).map(drop),
        None => {
            is_file = false;
            Err(io::ErrorKind::IsADirectory.into())
        }
    });
    if is_file {
        done
    } else {
        Err(StreamError::Absent { path: path.clone() })
    }
}

/// Writes the entry at a path and everything below it as an archive. Names in it begin with the last
/// one of the path.
///
/// # Errors
///
/// `StreamError`. What was written until then is no whole archive and lacks the end of one.
pub fn write_archive(
    (view, snapshot, form): (&View, &Snapshot, ArchiveForm),
    path: &TreePath,
    out: &mut dyn Write,
    monitor: &dyn Monitor,
) -> Result<StreamReport, StreamError> {
    let is_cut = Cell::new(false);
    let tap = Tap {
        out,
        is_cut: &is_cut,
    };
    let mut archive: Box<dyn Archive + '_> = match form {
        ArchiveForm::Tar => Box::new(tar_form::Tar::new(tap)),
        ArchiveForm::Zip => Box::new(zip_form::Zip::new(tap)),
    };
    let above = path.depth().saturating_sub(1);
    let mut left_out = Vec::new();
    let done = view.stream((snapshot, path), monitor, &mut |entry, content| {
        let name = entry.path.skip(above);
        let added = archive.add(entry, &name, content)?;
        if let Added::LeftOut(why) = added {
            left_out.push(format!("{}: {why}", entry.path));
        }
        Ok(())
    });
    let ended = done.and_then(|report| {
        archive.finish().map_err(|source| StreamError::Write {
            path: path.clone(),
            source,
        })?;
        Ok(report)
    });
    // Both forms would complete themselves when they are dropped.
    is_cut.set(true);
    let mut report = ended?;
    report.failed += left_out.len() as u64;
    report.failures.extend(left_out);
    Ok(report)
}

/// What became of an entry.
enum Added {
    Whole,
    /// The form has no way to say it.
    LeftOut(&'static str),
}

/// An archive that is being written.
trait Archive {
    fn add(
        &mut self,
        entry: &Entry,
        name: &TreePath,
        content: Option<&mut ContentStream<'_, '_>>,
    ) -> io::Result<Added>;

    /// Writes its end.
    fn finish(&mut self) -> io::Result<()>;
}

/// What an archive writes to, until it is cut off.
struct Tap<'a> {
    out: &'a mut dyn Write,
    is_cut: &'a Cell<bool>,
}

impl Write for Tap<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.is_cut.get() {
            return Ok(bytes.len());
        }
        self.out.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.is_cut.get() {
            return Ok(());
        }
        self.out.flush()
    }
}

/// True for what may have several names in an archive.
const fn is_linked(entry: &Entry) -> bool {
    entry.link_count > 1 && matches!(entry.kind, EntryKind::File)
}
