//! Keys and passwords of a repository, and what is said when they do not open it.

use std::fs;

use serde_json::Value;

use super::Alone;

const GOOD: &str = "Vex.quail7-Trombone";

impl Alone {
    /// Runs a verb with something else that opens the repository.
    fn opened_by(&self, opener: &[&str], verb: &[&str]) -> String {
        let repo = self.host.path("srv/backup");
        let mut words = vec!["repo"];
        words.extend(verb);
        words.extend(["--repo", &repo]);
        words.extend(opener);
        self.host.run(&words)
    }

    fn slots(&self) -> Vec<Value> {
        self.ask(&["key", "list"]).as_array().unwrap().clone()
    }

    /// Shows output with the names of slots, which are random or long, taken out.
    fn without_names(&self, shown: &str) -> String {
        let mut words = Vec::new();
        for word in shown.split(' ') {
            let is_name = word.len() == 32 && word.bytes().all(|b| b.is_ascii_hexdigit());
            words.push(if is_name { "NAME" } else { word });
        }
        words.join(" ")
    }
}

#[test]
fn a_password_is_added_and_opens_every_verb() {
    let alone = Alone::new();
    alone.back_up();
    alone.host.write("weak", "Password123!\n");
    alone.host.write("good", &format!("{GOOD}\n"));
    let (weak, good) = (alone.host.path("weak"), alone.host.path("good"));
    insta::assert_snapshot!(alone.run(&["key", "add", "--new-password-file", &weak]));
    let added = alone.run(&["key", "add", "--new-password-file", &good]);
    insta::assert_snapshot!(alone.without_names(&added));
    assert_eq!(alone.slots().len(), 2);
    let by_password = ["--password-file", &good];
    let out = alone.host.path("out");
    for verb in [
        &["snapshots"][..],
        &["verify"],
        &["stats"],
        &["restore", "--to", &out],
    ] {
        let shown = alone.opened_by(&by_password, verb);
        assert!(shown.ends_with("--- exit 0\n"), "{verb:?}: {shown}");
    }
    insta::assert_snapshot!(alone.opened_by(&["--password-file", &weak], &["snapshots"]));
    // Nothing was given, and nobody is there to ask.
    insta::assert_snapshot!(alone.opened_by(&[], &["snapshots"]));
    alone.host.write("better", "mOrning-Glacier4Spoon\n");
    let better = alone.host.path("better");
    let changed = alone.opened_by(
        &by_password,
        &["key", "passwd", "--new-password-file", &better],
    );
    assert!(changed.ends_with("--- exit 0\n"), "{changed}");
    let shown = alone.opened_by(&by_password, &["snapshots"]);
    assert!(shown.ends_with("--- exit 12\n"), "{shown}");
    assert_eq!(alone.slots().len(), 2);
}

#[test]
fn a_repository_begins_with_a_password_alone() {
    let alone = Alone::new();
    fs::remove_dir_all(alone.host.path("srv/backup")).unwrap();
    alone.host.write("good", GOOD);
    let good = alone.host.path("good");
    let by_password = ["--password-file", good.as_str()];
    let begun = alone.opened_by(&by_password, &["init"]);
    assert!(begun.contains("/srv/backup is ready."), "{begun}");
    let tree = alone.host.path("tree");
    let made = alone.opened_by(&by_password, &["backup", &tree]);
    assert!(made.ends_with("--- exit 0\n"), "{made}");
    let again = alone.opened_by(&by_password, &["init"]);
    assert!(again.contains("was ready before"), "{again}");
}

#[test]
fn keys_are_replaced_and_taken_away_but_not_the_last() {
    let alone = Alone::new();
    alone.back_up();
    let own = alone.slots()[0]["name"].as_str().unwrap().to_owned();
    let refused = alone.run(&["key", "remove", &own[..6]]);
    insta::assert_snapshot!(alone.without_names(&refused));
    let second = alone.host.path("second");
    let replaced = alone.run(&["key", "replace", "--new-key-file", &second]);
    insta::assert_snapshot!(alone.without_names(&replaced));
    insta::assert_snapshot!(alone.run(&["snapshots"]));
    // What a schedule's run would do with the old key, too.
    insta::assert_snapshot!(alone.run(&["init"]));
    let shown = alone.opened_by(&["--key-file", &second], &["verify"]);
    assert!(shown.ends_with("--- exit 0\n"), "{shown}");
    let absent = alone.opened_by(&["--key-file", &second], &["key", "remove", "ffff"]);
    insta::assert_snapshot!(absent);
}

#[test]
fn a_new_epoch_takes_all_other_keys_away() {
    let alone = Alone::new();
    alone.back_up();
    alone.host.write("good", GOOD);
    let (good, new) = (alone.host.path("good"), alone.host.path("new"));
    alone.run(&["key", "add", "--new-password-file", &good]);
    let unasked = alone.run(&["key", "new-epoch", "--new-key-file", &new]);
    assert!(unasked.ends_with("--- exit 2\n"), "{unasked}");
    let begun = alone.ask(&["key", "new-epoch", "--new-key-file", &new, "--yes"]);
    assert_eq!(
        (&begun["epoch"], &begun["key_is_new"]),
        (&1.into(), &true.into())
    );
    assert_eq!(begun["removed"].as_array().unwrap().len(), 2);
    for opener in [
        ["--password-file", good.as_str()],
        ["--key-file", &alone.host.path("key")],
    ] {
        let shown = alone.opened_by(&opener, &["snapshots"]);
        assert!(shown.ends_with("--- exit 12\n"), "{shown}");
    }
    let by_new = ["--key-file", new.as_str()];
    let shown = alone.opened_by(&by_new, &["verify"]);
    assert!(shown.ends_with("--- exit 0\n"), "{shown}");
}

#[test]
fn no_encryption_is_said_loudly_and_finds_damage() {
    let alone = Alone::new();
    fs::remove_dir_all(alone.host.path("srv/backup")).unwrap();
    let openly = ["--no-encryption"];
    insta::assert_snapshot!(alone.opened_by(&openly, &["init", "--label", "web1"]));
    let tree = alone.host.path("tree");
    alone.opened_by(&openly, &["backup", &tree]);
    insta::assert_snapshot!(alone.opened_by(&openly, &["info"]));
    let shown = alone.opened_by(&openly, &["verify"]);
    assert!(shown.ends_with("--- exit 0\n"), "{shown}");
    for pack in alone.packs() {
        let mut bytes = fs::read(&pack).unwrap();
        bytes[100] ^= 1;
        fs::remove_file(&pack).unwrap();
        fs::write(&pack, bytes).unwrap();
    }
    let shown = alone.opened_by(&openly, &["verify"]);
    assert!(shown.ends_with("--- exit 14\n"), "{shown}");
    let new = alone.host.path("published");
    fs::write(
        &new,
        repository::ScheduleKey::published().to_text().reveal(),
    )
    .unwrap();
    insta::assert_snapshot!(alone.opened_by(&openly, &["key", "add", "--new-key-file", &new]));
}

#[test]
fn what_does_not_open_says_why() {
    let alone = Alone::new();
    alone.back_up();
    let key = fs::read_to_string(alone.host.path("key")).unwrap();
    let mut swapped = key.clone().into_bytes();
    swapped.swap(6, 7);
    if swapped == key.as_bytes() {
        swapped[6] = if swapped[6] == b'a' { b'b' } else { b'a' };
    }
    let other = repository::ScheduleKey::from_bytes([9; 32]).to_text();
    for (text, name) in [
        (&key[..40], "truncated"),
        (std::str::from_utf8(&swapped).unwrap(), "mistyped"),
        (other.reveal(), "of_another_domain"),
        ("hunter2", "no_key"),
        ("", "empty"),
    ] {
        alone.host.write("other", text);
        let other = alone.host.path("other");
        let shown = alone.opened_by(&["--key-file", &other], &["snapshots"]);
        insta::assert_snapshot!(format!("a_key_{name}"), shown);
    }
    let slots = alone.host.path("srv/backup/k");
    let slot = fs::read_dir(&slots)
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .path();
    let slot = fs::read_dir(slot).unwrap().next().unwrap().unwrap().path();
    let whole = fs::read(&slot).unwrap();
    let path = slot.display().to_string();
    let named = path.strip_prefix(&alone.host.path("srv/backup/")).unwrap();
    for (at, byte, name) in [(200, !whole[200], "damaged"), (8, 9, "newer")] {
        let mut changed = whole.clone();
        changed[at] = byte;
        fs::remove_file(&slot).unwrap();
        fs::write(&slot, changed).unwrap();
        let shown = alone.run(&["snapshots"]).replace(named, "k/DOMAIN/SLOT");
        insta::assert_snapshot!(format!("a_slot_{name}"), shown);
    }
    fs::write(&slot, whole).unwrap();
    let newer = r#"{"format":"backstay-repository","version":2}"#;
    let config = alone.host.path("srv/backup/repository");
    for (text, name) in [
        (newer, "newer"),
        ("{}", "damaged"),
        (r#"{"format":"other","version":1}"#, "of_another_program"),
    ] {
        fs::remove_file(&config).unwrap();
        fs::write(&config, text).unwrap();
        insta::assert_snapshot!(format!("a_repository_{name}"), alone.run(&["snapshots"]));
    }
    fs::remove_file(&config).unwrap();
    insta::assert_snapshot!("no_repository", alone.run(&["snapshots"]));
}

#[test]
fn stored_objects_are_verified_without_a_key() {
    let alone = Alone::new();
    alone.back_up();
    let shown = alone.opened_by(&[], &["verify", "--no-key"]);
    assert!(
        shown.contains("Everything is what its name says: "),
        "{shown}"
    );
    assert!(shown.ends_with("--- exit 0\n"), "{shown}");
    let pack = &alone.packs()[0];
    let mut bytes = fs::read(pack).unwrap();
    bytes[100] ^= 1;
    fs::remove_file(pack).unwrap();
    fs::write(pack, bytes).unwrap();
    let found = alone.opened_by(&[], &["verify", "--no-key"]);
    let name = pack.file_name().unwrap().to_string_lossy();
    assert!(
        found.contains(&format!("{name}: its bytes do not hash to its name")),
        "{found}"
    );
    assert!(found.contains("1 objects are damaged"), "{found}");
    assert!(found.ends_with("--- exit 14\n"), "{found}");
    let words = alone.run(&["verify", "--no-key"]);
    assert!(words.ends_with("--- exit 2\n"), "no key is read: {words}");
}

#[test]
fn what_older_keys_encrypted_is_stored_anew() {
    let alone = Alone::new();
    let first = alone.back_up();
    let new = alone.host.path("new");
    alone.ask(&["key", "new-epoch", "--new-key-file", &new, "--yes"]);
    let by_new = ["--key-file", new.as_str()];
    let unit = alone.opened_by(&by_new, &["prune", "--reseal", "--reseal-bytes", "5"]);
    assert!(unit.ends_with("--- exit 2\n"), "{unit}");
    let done = alone.opened_by(&by_new, &["prune", "--reseal", "--grace", "0s"]);
    let told = "1 snapshot encrypted with the newest key; 0 packs of older ones left to do.";
    assert!(done.contains(told), "{done}");
    let listed = alone.opened_by(&by_new, &["snapshots"]);
    assert!(
        listed.contains(first["snapshot"].as_str().unwrap()),
        "{listed}"
    );
    let shown = alone.opened_by(&by_new, &["verify"]);
    assert!(shown.ends_with("--- exit 0\n"), "{shown}");
}

#[test]
fn a_key_that_may_only_add_backs_up_and_is_refused_the_rest() {
    let alone = Alone::new();
    let first = alone.back_up();
    let writer = alone.host.path("writer");
    alone.ask(&["key", "add", "--new-key-file", &writer, "--rights", "add"]);
    let (tree, cache) = (alone.host.path("tree"), alone.host.path("cache"));
    let by_writer = ["--key-file", writer.as_str()];
    let back_up = ["backup", &tree, "--cache-dir", &cache, "--json"];
    for run in 0..2 {
        let made = alone.opened_by(&by_writer, &back_up);
        let end = made.rfind('}').unwrap();
        let text = made.get(made.find('{').unwrap()..=end).unwrap();
        let made: Value = serde_json::from_str(text).unwrap();
        assert_eq!(made["failed"], 0);
        assert!(
            made["stored_bytes"].as_u64() < Some(32_768),
            "run {run}: {made}"
        );
    }
    // What the next run leaves unread lies here, with the key of this machine.
    let domain = fs::read_dir(&cache)
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .path();
    let own = domain.join("w").join(domain.file_name().unwrap());
    assert_eq!(fs::read(own.join("local-key")).unwrap().len(), 32);
    assert!(fs::read_dir(domain.join("d")).unwrap().count() >= 1);
    let id = first["snapshot"].as_str().unwrap();
    let out = alone.host.path("out");
    for (verb, name) in [
        (&["snapshots"][..], "list"),
        (&["restore", "--to", &out], "restore"),
        (&["forget", id], "forget"),
        (&["prune"], "prune"),
        (&["key", "remove", "aa"], "remove"),
    ] {
        let shown = alone.opened_by(&by_writer, verb);
        insta::assert_snapshot!(format!("only_add_{name}"), shown);
    }
    assert_eq!(alone.ask(&["snapshots"]).as_array().unwrap().len(), 3);
    assert_eq!(alone.ask(&["verify"])["is_sound"], true);
}

#[test]
fn a_key_that_may_not_delete_is_refused_what_deletes() {
    let alone = Alone::new();
    let first = alone.back_up();
    let other = alone.host.path("other");
    alone.ask(&[
        "key",
        "add",
        "--new-key-file",
        &other,
        "--rights",
        "add-read",
    ]);
    let by_other = ["--key-file", other.as_str()];
    let (tree, third) = (alone.host.path("tree"), alone.host.path("third"));
    for verb in [&["snapshots"][..], &["backup", &tree], &["verify"]] {
        let shown = alone.opened_by(&by_other, verb);
        assert!(shown.ends_with("--- exit 0\n"), "{verb:?}: {shown}");
    }
    let id = first["snapshot"].as_str().unwrap();
    for (verb, name) in [
        (&["forget", id][..], "forget"),
        (&["prune"], "prune"),
        (&["pin", id, "--reason", "mine"], "pin"),
        (&["key", "replace", "--new-key-file", &third], "replace"),
    ] {
        let shown = alone.opened_by(&by_other, verb);
        insta::assert_snapshot!(format!("no_delete_{name}"), shown);
    }
    assert_eq!(alone.ask(&["snapshots"]).as_array().unwrap().len(), 2);
}
