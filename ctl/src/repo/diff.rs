//! `repo diff`: in what two snapshots differ, or a snapshot and this machine.

use std::ops::ControlFlow;
use std::path::PathBuf;

use clap::Args;
use model::Exit;
use ops::{Aspect, Change, LiveReport, LiveTrees, TreeBackupError, View};
use serde::Serialize;

use super::{FAILURES_SHOWN_MAX, open_for_reading, path_argument};
use crate::browse::{EntryRow, entry_row};
use crate::problem::Problem;
use crate::reach::{self, RepoArguments, repository_problem};
use crate::screen::{Screen, Tone, plain, toned};
use crate::watch::Watch;

/// Changes that one JSON document holds.
const ROWS_MAX: usize = 100_000;

/// What to compare.
#[derive(Debug, Args)]
#[command(
    override_usage = "backstayctl repo diff OLDER NEWER [--path PATH] --repo PLACE --key-file FILE\n       \
                            backstayctl repo diff SNAPSHOT --live PATH --repo PLACE --key-file FILE"
)]
pub struct DiffArguments {
    /// "latest", a snapshot's id, or the beginning of it
    #[arg(value_name = "OLDER")]
    older: String,
    /// The snapshot to compare it with
    #[arg(
        value_name = "NEWER",
        required_unless_present = "live",
        conflicts_with = "live"
    )]
    newer: Option<String>,
    /// Compare only what lies within this path of the snapshots
    #[arg(long, value_name = "PATH", conflicts_with = "live")]
    path: Option<std::ffi::OsString>,
    /// Compare with this file or directory as it is now, by kind, size, times, owner and mode; may
    /// be given several times
    #[arg(long, value_name = "PATH")]
    live: Vec<PathBuf>,
    /// Leave out what matches of the live files, as with 'repo backup'
    #[arg(long, value_name = "PATTERN", requires = "live")]
    exclude: Vec<String>,
    /// Where the snapshot keeps the live files: 'USER.UID/files' in an account's backup
    #[arg(long, value_name = "PATH", requires = "live")]
    kept_below: Option<std::ffi::OsString>,
    #[command(flatten)]
    repo: RepoArguments,
}

/// What differs, for programs.
#[derive(Serialize)]
struct Differences {
    added: u64,
    removed: u64,
    changed: u64,
    failed: u64,
    failures: Vec<String>,
    is_complete: bool,
    changes: Vec<ChangeRow>,
}

#[derive(Serialize)]
struct ChangeRow {
    change: &'static str,
    path: String,
    aspects: Vec<&'static str>,
    before: Option<EntryRow>,
    after: Option<EntryRow>,
}

/// Counts changes, and shows or keeps them.
struct Teller<'a> {
    screen: &'a mut Screen,
    counts: [u64; 3],
    rows: Vec<ChangeRow>,
    written: Result<(), Problem>,
}

pub(super) fn diff(arguments: &DiffArguments, screen: &mut Screen) -> Result<Exit, Problem> {
    let view = open_for_reading(&arguments.repo)?;
    let mut teller = Teller {
        screen,
        counts: [0; 3],
        rows: Vec::new(),
        written: Ok(()),
    };
    let watch = Watch::new("diff");
    let report = compare(arguments, &view, &watch, &mut |change| teller.tell(&change))?;
    drop(watch);
    teller.finish(report)
}

fn compare(
    arguments: &DiffArguments,
    view: &View,
    watch: &Watch,
    each: &mut dyn FnMut(Change) -> ControlFlow<()>,
) -> Result<LiveReport, Problem> {
    let older = reach::snapshot(view.domain(), &arguments.older)?;
    if let Some(newer) = &arguments.newer {
        let newer = reach::snapshot(view.domain(), newer)?;
        let below = path_argument(arguments.path.as_ref())?;
        let done = view.diff((&older, &newer), &below, watch, each);
        done.map_err(|error| repository_problem("cannot compare the snapshots", &error))?;
        return Ok(LiveReport::default());
    }
    let trees = LiveTrees {
        paths: &arguments.live,
        excludes: &arguments.exclude,
        kept_below: &path_argument(arguments.kept_below.as_ref())?,
    };
    ops::diff_trees((view, &older), &trees, watch, each).map_err(|error| match error {
        TreeBackupError::Repository(error) => {
            repository_problem("cannot compare with the snapshot", &error)
        }
        error => Problem::new(error.exit(), "cannot compare with the snapshot").because(&error),
    })
}

impl Teller<'_> {
    fn tell(&mut self, change: &Change) -> ControlFlow<()> {
        let (kind, tone, aspects) = match change {
            Change::Added(_) => (0, Tone::Good, &[][..]),
            Change::Removed(_) => (1, Tone::Bad, &[][..]),
            Change::Changed { aspects, .. } => (2, Tone::Warning, aspects.as_slice()),
        };
        if let Some(count) = self.counts.get_mut(kind) {
            *count += 1;
        }
        if self.screen.is_json() {
            if self.rows.len() < ROWS_MAX {
                self.rows.push(row(change, aspects));
            }
            return ControlFlow::Continue(());
        }
        let sign = ["+", "-", "~"].get(kind).copied().unwrap_or_default();
        let mut parts = vec![toned(format!("{sign} "), tone), plain(change.path())];
        if !aspects.is_empty() {
            let words: Vec<_> = aspects.iter().map(|aspect| aspect.word()).collect();
            parts.push(toned(format!("  ({})", words.join(", ")), Tone::Faint));
        }
        self.written = self.screen.line(&parts).map_err(Problem::from);
        if self.written.is_err() {
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    }

    fn finish(self, report: LiveReport) -> Result<Exit, Problem> {
        self.written?;
        let exit = if report.failed == 0 {
            Exit::Done
        } else {
            Exit::Partial
        };
        let [added, removed, changed] = self.counts;
        if self.screen.is_json() {
            self.screen.json(&Differences {
                added,
                removed,
                changed,
                failed: report.failed,
                failures: report.failures,
                is_complete: added + removed + changed == self.rows.len() as u64,
                changes: self.rows,
            })?;
            return Ok(exit);
        }
        for failure in report.failures.iter().take(FAILURES_SHOWN_MAX) {
            let text = model::escape(failure.as_bytes());
            self.screen
                .line(&[toned("failed    ", Tone::Bad), plain(text)])?;
        }
        let mut text = format!("{added} added, {removed} removed, {changed} changed");
        if report.failed > 0 {
            text = format!("{text}; {} could not be looked at", report.failed);
        }
        self.screen
            .line(&[toned(format!("{text}."), Tone::Strong)])?;
        Ok(exit)
    }
}

fn row(change: &Change, aspects: &[Aspect]) -> ChangeRow {
    let (word, before, after) = match change {
        Change::Added(entry) => ("added", None, Some(entry)),
        Change::Removed(entry) => ("removed", Some(entry), None),
        Change::Changed { before, after, .. } => ("changed", Some(before), Some(after)),
    };
    ChangeRow {
        change: word,
        path: change.path().to_string(),
        aspects: aspects.iter().map(|aspect| aspect.word()).collect(),
        before: before.map(entry_row),
        after: after.map(entry_row),
    }
}
