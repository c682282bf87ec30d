//! What every object store promises, as one suite that drivers run on themselves.

#![expect(
    clippy::unwrap_used,
    clippy::missing_panics_doc,
    reason = "a suite of assertions"
)]

use std::collections::BTreeMap;

use edge::{ByteRange, ObjectName, ObjectStore, StoreFault};

fn name(text: &str) -> ObjectName {
    ObjectName::new(text).unwrap()
}

/// Checks a store that holds nothing yet, and leaves it empty. Panics at the first promise that is
/// not kept.
pub fn object_store_conformance(store: &dyn ObjectStore) {
    assert!(!store.describe().is_empty());
    nothing_is_there(store);
    objects_read_back(store);
    ranges_are_exact(store);
    listing_knows_prefixes(store);
    overwriting_with_the_same_changes_nothing(store);
    deleting_is_final(store);
    many_threads_may_write(store);
}

fn listed(store: &dyn ObjectStore, prefix: &str) -> BTreeMap<String, u64> {
    let mut found = BTreeMap::new();
    let done = store.list(prefix, &mut |info| {
        let twice = found.insert(info.name.to_string(), info.size_bytes);
        assert!(twice.is_none(), "{} is listed twice", info.name);
    });
    done.unwrap();
    found
}

fn nothing_is_there(store: &dyn ObjectStore) {
    let absent = name("d/absent");
    assert!(
        listed(store, "").is_empty(),
        "the store must be empty at first"
    );
    assert!(listed(store, "d/").is_empty());
    assert_eq!(store.size(&absent).unwrap(), None);
    assert_eq!(
        store.get(&absent, 10).unwrap_err().fault,
        StoreFault::NotFound
    );
    let range = ByteRange::Suffix { length: 4 };
    let fault = store.get_range(&absent, range).unwrap_err().fault;
    assert_eq!(fault, StoreFault::NotFound);
    store.delete(&absent).unwrap();
}

fn objects_read_back(store: &dyn ObjectStore) {
    let large: Vec<u8> = (0..3_000_000_u32).flat_map(u32::to_le_bytes).collect();
    for (text, bytes) in [
        ("repository", &b"x"[..]),
        ("d/0123456789abcdef/p/ab/cd.e_f-g", &large),
        ("d/0123456789abcdef/p/ab/empty", b""),
    ] {
        let name = name(text);
        store.put(&name, bytes).unwrap();
        let size = bytes.len() as u64;
        assert_eq!(store.size(&name).unwrap(), Some(size));
        assert!(
            store.get(&name, size).unwrap() == bytes,
            "{text} reads back"
        );
        if size > 0 {
            let fault = store.get(&name, size - 1).unwrap_err().fault;
            assert_eq!(fault, StoreFault::Malformed, "{text} is over the limit");
        }
    }
    for text in [
        "repository",
        "d/0123456789abcdef/p/ab/empty",
        "d/0123456789abcdef/p/ab/cd.e_f-g",
    ] {
        store.delete(&name(text)).unwrap();
    }
}

fn ranges_are_exact(store: &dyn ObjectStore) {
    let name = name("r/object");
    store.put(&name, b"0123456789").unwrap();
    let at = |offset, length| store.get_range(&name, ByteRange::At { offset, length });
    let end = |length| store.get_range(&name, ByteRange::Suffix { length });
    assert_eq!(at(0, 10).unwrap(), b"0123456789");
    assert_eq!(at(3, 4).unwrap(), b"3456");
    assert_eq!(at(9, 1).unwrap(), b"9");
    assert_eq!(at(8, 100).unwrap(), b"89", "a range may end behind the end");
    assert_eq!(end(1).unwrap(), b"9");
    assert_eq!(end(10).unwrap(), b"0123456789");
    assert_eq!(end(11).unwrap(), b"0123456789");
    assert_eq!(at(10, 1).unwrap_err().fault, StoreFault::Malformed);
    assert_eq!(at(500, 1).unwrap_err().fault, StoreFault::Malformed);
    store.delete(&name).unwrap();
}

fn listing_knows_prefixes(store: &dyn ObjectStore) {
    let names = ["a/b/1", "a/b/2", "a/bc/3", "a/4", "b/5"];
    for text in names {
        store.put(&name(text), text.as_bytes()).unwrap();
    }
    assert_eq!(listed(store, "").len(), names.len());
    let below: Vec<_> = listed(store, "a/b/").into_iter().collect();
    assert_eq!(below, [("a/b/1".to_owned(), 5), ("a/b/2".to_owned(), 5)]);
    assert_eq!(listed(store, "a/").len(), 4);
    assert!(listed(store, "c/").is_empty());
    for text in names {
        store.delete(&name(text)).unwrap();
    }
}

fn overwriting_with_the_same_changes_nothing(store: &dyn ObjectStore) {
    let name = name("o/object");
    for _ in 0..2 {
        store.put(&name, b"same").unwrap();
    }
    assert_eq!(store.get(&name, 4).unwrap(), b"same");
    assert_eq!(listed(store, "o/").len(), 1);
    store.delete(&name).unwrap();
}

fn deleting_is_final(store: &dyn ObjectStore) {
    let name = name("x/y/z");
    store.put(&name, b"gone").unwrap();
    store.delete(&name).unwrap();
    store.delete(&name).unwrap();
    assert_eq!(store.size(&name).unwrap(), None);
    assert!(listed(store, "").is_empty());
}

fn many_threads_may_write(store: &dyn ObjectStore) {
    let text = |thread: u32, number: u32| format!("t/{thread}/{number}");
    std::thread::scope(|scope| {
        for thread in 0..4 {
            scope.spawn(move || {
                for number in 0..8 {
                    let text = text(thread, number);
                    store.put(&name(&text), text.as_bytes()).unwrap();
                }
            });
        }
    });
    assert_eq!(listed(store, "t/").len(), 32);
    for thread in 0..4 {
        for number in 0..8 {
            let text = text(thread, number);
            assert_eq!(store.get(&name(&text), 100).unwrap(), text.as_bytes());
            store.delete(&name(&text)).unwrap();
        }
    }
    assert!(listed(store, "").is_empty(), "nothing is left behind");
}
