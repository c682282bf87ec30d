//! What changed from one snapshot to another: both trees are walked side by side, and pages that
//! they share are left out unread.

use std::cmp::Ordering;
use std::ops::ControlFlow;

use edge::{Entry, Monitor, TreePath};

use super::{Aspect, metadata_aspects};
use crate::content::Node;
use crate::error::RepositoryError;
use crate::reader::ChunkReader;
use crate::snapshot::Snapshot;
use crate::tree::{Child, Head, TreeWalk};
use crate::view::{View, find};

/// One difference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Only the later one has it.
    Added(Entry),
    /// Only the earlier one has it.
    Removed(Entry),
    /// Both have it, and not alike.
    Changed {
        /// As it was.
        before: Entry,
        /// As it is.
        after: Entry,
        /// In what they differ, at least one.
        aspects: Vec<Aspect>,
    },
}

impl Change {
    /// Gives the path that is told of.
    #[must_use]
    pub const fn path(&self) -> &TreePath {
        match self {
            Self::Added(entry) | Self::Removed(entry) | Self::Changed { after: entry, .. } => {
                &entry.path
            }
        }
    }
}

/// Takes changes one by one, and says whether to go on.
type Each<'e> = dyn FnMut(Change) -> ControlFlow<()> + 'e;

impl View {
    /// Tells `each` in what two snapshots differ at and below a path, in the order of paths, until
    /// it breaks off. Changes that restoring would not bring back (inode numbers, change times of
    /// inodes) are none.
    ///
    /// # Errors
    ///
    /// `Read` when a page cannot be read, `Cancelled`.
    pub fn diff(
        &self,
        (before, after): (&Snapshot, &Snapshot),
        below: &TreePath,
        monitor: &dyn Monitor,
        each: &mut Each<'_>,
    ) -> Result<(), RepositoryError> {
        let mut reader = ChunkReader::new(&self.domain, self.locate());
        if below.name().is_some() {
            let own = (
                find(&mut reader, before, below)?,
                find(&mut reader, after, below)?,
            );
            if let Some(change) = change(own.0.map(Box::new), own.1.map(Box::new))
                && each(change).is_break()
            {
                return Ok(());
            }
        }
        let side = |snapshot: &Snapshot| {
            let mut walk = TreeWalk::new(snapshot.root, below.key_below());
            let head = walk.next_head();
            Side { walk, head }
        };
        let mut sides = Sides {
            reader,
            left: side(before),
            right: side(after),
        };
        loop {
            if monitor.is_cancelled() {
                return Err(RepositoryError::Cancelled);
            }
            match sides.step()? {
                Step::Over => return Ok(()),
                Step::Nothing => {}
                Step::Pair(left, right) => {
                    if let Some(change) = change(left, right)
                        && each(change).is_break()
                    {
                        return Ok(());
                    }
                }
            }
        }
    }
}

/// Gives in what two nodes of one path differ.
fn change(before: Option<Box<Node>>, after: Option<Box<Node>>) -> Option<Change> {
    match (before, after) {
        (None, None) => None,
        (None, Some(node)) => Some(Change::Added(node.entry)),
        (Some(node), None) => Some(Change::Removed(node.entry)),
        (Some(before), Some(after)) => {
            let aspects = aspects(&before, &after);
            (!aspects.is_empty()).then_some(Change::Changed {
                before: before.entry,
                after: after.entry,
                aspects,
            })
        }
    }
}

/// Gives in what two nodes differ.
pub(super) fn aspects(before: &Node, after: &Node) -> Vec<Aspect> {
    let mut found = Vec::new();
    metadata_aspects(&before.entry, &after.entry, &mut found);
    if let (Some(was), Some(is)) = (&before.content, &after.content)
        && (was.bytes != is.bytes
            || was.extents != is.extents
            || before.size_bytes() != after.size_bytes())
    {
        found.push(Aspect::Content);
    }
    if before.entry.xattrs != after.entry.xattrs {
        found.push(Aspect::Attributes);
    }
    found.sort_unstable();
    found
}

/// One of the two trees, and what comes next in it.
struct Side {
    walk: TreeWalk,
    head: Option<Head>,
}

impl Side {
    fn advance(&mut self) {
        self.head = self.walk.next_head();
    }

    fn take(&mut self) -> Option<Box<Node>> {
        let head = self.head.take();
        self.advance();
        match head {
            Some(Head::Entry(node)) => Some(node),
            Some(Head::Page(_)) | None => None,
        }
    }

    fn open(&mut self, reader: &mut ChunkReader<'_>) -> Result<(), RepositoryError> {
        if let Some(Head::Page(child)) = self.head.take() {
            let opened = self.walk.open(child, reader);
            opened.map_err(|lost| *lost.error)?;
        }
        self.advance();
        Ok(())
    }
}

struct Sides<'a> {
    reader: ChunkReader<'a>,
    left: Side,
    right: Side,
}

enum Step {
    /// Both trees ended.
    Over,
    /// Pages were opened or left out.
    Nothing,
    /// These are of one path, or only one of them is there.
    Pair(Option<Box<Node>>, Option<Box<Node>>),
}

/// What to do with the heads of two trees.
enum Plan {
    Over,
    LeaveOut,
    OpenLeft,
    OpenRight,
    OpenBoth,
    TakeLeft,
    TakeRight,
    TakeBoth,
}

impl Sides<'_> {
    fn step(&mut self) -> Result<Step, RepositoryError> {
        let (left, right) = (&mut self.left, &mut self.right);
        match plan(left.head.as_ref(), right.head.as_ref()) {
            Plan::Over => return Ok(Step::Over),
            Plan::LeaveOut => {
                left.advance();
                right.advance();
            }
            Plan::OpenLeft => left.open(&mut self.reader)?,
            Plan::OpenRight => right.open(&mut self.reader)?,
            Plan::OpenBoth => {
                left.open(&mut self.reader)?;
                right.open(&mut self.reader)?;
            }
            Plan::TakeLeft => return Ok(Step::Pair(left.take(), None)),
            Plan::TakeRight => return Ok(Step::Pair(None, right.take())),
            Plan::TakeBoth => return Ok(Step::Pair(left.take(), right.take())),
        }
        Ok(Step::Nothing)
    }
}

fn plan(left: Option<&Head>, right: Option<&Head>) -> Plan {
    match (left, right) {
        (None, None) => Plan::Over,
        (Some(Head::Page(left)), Some(Head::Page(right))) => plan_pages(left, right),
        (Some(Head::Page(_)), None) => Plan::OpenLeft,
        (None, Some(Head::Page(_))) => Plan::OpenRight,
        (Some(Head::Page(page)), Some(Head::Entry(node))) => {
            // All of a page that begins later lies behind the entry.
            if page.key.as_slice() <= node.entry.path.key() {
                Plan::OpenLeft
            } else {
                Plan::TakeRight
            }
        }
        (Some(Head::Entry(node)), Some(Head::Page(page))) => {
            if page.key.as_slice() <= node.entry.path.key() {
                Plan::OpenRight
            } else {
                Plan::TakeLeft
            }
        }
        (Some(Head::Entry(left)), Some(Head::Entry(right))) => {
            match left.entry.path.cmp(&right.entry.path) {
                Ordering::Less => Plan::TakeLeft,
                Ordering::Greater => Plan::TakeRight,
                Ordering::Equal => Plan::TakeBoth,
            }
        }
        (Some(Head::Entry(_)), None) => Plan::TakeLeft,
        (None, Some(Head::Entry(_))) => Plan::TakeRight,
    }
}

/// The page that begins first, or holds more, cannot be one that the other tree has.
fn plan_pages(left: &Child, right: &Child) -> Plan {
    if left.id == right.id {
        return Plan::LeaveOut;
    }
    let order = left.key.cmp(&right.key);
    match order.then(right.entries.cmp(&left.entries)) {
        Ordering::Less => Plan::OpenLeft,
        Ordering::Greater => Plan::OpenRight,
        Ordering::Equal => Plan::OpenBoth,
    }
}
