//! Tar: GNU headers, with PAX records for fractions of seconds and extended attributes.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;

use edge::{Entry, EntryKind, TreePath};
use repository::ContentStream;
use tar::{Builder, EntryType, Header};

use super::{Added, Archive, Tap, is_linked};

pub(super) struct Tar<'a> {
    builder: Builder<Tap<'a>>,
    /// The first name of each file that has several.
    first_names: HashMap<(u64, u64), PathBuf>,
}

impl<'a> Tar<'a> {
    pub(super) fn new(tap: Tap<'a>) -> Self {
        Self {
            builder: Builder::new(tap),
            first_names: HashMap::new(),
        }
    }
}

impl Archive for Tar<'_> {
    fn add(
        &mut self,
        entry: &Entry,
        name: &TreePath,
        content: Option<&mut ContentStream<'_, '_>>,
    ) -> io::Result<Added> {
        let path = PathBuf::from(OsStr::from_bytes(&name.parts().join(&b'/')));
        let mut header = header(entry)?;
        if is_linked(entry) {
            let inode = (entry.device, entry.inode);
            if let Some(first) = self.first_names.get(&inode) {
                header.set_entry_type(EntryType::Link);
                header.set_size(0);
                self.builder.append_link(&mut header, path, first)?;
                return Ok(Added::Whole);
            }
            self.first_names.insert(inode, path.clone());
        }
        self.extensions(entry)?;
        match (&entry.kind, content) {
            (EntryKind::Symlink { target }, _) => {
                let target = OsStr::from_bytes(target);
                self.builder.append_link(&mut header, path, target)?;
            }
            (_, Some(content)) => self.builder.append_data(&mut header, path, content)?,
            (_, None) => self.builder.append_data(&mut header, path, io::empty())?,
        }
        Ok(Added::Whole)
    }

    fn finish(&mut self) -> io::Result<()> {
        self.builder.finish()?;
        io::Write::flush(self.builder.get_mut())
    }
}

impl Tar<'_> {
    /// Writes what a header has no room for.
    fn extensions(&mut self, entry: &Entry) -> io::Result<()> {
        let mut records: Vec<(String, Vec<u8>)> = Vec::new();
        let (secs, nanos) = (entry.modified.secs, entry.modified.nanos);
        if secs >= 0 && nanos > 0 {
            let text = format!("{secs}.{nanos:09}");
            records.push(("mtime".to_owned(), text.into_bytes()));
        } else if secs < 0 {
            records.push(("mtime".to_owned(), secs.to_string().into_bytes()));
        }
        for attribute in &entry.xattrs {
            if let Ok(name) = std::str::from_utf8(&attribute.name) {
                records.push((format!("SCHILY.xattr.{name}"), attribute.value.clone()));
            }
        }
        if records.is_empty() {
            return Ok(());
        }
        let records = records
            .iter()
            .map(|(key, value)| (key.as_str(), value.as_slice()));
        self.builder.append_pax_extensions(records)
    }
}

fn header(entry: &Entry) -> io::Result<Header> {
    let mut header = Header::new_gnu();
    header.set_mode(entry.mode);
    header.set_uid(entry.owner.uid.into());
    header.set_gid(entry.owner.gid.into());
    header.set_mtime(u64::try_from(entry.modified.secs).unwrap_or(0));
    header.set_size(0);
    // A name that is too long or no text is left to the number.
    if let Ok(user) = std::str::from_utf8(&entry.owner.user) {
        drop(header.set_username(user));
    }
    if let Ok(group) = std::str::from_utf8(&entry.owner.group) {
        drop(header.set_groupname(group));
    }
    let kind = match entry.kind {
        EntryKind::Directory => EntryType::Directory,
        EntryKind::File | EntryKind::Stream => {
            header.set_size(entry.size_bytes);
            EntryType::Regular
        }
        EntryKind::Symlink { .. } => EntryType::Symlink,
        EntryKind::Fifo => EntryType::Fifo,
        EntryKind::CharDevice { device } => {
            header.set_device_major(device.0)?;
            header.set_device_minor(device.1)?;
            EntryType::Char
        }
        EntryKind::BlockDevice { device } => {
            header.set_device_major(device.0)?;
            header.set_device_minor(device.1)?;
            EntryType::Block
        }
    };
    header.set_entry_type(kind);
    Ok(header)
}
