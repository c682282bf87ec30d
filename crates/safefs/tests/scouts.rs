//! Directories that were looked at ahead of the walk are given as if they had not been.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail like tests")]

use std::fs;
use std::path::Path;
use std::sync::Arc;

use edge::{Source as _, SourceItem, TreePath};
use model::ErrorClass;
use safefs::{Root, Users, Walker};

fn walker(path: &Path) -> Walker {
    let path = TreePath::parse(path.as_os_str().as_encoded_bytes()).unwrap();
    let root = Root {
        prefix: path.clone(),
        path,
        excludes: Arc::default(),
    };
    Walker::new(vec![root], &Arc::new(Users::load().unwrap()))
}

/// Gives the paths of a walk, and what could not be read.
fn collect(mut walker: Walker) -> (Vec<TreePath>, Vec<edge::SourceError>) {
    let (mut paths, mut errors) = (Vec::new(), Vec::new());
    while let Some(item) = walker.next().unwrap() {
        match item {
            SourceItem::Entry(entry, _) => paths.push(entry.path),
            SourceItem::Failed(error) => errors.push(error),
        }
    }
    (paths, errors)
}

/// Makes directories of every shape: many, deep ones, empty ones, one with more names than are
/// looked at ahead, and one with that many directories.
fn grow(top: &Path) -> usize {
    let mut count = 0;
    let mut make = |path: &Path, files: usize| {
        fs::create_dir(path).unwrap();
        for number in 0..files {
            fs::write(path.join(format!("file-{number}")), "").unwrap();
        }
        count += 1 + files;
    };
    for outer in 0..20 {
        let outer = top.join(format!("outer-{outer}"));
        make(&outer, 3);
        for inner in 0..20 {
            make(&outer.join(format!("inner-{inner}")), inner % 7);
        }
    }
    make(&top.join("outer-3/inner-8/long"), 1500);
    make(&top.join("wide"), 0);
    for number in 0..600 {
        make(&top.join(format!("wide/below-{number}")), 1);
    }
    let mut deep = top.join("deep");
    for _ in 0..100 {
        make(&deep, 1);
        deep.push("deeper");
    }
    count
}

#[test]
fn a_walk_is_the_same_with_scouts_and_without() {
    let dir = tempfile::tempdir().unwrap();
    let count = grow(dir.path());
    let (alone, errors) = collect(walker(dir.path()).alone());
    assert!(errors.is_empty());
    let parents = dir.path().components().count() - 1;
    assert_eq!(alone.len(), parents + count);
    assert!(alone.is_sorted());
    for _ in 0..8 {
        let (paths, errors) = collect(walker(dir.path()));
        assert!(errors.is_empty());
        assert!(paths == alone);
    }
}

#[test]
fn a_walk_may_be_dropped_anywhere() {
    let dir = tempfile::tempdir().unwrap();
    let count = grow(dir.path());
    for taken in (1..count).step_by(count / 17) {
        let mut walker = walker(dir.path());
        for _ in 0..taken {
            assert!(walker.next().unwrap().is_some());
        }
    }
}

#[test]
fn what_vanishes_before_a_scout_comes_is_reported_in_its_place() {
    let dir = tempfile::tempdir().unwrap();
    let names = ["1", "2", "3", "4", "5", "6", "7", "8", "9"];
    for name in names {
        fs::create_dir(dir.path().join(name)).unwrap();
        fs::write(dir.path().join(name).join("file"), "").unwrap();
    }
    let mut walker = walker(dir.path());
    let mut found = Vec::new();
    while let Some(item) = walker.next().unwrap() {
        match item {
            SourceItem::Failed(error) => {
                assert_eq!(error.class, ErrorClass::RetryNow);
                found.push(error.object);
            }
            SourceItem::Entry(entry, _) if entry.path.name() == Some(b"9") => {
                for name in names.iter().filter(|name| **name != "4") {
                    fs::remove_dir_all(dir.path().join(name)).unwrap();
                }
            }
            SourceItem::Entry(entry, _) => {
                let name = entry.path.name().unwrap_or_default();
                found.extend((name == b"file").then(|| entry.path.to_string()));
            }
        }
    }
    let top = dir.path().display();
    let expected = names.map(|name| match name {
        "4" => format!("{top}/4/file"),
        name => format!("{top}/{name}"),
    });
    assert_eq!(found, expected);
}
