//! Verifying a share at a time, and having damage healed from another copy.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::Alone;

impl Alone {
    /// Backs up one more file, so that there is one more pack of data.
    fn add_pack(&self, number: u64) {
        let mut state = number | 1;
        let noise: Vec<u8> = std::iter::repeat_with(|| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()
        })
        .take(50_000)
        .flatten()
        .collect();
        fs::write(self.host.path(&format!("tree/noise{number}")), noise).unwrap();
        self.back_up();
    }

    /// Verifies with a cache of its own; gives the answer and the exit code.
    fn verify(&self, more: &[&str]) -> (Value, i32) {
        let mut words = self.words(&["verify", "--json"]);
        words.extend(more.iter().map(ToString::to_string));
        let words: Vec<_> = words.iter().map(String::as_str).collect();
        let mut command = self.host.command(&words);
        let command = command.env("XDG_CACHE_HOME", self.host.path("cache"));
        let output = command.output().unwrap();
        let answer: Result<Value, _> = serde_json::from_slice(&output.stdout);
        assert!(answer.is_ok(), "{}", self.host.shown(&output));
        (answer.unwrap(), output.status.code().unwrap())
    }

    fn damage_one_pack(&self) -> PathBuf {
        let mut packs = self.packs();
        packs.sort();
        let pack = packs.remove(0);
        let mut bytes = fs::read(&pack).unwrap();
        let middle = bytes.len() / 2;
        *bytes.get_mut(middle).unwrap() ^= 1;
        fs::write(&pack, bytes).unwrap();
        pack
    }
}

fn copy_all(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            copy_all(&entry.path(), &to.join(entry.file_name()));
        } else {
            fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }
}

#[test]
fn shares_come_round_to_everything() {
    let alone = Alone::new();
    (1..=4).for_each(|number| alone.add_pack(number));
    let (whole, exit) = alone.verify(&[]);
    assert_eq!((&whole["is_sound"], exit), (&true.into(), 0), "{whole}");
    let all = whole["read_bytes"].as_u64().unwrap();
    alone.damage_one_pack();
    // A third each time, what was read the longest ago first: three times find anything.
    let mut found = 0;
    for _ in 0..3 {
        let (part, exit) = alone.verify(&["--share", "34%"]);
        assert!(part["read_bytes"].as_u64().unwrap() < all, "{part}");
        let is_sound = part["is_sound"] == true;
        assert_eq!(exit, if is_sound { 0 } else { 14 });
        found += u32::from(!is_sound);
    }
    assert!(found > 0);
    let refused = alone.run(&["verify", "--share", "0"]);
    assert!(
        refused.contains("write a share from 1% to 100%"),
        "{refused}"
    );
    assert!(refused.ends_with("--- exit 2\n"), "{refused}");
}

#[test]
fn no_more_is_read_once_the_time_is_up() {
    let alone = Alone::new();
    (1..=3).for_each(|number| alone.add_pack(number));
    let (whole, _) = alone.verify(&[]);
    let (none, exit) = alone.verify(&["--time-budget", "0s"]);
    assert_eq!((&none["is_sound"], exit), (&true.into(), 0), "{none}");
    assert!(
        none["read_bytes"].as_u64() < whole["read_bytes"].as_u64(),
        "{none}"
    );
    let (long, _) = alone.verify(&["--time-budget", "1h"]);
    assert_eq!(long["read_bytes"], whole["read_bytes"]);
}

#[test]
fn what_is_damaged_is_had_back_from_another_copy() {
    let alone = Alone::new();
    (1..=2).for_each(|number| alone.add_pack(number));
    let copy = alone.host.path("srv/copy");
    copy_all(Path::new(&alone.host.path("srv/backup")), Path::new(&copy));
    let pack = alone.damage_one_pack();
    let good =
        fs::read(Path::new(&copy).join(pack.strip_prefix(alone.host.path("srv/backup")).unwrap()));
    let (found, exit) = alone.verify(&[]);
    assert_eq!((&found["damaged"], exit), (&1.into(), 14), "{found}");
    let healed = alone.run(&["verify", "--heal-from", &copy]);
    assert!(healed.contains("1 objects were had back from"), "{healed}");
    assert!(healed.ends_with("--- exit 0\n"), "{healed}");
    assert!(fs::read(&pack).unwrap() == good.unwrap());
    let (sound, exit) = alone.verify(&[]);
    assert_eq!((&sound["is_sound"], exit), (&true.into(), 0), "{sound}");
    // A place that holds other backups cannot help.
    let other = Alone::new();
    alone.damage_one_pack();
    let refused = alone.run(&["verify", "--heal-from", &other.host.path("srv/backup")]);
    assert!(!refused.ends_with("--- exit 0\n"), "{refused}");
    assert!(
        fs::read(&pack).unwrap()
            != fs::read(
                Path::new(&copy).join(pack.strip_prefix(alone.host.path("srv/backup")).unwrap(),)
            )
            .unwrap()
    );
}
