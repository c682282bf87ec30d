//! Files with several names: the first becomes a file, further ones become names of it.

use std::collections::HashMap;

use edge::{Entry, TreePath};

use crate::content::Node;

/// Inodes whose first name is remembered. Of what comes beyond, each name becomes a file of its
/// own.
const INODES_MAX: usize = 1_000_000;
/// Further names that wait for their first one.
const WAITING_MAX: usize = 10_000;

/// An inode as the snapshot names it: device and number.
pub(super) type Inode = (u64, u64);

/// What is to be done with a name.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Name<'l> {
    /// It becomes a file.
    First,
    /// It becomes another name of what is finished here.
    Further(&'l TreePath),
    /// Its first name is under way.
    Waits,
}

/// What became of the first name of an inode.
#[derive(Debug)]
enum First {
    UnderWay(Vec<Node>),
    Finished {
        path: TreePath,
        /// Names that are still to come, when all are restored.
        left: u64,
    },
}

/// The first names of inodes with several.
#[derive(Debug)]
pub(super) struct Links {
    first: HashMap<Inode, First>,
    waiting: usize,
    inodes_max: usize,
}

impl Default for Links {
    fn default() -> Self {
        Self {
            first: HashMap::new(),
            waiting: 0,
            inodes_max: INODES_MAX,
        }
    }
}

impl Links {
    /// Says what a name is to become.
    pub(super) fn look(&self, inode: Inode) -> Name<'_> {
        match self.first.get(&inode) {
            None => Name::First,
            Some(First::UnderWay(_)) => Name::Waits,
            Some(First::Finished { path, .. }) => Name::Further(path),
        }
    }

    /// Remembers that a first name is under way, if there is room.
    pub(super) fn begin(&mut self, inode: Inode) {
        if self.first.len() < self.inodes_max {
            self.first.insert(inode, First::UnderWay(Vec::new()));
        }
    }

    /// Keeps a further name until the first one is done.
    pub(super) fn wait(&mut self, inode: Inode, node: Node) {
        if let Some(First::UnderWay(waiting)) = self.first.get_mut(&inode) {
            waiting.push(node);
            self.waiting += 1;
        }
    }

    /// True when no more names should be made to wait.
    pub(super) const fn are_many_waiting(&self) -> bool {
        self.waiting >= WAITING_MAX
    }

    /// Notes that a file under way is finished; gives the names that waited for it.
    pub(super) fn finished(&mut self, inode: Inode, entry: &Entry) -> Vec<Node> {
        let Some(first) = self.first.get_mut(&inode) else {
            return Vec::new();
        };
        let waiting = std::mem::replace(first, First::of(entry));
        self.no_more_waiting(waiting)
    }

    /// Notes that a file under way failed; gives the names that waited, of which one becomes the
    /// first.
    pub(super) fn failed(&mut self, inode: Inode) -> Vec<Node> {
        let first = self.first.remove(&inode);
        first.map_or_else(Vec::new, |first| self.no_more_waiting(first))
    }

    /// Notes that a name was made at once: the first one, or a further one. Behind the last of
    /// them nothing is remembered.
    pub(super) fn made(&mut self, inode: Inode, entry: &Entry) {
        let has_room = self.first.len() < self.inodes_max;
        match self.first.get_mut(&inode) {
            Some(First::Finished { left, .. }) => {
                *left = left.saturating_sub(1);
                if *left == 0 {
                    self.first.remove(&inode);
                }
            }
            None if has_room => {
                self.first.insert(inode, First::of(entry));
            }
            Some(First::UnderWay(_)) | None => {}
        }
    }

    fn no_more_waiting(&mut self, first: First) -> Vec<Node> {
        match first {
            First::UnderWay(waiting) => {
                self.waiting -= waiting.len();
                waiting
            }
            First::Finished { .. } => Vec::new(),
        }
    }
}

impl First {
    fn of(entry: &Entry) -> Self {
        Self::Finished {
            path: entry.path.clone(),
            left: entry.link_count.saturating_sub(1),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use edge::{EntryKind, FileTime};

    use super::*;

    fn name(text: &str, link_count: u64) -> Node {
        Node {
            entry: Entry {
                path: TreePath::parse(text.as_bytes()).unwrap(),
                kind: EntryKind::File,
                mode: 0o644,
                owner: Arc::default(),
                modified: FileTime::default(),
                changed: FileTime::default(),
                size_bytes: 0,
                inode: 1,
                device: 1,
                link_count,
                xattrs: Vec::new(),
            },
            content: None,
        }
    }

    #[test]
    fn further_names_wait_for_the_first_and_nothing_stays_behind_the_last() {
        let mut links = Links::default();
        let (inode, first, second, third) = ((1, 7), name("a", 3), name("b", 3), name("c", 3));
        assert_eq!(links.look(inode), Name::First);
        links.begin(inode);
        assert_eq!(links.look(inode), Name::Waits);
        links.wait(inode, second.clone());
        assert_eq!(
            links.finished(inode, &first.entry),
            std::slice::from_ref(&second)
        );
        assert_eq!(links.look(inode), Name::Further(&first.entry.path));
        links.made(inode, &second.entry);
        assert_eq!(links.look(inode), Name::Further(&first.entry.path));
        links.made(inode, &third.entry);
        assert!(links.first.is_empty() && links.waiting == 0);
    }

    #[test]
    fn when_the_first_name_fails_the_next_one_becomes_the_first() {
        let mut links = Links::default();
        links.begin((1, 7));
        links.wait((1, 7), name("b", 2));
        assert_eq!(links.failed((1, 7)), [name("b", 2)]);
        assert_eq!(links.look((1, 7)), Name::First);
        assert_eq!(links.waiting, 0);
    }

    #[test]
    fn beyond_the_bound_each_name_is_a_file_of_its_own() {
        let mut links = Links {
            inodes_max: 2,
            ..Links::default()
        };
        for inode in 0..3 {
            links.begin((1, inode));
        }
        assert_eq!(links.look((1, 1)), Name::Waits);
        assert_eq!(links.look((1, 2)), Name::First);
        assert!(links.finished((1, 2), &name("a", 2).entry).is_empty());
        links.made((1, 3), &name("b", 2).entry);
        assert_eq!(links.first.len(), 2);
    }

    #[test]
    fn names_that_wait_are_counted() {
        let mut links = Links::default();
        links.begin((1, 7));
        for _ in 0..WAITING_MAX {
            assert!(!links.are_many_waiting());
            links.wait((1, 7), name("b", 2));
        }
        assert!(links.are_many_waiting());
        assert_eq!(links.failed((1, 7)).len(), WAITING_MAX);
        assert!(!links.are_many_waiting());
    }
}
