//! `repo versions`: how one path changed from snapshot to snapshot.

use clap::Args;
use model::{ByteCount, Exit, Instant, SnapshotId};
use ops::{PathTime, Version};
use serde::Serialize;

use super::{all_snapshots, open_for_reading, path_argument};
use crate::browse::{EntryRow, entry_row};
use crate::problem::Problem;
use crate::reach::{RepoArguments, repository_problem};
use crate::screen::{Screen, Table, Tone, plain, toned};
use crate::time::local;
use crate::watch::Watch;

/// Of what.
#[derive(Debug, Args)]
pub struct VersionsArguments {
    /// A file or directory, by its path in the snapshots
    #[arg(value_name = "PATH")]
    path: std::ffi::OsString,
    #[command(flatten)]
    repo: RepoArguments,
}

/// One version, for programs.
#[derive(Serialize)]
struct VersionRow {
    first_snapshot: SnapshotId,
    first_taken_at: Instant,
    last_snapshot: SnapshotId,
    last_taken_at: Instant,
    snapshots: u64,
    /// Equal numbers are equal contents.
    content: Option<usize>,
    /// Null while the path was not there.
    entry: Option<EntryRow>,
}

pub(super) fn versions(
    arguments: &VersionsArguments,
    screen: &mut Screen,
) -> Result<Exit, Problem> {
    let path = path_argument(Some(&arguments.path))?;
    let view = open_for_reading(&arguments.repo)?;
    let (snapshots, exit) = all_snapshots(&view, screen)?;
    let watch = Watch::new("versions");
    let found = view.versions(&snapshots, &path, &watch);
    drop(watch);
    let failed = format!("cannot look for the versions of {path}");
    let found = found.map_err(|error| repository_problem(&failed, &error))?;
    if found.is_empty() {
        let problem = Problem::new(Exit::Failed, format!("no snapshot holds {path}"));
        return Err(problem.hint("backstayctl repo find NAME …"));
    }
    if screen.is_json() {
        screen.json(&found.iter().map(row).collect::<Vec<_>>())?;
    } else {
        show(&found, screen)?;
    }
    Ok(exit)
}

fn row(version: &Version) -> VersionRow {
    let PathTime { snapshot, taken_at } = version.first;
    VersionRow {
        first_snapshot: snapshot,
        first_taken_at: taken_at,
        last_snapshot: version.last.snapshot,
        last_taken_at: version.last.taken_at,
        snapshots: version.snapshots,
        content: version.content,
        entry: version.entry.as_ref().map(entry_row),
    }
}

fn show(found: &[Version], screen: &mut Screen) -> Result<(), Problem> {
    let mut table = Table::new(&[
        "from",
        "to",
        ">snapshots",
        "newest snapshot",
        ">size",
        "modified",
        "content",
    ]);
    for version in found {
        let (size, modified) = match &version.entry {
            Some(entry) => (
                plain(ByteCount::new(entry.size_bytes)),
                plain(local(Instant::from_secs(entry.modified.secs))),
            ),
            None => (plain("-"), toned("not there", Tone::Faint)),
        };
        let content = version
            .content
            .map_or("-".to_owned(), |n| (n + 1).to_string());
        table.row(vec![
            plain(local(version.first.taken_at)),
            plain(local(version.last.taken_at)),
            plain(version.snapshots),
            plain(version.last.snapshot),
            size,
            modified,
            plain(content),
        ]);
    }
    screen.table(&table)?;
    Ok(())
}
