//! A repository and its key, and nothing else: begun, filled, looked at, restored, tidied, verified.

#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod archives;
mod disks;
mod keys;
mod signals;
#[path = "../support/mod.rs"]
mod support;
mod verifies;
mod wrecks;

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::PathBuf;

use serde_json::Value;
use support::Host;

/// A machine with a tree at `/tree`, a repository at `/srv/backup` and its key.
struct Alone {
    host: Host,
}

impl Alone {
    fn new() -> Self {
        let host = Host::empty();
        host.write("tree/index.php", "<?php // first");
        host.write("tree/below/large.bin", &"0123456789abcdef".repeat(20_000));
        host.write("tree/below/cache.tmp", "left out");
        host.write("srv/.keep", "");
        let alone = Self { host };
        let begun = alone.run(&["init", "--label", "web1"]);
        assert!(begun.ends_with("--- exit 0\n"), "{begun}");
        alone
    }

    fn run(&self, verb: &[&str]) -> String {
        self.host.run(
            &self
                .words(verb)
                .iter()
                .map(String::as_str)
                .collect::<Vec<_>>(),
        )
    }

    fn words(&self, verb: &[&str]) -> Vec<String> {
        let (repo, key) = (self.host.path("srv/backup"), self.host.path("key"));
        let mut words = vec!["repo".to_owned()];
        words.extend(verb.iter().map(ToString::to_string));
        words.extend(["--repo".to_owned(), repo, "--key-file".to_owned(), key]);
        words
    }

    /// Runs a verb that answers a program.
    fn ask(&self, verb: &[&str]) -> Value {
        let mut words = self.words(verb);
        words.push("--json".to_owned());
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let output = self.host.command(&words).output().unwrap();
        assert!(output.status.success(), "{}", self.host.shown(&output));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    fn back_up(&self) -> Value {
        let tree = self.host.path("tree");
        self.ask(&["backup", &tree, "--exclude", "*.tmp"])
    }

    fn packs(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        let mut folders = vec![PathBuf::from(self.host.path("srv/backup/d"))];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                } else if path.iter().any(|part| part == "p") {
                    found.push(path);
                }
            }
        }
        found
    }
}

#[test]
fn a_repository_is_begun_once_and_its_key_is_private() {
    let alone = Alone::new();
    let key = fs::metadata(alone.host.path("key")).unwrap();
    assert_eq!(key.permissions().mode() & 0o777, 0o600);
    insta::assert_snapshot!(alone.run(&["init"]));
    let again = alone.ask(&["init"]);
    assert_eq!(
        (&again["is_new"], &again["key_is_new"]),
        (&false.into(), &false.into())
    );
    insta::assert_snapshot!(alone.run(&["snapshots"]));
}

#[test]
fn a_tree_comes_back_with_all_its_metadata() {
    let alone = Alone::new();
    let tree = PathBuf::from(alone.host.path("tree"));
    fs::set_permissions(tree.join("index.php"), fs::Permissions::from_mode(0o4755)).unwrap();
    fs::hard_link(tree.join("index.php"), tree.join("second name")).unwrap();
    symlink("below/large.bin", tree.join("link")).unwrap();
    let made = alone.back_up();
    assert_eq!(made["failed"], 0);
    let out = alone.host.path("out");
    let done = alone.run(&["restore", "--to", &out]);
    assert!(done.ends_with("--- exit 0\n"), "{done}");
    let back = PathBuf::from(&out).join(tree.strip_prefix("/").unwrap());
    for name in ["index.php", "below/large.bin"] {
        let (was, is) = (tree.join(name), back.join(name));
        assert_eq!(fs::read(&was).unwrap(), fs::read(&is).unwrap());
        let (was, is) = (fs::metadata(was).unwrap(), fs::metadata(is).unwrap());
        assert_eq!(
            (was.mtime(), was.mtime_nsec()),
            (is.mtime(), is.mtime_nsec())
        );
        let bits = if was.uid() == 0 { 0o7777 } else { 0o777 };
        assert_eq!(was.mode() & bits, is.mode() & bits, "{name}");
    }
    let inode = |name: &str| fs::metadata(back.join(name)).unwrap().ino();
    assert_eq!(inode("index.php"), inode("second name"));
    assert_eq!(
        fs::read_link(back.join("link")).unwrap(),
        PathBuf::from("below/large.bin")
    );
    assert!(!back.join("below/cache.tmp").exists(), "it was excluded");
}

#[test]
fn an_unchanged_tree_is_not_read_again() {
    let alone = Alone::new();
    let first = alone.back_up();
    assert!(first["read_bytes"].as_u64() >= Some(320_000), "{first}");
    // What was written just now may still change within the same tick of the clock.
    let old = std::time::SystemTime::now() - std::time::Duration::from_secs(3600);
    for name in ["tree/index.php", "tree/below/large.bin"] {
        let file = fs::File::options()
            .write(true)
            .open(alone.host.path(name))
            .unwrap();
        file.set_modified(old).unwrap();
    }
    let second = alone.back_up();
    assert_eq!(second["entries"], first["entries"]);
    assert!(second["stored_bytes"].as_u64() < Some(16_384), "{second}");
    let listed = alone.ask(&["snapshots"]);
    assert_eq!(listed.as_array().unwrap().len(), 2);
    assert_eq!(listed[0]["schedule"], "web1");
    let tree = alone.host.path("tree/below");
    let names = alone.ask(&["ls", "latest", &tree]);
    assert_eq!(names[0]["size_bytes"], 320_000);
}

#[test]
fn snapshots_go_by_rules_and_nothing_else_is_lost() {
    let alone = Alone::new();
    let first = alone.back_up();
    let random: String = (0..20_000_u32)
        .map(|n| n.wrapping_mul(2_654_435_761).to_string())
        .collect();
    alone.host.write("tree/below/large.bin", &random);
    alone.back_up();
    assert!(alone.run(&["forget"]).ends_with("--- exit 2\n"));
    let would = alone.ask(&["forget", "--keep-last", "1", "--dry-run"]);
    assert_eq!(would["forgotten"][0], first["snapshot"]);
    assert_eq!(alone.ask(&["snapshots"]).as_array().unwrap().len(), 2);
    let waiting = alone.ask(&["forget", "--keep-last", "1", "--prune", "--trash", "0s"]);
    assert_eq!(waiting["pruned"]["deleted_packs"], 0, "{waiting}");
    assert!(
        waiting["pruned"]["condemned_packs"].as_u64() >= Some(1),
        "{waiting}"
    );
    let gone = alone.ask(&["prune", "--grace", "0s"]);
    assert!(gone["deleted_packs"].as_u64() >= Some(1), "{gone}");
    assert_eq!(alone.ask(&["verify"])["is_sound"], true);
    let out = alone.host.path("out");
    alone.ask(&["restore", "--to", &out]);
    let tree = alone.host.path("tree/below/large.bin");
    assert_eq!(fs::read(format!("{out}{tree}")).unwrap(), random.as_bytes());
}

#[test]
fn with_no_grace_what_nothing_needs_goes_at_once() {
    let alone = Alone::new();
    let first = alone.back_up();
    alone.host.write("tree/below/large.bin", "small now");
    alone.back_up();
    let before = alone.packs().len();
    let id = first["snapshot"].as_str().unwrap();
    let gone = alone.ask(&[
        "forget",
        &id[..12],
        "--prune",
        "--grace",
        "0s",
        "--trash",
        "0s",
    ]);
    assert!(
        gone["pruned"]["deleted_packs"].as_u64() >= Some(1),
        "{gone}"
    );
    assert_eq!(gone["pruned"]["condemned_packs"], 0);
    assert!(alone.packs().len() < before);
    assert_eq!(alone.ask(&["verify"])["is_sound"], true);
}

#[test]
fn packs_are_rewritten_little_by_little_when_told_so() {
    let alone = Alone::new();
    let noise = |seed: u32| -> String {
        let numbers = (0..4000_u32).map(|n| (n ^ (seed << 20)).wrapping_mul(2_654_435_761));
        numbers.map(|number| number.to_string()).collect()
    };
    for run in 0..4 {
        alone.host.write(&format!("tree/kept{run}"), &noise(run));
        alone.host.write("tree/gone", &noise(100 + run));
        alone.back_up();
    }
    alone.ask(&["forget", "--keep-last", "1", "--trash", "0s"]);
    let unit = alone.run(&["prune", "--repack-bytes", "1KiB"]);
    assert!(unit.ends_with("--- exit 2\n"), "only with --repack: {unit}");
    let little = "prune --grace 0s --trash 0s --repack --repack-over 0 --repack-bytes 1KiB";
    let little: Vec<&str> = little.split(' ').collect();
    let told = alone.run(&little);
    assert!(
        told.contains("More is left to rewrite: the same again goes on"),
        "{told}"
    );
    let mut waste = u64::MAX;
    let times = (0..9).take_while(|_| {
        let pruned = alone.ask(&little);
        let left = pruned["waste_bytes"].as_u64().unwrap();
        assert!(left < waste, "{pruned}");
        waste = left;
        pruned["is_cut_short"] == true
    });
    let times = times.count();
    assert!((1..9).contains(&times), "{times}");
    assert_eq!(alone.ask(&["verify"])["is_sound"], true);
    let out = alone.host.path("out");
    alone.ask(&["restore", "--to", &out]);
    for run in 0..4 {
        let kept = alone.host.path(&format!("tree/kept{run}"));
        assert_eq!(
            fs::read_to_string(format!("{out}{kept}")).unwrap(),
            noise(run)
        );
    }
}

#[test]
fn what_was_let_go_comes_back_until_the_trash_is_emptied() {
    let alone = Alone::new();
    alone
        .host
        .write("tree/below/large.bin", &"one".repeat(9000));
    let first = alone.back_up();
    let first = first["snapshot"].as_str().unwrap();
    alone
        .host
        .write("tree/below/large.bin", &"two".repeat(9000));
    alone.back_up();
    let would = alone.ask(&["forget", "--keep-last", "1", "--preview"]);
    assert_eq!(
        would["kept_by"][0]["by"],
        serde_json::json!(["newest", "last"])
    );
    assert!(would["frees"]["bytes"].as_u64() > Some(0), "{would}");
    let gone = alone.ask(&["forget", "--keep-last", "1", "--prune", "--grace", "0s"]);
    assert_eq!(gone["forgotten"][0], first);
    assert_eq!(gone["pruned"]["deleted_packs"], 0, "{gone}");
    assert_eq!(alone.ask(&["snapshots"]).as_array().unwrap().len(), 1);
    assert_eq!(alone.ask(&["undelete"])[0]["snapshot"], first);
    assert_eq!(alone.ask(&["undelete", &first[..8]])["undeleted"][0], first);
    assert_eq!(alone.ask(&["undelete"]).as_array().unwrap().len(), 0);
    let out = alone.host.path("out");
    alone.ask(&["restore", first, "--to", &out]);
    let tree = alone.host.path("tree/below/large.bin");
    assert_eq!(
        fs::read_to_string(format!("{out}{tree}")).unwrap(),
        "one".repeat(9000)
    );
    let word = &["forget", first, "--prune", "--grace", "0s", "--trash", "0s"];
    let gone = alone.ask(word);
    assert_eq!(gone["pruned"]["expired_snapshots"], 1, "{gone}");
    assert_eq!(gone["pruned"]["freed_bytes"], would["frees"]["bytes"]);
    let refused = alone.run(&["undelete", first]);
    assert!(refused.contains("is in the trash; none was"), "{refused}");
    assert_eq!(alone.ask(&["verify"])["is_sound"], true);
}

#[test]
fn a_pinned_snapshot_stays_until_it_is_unpinned() {
    let alone = Alone::new();
    let first = alone.back_up();
    let first = first["snapshot"].as_str().unwrap();
    alone.back_up();
    let pinned = alone.ask(&["pin", first, "--reason", "before the move", "--for", "90d"]);
    assert_eq!(pinned[0]["reason"], "before the move");
    assert_eq!(alone.ask(&["pin"])[0]["snapshot"], first);
    let gone = alone.ask(&["forget", "--keep-last", "1"]);
    assert_eq!(gone["forgotten"].as_array().unwrap().len(), 0);
    assert_eq!(gone["kept_by"][0]["by"], serde_json::json!(["pin"]));
    let refused = alone.run(&["forget", first]);
    assert!(
        refused.contains("the reason given is: before the move"),
        "{refused}"
    );
    assert!(refused.ends_with("--- exit 1\n"), "{refused}");
    assert_eq!(alone.ask(&["unpin", first])["pins"], 1);
    let gone = alone.ask(&["forget", "--keep-last", "1"]);
    assert_eq!(gone["forgotten"][0], first);
}

#[test]
fn rules_look_at_each_machine_and_set_of_paths_alone() {
    let alone = Alone::new();
    let [tree, other] = ["tree/below", "tree/index.php"].map(|path| alone.host.path(path));
    let sets: [&[&str]; 4] = [
        &[&tree],
        &[&other],
        &[&other, &tree],
        &[&tree, "--host", "web2"],
    ];
    let mut newest = Vec::new();
    for round in 0..2 {
        for set in sets {
            let made = alone.ask(&[&["backup"], set].concat());
            newest.extend((round == 1).then(|| made["snapshot"].clone()));
        }
    }
    let again = alone.ask(&["backup", &tree, &other]);
    newest[2] = again["snapshot"].clone();
    let gone = alone.ask(&["forget", "--keep-last", "1"]);
    assert_eq!(gone["forgotten"].as_array().unwrap().len(), 5, "{gone}");
    let left = alone.ask(&["snapshots"]);
    let left = left.as_array().unwrap();
    let mut ids: Vec<_> = left.iter().map(|row| row["id"].clone()).collect();
    ids.sort_by_key(Value::to_string);
    newest.sort_by_key(Value::to_string);
    assert_eq!(ids, newest);
    assert_eq!(left[3]["paths"], serde_json::json!([tree, other]));
    assert!(alone.run(&["snapshots"]).contains("  paths\n"));
    let gone = alone.ask(&["forget", "--keep-last", "1", "--together"]);
    assert_eq!(gone["forgotten"].as_array().unwrap().len(), 3, "{gone}");
}

#[test]
fn nothing_goes_while_the_newest_snapshot_looks_wrong() {
    let alone = Alone::new();
    let random: String = (0_u32..500_000)
        .map(|n| char::from(b'a' + n.wrapping_mul(2_654_435_761).to_be_bytes()[0] % 26))
        .collect();
    alone.host.write("tree/below/large.bin", &random.repeat(40));
    for _ in 0..2 {
        alone.back_up();
    }
    alone.host.write("tree/below/large.bin", "encrypted, pay");
    alone.back_up();
    let small = alone.host.path("tree/index.php");
    alone.ask(&["backup", &small]);
    for verb in [&["forget", "--keep-last", "1"][..], &["prune"]] {
        let refused = alone.run(verb);
        assert!(refused.ends_with("--- exit 1\n"), "{refused}");
        assert!(refused.contains("19.0 MiB were usual before"), "{refused}");
        assert!(
            refused.contains("the newest snapshot of /tree on "),
            "{refused}"
        );
        assert!(refused.contains("--force"), "{refused}");
    }
    assert_eq!(alone.ask(&["snapshots"]).as_array().unwrap().len(), 4);
    alone.ask(&["forget", "--keep-last", "1", "--force"]);
    assert_eq!(alone.ask(&["snapshots"]).as_array().unwrap().len(), 2);
}

#[test]
fn damage_is_found_and_named_with_the_files_it_takes() {
    let alone = Alone::new();
    alone.back_up();
    let sound = alone.run(&["verify"]);
    assert!(sound.contains("Nothing is damaged: 1 snapshots"), "{sound}");
    for pack in alone.packs() {
        let mut bytes = fs::read(&pack).unwrap();
        bytes
            .iter_mut()
            .skip(100)
            .take(16)
            .for_each(|byte| *byte ^= 0xff);
        fs::remove_file(&pack).unwrap();
        fs::write(&pack, bytes).unwrap();
    }
    let shown = alone.run(&["verify"]);
    assert!(
        shown.contains("its bytes do not hash to its name"),
        "{shown}"
    );
    assert!(
        shown.contains("/tree/below/large.bin in snapshot "),
        "{shown}"
    );
    assert!(shown.ends_with("--- exit 14\n"), "{shown}");
}

#[test]
fn what_cannot_be_begun_changes_nothing() {
    let alone = Alone::new();
    let absent = alone.host.path("absent");
    insta::assert_snapshot!(alone.run(&["backup", &absent]));
    insta::assert_snapshot!(alone.run(&["backup", "../tree"]));
    assert_eq!(alone.ask(&["snapshots"]).as_array().unwrap().len(), 0);
    let held = fs::read_dir(alone.host.path("srv/backup/k"))
        .unwrap()
        .next()
        .unwrap();
    let held = fs::File::open(held.unwrap().path()).unwrap();
    held.lock().unwrap();
    let tree = alone.host.path("tree");
    insta::assert_snapshot!(alone.run(&["backup", &tree]));
    drop(held);
    fs::remove_dir_all(alone.host.path("srv/backup")).unwrap();
    insta::assert_snapshot!(alone.run(&["backup", &tree]));
}

#[test]
fn names_are_found_in_every_snapshot_that_differs() {
    let alone = Alone::new();
    alone.back_up();
    alone.host.write("tree/index.php", "<?php // second");
    alone.back_up();
    let found = alone.ask(&["find", "INDEX"]);
    let hits = found["hits"].as_array().unwrap();
    let sizes: Vec<_> = hits.iter().map(|hit| &hit["entry"]["size_bytes"]).collect();
    assert_eq!(sizes, [15, 14], "newest first");
    assert_eq!(found["is_complete"], true);
    let path = hits[0]["entry"]["path"].as_str().unwrap();
    assert!(path.ends_with("/tree/index.php"), "{path}");
    let one = alone.ask(&["find", "*.php", "--snapshot", "latest"]);
    assert_eq!(one["hits"].as_array().unwrap().len(), 1);
    let few = alone.ask(&["find", "*", "--limit", "2"]);
    assert_eq!(few["is_complete"], false);
    assert_eq!(few["hits"].as_array().unwrap().len(), 2);
    let below = alone.host.path("tree/below");
    let shown = alone.run(&["find", "large", "--path", &below]);
    assert!(shown.contains("/tree/below/large.bin\n"), "{shown}");
    let nothing = alone.run(&["find", "absent"]);
    assert!(nothing.contains("Nothing has such a name."), "{nothing}");
    assert!(nothing.ends_with("--- exit 0\n"), "{nothing}");
}

#[test]
fn versions_of_a_file_say_when_it_changed_and_when_it_was_as_before() {
    let alone = Alone::new();
    for text in ["one", "one", "two 2", "one"] {
        alone.host.write("tree/index.php", text);
        alone.back_up();
    }
    fs::remove_file(alone.host.path("tree/index.php")).unwrap();
    alone.back_up();
    let file = alone.host.path("tree/index.php");
    let versions = alone.ask(&["versions", &file]);
    let versions = versions.as_array().unwrap();
    let contents: Vec<_> = versions.iter().map(|one| one["content"].as_u64()).collect();
    // The second "one" has another time: a version of its own, of equal content.
    assert_eq!(contents, [Some(0), Some(0), Some(1), Some(0), None]);
    assert!(versions[4]["entry"].is_null());
    let shown = alone.run(&["versions", &file]);
    assert!(shown.contains("not there"), "{shown}");
    let absent = alone.run(&["versions", "/nowhere"]);
    assert!(absent.contains("no snapshot holds /nowhere"), "{absent}");
    assert!(absent.ends_with("--- exit 1\n"), "{absent}");
}

#[test]
fn snapshots_are_compared_with_each_other_and_with_the_machine() {
    let alone = Alone::new();
    let first = alone.back_up();
    alone.host.write("tree/new", "new");
    fs::remove_file(alone.host.path("tree/below/large.bin")).unwrap();
    let index = alone.host.path("tree/index.php");
    fs::set_permissions(&index, fs::Permissions::from_mode(0o600)).unwrap();
    let tree = alone.host.path("tree");
    let live = alone.ask(&["diff", "latest", "--live", &tree, "--exclude", "*.tmp"]);
    let second = alone.back_up();
    let ids = [&first, &second].map(|made| made["snapshot"].as_str().unwrap());
    // Above the tree is what other tests change, too.
    let pair = alone.ask(&["diff", ids[0], ids[1], "--path", &tree]);
    for found in [&live, &pair] {
        let changes = found["changes"].as_array().unwrap();
        let changes: Vec<_> = changes
            .iter()
            .map(|one| {
                let path = one["path"].as_str().unwrap().strip_prefix(&tree).unwrap();
                (
                    path,
                    one["change"].as_str().unwrap(),
                    one["aspects"].to_string(),
                )
            })
            .collect();
        let expected = [
            ("", "changed", "[\"modified\"]"),
            ("/below", "changed", "[\"modified\"]"),
            ("/index.php", "changed", "[\"mode\"]"),
            ("/new", "added", "[]"),
            ("/below/large.bin", "removed", "[]"),
        ];
        let expected = expected.map(|(path, change, aspects)| (path, change, aspects.to_owned()));
        assert_eq!(changes, expected);
        assert_eq!(
            (&found["added"], &found["removed"], &found["changed"]),
            (&1.into(), &1.into(), &3.into())
        );
    }
    let same = alone.run(&["diff", "latest", "latest"]);
    assert!(same.contains("0 added, 0 removed, 0 changed."), "{same}");
    let part = alone.run(&["diff", ids[0], ids[1], "--path", &index]);
    assert!(part.contains("tree/index.php  (mode)\n0 added"), "{part}");
    let missing = alone.run(&["diff", "latest", "--live", "/nowhere/at/all"]);
    assert!(missing.ends_with("--- exit 1\n"), "{missing}");
    assert!(alone.run(&["diff", "latest"]).ends_with("--- exit 2\n"));
}

#[test]
fn statistics_say_what_only_one_snapshot_or_path_holds() {
    let alone = Alone::new();
    let noise: String = (0..20_000_u32)
        .map(|n| n.wrapping_mul(2_654_435_761).to_string())
        .collect();
    alone.host.write("tree/below/large.bin", &noise);
    alone.back_up();
    fs::remove_file(alone.host.path("tree/below/large.bin")).unwrap();
    alone.back_up();
    let tree = alone.host.path("tree");
    let found = alone.ask(&["stats", &tree]);
    let length = noise.len() as u64;
    assert_eq!(found["needed"]["data_bytes"], length);
    let pages = found["needed"]["metadata_bytes"].as_u64().unwrap();
    assert_eq!(found["deduplicated_bytes"], length + pages);
    assert_eq!(found["snapshots"][0]["unique"]["data_bytes"], length);
    assert_eq!(found["snapshots"][1]["unique"]["data_bytes"], 0);
    assert_eq!(found["parts"][0]["name"], "below");
    assert_eq!(found["parts"][0]["unique"]["data_bytes"], length);
    assert_eq!(
        found["parts"][0]["size_bytes"], 0,
        "it is gone from the newest"
    );
    assert!(found["stored_bytes"].as_u64() > Some(length / 4), "{found}");
    assert!(found["ratio"].as_f64() > Some(0.1), "{found}");
    let shown = alone.run(&["stats"]);
    assert!(shown.contains(" in 2 snapshots; "), "{shown}");
    assert!(shown.ends_with("--- exit 0\n"), "{shown}");
}
