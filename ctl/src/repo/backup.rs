//! `repo backup`: files and directories of this machine become a snapshot.

use std::path::PathBuf;

use clap::Args;
use model::{ByteCount, Exit, SnapshotId};
use ops::{
    Checkpoints, Compression, RepositoryError, RunLimits, TreeBackup, TreeBackupError,
    TreeSnapshot, Tuning,
};
use serde::Serialize;

use super::{
    FAILURES_SHOWN_MAX, SystemClock, SystemEntropy, host_name, open_for_writing, show_failures,
};
use crate::problem::Problem;
use crate::reach::{RepoArguments, repository_problem};
use crate::screen::{Screen, Tone, plain, toned};
use crate::watch::Watch;

/// A pack would take hours with less.
const RATE_MIN: ByteCount = ByteCount::new(10_000);
/// Nothing moves with less.
const MEMORY_MIN: ByteCount = ByteCount::new(24 << 20);

/// What to back up.
#[derive(Debug, Args)]
pub struct BackupArguments {
    /// Files and directories, with everything below them on the same file system; no directory on
    /// the way may be a symbolic link
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// Leave out what matches: a name, or with '/' a path below PATH; '*', '?', '[a-z]' and '**'
    #[arg(long, value_name = "PATTERN")]
    exclude: Vec<String>,
    /// How hard to compress: 0 is not at all, 9 is slow; "auto" follows what the backup waits for
    #[arg(long, value_name = "LEVEL", default_value = "3", value_parser = compression)]
    compression: Compression,
    #[command(flatten)]
    limits: LimitArguments,
    /// Read this share of the unchanged files all the same, others each time, and tell which have
    /// other content though nothing says that they changed
    #[arg(long, value_name = "PERCENT", default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=100))]
    reread_share: u8,
    /// Write down so often how far the backup is, such as 1m: where it is cut off, the next one goes on from there.
    /// Each time what was read so far is stored; with 0s that is after every file
    #[arg(long, value_name = "SPAN", value_parser = settings::seconds, default_value = "5m")]
    checkpoint_every: u64,
    /// The machine's name to keep with the snapshot; this machine's if not given
    #[arg(long, value_name = "NAME")]
    host: Option<String>,
    /// Keep here what makes the next backup faster; with a key that may only add, unchanged files are
    /// left unread only so
    #[arg(long, value_name = "DIR")]
    cache_dir: Option<PathBuf>,
    #[command(flatten)]
    repo: RepoArguments,
}

/// What the backup may use.
#[derive(Debug, Args)]
struct LimitArguments {
    /// Send at most this much in a second, such as 5MB; kept over some seconds, since a pack goes
    /// out in one piece
    #[arg(long, value_name = "SIZE", value_parser = rate)]
    limit_upload: Option<ByteCount>,
    /// Read at most this much in a second from the repository
    #[arg(long, value_name = "SIZE", value_parser = rate)]
    limit_download: Option<ByteCount>,
    /// Use at most this much of all processors
    #[arg(long, value_name = "PERCENT", value_parser = clap::value_parser!(u8).range(1..=100))]
    limit_cpu: Option<u8>,
    /// Hold at most about this much content in memory, such as 48MiB; 64MiB if not given. The
    /// program and what it knows of the repository come on top
    #[arg(long, value_name = "SIZE", value_parser = memory)]
    limit_memory: Option<ByteCount>,
}

impl LimitArguments {
    const fn limits(&self) -> RunLimits {
        RunLimits {
            upload_per_sec: self.limit_upload,
            download_per_sec: self.limit_download,
            cpu_percent: self.limit_cpu,
            memory: self.limit_memory,
        }
    }
}

fn compression(text: &str) -> Result<Compression, String> {
    match text.parse() {
        _ if text == "auto" => Ok(Compression::Auto),
        Ok(level @ 0..=9) => Ok(Compression::Level(level)),
        _ => Err("write a number from 0 to 9, or \"auto\"".to_owned()),
    }
}

fn rate(text: &str) -> Result<ByteCount, String> {
    match settings::bytes(text)? {
        slow if slow < RATE_MIN => Err(format!("is less than {RATE_MIN} a second")),
        rate => Ok(rate),
    }
}

fn memory(text: &str) -> Result<ByteCount, String> {
    match settings::bytes(text)? {
        little if little < MEMORY_MIN => Err(format!("is less than {MEMORY_MIN}, which is needed")),
        enough => Ok(enough),
    }
}

/// What was backed up, for programs.
#[derive(Serialize)]
struct Ended {
    snapshot: SnapshotId,
    entries: u64,
    unchanged: u64,
    failed: u64,
    total_bytes: ByteCount,
    read_bytes: ByteCount,
    stored_bytes: ByteCount,
    failures: Vec<String>,
    silent_changes: Vec<String>,
}

pub(super) fn backup(arguments: &BackupArguments, screen: &mut Screen) -> Result<Exit, Problem> {
    let (domain, _lock) = open_for_writing(&arguments.repo)?;
    let domain = match &arguments.cache_dir {
        Some(directory) => ops::with_cache_at(domain, directory).map_err(|error| {
            let what = format!("cannot use {} as cache", directory.display());
            Problem::new(Exit::Failed, what).because(&error)
        })?,
        None => domain,
    };
    let watch = Watch::that_heeds_signals("backup").map_err(|error| {
        let what = "cannot heed signals; nothing was backed up";
        Problem::new(Exit::Failed, what).because(&error)
    })?;
    let host = arguments.host.clone().unwrap_or_else(host_name);
    let trees = TreeBackup {
        paths: &arguments.paths,
        excludes: &arguments.exclude,
        host: &host,
        tuning: Tuning {
            compression: arguments.compression,
            limits: arguments.limits.limits(),
            reread_percent: arguments.reread_share,
            checkpoints: Checkpoints {
                secs: u32::try_from(arguments.checkpoint_every).unwrap_or(u32::MAX),
                ..Checkpoints::default()
            },
        },
        clock: &SystemClock,
        entropy: &SystemEntropy,
        monitor: &watch,
    };
    let made = ops::back_up_trees(domain, &trees);
    drop(watch);
    let made = made.map_err(|error| problem(&error))?;
    show(&made, screen)?;
    Ok(if made.counts.failed == 0 {
        Exit::Done
    } else {
        Exit::Partial
    })
}

fn problem(error: &TreeBackupError) -> Problem {
    let what = "nothing was backed up; earlier snapshots are untouched";
    match error {
        TreeBackupError::Repository(RepositoryError::Cancelled) => Problem::new(
            Exit::Interrupted,
            "the backup was ended before it was whole; earlier snapshots are untouched",
        )
        .hint("the same command goes on where it was: nothing that is stored is sent again"),
        TreeBackupError::Repository(error) => repository_problem(what, error),
        error => Problem::new(error.exit(), what).because(error),
    }
}

fn show(made: &TreeSnapshot, screen: &mut Screen) -> Result<(), Problem> {
    let counts = &made.counts;
    if screen.is_json() {
        let failures = made.failures.iter();
        screen.json(&Ended {
            snapshot: made.id,
            entries: counts.entries,
            unchanged: counts.unchanged,
            failed: counts.failed,
            total_bytes: counts.total_bytes,
            read_bytes: counts.read_bytes,
            stored_bytes: made.stored_bytes,
            failures: failures
                .map(|one| format!("{}: {}", one.object, one.error))
                .collect(),
            silent_changes: made.silent_changes.clone(),
        })?;
        return Ok(());
    }
    for path in made.silent_changes.iter().take(FAILURES_SHOWN_MAX) {
        let text = format!("{path}: other content, though nothing says that it changed");
        screen.line(&[toned("changed   ", Tone::Warning), plain(text)])?;
    }
    show_failures(&made.failures, screen)?;
    let mut text = format!(
        "{} entries, {}; {} read, {} stored",
        counts.entries, counts.total_bytes, counts.read_bytes, made.stored_bytes
    );
    let tone = match counts.failed {
        0 => Tone::Strong,
        failed => {
            text = format!("{text}; {failed} could not be read");
            Tone::Warning
        }
    };
    screen.line(&[toned(format!("{text}."), tone)])?;
    screen.line(&[plain(format!("Snapshot {}", made.id))])?;
    Ok(())
}
