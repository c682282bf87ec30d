//! Looking around in snapshots: searching names, the versions of one path, what changed between two
//! snapshots or since one, how large a directory is.
//!
//! Everything here reads pages only, never content, and no page that cannot hold an answer.

mod diff;
mod live;
mod pattern;
mod search;
mod size;
mod versions;

use edge::{Entry, EntryKind};

pub use diff::Change;
pub use live::LiveReport;
pub use pattern::Pattern;
pub use search::Hit;
pub use size::Size;
pub use versions::{PathTime, Version};

/// In what two entries of one path differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Aspect {
    /// One is a file, the other a directory, say.
    Kind,
    /// The content.
    Content,
    /// Where a symbolic link points, or which device it is.
    Target,
    /// Permission bits.
    Mode,
    /// User or group.
    Owner,
    /// The time of the last change of content.
    Modified,
    /// Extended attributes, access lists among them.
    Attributes,
    /// The inode changed in a way that a walk does not see, or its content did and the time was
    /// put back. Told of live trees only.
    Inode,
}

impl Aspect {
    /// Gives the word for it.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Kind => "kind",
            Self::Content => "content",
            Self::Target => "target",
            Self::Mode => "mode",
            Self::Owner => "owner",
            Self::Modified => "modified",
            Self::Attributes => "attributes",
            Self::Inode => "inode",
        }
    }
}

/// Compares what both a snapshot and a walk know of an entry, except content and attributes.
fn metadata_aspects(before: &Entry, after: &Entry, found: &mut Vec<Aspect>) {
    if std::mem::discriminant(&before.kind) != std::mem::discriminant(&after.kind) {
        found.push(Aspect::Kind);
    } else if before.kind != after.kind {
        found.push(Aspect::Target);
    }
    // A symbolic link's own bits mean nothing.
    let is_link = matches!(after.kind, EntryKind::Symlink { .. });
    if before.mode != after.mode && !is_link {
        found.push(Aspect::Mode);
    }
    if before.owner != after.owner {
        found.push(Aspect::Owner);
    }
    if before.modified != after.modified {
        found.push(Aspect::Modified);
    }
}
