//! Renamed mail: a mail program marks a message as read by renaming its file, which changes nothing
//! but its name and change time.
//!
//! Only in directories `cur` and `new` of a Maildir, where programs never write to a finished file,
//! may size, time and inode stand for the content (<https://cr.yp.to/proto/maildir.html>).

use std::collections::HashMap;

use edge::{Entry, EntryKind, FileTime, TreePath};

use super::Parent;
use crate::content::Node;
use crate::tree::TreeWalk;
use crate::view::find;

/// Messages of one mailbox that are known; of a larger one some are read again.
const MESSAGE_COUNT_MAX: usize = 100_000;

/// What stays when a message is renamed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Stamp {
    device: u64,
    inode: u64,
    size_bytes: u64,
    modified: FileTime,
}

impl Stamp {
    const fn of(entry: &Entry) -> Self {
        Self {
            device: entry.device,
            inode: entry.inode,
            size_bytes: entry.size_bytes,
            modified: entry.modified,
        }
    }
}

/// The messages of one mailbox in the previous snapshot.
#[derive(Default)]
pub(super) struct Mailbox {
    path: Option<TreePath>,
    messages: HashMap<Stamp, Node>,
}

/// Gives the mailbox of a message.
pub(in crate::backup) fn mailbox_of(path: &TreePath) -> Option<TreePath> {
    let directory = path.parent()?;
    matches!(directory.name(), Some(b"cur" | b"new"))
        .then(|| directory.parent())
        .flatten()
}

impl Parent<'_> {
    /// Gives a message as it is now, with the content that it had under its former name.
    pub(in crate::backup) fn renamed_mail(&mut self, now: &Entry) -> Option<Node> {
        if now.kind != EntryKind::File || now.link_count != 1 {
            return None;
        }
        let path = mailbox_of(&now.path)?;
        if self.mailbox.path.as_ref() != Some(&path) {
            self.mailbox.messages = self.messages(&path).unwrap_or_default();
            self.mailbox.path = Some(path);
        }
        let was = self.mailbox.messages.get(&Stamp::of(now))?;
        let mut entry = now.clone();
        entry.xattrs.clone_from(&was.entry.xattrs);
        Some(Node {
            entry,
            content: was.content.clone(),
        })
    }

    /// Reads the messages of a mailbox, or `None` when it is none or cannot be read.
    fn messages(&mut self, path: &TreePath) -> Option<HashMap<Stamp, Node>> {
        for name in [&b"cur"[..], b"new", b"tmp"] {
            let directory = path.child(name).ok()?;
            let node = find(&mut self.reader, &self.snapshot, &directory).ok()??;
            if node.entry.kind != EntryKind::Directory {
                return None;
            }
        }
        let mut messages = HashMap::new();
        for name in [&b"cur"[..], b"new"] {
            let directory = path.child(name).ok()?;
            let mut walk = TreeWalk::new(self.snapshot.root, directory.key_below());
            while let Some(node) = walk.next(&mut self.reader).ok()? {
                let entry = &node.entry;
                let is_message = entry.kind == EntryKind::File
                    && entry.link_count == 1
                    && entry.modified < self.steady_before;
                if is_message {
                    messages.insert(Stamp::of(entry), node);
                }
                if messages.len() >= MESSAGE_COUNT_MAX {
                    return Some(messages);
                }
            }
        }
        Some(messages)
    }
}
