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
    /// The source of the entry that was given last.
    current: Option<usize>,
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
            current: None,
        }
    }

    /// Asks one source for its next entry.
    fn ask(&mut self, index: usize) -> Result<Option<Head>, SourceError> {
        let Some(slot) = self.sources.get_mut(index) else {
            return Ok(None);
        };
        let next = slot.as_mut().map_or(Ok(None), |source| source.next());
        match next {
            Ok(Some(SourceItem::Entry(entry, opener))) => Ok(Some(Head {
                index,
                entry,
                opener,
            })),
            Ok(Some(SourceItem::Failed(error))) => {
                self.waiting.push(index);
                Err(error)
            }
            Ok(None) => {
                *slot = None;
                Ok(None)
            }
            // The others can still be read.
            Err(error) => {
                *slot = None;
                Err(error)
            }
        }
    }

    /// Gives an entry, and lets others under its path go.
    fn give(&mut self, head: Head) -> SourceItem {
        while let Some(Reverse(other)) = self.heads.peek()
            && other.entry.path == head.entry.path
        {
            self.waiting.push(other.index);
            self.heads.pop();
        }
        self.current = Some(head.index);
        SourceItem::Entry(head.entry, head.opener)
    }
}

impl Source for Merged<'_> {
    fn next(&mut self) -> Result<Option<SourceItem>, SourceError> {
        while let Some(index) = self.waiting.pop() {
            match self.ask(index) {
                Ok(head) => self.heads.extend(head.map(Reverse)),
                Err(error) => return Ok(Some(SourceItem::Failed(error))),
            }
        }
        // Mostly the next entry is of the same source: then it need not go over the heap.
        if let Some(index) = self.current.take() {
            match self.ask(index) {
                Ok(None) => {}
                Ok(Some(head)) => match self.heads.peek() {
                    Some(Reverse(other)) if *other < head => self.heads.push(Reverse(head)),
                    _ => return Ok(Some(self.give(head))),
                },
                Err(error) => return Ok(Some(SourceItem::Failed(error))),
            }
        }
        let next = self.heads.pop();
        Ok(next.map(|Reverse(head)| self.give(head)))
    }
}
