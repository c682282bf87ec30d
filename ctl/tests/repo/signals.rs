//! A backup by hand that is asked to stop or to rest: what it has so far is kept.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::Alone;

/// Long enough for the slowest machine; nobody waits for it where all goes well.
const PATIENCE: Duration = Duration::from_secs(120);

const BYTES: usize = 32_000_000;

impl Alone {
    /// Begins a backup of something large to a place so slow that it lasts some seconds.
    fn begin_slow_backup(&self) -> Child {
        let mut state = 7_u64;
        // More than may be under way at a time, so that the rest is still to be read.
        let noise: Vec<u8> = std::iter::repeat_with(|| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()
        })
        .take(BYTES / 8)
        .flatten()
        .collect();
        fs::write(self.host.path("tree/noise"), noise).unwrap();
        let tree = self.host.path("tree");
        let limits = ["--limit-upload", "5MB", "--limit-memory", "24MiB"];
        let words = self.words(&[&["backup", &tree], &limits[..]].concat());
        let words: Vec<_> = words.iter().map(String::as_str).collect();
        let mut command = self.host.command(&words);
        let child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        self.wait_until("a pack is stored", || self.count("/p/", "") > 0);
        child
    }

    /// Counts objects whose name has both parts.
    fn count(&self, folder: &str, part: &str) -> usize {
        let mut folders = vec![self.host.path("srv/backup")];
        let mut count = 0;
        while let Some(next) = folders.pop() {
            for entry in fs::read_dir(Path::new(&next)).into_iter().flatten() {
                let entry = entry.unwrap();
                let path = entry.path().display().to_string();
                let is_temporary = entry.file_name().to_string_lossy().starts_with('.');
                if Path::new(&path).is_dir() {
                    folders.push(path);
                } else if path.contains(folder) && path.contains(part) && !is_temporary {
                    count += 1;
                }
            }
        }
        count
    }

    fn wait_until(&self, what: &str, is_so: impl Fn() -> bool) {
        let began = Instant::now();
        while !is_so() {
            assert!(began.elapsed() < PATIENCE, "waited for long until {what}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn signal(&self, child: &Child, signal: &str) {
        let status = Command::new("kill")
            .args([signal, &child.id().to_string()])
            .status();
        assert!(status.unwrap().success());
    }
}

#[test]
fn a_backup_that_is_interrupted_goes_on_the_next_time() {
    let alone = Alone::new();
    let child = alone.begin_slow_backup();
    alone.signal(&child, "-INT");
    let said = alone.host.shown(&child.wait_with_output().unwrap());
    insta::assert_snapshot!(said);
    assert_eq!(alone.count("/s/", ""), 0);
    assert_eq!(alone.count("/w/", "/checkpoint-"), 1);
    assert_eq!(alone.count("/w/", "/session-"), 0);
    let stored = alone.count("/p/", "");
    assert!(stored > 0);
    let again = alone.ask(&["backup", &alone.host.path("tree")]);
    let bytes = again["stored_bytes"].as_u64().unwrap();
    assert!(bytes < BYTES as u64 - 3_000_000, "{again}");
    assert_eq!(alone.count("/s/", ""), 1);
    assert_eq!(alone.count("/w/", "/checkpoint-"), 0);
}

#[test]
fn a_prune_says_that_it_waits_for_what_was_killed() {
    let alone = Alone::new();
    let mut child = alone.begin_slow_backup();
    alone.signal(&child, "-KILL");
    child.wait().unwrap();
    let told = alone.run(&["prune"]);
    assert!(told.contains("1 other run may be at work"), "{told}");
    let pruned = alone.ask(&["prune"]);
    assert_eq!(pruned["others_at_work"], 1);
    assert!(pruned["waits_until"].is_string(), "{pruned}");
}

#[test]
fn a_backup_rests_when_it_is_asked_to() {
    let alone = Alone::new();
    let child = alone.begin_slow_backup();
    alone.signal(&child, "-USR1");
    alone.wait_until("a checkpoint is stored", || {
        alone.count("/w/", "/checkpoint-") == 1
    });
    alone.signal(&child, "-USR2");
    let said = alone.host.shown(&child.wait_with_output().unwrap());
    assert!(said.ends_with("--- exit 0\n"), "{said}");
    let verified = alone.run(&["verify"]);
    assert!(verified.ends_with("--- exit 0\n"), "{verified}");
    assert_eq!(alone.count("/s/", ""), 1);
}
