//! Restored trees against the originals, and publication by rename.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "helpers of tests fail like tests"
)]

use std::fs;
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::path::Path;
use std::sync::Arc;

use edge::{Entry, EntryKind, Extent, Source, SourceItem, Target, TargetError, TreePath};
use rustix::fs::{CWD, FileType, Mode, Timespec, Timestamps, XattrFlags};
use safefs::testing::differences;
use safefs::{Owners, Policy, RestoreTarget, Root, Users, Walker};

fn tree(path: &Path) -> TreePath {
    TreePath::parse(path.as_os_str().as_bytes()).unwrap()
}

fn users() -> Users {
    Users::load().unwrap()
}

fn snapshot() -> TreePath {
    TreePath::parse(b"acc/files/site").unwrap()
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Copies a tree through walker and target, as a backup and a restore would.
fn copy(from: &Path, target: &mut RestoreTarget) -> Vec<TargetError> {
    let root = Root {
        path: tree(from),
        prefix: snapshot(),
        excludes: Arc::default(),
    };
    let mut walker = Walker::new(vec![root], &Arc::new(users()));
    let mut errors = Vec::new();
    let mut firsts: Vec<((u64, u64), TreePath)> = Vec::new();
    while let Some(item) = walker.next().unwrap() {
        let SourceItem::Entry(entry, opener) = item else {
            panic!("the source failed");
        };
        let inode = (entry.device, entry.inode);
        let result = match opener {
            None => target.create(&entry),
            Some(_) if firsts.iter().any(|(known, _)| *known == inode) => {
                let (_, first) = firsts.iter().find(|(known, _)| *known == inode).unwrap();
                target.link(&entry, first)
            }
            Some(mut opener) => {
                firsts.push((inode, entry.path.clone()));
                let (entry, mut content) = opener().unwrap();
                let extents = content.extents();
                let sink = target.open(&entry, extents.as_deref()).unwrap();
                let whole = vec![Extent {
                    offset: 0,
                    length: entry.size_bytes,
                }];
                for extent in extents.unwrap_or(whole) {
                    let mut position = extent.offset;
                    let end = extent.offset + extent.length;
                    while position < end {
                        let length = usize::try_from(end - position).unwrap().min(7777);
                        let mut buffer = vec![0; length];
                        let count = content.read(&mut buffer).unwrap();
                        assert!(count > 0);
                        sink.write_at(position, &buffer[..count]).unwrap();
                        position += u64::try_from(count).unwrap();
                    }
                }
                sink.finish()
            }
        };
        errors.extend(result.err());
    }
    errors
}

fn set_time(path: &Path, nanos: i64) {
    let time = Timespec {
        tv_sec: 1_234_567_890,
        tv_nsec: nanos,
    };
    let times = Timestamps {
        last_access: time,
        last_modification: time,
    };
    rustix::fs::utimensat(CWD, path, &times, rustix::fs::AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

/// Builds a tree with everything that a restore must bring back.
fn build(site: &Path) {
    fs::create_dir_all(site.join("sub/deep")).unwrap();
    fs::write(site.join("index.php"), "<?php").unwrap();
    fs::write(site.join("empty"), "").unwrap();
    fs::write(site.join("sub/large"), vec![42; 300_000]).unwrap();
    fs::hard_link(site.join("sub/large"), site.join("sub/deep/same")).unwrap();
    symlink("../index.php", site.join("sub/link")).unwrap();
    symlink("/nowhere", site.join("dangling")).unwrap();
    rustix::fs::mknodat(CWD, site.join("pipe"), FileType::Fifo, Mode::RUSR, 0).unwrap();
    let sparse = fs::File::create(site.join("sparse")).unwrap();
    sparse.set_len(5_000_001).unwrap();
    sparse.write_at(b"data", 1 << 20).unwrap();
    let name = std::ffi::OsStr::from_bytes(b"odd \xff\n name");
    fs::write(site.join(name), "bytes").unwrap();
    for (path, attribute) in [("index.php", "user.mark"), ("sub", "user.kind")] {
        let path = site.join(path);
        rustix::fs::setxattr(&path, attribute, b"v\0v", XattrFlags::empty()).unwrap();
    }
    fs::set_permissions(site.join("index.php"), PermissionsExt::from_mode(0o640)).unwrap();
    fs::set_permissions(site.join("sub/large"), PermissionsExt::from_mode(0o444)).unwrap();
    fs::set_permissions(site.join("sub/deep"), PermissionsExt::from_mode(0o2555)).unwrap();
    fs::set_permissions(site, PermissionsExt::from_mode(0o751)).unwrap();
    if is_root() {
        let (owner, group) = (Some(54_321), Some(12_345));
        std::os::unix::fs::lchown(site.join("index.php"), owner, group).unwrap();
        std::os::unix::fs::lchown(site.join("dangling"), owner, group).unwrap();
        std::os::unix::fs::lchown(site.join("sub"), owner, group).unwrap();
    }
    for (number, path) in [
        "index.php",
        "dangling",
        "pipe",
        "sub/large",
        "sub/deep",
        "sub",
        "",
    ]
    .iter()
    .enumerate()
    {
        set_time(
            &site.join(path),
            i64::try_from(number).unwrap() + 123_456_789,
        );
    }
}

/// Lets the temporary directory be removed by whoever runs the tests.
fn unlock(site: &Path) {
    fs::set_permissions(site.join("sub/deep"), PermissionsExt::from_mode(0o755)).unwrap();
}

#[test]
fn a_restored_tree_equals_the_original() {
    let dir = tempfile::tempdir().unwrap();
    let site = dir.path().join("site");
    build(&site);
    // A default ACL above would otherwise seep into what is restored.
    let acl = b"\x02\0\0\0\x01\0\x07\0\xff\xff\xff\xff\x02\0\x07\0\x01\0\0\0\x04\0\0\0\xff\xff\xff\xff\x10\0\x07\0\xff\xff\xff\xff\x20\0\0\0\xff\xff\xff\xff";
    let inherits = "system.posix_acl_default";
    let acl_known = rustix::fs::setxattr(dir.path(), inherits, acl, XattrFlags::empty()).is_ok();
    let destination = dir.path().join("restored");
    let roots = [(snapshot(), tree(&destination))];
    let mut target = RestoreTarget::in_place("t1", &roots, Policy::CUSTOMER, users()).unwrap();
    assert!(copy(&site, &mut target).is_empty());
    assert!(!destination.exists(), "nothing is visible before the end");
    let errors = target.finish();
    assert!(errors.is_empty(), "{errors:?}");
    assert_eq!(target.published()[0].undo, None);
    assert_eq!(differences(&site, &destination).unwrap(), [""; 0]);
    assert!(
        acl_known || !is_root(),
        "root's tests run where ACLs are kept"
    );
    assert_eq!(
        fs::read_dir(dir.path()).unwrap().count(),
        2,
        "staging is gone"
    );
    unlock(&site);
    unlock(&destination);
}

#[test]
fn the_previous_tree_is_kept_beside_the_restored_one() {
    let dir = tempfile::tempdir().unwrap();
    let (site, live) = (dir.path().join("site"), dir.path().join("live"));
    fs::create_dir_all(&site).unwrap();
    fs::write(site.join("page"), "old and good").unwrap();
    fs::create_dir_all(&live).unwrap();
    fs::write(live.join("page"), "defaced").unwrap();
    fs::write(live.join("malware"), "x").unwrap();
    let roots = [(snapshot(), tree(&live))];
    let mut target = RestoreTarget::in_place("t2", &roots, Policy::CUSTOMER, users()).unwrap();
    assert!(copy(&site, &mut target).is_empty());
    assert_eq!(fs::read(live.join("page")).unwrap(), b"defaced");
    let errors = target.finish();
    assert!(errors.is_empty(), "{errors:?}");
    assert_eq!(differences(&site, &live).unwrap(), [""; 0]);
    let undo = dir.path().join(".backstay-undo-t2");
    assert_eq!(target.published()[0].undo, Some(tree(&undo)));
    assert_eq!(fs::read(undo.join("malware")).unwrap(), b"x");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 3);
}

#[test]
fn a_single_file_can_be_put_back() {
    let dir = tempfile::tempdir().unwrap();
    let (old, live) = (dir.path().join("old"), dir.path().join("live"));
    fs::write(&old, "wanted").unwrap();
    fs::write(&live, "unwanted").unwrap();
    let roots = [(snapshot(), tree(&live))];
    let mut target = RestoreTarget::in_place("t3", &roots, Policy::CUSTOMER, users()).unwrap();
    assert!(copy(&old, &mut target).is_empty());
    assert!(target.finish().is_empty());
    assert_eq!(fs::read(&live).unwrap(), b"wanted");
    assert_eq!(
        fs::read(dir.path().join(".backstay-undo-t3")).unwrap(),
        b"unwanted"
    );
}

#[test]
fn a_dropped_restore_publishes_nothing_and_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (site, live) = (dir.path().join("site"), dir.path().join("live"));
    build(&site);
    fs::create_dir(&live).unwrap();
    let roots = [(snapshot(), tree(&live))];
    let mut target = RestoreTarget::in_place("t4", &roots, Policy::CUSTOMER, users()).unwrap();
    assert!(copy(&site, &mut target).is_empty());
    drop(target);
    assert_eq!(fs::read_dir(&live).unwrap().count(), 0);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
    unlock(&site);
}

#[test]
fn a_new_or_empty_directory_is_filled() {
    let dir = tempfile::tempdir().unwrap();
    let site = dir.path().join("site");
    build(&site);
    for (name, exists) in [("new", false), ("empty", true)] {
        let to = dir.path().join(name);
        if exists {
            fs::create_dir(&to).unwrap();
        }
        let base = TreePath::parse(b"acc").unwrap();
        let mut target =
            RestoreTarget::into_directory(&to, &base, Policy::CUSTOMER, users()).unwrap();
        assert!(copy(&site, &mut target).is_empty());
        let errors = target.finish();
        // Directories that only the snapshot has are root's; nobody else can give them away.
        assert_eq!(errors.len(), usize::from(!is_root()), "{errors:?}");
        assert_eq!(differences(&site, &to.join("files/site")).unwrap(), [""; 0]);
        assert_eq!(fs::read_dir(&to).unwrap().count(), 1);
        unlock(&to.join("files/site"));
    }
    let full = RestoreTarget::into_directory(&site, &snapshot(), Policy::CUSTOMER, users());
    let error = full.err().unwrap();
    let cause = std::error::Error::source(&error).unwrap().to_string();
    assert!(cause.starts_with("it is not empty"), "{cause}");
    unlock(&site);
}

fn entry(path: &str, kind: EntryKind, mode: u32) -> Entry {
    Entry {
        path: TreePath::parse(path.as_bytes()).unwrap(),
        kind,
        mode,
        owner: users().owner(
            rustix::process::geteuid().as_raw(),
            rustix::process::getegid().as_raw(),
        ),
        modified: edge::FileTime::default(),
        changed: edge::FileTime::default(),
        size_bytes: 0,
        inode: 1,
        device: 1,
        link_count: 1,
        xattrs: Vec::new(),
    }
}

#[test]
fn rights_are_given_only_by_policy() {
    let dir = tempfile::tempdir().unwrap();
    for (policy, expected) in [(Policy::CUSTOMER, 0o755), (Policy::COMPLETE, 0o4755)] {
        let to = dir.path().join(format!("{expected:o}"));
        let mut target =
            RestoreTarget::into_directory(&to, &TreePath::root(), policy, users()).unwrap();
        let file = entry("tool", EntryKind::File, 0o4755);
        target.open(&file, None).unwrap().finish().unwrap();
        let device = EntryKind::CharDevice { device: (1, 3) };
        let made = target.create(&entry("null", device, 0o666));
        assert_eq!(made.is_ok(), policy.devices && is_root());
        assert!(target.finish().is_empty());
        let mode = fs::metadata(to.join("tool")).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, expected);
        assert_eq!(
            target.withheld_count(),
            u64::from(policy == Policy::CUSTOMER)
        );
    }
}

#[test]
fn a_snapshot_cannot_lead_a_restore_through_its_own_link() {
    let dir = tempfile::tempdir().unwrap();
    let outside = dir.path().join("outside");
    fs::create_dir(&outside).unwrap();
    let to = dir.path().join("to");
    let policy = Policy {
        owners: Owners::Restorer,
        ..Policy::CUSTOMER
    };
    let mut target =
        RestoreTarget::into_directory(&to, &TreePath::root(), policy, users()).unwrap();
    let link = EntryKind::Symlink {
        target: outside.as_os_str().as_bytes().to_vec(),
    };
    target.create(&entry("evil", link, 0o777)).unwrap();
    assert!(
        target
            .open(&entry("evil/file", EntryKind::File, 0o644), None)
            .is_err()
    );
    assert!(
        target
            .create(&entry("evil", EntryKind::Directory, 0o755))
            .is_err()
    );
    assert!(
        target
            .open(&entry("evil", EntryKind::File, 0o644), None)
            .is_err()
    );
    assert!(target.finish().is_empty());
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
}

#[test]
fn an_unfinished_file_is_not_published() {
    let dir = tempfile::tempdir().unwrap();
    let to = dir.path().join("to");
    let mut target =
        RestoreTarget::into_directory(&to, &TreePath::root(), Policy::CUSTOMER, users()).unwrap();
    let sink = target
        .open(&entry("half", EntryKind::File, 0o644), None)
        .unwrap();
    sink.write_at(0, b"half of it").unwrap();
    drop(sink);
    assert!(target.finish().is_empty());
    let missing = fs::metadata(to.join("half")).err().unwrap();
    assert_eq!(missing.kind(), ErrorKind::NotFound);
}

#[test]
fn a_stranger_does_not_lead_a_restore_over_links() {
    let dir = tempfile::tempdir().unwrap();
    let real = dir.path().canonicalize().unwrap();
    fs::create_dir_all(real.join("secret")).unwrap();
    std::os::unix::fs::symlink(real.join("secret"), real.join("link")).unwrap();
    let base = TreePath::root();
    let open = |name: &str| {
        let path = real.join(name);
        RestoreTarget::into_plain_directory(&path, &base, Policy::CUSTOMER, users())
    };
    for name in ["link", "link/new", "link/../new"] {
        let error = open(name).err().unwrap();
        let cause = std::error::Error::source(&error).unwrap().to_string();
        assert!(cause.contains("a link on the way"), "{name}: {cause}");
    }
    assert_eq!(fs::read_dir(real.join("secret")).unwrap().count(), 0);
    assert!(open("new").is_ok());
    let followed = real.join("link/new");
    RestoreTarget::into_directory(&followed, &base, Policy::CUSTOMER, users()).unwrap();
}
