//! Walks a tree in order, reading only the pages that hold what is asked for.

use std::collections::VecDeque;

use sealing::ChunkId;

use super::LEVEL_MAX;
use super::page::{Child, Page, decode_page};
use crate::content::Node;
use crate::error::ReadError;

/// Gives the bytes of pages.
pub(crate) trait PageSource {
    fn page(&mut self, id: &ChunkId) -> Result<Vec<u8>, ReadError>;
}

/// Walks all entries whose keys begin with a prefix.
pub(crate) struct TreeWalk {
    pub(super) prefix: Vec<u8>,
    /// For each level from the root down, the children not yet visited.
    pub(super) inner: Vec<VecDeque<Child>>,
    pub(super) leaf: VecDeque<Node>,
    /// The next page to read; the root at first.
    pub(super) pending: Option<Child>,
}

/// A leaf as it is stored.
#[derive(Debug)]
pub(crate) struct Leaf {
    pub(crate) id: ChunkId,
    pub(crate) nodes: Vec<Node>,
    /// The tree ends with it: it may lack a border of its own.
    pub(crate) is_last: bool,
}

/// A page that could not be read, and from which key on entries are therefore missing.
#[derive(Debug)]
pub(crate) struct PageLost {
    pub(crate) page: ChunkId,
    pub(crate) first_key: Vec<u8>,
    pub(crate) error: Box<ReadError>,
}

/// Reads one page.
pub(crate) fn read_page(id: &ChunkId, source: &mut dyn PageSource) -> Result<Page, ReadError> {
    decode_page(&source.page(id)?).map_err(|source| ReadError::Format { chunk: *id, source })
}

impl PageLost {
    pub(super) fn of(child: Child, error: ReadError) -> Self {
        Self {
            page: child.id,
            first_key: child.key,
            error: Box::new(error),
        }
    }
}

impl TreeWalk {
    pub(crate) fn new(root: ChunkId, prefix: Vec<u8>) -> Self {
        Self {
            prefix,
            inner: Vec::new(),
            leaf: VecDeque::new(),
            pending: Some(Child {
                key: Vec::new(),
                id: root,
                entries: 0,
                bytes: 0,
            }),
        }
    }

    /// Gives the next entry. After an error the walk goes on behind the lost page.
    pub(crate) fn next(&mut self, source: &mut dyn PageSource) -> Result<Option<Node>, PageLost> {
        self.next_visiting(source, &mut |_| true)
    }

    /// Gives the next leaf whole, whatever the prefix.
    pub(crate) fn next_leaf(
        &mut self,
        source: &mut dyn PageSource,
    ) -> Result<Option<Leaf>, PageLost> {
        while let Some(child) = self.pending.take().or_else(|| self.next_child()) {
            match self.read(&child, source) {
                Ok(Page::Leaf(nodes)) => {
                    return Ok(Some(Leaf {
                        id: child.id,
                        nodes,
                        is_last: self.inner.iter().all(VecDeque::is_empty),
                    }));
                }
                Ok(Page::Inner(children)) => self.inner.push(children.into()),
                Err(error) => return Err(PageLost::of(child, error)),
            }
        }
        Ok(None)
    }

    /// As [`TreeWalk::next`], but reads only pages that `visit` agrees to.
    pub(crate) fn next_visiting(
        &mut self,
        source: &mut dyn PageSource,
        visit: &mut dyn FnMut(&ChunkId) -> bool,
    ) -> Result<Option<Node>, PageLost> {
        loop {
            if let Some(node) = self.leaf.pop_front() {
                let key = node.entry.path.key();
                if key.starts_with(&self.prefix) {
                    return Ok(Some(node));
                }
                if key > self.prefix.as_slice() {
                    self.inner.clear();
                    self.leaf.clear();
                    return Ok(None);
                }
                continue;
            }
            let Some(child) = self.pending.take().or_else(|| self.next_child()) else {
                return Ok(None);
            };
            if !visit(&child.id) {
                continue;
            }
            match self.read(&child, source) {
                Ok(Page::Leaf(nodes)) => self.leaf = nodes.into(),
                Ok(Page::Inner(children)) => self.inner.push(children.into()),
                Err(error) => return Err(PageLost::of(child, error)),
            }
        }
    }

    pub(super) fn read(
        &self,
        child: &Child,
        source: &mut dyn PageSource,
    ) -> Result<Page, ReadError> {
        let page = read_page(&child.id, source)?;
        if matches!(page, Page::Inner(_)) && self.inner.len() >= LEVEL_MAX {
            return Err(ReadError::Format {
                chunk: child.id,
                source: crate::wire::FormatError("a tree has too many levels"),
            });
        }
        Ok(page)
    }

    /// Gives the next child that may hold keys with the prefix.
    pub(super) fn next_child(&mut self) -> Option<Child> {
        while let Some(children) = self.inner.last_mut() {
            let Some(child) = children.pop_front() else {
                self.inner.pop();
                continue;
            };
            // All keys of this child are below the next one's first key.
            let ends_before = children
                .front()
                .is_some_and(|next| next.key.as_slice() <= self.prefix.as_slice());
            let begins_behind = child.key > self.prefix && !child.key.starts_with(&self.prefix);
            if begins_behind {
                self.inner.clear();
                return None;
            }
            if !ends_before {
                return Some(child);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::convert::Infallible;
    use std::sync::Arc;

    use edge::{Entry, EntryKind, FileTime, TreePath};
    use sealing::{ChunkKind, Keyring, ScheduleKey};

    use super::super::{TreeBuilder, TreeRoot, children};
    use super::*;

    struct Pages(HashMap<ChunkId, Vec<u8>>, usize);

    impl PageSource for Pages {
        fn page(&mut self, id: &ChunkId) -> Result<Vec<u8>, ReadError> {
            self.1 += 1;
            self.0
                .get(id)
                .cloned()
                .ok_or(ReadError::Unknown { chunk: *id })
        }
    }

    fn node(path: TreePath, inode: u64) -> Node {
        Node {
            entry: Entry {
                path,
                kind: EntryKind::Directory,
                mode: 0o755,
                owner: Arc::default(),
                modified: FileTime::default(),
                changed: FileTime::default(),
                size_bytes: 0,
                inode,
                device: 1,
                link_count: 1,
                xattrs: Vec::new(),
            },
            content: None,
        }
    }

    fn many() -> Vec<TreePath> {
        let mut paths: Vec<_> = (0..200_u32)
            .flat_map(|d| {
                (0..100_u32).map(move |f| {
                    TreePath::parse(format!("dir{d}/file with some name {f}").as_bytes()).unwrap()
                })
            })
            .collect();
        paths.sort();
        paths
    }

    fn build(paths: &[TreePath], pages: &mut Pages, inode: u64) -> TreeRoot {
        let keyring = Keyring::first(&ScheduleKey::from_bytes([1; 32]), "");
        let mut builder = TreeBuilder::new(keyring.tree_hasher());
        let namer = keyring.namer();
        let mut sink = |page: Vec<u8>| {
            let id = namer.name(ChunkKind::Page, &page);
            pages.0.insert(id, page);
            Ok::<_, Infallible>(id)
        };
        for (at, path) in paths.iter().enumerate() {
            let inode = if at == 7_000 { inode } else { 0 };
            builder.push(node(path.clone(), inode), &mut sink).unwrap();
        }
        builder.finish(&mut sink).unwrap()
    }

    fn walk(root: TreeRoot, prefix: Vec<u8>, pages: &mut Pages) -> Vec<TreePath> {
        let mut walk = TreeWalk::new(root.id, prefix);
        let mut found = Vec::new();
        while let Some(node) = walk.next(pages).unwrap() {
            found.push(node.entry.path);
        }
        found
    }

    #[test]
    fn a_tree_gives_back_all_entries_in_order() {
        let mut pages = Pages(HashMap::new(), 0);
        let root = build(&many(), &mut pages, 0);
        assert_eq!(root.entries, 20_000);
        assert_eq!(walk(root, Vec::new(), &mut pages), many());
        let sizes: Vec<_> = pages.0.values().map(Vec::len).collect();
        let mean = sizes.iter().sum::<usize>() / sizes.len();
        assert!((4_000..40_000).contains(&mean), "{mean}");
        let empty = build(&[], &mut pages, 0);
        assert!(walk(empty, Vec::new(), &mut pages).is_empty());
    }

    #[test]
    fn one_directory_costs_few_pages() {
        let mut pages = Pages(HashMap::new(), 0);
        let root = build(&many(), &mut pages, 0);
        for name in ["dir0", "dir57", "dir199"] {
            let directory = TreePath::parse(name.as_bytes()).unwrap();
            for prefix in [directory.key_below(), children(&directory)] {
                pages.1 = 0;
                let found = walk(root, prefix, &mut pages);
                assert_eq!(found.len(), 100);
                assert!(found.iter().all(|path| path.is_within(&directory)));
                assert!(pages.1 <= 6, "{} pages", pages.1);
            }
        }
        let nothing = TreePath::parse(b"dir2000").unwrap();
        assert!(walk(root, nothing.key_below(), &mut pages).is_empty());
    }

    #[test]
    fn a_changed_entry_changes_one_page_of_each_level() {
        let mut pages = Pages(HashMap::new(), 0);
        build(&many(), &mut pages, 0);
        let before = pages.0.len();
        build(&many(), &mut pages, 999);
        assert!(pages.0.len() - before <= 3);
    }

    #[test]
    fn a_lost_page_loses_only_its_entries() {
        let mut pages = Pages(HashMap::new(), 0);
        let root = build(&many(), &mut pages, 0);
        let leaf = pages
            .0
            .iter()
            .find(|(_, page)| page[0] == 1)
            .map(|(id, _)| *id);
        let lost = pages.0.remove(&leaf.unwrap()).unwrap();
        let Page::Leaf(lost) = decode_page(&lost).unwrap() else {
            panic!("a leaf was taken");
        };
        let mut walk = TreeWalk::new(root.id, Vec::new());
        let (mut found, mut errors) = (0, 0);
        loop {
            match walk.next(&mut pages) {
                Ok(Some(_)) => found += 1,
                Ok(None) => break,
                Err(lost_page) => {
                    errors += 1;
                    assert_eq!(lost_page.first_key, lost[0].entry.path.key());
                }
            }
        }
        assert_eq!((found, errors), (20_000 - lost.len(), 1));
    }
}
