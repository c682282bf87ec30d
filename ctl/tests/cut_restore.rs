//! A restore that is killed in the midst of a file goes on when it is asked for again.

#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod support;

use std::fs;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, Stdio};

use serde_json::Value;
use support::Host;

/// The longest file that the killed restore may write, in blocks of 512 bytes.
const FILE_BLOCKS: &str = "512";

/// A machine with a tree, a repository and its key.
struct Alone {
    host: Host,
}

impl Alone {
    fn new() -> Self {
        let host = Host::empty();
        host.write("tree/index.php", "<?php // first");
        host.write("srv/.keep", "");
        let alone = Self { host };
        let begun = alone.run(&["init"]);
        assert!(begun.ends_with("--- exit 0\n"), "{begun}");
        alone
    }

    fn words(&self, verb: &[&str]) -> Vec<String> {
        let (repo, key) = (self.host.path("srv/backup"), self.host.path("key"));
        let words = ["repo"].iter().chain(verb).map(ToString::to_string);
        let place = ["--repo".to_owned(), repo, "--key-file".to_owned(), key];
        words.chain(place).collect()
    }

    fn run(&self, verb: &[&str]) -> String {
        let words = self.words(verb);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        self.host.run(&words)
    }

    /// Runs a verb that answers a program.
    fn ask(&self, verb: &[&str]) -> Value {
        let words = self.words(verb);
        let mut words: Vec<&str> = words.iter().map(String::as_str).collect();
        words.push("--json");
        let output = self.host.command(&words).output().unwrap();
        assert!(output.status.success(), "{}", self.host.shown(&output));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// Writes a tree with a file that is too long for a restore that is to be killed.
    fn write_long_tree(&self) {
        for number in 0..40 {
            self.host
                .write(&format!("tree/small/{number}.html"), &line(number, 3_000));
        }
        self.host.write("tree/long.sql", &line(1_000, 4_000_000));
        self.ask(&["backup", &self.host.path("tree")]);
    }

    /// Restores; the first write behind so many blocks kills the program.
    fn restore_killed(&self, to: &str) {
        let words = self.words(&["restore", "--to", to]);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let command = self.host.command(&words);
        let mut limited = Command::new("sh");
        limited
            .args(["-c", "ulimit -c 0; ulimit -f $1; shift; exec \"$@\"", "sh"])
            .arg(FILE_BLOCKS)
            .arg(command.get_program())
            .args(command.get_args())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let status = limited.status().unwrap();
        assert!(status.signal().is_some(), "it was not killed: {status}");
    }
}

/// Text without a pattern that could be found twice.
fn line(seed: u64, length: usize) -> String {
    let mut state = seed << 7 | 1;
    let mut text = String::with_capacity(length + 20);
    while text.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        text.push_str(&format!("{state:x} "));
    }
    text
}

#[test]
fn a_killed_restore_goes_on_when_it_is_asked_for_again() {
    let alone = Alone::new();
    alone.write_long_tree();
    let to = alone.host.path("restored");
    alone.restore_killed(&to);
    let left: Vec<_> = fs::read_dir(&to)
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(
        left,
        [".backstay-stage-to"],
        "nothing of it is in its place"
    );

    // Only the same goes on.
    let other = alone.run(&["restore", "--to", &to, "--path", "nowhere"]);
    assert!(
        other.contains("a restore of something else into it was cut"),
        "{other}"
    );
    assert!(other.ends_with("--- exit 1\n"), "{other}");

    let done = alone.ask(&["restore", "--to", &to]);
    assert_eq!(done["ok"], true, "{done}");
    assert_eq!(done["failed"], 0, "{done}");
    assert!(
        done["kept"].is_u64() && done["kept_bytes"].is_u64(),
        "{done}"
    );
    let tree = alone.host.path("tree");
    let restored = format!("{to}{tree}");
    for name in ["long.sql", "small/0.html", "small/39.html", "index.php"] {
        let (was, is) = (format!("{tree}/{name}"), format!("{restored}/{name}"));
        assert!(fs::read(was).unwrap() == fs::read(is).unwrap(), "{name}");
    }
    assert!(!fs::exists(format!("{to}/.backstay-stage-to")).unwrap());

    // What is whole is not begun again.
    let again = alone.run(&["restore", "--to", &to]);
    assert!(again.contains("it is not empty"), "{again}");
}
