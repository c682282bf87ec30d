//! The tree: all entries of a snapshot, in pages (`docs/format.md`, "Tree").

mod builder;
mod heads;
mod page;
mod walk;

pub(crate) use builder::{TreeBuilder, TreeRoot, check_node};
pub(crate) use heads::Head;
pub(crate) use page::{Child, Page, is_inner};
#[cfg(any(test, feature = "foreign"))]
pub(crate) use page::{decode_page, encode_inner, encode_leaf, may_have_key};
pub(crate) use walk::{Leaf, PageLost, PageSource, TreeWalk, read_page};

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

/// Gives what the keys of a directory's own entries begin with.
pub(crate) fn children(path: &TreePath) -> Vec<u8> {
    let mut key = path.key_below();
    key.push(0);
    key
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
            let split = |path: &TreePath| {
                let mut parts: Vec<_> = path.components().map(<[u8]>::to_vec).collect();
                let name = parts.pop();
                (parts, name)
            };
            prop_assert_eq!(a.key().cmp(b.key()), split(&a).cmp(&split(&b)));
            prop_assert_eq!(TreePath::from_key(a.key()), Some(a.clone()));
            let inside = b.is_within(&a) && a != b;
            prop_assert_eq!(b.key().starts_with(&a.key_below()), inside);
        }

        #[test]
        fn foreign_keys_never_panic(key in proptest::collection::vec(0_u8..4, 0..12)) {
            if let Some(path) = TreePath::from_key(&key) {
                let again = TreePath::new(path.components()).unwrap();
                prop_assert_eq!(again.key(), key);
            }
        }
    }
}
