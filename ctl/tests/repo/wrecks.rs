//! What is damaged beside the data, and what is typed to go on.

use std::fs;
use std::path::PathBuf;

use crate::Alone;

/// Gives the stored objects beside the data whose names have this word.
fn beside(alone: &Alone, word: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let domains = fs::read_dir(alone.host.path("srv/backup/w")).unwrap();
    for domain in domains {
        for object in fs::read_dir(domain.unwrap().path()).unwrap() {
            let path = object.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            found.extend(name.starts_with(word).then_some(path));
        }
    }
    found
}

fn damage(alone: &Alone, word: &str) {
    let found = beside(alone, word);
    assert_eq!(found.len(), 1, "{found:?}");
    let path = found.first().unwrap();
    let mut bytes = fs::read(path).unwrap();
    *bytes.get_mut(120).unwrap() ^= 1;
    fs::remove_file(path).unwrap();
    fs::write(path, bytes).unwrap();
}

#[test]
fn a_damaged_snapshot_in_the_trash_stays_until_a_person_takes_it_away() {
    let alone = Alone::new();
    alone.back_up();
    alone.host.write("tree/index.php", "<?php // second");
    alone.back_up();
    alone.host.write("tree/index.php", "<?php // third");
    alone.back_up();
    alone.ask(&["forget", "--keep-last", "2"]);
    damage(&alone, "trash-");
    let pruned = alone.run(&["prune", "--grace", "0s"]);
    assert!(pruned.contains("is damaged"), "{pruned}");
    assert!(
        pruned.contains("backstayctl repo forget --damaged"),
        "{pruned}"
    );
    assert!(pruned.ends_with("--- exit 14\n"), "{pruned}");
    // What else was let go can be had back all the same.
    let gone = alone.ask(&["forget", "--keep-last", "1"]);
    let other = gone["forgotten"][0].as_str().unwrap().to_owned();
    let listed = alone.run(&["undelete"]);
    assert!(listed.contains(&other), "{listed}");
    assert!(listed.contains("forget --damaged"), "{listed}");
    assert!(listed.ends_with("--- exit 3\n"), "{listed}");
    assert_eq!(alone.ask(&["undelete", &other])["undeleted"][0], other);
    let preview = alone.ask(&["forget", "--damaged", "--dry-run"]);
    assert_eq!(preview["deleted"].as_array().unwrap().len(), 1);
    assert_eq!(beside(&alone, "trash-").len(), 1);
    let deleted = alone.run(&["forget", "--damaged"]);
    assert!(deleted.contains("1 damaged snapshot deleted."), "{deleted}");
    assert_eq!(beside(&alone, "trash-").len(), 0);
    assert_eq!(alone.ask(&["snapshots"]).as_array().unwrap().len(), 2);
    let pruned = alone.run(&["prune", "--grace", "0s"]);
    assert!(pruned.ends_with("--- exit 0\n"), "{pruned}");
    alone.ask(&["verify"]);
}

#[test]
fn a_damaged_pin_stops_the_rules_until_a_person_takes_it_off() {
    let alone = Alone::new();
    alone.back_up();
    alone.back_up();
    alone.ask(&["pin", "latest", "--reason", "before the move"]);
    damage(&alone, "pin-");
    let refused = alone.run(&["forget", "--keep-last", "1"]);
    assert!(
        refused.contains("backstayctl repo unpin --damaged"),
        "{refused}"
    );
    assert!(refused.ends_with("--- exit 14\n"), "{refused}");
    assert_eq!(alone.ask(&["snapshots"]).as_array().unwrap().len(), 2);
    // Other pins are put on and taken off as ever.
    alone.ask(&["pin", "latest", "--reason", "again"]);
    assert_eq!(alone.ask(&["unpin", "latest"])["pins"], 1);
    let off = alone.run(&["unpin", "--damaged"]);
    assert!(off.contains("1 damaged pin deleted."), "{off}");
    alone.ask(&["forget", "--keep-last", "1"]);
    assert_eq!(alone.ask(&["snapshots"]).as_array().unwrap().len(), 1);
}

#[test]
fn a_damaged_snapshot_may_be_given_up() {
    let alone = Alone::new();
    let first = alone.back_up();
    let first = first["snapshot"].as_str().unwrap();
    alone.host.write("tree/index.php", "<?php // second");
    alone.back_up();
    let mut folders = vec![PathBuf::from(alone.host.path("srv/backup/d"))];
    let mut damaged = 0;
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path
                .file_name()
                .unwrap()
                .to_string_lossy()
                .starts_with(first)
            {
                fs::remove_file(&path).unwrap();
                fs::write(&path, "nonsense").unwrap();
                damaged += 1;
            }
        }
    }
    assert_eq!(damaged, 1);
    let refused = alone.run(&["forget", "--keep-last", "1"]);
    assert!(refused.contains("verify --heal-from"), "{refused}");
    let deleted = alone.run(&["forget", "--damaged"]);
    assert!(deleted.contains("1 damaged snapshot deleted."), "{deleted}");
    let pruned = alone.run(&["prune", "--grace", "0s"]);
    assert!(pruned.ends_with("--- exit 0\n"), "{pruned}");
}
