//! Disks that are full, may not be written, or are away: one clear message each, and what was there
//! stays. The disks are real file systems, in a mount namespace that ends with the commands.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::support::Host;

/// A machine whose repository is on a disk of its own, at `/disk`.
struct Machine {
    host: Host,
}

impl Machine {
    fn new() -> Self {
        let host = Host::empty();
        host.write("disk/.keep", "");
        fs::remove_file(host.path("disk/.keep")).unwrap();
        host.write("tree/index.php", "<?php // first\n");
        Self { host }
    }

    /// Writes a file of the tree that does not compress.
    fn write_noise(&self, name: &str, length: usize) {
        let mut state = length as u64 | 1;
        let mut bytes = Vec::with_capacity(length + 8);
        while bytes.len() < length {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            bytes.extend_from_slice(&state.to_le_bytes());
        }
        let path = self.host.path(&format!("tree/{name}"));
        fs::create_dir_all(Path::new(&path).parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    /// Runs a script where nobody else sees its mounts; gives what it said, ids and sizes masked.
    /// `ctl VERB …` in it runs `backstayctl repo` on the repository, all streams as one.
    fn script(&self, script: &str) -> String {
        let root = self.host.path("");
        let root = root.trim_end_matches('/');
        let program = env!("CARGO_BIN_EXE_backstayctl");
        let text = format!(
            "set -eu\nroot={root}\nexport TZ=UTC TMPDIR={root}\n\
             ctl() {{ verb=$1; shift; echo \"\\$ $verb $*\"; \
             {program} --root $root repo $verb \"$@\" --repo $root/disk/backup --key-file $root/key 2>&1 || echo \"exit $?\"; }}\n\
             {script}\n"
        );
        let mut command = Command::new("unshare");
        if !is_root() {
            command.arg("--map-root-user");
        }
        let output = command
            .args(["--mount", "--propagation", "private", "bash", "-c", &text])
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}{complaint}");
        masked(&said.replace(root, ""))
    }
}

fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt as _;
    fs::metadata("/proc/self").unwrap().uid() == 0
}

/// Masks ids, sizes and times, which differ each time, and the kind of a pack: both kinds are stored
/// side by side, and either meets the fault first.
fn masked(text: &str) -> String {
    let mut shown = Vec::new();
    for line in text.lines() {
        let words: Vec<String> = line.split(' ').map(mask_word).collect();
        shown.push(words.join(" "));
    }
    shown.join("\n")
}

fn mask_word(word: &str) -> String {
    let parts: Vec<&str> = word.split('/').collect();
    let is_id = |part: &str| {
        let digits = part.trim_end_matches([':', ',', ';', '.']);
        let digits = digits.rsplit('-').next().unwrap_or_default();
        digits.len() >= 8 && digits.bytes().all(|b| b.is_ascii_hexdigit())
    };
    let mut masked: Vec<String> = Vec::new();
    for (at, part) in parts.iter().enumerate() {
        let next_is_id = parts.get(at + 1).is_some_and(|next| is_id(next));
        let names_id = parts.get(at + 2).is_some_and(|name| is_id(name));
        if names_id && ["m", "p"].contains(part) {
            masked.push("[pack]".to_owned());
        } else if is_id(part) || part.len() == 2 && next_is_id {
            masked.push("[id]".to_owned());
        } else if part.bytes().next().is_some_and(|b| b.is_ascii_digit()) && part.contains('.') {
            masked.push("[n]".to_owned());
        } else {
            masked.push((*part).to_owned());
        }
    }
    masked.join("/")
}

/// The lines that a script says of one verb.
fn said<'t>(all: &'t str, verb: &str) -> &'t str {
    let from = all.find(&format!("$ {verb}")).unwrap();
    let rest = &all[from..];
    let end = rest[1..].find("\n$ ").map_or(rest.len(), |at| at + 1);
    &rest[..end]
}

#[test]
fn a_full_disk_is_named_and_everything_on_it_stays() {
    let machine = Machine::new();
    machine.write_noise("first", 200_000);
    let all = machine.script(
        "mount -t tmpfs -o size=1500k none $root/disk\n\
         ctl init >/dev/null\n\
         ctl backup $root/tree >/dev/null\n\
         head -c 3000000 /dev/urandom >$root/tree/large\n\
         ctl backup $root/tree --compression 0\n\
         ctl verify\n\
         ctl restore --to $root/out\n\
         cmp $root/tree/first $root/out$root/tree/first\n\
         ctl forget --keep-last 1 --grace 0s --trash 0s\n\
         ctl prune --grace 0s --trash 0s\n\
         rm $root/tree/large\n\
         echo more >>$root/tree/index.php\n\
         ctl backup $root/tree\n\
         ctl snapshots\n",
    );
    insta::assert_snapshot!("full_disk", said(&all, "backup"));
    for verb in ["verify", "restore", "forget", "prune"] {
        assert!(!said(&all, verb).contains("\nexit "), "{all}");
    }
    let last = all.rfind("$ backup").unwrap();
    assert!(!all[last..].contains("\nexit "), "{all}");
}

/// Packs of 8 MiB and more go past the page cache, where the file system has a way.
#[test]
fn a_disk_that_is_full_in_the_middle_of_a_long_pack_keeps_nothing_of_it() {
    let machine = Machine::new();
    machine.write_noise("first", 200_000);
    let all = machine.script(
        "mount -t tmpfs -o size=19m none $root/disk\n\
         ctl init >/dev/null\n\
         ctl backup $root/tree >/dev/null\n\
         head -c 40000000 /dev/urandom >$root/tree/large\n\
         ctl backup $root/tree\n\
         echo unfinished: $(find $root/disk -name '*tmp*' | wc -l)\n\
         rm $root/tree/large\n\
         ctl backup $root/tree\n\
         ctl verify\n\
         ctl restore --to $root/out\n\
         cmp $root/tree/first $root/out$root/tree/first\n",
    );
    let full = said(&all, "backup");
    assert!(full.contains("No space left on device"), "{all}");
    assert!(full.contains("\nunfinished: 0"), "{all}");
    let rest = &all[full.len()..];
    assert!(!rest.contains("\nexit "), "{all}");
}

#[test]
fn a_disk_that_may_not_be_written_is_read_all_the_same() {
    let machine = Machine::new();
    machine.write_noise("first", 200_000);
    let all = machine.script(
        "mount -t tmpfs -o size=10m none $root/disk\n\
         ctl init >/dev/null\n\
         ctl backup $root/tree >/dev/null\n\
         ctl backup $root/tree >/dev/null\n\
         mount -o remount,ro $root/disk\n\
         ctl verify\n\
         ctl snapshots\n\
         ctl restore --to $root/out\n\
         cmp $root/tree/first $root/out$root/tree/first\n\
         ctl dump latest $root/tree/index.php\n\
         ctl backup $root/tree\n\
         ctl forget --keep-last 1\n\
         ctl prune\n\
         ctl pin latest --reason none\n",
    );
    for verb in ["verify", "snapshots", "restore", "dump"] {
        assert!(!said(&all, verb).contains("\nexit "), "{all}");
    }
    let refused: Vec<&str> = ["backup", "forget", "prune", "pin"]
        .iter()
        .map(|verb| said(&all, verb))
        .collect();
    // Which pack is written first is a matter of threads.
    let refused = refused.join("\n").replace("/m/", "/p/");
    insta::assert_snapshot!("read_only_disk", refused);
}

#[test]
fn a_disk_that_is_away_is_named_and_nothing_is_written_in_its_place() {
    let machine = Machine::new();
    machine.write_noise("first", 200_000);
    let all = machine.script(
        "mount -t tmpfs -o size=10m none $root/disk\n\
         ctl init >/dev/null\n\
         ctl backup $root/tree >/dev/null\n\
         umount $root/disk\n\
         ctl backup $root/tree\n\
         ctl snapshots\n\
         ctl restore --to $root/out\n\
         ctl verify\n\
         ctl forget --keep-last 1\n\
         ctl prune\n\
         ctl dump latest /x\n\
         ctl stats\n\
         find $root/disk -mindepth 1\n",
    );
    insta::assert_snapshot!("disk_away", all);
}
