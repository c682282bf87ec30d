//! Several sources as one, entries in the order of their paths.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;

use edge::{Entry, Opener, Source, SourceError, SourceItem, TreePath};

/// A source made of others. What several of them give under one path is given once: the first
/// source in the list wins, so parents that all of them have appear once.
pub struct Merged<'a> {
    sources: Vec<Option<Box<dyn Source + 'a>>>,
    heads: BinaryHeap<Reverse<Head>>,
    waiting: Vec<usize>,
    last: Option<TreePath>,
}

struct Head {
    index: usize,
    entry: Entry,
    opener: Option<Opener>,
}

impl Head {
    fn key(&self) -> (&TreePath, usize) {
        (&self.entry.path, self.index)
    }
}

impl PartialEq for Head {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl Eq for Head {}

impl PartialOrd for Head {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Head {
    fn cmp(&self, other: &Self) -> Ordering {
        self.key().cmp(&other.key())
    }
}

impl<'a> Merged<'a> {
    /// Takes sources that are each in path order.
    #[must_use]
    pub fn new(sources: Vec<Box<dyn Source + 'a>>) -> Self {
        Self {
            waiting: (0..sources.len()).rev().collect(),
            sources: sources.into_iter().map(Some).collect(),
            heads: BinaryHeap::new(),
            last: None,
        }
    }

    /// Asks one source for its next entry; gives an error to pass on.
    fn advance(&mut self, index: usize) -> Option<SourceError> {
        let slot = self.sources.get_mut(index)?;
        match slot.as_mut()?.next() {
            Ok(Some(SourceItem::Entry(entry, opener))) => {
                self.heads.push(Reverse(Head {
                    index,
                    entry,
                    opener,
                }));
                None
            }
            Ok(Some(SourceItem::Failed(error))) => {
                self.waiting.push(index);
                Some(error)
            }
            Ok(None) => {
                *slot = None;
                None
            }
            // The others can still be read.
            Err(error) => {
                *slot = None;
                Some(error)
            }
        }
    }
}

impl Source for Merged<'_> {
    fn next(&mut self) -> Result<Option<SourceItem>, SourceError> {
        loop {
            while let Some(index) = self.waiting.pop() {
                if let Some(error) = self.advance(index) {
                    return Ok(Some(SourceItem::Failed(error)));
                }
            }
            let Some(Reverse(head)) = self.heads.pop() else {
                return Ok(None);
            };
            self.waiting.push(head.index);
            if self.last.as_ref() != Some(&head.entry.path) {
                self.last = Some(head.entry.path.clone());
                return Ok(Some(SourceItem::Entry(head.entry, head.opener)));
            }
        }
    }
}
