//! Walks a tree page by page: whoever walks sees each page before it is read, and may leave it out.

use std::collections::VecDeque;

use super::page::{Child, Page, may_have_key};
use super::walk::{PageLost, PageSource, TreeWalk};
use crate::content::Node;

/// What comes next in a tree.
#[derive(Debug)]
pub(crate) enum Head {
    /// A page that was not read. The root comes with an empty key and no sums.
    Page(Child),
    /// An entry.
    Entry(Box<Node>),
}

impl TreeWalk {
    /// Gives what comes next, without reading anything. A page that is not opened is left out.
    pub(crate) fn next_head(&mut self) -> Option<Head> {
        while let Some(node) = self.leaf.pop_front() {
            let key = node.entry.path.key();
            if key.starts_with(&self.prefix) {
                return Some(Head::Entry(Box::new(node)));
            }
            if key > self.prefix.as_slice() {
                self.inner.clear();
                self.leaf.clear();
                return None;
            }
        }
        let child = self.pending.take().or_else(|| self.next_child());
        child.map(Head::Page)
    }

    /// Opens the page that [`TreeWalk::next_head`] gave last: what it holds comes next.
    pub(crate) fn open(
        &mut self,
        child: Child,
        source: &mut dyn PageSource,
    ) -> Result<(), PageLost> {
        match self.read(&child, source) {
            Ok(page) => {
                self.take(page);
                Ok(())
            }
            Err(error) => Err(PageLost::of(child, error)),
        }
    }

    /// As [`TreeWalk::open`], but leaves out a leaf that has no wanted key: its entries are not
    /// even decoded.
    pub(crate) fn open_for(
        &mut self,
        child: Child,
        source: &mut dyn PageSource,
        wanted: &mut dyn FnMut(&[u8]) -> bool,
    ) -> Result<(), PageLost> {
        if let Ok(bytes) = source.page(&child.id)
            && let Ok(false) = may_have_key(&bytes, wanted)
        {
            return Ok(());
        }
        self.open(child, source)
    }

    /// Gives the first key behind the page that was given last, when the tree goes on there.
    pub(crate) fn next_key(&self) -> Option<&[u8]> {
        let mut fronts = self.inner.iter().rev().filter_map(VecDeque::front);
        fronts.next().map(|child| child.key.as_slice())
    }

    fn take(&mut self, page: Page) {
        match page {
            Page::Leaf(nodes) => self.leaf = nodes.into(),
            Page::Inner(children) => self.inner.push(children.into()),
        }
    }
}
