//! The versions of one path over time. Pages that snapshots share are looked into once.

use std::collections::HashMap;

use edge::{Entry, Monitor, TreePath};
use model::{Instant, SnapshotId};
use sealing::ChunkId;

use super::diff::aspects;
use crate::content::{Bytes, Node};
use crate::error::{ReadError, RepositoryError};
use crate::reader::ChunkReader;
use crate::snapshot::Snapshot;
use crate::tree::{LEVEL_MAX, Page, read_page};
use crate::view::View;
use crate::wire::FormatError;

/// A snapshot, and when it was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PathTime {
    /// The snapshot.
    pub snapshot: SnapshotId,
    /// When its walk began.
    pub taken_at: Instant,
}

/// How a path was in neighbouring snapshots.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    /// The entry as the first of them holds it, or `None` when they do not hold the path.
    pub entry: Option<Entry>,
    /// Versions of equal content have equal numbers, from 0 in the order in which contents came;
    /// `None` for what has no content.
    pub content: Option<usize>,
    /// The oldest of the snapshots.
    pub first: PathTime,
    /// The newest of them.
    pub last: PathTime,
    /// How many they are.
    pub snapshots: u64,
}

impl View {
    /// Gives the versions of one path in snapshots, in their order: snapshots next to each other in
    /// which it is the same are one version. What comes before the first one that holds it is left
    /// out.
    ///
    /// # Errors
    ///
    /// `Read` when a page cannot be read, `Cancelled`.
    pub fn versions(
        &self,
        snapshots: &[Snapshot],
        path: &TreePath,
        monitor: &dyn Monitor,
    ) -> Result<Vec<Version>, RepositoryError> {
        let mut lookup = Lookup {
            reader: ChunkReader::new(&self.domain, self.locate()),
            path,
            known: HashMap::new(),
            nodes: Vec::new(),
        };
        let mut contents: Vec<Bytes> = Vec::new();
        let mut versions: Vec<Version> = Vec::new();
        let mut before: Option<usize> = None;
        for snapshot in snapshots {
            if monitor.is_cancelled() {
                return Err(RepositoryError::Cancelled);
            }
            let found = lookup.find(snapshot)?;
            let at = PathTime {
                snapshot: snapshot.id,
                taken_at: snapshot.body.started_at,
            };
            if let Some(version) = versions.last_mut()
                && lookup.is_same(before, found)
            {
                version.last = at;
                version.snapshots += 1;
            } else if found.is_some() || !versions.is_empty() {
                let node = found.and_then(|number| lookup.nodes.get(number));
                versions.push(Version {
                    entry: node.map(|node| node.entry.clone()),
                    content: node.and_then(|node| number_of(node, &mut contents)),
                    first: at,
                    last: at,
                    snapshots: 1,
                });
            }
            before = found;
        }
        Ok(versions)
    }
}

fn number_of(node: &Node, contents: &mut Vec<Bytes>) -> Option<usize> {
    let bytes = &node.content.as_ref()?.bytes;
    let known = contents.iter().position(|known| known == bytes);
    Some(known.unwrap_or_else(|| {
        contents.push(bytes.clone());
        contents.len() - 1
    }))
}

/// What a page says of the path.
#[derive(Debug, Clone, Copy)]
enum Answer {
    /// The child to ask.
    Below(ChunkId),
    /// The number of the node.
    Here(usize),
    /// It does not hold it.
    Absent,
}

struct Lookup<'a> {
    reader: ChunkReader<'a>,
    path: &'a TreePath,
    known: HashMap<ChunkId, Answer>,
    nodes: Vec<Node>,
}

impl Lookup<'_> {
    fn find(&mut self, snapshot: &Snapshot) -> Result<Option<usize>, RepositoryError> {
        let mut page = snapshot.root;
        for _ in 0..=LEVEL_MAX {
            let known = self.known.get(&page).copied();
            let answer = match known {
                Some(answer) => answer,
                None => {
                    let answer = self.ask(&page)?;
                    self.known.insert(page, answer);
                    answer
                }
            };
            match answer {
                Answer::Below(child) => page = child,
                Answer::Here(number) => return Ok(Some(number)),
                Answer::Absent => return Ok(None),
            }
        }
        Err(RepositoryError::Read(ReadError::Format {
            chunk: page,
            source: FormatError("a tree has too many levels"),
        }))
    }

    fn ask(&mut self, page: &ChunkId) -> Result<Answer, ReadError> {
        let key = self.path.key();
        match read_page(page, &mut self.reader)? {
            Page::Inner(children) => {
                let behind = children.partition_point(|child| child.key.as_slice() <= key);
                let child = behind.checked_sub(1).and_then(|at| children.get(at));
                Ok(child.map_or(Answer::Absent, |child| Answer::Below(child.id)))
            }
            Page::Leaf(nodes) => {
                let node = nodes.into_iter().find(|node| node.entry.path == *self.path);
                let Some(node) = node else {
                    return Ok(Answer::Absent);
                };
                self.nodes.push(node);
                Ok(Answer::Here(self.nodes.len() - 1))
            }
        }
    }

    fn is_same(&self, one: Option<usize>, other: Option<usize>) -> bool {
        let node = |number: Option<usize>| number.and_then(|number| self.nodes.get(number));
        match (node(one), node(other)) {
            (None, None) => true,
            (Some(one), Some(other)) => aspects(one, other).is_empty(),
            _ => false,
        }
    }
}
