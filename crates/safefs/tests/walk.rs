//! The walker against real trees: order, hostile names, depth, holes, races.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "helpers of tests fail like tests"
)]

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, symlink};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use edge::{ContentEnd, Entry, EntryKind, Opener, Source, SourceItem, TreePath};
use model::ErrorClass;
use rustix::fs::{CWD, FileType, Mode, OFlags, XattrFlags};
use safefs::{Excludes, Root, Users, Walker};

fn tree(path: &Path) -> TreePath {
    TreePath::parse(path.as_os_str().as_bytes()).unwrap()
}

fn walker_with(path: &Path, patterns: &[&str]) -> Walker {
    let root = Root {
        path: tree(path),
        prefix: TreePath::parse(b"acc/files").unwrap(),
        excludes: Arc::new(Excludes::new(patterns).unwrap()),
    };
    Walker::new(vec![root], &Arc::new(Users::load().unwrap()))
}

fn walker(path: &Path) -> Walker {
    walker_with(path, &[])
}

type Seen = Vec<(Entry, Option<Opener>)>;

fn collect(mut walker: Walker) -> (Seen, Vec<edge::SourceError>) {
    let (mut entries, mut errors) = (Vec::new(), Vec::new());
    while let Some(item) = walker.next().unwrap() {
        match item {
            SourceItem::Entry(entry, opener) => entries.push((entry, opener)),
            SourceItem::Failed(error) => errors.push(error),
        }
    }
    (entries, errors)
}

fn names(seen: &Seen) -> Vec<String> {
    seen.iter()
        .map(|(entry, _)| entry.path.to_string())
        .collect()
}

fn read(opener: &mut Opener) -> (Entry, Vec<u8>, ContentEnd) {
    let (entry, mut content) = opener().unwrap();
    let mut bytes = Vec::new();
    let mut buffer = [0; 1000];
    loop {
        let count = content.read(&mut buffer).unwrap();
        if count == 0 {
            break;
        }
        bytes.extend_from_slice(&buffer[..count]);
    }
    (entry, bytes, content.finish().unwrap())
}

#[test]
fn entries_come_in_tree_order_and_parents_first() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["b/x", "a/z", "a!"] {
        fs::create_dir_all(dir.path().join(name)).unwrap();
    }
    for name in ["a.txt", "a/y", "a/z/k", "a!/q", "b/x/1"] {
        fs::write(dir.path().join(name), name).unwrap();
    }
    let (seen, errors) = collect(walker(dir.path()));
    assert!(errors.is_empty(), "{errors:?}");
    let paths: Vec<_> = seen.iter().map(|(entry, _)| entry.path.clone()).collect();
    let mut sorted = paths.clone();
    sorted.sort();
    assert_eq!(paths, sorted);
    assert_eq!(paths.len(), 12, "{:?}", names(&seen));
    for path in &paths {
        let parent = path.parent().unwrap();
        let known = parent == TreePath::root() || paths.iter().any(|p| *p == parent && p < path);
        assert!(known, "{path} came before its parent");
    }
}

#[test]
fn several_roots_share_their_parents_and_carry_the_real_ones() {
    let dir = tempfile::tempdir().unwrap();
    let mut roots = Vec::new();
    for name in ["site-b", "site-a"] {
        let path = dir.path().join("www").join(name);
        fs::create_dir_all(&path).unwrap();
        fs::write(path.join("index"), name).unwrap();
        roots.push(Root {
            path: tree(&path),
            prefix: TreePath::parse(b"acc/files").unwrap().join(&tree(&path)),
            excludes: Arc::default(),
        });
    }
    let www = fs::metadata(dir.path().join("www")).unwrap();
    let (seen, errors) = collect(Walker::new(roots, &Arc::new(Users::load().unwrap())));
    assert!(errors.is_empty(), "{errors:?}");
    let shown = names(&seen);
    let mut unique = shown.clone();
    unique.dedup();
    assert_eq!(shown, unique);
    assert_eq!(&shown[..2], ["/acc", "/acc/files"]);
    let real = seen
        .iter()
        .find(|(entry, _)| entry.path.to_string().ends_with("/www"))
        .unwrap();
    assert_eq!(real.0.inode, www.ino());
    assert_eq!(
        seen.iter().filter(|(_, opener)| opener.is_some()).count(),
        2
    );
}

#[test]
fn hostile_names_are_kept_as_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let hostile: [&[u8]; 6] = [
        b"new\nline",
        b"\xff\xfe",
        b"--help",
        b" ",
        b"*",
        b"\x1b[31m",
    ];
    for name in hostile {
        fs::write(dir.path().join(OsStr::from_bytes(name)), name).unwrap();
    }
    let (mut seen, errors) = collect(walker(dir.path()));
    assert!(errors.is_empty());
    let files: BTreeMap<Vec<u8>, Vec<u8>> = seen
        .iter_mut()
        .filter_map(|(entry, opener)| {
            let name = entry.path.name().unwrap().to_vec();
            opener.as_mut().map(|opener| (name, read(opener).1))
        })
        .collect();
    assert_eq!(files.len(), hostile.len());
    assert!(files.iter().all(|(name, bytes)| name == bytes));
}

#[test]
fn deep_trees_need_few_descriptors() {
    const DEPTH: usize = 2_000;
    // In memory: making and removing so many directories is slow on a busy disk.
    let memory = Path::new("/dev/shm");
    let dir = if memory.is_dir() {
        tempfile::tempdir_in(memory).unwrap()
    } else {
        tempfile::tempdir().unwrap()
    };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY;
    let mut at = rustix::fs::open(dir.path(), flags, Mode::empty()).unwrap();
    for _ in 0..DEPTH {
        for name in ["d", "e"] {
            rustix::fs::mkdirat(&at, name, Mode::RWXU).unwrap();
        }
        at = rustix::fs::openat(&at, "d", flags, Mode::empty()).unwrap();
    }
    drop(at);
    let mut walker = walker(dir.path());
    let mut count = 0;
    let mut most_open = 0;
    while let Some(item) = walker.next().unwrap() {
        assert!(matches!(item, SourceItem::Entry(..)));
        count += 1;
        if count % 100 == 0 {
            most_open = most_open.max(fs::read_dir("/proc/self/fd").unwrap().count());
        }
    }
    drop(walker);
    assert_eq!(count, 2 + 2 * DEPTH);
    // Other tests run beside this one and hold descriptors of their own.
    assert!(most_open < 400, "{most_open} descriptors");
    flatten(dir.path(), DEPTH);
}

#[test]
fn a_thousand_sites_in_one_place_need_few_descriptors() {
    const SITES: usize = 1_000;
    let dir = tempfile::tempdir().unwrap();
    let mut roots = Vec::new();
    for number in 0..SITES {
        let path = dir.path().join(format!("site-{number}"));
        fs::create_dir(&path).unwrap();
        fs::write(path.join("page"), "x").unwrap();
        roots.push(Root {
            path: tree(&path),
            prefix: TreePath::parse(b"acc").unwrap().join(&tree(&path)),
            excludes: Arc::default(),
        });
    }
    let mut walker = Walker::new(roots, &Arc::new(Users::load().unwrap()));
    let mut openers = Vec::new();
    while let Some(item) = walker.next().unwrap() {
        let SourceItem::Entry(_, opener) = item else {
            panic!("something could not be read");
        };
        openers.extend(opener);
        if openers.len() == 1 {
            let open = fs::read_dir("/proc/self/fd").unwrap().count();
            // Other tests run beside this one and hold descriptors of their own.
            assert!(open < 500, "{open} descriptors");
        }
    }
    // Openers work after their directories were let go.
    assert_eq!(openers.len(), SITES);
    assert_eq!(read(&mut openers[0]).1, b"x");
}

/// Removes a deep chain level by level; the standard library would recurse over it.
fn flatten(top: &Path, depth: usize) {
    let (first, second, next) = (top.join("d"), top.join("d/d"), top.join("next"));
    for _ in 1..depth {
        fs::rename(&second, &next).unwrap();
        fs::remove_dir(top.join("d/e")).unwrap();
        fs::remove_dir(&first).unwrap();
        fs::rename(&next, &first).unwrap();
    }
}

#[test]
fn holes_are_neither_read_nor_lost() {
    let dir = tempfile::tempdir().unwrap();
    let file = fs::File::create(dir.path().join("sparse")).unwrap();
    file.set_len(8 << 20).unwrap();
    file.write_at(b"middle", 4 << 20).unwrap();
    let (mut seen, _) = collect(walker(dir.path()));
    let opener = seen.last_mut().unwrap().1.as_mut().unwrap();
    let (entry, content) = opener().unwrap();
    assert_eq!(entry.size_bytes, 8 << 20);
    let extents = content.extents().unwrap();
    assert_eq!(extents.len(), 1);
    assert_eq!(extents[0].offset, 4 << 20);
    let (_, bytes, end) = read(opener);
    assert_eq!(bytes.len(), usize::try_from(extents[0].length).unwrap());
    assert!(bytes.starts_with(b"middle"));
    assert_eq!(end, ContentEnd::Steady);
}

#[test]
fn what_changes_while_it_is_read_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("growing");
    fs::write(&path, [b'x'; 5000]).unwrap();
    let (mut seen, _) = collect(walker(dir.path()));
    let opener = seen.last_mut().unwrap().1.as_mut().unwrap();
    let (_, mut content) = opener().unwrap();
    let mut buffer = [0; 4096];
    assert_eq!(content.read(&mut buffer).unwrap(), 4096);
    let mut file = fs::OpenOptions::new().append(true).open(&path).unwrap();
    file.write_all(&[b'y'; 5000]).unwrap();
    // Growth is not read: the entry says 5000 bytes.
    assert_eq!(content.read(&mut buffer).unwrap(), 904);
    assert_eq!(content.read(&mut buffer).unwrap(), 0);
    assert_eq!(content.finish().unwrap(), ContentEnd::Changed);
    let (entry, bytes, end) = read(opener);
    assert_eq!((entry.size_bytes, bytes.len()), (10_000, 10_000));
    assert_eq!(end, ContentEnd::Steady);

    let (_, mut content) = opener().unwrap();
    file.set_len(10).unwrap();
    while content.read(&mut buffer).unwrap() > 0 {}
    assert_eq!(content.finish().unwrap(), ContentEnd::Changed);
}

#[test]
fn what_vanishes_is_reported_and_the_walk_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["a", "b", "c"] {
        fs::write(dir.path().join(name), name).unwrap();
    }
    fs::create_dir(dir.path().join("d")).unwrap();
    let mut walker = walker(dir.path());
    let mut seen = Vec::new();
    let mut errors = Vec::new();
    let mut openers = Vec::new();
    while let Some(item) = walker.next().unwrap() {
        match item {
            SourceItem::Failed(error) => errors.push(error),
            SourceItem::Entry(entry, opener) => {
                seen.push(entry.path.to_string());
                openers.extend(opener);
                if seen.last().unwrap().ends_with("/a") {
                    fs::remove_file(dir.path().join("b")).unwrap();
                }
                if seen.last().unwrap().ends_with("/d") {
                    fs::remove_dir(dir.path().join("d")).unwrap();
                }
            }
        }
    }
    assert_eq!(seen.len(), 2 + 3);
    assert_eq!(errors.len(), 2);
    assert!(errors.iter().all(|e| e.class == ErrorClass::RetryNow));
    assert!(errors[0].to_string().ends_with("/b"), "{}", errors[0]);
    fs::remove_file(dir.path().join("a")).unwrap();
    let error = openers[0]().err().unwrap();
    assert_eq!(error.class, ErrorClass::RetryNow);
}

#[test]
fn pipes_and_sockets_never_block() {
    let dir = tempfile::tempdir().unwrap();
    let pipe = dir.path().join("pipe");
    rustix::fs::mknodat(CWD, &pipe, FileType::Fifo, Mode::RWXU, 0).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(dir.path().join("socket")).unwrap();
    fs::write(dir.path().join("swapped"), "file").unwrap();
    let (mut seen, errors) = collect(walker(dir.path()));
    assert!(errors.is_empty());
    assert_eq!(names(&seen)[2..], ["/acc/files/pipe", "/acc/files/swapped"]);
    assert_eq!(seen[2].0.kind, EntryKind::Fifo);
    assert!(seen[2].1.is_none());
    fs::rename(&pipe, dir.path().join("swapped")).unwrap();
    let error = seen[3].1.as_mut().unwrap()().err().unwrap();
    assert!(error.to_string().contains("swapped"));
}

#[test]
fn attributes_links_and_owners_are_recorded() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    fs::write(&path, "x").unwrap();
    fs::hard_link(&path, dir.path().join("other")).unwrap();
    symlink("/etc/../nowhere", dir.path().join("link")).unwrap();
    let large = vec![7; 2000];
    rustix::fs::setxattr(&path, "user.b", &large, XattrFlags::empty()).unwrap();
    rustix::fs::setxattr(&path, "user.a", b"", XattrFlags::empty()).unwrap();
    let (mut seen, _) = collect(walker(dir.path()));
    assert_eq!(
        names(&seen)[2..],
        ["/acc/files/file", "/acc/files/link", "/acc/files/other"]
    );
    let (opened, _, _) = read(seen[2].1.as_mut().unwrap());
    let attributes: Vec<_> = opened.xattrs.iter().map(|x| x.name.as_slice()).collect();
    assert_eq!(attributes, [b"user.a", b"user.b"]);
    assert_eq!(opened.xattrs[1].value, large);
    for entry in [&seen[2].0, &opened] {
        let metadata = fs::metadata(&path).unwrap();
        assert_eq!(entry.inode, metadata.ino());
        assert_eq!(entry.device, metadata.dev());
        assert_eq!(entry.link_count, 2);
        assert_eq!(entry.modified.secs, metadata.mtime());
        assert_eq!(i64::from(entry.modified.nanos), metadata.mtime_nsec());
    }
    let target = b"/etc/../nowhere".to_vec();
    assert_eq!(seen[3].0.kind, EntryKind::Symlink { target });
    assert_eq!(seen[4].0.inode, seen[2].0.inode);
}

#[test]
fn excluded_directories_are_not_entered() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["site/cache/deep", "site/keep"] {
        fs::create_dir_all(dir.path().join(name)).unwrap();
        fs::write(dir.path().join(name).join("a.log"), "x").unwrap();
        fs::write(dir.path().join(name).join("a.txt"), "x").unwrap();
    }
    let (seen, _) = collect(walker_with(dir.path(), &["cache/", "*.log"]));
    assert_eq!(
        names(&seen)[2..],
        [
            "/acc/files/site",
            "/acc/files/site/keep",
            "/acc/files/site/keep/a.txt"
        ]
    );
}

#[test]
fn a_root_that_is_a_link_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("real")).unwrap();
    fs::write(dir.path().join("real/secret"), "x").unwrap();
    symlink("real", dir.path().join("link")).unwrap();
    // The link itself is an entry like any other; nothing behind it is.
    let (seen, _) = collect(walker(&dir.path().join("link")));
    assert_eq!(seen.len(), 2);
    assert!(matches!(seen[1].0.kind, EntryKind::Symlink { .. }));
    let (seen, errors) = collect(walker(&dir.path().join("link/below")));
    assert_eq!((seen.len(), errors.len()), (1, 1));
    assert!(errors[0].object.ends_with("/link/below"));
}

/// Swaps a directory and a link to a secret place until it is dropped.
struct Swapper {
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Swapper {
    fn start(one: &Path, two: &Path) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (one, two) = (one.to_path_buf(), two.to_path_buf());
        let seen = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            while !seen.load(Ordering::Relaxed) {
                let exchange = rustix::fs::RenameFlags::EXCHANGE;
                rustix::fs::renameat_with(CWD, &one, CWD, &two, exchange).unwrap();
            }
        });
        Self {
            stop,
            thread: Some(thread),
        }
    }
}

impl Drop for Swapper {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().map(std::thread::JoinHandle::join);
    }
}

#[test]
fn no_race_leads_the_walk_out_of_its_tree() {
    const ROUNDS: usize = 1_000;
    let dir = tempfile::tempdir().unwrap();
    let (root, outside) = (dir.path().join("customer"), dir.path().join("outside"));
    fs::create_dir_all(root.join("docs")).unwrap();
    fs::create_dir(&outside).unwrap();
    fs::write(root.join("docs/page"), "public").unwrap();
    fs::write(outside.join("page"), "secret").unwrap();
    symlink(&outside, root.join("zlink")).unwrap();
    let swapper = Swapper::start(&root.join("docs"), &root.join("zlink"));

    let mut leaks_of_naive_open = 0;
    let mut found = 0;
    for _ in 0..ROUNDS {
        let naive = root.join("docs/page");
        let is_directory = fs::symlink_metadata(root.join("docs")).is_ok_and(|m| m.is_dir());
        if is_directory && fs::read(naive).is_ok_and(|bytes| bytes == b"secret") {
            leaks_of_naive_open += 1;
        }
        let (mut seen, _) = collect(walker(&root));
        for (entry, opener) in &mut seen {
            let Some(opener) = opener else { continue };
            let Ok((_, mut content)) = opener() else {
                continue;
            };
            let mut bytes = [0; 10];
            let count = content.read(&mut bytes).unwrap();
            assert_eq!(&bytes[..count], b"public", "{} leaked", entry.path);
            found += 1;
        }
    }
    // The positive control: the race is real. More rounds are tried when it was not hit yet.
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while leaks_of_naive_open == 0 {
        assert!(
            std::time::Instant::now() < deadline,
            "the race was never won"
        );
        if fs::read(root.join("docs/page")).is_ok_and(|bytes| bytes == b"secret") {
            leaks_of_naive_open += 1;
        }
    }
    drop(swapper);
    assert!(found > 0, "the walk never read the file");
}

#[test]
fn wildcards_find_directories_and_follow_no_link() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["a/www/one", "a/www/two", "b/www/one", "b/other"] {
        fs::create_dir_all(dir.path().join(name)).unwrap();
    }
    symlink("/etc", dir.path().join("a/www/three")).unwrap();
    fs::write(dir.path().join("a/www/file"), "x").unwrap();
    let mut pattern = dir.path().as_os_str().as_bytes().to_vec();
    pattern.extend_from_slice(b"/*/www/*");
    let found = safefs::find_directories(&pattern).unwrap();
    assert!(found.errors.is_empty());
    let below: Vec<_> = found
        .directories
        .iter()
        .map(|found| {
            let shown = found.path.to_string();
            shown
                .strip_prefix(dir.path().to_str().unwrap())
                .unwrap()
                .to_owned()
        })
        .collect();
    assert_eq!(below, ["/a/www/one", "/a/www/two", "/b/www/one"]);
    let owner = fs::metadata(dir.path()).unwrap().uid();
    assert!(found.directories.iter().all(|found| found.uid == owner));
    assert!(
        safefs::find_directories(b"/nowhere/*")
            .unwrap()
            .directories
            .is_empty()
    );
}

#[test]
fn mount_points_are_entries_and_are_not_entered() {
    // A private mount needs root; without it the kernel offers /proc as a mount below `/`.
    let root = Root {
        path: TreePath::root(),
        prefix: TreePath::parse(b"top").unwrap(),
        excludes: Arc::new(
            Excludes::new(&["/[!p]*", "/p[!r]*", "/pr[!o]*", "/pro[!c]*", "/proc?*"]).unwrap(),
        ),
    };
    let (seen, errors) = collect(Walker::new(vec![root], &Arc::default()));
    assert!(errors.is_empty(), "{errors:?}");
    assert_eq!(names(&seen), ["/top", "/top/proc"]);
}
