//! How the engine grows: first and unchanged runs over synthetic trees of 10,000 to 10,000,000
//! files, one file read by who knows nothing else, one change in a directory of a million, and
//! pruning what half of the chunks were for.
//!
//! `cargo run --release -p ops --example scale -- DIRECTORY COUNT…` prints a row for each step,
//! with the largest resident set of a process that did nothing else. The directory needs about
//! 500 bytes for each file, and is emptied before each count. `xtask/bench.sh` starts it as
//! `make bench SETS=scale`.
#![expect(
    clippy::print_stdout,
    reason = "this is a command that talks to people"
)]

mod source;

use std::error::Error;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use destinations::{LocalScratch, LocalStore};
use edge::{Clock, Entropy, Silent, TreePath};
use model::{DestinationName, Instant};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike as _;
use repository::{
    BackupOptions, CheckDepth, Domain, PruneOptions, Repack, Replica, ScheduleKey, Tuning, View,
    back_up,
};
use source::{Shape, Synthetic};
use testkit::{CollectingTarget, RecordingStore};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Files of one directory, but where one has all.
const PER_DIRECTORY: u64 = 1000;
/// Every such file is changed before the last run.
const CHANGED_EVERY: u64 = 2;

struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Instant {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let secs = since.map_or(0, |since| since.as_secs());
        Instant::from_secs(i64::try_from(secs).unwrap_or(0))
    }
}

struct SystemEntropy;

impl Entropy for SystemEntropy {
    fn fill(&self, bytes: &mut [u8]) {
        if getrandom::fill(bytes).is_err() {
            std::process::abort();
        }
    }
}

fn main() -> Result<()> {
    // As the programs do.
    safefs::give_large_blocks_back();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.as_slice() {
        [step, directory, count] if step.starts_with("step-") => {
            let count = count.parse()?;
            let said = run_step(step, Path::new(directory), count)?;
            let (cpu, peak) = cost()?;
            println!("{cpu:.4} {peak} {said}");
            Ok(())
        }
        [directory, counts @ ..] if !counts.is_empty() => {
            println!(
                "{:<12}{:<12}{:>10}{:>10}{:>12}  stored or freed",
                "files", "step", "cpu s", "us/file", "peak MiB"
            );
            counts
                .iter()
                .try_for_each(|count| measure(directory, count.parse()?))
        }
        _ => Err("usage: scale DIRECTORY COUNT…".into()),
    }
}

/// Takes every step in a process of its own.
fn measure(directory: &str, count: u64) -> Result<()> {
    let own = std::env::current_exe()?;
    let trees = [
        "step-first",
        "step-unchanged",
        "step-one-file",
        "step-verify",
        "step-changed",
        "step-prune",
    ];
    let wide = ["step-wide-first", "step-wide-changed"];
    for steps in [trees.as_slice(), wide.as_slice()] {
        if steps == wide && count != 1_000_000 {
            continue;
        }
        if Path::new(directory).exists() {
            fs::remove_dir_all(directory)?;
        }
        fs::create_dir_all(Path::new(directory).join("cache"))?;
        fs::create_dir_all(Path::new(directory).join("repository"))?;
        for step in steps {
            let output = Command::new(&own)
                .args([step, directory, &count.to_string()])
                .output()?;
            let said = String::from_utf8(output.stdout)?;
            let mut words = said.trim_end().splitn(3, ' ');
            let (Some(cpu), Some(peak), Some(rest)) = (words.next(), words.next(), words.next())
            else {
                let why = String::from_utf8_lossy(&output.stderr).into_owned();
                return Err(format!("{step} of {count} files: {why}").into());
            };
            let (cpu, peak): (f64, u64) = (cpu.parse()?, peak.parse()?);
            #[expect(clippy::cast_precision_loss, reason = "for people")]
            let each = cpu * 1e6 / count as f64;
            let name = step.trim_start_matches("step-");
            println!(
                "{count:<12}{name:<12}{cpu:>10.2}{each:>10.2}{:>12}  {rest}",
                peak / 1024
            );
        }
    }
    fs::remove_dir_all(directory)?;
    Ok(())
}

fn run_step(step: &str, directory: &Path, count: u64) -> Result<String> {
    let shape = |per_directory, changed| Shape {
        count,
        per_directory,
        changed,
    };
    match step {
        "step-first" | "step-unchanged" => run(directory, shape(PER_DIRECTORY, None)),
        "step-changed" => run(directory, shape(PER_DIRECTORY, Some(CHANGED_EVERY))),
        "step-wide-first" => run(directory, shape(count, None)),
        "step-wide-changed" => run(directory, shape(count, Some(count))),
        "step-one-file" => one_file(directory, count),
        "step-verify" => verify(directory),
        "step-prune" => prune(directory),
        _ => Err("no such step".into()),
    }
}

fn domain(directory: &Path) -> Result<Domain> {
    let store = Arc::new(LocalStore::open(&directory.join("repository"))?);
    let cache = directory.join("cache");
    let key = ScheduleKey::from_bytes([7; 32]);
    let domain = Domain::create(store, &key, &SystemEntropy, "scale")?;
    Ok(domain
        .with_cache(Arc::new(LocalStore::open(&cache)?))
        .with_scratch(Arc::new(LocalScratch::new(&cache))))
}

fn run(directory: &Path, shape: Shape) -> Result<String> {
    let replica = Replica {
        name: DestinationName::new("here")?,
        domain: domain(directory)?,
    };
    let options = BackupOptions {
        schedule: "scale",
        host: "here",
        run: None,
        roots: &[],
        paths: &[],
        compare_by: &[],
        tuning: Tuning::default(),
        clock: &SystemClock,
        entropy: &SystemEntropy,
        monitor: &Silent,
    };
    let report = back_up(vec![replica], &options, &mut Synthetic::new(shape));
    let replica = report.replicas.into_iter().next().ok_or("no replica")?;
    if let Some(error) = replica.error {
        return Err(repository::chain(&error).into());
    }
    let counts = report.counts;
    Ok(format!(
        "{} bytes stored; {} of {} entries as before",
        replica.stored_bytes.get(),
        counts.unchanged,
        counts.entries
    ))
}

/// Restores one file from the middle, as a machine does that knows nothing but the key.
fn one_file(directory: &Path, count: u64) -> Result<String> {
    let store = Arc::new(RecordingStore::new(Arc::new(LocalStore::open(
        &directory.join("repository"),
    )?)));
    let key = ScheduleKey::from_bytes([7; 32]);
    let domain = Domain::open(store.clone(), &key)?;
    let snapshot = domain.snapshots()?.snapshots.pop().ok_or("no snapshot")?;
    let path = TreePath::parse(source::name(count / 2, PER_DIRECTORY).as_bytes())?;
    let mut target = CollectingTarget::default();
    let report = View::open(domain)?.restore(&snapshot, &[path], &mut target, &Silent)?;
    if report.failed > 0 || report.bytes.get() == 0 {
        return Err(format!("{:?}", report.failures.first()).into());
    }
    let asked = store.take_requests();
    Ok(format!(
        "{} requests: {} parts, {} objects, {} listings; {} bytes read",
        asked.ranges + asked.gets + asked.lists + asked.sizes,
        asked.ranges,
        asked.gets,
        asked.lists,
        asked.bytes_read
    ))
}

fn verify(directory: &Path) -> Result<String> {
    let view = View::open(domain(directory)?)?;
    let report = view.check(CheckDepth::Structure, &Silent)?;
    if !report.is_sound() {
        return Err(format!("{:?}", report.damage.first()).into());
    }
    Ok(format!("{} packs in order", report.packs))
}

/// Forgets all snapshots but the last.
fn prune(directory: &Path) -> Result<String> {
    let domain = domain(directory)?;
    let mut snapshots = domain.snapshots()?.snapshots;
    snapshots.pop();
    let ids: Vec<_> = snapshots.iter().map(|snapshot| snapshot.id).collect();
    domain.forget(&ids)?;
    let options = PruneOptions {
        grace_secs: 0,
        trash_secs: 0,
        strays: false,
        repack: Some(Repack::default()),
        clock: &SystemClock,
        entropy: &SystemEntropy,
        monitor: &Silent,
    };
    let report = domain.prune(&options)?;
    Ok(format!(
        "{} bytes freed, {} bytes moved, {} packs deleted",
        report.freed_bytes.get(),
        report.moved_bytes.get(),
        report.deleted_packs
    ))
}

/// Gives the processor time of this process in seconds and its largest resident set in KiB. Ticks of `/proc` would be too
/// coarse for small counts.
fn cost() -> Result<(f64, u64)> {
    let used = getrusage(UsageWho::RUSAGE_SELF)?;
    let micros = used.user_time().num_microseconds() + used.system_time().num_microseconds();
    let cpu = Duration::from_micros(u64::try_from(micros)?).as_secs_f64();
    Ok((cpu, u64::try_from(used.max_rss())?))
}
