//! Says how two trees differ, for tests that must find them equal.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::Path;
use std::sync::Arc;

use edge::{Entry, EntryKind, Extent, Source, SourceItem, TreePath};

use crate::{Excludes, Root, Users, Walker};
use std::os::unix::ffi::OsStrExt;

/// Everything of one entry that a restore must bring back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// Entry without inode, device and change time, which no restore can choose.
    pub entry: Entry,
    /// The first path, in tree order, of the same inode.
    pub first_name: Option<TreePath>,
    /// Data extents, where there are holes.
    pub extents: Option<Vec<Extent>>,
    /// Data bytes, holes left out.
    pub bytes: Vec<u8>,
}

/// Reads a whole tree into memory; its root has the empty path.
///
/// # Errors
///
/// The first thing that could not be read.
pub fn describe_tree(path: &Path) -> io::Result<BTreeMap<TreePath, Facts>> {
    let prefix = TreePath::parse(b"tree").map_err(io::Error::other)?;
    let root = Root {
        path: TreePath::parse(path.as_os_str().as_bytes()).map_err(io::Error::other)?,
        prefix: prefix.clone(),
        excludes: Arc::new(Excludes::default()),
    };
    let mut walker = Walker::new(vec![root], &Arc::new(Users::load()?));
    let mut firsts: HashMap<(u64, u64), TreePath> = HashMap::new();
    let mut found = BTreeMap::new();
    while let Some(item) = walker.next().map_err(io::Error::other)? {
        let (mut entry, opener) = match item {
            SourceItem::Entry(entry, opener) => (entry, opener),
            SourceItem::Failed(error) => return Err(io::Error::other(error)),
        };
        let (mut extents, mut bytes) = (None, Vec::new());
        if let Some(mut open) = opener {
            let (opened, mut content) = open().map_err(io::Error::other)?;
            entry = opened;
            extents = content.extents();
            let mut buffer = vec![0; 64 * 1024];
            loop {
                let count = content.read(&mut buffer)?;
                if count == 0 {
                    break;
                }
                bytes.extend_from_slice(buffer.get(..count).unwrap_or_default());
            }
            content.finish().map_err(io::Error::other)?;
        }
        entry.path = entry.path.skip(1);
        let is_linked = entry.link_count > 1 && entry.kind != EntryKind::Directory;
        let first_name = is_linked.then(|| {
            let inode = (entry.device, entry.inode);
            firsts
                .entry(inode)
                .or_insert_with(|| entry.path.clone())
                .clone()
        });
        entry.inode = 0;
        entry.device = 0;
        entry.changed = edge::FileTime::default();
        if entry.kind == EntryKind::Directory {
            entry.link_count = 0;
        }
        let facts = Facts {
            entry,
            first_name,
            extents,
            bytes,
        };
        found.insert(facts.entry.path.clone(), facts);
    }
    Ok(found)
}

/// Lists every difference between two trees: type, mode, owner, times, attributes, link groups,
/// holes and bytes. The roots' own times are compared, too.
///
/// # Errors
///
/// The first thing that could not be read.
pub fn differences(left: &Path, right: &Path) -> io::Result<Vec<String>> {
    let (left, right) = (describe_tree(left)?, describe_tree(right)?);
    let mut found = Vec::new();
    for (path, facts) in &left {
        match right.get(path) {
            None => found.push(format!("{path} is missing")),
            Some(other) if other != facts => found.push(difference(path, facts, other)),
            Some(_) => {}
        }
    }
    let extra = right.keys().filter(|path| !left.contains_key(*path));
    found.extend(extra.map(|path| format!("{path} should not be there")));
    Ok(found)
}

fn difference(path: &TreePath, left: &Facts, right: &Facts) -> String {
    let (a, b) = (&left.entry, &right.entry);
    if a != b {
        return format!("{path}: {a:?} became {b:?}");
    }
    if left.first_name != right.first_name {
        return format!("{path}: link group differs");
    }
    if left.extents != right.extents {
        return format!(
            "{path}: holes {:?} became {:?}",
            left.extents, right.extents
        );
    }
    format!("{path}: bytes differ")
}
