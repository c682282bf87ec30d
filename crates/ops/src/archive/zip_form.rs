//! Zip, written without ever going back.

use std::io;

use edge::{Entry, EntryKind, TreePath};
use jiff::tz::TimeZone;
use repository::ContentStream;
use zip::write::{SimpleFileOptions, StreamWriter};
use zip::{CompressionMethod, DateTime, ZipWriter};

use super::{Added, Archive, Tap};

/// Larger files need the form with long lengths, which must be said before they are written;
/// compression may make them a little longer.
const SHORT_BYTES_MAX: u64 = 4_000_000_000;

pub(super) struct Zip<'a> {
    writer: Option<ZipWriter<StreamWriter<Tap<'a>>>>,
}

impl<'a> Zip<'a> {
    pub(super) fn new(tap: Tap<'a>) -> Self {
        Self {
            writer: Some(ZipWriter::new_stream(tap)),
        }
    }
}

impl Archive for Zip<'_> {
    fn add(
        &mut self,
        entry: &Entry,
        name: &TreePath,
        content: Option<&mut ContentStream<'_, '_>>,
    ) -> io::Result<Added> {
        let Some(writer) = &mut self.writer else {
            return Err(io::ErrorKind::BrokenPipe.into());
        };
        let mut options = SimpleFileOptions::default()
            .compression_method(CompressionMethod::Deflated)
            .unix_permissions(entry.mode & 0o777)
            .large_file(entry.size_bytes > SHORT_BYTES_MAX);
        if let Some(time) = zip_time(entry.modified.secs) {
            options = options.last_modified_time(time);
        }
        // Names that are no text are shown as everywhere, which keeps them apart.
        let name: Vec<_> = name
            .components()
            .map(|part| match std::str::from_utf8(part) {
                Ok(text) => text.to_owned(),
                Err(_) => model::escape(part),
            })
            .collect();
        let name = name.join("/");
        match (&entry.kind, content) {
            (EntryKind::Directory, _) => writer.add_directory(name, options)?,
            (EntryKind::Symlink { target }, _) => {
                let Ok(target) = std::str::from_utf8(target) else {
                    return Ok(Added::LeftOut("a link to a name that is no text"));
                };
                writer.add_symlink(name, target, options)?;
            }
            (_, Some(content)) => {
                writer.start_file(name, options)?;
                io::copy(content, writer)?;
            }
            (_, None) => return Ok(Added::LeftOut("zip has no devices and no pipes")),
        }
        Ok(Added::Whole)
    }

    fn finish(&mut self) -> io::Result<()> {
        if let Some(writer) = self.writer.take() {
            let mut tap = writer.finish()?.into_inner();
            io::Write::flush(&mut tap)?;
        }
        Ok(())
    }
}

/// Gives the time as zip says it, where it can: from 1980 to 2107.
fn zip_time(secs: i64) -> Option<DateTime> {
    let time = jiff::Timestamp::from_second(secs).ok()?;
    let time = time.to_zoned(TimeZone::UTC);
    let part = |number: i8| u8::try_from(number).ok();
    DateTime::from_date_and_time(
        u16::try_from(time.year()).ok()?,
        part(time.month())?,
        part(time.day())?,
        part(time.hour())?,
        part(time.minute())?,
        part(time.second())?,
    )
    .ok()
}
