//! `backstayctl repo` is killed at random instants while it backs up, also with checkpoints and in a
//! pause, restores, lets go and deletes, verifies, brings back and seals anew: the repository opens,
//! is sound, and gives back every snapshot that it had.
//!
//! `BACKSTAY_KILLS` says how often, `BACKSTAY_SEED` from which seed.

#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]
#![expect(clippy::indexing_slicing, reason = "a test ends at the first surprise")]

#[path = "../../crates/repository/tests/common/dice.rs"]
mod dice;
mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use destinations::LocalStore;
use dice::{Dice, Plan};
use edge::{Silent, TreePath};
use model::SnapshotId;
use repository::{CheckDepth, Domain, ScheduleKey, View};
use support::Host;
use testkit::CollectingTarget;

/// Kills, unless told otherwise.
const USUAL: u64 = 40;
const FILES: usize = 24;
/// What the rules keep; the first snapshot is pinned.
const KEPT: usize = 3;
/// Files that only runs with checkpoints find new, and the least bytes of one.
const BATCH: usize = 20;
const FILE_BYTES_MIN: usize = 2_000;
/// A file that changed just before a run is read again by the next one, whatever a checkpoint says.
const STEADY_SECS: u64 = 3;
/// So long it is waited for a run to rest that was asked to.
const PATIENCE: Duration = Duration::from_millis(300);

type Contents = BTreeMap<String, Vec<u8>>;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    BackUp,
    Restore,
    Sweep,
    Verify,
    Undelete,
    Reseal,
    /// A run that writes a checkpoint after every file.
    Note,
    /// The same, asked to rest, and perhaps to go on.
    Rest,
}

const PHASES: [Phase; 8] = [
    Phase::BackUp,
    Phase::Restore,
    Phase::Sweep,
    Phase::Verify,
    Phase::Undelete,
    Phase::Reseal,
    Phase::Note,
    Phase::Rest,
];

/// A repository on a disk, and what it must give back.
struct Victim {
    host: Host,
    dice: Dice,
    tree: Contents,
    /// What each snapshot holds that was ever seen.
    known: BTreeMap<SnapshotId, Contents>,
    /// The snapshots that must be there, oldest first.
    must: Vec<SnapshotId>,
    /// How long a phase takes, as far as known.
    lasts: BTreeMap<Phase, Duration>,
    /// How many epochs were begun.
    epochs: u32,
    /// The snapshot that is brought back.
    let_go: Option<SnapshotId>,
    /// How many batches there were; the next one waits beside the tree.
    batches: usize,
    batch_bytes: u64,
}

impl Victim {
    fn new(plan: Plan) -> Self {
        let host = Host::empty();
        host.write("srv/.keep", "");
        let mut victim = Self {
            host,
            dice: Dice::new(plan.seed, 0),
            tree: Contents::new(),
            known: BTreeMap::new(),
            must: Vec::new(),
            lasts: BTreeMap::new(),
            epochs: 0,
            let_go: None,
            batches: 0,
            batch_bytes: 0,
        };
        victim.write_batch();
        for number in 0..FILES {
            victim.write(number);
        }
        victim.finish(&["init"]);
        for _ in 0..2 {
            victim.whole(Phase::BackUp);
            victim.look();
        }
        let first = victim.must.first().unwrap().to_string();
        victim.finish(&["pin", &first, "--reason", "it must stay"]);
        for phase in PHASES {
            victim.whole(phase);
            victim.look();
        }
        victim
    }

    fn noise(&mut self) -> Vec<u8> {
        let length = FILE_BYTES_MIN + self.dice.below(60_000);
        let mut bytes = Vec::with_capacity(length + 8);
        while bytes.len() < length {
            bytes.extend_from_slice(&self.dice.next().to_le_bytes());
        }
        bytes
    }

    /// Writes new files where no run looks.
    fn write_batch(&mut self) {
        let next = self.host.path("next");
        fs::create_dir_all(&next).unwrap();
        for number in 0..BATCH {
            let bytes = self.noise();
            fs::write(format!("{next}/file{number}"), bytes).unwrap();
        }
    }

    /// Puts new files into the tree that changed long ago, as do all others in it, in the place of
    /// those of the last time. All else is in a snapshot.
    fn put_batch(&mut self) {
        let last = self.host.path(&format!("tree/batch{}", self.batches));
        if self.batches > 0 {
            fs::remove_dir_all(&last).unwrap();
            self.tree.retain(|path, _| !path.starts_with(&last));
        }
        self.batches += 1;
        let next = self.host.path("next");
        let files: Vec<_> = (0..BATCH).map(|n| format!("{next}/file{n}")).collect();
        let all = self.tree.keys().chain(&files);
        let written = all.map(|path| fs::metadata(path).unwrap().modified().unwrap());
        let steady = written.max().unwrap() + Duration::from_secs(STEADY_SECS);
        while SystemTime::now() < steady {
            std::thread::sleep(Duration::from_millis(20));
        }
        let tree = self.host.path("tree");
        self.finish(&["backup", &tree]);
        self.look();
        let batch = self.host.path(&format!("tree/batch{}", self.batches));
        // The files themselves do not change by that.
        fs::rename(&next, &batch).unwrap();
        self.batch_bytes = 0;
        for number in 0..BATCH {
            let path = format!("{batch}/file{number}");
            let bytes = fs::read(&path).unwrap();
            self.batch_bytes += bytes.len() as u64;
            self.tree.insert(path, bytes);
        }
        self.write_batch();
    }

    /// True while no snapshot has the new files: then they are as good for another try.
    fn has_new_batch(&self) -> bool {
        let file = self.host.path(&format!("tree/batch{}/file0", self.batches));
        let is_known = self.known.values().any(|files| files.contains_key(&file));
        self.batches > 0 && !is_known
    }

    fn write(&mut self, number: usize) {
        let bytes = self.noise();
        let path = self
            .host
            .path(&format!("tree/dir{}/file{number}", number % 3));
        fs::create_dir_all(Path::new(&path).parent().unwrap()).unwrap();
        fs::write(&path, &bytes).unwrap();
        self.tree.insert(path, bytes);
    }

    /// Gives the file with the key of the newest epoch.
    fn key(&self) -> String {
        match self.epochs {
            0 => self.host.path("key"),
            number => self.host.path(&format!("key{number}")),
        }
    }

    fn command(&self, verb: &[&str]) -> Command {
        let mut words = vec!["repo"];
        words.extend(verb);
        let (repo, key) = (self.host.path("srv/backup"), self.key());
        words.extend(["--repo", &repo, "--key-file", &key]);
        let mut command = self.host.command(&words);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        command
    }

    fn finish(&self, verb: &[&str]) {
        let mut command = self.command(verb);
        command.stderr(Stdio::piped());
        let output = command.output().unwrap();
        assert!(
            output.status.success(),
            "{verb:?}: {}",
            self.host.shown(&output)
        );
    }

    fn verb(&self, phase: Phase) -> Vec<String> {
        let words: Vec<String> = match phase {
            Phase::BackUp => vec!["backup".into(), self.host.path("tree")],
            Phase::Note | Phase::Rest => {
                let every = ["--checkpoint-every".into(), "0s".into()];
                let mut words = vec!["backup".into(), self.host.path("tree")];
                words.extend(every);
                words
            }
            Phase::Restore => vec!["restore".into(), "--to".into(), self.host.path("out")],
            Phase::Sweep => "forget --keep-last 3 --grace 0s --trash 0s --repack --repack-over 0"
                .split(' ')
                .map(str::to_owned)
                .collect(),
            Phase::Verify => vec!["verify".into()],
            Phase::Undelete => {
                let id = self.let_go.unwrap().to_string();
                vec!["undelete".into(), id]
            }
            Phase::Reseal => "prune --reseal --grace 0s --force"
                .split(' ')
                .map(str::to_owned)
                .collect(),
        };
        words
    }

    fn prepare(&mut self, phase: Phase) {
        drop(fs::remove_dir_all(self.host.path("out")));
        match phase {
            Phase::BackUp => {
                for _ in 0..3 {
                    let number = self.dice.below(FILES);
                    self.write(number);
                }
            }
            Phase::Note | Phase::Rest if !self.has_new_batch() => self.put_batch(),
            _ => {}
        }
        if phase == Phase::Undelete {
            let id = *self.must.last().unwrap();
            self.finish(&["forget", &id.to_string(), "--force"]);
            self.let_go = Some(id);
        }
        if phase == Phase::Reseal {
            let key = self.host.path(&format!("key{}", self.epochs + 1));
            self.finish(&["key", "new-epoch", "--new-key-file", &key, "--yes"]);
            self.epochs += 1;
        }
    }

    fn whole(&mut self, phase: Phase) {
        self.prepare(phase);
        let begun = Instant::now();
        let verb = self.verb(phase);
        self.finish(&verb.iter().map(String::as_str).collect::<Vec<_>>());
        self.lasts.insert(phase, begun.elapsed());
    }

    /// Kills a phase at some instant; false when it had ended before.
    fn kill(&mut self, phase: Phase) -> bool {
        self.prepare(phase);
        let verb = self.verb(phase);
        let words: Vec<&str> = verb.iter().map(String::as_str).collect();
        let mut child = self.command(&words).spawn().unwrap();
        let lasts = self.lasts[&phase];
        let share = u32::try_from(self.dice.below(1000)).unwrap();
        // Nothing is waited for: the instant itself is what is drawn.
        std::thread::sleep(lasts * share / 1000);
        if phase == Phase::Rest {
            self.make_rest(&mut child);
        }
        // One that hears a signal before it heeds it is killed by that.
        let has_ended = child
            .try_wait()
            .unwrap()
            .is_some_and(|status| status.success());
        child.kill().unwrap();
        child.wait().unwrap();
        let next = if has_ended {
            lasts * 9 / 10
        } else {
            lasts * 101 / 100
        };
        self.lasts.insert(phase, next.max(Duration::from_millis(2)));
        !has_ended
    }

    /// Asks a run to rest, and perhaps to go on after a while.
    fn make_rest(&mut self, child: &mut Child) {
        let id = child.id().to_string();
        // Until it was waited for, the number is its own.
        let signal = |name: &str| {
            let mut kill = Command::new("kill");
            kill.args([name, &id]).stderr(Stdio::null());
            assert!(kill.status().is_ok());
        };
        signal("-USR1");
        let began = Instant::now();
        while self.checkpoints().is_empty() && began.elapsed() < PATIENCE {
            if child.try_wait().unwrap().is_some() {
                return;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        if self.dice.below(2) == 0 && child.try_wait().unwrap().is_none() {
            signal("-USR2");
        }
        let share = u32::try_from(self.dice.below(1000)).unwrap();
        std::thread::sleep(self.lasts[&Phase::Rest] * share / 1000);
    }

    /// Gives the names of the checkpoints that there are.
    fn checkpoints(&self) -> Vec<String> {
        let mut names = Vec::new();
        for domain in fs::read_dir(self.host.path("srv/backup/w"))
            .into_iter()
            .flatten()
        {
            for object in fs::read_dir(domain.unwrap().path()).into_iter().flatten() {
                let name = object.unwrap().file_name().into_string().unwrap();
                names.extend(name.starts_with("checkpoint-").then_some(name));
            }
        }
        names
    }

    /// Backs up after a run with a checkpoint was killed: what that has is not read again.
    fn go_on(&mut self) {
        let tree = self.host.path("tree");
        let mut command = self.command(&["backup", &tree, "--json"]);
        let output = command.stdout(Stdio::piped()).output().unwrap();
        let said: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let read = said["read_bytes"].as_u64().unwrap();
        let all = self.batch_bytes;
        assert!(
            read + FILE_BYTES_MIN as u64 <= all,
            "{read} of {all}: {said}"
        );
        assert_eq!(self.checkpoints(), Vec::<String>::new());
    }

    /// Opens the repository as it was left and holds it to what it must have.
    fn look(&mut self) {
        let store = LocalStore::open(Path::new(&self.host.path("srv/backup"))).unwrap();
        let key = fs::read_to_string(self.key()).unwrap();
        let key = ScheduleKey::parse(&key).unwrap();
        let view = View::open(Domain::open(Arc::new(store), &key).unwrap()).unwrap();
        if let Some(id) = self.let_go.take() {
            let trash = view.domain().trash().unwrap();
            let is_in_trash = trash.iter().any(|trashed| trashed.snapshot.id == id);
            // One that a killed re-seal left under two names may be in both places.
            let is_listed = view.domain().snapshot(id).is_ok();
            assert!(is_listed || is_in_trash, "{id}");
            if !is_listed {
                self.finish(&["undelete", &id.to_string()]);
            }
        }
        let report = view.check(CheckDepth::Structure, &Silent).unwrap();
        assert!(report.is_sound(), "{report:?}");
        let list = view.domain().snapshots().unwrap();
        assert!(list.unreadable.is_empty());
        let listed: BTreeSet<_> = list.snapshots.iter().map(|snapshot| snapshot.id).collect();
        for id in &self.must {
            assert!(listed.contains(id), "{id} is gone");
        }
        let old = self.dice.below(list.snapshots.len());
        for (number, snapshot) in list.snapshots.iter().enumerate() {
            let is_new = !self.known.contains_key(&snapshot.id);
            if is_new {
                self.known.insert(snapshot.id, self.tree.clone());
            }
            if is_new || number == old {
                restore(&view, snapshot, &self.known[&snapshot.id]);
            }
        }
        let mut must: Vec<_> = list.snapshots.iter().map(|snapshot| snapshot.id).collect();
        // The rules keep the newest, a pin the first.
        if must.len() > KEPT {
            must.drain(1..must.len() - KEPT + 1);
        }
        self.must = must;
    }
}

/// Restores a snapshot and compares it with what was backed up.
fn restore(view: &View, snapshot: &repository::Snapshot, expected: &Contents) {
    let mut target = CollectingTarget::default();
    let report = view
        .restore(snapshot, &[TreePath::root()], &mut target, &Silent)
        .unwrap();
    assert_eq!(report.failures, []);
    let files: Contents = target
        .collected()
        .into_iter()
        .filter(|(_, file)| file.entry.kind == edge::EntryKind::File)
        .map(|(path, file)| (path.to_string(), file.bytes))
        .collect();
    assert!(files == *expected, "{} is another tree", snapshot.id);
}

#[test]
fn a_killed_process_loses_nothing_and_needs_no_repair() {
    let plan = Plan::from_environment("BACKSTAY_KILLS", USUAL);
    println!("{plan:?}");
    let mut victim = Victim::new(plan);
    let mut killed: BTreeMap<Phase, u64> = BTreeMap::new();
    let mut ended = 0;
    for phase in PHASES.iter().copied().cycle() {
        if killed.values().sum::<u64>() >= plan.count {
            break;
        }
        loop {
            let is_killed = victim.kill(phase);
            victim.look();
            let has_noted = !victim.checkpoints().is_empty();
            if has_noted {
                victim.go_on();
                victim.look();
            }
            // Of runs that note how far they are those count that had.
            let is_noting = matches!(phase, Phase::Note | Phase::Rest);
            if is_killed && (has_noted || !is_noting) {
                break;
            }
            ended += 1;
            assert!(ended < 200 + plan.count, "it always ends before");
        }
        *killed.entry(phase).or_default() += 1;
    }
    println!("{killed:?}, {ended} ended before, or before a checkpoint");
    assert_eq!(killed.len(), PHASES.len());
    victim.whole(Phase::BackUp);
    victim.whole(Phase::Sweep);
    victim.look();
    victim.whole(Phase::Verify);
    victim.whole(Phase::Restore);
    let out = victim.host.path("out");
    for (path, bytes) in &victim.tree {
        assert!(
            fs::read(format!("{out}{path}")).unwrap() == *bytes,
            "{path}"
        );
    }
}
