//! The tree: all entries of a snapshot, in pages (`docs/format.md`, "Tree").

mod builder;
mod page;
mod walk;

pub(crate) use builder::{TreeBuilder, TreeRoot, check_node};
pub(crate) use walk::{PageLost, PageSource, TreeWalk};

use edge::TreePath;

/// The longest key.
pub(crate) const KEY_BYTES_MAX: usize = 65_536;
/// The longest symbolic link target.
pub(crate) const TARGET_BYTES_MAX: usize = 65_536;
/// The longest user or group name.
pub(crate) const OWNER_BYTES_MAX: usize = 255;
/// The longest name of an extended attribute.
pub(crate) const XATTR_NAME_BYTES_MAX: usize = 255;
/// The longest value of an extended attribute.
pub(crate) const XATTR_VALUE_BYTES_MAX: usize = 65_536;
/// The most extended attributes of an entry.
pub(crate) const XATTR_COUNT_MAX: usize = 1024;
/// All extended attributes of an entry together, so that a page stays a chunk.
pub(crate) const XATTR_BYTES_MAX: usize = 1024 * 1024;
/// The most levels of pages.
pub(crate) const LEVEL_MAX: usize = 16;

/// Gives the key of an entry: the bytes whose order is the order of paths.
pub(crate) fn key_of(path: &TreePath) -> Vec<u8> {
    let Some((directory, name)) = path.split() else {
        return Vec::new();
    };
    let mut key = directory_key(directory);
    key.push(0);
    key.extend_from_slice(name);
    key
}

/// Gives what the keys of everything below a directory begin with.
pub(crate) fn below(path: &TreePath) -> Vec<u8> {
    directory_key(path.components())
}

/// Gives what the keys of a directory's own entries begin with.
pub(crate) fn children(path: &TreePath) -> Vec<u8> {
    let mut key = below(path);
    key.push(0);
    key
}

fn directory_key(components: &[Vec<u8>]) -> Vec<u8> {
    let mut key = Vec::with_capacity(64);
    for component in components {
        key.extend_from_slice(component);
        key.push(0);
    }
    key
}

/// Reads a key back, or `None` when it is not one.
pub(crate) fn path_of(key: &[u8]) -> Option<TreePath> {
    let mut components = Vec::new();
    let mut rest = key;
    loop {
        let end = rest.iter().position(|b| *b == 0)?;
        let (component, after) = rest.split_at_checked(end)?;
        rest = after.get(1..)?;
        if component.is_empty() {
            break;
        }
        components.push(component.to_vec());
    }
    components.push(rest.to_vec());
    TreePath::new(components).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn path() -> impl Strategy<Value = TreePath> {
        let component = proptest::collection::vec(prop_oneof![1_u8..3, Just(b'a')], 1..4);
        proptest::collection::vec(component, 1..4).prop_map(|parts| TreePath::new(parts).unwrap())
    }

    proptest! {
        #[test]
        fn keys_order_as_paths_do(a in path(), b in path()) {
            prop_assert_eq!(key_of(&a).cmp(&key_of(&b)), a.cmp(&b));
            prop_assert_eq!(path_of(&key_of(&a)), Some(a.clone()));
            let inside = b.is_within(&a) && a != b;
            prop_assert_eq!(key_of(&b).starts_with(&below(&a)), inside);
        }

        #[test]
        fn foreign_keys_never_panic(key in proptest::collection::vec(0_u8..4, 0..12)) {
            if let Some(path) = path_of(&key) {
                prop_assert_eq!(key_of(&path), key);
            }
        }
    }
}
