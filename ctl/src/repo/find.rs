//! `repo find`: searches names in snapshots.

use std::ops::ControlFlow;

use clap::Args;
use edge::Entry;
use model::{ByteCount, Exit, Instant, SnapshotId};
use ops::{Pattern, Snapshot};
use serde::Serialize;

use super::{all_snapshots, open_for_reading, path_argument};
use crate::browse::{EntryRow, entry_row};
use crate::problem::Problem;
use crate::reach::{self, RepoArguments, repository_problem};
use crate::screen::{Screen, Tone, plain, toned};
use crate::time::local;
use crate::watch::Watch;

/// What to search for.
#[derive(Debug, Args)]
pub struct FindArguments {
    /// A part of the name; with '*' or '?' the whole name; with '/' the whole path. Upper and lower
    /// case are the same
    #[arg(value_name = "PATTERN")]
    pattern: std::ffi::OsString,
    /// Search only this snapshot: "latest", its id, or the beginning of it
    #[arg(long, value_name = "SNAPSHOT")]
    snapshot: Option<String>,
    /// Search only below this path
    #[arg(long, value_name = "PATH")]
    path: Option<std::ffi::OsString>,
    /// End after this many
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    limit: u32,
    #[command(flatten)]
    repo: RepoArguments,
}

/// What was found, for programs.
#[derive(Serialize)]
struct Found {
    hits: Vec<HitRow>,
    is_complete: bool,
}

#[derive(Serialize)]
struct HitRow {
    snapshot: SnapshotId,
    taken_at: Instant,
    entry: EntryRow,
}

pub(super) fn find(arguments: &FindArguments, screen: &mut Screen) -> Result<Exit, Problem> {
    let view = open_for_reading(&arguments.repo)?;
    let below = path_argument(arguments.path.as_ref())?;
    let pattern = Pattern::new(arguments.pattern.as_encoded_bytes());
    let (mut snapshots, exit) = match &arguments.snapshot {
        Some(word) => (vec![reach::snapshot(view.domain(), word)?], Exit::Done),
        None => all_snapshots(&view, screen)?,
    };
    snapshots.reverse();
    let newest_first: Vec<&Snapshot> = snapshots.iter().collect();
    let mut rows: Vec<HitRow> = Vec::new();
    let mut count = 0;
    let mut written = Ok(());
    let is_json = screen.is_json();
    let watch = Watch::new("find");
    let done = view.search(&newest_first, (&below, &pattern), &watch, &mut |hit| {
        if count == arguments.limit {
            count += 1;
            return ControlFlow::Break(());
        }
        count += 1;
        if is_json {
            rows.push(HitRow {
                snapshot: hit.snapshot.id,
                taken_at: hit.snapshot.body.started_at,
                entry: entry_row(hit.entry),
            });
            return ControlFlow::Continue(());
        }
        written = show(hit.snapshot, hit.entry, screen);
        if written.is_err() {
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    });
    drop(watch);
    done.map_err(|error| repository_problem("cannot search the snapshots", &error))?;
    written?;
    let is_complete = count <= arguments.limit;
    if is_json {
        screen.json(&Found {
            hits: rows,
            is_complete,
        })?;
    } else if count == 0 {
        screen.line(&[toned("Nothing has such a name.", Tone::Faint)])?;
    } else if !is_complete {
        let limit = arguments.limit;
        let text = format!("… and more than these {limit}: search below a --path, or give --limit");
        screen.line(&[toned(text, Tone::Warning)])?;
    }
    Ok(exit)
}

fn show(snapshot: &Snapshot, entry: &Entry, screen: &mut Screen) -> Result<(), Problem> {
    let mark = if entry.kind == edge::EntryKind::Directory {
        "/"
    } else {
        ""
    };
    screen.line(&[
        plain(format!("{}  ", local(snapshot.body.started_at))),
        toned(format!("{}  ", snapshot.id), Tone::Faint),
        plain(format!(
            "{:>10}  ",
            ByteCount::new(entry.size_bytes).to_string()
        )),
        plain(format!("{}{mark}", entry.path)),
    ])?;
    Ok(())
}
