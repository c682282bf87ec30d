//! Backups read straight from where they are: no agent, no controller, only a key.

#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod support;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use destinations::LocalStore;
use edge::{ObjectStore, Silent};
use model::DestinationName;
use repository::{BackupOptions, Domain, Replica, ScheduleKey, Tuning, back_up};
use support::Host;
use testkit::{CountingEntropy, FixedClock, TreeSource};

const INDEX: &str = "acme.1001/files/home/acme/index.php";
const LOGO: &str = "acme.1001/files/home/acme/logo.svg";
const LOGO_BYTES: [u8; 2000] = [b'x'; 2000];
const DUMP: &str = "acme.1001/databases/mariadb/shop.sql";

/// A repository with two snapshots and its key file, in a server's file system that has no agent.
struct Kept {
    host: Host,
}

impl Kept {
    fn new() -> Self {
        let host = Host::empty();
        let key = ScheduleKey::from_bytes([42; 32]);
        host.write("key", key.to_text().reveal());
        host.write("srv/backup/.keep", "");
        std::fs::remove_file(host.path("srv/backup/.keep")).unwrap();
        let store: Arc<dyn ObjectStore> =
            Arc::new(LocalStore::open(Path::new(&host.path("srv/backup"))).unwrap());
        let (clock, entropy) = (
            FixedClock::at_secs(1_700_000_000),
            CountingEntropy::default(),
        );
        let mut source = TreeSource::default();
        source.add_file(INDEX, "<?php // first");
        source.add_file(DUMP, "CREATE TABLE t (i INT);\n");
        // Long enough for a pack of its own; shorter content lies in the tree.
        source.add_file(LOGO, LOGO_BYTES);
        for content in ["<?php // first", "<?php // second"] {
            source.add_file(INDEX, content);
            clock.advance_secs(3_600);
            let domain = Domain::create(store.clone(), &key, &entropy, "web1").unwrap();
            let options = BackupOptions {
                schedule: "nightly",
                host: "web1",
                run: None,
                roots: &[],
                paths: &[],
                compare_by: &[],
                tuning: Tuning::default(),
                clock: &clock,
                entropy: &entropy,
                monitor: &Silent,
            };
            let name = DestinationName::new("local").unwrap();
            let report = back_up(vec![Replica { name, domain }], &options, &mut source.walk());
            assert_eq!(report.counts.failed, 0);
        }
        Self { host }
    }

    /// Runs a verb with place and key.
    fn run(&self, verb: &[&str]) -> String {
        let (repo, key) = (self.host.path("srv/backup"), self.host.path("key"));
        let mut words = verb.to_vec();
        words.extend(["--repo", &repo, "--key-file", &key]);
        mask_ids(&self.host.run(&words))
    }

    fn restored(&self, path: &str) -> Option<String> {
        std::fs::read_to_string(self.host.path(&format!("out/{path}"))).ok()
    }

    /// Gives every stored object of a kind: `p` data packs, `s` snapshots.
    fn objects(&self, kind: &str) -> Vec<PathBuf> {
        let mut found = Vec::new();
        let mut folders = vec![PathBuf::from(self.host.path("srv/backup/d"))];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                } else if path.iter().any(|part| part == kind) {
                    found.push(path);
                }
            }
        }
        assert!(!found.is_empty());
        found
    }
}

/// Replaces the ids of snapshots, which hang on every detail of the format.
fn mask_ids(text: &str) -> String {
    let is_id = |word: &str| word.len() == 32 && word.bytes().all(|b| b.is_ascii_hexdigit());
    let masked = |word: &str| {
        if is_id(word) {
            "<32 digits>".to_owned()
        } else {
            word.to_owned()
        }
    };
    let lines = text
        .split('\n')
        .map(|line| line.split(' ').map(masked).collect::<Vec<_>>());
    lines
        .map(|words| words.join(" "))
        .collect::<Vec<_>>()
        .join("\n")
}

#[test]
fn snapshots_and_their_content_are_listed() {
    let kept = Kept::new();
    insta::assert_snapshot!(kept.run(&["snapshots"]));
    insta::assert_snapshot!(kept.run(&["ls"]));
    insta::assert_snapshot!(kept.run(&["ls", "latest", "/acme.1001/files/home/acme"]));
    insta::assert_snapshot!(kept.run(&["ls", "latest", "--recursive"]));
    insta::assert_snapshot!(kept.run(&["ls", "latest", "globex.1002"]));
    insta::assert_snapshot!(kept.run(&["ls", "abcdef01"]));
}

#[test]
fn the_newest_snapshot_comes_back_byte_for_byte() {
    let kept = Kept::new();
    let out = kept.host.path("out");
    insta::assert_snapshot!(kept.run(&["restore", "--to", &out]));
    assert_eq!(kept.restored(INDEX).unwrap(), "<?php // second");
    assert_eq!(kept.restored(DUMP).unwrap(), "CREATE TABLE t (i INT);\n");
}

#[test]
fn a_part_of_an_older_snapshot_comes_back_alone() {
    let kept = Kept::new();
    let listed = kept.run(&["snapshots", "--json"]);
    let text = listed
        .split("--- ")
        .nth(1)
        .unwrap()
        .trim_start_matches("stdout\n");
    let rows: serde_json::Value = serde_json::from_str(text).unwrap();
    let first = rows[0]["id"].as_str().unwrap();
    let out = kept.host.path("out");
    let shown = kept.run(&[
        "restore",
        &first[..8],
        "--to",
        &out,
        "--path",
        "acme.1001/files",
    ]);
    assert!(shown.ends_with("--- exit 0\n"), "{shown}");
    assert_eq!(kept.restored(INDEX).unwrap(), "<?php // first");
    assert_eq!(kept.restored(DUMP), None);
}

#[test]
fn another_key_opens_nothing_and_says_so() {
    let kept = Kept::new();
    let other = ScheduleKey::from_bytes([43; 32]);
    kept.host.write("key", other.to_text().reveal());
    insta::assert_snapshot!(kept.run(&["snapshots"]));
    kept.host.write("key", "bsk1-mistyped");
    insta::assert_snapshot!(kept.run(&["snapshots"]));
    kept.host.write("key", "");
    insta::assert_snapshot!(kept.run(&["snapshots"]));
}

#[test]
fn a_place_without_a_repository_is_said_to_be_one() {
    let kept = Kept::new();
    std::fs::remove_dir_all(kept.host.path("srv/backup")).unwrap();
    insta::assert_snapshot!(kept.run(&["snapshots"]));
    std::fs::create_dir(kept.host.path("srv/backup")).unwrap();
    insta::assert_snapshot!(kept.run(&["snapshots"]));
}

#[test]
fn an_unreachable_bucket_ends_with_its_own_code() {
    let kept = Kept::new();
    kept.host.write("s3", "id\nsecret\n");
    let (key, s3) = (kept.host.path("key"), kept.host.path("s3"));
    let repo = "s3://backups/web1?endpoint=http://127.0.0.1:1";
    let words = [
        "snapshots",
        "--repo",
        repo,
        "--key-file",
        &key,
        "--access-key-file",
        &s3,
    ];
    insta::assert_snapshot!(kept.host.run(&words));
    let repo = "ftp://backups/web1";
    let words = ["snapshots", "--repo", repo, "--key-file", &key];
    insta::assert_snapshot!(kept.host.run(&words));
}

#[test]
fn damage_is_named_and_the_rest_is_restored() {
    let kept = Kept::new();
    for pack in kept.objects("p") {
        let mut bytes = std::fs::read(&pack).unwrap();
        bytes
            .iter_mut()
            .skip(100)
            .take(16)
            .for_each(|byte| *byte ^= 0xff);
        std::fs::remove_file(&pack).unwrap();
        std::fs::write(&pack, bytes).unwrap();
    }
    let out = kept.host.path("out");
    let shown = kept.run(&["restore", "--to", &out]);
    assert!(
        shown.contains("failed    /acme.1001/files/home/acme/logo.svg: frame 0 of "),
        "{shown}"
    );
    assert!(shown.contains("; 1 could not be.\n--- exit 3\n"), "{shown}");
    assert_eq!(kept.restored(INDEX).unwrap(), "<?php // second");
    assert_eq!(kept.restored(LOGO), None);
    for snapshot in kept.objects("s") {
        std::fs::remove_file(&snapshot).unwrap();
        std::fs::write(&snapshot, b"damaged").unwrap();
    }
    assert!(kept.run(&["snapshots"]).ends_with("--- exit 14\n"));
}
